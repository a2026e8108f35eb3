"""What goes into a history and what comes out of it, as plain values, and the :class:`Past` that they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from allodoc_health.finding import Finding, Outcome, Severity
from allodoc_health.run import TargetReport
from reports.history import Forecast, Key, Past, Points
from reports.history.course import FAIL, TROUBLED, Course, forecast


@dataclass(frozen=True, slots=True)
class Followed:
    """A finding as it is followed over runs: how it fared, how grave it is, and the check that makes it."""

    course: Course
    severity: str
    check: str


@dataclass(frozen=True, slots=True)
class Records:
    """What a history knows of one target.

    ``runs`` counts them. ``findings`` holds those that were not always well, by name; ``numbers`` the measurements by
    finding, name and unit. ``outage_since`` is what the last run found it to be.
    """

    runs: int = 0
    findings: Mapping[str, Followed] = field(default_factory=dict)
    numbers: Mapping[tuple[str, str, str], Points] = field(default_factory=dict)
    outage_since: datetime | None = None


def check_of(finding: Finding) -> str:
    """The check that made a finding, called alike whether one target was inspected or several; empty if it is unknown.

    >>> check_of(Finding("db.port", "prod", Outcome.PASS, Severity.MAJOR, "", "", nodeid="t.py::test_it[prod-db]"))
    't.py::test_it[db]'
    """
    check, _, parameters = finding.nodeid.partition("[")
    parameters = parameters.removesuffix("]")
    parameters = "" if parameters == finding.target else parameters.removeprefix(f"{finding.target}-")
    return f"{check}[{parameters}]" if parameters else check


def no_longer_found(report: TargetReport, records: Records) -> Iterator[str]:
    """The names of findings that were in trouble, and that their checks, which could look, no longer make.

    A check makes findings of single tables, statements or addresses as it finds them wrong: what it is silent about
    is well again. That a check was not run, or was blocked, says nothing.
    """
    names = {finding.name for finding in report.findings}
    looked = {check_of(finding) for finding in report.findings if finding.outcome is not Outcome.BLOCKED}
    for name, followed in records.findings.items():
        if followed.check in looked - {""} and name not in names and followed.course.outcome in TROUBLED:
            yield name


def outage_since(report: TargetReport, records: Records) -> datetime | None:
    """Since when something critical has been failing at any time; ``None`` if nothing is.

    What failed when it was last looked at, and was not looked at now, fails still.
    """
    failing = [f for f in report.findings if f.outcome is Outcome.FAIL and f.severity is Severity.CRITICAL]
    seen = {finding.name for finding in report.findings if finding.outcome is not Outcome.BLOCKED}
    seen.update(no_longer_found(report, records))
    unseen = records.outage_since is not None and any(
        followed.severity == Severity.CRITICAL and followed.course.outcome == FAIL and name not in seen
        for name, followed in records.findings.items()
    )
    if not failing and not unseen:
        return None
    began = [finding.since for finding in failing if finding.since is not None]
    return min((*began, records.outage_since or report.started, report.started)).astimezone(UTC)


def past_of(report: TargetReport, records: Records) -> Past:
    """What a history adds to a report, which counts as its newest run."""
    month = report.started.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since, streaks, failed, recovery, flapping = {}, {}, {}, {}, set()
    trends: dict[Key, Points] = {}
    forecasts: dict[Key, Forecast] = {}
    for finding in report.findings:
        known = records.findings.get(finding.name)
        course = (known.course if known else Course()).seen(finding.outcome.value, report.started.astimezone(UTC))
        if finding.outcome in (Outcome.WARN, Outcome.FAIL) and (trouble := course.trouble()):
            began, streaks[finding.name] = trouble
            since[finding.name] = min(began, finding.since.astimezone(UTC) if finding.since else began)
        if count := course.failures_since(month):
            failed[finding.name] = count
        if (took := course.recovery()) is not None:
            recovery[finding.name] = took
        if course.is_flapping():
            flapping.add(finding.name)
        for measurement in finding.measurements:
            earlier = records.numbers.get((finding.name, measurement.name, measurement.unit), ())
            points = (*earlier, (report.started.astimezone(UTC), measurement.value))
            trends[finding.name, measurement.name] = points
            if (ahead := forecast(points, measurement)) is not None:
                forecasts[finding.name, measurement.name] = ahead
    return Past(
        runs=records.runs,
        trends=trends,
        since=since,
        streaks=streaks,
        failed_this_month=failed,
        flapping=frozenset(flapping),
        forecasts=forecasts,
        recovery=recovery,
    )
