"""``python -m tests.faults.remedies``: which commands of the guide the tests have run, and which nobody ran, and why.

Reads what the tests noted while they ran (both beds), writes the list as CSV beside the reports, and names those that
were neither run nor are exempt in ``exemptions.toml``. In CI this ends with status 1 if they are more than what a fault
or two that went wrong would have pasted; a laptop without Docker has more.
"""

from __future__ import annotations

import csv
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from allodoc_health.remedy import load_guide
from tests.beds.suite import EXECUTED, ROOT

EXEMPTIONS = Path(__file__).with_name("exemptions.toml")
LIST = ROOT / "reports" / "runs" / "remedies.csv"


def commands() -> Iterator[tuple[str, str]]:
    """Every command of the guide: its key (``anchor part step command``, counted from 0) and its template."""
    for remedy in {remedy.anchor: remedy for remedy in load_guide().values()}.values():
        for part in ("look", "mend"):
            for number, step in enumerate(getattr(remedy, part)):
                for place, command in enumerate(step.commands):
                    yield f"{remedy.anchor} {part} {number} {place}", command


def exemptions() -> Mapping[str, str]:
    """Why a command is not run, by its key or the beginning of it (``anchor``, ``anchor part``, …)."""
    return {entry["command"]: entry["reason"] for entry in tomllib.loads(EXEMPTIONS.read_text("utf-8"))["exempt"]}


def exemption(key: str, known: Mapping[str, str]) -> str:
    """The reason why a command is exempt; empty if it is not."""
    words = key.split()
    return next((known[start] for n in range(len(words), 0, -1) if (start := " ".join(words[:n])) in known), "")


def main() -> int:
    """Write the list and print what is missing."""
    executed = set(EXECUTED.read_text("utf-8").splitlines()) if EXECUTED.exists() else set()
    known = exemptions()
    rows = [(key, "run" if key in executed else exemption(key, known) or "NOT RUN") for key, _ in commands()]
    with LIST.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("command", "proof"), *rows])
    missing = [key for key, proof in rows if proof == "NOT RUN"]
    run = sum(proof == "run" for _, proof in rows)
    exempt = len(rows) - run - len(missing)
    print(
        f"{len(rows)} commands in the guide: {run} run by tests, {exempt} exempt, {len(missing)} run by nobody ({LIST})"
    )
    for key in missing:
        print(f"no test has run {key}")
    # A fault that this run told wrongly, or whose remedy came late, pasted nothing: one in fifty, as for the faults.
    return int(len(missing) > len(rows) / 50 and os.environ.get("CI", "").lower() == "true")


if __name__ == "__main__":
    sys.exit(main())
