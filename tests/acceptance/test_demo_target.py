"""``pytest checks --target demo``: starts the demo if it is not up, and nothing of it outlives the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.beds.embedded import Demo
from tests.beds.suite import ROOT, Health


@pytest.fixture
def fresh() -> Iterator[Demo]:
    """A demo that is not up, in a folder of its own."""
    demo = Demo.temporary()
    yield demo
    demo.remove()


def _target(demo: Demo) -> str:
    command = ["{python}", "-m", "demo", "up", "--owner-pid", "{pid}", "--state", str(demo.state)]
    return f"{demo.target}up = {command!r}\n"


def _processes_of(demo: Demo) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.cwd()]
        except psutil.Error:
            continue
        if any(str(demo.state) in word for word in words):
            found.append(f"{process.pid} {' '.join(words)[:120]}")
    return found


def test_the_demo_is_started_and_taken_down(fresh: Demo, suite: Health) -> None:
    """A run on a demo that is down starts it, finds it healthy, and leaves no process behind."""
    run = suite("checks", target=_target(fresh), timeout=90)
    run.is_calm()
    fresh.wait_until(lambda: not _processes_of(fresh), timeout=20, what="the demo to be gone")


def test_a_demo_that_is_up_stays_up(demo: Demo, suite: Health) -> None:
    """A run on a demo that was up before leaves it up."""
    suite("checks", "-k", "service.running", target=_target(demo)).is_calm()
    assert demo.is_healthy()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_nothing_survives_the_end_of_pytest(fresh: Demo, tmp_path: Path, number: signal.Signals) -> None:
    """However pytest ends while its demo is up, every process of the demo ends too."""
    targets = tmp_path / "targets"
    targets.mkdir()
    (targets / "bed.toml").write_text(_target(fresh), "utf-8")
    pause = tmp_path / "pause.py"
    pause.write_text("import time\ndef pytest_collection_finish():\n    time.sleep(60)\n", "utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "checks",
        "--target",
        "bed",
        "-o",
        f"target_path={targets}",
        "--no-reports",
    ]
    with subprocess.Popen(
        [*command, "-p", "pause"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as pytest_process:
        try:
            fresh.wait_until(lambda: (fresh.state / "state.json").exists() and fresh.is_healthy(), 60, "the demo")
            pytest_process.send_signal(number)
            pytest_process.wait(20)
        finally:
            pytest_process.kill()
    fresh.wait_until(lambda: not _processes_of(fresh), timeout=20, what="the demo to be gone")
