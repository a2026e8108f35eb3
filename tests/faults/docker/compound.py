"""Several things at once: independent faults, one that causes the other, and what only looks like a cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from tests.beds.docker import PROJECT, ContainerFactory, Stack
from tests.faults.docker.consequences import API_DOWN, CACHE_DOWN, DATABASE_DOWN, PAGE_GONE
from tests.faults.docker.networks import CERTIFICATE, CONFIGURATION, KEY, SITE, certificate, install
from tests.faults.fault import Exempt, fault, steps


@fault(
    root=["service.running[frontend]", f"tls.expiry[{SITE}]"],
    may=[*PAGE_GONE, "tls.trust[*]"],
    mend={"service.running[frontend]": steps(0), f"tls.expiry[{SITE}]": steps(0)},
)
def frontend_stopped_and_certificate_expired(stack: Stack) -> Iterator[Callable[[], object]]:
    """Two faults that have nothing to do with each other: both are named."""
    old = stack.read("nginx", CERTIFICATE), stack.read("nginx", KEY)
    install(stack, *certificate(begins=-90, ends=-1), reload=True)
    stack.stop("frontend")
    yield lambda: install(stack, *old)


@fault(
    root=["service.running[redis]", "network.nginx-config"],
    may=[*CACHE_DOWN, "network.nginx-upstream"],
    mend={
        "service.running[redis]": steps(0),
        "network.nginx-config": Exempt("nginx loads nothing before the backend's name is back, some time after Redis"),
    },
    discovered=True,
)
def redis_stopped_while_nginx_is_reconfigured(stack: Stack) -> Iterator[Callable[[], object]]:
    """Somebody works on nginx' configuration when Redis goes away, which takes the backend with it."""
    good = stack.read("nginx", CONFIGURATION)
    stack.put("nginx", CONFIGURATION, good.replace("server_tokens off;", "server_token off;"))
    stack.stop("redis")
    stack.wait_until(lambda: stack.states["backend"].restart_count >= 2, 20, "the backend to loop")
    yield lambda: stack.put("nginx", CONFIGURATION, good)


@fault(
    root=["service.running[postgres]"],
    may=[*API_DOWN, *DATABASE_DOWN],
    mend=Exempt("the backend may come back at another address: then the next verdict names nginx, and has it reloaded"),
)
def postgres_stopped_then_the_backend_crashed(stack: Stack) -> Iterator[None]:
    """PostgreSQL was stopped; the backend, started again meanwhile, gives up for want of it. One causes the other."""
    stack.recreate("backend", {"DATABASE_RETRY_ATTEMPTS": "1", "DATABASE_RETRY_DELAY_MS": "50"})
    stack.stop("postgres")
    stack.restart("backend")
    stack.wait_until(lambda: stack.states["backend"].restart_count >= 2, 20, "the backend to loop")
    yield


@fault(root=["service.running[backend]"], may=API_DOWN, mend=steps(0), discovered=True)
def backend_stopped_beside_old_errors(stack: Stack) -> Iterator[None]:
    """The backend was stopped. The errors of half an hour ago in Redis' and nginx' logs have nothing to do with it."""
    then = datetime.now(UTC) - timedelta(minutes=30)
    stack.log_at("redis", then, "1:M 23 Nov 2026 12:00:00.000 # Can't save in background: fork: Cannot allocate memory")
    refused = (
        'connect() failed (111: Connection refused) while connecting to upstream, upstream: "http://10.9.8.7:3000/"'
    )
    for second in range(20):
        stack.log_at("nginx", then + timedelta(seconds=second), f"2026/11/23 12:00:00 [error] 7#7: *1 {refused}")
    stack.stop("backend")
    yield


@fault(root=["service.running[redis]"], may=CACHE_DOWN, mend=steps(0))
def redis_paused_beside_a_restart(stack: Stack) -> Iterator[None]:
    """Redis is frozen. That the frontend was started again by hand just before is a coincidence."""
    stack.restart("frontend")
    stack.follow_addresses()
    stack.pause("redis")
    yield


@fault(root=["network.nginx-upstream[allodoc_frontend_prod:4200]"], may=PAGE_GONE, mend=steps(0))
def nginx_asks_for_the_page_at_a_stale_address(stack: Stack, container: ContainerFactory) -> Iterator[None]:
    """The frontend came back with another address; the API works, and the page does not come."""
    stack.remove("frontend")
    container(network=f"{PROJECT}_allodoc")
    stack.recreate("frontend")
    stack.wait_healthy(roles=["frontend"])
    yield


BY_HAND = Exempt("compose can't take over a container that it did not make: it has to be removed first")


@fault(
    warns=["deploy.graceful-shutdown[frontend]", "service.resource-limits[frontend]", "logs.volume[frontend]"],
    mend=BY_HAND,
    discovered=True,
)
def frontend_started_by_hand(stack: Stack) -> Iterator[None]:
    """The frontend was started with docker run in a hurry: it works, without limits, rotation or restart policy."""
    stack.run_by_hand("frontend", "-p", f"127.0.0.1:{stack.ports['frontend']}:4200")
    yield
