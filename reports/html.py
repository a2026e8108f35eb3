"""The HTML report: pytest-html's, in one file that needs nothing else, with the verdict above its table.

Whatever must be known at once is in the HTML itself and needs no JavaScript; pytest-html's script then draws the table
of all checks. Everything that was observed is hostile until it is escaped: a log line can hold a script. Templates
escape by themselves, and a Content-Security-Policy lets only run what this suite and pytest-html brought along.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.bccache import Bucket
from pytest_html import __version__ as pytest_html_version
from pytest_html.report_data import ReportData
from pytest_html.selfcontained_report import SelfContainedReport

from allodoc_health.finding import Escalation, Finding, Measurement, Outcome, duration, quantity
from allodoc_health.plugin import wants_checks
from allodoc_health.run import TargetReport
from reports.snapshot import report_path, write_report, write_whole
from reports.terminal import LETTERS, because

PAGE = Path(__file__).parent / "page"

# pytest-html knows seven results and sorts them in this order. Our outcomes take their places, so that its filters and
# its order are ours.
PLACES = {
    "error": "broken down",
    "failed": "fail",
    "rerun": "blocked",
    "xfailed": "warn",
    "xpassed": "waived",
    "skipped": "not applicable",
    "passed": "pass",
}
_PLACE_OF = {label: place for place, label in PLACES.items()}
_SIGNS = {
    "fail": "■",
    "blocked": "◆",
    "warn": "▲",
    "waived": "◇",
    "not applicable": "–",
    "pass": "●",
    "broken down": "✕",
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the report, in place of the one that pytest-html would make."""
    if hasattr(config, "workerinput") or config.option.collectonly or not config.pluginmanager.hasplugin("html"):
        return
    wanted = config.getoption("htmlpath")
    if not wants_checks(config) or (config.getoption("no_reports") and not wanted):
        return
    config.option.htmlpath = None
    report = HealthReport(config, Path(wanted) if wanted else None)
    config.pluginmanager.register(report, "health-html")


class HealthReport(SelfContainedReport):  # type: ignore[misc]  # pytest-html publishes no types
    """pytest-html's self-contained report on a page of ours.

    It is made when the run is over and the verdict is known. ``wanted`` is the path that the user asked for; without
    one the report goes to the folder of the reports, called by time and target, with ``latest.html`` beside it.
    """

    def __init__(self, config: pytest.Config, wanted: Path | None) -> None:
        styles = [PAGE / "report.css", *(Path(css).expanduser() for css in config.getoption("css"))]
        data = ReportData(config)
        data.set_data("renderCollapsed", ["all"])
        # Only its name is used by the parent, which would make the folder at once and fail if it can't.
        placeholder = config.rootpath / "report.html"
        super().__init__(placeholder, config, data, None, "\n".join(style.read_text("utf-8") for style in styles))
        self._wanted = wanted
        self._kept: list[pytest.TestReport] = []
        self._found: dict[str, list[tuple[Finding, TargetReport]]] = {}
        self.reports: list[TargetReport] = []
        self.outcome_line = ""
        self.trouble = ""

    # -- what comes in ------------------------------------------------------------------------------------------

    def pytest_health_report(self, report: TargetReport) -> None:
        """Keep what is known of one target."""
        self.reports.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the report of one phase: rows are made when it is known what explains what."""
        self._kept.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make the rows, then the page, then the file."""
        if not self.reports and not self._wanted:
            return
        for target in self.reports:
            for finding in target.findings:
                self._found.setdefault(finding.nodeid, []).append((finding, target))
        try:
            for report in self._kept:
                super().pytest_runtest_logreport(report)
            super().pytest_sessionfinish(session)
        except Exception as error:  # noqa: BLE001  # a report that fails must not take the verdict with it
            self.trouble = f"no HTML report: {type(error).__name__}: {error}"

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the report is, or why there is none."""
        if self.trouble:
            terminalreporter.write_line(self.trouble, red=True)
        elif self.outcome_line and self._config.get_verbosity() >= 0:
            terminalreporter.write_line(self.outcome_line)

    # -- pytest-html's own hooks ----------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_header(self, cells: list[str]) -> None:
        """Name our columns."""
        cells[:] = [
            '<th class="sortable" data-column-type="result" scope="col">Outcome</th>',
            '<th class="sortable" data-column-type="symptom" scope="col">Symptom</th>',
            '<th class="sortable" data-column-type="severity" scope="col">Severity</th>',
            '<th class="sortable" data-column-type="message" scope="col">Message</th>',
            '<th class="sortable" data-column-type="measurement" scope="col">Measurement</th>',
            '<th class="sortable" data-column-type="duration" scope="col">Took</th>',
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport | pytest.CollectReport, cells: list[str]) -> None:
        """Fill our columns. Cells are raw HTML: everything is escaped here."""
        result = re.sub(r"<[^>]*>", "", cells[0]).lower()
        took = cells[2]
        # A file that can't be read has a report, too, and that has no properties.
        properties = {str(key): str(value) for key, value in getattr(report, "user_properties", ())}
        name = properties.get("symptom", report.nodeid)
        finding = next((found for found, _ in self._found.get(report.nodeid, ()) if found.name == name), None)
        if "defect" in properties or (report.failed and report.when in ("setup", "teardown")):
            label, message = "broken down", "the suite itself is at fault"
        elif finding is not None:
            label, message = finding.outcome.value.replace("-", " "), finding.message
        else:
            label, message = PLACES.get(result, result), "can't be read" if report.when == "collect" else ""
        if len(self.reports) > 1 and "target" in properties:
            name = f"{properties['target']} {name}"
        measured = finding.measurements[0].text if finding and finding.measurements else ""
        place = _PLACE_OF.get(label, result)
        css = label.replace(" ", "-")
        cells[:] = [
            f'<td class="col-result" data-result="{escape(place)}">'
            f'<span class="outcome {escape(css)}">{_SIGNS.get(label, "")} {escape(label)}</span></td>',
            f'<td class="col-symptom"><code>{escape(name)}</code></td>',
            f'<td class="col-severity">{escape(properties.get("severity", ""))}</td>',
            f'<td class="col-message">{escape(_first(message))}</td>',
            f'<td class="col-measurement">{escape(measured)}</td>',
            took,
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_html(self, report: pytest.TestReport, data: list[str]) -> None:
        """What unfolds below a row: the findings in full. A defect keeps its traceback, which pytest-html escapes."""
        found = self._found.get(report.nodeid, [])
        if found and "findings" in dict(getattr(report, "user_properties", ())):
            several = len(found) > 1
            views = [{**_finding_view(finding, target), "several": several} for finding, target in found]
            data[:] = [_template("details.jinja2").render(findings=views, nodeid=report.nodeid)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_summary(self, prefix: list[str]) -> None:
        """Put the verdicts above the table."""
        if self.reports:
            targets = [target_view(report) for report in self.reports]
            prefix.append(_template("verdict.jinja2").render(targets=targets))

    def _hydrate_data(self, data: dict[str, Any], cells: Sequence[str]) -> None:
        """Take from the cells what the table is sorted and filtered by."""
        super()._hydrate_data(data, cells)
        place = re.search(r'data-result="(\w+)"', cells[0])
        data["result"] = place[1] if place else "passed"

    def _generate_environment(self) -> dict[str, str]:
        """Nothing: pytest-html would show the environment of whoever ran this, and of the CI system that it ran in."""
        return {}

    # -- what goes out ---------------------------------------------------------------------------------------------

    def _generate_report(self, *_: object, **__: object) -> None:
        script = _table_script()
        counts = Counter(row["result"] for rows in self._report.data["tests"].values() for row in rows)
        self._report.title = " · ".join(f"{r.target.name} {r.verdict.state.phrase}" for r in self.reports) or "pytest"
        page = _template("page.jinja2").render(
            title=self._report.title,
            styles=self.css,
            style_hash=_hash(self.css),
            script=script,
            script_hash=_hash(script),
            additional_summary=self._report.additional_summary,
            filters=[(place, label, counts[place]) for place, label in PLACES.items()],
            table_head=self._report.table_header,
            test_data=json.dumps(self._report.data),
            made=_moment(datetime.now(UTC)),
            version=pytest_html_version,
            pytest_version=pytest.__version__,
            python_version=platform.python_version(),
        )
        self._write_report(page)

    def _write_report(self, rendered_report: str) -> None:
        """Write the file whole or not at all. If it can't be written, that is said, and changes nothing else."""
        if self._wanted is not None:
            path = self._config.invocation_params.dir / self._wanted.expanduser()
            names = ""
        else:
            names = "-".join(report.target.name for report in self.reports)
            path = report_path(self._config, self.reports[0], ".html", names)
        try:
            if self._wanted is not None:
                write_whole(path, rendered_report)
            else:
                path = write_report(self._config, self.reports[0], ".html", rendered_report, names)
        except OSError as error:
            self.trouble = f"no HTML report: {path}: {error.strerror or error}"
        else:
            here = self._config.invocation_params.dir
            self.outcome_line = f"report: {path.relative_to(here) if path.is_relative_to(here) else path}"


# -- from a report to what its page says -------------------------------------------------------------------------------


def target_view(report: TargetReport) -> dict[str, Any]:
    """What the page says of one target, as plain values; escaping is left to the template."""
    verdict = report.verdict
    views = {finding.name: _finding_view(finding, report) for finding in report.findings}
    by_outcome: dict[Outcome, list[dict[str, Any]]] = {outcome: [] for outcome in Outcome}
    for finding in report.findings:
        by_outcome[finding.outcome].append(views[finding.name])
    causes = [views[name] for name in verdict.root_causes]
    usual_times = [cause["remedy"].usual_time for cause in causes if cause["remedy"]]
    blocked = [views[name] for name in verdict.consequences if views[name]["outcome"] == Outcome.BLOCKED]
    target = report.target
    started = report.started.astimezone(UTC)
    local = report.started.astimezone()
    return {
        "name": target.name,
        "anchor": f"target-{_anchor(target.name)}",
        "origin": "what was discovered on this host" if target.origin == "discovered" else target.origin,
        "undiscovered": target.undiscovered,
        "services": [
            (role, service.container or "", target.found.get(role, ""))
            for role in target.roles
            if (service := target.services.get(role)) is not None
        ],
        "state": verdict.state.value,
        "verb": verdict.state.phrase.partition(" ")[0],
        "phrase": verdict.state.phrase.partition(" ")[2],
        "iso": started.isoformat(timespec="seconds"),
        "utc": _moment(started),
        "local": _local(local),
        "seconds": duration(report.seconds),
        "counts": [(LETTERS[outcome][0], len(some)) for outcome, some in by_outcome.items() if some],
        "cut_short": report.cut_short,
        "escalation": "" if verdict.escalation is Escalation.NONE else verdict.escalation.value,
        "escalation_reason": verdict.escalation_reason,
        "causes": causes,
        "whom": list(dict.fromkeys(c["remedy"].escalate for c in causes if c["remedy"] and c["remedy"].escalate)),
        "usual_times": list(dict.fromkeys(usual for usual in usual_times if usual)),
        "follows": [views[name] for name in verdict.consequences if views[name]["outcome"] == Outcome.FAIL],
        "blocked": _grouped(blocked, "blocked_by"),
        "warned": by_outcome[Outcome.WARN],
        "waived": by_outcome[Outcome.WAIVED],
        "not_applicable": _grouped(by_outcome[Outcome.NOT_APPLICABLE], "first"),
        "not_run": report.not_run,
        "defects": report.defects,
        "all": list(views.values()),
    }


def _finding_view(finding: Finding, report: TargetReport) -> dict[str, Any]:
    first, *rest = finding.message.splitlines() or [""]
    bars = [bar for measurement in finding.measurements if (bar := _bar(measurement)) is not None]
    gravity = {"fail": 0, "warn": 1, "pass": 2}
    return {
        "name": finding.name,
        "anchor": f"cause-{_anchor(report.target.name)}-{_anchor(finding.name)}",
        "title": finding.title,
        "outcome": finding.outcome.value,
        "severity": finding.severity.value,
        "first": first,
        "proof": [*rest, *finding.details],
        "measurements": [_measurement_view(measurement) for measurement in finding.measurements],
        "bars": sorted(bars, key=lambda bar: gravity[bar["outcome"]])[:3],
        "remedy": report.remedies.get(finding.name),
        "anchor_in_guide": finding.remedy,
        "because": because(finding, report.verdict.root_causes),
        "causes": ", ".join(finding.caused_by),
        "blocked_by": finding.blocked_by or "",
        "since": _since(finding, report.started),
    }


def _measurement_view(measurement: Measurement) -> dict[str, str]:
    at = "at" if measurement.worse == "above" else "below"
    limits = [
        f"{word} {at} {quantity(bound, measurement.unit)}"
        for word, bound in (("warn", measurement.warn), ("fail", measurement.fail))
        if bound is not None
    ]
    return {
        "name": measurement.name,
        "value": measurement.text,
        "limits": ", ".join(limits),
        "source": measurement.source if limits else "",
    }


def _bar(measurement: Measurement) -> dict[str, Any] | None:
    """A measured value beside its limits, in percent of the bar's length; ``None`` if there are none."""
    value, bounds = measurement.value, [b for b in (measurement.warn, measurement.fail) if b is not None]
    if not bounds or not math.isfinite(value):
        return None
    most = max(value, *bounds)
    top = 100.0 if measurement.unit == "%" and most <= 100 else most * 1.15
    if top <= 0:
        return None

    def at(number: float | None) -> float | None:
        return None if number is None else round(min(99.2, max(0.0, 100 * number / top)), 1)

    def beyond(bound: float | None) -> bool:
        return bound is not None and (value >= bound if measurement.worse == "above" else value <= bound)

    outcome = "fail" if beyond(measurement.fail) else "warn" if beyond(measurement.warn) else "pass"
    shown = _measurement_view(measurement)
    return {
        **shown,
        "outcome": outcome,
        "at": at(value),
        "warn_at": at(measurement.warn),
        "fail_at": at(measurement.fail),
    }


def _grouped(views: Iterable[Mapping[str, Any]], key: str) -> list[tuple[str, list[Mapping[str, Any]]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for view in views:
        groups.setdefault(view[key], []).append(view)
    return list(groups.items())


def _first(message: str) -> str:
    return message.partition("\n")[0]


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%a %d %b %Y %H:%M:%S UTC")


def _local(moment: datetime) -> str:
    if not moment.utcoffset():
        return f"local time is {moment.tzname()}"
    offset = moment.strftime("%z")
    return f"= {moment:%a %H:%M:%S} {moment.tzname()} (UTC{offset[:3]}:{offset[3:]})"


def _since(finding: Finding, started: datetime) -> str:
    if finding.since is None or finding.outcome is not Outcome.FAIL:
        return ""
    lasted = duration(max(0.0, (started - finding.since).total_seconds()))
    return f"for {lasted}, since {finding.since.astimezone(UTC):%H:%M:%S UTC}"


def _anchor(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")


class _Compiled(jinja2.BytecodeCache):
    """Compiled templates beside their sources, as Python keeps its own; to no effect where nothing can be written."""

    folder = PAGE / "__pycache__"

    def load_bytecode(self, bucket: Bucket) -> None:
        """Take what an earlier run compiled, if it is of this very source and version."""
        with suppress(OSError), (self.folder / bucket.key).open("rb") as file:
            bucket.load_bytecode(file)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep it for the next run."""
        if sys.dont_write_bytecode:
            return
        unfinished = self.folder / f"{bucket.key}.{os.getpid()}"
        with suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            unfinished.write_bytes(bucket.bytecode_to_string())
            unfinished.replace(self.folder / bucket.key)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        bytecode_cache=_Compiled(),
    )


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


@cache
def _table_script() -> str:
    """The script by which pytest-html draws, sorts and filters its table, as it is installed."""
    import pytest_html

    return (Path(pytest_html.__file__).parent / "resources" / "app.js").read_text("utf-8").strip()


def _hash(text: str) -> str:
    """The source by which a Content-Security-Policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
