"""A monitoring plugin's output and exit status, by the Monitoring Plugins Development Guidelines.

The first line is the status, with the measurements of what is wrong as performance data; lines of text follow, one for
each thing to know, and behind the last of them the performance data of everything else. Nothing else is printed.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from io import StringIO

import pytest

from allodoc_health.finding import Finding, Measurement, Outcome
from allodoc_health.run import TargetReport
from allodoc_health.verdict import State
from reports.printable import one_line
from reports.streams import move_terminal
from reports.summary import counted, partly, told_first, whom

SERVICE = "ALLODOC"
STATUS = {State.HEALTHY: 0, State.WARNING: 1, State.FAILING: 2, State.UNKNOWN: 3}
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
REPORTS = pytest.StashKey[list[TargetReport]]()
"""The reports that the answer is made of."""

GRAVEST_FIRST = (2, 3, 1, 0)
"""Unknown comes before warning, as in the verdict: what was not looked at may be worse."""

UNITS = ("s", "%", "B")
"""The units of our measurements that the guidelines know; others are plain numbers to them."""


def status_of(reports: Sequence[TargetReport]) -> int:
    """The exit status for all targets together: the gravest; unknown without any."""
    found = {STATUS[report.verdict.state] for report in reports}
    return next((status for status in GRAVEST_FIRST if status in found), 3)


def plugin_output(reports: Sequence[TargetReport]) -> str:
    """What a monitoring system is told of all targets, without the final line break."""
    status = status_of(reports)
    ranked = sorted(reports, key=lambda report: GRAVEST_FIRST.index(STATUS[report.verdict.state]))
    several = len(reports) > 1
    first = f"{SERVICE} {WORDS[status]} - {'; '.join(map(_headline, ranked))}"
    urgent: list[str] = []
    rest: list[str] = []
    text: list[str] = []
    labels: set[str] = set()
    for report in ranked:
        wrong = {finding.name for finding in told_first(report)}
        for finding in report.findings:
            prefix = f"{report.target.name} " if several else ""
            data = performance_data(finding, prefix, labels)
            (urgent if finding.name in wrong else rest).extend(data)
        text += _text(report, several)
    told = [f"{_plain(first)} | {' '.join(urgent)}" if urgent else _plain(first), *map(_plain, text)]
    if rest:
        told[-1] += f" | {rest[0]}"
    return "\n".join([*told, *rest[1:]])


def _headline(report: TargetReport) -> str:
    told = told_first(report)
    state = f"{report.target.name} {report.verdict.state.phrase}"
    if not told:
        return state + (" (partial)" if report.partial else "")
    more = f" and {len(told) - 1} more" if len(told) > 1 else ""
    partial = " (partial)" if report.partial else ""
    return f"{state}{partial}: {told[0].name} {_first(told[0])}{more}"


def _text(report: TargetReport, several: bool) -> Iterator[str]:
    of = f"{report.target.name}: " if several else ""
    for finding in told_first(report)[1:]:
        yield f"{of}{finding.name} {_first(finding)}"
    for finding in told_first(report)[:1]:
        if finding.remedy:
            yield f"{of}do {finding.remedy}"
    if report.verdict.consequences:
        yield f"{of}{len(report.verdict.consequences)} blocked or failing because of that"
    if whom(report):
        yield f"{of}{whom(report)}"
    yield f"{of}{counted(report)}"
    if report.partial:
        yield f"{of}partial: {partly(report)}"
    for defect in report.defects:
        yield f"{of}broken down, a defect of the suite: {defect.symptom or defect.nodeid}"
    for warning in report.warnings:
        yield f"{of}{warning}"


def _first(finding: Finding) -> str:
    return " ".join(finding.message.partition("\n")[0].split())


def _plain(text: str) -> str:
    """A line that a pipe, which begins the performance data, can't end."""
    return one_line(text).replace("|", "¦")


def performance_data(finding: Finding, prefix: str = "", taken: set[str] | None = None) -> Iterator[str]:
    """The measurements of a finding, each as ``'label'=value[UOM];[warn];[crit];[min];[max]``.

    Labels that are ``taken`` already are left out, and those that are used here are added to them.
    """
    known = set() if taken is None else taken
    if finding.outcome in (Outcome.BLOCKED, Outcome.NOT_APPLICABLE):
        return
    for measurement in finding.measurements:
        label = _label(f"{prefix}{finding.name} {measurement.name}")
        if label not in known:
            known.add(label)
            yield f"'{label}'={_values(measurement)}"


def _label(text: str) -> str:
    """A label: neither the equals sign nor the quote may stand in one, and a pipe would end it."""
    return re.sub(r"['=|]", "_", one_line(text))


def _values(measurement: Measurement) -> str:
    value = _number(measurement.value)
    if not value:
        return "U"  # undetermined, as the guidelines say it
    unit = measurement.unit if measurement.unit in UNITS else ""
    low = "0" if measurement.value >= 0 else ""
    high = "100" if unit == "%" and 0 <= measurement.value <= 100 else ""
    warn, fail = (_range(bound, measurement) for bound in (measurement.warn, measurement.fail))
    return f"{value}{unit};{warn};{fail};{low};{high}".rstrip(";")


def _range(bound: float | None, measurement: Measurement) -> str:
    """Where it begins to alert, as a range of the good values: ``300`` is 0 to 300, ``15:`` is 15 and more."""
    number = "" if bound is None else _number(bound)
    if not number:
        return ""
    if measurement.worse == "below":
        return f"{number}:"
    # Below a plain range lies trouble, too, from zero down.
    return f"~:{number}" if number.startswith("-") or measurement.value < 0 else number


def _number(value: float) -> str:
    """A number as the guidelines want it: digits, a sign and a point, nothing else; empty if that can't be."""
    if not math.isfinite(value):
        return ""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def answer(reports: Sequence[TargetReport], trouble: str = "") -> int:
    """Print what a monitoring system is told and return the exit status; ``trouble`` is why there was no run."""
    why = " ".join(trouble.split()) or "nothing was checked"
    output = plugin_output(reports) if reports else f"{SERVICE} UNKNOWN - {_plain(why)}"
    sys.stdout.write(f"{output}\n")
    sys.stdout.flush()
    return status_of(reports)


class MonitoringPlugin:
    """Keeps the screen quiet and the reports for the answer."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._kept: list[TargetReport] = config.stash.setdefault(REPORTS, [])

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Send whatever pytest says to nobody."""
        move_terminal(self._config, StringIO())

    def pytest_health_report(self, report: TargetReport) -> None:
        """Keep what is known of one target."""
        self._kept.append(report)
