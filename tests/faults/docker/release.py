"""What a deployment leaves: settings, images, limits and policies that are not as they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from allodoc_health.runtimes.interface import HealthStatus
from demo.compose.build import TAGS
from tests.beds.docker import Stack
from tests.faults.docker.consequences import API_DOWN
from tests.faults.fault import fault, steps

# A kill of a moment ago is worth a warning, too; here it is over after some seconds.
LATELY = "[limits.service]\nsince_oom = { warn = 4, fail = 4 }\n"


@fault(
    root=["service.required-env[backend]"],
    may=[*API_DOWN, "auth.jwt-secrets"],
    mend=steps(1),
    discovered=True,
)
def backend_lacks_a_variable(stack: Stack) -> Iterator[Callable[[], object]]:
    """The signing secret got lost at the last deployment: the backend gives up at each start."""
    stack.recreate("backend", {"JWT_ACCESS_SECRET": ""})
    stack.wait_until(lambda: stack.states["backend"].restart_count >= 2, 20, "the backend to loop")
    yield stack.correct


@fault(root=["service.oom-killed[backend]"], may=API_DOWN, mend=steps(0), shows=["limit"], limits=LATELY)
def backend_out_of_memory(stack: Stack) -> Iterator[None]:
    """The backend's memory limit is too small for what it does: the kernel kills it again and again."""
    stack.recreate("backend", mem_limit="44m", memswap_limit="44m")
    stack.wait_until(lambda: stack.states["backend"].restart_count >= 2, 30, "the backend to loop")
    yield


@fault(
    root=["service.resource-limits[backend]"],
    follows=["service.healthcheck[backend]"],
    may=API_DOWN,
    mend=steps(0),
    shows=["processes and threads that allodoc_backend_prod may have"],
    looks=["node"],
)
def backend_may_start_no_process(stack: Stack) -> Iterator[None]:
    """The backend may have as many threads as it has, and no more: nothing can be run in it."""
    looks = [stack.runtime.usage("backend", 5).tasks or 0 for _ in range(5)]
    stack.allow_tasks("backend", min(looks))
    unhealthy = HealthStatus.UNHEALTHY
    stack.wait_until(lambda: (health := stack.states["backend"].health) and health.status is unhealthy, 30, "it is ill")
    yield


@fault(root=["host.cpu[backend]"], may=[*API_DOWN, "logs.levels[backend]"], mend=steps(0))
def backend_short_of_processor_time(stack: Stack) -> Iterator[Callable[[], object]]:
    """The backend may use a twentieth of a core: it is throttled all the time, and everything is slow."""
    stack.allow_cores("backend", 0.05)
    yield lambda: stack.allow_cores("backend", 2)


@fault(root=["service.health-endpoint[direct]"], may=API_DOWN, mend=steps(2), shows=["HTTP 200", "unhealthy"])
def backend_says_that_it_is_unhealthy(stack: Stack) -> Iterator[None]:
    """The backend's own pool is stuck until its next start, while the database is fine; HTTP 200 comes all the same."""
    stack.misbehave(
        "import fs from 'node:fs'; const write = JSON.stringify, down = { status: 'down', error: 'no connection' };"
        "JSON.stringify = (value, ...rest) => write(value && value.status === 'healthy' && value.services"
        " && fs.existsSync('/tmp/stuck') ? { ...value, status: 'unhealthy',"
        " services: { ...value.services, database: down } } : value, ...rest);"
    )
    stack.exec("backend", "touch", "/tmp/stuck")
    yield


@fault(root=["service.healthcheck[frontend]"], mend=steps(1))
def health_check_asks_the_wrong_port(stack: Stack) -> Iterator[Callable[[], object]]:
    """The frontend's health check asks a port that was given up; the service itself works."""
    check = {"test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"], "interval": "1s", "retries": 2}
    stack.recreate("frontend", healthcheck=check)
    stack.follow_addresses()
    stack.wait_until(lambda: "unhealthy" in str(stack.states["frontend"].health), 20, "the frontend to be unhealthy")
    yield stack.correct


@fault(warns=["deploy.image-current[backend]"], mend=steps(0), discovered=True)
def image_is_stale(stack: Stack) -> Iterator[None]:
    """A newer image was built under the same tag, and the container still runs the old one."""
    name = f"allodoc/backend:{TAGS['backend']}"
    old = stack.client.images(name, quiet=True)[0]
    made = stack.client.commit(
        stack.names["backend"], "allodoc/bed-newer", "1", conf={"Labels": {"allodoc.newer": "1"}}
    )
    stack.client.tag(made["Id"], "allodoc/backend", TAGS["backend"], force=True)
    try:
        yield
    finally:
        stack.client.tag(old, "allodoc/backend", TAGS["backend"], force=True)
        stack.recreate("backend")
        stack.client.remove_image("allodoc/bed-newer:1", force=True)


@fault(warns=["deploy.graceful-shutdown[redis]"], mend=steps(0))
def no_restart_policy(stack: Stack) -> Iterator[None]:
    """Redis would not come back after a reboot of the machine."""
    stack.forget_to_restart("redis")
    yield
