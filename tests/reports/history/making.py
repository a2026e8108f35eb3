"""Reports for a history to remember, made without a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from allodoc_health.finding import Finding, Measurement, Outcome, Severity
from allodoc_health.inspection import complete
from allodoc_health.run import TargetReport
from allodoc_health.target import TargetSettings
from allodoc_health.verdict import explain, judge
from reports.history.location import Location
from reports.history.records import Records
from reports.history.store import Store

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
KEPT = timedelta(days=400)


def found(name: str, outcome: Outcome = Outcome.FAIL, value: float | None = None, **fields: Any) -> Finding:
    """A finding; ``name`` may hold a parameter. With ``value`` it has measured it, in percent of 80 and 95."""
    symptom, _, parameter = name.partition("[")
    measured = () if value is None else (Measurement("used", value, "%", 80, 95, "the guide"),)
    known: dict[str, Any] = {
        "severity": Severity.CRITICAL,
        "title": "It is well.",
        "message": f"{name} says {outcome.value}",
        "parameter": parameter.removesuffix("]") or None,
        "measurements": measured,
        "nodeid": f"checks/test_it.py::test_{symptom}",
    }
    return Finding(id=symptom, target="prod", outcome=outcome, **{**known, **fields})


def report(
    *findings: Finding, at: datetime = NOW, target: str = "prod", outage_since: datetime | None = None, **fields: Any
) -> TargetReport:
    """A report on these findings, judged by what earlier runs know of the beginning of an outage."""
    explained = explain(findings)
    known: dict[str, Any] = {
        "target": complete(TargetSettings(), target, "test", {}, {}),
        "started": at,
        "seconds": 1.5,
        "findings": explained,
        "verdict": judge(explained, at, outage_since=outage_since),
        "evidence": {},
        "timings": {},
    }
    return TargetReport(**{**known, **fields})


def remember(store: Store, *reports: TargetReport, whole: bool = True) -> None:
    """Keep reports as so many runs would, each after having read what is known."""
    for one in reports:
        records = store.read(one.target.name, one.started)
        store.record(one, records, whole=whole, keep=KEPT)


def write_on(location: Location, said: Connection, runs: int) -> None:
    """In a process of its own: record runs of 200 findings, and say so after each. Ends by itself after ``runs``."""
    store = Store(location)
    some = [found(f"db.number-{number}", Outcome.PASS, float(number)) for number in range(200)]
    for number in range(runs):
        store.record(report(*some, at=NOW + timedelta(seconds=number)), Records(), whole=True, keep=KEPT)
        said.send(number)


def at(folder: Path, name: str = "history.sqlite") -> Location:
    """A location of a file."""
    file = folder / name
    return Location(f"sqlite:///{file}", str(file), file)
