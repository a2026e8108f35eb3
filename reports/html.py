"""The HTML report: what pytest-html collects, on a page of ours, in one file that needs nothing else.

The verdict stands above everything, and whatever is on the page is in the HTML itself: it is read without JavaScript,
too, as mail clients do. Everything that was observed is hostile until it is escaped: a log line can hold a script.
Templates escape by themselves, and a Content-Security-Policy lets only run what this suite brought along.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import pytest
from pytest_html import __version__ as pytest_html_version
from pytest_html.report_data import ReportData
from pytest_html.selfcontained_report import SelfContainedReport

from allodoc_health.finding import Finding
from allodoc_health.finding import duration as seconds
from allodoc_health.plugin import wants_checks
from allodoc_health.run import TargetReport
from allodoc_health.symptom import CHAPTERS
from reports.comparison import COMPARISONS
from reports.history import PAST
from reports.overview import overview, worst_first
from reports.page.room import LIMIT, Room, rooms
from reports.page.templates import content_hash, source, template
from reports.page.view import (
    GRAVEST_FIRST,
    NO_PAST,
    NOTHING,
    SIGNS,
    Context,
    chapter_of,
    finding_view,
    moment,
    target_view,
)
from reports.snapshot import report_path, write_report, write_whole

# What pytest-html calls the results of tests that are no checks of ours.
_OUTCOMES = {
    "error": "broken-down",
    "failed": "fail",
    "rerun": "blocked",
    "xfailed": "pass",
    "xpassed": "warn",
    "skipped": "not-applicable",
    "passed": "pass",
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
        own = [Path(css).expanduser().read_text("utf-8") for css in config.getoption("css")]
        # Only its name is used by the parent, which would make the folder at once and fail if it can't.
        placeholder = config.rootpath / "report.html"
        super().__init__(placeholder, config, ReportData(config), None, "\n".join([source("report.css"), *own]))
        self._wanted = wanted
        self._kept: list[pytest.TestReport] = []
        self._collected: list[pytest.CollectReport] = []
        self._found: dict[str, list[tuple[Finding, TargetReport]]] = {}
        self._room = rooms()[0]
        self._told: tuple[Finding, TargetReport] | None = None
        self._is_due = False
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
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what can't be read."""
        if report.failed:
            self._collected.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make the page, then the file."""
        if not self.reports and not self._wanted:
            return
        for target in self.reports:
            for finding in target.findings:
                self._found.setdefault(finding.nodeid, []).append((finding, target))
        self._is_due = True
        try:
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
        names = ("Outcome", "Symptom", "What was seen", "Measurement", "Severity", "Took")
        cells[:] = [f'<th scope="col">{name}</th>' for name in names]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_row(self, report: pytest.TestReport | pytest.CollectReport, cells: list[str]) -> None:
        """Fill our columns. Cells are raw HTML: everything is escaped here, or by a template."""
        result = re.sub(r"<[^>]*>", "", cells[0]).lower()
        took = cells[2]
        # A file that can't be read has a report, too, and that has no properties.
        properties = {str(key): str(value) for key, value in getattr(report, "user_properties", ())}
        view = finding_view(*self._told, self._room, NOTHING) if self._told else None
        if "defect" in properties or (report.failed and report.when in ("setup", "teardown")):
            outcome, message = "broken-down", "the suite itself is at fault"
        elif view:
            outcome, message = view["outcome"], view["first"]
        else:
            outcome, message = _OUTCOMES.get(result, "pass"), "can't be read" if report.when == "collect" else ""
        name = view["name"] if view else self._room.text(properties.get("symptom", report.nodeid))
        measured = view["measurements"][0]["value"] if view and view["measurements"] else ""
        cells[:] = [
            f'<td class="col-outcome" data-outcome="{escape(outcome)}" data-target="{escape(_target(report))}">'
            f'<span class="outcome {escape(outcome)}">'
            f'<span aria-hidden="true">{SIGNS[outcome]}</span> {escape(outcome.replace("-", " "))}</span></td>',
            f'<td class="col-symptom"><code>{escape(name)}</code></td>',
            template("details.jinja2").render(message=message, finding=view, nodeid=report.nodeid),
            f'<td class="col-measurement">{escape(measured)}</td>',
            f'<td class="col-severity">{escape(properties.get("severity", ""))}</td>',
            took,
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_table_html(self, report: pytest.TestReport, data: list[str]) -> None:
        """Leave out what says nothing. A defect keeps its traceback, which pytest-html escapes."""
        if "findings" in dict(getattr(report, "user_properties", ())) or data == ["No log output captured."]:
            data.clear()
        elif data:
            data[:] = [self._room.text("\n".join(data))] if len("".join(data)) > self._room.characters * 4 else data

    def _hydrate_data(self, data: dict[str, Any], cells: Sequence[str]) -> None:
        """Take from the first cell where a row belongs."""
        super()._hydrate_data(data, cells)
        for key in ("outcome", "target"):
            said = re.search(rf'data-{key}="([^"]*)"', cells[0])
            data[key] = said[1] if said else ""

    def _process_report(self, report: pytest.TestReport | pytest.CollectReport, *arguments: Any) -> None:
        """Make a row for each finding: a check has several where only the evidence names what it is about."""
        if report.when in ("setup", "teardown") and report.passed and not report.sections:
            return  # pytest-html would make a row only to leave it out
        found = self._found.get(report.nodeid, ()) if report.when == "call" else ()
        for told in found or (None,):
            self._told = told
            super()._process_report(report, *arguments)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_duration_format(self, duration: float) -> str:
        """A duration as the rest of the page writes it."""
        return seconds(duration)

    def _generate_environment(self) -> dict[str, str]:
        """Nothing: pytest-html would show the environment of whoever ran this, and of the CI system that it ran in."""
        return {}

    # -- what goes out ---------------------------------------------------------------------------------------------

    def _generate_report(self, *_: object, **__: object) -> None:
        if not self._is_due:  # pytest-html can be told to write after each test, when nothing is known yet
            return
        self._is_due = False
        self._report.title = " · ".join(f"{r.target.name} {r.verdict.state.phrase}" for r in self.reports) or "pytest"
        for room in rooms(sum(_weight(finding) for report in self.reports for finding in report.findings)):
            page = self._page(room)
            if len(page.encode("utf-8", "replace")) <= LIMIT:
                break
        self._write_report(page)

    def _page(self, room: Room) -> str:
        """The whole page, with as much in it as there is room for."""
        self._room = room
        self._reports.clear()
        self._report.data["tests"].clear()
        for collected in self._collected:
            super().pytest_collectreport(collected)
        for kept in self._kept:
            super().pytest_runtest_logreport(kept)
        rows: dict[str, list[dict[str, Any]]] = {}
        for nodeid, tests in self._report.data["tests"].items():
            for test in tests:
                row = {
                    "outcome": test["outcome"],
                    "cells": test["resultsTableRow"],
                    "log": test["log"],
                    "chapter": chapter_of(nodeid),
                }
                rows.setdefault(test["target"], []).append(row)
        targets = []
        for number, report in enumerate(worst_first(self.reports), 1):
            view = target_view(report, number, self._context(report), room)
            targets.append({**view, **_chapters(rows.pop(escape(report.target.name), []), room)})
        styles, script = self.css, source("page.js")
        return template("page.jinja2").render(
            title=self._report.title,
            targets=targets,
            groups=_groups(self.reports, {target["name"]: target["anchor"] for target in targets}),
            others=room.some((row for left in rows.values() for row in left), room.rows),
            styles=styles,
            style_hash=content_hash(styles),
            script=script,
            script_hash=content_hash(script),
            additional_summary=self._report.additional_summary,
            table_head=self._report.table_header,
            left_out=room.left_out,
            unmasked=bool(self._config.option.unmask_addresses),
            made=moment(datetime.now(UTC)),
            version=pytest_html_version,
            pytest_version=pytest.__version__,
            python_version=platform.python_version(),
        )

    def _context(self, report: TargetReport) -> Context:
        """What other plugins know of this target."""
        name = report.target.name
        return Context(
            past=self._config.stash.get(PAST, {}).get(name, NO_PAST),
            comparison=self._config.stash.get(COMPARISONS, {}).get(name),
            how=_how(self._config, report),
        )

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


def _weight(finding: Finding) -> int:
    return len(finding.message) + sum(map(len, finding.details))


def _target(report: pytest.TestReport | pytest.CollectReport) -> str:
    return next((str(value) for key, value in getattr(report, "user_properties", ()) if key == "target"), "")


def _groups(reports: Sequence[TargetReport], anchors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Several targets at a glance, by what is wrong with them; the worst first."""
    return [
        {
            "state": group.state.value,
            "cause": group.cause,
            "targets": [(name, anchors[name]) for name in group.targets],
        }
        for group in overview(reports)
    ]


def _chapters(rows: Sequence[dict[str, Any]], room: Room) -> dict[str, Any]:
    """The rows of one target by chapter, the gravest first; a chapter in which all is well is folded."""
    counts = Counter(row["outcome"] for row in rows)
    by_gravity = sorted(rows, key=lambda row: GRAVEST_FIRST.index(row["outcome"]))
    shown = {id(row) for row in room.some(by_gravity, room.rows)}
    chapters = []
    for chapter, title in {**CHAPTERS, "": "Other tests"}.items():
        members = [row for row in by_gravity if row["chapter"] == chapter]
        kept = [row for row in members if id(row) in shown]
        if members:
            chapters.append(
                {
                    "title": title,
                    "open": bool({"broken-down", "fail", "blocked", "warn"} & {row["outcome"] for row in members}),
                    "counts": _tally(Counter(row["outcome"] for row in members)),
                    "rows": kept,
                    "unsaid": len(members) - len(kept),
                }
            )
    return {"chapters": chapters, "filters": _tally(counts)}


def _tally(counts: Counter[str]) -> list[tuple[str, str, str, int]]:
    """Outcome, sign, words and number for each outcome that there is, the gravest first."""
    return [(name, SIGNS[name], name.replace("-", " "), counts[name]) for name in GRAVEST_FIRST if counts[name]]


def _how(config: pytest.Config, report: TargetReport) -> list[tuple[str, str]]:
    """How the suite was run, in those of its options that decide what was looked at."""
    said = [("Checks", " ".join(config.args))]
    if report.replayed:
        said.append(("Told again from", report.replayed))
    for word, option in (("Selected by mark", "markexpr"), ("Selected by word", "keyword")):
        if value := config.getoption(option):
            said.append((word, value))
    said.append(("Budget", seconds(config.getoption("budget"))))
    if workers := config.getoption("numprocesses", None):
        said.append(("Processes", str(workers)))
    if config.getini("strict"):
        said.append(("Strict", "warnings fail"))
    said.append(("Public addresses", "shown" if config.option.unmask_addresses else "masked"))
    return said
