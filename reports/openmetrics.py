"""Outcomes and measurements as OpenMetrics text, for node_exporter's textfile collector.

That collector reads Prometheus' older text format, which knows no units, timestamps or state sets. What is written here
is valid in both: gauges only, in base units, and no help text with a character that the two escape differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from allodoc_health.finding import Finding, Outcome
from allodoc_health.run import TargetReport
from allodoc_health.verdict import State
from reports.printable import one_line

PREFIX = "allodoc_health"

STATES = {State.HEALTHY: 0, State.WARNING: 1, State.FAILING: 2, State.UNKNOWN: 3}
OUTCOMES = {
    Outcome.PASS: 0,
    Outcome.WARN: 1,
    Outcome.FAIL: 2,
    Outcome.BLOCKED: 3,
    Outcome.WAIVED: 4,
    Outcome.NOT_APPLICABLE: 5,
}

BASE_UNITS = {
    "s": ("seconds", 1.0),
    "B": ("bytes", 1.0),
    "%": ("ratio", 0.01),
    "cores": ("cores", 1.0),
    "per min": ("per_second", 1 / 60),
    "pages/s": ("pages_per_second", 1.0),
    "": ("", 1.0),
}
"""The base unit of each unit that a check measures in, and what its value is multiplied by."""

_LABELS = ("target", "symptom", "parameter")


def document(reports: Sequence[TargetReport]) -> str:
    """The text for all targets, ``# EOF`` included."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Findings(reports))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]  # the library types all but this
    return text.decode()


class _Findings(Collector):
    def __init__(self, reports: Sequence[TargetReport]) -> None:
        self._reports = reports

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _of_targets(self._reports)
        yield from _of_findings(self._reports)
        yield from _of_measurements(self._reports)
        yield from _of_waivers(self._reports)


class _Gauge:
    """One family of gauges. Of two samples with the same labels it takes the first: both would spoil the whole file."""

    def __init__(self, name: str, help: str, labels: Sequence[str], unit: str = "") -> None:
        self.family = GaugeMetricFamily(f"{PREFIX}_{name}", help, labels=list(labels), unit=unit)
        self._taken: set[tuple[str, ...]] = set()

    def add(self, labels: Iterable[str], value: float) -> None:
        """Add a sample."""
        written = tuple(map(one_line, labels))
        if written not in self._taken:
            self._taken.add(written)
            self.family.add_metric(written, value)


def _codes(codes: dict[State, int] | dict[Outcome, int]) -> str:
    return ", ".join(f"{code} {name.value}" for name, code in codes.items())


def _of_targets(reports: Sequence[TargetReport]) -> Iterator[GaugeMetricFamily]:
    state = _Gauge("state", f"The verdict on the target: {_codes(STATES)}.", ["target"])
    partial = _Gauge("partial", "1 if the run ended before all checks had their turn.", ["target"])
    defects = _Gauge("defects", "Checks that broke down themselves.", ["target"])
    started = _Gauge("run_timestamp", "When the target was looked at.", ["target"], "seconds")
    took = _Gauge("run_duration", "How long the run took.", ["target"], "seconds")
    for report in reports:
        name = [report.target.name]
        state.add(name, STATES[report.verdict.state])
        partial.add(name, report.partial)
        defects.add(name, len(report.defects))
        started.add(name, report.started.timestamp())
        took.add(name, report.seconds)
    yield from (gauge.family for gauge in (state, partial, defects, started, took))


def _of_findings(reports: Sequence[TargetReport]) -> Iterator[GaugeMetricFamily]:
    outcome = _Gauge("outcome", f"How the check ended: {_codes(OUTCOMES)}.", [*_LABELS, "severity"])
    root = _Gauge("root_cause", "1 for what is at the root of the verdict.", _LABELS)
    for report in reports:
        for finding in report.findings:
            outcome.add([*_names(report, finding), finding.severity.value], OUTCOMES[finding.outcome])
            if finding.name in report.verdict.root_causes:
                root.add(_names(report, finding), 1)
    yield from (outcome.family, root.family)


def _of_measurements(reports: Sequence[TargetReport]) -> Iterator[GaugeMetricFamily]:
    values: dict[str, _Gauge] = {}
    limits: dict[str, _Gauge] = {}
    for report in reports:
        for finding in report.findings:
            for measurement in finding.measurements:
                unit, factor = BASE_UNITS.get(measurement.unit, ("", 1.0))
                if unit not in values:
                    said = f", in {unit.replace('_', ' ')}" if unit else ""
                    values[unit] = _Gauge("measurement", f"What was measured{said}.", [*_LABELS, "measurement"], unit)
                    limits[unit] = _Gauge(
                        "limit",
                        f"Where a measurement begins to warn or to fail{said}.",
                        [*_LABELS, "measurement", "outcome", "worse"],
                        unit,
                    )
                labels = [*_names(report, finding), measurement.name]
                values[unit].add(labels, measurement.value * factor)
                for outcome, bound in (("warn", measurement.warn), ("fail", measurement.fail)):
                    if bound is not None:
                        limits[unit].add([*labels, outcome, measurement.worse], bound * factor)
    yield from (gauge.family for gauge in (*values.values(), *limits.values()) if gauge.family.samples)


def _of_waivers(reports: Sequence[TargetReport]) -> Iterator[GaugeMetricFamily]:
    expiry = _Gauge("waiver_expiry_timestamp", "When a waiver runs out.", _LABELS, "seconds")
    for report in reports:
        for waiver in report.target.waivers:
            expiry.add([report.target.name, waiver.symptom, waiver.parameter or ""], waiver.expires.timestamp())
    if expiry.family.samples:
        yield expiry.family


def _names(report: TargetReport, finding: Finding) -> list[str]:
    return [report.target.name, finding.id, finding.parameter or ""]
