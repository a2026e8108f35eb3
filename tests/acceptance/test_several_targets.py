"""Several targets in one run: each told for itself, the worst first, and a silent one at nobody else's cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.beds.embedded import Demo
from tests.beds.fleet import fleet
from tests.beds.suite import Health, Run

CHECKS = ("checks/db", "checks/performance/test_cache.py")
SILENT = "fleet-04"


@dataclass(frozen=True)
class Fleet:
    """Target files and the suite."""

    folder: Path
    suite: Health

    def run(self, *arguments: str) -> tuple[Run, dict[str, dict[str, Any]]]:
        """A run with these arguments, and the snapshots of its targets by name."""
        run = self.suite(*CHECKS, "-o", f"target_path={self.folder}", *arguments)
        paths = sorted(run.folder.glob("2*.json"))
        return run, {found["target"]: found for path in paths for found in [json.loads(path.read_text("utf-8"))]}


@pytest.fixture
def four(demo: Demo, suite: Health, tmp_path: Path) -> Iterator[Fleet]:
    """Four targets, of which the last is silent."""
    with fleet(demo, tmp_path / "fleet", 4, silent=1):
        yield Fleet(tmp_path / "fleet", suite)


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["one-process", "two-workers"])
def test_each_is_told_for_itself(four: Fleet, workers: tuple[str, ...]) -> None:
    """Healthy ones are healthy whatever the silent one is; the worst is told last, and the exit status is its own."""
    run, found = four.run("--target", "fleet-*", *workers)
    assert run.exit_status == 1, run.output
    assert {name: one["verdict"]["state"] for name, one in found.items()} == {
        **dict.fromkeys(("fleet-01", "fleet-02", "fleet-03"), "healthy"),
        SILENT: "failing",
    }
    assert found[SILENT]["verdict"]["root_causes"] == ["db.port", "cache.ping"]
    last_lines = run.output.rstrip().splitlines()[-4:]
    assert last_lines[0] == "4 targets:"
    assert last_lines[1].strip() == "healthy: fleet-01, fleet-02, fleet-03"
    assert {line.strip() for line in last_lines[2:]} == {f"failing {c}: {SILENT}" for c in ("db.port", "cache.ping")}


def test_a_silent_one_costs_its_deadlines(four: Fleet) -> None:
    """Its probes run beside those of the others: the run takes no longer than its deadlines and the others' checks."""
    _, found = four.run("--target", "fleet-*")
    slowest = max(found[SILENT]["timings"].values())
    assert slowest < 4
    assert all(max(one["timings"].values()) < 4 for one in found.values())


def test_patterns(four: Fleet) -> None:
    """A pattern stands for what it matches, each once; one that matches nothing is refused with the nearest name."""
    _, found = four.run("--target", "fleet-0[12]", "--target", "fleet-02")
    assert set(found) == {"fleet-01", "fleet-02"}
    run, _ = four.run("--target", "flee-*")
    assert run.exit_status == pytest.ExitCode.USAGE_ERROR
    assert "no target in" in run.output
    assert "did you mean 'fleet-0" in run.output


def test_one_that_is_wrong(four: Fleet) -> None:
    """A target that can't be used as it is written ends the run before anything is looked at, by its name."""
    (four.folder / "fleet-05.toml").write_text("origin = []\n", "utf-8")
    run, found = four.run("--target", "fleet-*")
    assert run.exit_status == pytest.ExitCode.USAGE_ERROR
    assert "fleet-05.toml:1: unknown key 'origin'" in run.output
    assert not found
