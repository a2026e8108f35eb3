"""What runs the services: gone, frozen, slow. A second Docker daemon of the test's own is what gets frozen."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from allodoc_health.finding import Outcome
from allodoc_health.limits import Limits
from allodoc_health.runtimes.interface import RuntimeInfo
from checks.service.test_application_does_not_start import test_the_runtime_answers as the_runtime_answers
from fixtures.containers import RuntimeReport
from tests.beds.docker import Engine
from tests.beds.recorded import finding_on
from tests.beds.suite import Health as Suite
from tests.checks.service.targets import CONTAINERS, HOST

IN_TIME = 12.0
"""Seconds: the budget of a run and two for the rest."""

WAITING = 6.0
"""Seconds that a frozen daemon may cost beside one that is not there."""


@pytest.fixture
def own_daemon(engine: Engine) -> Iterator[tuple[str, int]]:
    """A Docker daemon without containers, for this test alone: its address and its process.

    It has a network of its own: a daemon without a bridge takes away the one that it finds.
    """
    del engine  # a machine without Docker skips
    folder = Path(tempfile.mkdtemp(prefix="dockerd-"))
    socket = folder / "docker.sock"
    command = ["unshare", "--net", "dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
    command += ["--pidfile", str(folder / "pid"), "--host", f"unix://{socket}", "--bridge=none", "--iptables=false"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        ends = time.monotonic() + 30
        while not (socket.exists() and answers(socket)):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < ends, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"unix://{socket}", process.pid
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def answers(socket: Path) -> bool:
    """Whether a daemon answers there."""
    asked = ["docker", "--host", f"unix://{socket}", "version"]
    return subprocess.run(asked, capture_output=True, timeout=10, check=False).returncode == 0


class TestDockerDaemon:
    """host.docker"""

    def test_frozen(self, own_daemon: tuple[str, int], suite: Suite) -> None:
        """A frozen daemon: the whole suite ends within its budget plus two, with this and nothing else as the root."""
        address, pid = own_daemon
        # What a run costs here that waits for nobody: the machine may be busy with other tests.
        idle = suite("checks", target=HOST, environment={"DOCKER_HOST": f"{address}.none"})
        os.kill(pid, signal.SIGSTOP)
        run = suite("checks", target=HOST, environment={"DOCKER_HOST": address})
        run.blames("host.docker")
        assert run.finding("host.docker")["message"] == "the Docker daemon gave no answer within 2 s"
        assert run.seconds < max(IN_TIME, idle.seconds + WAITING), run.output

    def test_stopped(self, suite: Suite, tmp_path: Path) -> None:
        """A daemon that is not there is told by its socket."""
        run = suite(*CONTAINERS, target=HOST, environment={"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"})
        run.blames("host.docker")
        assert run.finding("host.docker")["message"].startswith("no Docker daemon: there is no socket")

    @pytest.mark.parametrize(("seconds", "outcome"), [(0.02, Outcome.PASS), (0.8, Outcome.WARN), (2.5, Outcome.FAIL)])
    def test_slow(self, seconds: float, outcome: Outcome) -> None:
        """Recorded: an answer that takes its time warns, then fails."""
        info = RuntimeInfo("Docker Engine", "20.10.24", "/var/lib/docker", seconds)
        finding = finding_on(the_runtime_answers, runtime_report=RuntimeReport(info, 41.0), limits=Limits())
        assert finding.outcome is outcome
        assert "the disk with its data in /var/lib/docker is 41 % full" in finding.details
