"""The pytest plugin: it tells each report its past, and keeps it for those that follow."""

from __future__ import annotations

import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from allodoc_health.plugin import HealthRun, wants_checks
from allodoc_health.run import TargetReport
from reports.history import PAST
from reports.history.clerk import Clerk, NoAnswer, answer
from reports.history.location import FILE, locate
from reports.history.records import Records, outage_since, past_of
from reports.streams import tell

KEPT_DAYS = 400.0
"""A year, and as long again as it takes to compare its last month with that of the year before."""

DEADLINE = 4.0
"""Seconds that a run waits for its history, for reading and for writing; another writer has 2 of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say where the history is."""
    group = parser.getgroup("health", "AlloDoc Health")
    group.addoption(
        "--history",
        metavar="URL",
        help=f"where runs are remembered: a file, or postgresql+psycopg://USER@HOST/DATABASE (default: {FILE} in the "
        "folder of the reports)",
    )
    group.addoption("--no-history", action="store_true", help="remember nothing of this run, and of no other")
    group.addoption(
        "--history-keep",
        type=float,
        default=KEPT_DAYS,
        metavar="DAYS",
        help="forget runs that are older (default: %(default)g days)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the history, where there is one. Refuses a URL that names none."""
    if hasattr(config, "workerinput") or config.option.collectonly or not wants_checks(config):
        return
    given: str | None = config.getoption("history")
    if config.getoption("no_history"):
        if given:
            raise pytest.UsageError("--history and --no-history: one or the other")
        return
    if config.getoption("history_keep") <= 0:
        raise pytest.UsageError(f"--history-keep {config.getoption('history_keep'):g}: a number of days above 0")
    if config.getoption("no_reports") and not given:
        return
    try:
        reports = config.rootpath / config.getoption("reports")
        location = locate(given, config.invocation_params.dir) if given else locate(str(reports / FILE), Path())
    except ValueError as error:
        raise pytest.UsageError(f"--history: {error}") from None
    config.pluginmanager.register(History(config, Clerk(location)), "health-history")


class History:
    """The history of one session's targets. ``broken`` says why there is none, in a line."""

    def __init__(self, config: pytest.Config, clerk: Clerk) -> None:
        self.config = config
        self.clerk = clerk
        self.broken = ""
        self._keep = timedelta(days=config.getoption("history_keep"))
        self._whole = True
        self._asked: dict[str, Future[Records]] = {}
        self._known: dict[str, Records] = {}
        self._written: list[Future[None]] = []

    def pytest_deselected(self) -> None:
        """Some checks were left out: what follows is no run of all of them."""
        self._whole = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Read what is known of the targets while they are looked at."""
        run: HealthRun = self.config.pluginmanager.getplugin("health-run")
        for inspection in (one for one in run.inspections.values() if not one.replayed):
            self._ask(inspection.target.name, inspection.target.started)

    def _ask(self, target: str, started: datetime) -> Future[Records]:
        if target not in self._asked:
            self._asked[target] = self.clerk.ask(lambda store: store.read(target, started.astimezone(UTC)))
        return self._asked[target]

    def pytest_health_outage(self, report: TargetReport) -> datetime | None:
        """Tell the verdict and the outputs what was before."""
        if report.replayed or self.broken:  # a recorded run is no new one
            return None
        asked = self._ask(report.target.name, report.started)
        try:
            records = answer(asked, time.monotonic() + DEADLINE)
            past = past_of(report, records)
            since = outage_since(report, records)
        except NoAnswer as error:
            self.broken = f"no history: {error}"
            return None
        except Exception as error:  # noqa: BLE001  # whatever a database held, the run does not depend on it
            self.broken = f"no history: {type(error).__name__}: {error}"
            return None
        self.config.stash.setdefault(PAST, {})[report.target.name] = past
        self._known[report.target.name] = records
        return since

    @pytest.hookimpl(tryfirst=True)
    def pytest_health_report(self, report: TargetReport) -> None:
        """Write down what is, while the outputs make their files."""
        records = self._known.pop(report.target.name, None)
        if records is None or self.broken:
            return
        del self._asked[report.target.name]  # another look at this target is to see this one
        whole = self.whole(report)
        self._written.append(self.clerk.ask(lambda store: store.record(report, records, whole=whole, keep=self._keep)))

    def whole(self, report: TargetReport) -> bool:
        """Whether a report is of all checks: the command line names their folders, and none was left out."""
        if not self._whole or report.partial:
            return False
        here = self.config.invocation_params.dir
        given = {(here / argument).resolve() for argument in self.config.args}
        return all(
            any(path == folder or path in folder.parents for path in given)
            for folder in map(Path, self.config.getini("check_paths"))
        )

    def settle(self) -> None:
        """Wait until all is written, for a while; what comes to nothing is ``broken``."""
        deadline = time.monotonic() + DEADLINE
        while self._written:
            try:
                answer(self._written.pop(), deadline)
            except NoAnswer as error:
                self.broken = f"this run is not in the history: {error}"

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self) -> None:
        """Say what is wrong with the history, if anything is."""
        self.settle()
        for line in (*self.clerk.notices, *([self.broken] if self.broken else [])):
            tell(self.config, line)
        self.clerk.notices.clear()

    def pytest_unconfigure(self) -> None:
        """The clerk has nothing more to do."""
        self.settle()
        self.clerk.dismiss()
