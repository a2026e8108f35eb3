"""JSON lines: what a run finds, one finding a line, while it goes on.

The first line is the ``run`` with its targets, then comes a line for each ``finding`` as soon as its check has ended,
and for each target a ``verdict``. Which finding explains which is only known in the end: a finding that has changed by
then is told once more, before the verdict, and takes the earlier one's place.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pytest

from allodoc_health.collected import read_findings
from allodoc_health.finding import Finding
from allodoc_health.plugin import HealthRun
from allodoc_health.run import SCHEMA, TargetReport
from reports.snapshot import finding_content
from reports.streams import move_terminal, reason, tell


def line(kind: str, content: Mapping[str, Any]) -> str:
    """One line of JSON, in ASCII so that no character in it can be taken for a line's end; without the line break."""
    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(content, fallback=str)
    return json.dumps(_finite({"type": kind, **plain}), ensure_ascii=True, allow_nan=False)


def _finite(value: Any) -> Any:
    """The value with what is no number to JSON as a string, as it is in the snapshot: ``"Infinity"``."""
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def finding_line(finding: Finding) -> dict[str, Any]:
    """A finding as the snapshot tells it, with its name, its target, and how long its check took in seconds."""
    told = {"target": finding.target, "name": finding.name, **finding_content(finding)}
    del told["nodeid"]  # which it gets when the run is over: it would be told again for nothing else
    return {**told, "seconds": round(finding.seconds, 4)}


def verdict_content(report: TargetReport) -> dict[str, Any]:
    """A target's verdict, and whether it is partial."""
    return {
        "target": report.target.name,
        "started": report.started,
        "seconds": round(report.seconds, 3),
        "state": report.verdict.state,
        "root_causes": report.verdict.root_causes,
        "consequences": report.verdict.consequences,
        "escalation": report.verdict.escalation,
        "escalation_reason": report.verdict.escalation_reason,
        "partial": report.partial,
        "cut_short": report.cut_short,
        "not_run": report.not_run,
        "defects": report.defects,
        "warnings": report.warnings,
    }


class JsonLines:
    """Writes to ``path``, or to the standard output without one; then what pytest says goes to stderr."""

    def __init__(self, config: pytest.Config, path: Path | None) -> None:
        self._config = config
        self._path = path
        self._file: TextIO | None = None
        self._told: dict[tuple[str, str], str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Begin, once it is known which targets can be used."""
        run: HealthRun = self._config.pluginmanager.getplugin("health-run")
        if not run.inspections:
            return
        try:
            if self._path is None:
                # A copy: pytest redirects the original while a check runs.
                self._file = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
            else:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("w", encoding="utf-8")
        except OSError as error:
            self._give_up(error)
        targets = [
            {"name": name, "origin": one.target.origin, "started": one.target.started}
            for name, one in run.inspections.items()
        ]
        self._write(line("run", {"schema": SCHEMA, "targets": targets}))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell what a check has found, wherever it ran."""
        properties = dict(report.user_properties)
        if report.when != "teardown" and "findings" in properties:
            for finding in read_findings(str(properties["findings"])):
                self._tell(finding)

    def pytest_health_report(self, report: TargetReport) -> None:
        """Tell what is only known now, and the verdict."""
        for finding in report.findings:
            self._tell(finding)
        self._write(line("verdict", verdict_content(report)))

    def _tell(self, finding: Finding) -> None:
        text = line("finding", finding_line(finding))
        if self._told.get((finding.target, finding.name)) != text:
            self._told[finding.target, finding.name] = text
            self._write(text)

    def _write(self, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(f"{text}\n")
            self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._close()
        tell(self._config, f"no --json-lines: {self._path or 'stdout'}: {reason(error)}")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what could not be written was told when it was tried
                file.close()

    def pytest_unconfigure(self) -> None:
        """Let go of the file."""
        self._close()


class QuietStdout:
    """Moves pytest's own words to stderr, before the first of them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Move them."""
        move_terminal(self._config, sys.stderr)
