"""One run on a real system with every output at once: each is valid, and all tell the same."""

from __future__ import annotations

import json
from pathlib import Path

from tests.beds.embedded import Demo
from tests.beds.suite import Health
from tests.reports.test_junit import ends, parsed, properties
from tests.reports.test_markdown import tokens
from tests.reports.test_nagios import read as read_nagios
from tests.reports.test_openmetrics import read as read_openmetrics

CODES = ("pass", "warn", "fail", "blocked", "waived", "not-applicable")
"""The outcomes by the number that OpenMetrics has for each."""


def test_every_output_tells_the_same(demo: Demo, suite: Health, tmp_path: Path) -> None:
    """Redis is stopped: JUnit, JSON lines, OpenMetrics, Markdown and GitHub's summary agree with the snapshot on every
    finding, and the monitoring plugin on the root cause.
    """
    summary = tmp_path / "summary.md"
    demo.stop("redis")
    run = suite(
        "checks",
        f"--junitxml={tmp_path}/junit.xml",
        f"--json-lines={tmp_path}/lines.jsonl",
        f"--openmetrics={tmp_path}/health.prom",
        f"--markdown={tmp_path}/report.md",
        "--github",
        "--summary",
        target=demo.target,
        environment={"GITHUB_STEP_SUMMARY": str(summary)},
    )
    run.blames("service.running[redis]")
    told = {name: run.outcome(name) for name in run.names()}

    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text("ascii").splitlines()]
    assert [line["type"] for line in (lines[0], lines[-1])] == ["run", "verdict"]
    assert {line["name"]: line["outcome"] for line in lines[1:-1]} == told
    assert lines[-1]["root_causes"] == run.root_causes

    root = parsed((tmp_path / "junit.xml").read_text("utf-8"))
    expected = {"fail": "failure", "blocked": "error", "not-applicable": "skipped", "pass": "", "warn": ""}
    assert {name: tag for name, (tag, _) in ends(root).items()} == {name: expected[told[name]] for name in told}
    assert properties(root, "bed")["root-cause"] == "service.running[redis]"
    measured = {
        name: [each["name"] for each in run.finding(name)["measurements"]] for name in told if told[name] != "blocked"
    }
    for name, measurements in measured.items():
        assert {f"measurement {each} value" for each in measurements} <= set(properties(root, f"bed {name}"))

    families = read_openmetrics((tmp_path / "health.prom").read_text("utf-8"))
    series = {
        sample.labels["symptom"] + (f"[{parameter}]" if (parameter := sample.labels["parameter"]) else ""): sample.value
        for sample in families["allodoc_health_outcome"]
    }
    assert series == {name: CODES.index(outcome) for name, outcome in told.items()}
    gauges = [sample for name, some in families.items() if "measurement" in name for sample in some]
    assert len(gauges) == len({(name, each) for name, some in measured.items() for each in some})

    report = (tmp_path / "report.md").read_text("utf-8")
    assert report.startswith("# ■ bed is failing\n")
    assert summary.read_text("utf-8") == report
    assert sum(token.type == "tr_open" for token in tokens(report)) > len(told) - 1

    assert "bed is failing (looked at " in run.output
    assert "::error title=bed%3A service.running[redis]::" in run.output

    plugin = suite("checks", "--nagios", target=demo.target)
    status, _, data = read_nagios(plugin.output.rstrip("\n"))
    assert plugin.exit_status == 2
    assert status.startswith("ALLODOC CRITICAL - bed is failing: service.running[redis] ")
    assert len(data) > 20


def test_a_healthy_target_is_ok_everywhere(demo: Demo, suite: Health, tmp_path: Path) -> None:
    """No failure in JUnit, state 0 for Prometheus, OK for Nagios, no red annotation."""
    run = suite(
        "checks/db",
        *("--github", f"--junitxml={tmp_path}/junit.xml", f"--openmetrics={tmp_path}/health.prom"),
        target=demo.target,
    )
    run.is_calm()
    root = parsed((tmp_path / "junit.xml").read_text("utf-8"))
    assert (root.get("failures"), root.get("errors")) == ("0", "0")
    (state,) = read_openmetrics((tmp_path / "health.prom").read_text("utf-8"))["allodoc_health_state"]
    assert state.value in (0, 1)
    assert "::error" not in run.output
    plugin = suite("checks/db", "--nagios", target=demo.target)
    status, _, _ = read_nagios(plugin.output.rstrip("\n"))
    assert plugin.exit_status == state.value
    assert status.startswith(("ALLODOC OK - bed is healthy", "ALLODOC WARNING - bed has warnings")[plugin.exit_status])
