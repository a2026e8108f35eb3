"""The guide's own stack in real containers: networks that are lost, addresses that are no more, names of the public."""

from __future__ import annotations

import pytest

from fixtures.links import Way, look
from fixtures.nginx import _AGES, read_ages, workers_of
from tests.beds.docker import PROJECT, ContainerFactory, Stack
from tests.beds.suite import Health as Suite

DISCOVERED = '[runtime]\nkind = "docker"\n'
CHAPTER = "checks/network"
SERVICE = "checks/service"
NETWORK = f"{PROJECT}_allodoc"
UPSTREAM = "network.nginx-upstream[allodoc_backend_prod:3000]"


def test_healthy_stack_is_calm(stack: Stack, suite: Suite) -> None:
    """Found without configuration: nothing red; its self-signed certificate, open to this machine alone, warns."""
    stack.wait_healthy()
    run = suite(CHAPTER, target=DISCOVERED)
    run.is_calm()
    assert run.outcome("tls.trust[app.allodoc.com]") == "warn"
    assert run.outcome("tls.http-redirect") == "warn", "it sends no Strict-Transport-Security"
    assert run.outcome("network.cors-preflight[https://app.allodoc.com]") == "pass"
    assert run.outcome("network.cors-config") == "pass"
    assert {run.outcome(f"network.service-link[nginx-to-{role}]") for role in ("backend", "frontend")} == {"pass"}


def test_production_name(stack: Stack, suite: Suite) -> None:
    """The same certificate under a name that the target's file says users type: a failure."""
    target = f'{DISCOVERED}[services.nginx]\nurl = "https://app.allodoc.com"\naddress = "127.0.0.1"\n'
    run = suite(CHAPTER, "-k", "trust", target=f"{target}port = {stack.ports['https']}\n")
    run.blames("tls.trust[app.allodoc.com]")
    assert "self-signed" in run.finding("tls.trust")["message"]


def test_stale_upstream(stack: Stack, container: ContainerFactory, suite: Suite) -> None:
    """A backend made anew at another address, an nginx that asks the old one: named, and mended by a reload."""
    old = stack.states["backend"].addresses[0]
    stack.remove("backend")
    # Whoever comes next gets the address that has become free.
    placeholder = container(network=NETWORK)
    stack.recreate("backend")
    stack.wait_healthy(roles=["backend"])
    if stack.states["backend"].addresses[0] == old:
        pytest.fail(f"the engine gave the backend its old address {old} again, beside {placeholder.state.addresses}")
    assert stack.exec("nginx", "nginx", "-t").exit_code == 0, "the guide's own test says nothing of it"
    run = suite(CHAPTER, SERVICE, target=DISCOVERED)
    run.blames(UPSTREAM)
    found = run.finding(UPSTREAM)
    assert f"asks {old}" in found["message"], run.output
    assert run.outcome("network.backend[direct]") == "pass"
    run.do(UPSTREAM, steps=[0])
    stack.wait_until(lambda: suite(CHAPTER, target=DISCOVERED).exit_status == 0, 30, "nginx to ask the new address")


def test_backend_off_the_network(stack: Stack, suite: Suite) -> None:
    """A backend that was disconnected runs and reaches nobody, and nobody reaches it: one root cause."""
    stack.disconnect("backend")
    run = suite(CHAPTER, "checks/db/test_connection_failures.py", target=DISCOVERED)
    run.blames("db.reachable-from-backend")
    found = run.finding("network.service-link[nginx-to-backend]")
    assert "backend is on no network" in found["details"]
    assert found["caused_by"] == ["network.service-link[backend-to-postgres]"]
    assert run.finding("network.nginx-config")["outcome"] == "fail", "the name is gone, so nginx -t fails, too"
    stack.recreate("backend")
    stack.wait_healthy()


def test_frontend_off_the_network(stack: Stack, suite: Suite) -> None:
    """A frontend that was disconnected: the way from nginx is to blame, and its remedy puts it back."""
    stack.disconnect("frontend")
    run = suite(CHAPTER, target=DISCOVERED)
    run.blames("network.service-link[nginx-to-frontend]")
    assert run.finding("network.nginx-upstream[allodoc_frontend_prod:4200]")["outcome"] == "fail"
    assert run.finding("network.service-link[nginx-to-frontend]")["remedy"].endswith("#a-service-is-off-the-network")


def test_nginx_off_the_network(stack: Stack, suite: Suite) -> None:
    """A disconnected nginx: everything through it is lost, the direct way is not."""
    stack.disconnect("nginx")
    run = suite(CHAPTER, target=DISCOVERED)
    run.blames("network.service-link[nginx-to-backend]")
    assert run.outcome("network.backend[direct]") == "pass"
    assert run.outcome("network.backend[edge]") == "fail"


def test_backend_stopped(stack: Stack, suite: Suite) -> None:
    """A stopped backend's name is gone, so nginx -t fails, and nginx could not be restarted: all because of that."""
    stack.stop("backend")
    run = suite(CHAPTER, SERVICE, target=DISCOVERED)
    run.blames("service.running[backend]")
    assert run.finding("network.nginx-config")["caused_by"], run.output
    run.do("network.nginx-config", steps=[0])
    stack.wait_healthy()


def test_inside_and_outside_agree(stack: Stack) -> None:
    """What a look from inside nginx' container tells of its processes is what this machine sees."""
    state = stack.states["nginx"]
    said = stack.exec("nginx", "sh", "-c", _AGES, "ages", "/etc/nginx/nginx.conf")
    processes, files = read_ages(said.stdout.decode())
    workers = workers_of(processes, files, state.pid)
    assert workers.count == 1
    assert state.started_at is not None
    assert abs((workers.began - state.started_at).total_seconds()) < 5
    assert [file.path for file in files] == ["/etc/nginx/nginx.conf"]


@pytest.mark.parametrize(
    ("host", "port", "way"),
    [
        ("allodoc_backend_prod", 3000, Way.OPEN),
        ("allodoc_backend_prod", 9, Way.REFUSED),
        ("nobody.invalid", 80, Way.UNRESOLVABLE),
    ],
)
def test_ways_from_an_image_without_node(host: str, port: int, way: Way, stack: Stack) -> None:
    """nginx' image has neither node nor python nor nc; bash tells the ways apart."""
    link = look(stack.runtime, stack.states["nginx"], host, port)
    assert (link.way, link.tool) == (way, "bash")
