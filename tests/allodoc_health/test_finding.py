"""Findings: what a check records, and how numbers read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allodoc_health.finding import (
    Escalation,
    Finding,
    Measurement,
    NotApplicable,
    Outcome,
    Recorder,
    Severity,
    duration,
    quantity,
    size,
)
from allodoc_health.limits import Limit

BLANK = Finding(
    id="db.x", target="prod", outcome=Outcome.PASS, severity=Severity.MAJOR, title="All is well.", message=""
)
USED = Limit(warn=80, fail=95, source="the runbook")
LEFT = Limit(warn=15, fail=5, worse="below")


def only(recorder: Recorder) -> Finding:
    """The one finding that was recorded."""
    (finding,) = recorder.findings()
    return finding


@pytest.mark.parametrize(
    ("value", "limit", "outcome", "message"),
    [
        (79.9, USED, Outcome.PASS, "in use 80 %"),
        (80, USED, Outcome.WARN, "in use 80 %   (warn at 80 %)"),
        (95, USED, Outcome.FAIL, "in use 95 %   (fail at 95 %)"),
        (16, LEFT, Outcome.PASS, "in use 16 %"),
        (15, LEFT, Outcome.WARN, "in use 15 %   (warn below 15 %)"),
        (2, LEFT, Outcome.FAIL, "in use 2 %   (fail below 5 %)"),
        (500, None, Outcome.PASS, "in use 500 %"),
        (99, Limit(warn=90), Outcome.WARN, "in use 99 %   (warn at 90 %)"),
        (99, Limit(fail=90), Outcome.FAIL, "in use 99 %   (fail at 90 %)"),
    ],
)
def test_a_measurement_is_held_against_its_limit(
    value: float, limit: Limit | None, outcome: Outcome, message: str
) -> None:
    """A value that reaches a limit has crossed it; the message has the value, its unit and the limit."""
    recorder = Recorder(BLANK)
    recorder.measure("in use", value, unit="%", limit=limit)
    assert (only(recorder).outcome, only(recorder).message) == (outcome, message)


def test_a_share_is_told_with_its_parts() -> None:
    """With ``of``, the limit is for the share and the message has all three numbers."""
    recorder = Recorder(BLANK)
    measured = recorder.measure("connections in use", 94, of=97, limit=USED)
    assert only(recorder).message == "94 of 97 connections in use = 97 %   (fail at 95 %)"
    assert (measured.name, round(measured.value), measured.unit) == ("connections in use", 97, "%")
    assert (measured.warn, measured.fail, measured.source) == (80, 95, "the runbook")


@pytest.mark.parametrize(("part", "share"), [(0, 0), (3, 100)])
def test_a_share_of_nothing(part: float, share: float) -> None:
    """Nothing of nothing is no share; something of nothing is all of it. Neither divides by zero."""
    assert Recorder(BLANK).measure("in use", part, of=0).value == share


def test_the_gravest_word_is_the_message_and_the_others_are_proof() -> None:
    """Of several things that a check says, the gravest is told first and none is lost."""
    recorder = Recorder(BLANK)
    recorder.warn("first warning")
    recorder.warn("second warning")
    recorder.fail("it is broken", variant="broken")
    finding = only(recorder)
    assert (finding.outcome, finding.message, finding.variant) == (Outcome.FAIL, "it is broken", "broken")
    assert finding.details == ("first warning", "second warning")


def test_a_pass_says_what_was_seen() -> None:
    """Its own words, else its first measurement, else the title."""
    assert only(Recorder(BLANK)).message == "All is well."
    recorder = Recorder(BLANK)
    recorder.measure("round trip", 0.004, unit="s", limit=Limit(fail=1))
    assert only(recorder).message == "round trip 4 ms"
    recorder.says("the server answers")
    assert only(recorder).message == "the server answers"


def test_everything_that_is_recorded_is_in_the_finding() -> None:
    """Notes, facts (as text), the beginning and the highest escalation arrive."""
    recorder = Recorder(BLANK)
    since = datetime(2026, 11, 23, tzinfo=UTC)
    recorder.note("a", "b")
    recorder.fact(pid=812, user="api")
    recorder.began(since)
    recorder.escalate(Escalation.NOW, "data at risk")
    recorder.escalate(Escalation.NEXT_BUSINESS_DAY, "not so bad")
    finding = only(recorder)
    assert finding.details == ("a", "b")
    assert finding.facts == {"pid": "812", "user": "api"}
    assert (finding.since, finding.escalation, finding.escalation_reason) == (since, Escalation.NOW, "data at risk")


def test_parts_are_findings_of_their_own() -> None:
    """A check that speaks only of parts has one finding for each and none of its own."""
    recorder = Recorder(BLANK)
    recorder["patients"].measure("dead rows", 60, of=100, limit=Limit(warn=20, fail=50))
    recorder["visits"].measure("dead rows", 3, of=100, limit=Limit(warn=20, fail=50))
    recorder["patients"].note("last vacuum 3 d ago")
    assert [(f.name, f.outcome) for f in recorder.findings()] == [
        ("db.x[patients]", Outcome.FAIL),
        ("db.x[visits]", Outcome.PASS),
    ]
    recorder.says("two tables looked at")
    assert len(list(recorder.findings())) == 2
    recorder.measure("tables", 2)
    assert [f.name for f in recorder.findings()] == ["db.x", "db.x[patients]", "db.x[visits]"]


def test_an_assertion_loses_nothing_that_was_recorded_before() -> None:
    """The end comes first; an earlier message becomes proof, and parts stay findings."""
    recorder = Recorder(BLANK)
    recorder.warn("a little slow")
    recorder["patients"].fail("bloated")
    own, part = recorder.ended(Outcome.FAIL, "it does not answer")
    assert (own.outcome, own.message, own.details) == (Outcome.FAIL, "it does not answer", ("a little slow",))
    assert (part.name, part.outcome) == ("db.x[patients]", Outcome.FAIL)


def test_a_check_can_say_that_its_question_does_not_arise() -> None:
    """not_applicable ends the check with the reason."""
    with pytest.raises(NotApplicable, match="no replica"):
        Recorder(BLANK).not_applicable("no replica")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (96.9, "%", "97 %"),
        (2.14, "%", "2.1 %"),
        (0, "%", "0 %"),
        (0.00000293, "%", "0 %"),
        (0.0042, "s", "4.2 ms"),
        (5400, "s", "1 h 30 min"),
        (3 * 2**30, "B", "3 GiB"),
        (1234567, "", "1 234 567"),
        (0.25, "per min", "0.25 per min"),
        (3, "per min", "3 per min"),
    ],
)
def test_quantities_read_as_a_person_writes_them(value: float, unit: str, text: str) -> None:
    """A unit always, and no more digits than matter."""
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0042, "4.2 ms"),
        (0.5, "500 ms"),
        (4.25, "4.2 s"),
        (61, "1 min 1 s"),
        (17 * 60, "17 min"),
        (4320, "1 h 12 min"),
        (3 * 86400 + 7200, "3 d 2 h"),
        (-90, "-1 min 30 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """The largest two units that matter."""
    assert duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e9, allow_nan=False))
def test_every_number_has_a_text(value: float) -> None:
    """No value that can be measured breaks the message that tells it."""
    for text in (duration(value), size(value), quantity(value, "%"), quantity(value, "")):
        assert text
        assert len(text) < 20


def test_a_measurement_tells_the_limit_that_matters() -> None:
    """The limit of the outcome, or the only one that there is."""
    both = Measurement("x", 85, "%", warn=80, fail=95)
    assert (both.limit_text(Outcome.WARN), both.limit_text(Outcome.FAIL)) == ("warn at 80 %", "fail at 95 %")
    assert Measurement("x", 85, "%", fail=95).limit_text(Outcome.PASS) == "fail at 95 %"
    assert Measurement("x", 85, "%").limit_text(Outcome.FAIL) == ""
