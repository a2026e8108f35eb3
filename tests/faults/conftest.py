"""Keeps the judgements of a session, prints their table, and writes it where the docs are made from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.beds.edge import edge as edge
from tests.beds.release import release as release
from tests.beds.suite import ROOT
from tests.faults.judge import Judgement, as_csv, from_json, rows, summary, to_json

JUDGED = pytest.StashKey[dict[str, Judgement]]()


@pytest.fixture
def keep(record_property: Callable[[str, object], None]) -> Callable[[Judgement], None]:
    """Keeps a judgement: it travels with the test's report, also from a worker. The last word on a fault counts."""

    def record(judgement: Judgement) -> None:
        record_property("judgement", to_json(judgement))

    return record


class Collector:
    """Collects what was judged, wherever it was."""

    def __init__(self, config: pytest.Config) -> None:
        self._judged = config.stash.setdefault(JUDGED, {})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the judgements out of a report."""
        for name, value in report.user_properties if report.when == "teardown" else ():
            if name == "judgement":
                judgement = from_json(str(value))
                self._judged[f"{judgement.bed}/{judgement.name}"] = judgement

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """One fault in fifty may be told wrongly, and one remedy in twenty fail; one and two of them in any case."""
        judged = list(self._judged.values())
        wrong = sum(not one.flawless for one in judged)
        failed = sum(one.mended.startswith("FAILED") for one in judged)
        too_many = wrong > max(1, len(judged) / 50) or failed > max(2, len(judged) / 20)
        if too_many and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    """Collect from the beginning."""
    config.pluginmanager.register(Collector(config))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write it as CSV, one file for each bed."""
    judged = list(config.stash.get(JUDGED, {}).values())
    if not judged:
        return
    terminalreporter.section("faults")
    for _, name, root, named, seconds, remedy, problems in rows(judged):
        good = not problems
        line = f"{'ok   ' if good else 'WRONG'} {seconds:>5} s  {name:<44} {root}"
        terminalreporter.write_line(line, green=good, red=not good)
        for text in (f"named {named}" * (named != "yes"), problems, f"remedy: {remedy}"):
            if text:
                terminalreporter.write_line(f"        {text}", light=True)
    terminalreporter.write_line(summary(judged), bold=True)
    folder = ROOT / "reports" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    for bed in {one.bed for one in judged}:
        text = as_csv([one for one in judged if one.bed == bed])
        (folder / f"faults-{bed}.csv").write_text(text, "utf-8")
