"""Keeps the judgements of a session, prints their table, and writes it where the docs are made from it."""

from __future__ import annotations

import pytest

from tests.beds.suite import ROOT
from tests.faults.judge import Judgement, as_csv, rows, summary

JUDGEMENTS = pytest.StashKey[dict[str, Judgement]]()


@pytest.fixture(scope="session")
def judgements(request: pytest.FixtureRequest) -> dict[str, Judgement]:
    """What was judged in this session, by the fault's bed and name."""
    return request.config.stash.setdefault(JUDGEMENTS, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write it as CSV, one file for each bed."""
    judged = list(config.stash.get(JUDGEMENTS, {}).values())
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
    for bed in {one.fault.bed for one in judged}:
        text = as_csv([one for one in judged if one.fault.bed == bed])
        (folder / f"faults-{bed}.csv").write_text(text, "utf-8")
