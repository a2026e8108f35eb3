"""The guide's own stack in real containers: what a look from inside it tells, and the names of the public."""

from __future__ import annotations

import pytest

from fixtures.links import Way, look
from fixtures.nginx import _AGES, read_ages, workers_of
from tests.beds.docker import ContainerFactory, Stack
from tests.beds.suite import Health as Suite
from tests.faults.docker.networks import namesake

DISCOVERED = '[runtime]\nkind = "docker"\n'
CHAPTER = "checks/network"


def test_production_name(stack: Stack, suite: Suite) -> None:
    """The same certificate under a name that the target's file says users type: a failure."""
    target = f'{DISCOVERED}[services.nginx]\nurl = "https://app.allodoc.com"\naddress = "127.0.0.1"\n'
    run = suite(CHAPTER, "-k", "trust", target=f"{target}port = {stack.ports['https']}\n")
    run.blames("tls.trust[app.allodoc.com]")
    assert "self-signed" in run.finding("tls.trust")["message"]


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


def test_a_second_backend_is_no_stranger(stack: Stack, container: ContainerFactory, suite: Suite) -> None:
    """A backend that takes over bears the name as well for a while, with the same secrets: nothing is wrong."""
    namesake(stack, container, "backend")
    assert len(look(stack.runtime, stack.states["nginx"], stack.names["backend"], 3000).addresses) == 2
    run = suite(CHAPTER, target=stack.target)
    run.is_calm()
    assert run.outcome("network.service-link[nginx-to-backend]") == "pass"
