"""OpenMetrics: what the official parser and node_exporter's older format both read, in base units."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Sample

from allodoc_health.finding import Measurement, Outcome
from allodoc_health.target import Waiver
from reports.openmetrics import BASE_UNITS, document
from tests.beds.incidents import NOW, found, hostile_reports, incident, some, told
from tests.beds.pretend import Pretend
from tests.beds.suite import ROOT

pytest_plugins = ["pytester"]


def read(text: str) -> dict[str, list[Sample]]:
    """The samples of each family; both parsers read the same, and what the textfile collector refuses is not in it."""
    assert text.endswith("\n# EOF\n")
    families = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]  # it has no types
    older = list(prometheus.text_string_to_metric_families(text))
    samples = [sample for family in families for sample in family.samples]
    assert repr([(s.name, s.labels, s.value) for family in older for s in family.samples]) == repr(
        [(s.name, s.labels, s.value) for s in samples]
    )
    for family in families:
        assert family.type == "gauge", family
        assert family.documentation, family
        assert not family.unit or family.name.endswith(f"_{family.unit}")
        assert "\\" not in family.documentation
        assert '"' not in family.documentation
    assert all(sample.timestamp is None for sample in samples)
    series = [(sample.name, *sorted(sample.labels.items())) for sample in samples]
    assert len(series) == len(set(series)), "a series occurs twice"
    return {family.name: list(family.samples) for family in families}


def value(samples: list[Sample], **labels: str) -> float:
    """The value of the one sample that has these labels."""
    (fitting,) = [sample for sample in samples if labels.items() <= sample.labels.items()]
    return float(fitting.value)


def test_outcomes_are_gauges() -> None:
    """One for each finding, with its severity; the state and the root causes of the target."""
    families = read(document([incident()]))
    outcomes = families["allodoc_health_outcome"]
    assert value(outcomes, symptom="db.fine", parameter="", target="prod") == 0
    assert value(outcomes, symptom="tls.lasts", severity="major") == 1
    assert value(outcomes, symptom="db.blocked-sessions", parameter="patients") == 2
    assert value(outcomes, symptom="db.query") == 3
    assert value(outcomes, symptom="db.accepted") == 4
    assert value(outcomes, symptom="db.absent") == 5
    assert value(families["allodoc_health_state"], target="prod") == 2
    (root,) = families["allodoc_health_root_cause"]
    assert root.labels["symptom"] == "db.idle-in-transaction"
    assert value(families["allodoc_health_run_timestamp_seconds"]) == NOW.timestamp()


def test_measurements_are_in_base_units() -> None:
    """Seconds, bytes, ratios, and plain counts without a unit; the limits as well."""
    families = read(document([incident()]))
    assert value(families["allodoc_health_measurement_seconds"], measurement="oldest idle transaction") == 720
    assert value(families["allodoc_health_measurement_bytes"], measurement="database size") == 5 * 2**30
    assert value(families["allodoc_health_measurement_ratio"], measurement="in use") == pytest.approx(0.975)
    assert value(families["allodoc_health_measurement"], measurement="chain length") == 3
    limits = families["allodoc_health_limit_seconds"]
    assert value(limits, symptom="tls.lasts", outcome="fail", worse="below") == 604800
    assert value(families["allodoc_health_limit_ratio"], outcome="warn") == pytest.approx(0.8)


def test_partial_runs_and_waivers_are_told() -> None:
    """Whether it is partial, and when each waiver runs out."""
    waiver = Waiver(symptom="db.x", parameter="y", reason="r", owner="kim@example.org", expires=NOW)
    text = document([told(cut_short="interrupted", waivers=(waiver,)), told(target="staging")])
    families = read(text)
    assert value(families["allodoc_health_partial"], target="prod") == 1
    assert value(families["allodoc_health_partial"], target="staging") == 0
    assert value(families["allodoc_health_waiver_expiry_timestamp_seconds"], symptom="db.x") == NOW.timestamp()
    assert "kim" not in text


def test_a_series_that_would_occur_twice_occurs_once() -> None:
    """The textfile collector would refuse the whole file otherwise."""
    twice = (Measurement("m", 1, "s"), Measurement("m", 2, "s"))
    families = read(document([told(found("db.x", Outcome.PASS, measurements=twice))]))
    assert value(families["allodoc_health_measurement_seconds"], measurement="m") == 1


def test_what_is_no_number_is_told_as_such() -> None:
    """Infinity and NaN are values of the format."""
    odd = (Measurement("a", math.inf, "s"), Measurement("b", math.nan, "s"))
    samples = read(document([told(found("db.x", Outcome.PASS, measurements=odd))]))[
        "allodoc_health_measurement_seconds"
    ]
    assert value(samples, measurement="a") == math.inf
    assert math.isnan(value(samples, measurement="b"))


def test_every_unit_has_a_base_unit() -> None:
    """Whatever unit a check or a piece of evidence names has its place in the table."""
    named = {
        keyword.value.value
        for folder in ("checks", "fixtures")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(Path(path).read_text("utf-8")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "unit" and isinstance(keyword.value, ast.Constant)
    }
    assert {"s", "B", "%"} <= named <= set(BASE_UNITS)


@some
@given(hostile_reports(), hostile_reports())
def test_nothing_breaks_the_format(one: Any, other: Any) -> None:
    """Any text anywhere: both parsers read the file, and it has a series for each finding."""
    families = read(document([one, other]))
    assert len(families["allodoc_health_outcome"]) <= len(one.findings) + len(other.findings)


def test_a_run_replaces_the_file_at_once(pretend: Pretend) -> None:
    """What was there is gone, the collector never sees half a file, and nothing else is left in its folder."""
    pretend.checks(
        """
    @symptom("db.size", severity=Severity.MINOR)
    def test_size(finding):
        \"\"\"It is small.\"\"\"
        finding.measure("database size", 8192, unit="B")
    """
    )
    pretend.target("prod")
    pretend.target("staging")
    folder = pretend.folder / "textfile"
    folder.mkdir()
    (folder / "health.prom").write_text("old 1\n", "utf-8")
    run = pretend.run("--target", "prod", "--target", "staging", "--openmetrics", "textfile/health.prom")
    assert run.exit_status == 0
    families = read((folder / "health.prom").read_text("utf-8"))
    for target in ("prod", "staging"):
        assert value(families["allodoc_health_measurement_bytes"], target=target) == 8192
    assert [path.name for path in folder.iterdir()] == ["health.prom"]
