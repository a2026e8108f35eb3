"""``python -m tests.faults.results``: write the last results of both beds as a page, RESULTS.md beside this file."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from tests.beds.suite import ROOT
from tests.faults.judge import HEADER
from tests.faults.remedies import commands, exemptions

PAGE = Path(__file__).with_name("RESULTS.md")
BEDS = {"embedded": "The embedded demo", "docker": "The guide's own stack in containers"}
HEAD = """\
# Faults, and what the suite said of them

Made by `make faults`: every entry of the catalogue in this folder breaks a real bed, then the whole suite runs, and the
judge compares its JSON snapshot with the entry. "Named" is *yes* when the verdict's root causes are those of the entry,
no more and no fewer. "Remedy" says how long it took until everything was green again after the remedy's own commands
had been pasted, or why they were not run. Seconds are those of the whole run of all checks.
"""
EXEMPT = """\
All other commands of the {} are pasted by these faults' remedies or by the walk over the guide (test_guide.py).

| command | why not |
| --- | --- |"""


def main() -> int:
    """Write the page."""
    parts = [HEAD]
    for bed, title in BEDS.items():
        file = ROOT / "reports" / "runs" / f"faults-{bed}.csv"
        if not file.exists():
            print(f"{file} is not there: run the faults of that bed first", file=sys.stderr)
            return 1
        with file.open(encoding="utf-8", newline="") as text:
            found = sorted(csv.DictReader(text), key=lambda row: row["fault"])
        right = sum(row["named"] == "yes" and not row["problems"] for row in found)
        slowest = max(float(row["seconds"]) for row in found)
        parts.append(f"\n## {title}\n\n{right} of {len(found)} without a flaw, the slowest in {slowest:.1f} s.\n\n")
        columns = [name for name in HEADER if name != "bed"]
        parts += [f"| {' | '.join(columns)} |\n", f"|{' --- |' * len(columns)}\n"]
        parts += [f"| {' | '.join(row[name].replace('|', '/') for name in columns)} |\n" for row in found]
    known = exemptions()
    parts.append(f"\n## Commands of the guide that no test runs\n\n{EXEMPT.format(len(list(commands())))}\n")
    parts += [f"| `{key}` | {reason} |\n" for key, reason in known.items()]
    PAGE.write_text("".join(parts), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
