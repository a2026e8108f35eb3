"""``make bench``: what a run costs, as ratios measured in one go on this machine.

Runs take turns, so that whatever else the machine does falls on all of them alike; the median counts. The figures are
printed, not asserted: a timed test would fail on a busy machine.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from allodoc_health.run import digest_of
from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.fleet import fleet
from tests.beds.suite import BUSY, ROOT

ROUNDS = 7
EMPTY = "empty pytest session, same plugins"
DIAGNOSIS = "the guide's commands, one after another"
# Operators do not have hypothesis, whose plugin imports all of it at the end of any session with tests.
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")


@dataclass(frozen=True)
class Contestant:
    """What is run, where; ``any_exit`` where its exit status says nothing of its success."""

    command: Sequence[str]
    folder: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=dict)
    any_exit: bool = False

    def run(self) -> float:
        """How many seconds it takes. Exit status 5 is pytest's for no tests."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        began = time.perf_counter()
        done = subprocess.run(
            self.command,
            cwd=self.folder,
            env={**environment, **self.environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        took = time.perf_counter() - began
        assert self.any_exit or done.returncode in (0, 5), f"{done.returncode}:\n{done.stdout}\n{done.stderr}"
        return took


def compare(title: str, contestants: Mapping[str, Contestant], baseline: str) -> None:
    """Let each run once a round, and print the medians with their ratio to one of them."""
    for one in contestants.values():
        one.run()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, one in contestants.items():
            times[name].append(one.run())
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"\n{title}: median of {ROUNDS} rounds")
    for name, median in medians.items():
        print(f"  {name:<42} {median * 1000:6.0f} ms   {median / medians[baseline]:6.2f} x {baseline}")


def suite_on(target: str, scratch: Path, *paths: str, environment: Mapping[str, str] | None = None) -> Contestant:
    """The suite on a target file with this text."""
    targets = scratch / "targets"
    targets.mkdir(exist_ok=True)
    (targets / "bench.toml").write_text(target + BUSY, "utf-8")
    options = ["--target", "bench", "-o", f"target_path={targets}", "--reports", str(scratch / "reports")]
    return Contestant([*PYTEST, *options, *paths], environment=environment or {})


@pytest.fixture
def empty(tmp_path: Path) -> Contestant:
    """A session of pytest with the same plugins and nothing to do."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return Contestant(PYTEST, folder)


@pytest.mark.timeout(600)
def test_the_embedded_demo(demo_bed: Demo, tmp_path: Path, empty: Contestant) -> None:
    """The whole suite and one chapter against an empty session."""
    compare(
        "The embedded demo",
        {
            EMPTY: empty,
            "pytest checks": suite_on(demo_bed.target, tmp_path, "checks"),
            "pytest checks/db": suite_on(demo_bed.target, tmp_path, "checks/db"),
            "pytest checks -m smoke": suite_on(demo_bed.target, tmp_path, "checks", "-m", "smoke"),
        },
        EMPTY,
    )


@pytest.mark.timeout(900)
def test_the_stack_in_containers(whole_stack: Stack, tmp_path: Path, empty: Contestant) -> None:
    """The whole suite against an empty session, and against the guide's own commands in a script."""
    script = Contestant(
        ["sh", str(Path(__file__).with_name("diagnosis.sh"))],
        environment={
            "API": f"http://127.0.0.1:{whole_stack.ports['backend']}",
            "EDGE": f"127.0.0.1:{whole_stack.ports['https']}",
            "PROJECT": str(whole_stack.folder),
        },
        any_exit=True,
    )
    checks = suite_on(whole_stack.target, tmp_path, "checks", environment=whole_stack.smoke_account)
    compare("The guide's stack", {EMPTY: empty, "pytest checks": checks, DIAGNOSIS: script}, "pytest checks")


@pytest.mark.timeout(900)
def test_many_targets(demo_bed: Demo, tmp_path: Path) -> None:
    """How time and memory grow from one target to five and to twenty, two of which are silent, with two workers."""
    print("\nMany targets, two workers")
    alone = 0.0
    for count, silent in ((1, 0), (5, 0), (20, 2)):
        with fleet(demo_bed, tmp_path / str(count), count, silent):
            options = ["-o", f"target_path={tmp_path / str(count)}", "--reports", str(tmp_path / "reports")]
            command = [*PYTEST, "checks", "--target", "fleet-*", *options, *(["-n2"] if count > 1 else [])]
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == (1 if silent else 0)
        alone = alone or took
        memory = usage.ru_maxrss / 1024
        print(f"  {count:2} targets  {took:6.1f} s   {took / alone:5.1f} x one   {memory:4.0f} MiB at most")


def remember_often(file: Path, runs: int) -> None:
    """Make of the only run of a history so many, an hour apart, every fortieth of them failing somewhere."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE findings SET run_id = ?", (runs,))
        database.execute("UPDATE measurements SET run_id = ?", (runs,))
        database.execute("UPDATE runs SET id = ?", (runs,))
        for earlier in range(1, runs):
            database.execute(
                "INSERT INTO runs SELECT ?, target, strftime('%Y-%m-%d %H:%M:%f', started, ?) || '000', seconds, "
                "state, root_causes, escalation, whole, cut_short, outage_since FROM runs WHERE id = ?",
                (earlier, f"-{runs - earlier} hours", runs),
            )
            database.execute(
                "INSERT INTO findings SELECT ?, series_id, "
                "CASE WHEN series_id % 10 = 0 AND ? % 40 = 0 AND outcome = 'pass' THEN 'fail' ELSE outcome END, "
                "message FROM findings WHERE run_id = ?",
                (earlier, earlier, runs),
            )
            database.execute(
                "INSERT INTO measurements SELECT ?, series_id, value * (1 + ? / 5000.0) "
                "FROM measurements WHERE run_id = ?",
                (earlier, earlier, runs),
            )
        database.execute("UPDATE series SET last_trouble = ? WHERE id % 10 = 0", (runs,))
        database.commit()


@pytest.mark.timeout(600)
def test_history(demo_bed: Demo, tmp_path: Path) -> None:
    """A run that knows 1000 others against one that knows none."""
    remembering = suite_on(demo_bed.target, tmp_path, "checks")
    remembering.run()
    remember_often(tmp_path / "reports" / "history.sqlite", 1000)
    forgetful = "pytest checks --no-history"
    plain = suite_on(demo_bed.target, tmp_path, "checks", "--no-history")
    compare("A history of 1000 runs", {forgetful: plain, "pytest checks": remembering}, forgetful)
    page = tmp_path / "reports" / "latest.html"
    print(f"  its report has {page.resolve().stat().st_size / 1000:.0f} kB")


@pytest.mark.timeout(600)
def test_replays(demo_bed: Demo, tmp_path: Path, empty: Contestant) -> None:
    """A replay, and one of ten times the evidence, against an empty session."""
    usual, large = tmp_path / "usual.json", tmp_path / "large.json"
    suite_on(demo_bed.target, tmp_path, "checks", f"--snapshot={usual}").run()
    content = json.loads(usual.read_text("utf-8"))
    content["evidence"] = {name: tenfold(value) for name, value in content["evidence"].items()}
    large.write_text(json.dumps({**content, "digest": digest_of(content)}), "utf-8")
    assert large.stat().st_size > 2.5 * usual.stat().st_size
    replays = {
        f"replay of {path.stat().st_size / 1024:.0f} KiB": Contestant(
            [*PYTEST, "checks", f"--replay={path}", "--reports", str(tmp_path / "reports")], any_exit=True
        )
        for path in (usual, large)
    }
    compare("Replays", {EMPTY: empty, **replays}, EMPTY)


def tenfold(value: object) -> object:
    """Evidence with every list ten times as long."""
    if isinstance(value, dict):
        return {key: tenfold(inner) for key, inner in value.items()}
    return [tenfold(inner) for inner in value] * 10 if isinstance(value, list) else value
