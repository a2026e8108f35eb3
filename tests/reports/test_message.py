"""What is worth telling, and in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from allodoc_health.finding import Escalation, Outcome, Severity
from allodoc_health.remedy import Remedy, Step
from allodoc_health.run import TargetReport
from allodoc_health.verdict import State
from reports.history import Past
from reports.message import Condition, Kind, Occasion, condition_of, message, worth_telling
from tests.reports.history.making import NOW, found, report

BEFORE = NOW - timedelta(minutes=40)
LOGIN = Condition(State.FAILING, ("db.login",), Escalation.NONE, BEFORE)
WELL = Condition()
DOWN = report(found("db.login"))
HEALTHY = report(found("db.login", Outcome.PASS))
REMEDY = Remedy(
    anchor="guide/database.md#login",
    title="Login",
    symptoms=("db.login",),
    meaning="Nobody gets in.",
    look=(Step("See what it says:", "", ("docker logs pg\ndocker ps",)),),
    mend=(Step("Restart it:", "requests are lost.", ("docker restart pg",)),),
    usual_time="10 min",
    escalate="",
)


def kind(
    given: TargetReport,
    before: Condition = WELL,
    past: Past | None = None,
    occasion: Occasion = Occasion.CHANGE,
    whole: bool = True,
) -> Kind | None:
    """What a report is told as."""
    return worth_telling(occasion, given, past, before, condition_of(given, past, before, whole=whole))


def test_new_trouble_is_told_once() -> None:
    """The first failing run tells, the second does not, another root cause does."""
    assert kind(DOWN) is Kind.TROUBLE
    assert kind(DOWN, LOGIN) is None
    assert kind(report(found("db.login"), found("cache.ping")), LOGIN) is Kind.TROUBLE


def test_the_end_of_trouble_is_told_once() -> None:
    """Recovered is when it is well again, with warnings or without; who was told nothing need not hear of it."""
    assert kind(HEALTHY, LOGIN) is Kind.RECOVERY
    assert kind(report(found("db.login", Outcome.WARN)), LOGIN) is Kind.RECOVERY
    assert kind(HEALTHY) is None
    assert kind(report(found("db.login", Outcome.WARN))) is None


def test_one_of_two_causes_less_is_no_news() -> None:
    """It is still failing; and when the other comes back, that is known already."""
    both = replace(LOGIN, root_causes=("db.login", "cache.ping"))
    assert kind(DOWN, both) is None


def test_a_part_of_the_checks_recovers_nothing() -> None:
    """A run of the cache's checks is green while the database is down: it is not told that all is well."""
    cache = report(found("cache.ping", Outcome.PASS))
    assert kind(cache, LOGIN, whole=False) is None
    assert condition_of(cache, None, LOGIN, whole=False) == LOGIN
    assert kind(HEALTHY, LOGIN, whole=False) is Kind.RECOVERY
    assert kind(cache, LOGIN, whole=True) is Kind.RECOVERY


def test_a_higher_escalation_is_a_reminder() -> None:
    """The outage clock of history passes 15 minutes while the cause stays the same."""
    long = report(found("db.login"), outage_since=BEFORE)
    assert kind(long, LOGIN) is Kind.REMINDER
    assert kind(long, replace(LOGIN, escalation=Escalation.NOW)) is None
    now = condition_of(long, None, LOGIN, whole=True)
    told = message(Kind.REMINDER, long, None, LOGIN, now, "")
    assert told.title == "prod is still failing, now: call the manager: db.login"
    assert "Escalate: now: call the manager (down for 40 min, more than 15 min)" in told.body


def test_what_flaps_is_told_when_it_has_settled() -> None:
    """Between two failures of something that flaps, nobody hears that all is well."""
    assert kind(HEALTHY, LOGIN, Past(runs=9, flapping=frozenset({"db.login"}))) is None
    assert kind(HEALTHY, LOGIN, Past(runs=9, flapping=frozenset({"cache.ping"}))) is Kind.RECOVERY


def test_an_interrupted_run_is_no_news_unless_it_saw_something() -> None:
    """Ctrl-C leaves an unknown state that nobody has to get up for."""
    ended = report(found("db.port", Outcome.PASS), cut_short="interrupted")
    unknown = replace(ended, verdict=replace(ended.verdict, state=State.UNKNOWN))
    assert kind(unknown) is None
    assert kind(replace(DOWN, cut_short="interrupted")) is Kind.TROUBLE


@pytest.mark.parametrize(
    ("occasion", "down", "well"),
    [(Occasion.FAILURE, Kind.TROUBLE, None), (Occasion.ALWAYS, Kind.TROUBLE, Kind.STATE)],
)
def test_the_other_occasions_know_no_past(occasion: Occasion, down: Kind, well: Kind | None) -> None:
    """Every failing run, or every run, whatever was told before."""
    for before in (WELL, LOGIN):
        assert kind(DOWN, before, occasion=occasion) is down
        assert kind(HEALTHY, before, occasion=occasion) is well


def test_a_message_says_what_to_do() -> None:
    """Root cause, value, since when, the first thing to look at, whom to call, and where to read on."""
    given = report(
        found("db.login", value=97, message="97 of 97 = 100 %   (fail at 95 %)\nthe rest of it"),
        found("api.login", causes=("db.login",)),
        remedies={"db.login": REMEDY},
    )
    past = Past(runs=3, since={"db.login": NOW - timedelta(minutes=5)}, streaks={"db.login": 2})
    now = condition_of(given, past, WELL, whole=True)
    told = message(Kind.TROUBLE, given, past, WELL, now, "https://reports.example/x.html")
    assert told.title == "prod is failing: db.login"
    assert told.body.splitlines() == [
        "db.login (critical): 97 of 97 = 100 %   (fail at 95 %)",
        "  since 02:55 UTC (2 runs)",
        "  next: See what it says: (guide/database.md#login)",
        "    docker logs pg",
        "    docker ps",
        "1 more follows from that.",
        "Escalate: yours to mend now; call the manager if it can't be restored within 15 min",
        "Report: https://reports.example/x.html",
    ]


def test_a_recovery_says_after_how_long() -> None:
    """And what still warns."""
    warned = report(found("db.login", Outcome.PASS), found("db.slow", Outcome.WARN, severity=Severity.MINOR))
    now = condition_of(warned, None, LOGIN, whole=True)
    told = message(Kind.RECOVERY, warned, None, LOGIN, now, "")
    assert told.title == "prod has recovered after 40 min"
    assert told.body.startswith("Users can work; db.slow still warns.")


def test_many_causes_are_counted_and_what_is_blocked_is_named() -> None:
    """A message stays short; if nothing failed but nothing could be seen, it says what stood in the way."""
    many = report(*(found(f"db.part-{number}") for number in range(5)))
    told = message(Kind.TROUBLE, many, None, WELL, condition_of(many, None, WELL, whole=True), "")
    assert told.title == "prod is failing: db.part-0, db.part-1, db.part-2 and 2 more"
    assert told.body.count("(critical)") == 3
    blind = report(found("db.login", Outcome.BLOCKED, blocked_by="db.port"))
    told = message(Kind.TROUBLE, blind, None, WELL, condition_of(blind, None, WELL, whole=True), "")
    assert told.title == "prod is unknown"
    assert "blocked by db.port" in told.body
