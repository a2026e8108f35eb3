"""Interruptions during deployments: services that do not stop when told to, and requests that find no backend."""

from __future__ import annotations

import requests

from tests.beds.docker import Container, ContainerFactory
from tests.beds.embedded import Demo
from tests.beds.suite import Health

ZERO = "checks/deployment/test_zero_downtime.py"
HANDLER = "  process.on('SIGTERM', () => stop('SIGTERM'));\n"


def ask(demo: Demo, times: int) -> list[int]:
    """Ask for a route through nginx as users do; the statuses."""
    url = f"{demo.urls['https']}/api/v1/live"
    with requests.Session() as session:
        session.headers["User-Agent"] = "curl/8"
        return [session.get(url, timeout=5, verify=str(demo.ca_file)).status_code for _ in range(times)]


def test_a_few_errors_are_no_outage(demo: Demo, suite: Health) -> None:
    """Fewer requests than say something about a share are only warned of."""
    demo.stop("backend")
    assert ask(demo, 2) == [502, 502]
    demo.start("backend")
    demo.wait_healthy("backend")
    suite("checks/deployment", target=demo.target).warns("deploy.upstream-errors")


# --- real containers -------------------------------------------------------------------------------------------------


def one_container(made: Container) -> str:
    """A target that consists of one container, as its backend."""
    others = "absent = ['postgres', 'redis', 'nginx']\n"
    return f'{others}[services.backend]\ncontainer = "{made.name}"\n'


def test_a_container_that_ignores_its_signal(container: ContainerFactory, suite: Health) -> None:
    """A first process without a handler warns, and fails once a stop has come to SIGKILL; behind an init it is fine."""
    name = "deploy.graceful-shutdown[backend]"
    made = container(["sleep", "600"], init=False, restart="unless-stopped")
    run = suite(ZERO, "-k", name, target=one_container(made))
    assert run.outcome(name) == "warn", run.output
    assert "takes no notice of SIGTERM" in run.finding(name)["message"]
    made.stop(grace=1)
    made.start()
    run = suite(ZERO, "-k", name, target=one_container(made))
    run.blames(name)
    assert "killed at its last stop" in run.finding(name)["message"]
    script = "trap 'exit 0' TERM; while true; do sleep 0.1; done"
    mended = container(["sh", "-c", script], init=True, restart="unless-stopped")
    mended.stop(grace=3)
    mended.start()
    run = suite(ZERO, "-k", name, target=one_container(mended))
    assert run.outcome(name) == "pass", run.output


def test_a_container_that_was_killed_by_hand(container: ContainerFactory, suite: Health) -> None:
    """SIGKILL from an operator is no failed stop, though the exit code is the same."""
    name = "deploy.graceful-shutdown[backend]"
    script = "trap 'exit 0' TERM; while true; do sleep 0.1; done"
    made = container(["sh", "-c", script], init=True, restart="unless-stopped")
    made.kill()
    made.start()
    assert suite(ZERO, "-k", name, target=one_container(made)).outcome(name) == "pass"


def test_a_shell_in_front_and_no_restart_policy(container: ContainerFactory, suite: Health) -> None:
    """A shell does not pass the signal on; a container that nothing starts again warns."""
    name = "deploy.graceful-shutdown[backend]"
    made = container(["sh", "-c", "sleep 600; true"], init=False, restart="no")
    run = suite(ZERO, "-k", name, target=one_container(made))
    assert run.outcome(name) == "warn", run.output
    told = " ".join([run.finding(name)["message"], *run.finding(name)["details"]])
    assert "sh does not pass SIGTERM on to sleep" in told
    assert "no restart policy" in told
