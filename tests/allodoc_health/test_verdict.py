"""Verdicts: root causes, what follows from them, and whom to call."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from allodoc_health.finding import Escalation, Finding, Outcome, Severity
from allodoc_health.verdict import State, Verdict, expand_causes, explain, judge

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def found(name: str, outcome: Outcome = Outcome.FAIL, **fields: Any) -> Finding:
    """A finding called ``id`` or ``id[parameter]``, failing and critical unless told otherwise."""
    id, _, parameter = name.removesuffix("]").partition("[")  # noqa: A001
    known: dict[str, Any] = {"severity": Severity.CRITICAL, "message": f"{name} is {outcome.value}", **fields}
    return Finding(id=id, parameter=parameter or None, target="prod", outcome=outcome, title="It is well.", **known)


def blocked(name: str, by: str, **fields: Any) -> Finding:
    """A finding that is blocked."""
    return found(name, Outcome.BLOCKED, blocked_by=by, **fields)


def verdict(*findings: Finding) -> Verdict:
    """The verdict on these findings."""
    return judge(explain(findings), NOW)


# -- the state -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "state"),
    [
        ([], State.HEALTHY),
        ([found("a.x", Outcome.PASS), found("a.y", Outcome.NOT_APPLICABLE)], State.HEALTHY),
        ([found("a.x", Outcome.WAIVED)], State.HEALTHY),
        ([found("a.x", Outcome.WARN)], State.WARNING),
        ([found("a.x", Outcome.WARN), blocked("a.y", "a.z")], State.UNKNOWN),
        ([found("a.x", Outcome.WARN), blocked("a.y", "a.z"), found("a.z")], State.FAILING),
    ],
)
def test_the_state_is_that_of_the_gravest(findings: list[Finding], state: State) -> None:
    """One failure makes it failing; something that could not be looked at makes it unknown, never healthy."""
    assert verdict(*findings).state is state


@pytest.mark.parametrize(("defects", "not_run"), [(1, 0), (0, 3)])
def test_what_was_not_checked_is_not_healthy(defects: int, not_run: int) -> None:
    """Checks that broke down or had no turn leave the state unknown, though nothing failed."""
    assert judge([found("a.x", Outcome.PASS)], NOW, defects, not_run).state is State.UNKNOWN
    assert judge([found("a.x")], NOW, defects, not_run).state is State.FAILING


# -- root causes -----------------------------------------------------------------------------------


def test_a_failure_that_another_explains_is_its_consequence() -> None:
    """Of a chain of failures only the beginning is a root cause; blocked checks follow, too."""
    told = verdict(
        blocked("db.query", "db.login"),
        found("api.health", causes=("db.login",)),
        found("db.login", causes=("db.headroom",)),
        found("db.headroom"),
        found("db.cpu", Outcome.WARN),
    )
    assert told.root_causes == ("db.headroom",)
    assert told.consequences == ("api.health", "db.login", "db.query")


def test_two_parameters_of_one_check_do_not_explain_each_other() -> None:
    """A check that may follow from itself with another parameter: where both say so, something else explains them."""
    links = [found(f"net.link[{to}]", causes=("net.link", "host.cpu")) for to in ("redis", "postgres")]
    assert verdict(*links, found("host.cpu")).root_causes == ("host.cpu",)
    told = explain([*links, found("host.cpu")])
    assert [finding.caused_by for finding in told] == [("host.cpu",), ("host.cpu",), ()]
    assert verdict(*links).root_causes == ("net.link[redis]", "net.link[postgres]")


def test_of_several_signs_of_one_thing_the_first_explains_the_others() -> None:
    """One certificate for three names, of which another one is wrong besides: two things are to be mended."""
    hosts = [found(f"tls.trust[{host}]", sign_of=serial) for host, serial in (("a", "1"), ("b", "2"), ("c", "1"))]
    assert verdict(*hosts).root_causes == ("tls.trust[a]", "tls.trust[b]")
    assert verdict(*hosts).consequences == ("tls.trust[c]",)
    assert verdict(hosts[2], found("tls.expiry[a]", sign_of="1")).consequences == (), "another check's sign is its own"
    explained = replace(hosts[2], causes=("service.running",))
    told = explain([hosts[0], explained, found("service.running")])
    assert [finding.caused_by for finding in told] == [(), ("service.running",), ()], "what is declared comes first"


def test_a_cause_that_does_not_fail_explains_nothing() -> None:
    """A declared cause counts only while it fails itself: a warning, a waiver or a pass leaves the failure a root."""
    for outcome in (Outcome.PASS, Outcome.WARN, Outcome.WAIVED, Outcome.NOT_APPLICABLE):
        told = verdict(found("db.login", causes=("db.headroom",)), found("db.headroom", outcome))
        assert told.root_causes == ("db.login",)


def test_causes_may_name_a_parameter_or_any() -> None:
    """``id`` means it with whatever parameter, ``id[parameter]`` that one alone."""
    postgres, redis = found("service.running[postgres]"), found("service.running[redis]")
    one, any_one = found("db.port", causes=("service.running[postgres]",)), found("x.y", causes=("service.running",))
    explained = {f.name: f.caused_by for f in explain([postgres, redis, one, any_one])}
    assert explained["db.port"] == ("service.running[postgres]",)
    assert explained["x.y"] == ("service.running[postgres]", "service.running[redis]")


def test_a_finding_does_not_explain_itself() -> None:
    """A check that names its own symptom (of another parameter) as a cause is not its own."""
    first, second = (found(f"x.app[{name}]", causes=("x.app[frontend]",)) for name in ("frontend", "edge"))
    assert verdict(first, second).root_causes == ("x.app[frontend]",)


def test_what_is_less_severe_hides_a_cause_and_is_none() -> None:
    """Metrics that can't be read hide how the backend fares; that nobody can log in does not follow from them."""
    hidden = blocked("api.nodejs", "api.metrics")
    login = found("auth.login", causes=("api.nodejs",))
    assert verdict(found("api.metrics", severity=Severity.MINOR), hidden, login).root_causes == (
        "auth.login",
        "api.metrics",
    )
    assert verdict(found("api.metrics"), hidden, login).root_causes == ("api.metrics",)


def test_what_blocks_a_cause_stands_in_its_place() -> None:
    """A cause that could not be looked at explains through the failure that blocks it."""
    told = verdict(found("db.port"), blocked("db.login", "db.port"), found("api.health", causes=("db.login",)))
    assert told.root_causes == ("db.port",)
    assert told.consequences == ("api.health", "db.login")


def test_a_blocked_cause_makes_no_circle() -> None:
    """A service is not down because of a check that is blocked by the service's being down."""
    told = verdict(
        found("service.running[postgres]", causes=("db.accepts",)),
        found("db.port", causes=("service.running[postgres]",)),
        blocked("db.accepts", "db.port"),
    )
    assert told.root_causes == ("service.running[postgres]",)


def test_a_circle_is_named_whole() -> None:
    """Failures that explain one another and that nothing else explains are all root causes; what follows is not."""
    told = verdict(
        found("a.x", causes=("a.y",)),
        found("a.y", causes=("a.x",)),
        found("a.z", causes=("a.y",)),
        found("b.x"),
    )
    assert set(told.root_causes) == {"a.x", "a.y", "b.x"}
    assert told.consequences == ("a.z",)


def test_a_circle_with_a_cause_outside_is_a_consequence() -> None:
    """As soon as something else explains one of them, that is the root."""
    told = verdict(found("a.x", causes=("a.y",)), found("a.y", causes=("a.x", "b.x")), found("b.x"))
    assert told.root_causes == ("b.x",)


def test_the_gravest_root_cause_comes_first() -> None:
    """Critical before minor; among equals, the one that explains more."""
    told = verdict(
        found("a.minor", severity=Severity.MINOR),
        found("a.lonely"),
        found("a.cause"),
        found("a.effect", causes=("a.cause",)),
        blocked("a.blocked", "a.cause"),
    )
    assert told.root_causes == ("a.cause", "a.lonely", "a.minor")


@pytest.mark.parametrize(
    ("declared", "expanded"),
    [
        ("service.running[{service}]", "service.running[redis]"),
        ("host.disk[{mount}]", "host.disk[{mount}]"),
        ("host.memory", "host.memory"),
    ],
)
def test_causes_take_the_checks_own_parameter(declared: str, expanded: str) -> None:
    """A word in braces stands for the check's own parameter; an unknown one stays and matches nothing."""
    assert expand_causes([declared], {"service": "redis"}) == (expanded,)


# -- escalation ------------------------------------------------------------------------------------


def down(minutes: float, **fields: Any) -> Finding:
    """A critical failure that began so long ago."""
    return found("service.running[backend]", since=NOW - timedelta(minutes=minutes), **fields)


def test_an_outage_of_over_15_minutes_is_the_managers() -> None:
    """The guide's clock runs from the beginning of the oldest critical failure."""
    told = verdict(down(17), found("db.port", since=NOW - timedelta(minutes=2)))
    assert told.escalation is Escalation.NOW
    assert told.escalation_reason == "down for 17 min, more than 15 min"


def test_until_then_it_is_whoevers_it_is_with_the_time_to_call() -> None:
    """A shorter outage names the minute at which to call."""
    told = verdict(down(5))
    assert told.escalation is Escalation.NONE
    assert told.escalation_reason == "yours to mend now; call the manager if it is not restored by 03:10 UTC"


def test_the_earlier_of_what_runs_and_findings_know_begins_the_outage() -> None:
    """Earlier runs may have seen it begin; where the evidence reaches further back than they do, that counts."""
    earlier = NOW - timedelta(minutes=17)
    told = judge(explain([down(5)]), NOW, outage_since=earlier)
    assert (told.escalation, told.outage_since) == (Escalation.NOW, earlier)
    assert judge(explain([down(20)]), NOW, outage_since=earlier).outage_since == NOW - timedelta(minutes=20)
    well = judge([found("db.port", severity=Severity.MAJOR)], NOW, outage_since=earlier)
    assert (well.escalation, well.outage_since) == (Escalation.NEXT_BUSINESS_DAY, None), "nothing critical fails now"


def test_an_outage_whose_beginning_is_unknown() -> None:
    """Without a clock the 15 minutes count from now."""
    told = verdict(found("db.port"))
    assert told.escalation is Escalation.NONE
    assert told.escalation_reason.endswith("if it can't be restored within 15 min")


@pytest.mark.parametrize("severity", [Severity.MAJOR, Severity.MINOR])
def test_what_does_not_stop_users_can_wait(severity: Severity) -> None:
    """However long it lasts, what is not critical is for the next business day."""
    told = verdict(found("db.dead-rows", severity=severity, since=NOW - timedelta(days=3)))
    assert told.escalation is Escalation.NEXT_BUSINESS_DAY


def test_warnings_are_for_the_next_business_day() -> None:
    """A warning alone wakes nobody."""
    assert verdict(found("db.cpu", Outcome.WARN)).escalation is Escalation.NEXT_BUSINESS_DAY


def test_several_independent_root_causes_want_a_meeting() -> None:
    """Three that do not explain one another are several systems; three in a chain are one."""
    independent = verdict(*(found(f"a.{name}", severity=Severity.MAJOR) for name in "xyz"))
    assert independent.escalation is Escalation.EMERGENCY_MEETING
    chain = verdict(found("a.x"), found("a.y", causes=("a.x",)), found("a.z", causes=("a.y",)))
    assert chain.escalation is Escalation.NONE


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.WARN])
def test_a_check_can_ask_for_more(outcome: Outcome) -> None:
    """What must not wait (data at risk) goes to the manager at once, whatever else there is."""
    asks = found("db.wraparound", outcome, escalation=Escalation.NOW, escalation_reason="data at risk")
    told = verdict(asks, found("a.x"), found("a.y"), found("a.z"))
    assert (told.escalation, told.escalation_reason) == (Escalation.NOW, "db.wraparound: data at risk")


def test_the_clock_goes_before_a_meeting() -> None:
    """Of a meeting that is asked for and an outage of over 15 minutes, the outage is told."""
    asks = found("a.x", Outcome.WARN, escalation=Escalation.EMERGENCY_MEETING, escalation_reason="twice today")
    assert verdict(asks, down(16)).escalation is Escalation.NOW
    assert verdict(asks, down(2)).escalation is Escalation.EMERGENCY_MEETING


def test_a_healthy_target_concerns_nobody() -> None:
    """Nothing to escalate, and no reason either."""
    told = verdict(found("a.x", Outcome.PASS), found("a.y", Outcome.WAIVED, since=NOW - timedelta(days=1)))
    assert (told.escalation, told.escalation_reason) == (Escalation.NONE, "")


def test_blocked_alone_is_told() -> None:
    """When nothing failed but something could not be looked at, that is said."""
    told = verdict(blocked("a.x", "a.y"))
    assert (told.escalation, told.escalation_reason) == (Escalation.NONE, "not everything could be looked at")
