"""Runs the suite as its user does, in a process of its own, and reads the snapshot that it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# How busy the machine is that the tests share is no finding of theirs.
BUSY = """
[limits.host]
load_per_core = { warn = 1000, fail = 1000 }
pressure = { warn = 101, fail = 101 }
"""
LOAD_CHECK = "checks/service/test_host.py::test_the_machine_keeps_up"


@dataclass(frozen=True)
class Run:
    """What one run of the suite left: exit status, terminal output, snapshot, and the folder of its reports."""

    exit_status: int
    output: str
    snapshot: Mapping[str, Any]
    folder: Path
    seconds: float

    def finding(self, name: str) -> Mapping[str, Any]:
        """The finding of a name, ``id`` or ``id[parameter]``."""
        for finding in self.snapshot["findings"]:
            if name in (finding["id"], f"{finding['id']}[{finding['parameter']}]"):
                return finding  # type: ignore[no-any-return]  # JSON
        raise AssertionError(f"no finding {name}; there are {sorted(self.names())}\n{self.output}")

    def outcome(self, name: str) -> str:
        """The outcome of a finding."""
        return str(self.finding(name)["outcome"])

    def names(self, *outcomes: str) -> set[str]:
        """The names of all findings, or of those with one of these outcomes."""
        return {
            f["id"] if f["parameter"] is None else f"{f['id']}[{f['parameter']}]"
            for f in self.snapshot["findings"]
            if not outcomes or f["outcome"] in outcomes
        }

    @property
    def root_causes(self) -> list[str]:
        """The root causes that the verdict names."""
        return list(self.snapshot["verdict"]["root_causes"])

    def blames(self, *names: str) -> None:
        """Assert that these and no others are the root causes, and that all else that is red follows from them."""
        told = f"\n{self.output}"
        assert set(self.root_causes) == set(names), f"root causes {self.root_causes}, expected {list(names)}{told}"
        failing = self.names("fail")
        for name in failing - set(names):
            assert set(self.finding(name)["caused_by"]) & failing, f"{name} is red and nothing explains it{told}"
        for name in self.names("blocked"):
            guard = self.finding(name)["blocked_by"]
            assert guard in failing, f"{name} is blocked by {guard}, which does not fail{told}"
        assert self.exit_status == 1, f"exit status {self.exit_status}{told}"
        assert not self.snapshot["defects"], told

    def warns(self, name: str) -> None:
        """Assert that a finding warns and that nothing fails."""
        assert self.outcome(name) == "warn", f"{name} is {self.outcome(name)}\n{self.output}"
        self.is_calm()

    def commands(self, name: str, part: str = "mend") -> list[list[str]]:
        """The commands of each step in a finding's remedy: those that mend, or those that ``look``."""
        return [list(step["commands"]) for step in self.snapshot["remedies"][name][part]]

    def do(self, name: str, part: str = "mend", *, steps: Iterable[int] | None = None) -> list[str]:
        """Run the commands of a finding's remedy as an operator would: all steps, or some, counted from 0.

        They run in the checkout, and each must succeed. Returns what they printed.
        """
        printed = []
        for number, commands in enumerate(self.commands(name, part)):
            for place, command in enumerate(commands if steps is None or number in set(steps) else ()):
                printed.append(paste(command))
                note_executed(f"{self.snapshot['remedies'][name]['anchor']} {part} {number} {place}")
        return printed

    def is_calm(self) -> None:
        """Assert that nothing fails, is blocked or broke down."""
        assert not self.names("fail", "blocked"), self.output
        assert not self.snapshot["defects"], self.output
        assert self.exit_status == 0, f"exit status {self.exit_status}\n{self.output}"


EXECUTED = ROOT / "reports" / "runs" / "executed-commands.txt"
"""Which commands of the guide tests have run with success: ``anchor part step command`` in a line, counted from 0."""


def paste(command: str) -> str:
    """Run a command of the guide as an operator would, in the checkout. It must succeed; returns what it printed."""
    done = subprocess.run(
        ["timeout", "-k", "1", "60", "bash", "-o", "pipefail", "-ec", command],  # which ends what it has started, too
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    printed = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{command}\ngave {done.returncode}:\n{printed}"
    return printed


def note_executed(command: str) -> None:
    """Note that a command of the guide has been run with success."""
    EXECUTED.parent.mkdir(parents=True, exist_ok=True)
    with EXECUTED.open("a", encoding="utf-8") as file:
        file.write(f"{command}\n")


Health = Callable[..., Run]


def run_suite(
    folder: Path,
    *arguments: str,
    target: str = "",
    environment: Mapping[str, str] | None = None,
    timeout: float = 60,
    within: Sequence[str] = (),
    cache: bool = False,
    history: bool = False,
) -> Run:
    """Run ``pytest`` with these arguments on a target whose file has the text ``target`` (or by discovery if empty).

    The run has a folder of its own for target file and reports. ``within`` is a command that runs another one.
    ``cache`` lets pytest remember what failed, ``history`` the suite what was: most tests have nothing of either.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Hypothesis' plugin imports all of Hypothesis at the end of a run that has no use for it.
    command = [*within, sys.executable, "-m", "pytest", "-p", "no:hypothesispytest"]
    command += [] if cache else ["-p", "no:cacheprovider"]
    command += [] if history or any(word.startswith("--history") for word in arguments) else ["--no-history"]
    command += ["--reports", str(folder / "reports"), *arguments]
    if target:
        targets = folder / "targets"
        targets.mkdir(exist_ok=True)
        whole = target if "[limits.host]" in target else target + BUSY
        (targets / "bed.toml").write_text(whole, "utf-8")
        command += ["--target", "bed", "-o", f"target_path={targets}"]
    else:
        command += ["--deselect", LOAD_CHECK]
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "GITHUB_"))}
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**given, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    seconds = time.monotonic() - began
    latest = folder / "reports" / "latest.json"
    snapshot = json.loads(latest.read_text("utf-8")) if latest.exists() else {}
    return Run(done.returncode, done.stdout, snapshot, folder / "reports", seconds)


@pytest.fixture
def suite(tmp_path: Path) -> Health:
    """``suite("checks/db", target="…")`` runs the suite and returns the :class:`Run`. Each call has a fresh folder."""
    count = 0

    def run(*arguments: str, **keywords: Any) -> Run:
        nonlocal count
        count += 1
        return run_suite(tmp_path / f"run-{count}", *arguments, **keywords)

    return run
