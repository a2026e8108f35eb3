"""The summary: one paragraph that says what is wrong, how one knows, what to do and whom to call."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given

from allodoc_health.finding import Outcome
from reports.summary import paragraph
from tests.beds.incidents import found, hostile_reports, incident, some, told
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]


def test_an_incident_in_one_paragraph() -> None:
    """State, target, when, root cause with value and limit, first step with its caution and command, escalation."""
    assert paragraph(incident()) == (
        "prod is failing (looked at 2026-11-23 03:00:00 UTC, 2 fail, 1 blocked, 1 warn, 1 waived, 1 pass, "
        "1 not applicable). "
        "db.idle-in-transaction: oldest idle transaction 12 min (fail at 10 min). "
        "2 more follow from that. "
        "First step (guide/database.md#a-transaction-idles, usual time 10–30 min): End that session. "
        "Caution: what it did is rolled back. psql -c 'SELECT pg_terminate_backend(812)' "
        "Yours to mend now; call the manager if it is not restored by 03:03 UTC. "
        "prod.toml:7: the waiver of Kim for db.x ran out."
    )


def test_a_healthy_target_needs_no_more_than_a_sentence() -> None:
    """Nothing is to be done, nobody to be called."""
    assert (
        paragraph(told(found("db.x", Outcome.PASS))) == "prod is healthy (looked at 2026-11-23 03:00:00 UTC, 1 pass)."
    )


def test_many_root_causes_are_named_not_told() -> None:
    """Three with what was measured, the others by name."""
    text = paragraph(told(*(found(f"db.{number}", Outcome.FAIL, f"broke {number}") for number in range(5))))
    assert "db.2: broke 2. 2 more: db.3, db.4." in text


def test_what_is_partial_or_told_again_says_so() -> None:
    """Nobody shall take it for the whole, or for now."""
    text = paragraph(
        told(found("db.x", Outcome.PASS), not_run=("db.y", "db.z"), cut_short="interrupted", replayed="o.json")
    )
    assert "told again from the snapshot of 2026-11-23 03:00:00 UTC" in text
    assert "This is partial: interrupted; 2 checks did not get their turn." in text


@some
@given(hostile_reports())
def test_any_report_is_one_printable_line(report: Any) -> None:
    """Any text anywhere: no line break, no control character, nothing that can't be encoded."""
    text = paragraph(report)
    assert not {unicodedata.category(char) for char in text} & {"Cc", "Cs", "Zl", "Zp"}
    text.encode()


@pytest.mark.parametrize("processes", [(), ("-n2",)], ids=["one-process", "xdist"])
def test_a_run_prints_it_above_the_verdict(pretend: Pretend, processes: tuple[str, ...]) -> None:
    """Once for each target, each on a line of its own; the verdicts stand below."""
    pretend.checks(
        """
    @symptom("db.full", severity=Severity.CRITICAL)
    def test_full(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", 97, of=100, limit=Limit(warn=80, fail=95))
    """
    )
    pretend.target("prod")
    pretend.target("staging")
    run = pretend.run("--target", "prod", "--target", "staging", "--summary", *processes)
    said = [line for line in run.lines if "(looked at " in line]
    assert [line.split()[0] for line in said] == ["prod", "staging"]
    assert "db.full: 97 of 100 connections = 97 % (fail at 95 %)." in said[0]
    below = run.lines[run.lines.index(said[-1]) + 1 :]
    assert {line.split()[0] for line in below if " is failing: db.full" in line} == {"prod", "staging"}
