"""The machine-readable snapshot: one JSON file a target and run, and ``latest`` beside it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from allodoc_health.finding import Finding
from allodoc_health.redaction import WITHHELD
from allodoc_health.run import SCHEMA, TargetReport, digest_of, dumps, to_json

FOLDER = "reports/runs"

ABANDONED = 3600.0
"""Seconds after which nobody is still writing a report."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says where reports go."""
    group = parser.getgroup("health", "AlloDoc Health")
    group.addoption(
        "--reports",
        default=FOLDER,
        metavar="DIR",
        # pytest takes the word after an option that it does not know yet for a folder of tests, if there is one.
        help="folder for the reports (default: %(default)s); written --reports=DIR if it exists outside this checkout",
    )
    group.addoption("--no-reports", action="store_true", help="write no report files")
    group.addoption(
        "--snapshot",
        metavar="FILE",
        help="write the snapshot there, too; {target} in it stands for the target's name",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the writer. Refuses one file for several targets."""
    wanted, targets = config.getoption("snapshot"), config.getoption("target") or config.getoption("replay") or ()
    if wanted and len(set(targets)) > 1 and "{target}" not in wanted:
        raise pytest.UsageError(f"--snapshot {wanted} is one file for {len(targets)} targets: put {{target}} into it")
    config.pluginmanager.register(SnapshotWriter(config), "health-snapshot")


def report_path(config: pytest.Config, report: TargetReport, suffix: str, name: str = "", number: int = 1) -> Path:
    """Where a run's file goes: by time and target (or another ``name``), so that they sort.

    ``number`` tells apart the runs of one target that began in the same second.
    """
    moment = report.started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    told = f"{moment}-{safe_name(name or report.target.name)}{'-replayed' if report.replayed else ''}"
    folder: str = config.getoption("reports")
    return config.rootpath / folder / f"{told}{f'-{number}' if number > 1 else ''}{suffix}"


def safe_name(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)


@contextlib.contextmanager
def _written(path: Path, text: str) -> Iterator[Path]:
    """A hidden file beside a path, with the text in it; it is gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(text, "utf-8")
        yield unfinished
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a report file whole or not at all, in place of what was there. Raises OSError.

    A device or a pipe, such as ``/dev/stdout``, is written to as it is, and a link goes on leading where it led.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, "utf-8")
        return
    path = path.resolve()
    with _written(path, text) as unfinished:
        unfinished.replace(path)


_NUMBER = pytest.StashKey[int]()

WRITTEN = pytest.StashKey[list[Path]]()
"""In ``config.stash``, the files that this run wrote so far, for outputs that lead to them."""


def write_report(config: pytest.Config, report: TargetReport, suffix: str, text: str, name: str = "") -> Path:
    """Write a run's file whole or not at all, never over another run's, and let ``latest`` lead to it. Raises OSError.

    All files of a run get the same number, if they need one. What was replayed is no latest run.
    """
    path = report_path(config, report, suffix, name)
    with _written(path, text) as unfinished:
        for number in count(config.stash.get(_NUMBER, 1)):
            path = report_path(config, report, suffix, name, number)
            try:
                _take(unfinished, path)
            except FileExistsError:
                continue
            config.stash[_NUMBER] = number
            break
    if not report.replayed:
        latest = path.with_name(f"latest{suffix}")
        link = path.with_name(f".{latest.name}.{os.getpid()}.link")
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        link.replace(latest)
    _clear(path.parent)
    config.stash.setdefault(WRITTEN, []).append(path)
    return path


def _take(unfinished: Path, path: Path) -> None:
    """Give a file its name. Raises FileExistsError if another has it."""
    try:
        path.hardlink_to(unfinished)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        unfinished.replace(path)


def _clear(folder: Path) -> None:
    """Remove what runs that were killed long ago left unfinished."""
    with contextlib.suppress(OSError):
        for path in (*folder.glob(".*.unfinished"), *folder.glob(".latest.*.link")):
            if path.lstat().st_mtime < time.time() - ABANDONED:
                path.unlink()


class SnapshotWriter:
    """Writes the snapshot of each target."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_health_report(self, report: TargetReport) -> None:
        """Write one target's snapshot; a folder that can't be written is said, and changes nothing else."""
        wanted = self.config.getoption("snapshot")
        if self.config.getoption("no_reports") and not wanted:
            return
        path = report_path(self.config, report, ".json")
        try:
            text = dumps(snapshot(report, suite_run(self.config, report))) + "\n"
            if not self.config.getoption("no_reports"):
                write_report(self.config, report, ".json", text)
            if wanted:
                name = wanted.replace("{target}", safe_name(report.target.name))
                path = self.config.invocation_params.dir / name
                write_whole(path, text)
        except (OSError, TypeError, ValueError) as error:
            terminal = self.config.pluginmanager.getplugin("terminalreporter")
            terminal.write_line(f"no snapshot: {path}: {getattr(error, 'strerror', None) or error}", red=True)


PACKAGES = ("pytest", "pytest-testinfra", "psycopg", "redis", "requests", "docker", "cryptography", "pglast")
"""The libraries on whose versions it depends what is observed and how."""


def suite_run(config: pytest.Config, report: TargetReport) -> dict[str, Any]:
    """The suite's own version, its libraries', and how it was called; the keys are those of the snapshot."""
    return {
        "version": version("allodoc-health"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        # An address may hold a password, or be one, as those of chats are.
        "arguments": [re.sub(r"[\w.+-]+:/\S*", WITHHELD, word) for word in map(str, config.invocation_params.args)],
        "replayed": report.replayed or None,
    }


def snapshot(report: TargetReport, suite: Mapping[str, Any]) -> dict[str, Any]:
    """The snapshot of one target as JSON; :class:`allodoc_health.snapshot.Snapshot` is its type."""
    target = report.target
    content: dict[str, Any] = to_json(
        {
            "schema": SCHEMA,
            "target": target.name,
            "started": report.started,
            "seconds": round(report.seconds, 3),
            "suite": suite,
            "verdict": report.verdict,
            "findings": [finding_content(finding) for finding in report.findings],
            "defects": report.defects,
            "not_run": report.not_run,
            "cut_short": report.cut_short,
            "waited": report.waited,
            "warnings": report.warnings,
            "remedies": report.remedies,
            "timings": {name: round(seconds, 4) for name, seconds in report.timings.items()},
            # The limits that this target has of its own: a replay holds the evidence against today's others.
            "target_settings": {**target.model_dump(), "limits": target.limits.model_dump(exclude_defaults=True)},
            "operator": report.operator,
            "evidence": report.evidence,
            "unobserved": report.unobserved,
        }
    )
    return {**content, "digest": digest_of(content)}


def finding_content(finding: Finding) -> dict[str, Any]:
    """A finding as plain data; :class:`allodoc_health.snapshot.SnapshotFinding` is its type."""
    return {
        "id": finding.id,
        "parameter": finding.parameter,
        "outcome": finding.outcome,
        "severity": finding.severity,
        "title": finding.title,
        "message": finding.message,
        "details": finding.details,
        "measurements": finding.measurements,
        "remedy": finding.remedy or None,
        "blocked_by": finding.blocked_by,
        "caused_by": finding.caused_by,
        "since": finding.since,
        "nodeid": finding.nodeid,
    }
