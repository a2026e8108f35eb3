"""A suite of its own with a pretended runtime: the engine and the outputs, tried without any real service.

The module is also the plugin that the pretended suite loads, to put the runtime in place.
"""

from __future__ import annotations

import json
import runpy
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from allodoc_health.redaction import Redactor
from allodoc_health.runtimes.docker_engine import DockerWords
from allodoc_health.target import ROLES, TargetError, TargetSettings
from tests.beds.suite import ROOT

GONE = "gone"
"""A file in the suite's folder, as long as there is nothing that discovery could find."""

SECRET = "canary-secret-9f8e7d"
NAMES = {role: f"allodoc_{role}_prod" for role in ROLES}

_PLUGINS = runpy.run_path(str(ROOT / "conftest.py"))["pytest_plugins"]
_CONFTEST = f"pytest_plugins = {[*_PLUGINS, 'tests.beds.pretend']!r}"
_SETTINGS = """
[pytest]
testpaths = checks
check_paths = checks
# Hypothesis' plugin imports all of Hypothesis at the end of a run that has no use for it.
addopts = --import-mode=importlib -p no:hypothesispytest
strict_config = true
strict_markers = true
filterwarnings = error
"""
_IMPORTS = """
import os, time, threading
from datetime import timedelta
from pathlib import Path
import pytest
from allodoc_health import axes
from allodoc_health.finding import *
from allodoc_health.limits import Limit
from allodoc_health.probe import axis, client, probe
from allodoc_health.symptom import symptom
"""


class PretendedRuntime:
    """A runtime that runs nothing and only knows how an operator would speak to Docker."""

    kind = "docker"
    words = DockerWords(NAMES)

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """In the pretended suite: no real runtime is opened, and the guide is the suite's own if it has one."""
    from allodoc_health import inspection, remedy

    def open_pretended(
        settings: TargetSettings,
        name: str,
        origin: str,
        budget: float,
        root: Path,
        run: Mapping[str, object],
        redactor: Redactor,
    ) -> Any:
        if (config.rootpath / GONE).exists():
            raise TargetError("no AlloDoc found")
        services = {role: {"container": name} for role, name in NAMES.items() if role not in ("frontend",)}
        settings = settings.model_copy(
            update={"services": TargetSettings.model_validate({"services": services}).services}
        )
        target = inspection.complete(settings, name or "prod", origin, {}, {}).model_copy(update=run)
        redactor.learn(SECRET)
        secrets = inspection.Secrets(target, {}, {})
        return inspection.Inspection.live(target, PretendedRuntime(), secrets, redactor, budget)  # type: ignore[arg-type]

    inspection._open = open_pretended
    if (config.rootpath / "guide").is_dir():
        remedy.FOLDER = config.rootpath / "guide"


@dataclass(frozen=True)
class Ran:
    """What a run of the pretended suite left."""

    exit_status: int
    lines: list[str]
    errors: str
    snapshots: Mapping[str, Mapping[str, Any]]
    page: str
    folder: Path

    @property
    def output(self) -> str:
        """Everything that the terminal showed."""
        return "\n".join(self.lines)

    @property
    def snapshot(self) -> Mapping[str, Any]:
        """The snapshot of the only target."""
        (snapshot,) = self.snapshots.values()
        return snapshot

    @property
    def outcomes(self) -> dict[str, str]:
        """The outcome of each finding of the only target by its name."""
        return {
            finding["id"] + (f"[{finding['parameter']}]" if finding["parameter"] else ""): finding["outcome"]
            for finding in self.snapshot["findings"]
        }

    def finding(self, id: str) -> Mapping[str, Any]:
        """The finding of a symptom without parameter."""
        return next(finding for finding in self.snapshot["findings"] if finding["id"] == id)


class Pretend:
    """Writes the pretended suite and runs it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.folder = pytester.path
        (self.folder / "conftest.py").write_text(_CONFTEST, "utf-8")
        (self.folder / "pytest.ini").write_text(_SETTINGS, "utf-8")
        (self.folder / "targets").mkdir()
        (self.folder / "checks").mkdir()

    def checks(self, source: str, file: str = "checks/db/test_pretended.py") -> None:
        """Write a file of checks. What checks and probes usually need is imported already."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_IMPORTS + textwrap.dedent(source), "utf-8")

    def guide(self, text: str, chapter: str = "database.md") -> None:
        """Write a chapter of the guide, in place of the real guide."""
        (self.folder / "guide").mkdir(exist_ok=True)
        (self.folder / "guide" / chapter).write_text(textwrap.dedent(text), "utf-8")

    def target(self, name: str, text: str = "") -> Path:
        """Write a target file."""
        path = self.folder / "targets" / f"{name}.toml"
        path.write_text(textwrap.dedent(text), "utf-8")
        return path

    def run(self, *arguments: str) -> Ran:
        """Run pytest on the suite, in a process of its own, with reports of its own."""
        reports = self.folder / "made"
        result = self.pytester.runpytest_subprocess(f"--reports={reports}", *arguments, timeout=60)
        snapshots = {
            snapshot["target"]: snapshot
            for path in sorted(reports.glob("2*.json"), key=lambda path: path.stat().st_mtime_ns)
            for snapshot in [json.loads(path.read_text("utf-8"))]
        }
        latest = reports / "latest.html"
        page = latest.read_text("utf-8") if latest.exists() else ""
        return Ran(int(result.ret), list(result.outlines), "\n".join(result.errlines), snapshots, page, reports)


@pytest.fixture
def pretend(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """A pretended suite without checks; the test that asks for it loads the plugin ``pytester``."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    return Pretend(pytester)
