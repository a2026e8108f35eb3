"""GitHub Actions: annotations on the run, and the report in the summary of the job.

The runner takes a line of output that begins with two colons for a command, wherever in it the words come from. What
the suite prints may hold observed text: commands are therefore switched off while it does, by the runner's own means.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from allodoc_health.finding import Finding, Outcome
from allodoc_health.run import TargetReport
from reports.markdown import document
from reports.printable import lines, one_line
from reports.streams import reason, tell
from reports.summary import told_first, whom

SHOWN = 10
"""How many annotations of one kind GitHub shows of a step."""

LARGEST = 1024 * 1024
"""Bytes that the summary of a step may have; GitHub shows nothing of a larger one."""


def command(kind: str, title: str, message: str) -> str:
    """A workflow command that annotates the run."""
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return lines(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(one_line(text)).replace(":", "%3A").replace(",", "%2C")


def annotated(report: TargetReport) -> Iterator[str]:
    """A target's root causes as errors, what warns as warnings, what follows and what is partial as a notice."""
    target = report.target.name
    urgent = told_first(report)
    kind = "warning" if all(finding.outcome is Outcome.WARN for finding in urgent) else "error"
    for finding in urgent[:SHOWN]:
        yield command(kind, f"{target}: {finding.name}", _told(finding, report))
    for defect in report.defects[:SHOWN]:
        name = defect.symptom or defect.nodeid
        yield command("error", f"{target}: {name} broke down", "The suite itself is at fault.")
    if report.verdict.root_causes:
        warned = [finding for finding in report.findings if finding.outcome is Outcome.WARN]
        for finding in warned[:SHOWN]:
            yield command("warning", f"{target}: {finding.name}", _told(finding, report))
    for warning in report.warnings[:SHOWN]:
        yield command("warning", target, warning)
    if report.partial:
        yield command("error", f"{target}: partial", report.cut_short or "not every check had its turn")
    if report.verdict.consequences:
        yield command("notice", f"{target}: what follows", ", ".join(report.verdict.consequences))


def _told(finding: Finding, report: TargetReport) -> str:
    told = [finding.message, *finding.details]
    remedy = report.remedies.get(finding.name)
    if remedy is not None:
        told.append(f"do: {remedy.anchor}")
    if finding.name in report.verdict.root_causes and whom(report):
        told.append(whom(report))
    return "\n".join(told)


class GitHubActions:
    """Annotates the run and appends to the file that ``$GITHUB_STEP_SUMMARY`` names."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reports: list[TargetReport] = []
        self._token = secrets.token_hex(16)

    def pytest_health_report(self, report: TargetReport) -> None:
        """Keep what is known of one target."""
        self._reports.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Switch commands off: from here on observed text is printed."""
        self._print(f"::stop-commands::{self._token}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Append the report to the job's summary."""
        path = os.environ.get("GITHUB_STEP_SUMMARY")
        if not path or not self._reports:
            return
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(_cut(document(self._reports)))
        except OSError as error:
            tell(self._config, f"no summary for GitHub: {path}: {reason(error)}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_unconfigure(self) -> Generator[None]:
        """Switch commands on again and annotate, below the last word that the suite says."""
        try:
            return (yield)
        finally:
            self._print(f"::{self._token}::", *(line for report in self._reports for line in annotated(report)))

    def _print(self, *printed: str) -> None:
        terminal: pytest.TerminalReporter | None = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            for line in printed:
                terminal.write_line(line)


def _cut(text: str) -> str:
    """The text as far as GitHub would show it."""
    if len(text.encode()) <= LARGEST:
        return text
    note = "\n\nThe rest is left out: it is too long for this summary.\n"
    return text.encode()[: LARGEST - len(note.encode())].decode(errors="ignore") + note
