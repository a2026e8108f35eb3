"""Published ports that somebody else holds, or nobody: taken for real, seen, given back."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from docker.errors import APIError

from allodoc_health.runtimes.interface import Status
from fixtures.ports import NO_PORT
from tests.beds.docker import ContainerFactory
from tests.beds.embedded import Demo
from tests.beds.suite import Health as Suite
from tests.checks.service.targets import CHAPTERS, CONTAINERS, demo_target, redis_in, shell

LISTEN = (
    "import socket, sys\n"
    "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
    "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); print('listens', flush=True)\n"
    "import time; time.sleep(600)"
)


@contextmanager
def stranger(port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process outside the stack that listens on a port."""
    command = [sys.executable, "-c", LISTEN, str(port), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listens\n"
            yield process
        finally:
            process.kill()


def free_port() -> int:
    """A port of loopback that nobody holds now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class TestPortConflict:
    """service.port-conflict"""

    def test_taken_by_a_stranger(self, demo: Demo, suite: Suite) -> None:
        """A port taken before the start: the one root cause, with pid and command and no argument; killing it mends."""
        port = demo.port("backend")
        demo.stop("backend")
        with stranger(port, "--password=canary-4711") as process:
            demo.start("backend")
            demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 1, what="the backend to fail")
            run = suite(*CHAPTERS, target=demo_target(demo.state))
            run.blames(f"service.port-conflict[{port}]")
            assert f"pid {process.pid} (python" in run.finding(f"service.port-conflict[{port}]")["message"]
            assert "canary-4711" not in run.output + str(run.snapshot)
            run.do(f"service.port-conflict[{port}]")
        demo.wait_healthy(timeout=40)
        suite(*CHAPTERS, target=demo_target(demo.state)).is_calm()

    def test_container_that_can_not_start(self, container: ContainerFactory, suite: Suite) -> None:
        """Docker leaves the container "created" with an error: the port is the root of it, giving that back mends."""
        port = free_port()
        made = container(publish={6379: port}, network="bridge", start=False)
        target = redis_in(made.name)
        with stranger(port):
            with suppress(APIError):
                made.start()
            run = suite(*CONTAINERS, target=target)
            run.blames(f"service.port-conflict[{port}]")
            assert f"service.port-conflict[{port}]" in run.finding("service.running[redis]")["caused_by"]
            run.do(f"service.port-conflict[{port}]", steps=[0])
        run.do("service.running[redis]", steps=[0])
        calm = suite(*CONTAINERS, target=target)
        calm.is_calm()
        assert calm.finding(f"service.port-conflict[{port}]")["message"] == "held by the engine, for the service"

    def test_taken_by_another_container(self, container: ContainerFactory, suite: Suite) -> None:
        """Another container's port is told apart from a process of the machine, and the remedy stops the container."""
        port = free_port()
        container(publish={80: port}, network="bridge")
        made = container(publish={6379: port}, network="bridge", start=False)
        with suppress(APIError):
            made.start()
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames(f"service.port-conflict[{port}]")
        assert "docker-proxy" in run.finding(f"service.port-conflict[{port}]")["message"]
        run.do(f"service.port-conflict[{port}]")
        made.wait_status(Status.RUNNING)
        suite(*CONTAINERS, target=redis_in(made.name)).is_calm()

    def test_nobody_listens(self, demo: Demo, suite: Suite) -> None:
        """A backend on another port than it is published on: nobody listens there, and the rest follows."""
        port = demo.port("backend")
        demo.set_env("backend", PORT=str(free_port()))
        demo.recreate("backend")
        demo.wait_until(lambda: "API listens on" in demo.log_text("backend").rpartition("NestFactory")[2], what="it")
        at_once = suite(*CONTAINERS, "-k", "port", target=demo_target(demo.state))
        assert at_once.outcome(f"service.port-conflict[{port}]") == "warn"
        later = demo_target(demo.state, "[limits.service]\nuptime = {warn = 0.01}\n")
        run = suite(*CHAPTERS, target=later)
        run.blames(f"service.port-conflict[{port}]")
        assert run.finding(f"service.port-conflict[{port}]")["message"].startswith("nobody listens")

    def test_free_for_a_stopped_service(self, demo: Demo, suite: Suite) -> None:
        """The port of a service that is down is free: that is no conflict."""
        demo.stop("nginx")
        run = suite(*CHAPTERS, target=demo_target(demo.state))
        run.blames("service.running[nginx]")
        assert run.finding(f"service.port-conflict[{demo.port('nginx', 443)}]")["message"].startswith("free for nginx")

    def test_not_published(self, container: ContainerFactory, suite: Suite) -> None:
        """A service that is published nowhere has no port to lose."""
        run = suite(*CONTAINERS, target=redis_in(container(shell("exec sleep 600")).name))
        assert run.outcome(f"service.port-conflict[{NO_PORT}]") == "not-applicable"
