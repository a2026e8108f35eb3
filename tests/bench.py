"""``make bench``: what a run costs, as ratios measured in one go on this machine.

Runs take turns, so that whatever else the machine does falls on all of them alike; the median counts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.beds.embedded import Demo
from tests.beds.suite import ROOT

ROUNDS = 7
AIM = 2.0


def seconds(command: Sequence[str], folder: Path) -> float:
    """How long a command takes; its exit status must be 0 or 5 (pytest's for no tests). Raises RuntimeError."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    took = time.perf_counter() - began
    if done.returncode not in (0, 5):
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return took


def measure(contestants: Mapping[str, tuple[Sequence[str], Path]]) -> dict[str, float]:
    """The median time of each contestant, in seconds, over rounds in which each runs once."""
    for command, folder in contestants.values():
        seconds(command, folder)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, (command, folder) in contestants.items():
            times[name].append(seconds(command, folder))
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> int:
    """Measure on a demo of our own and print the table."""
    demo = Demo.temporary()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        (folder / "empty").mkdir()
        targets = folder / "targets"
        targets.mkdir()
        (targets / "bench.toml").write_text(demo.target, "utf-8")
        # Operators do not have hypothesis, whose plugin imports all of it at the end of any session with tests.
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
        suite = [*pytest, "--target", "bench", "-o", f"target_path={targets}", "--reports", str(folder / "reports")]
        try:
            demo.up()
            medians = measure(
                {
                    "empty pytest session, same plugins": (pytest, folder / "empty"),
                    "pytest checks": ([*suite, "checks"], ROOT),
                    "pytest checks/db": ([*suite, "checks/db"], ROOT),
                }
            )
        finally:
            demo.remove()
    baseline = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name:<40} {median * 1000:6.0f} ms   {median / baseline:4.2f}x   (aim: under {AIM:g}x)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
