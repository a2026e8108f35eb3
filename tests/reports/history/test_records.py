"""What a history makes of a report: its past, what is no longer found, and the outage clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from allodoc_health.finding import Escalation, Finding, Outcome, Severity
from reports.history import Past
from reports.history.course import GONE
from reports.history.records import check_of, outage_since, past_of
from reports.history.store import Store
from reports.history.telling import coming, course_words, moment, sparkline, trend_words
from tests.reports.history.making import NOW, at, found, remember, report

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
OK = Outcome.PASS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty history."""
    return Store(at(tmp_path))


def past(store: Store, *findings: Finding) -> Past:
    """The past of a report on these findings."""
    return past_of(report(*findings), store.read("prod", NOW))


def escalation(store: Store, *findings: Finding) -> tuple[Escalation, str]:
    """Whom a report on these findings concerns, the outage clock running from where history saw it begin."""
    verdict = report(*findings, outage_since=outage_since(report(*findings), store.read("prod", NOW))).verdict
    return verdict.escalation, verdict.escalation_reason


def test_a_first_run_has_no_past(store: Store) -> None:
    """Everything is since now, and no earlier run is known."""
    known = past(store, found("db.login", value=97), found("db.port", OK))
    assert known.runs == 0
    assert known.since == {"db.login": NOW}
    assert known.trends == {("db.login", "used"): ((NOW, 97),)}
    assert known.failed_this_month == {"db.login": 1}
    assert (known.flapping, known.forecasts, known.recovery) == (frozenset(), {}, {})
    assert outage_since(report(found("db.login")), store.read("prod", NOW)) == NOW


def test_the_past_counts_what_was_seen(store: Store) -> None:
    """Since when, in how many runs, how often this month, and how long it took to recover."""
    letters = "F.F.FF"  # at 2:54, … 2:59
    for number, letter in enumerate(letters):
        outcome = Outcome.FAIL if letter == "F" else OK
        remember(store, report(found("db.login", outcome, float(number)), at=NOW - (6 - number) * MINUTE))
    known = past(store, found("db.login", value=6))
    assert known.runs == 6
    assert known.since["db.login"] == NOW - 2 * MINUTE
    assert known.streaks["db.login"] == 3
    assert known.failed_this_month["db.login"] == 3
    assert known.recovery["db.login"] == MINUTE
    assert [value for _, value in known.trends["db.login", "used"]] == [0, 1, 2, 3, 4, 5, 6]
    words = course_words(found("db.login"), known, NOW)
    assert words == "since 02:58 UTC (3 runs), 3 times this month, usually well again after 1 min"


def test_what_was_not_looked_at_has_not_recovered(store: Store) -> None:
    """`pytest checks/db` while the cache is down says nothing of the cache: neither its trouble nor the outage ends."""
    remember(store, report(found("cache.ping"), found("db.port", OK), at=NOW - 20 * MINUTE))
    remember(store, report(found("db.port", OK), at=NOW - 10 * MINUTE), whole=False)
    now = report(found("cache.ping"), found("db.port", OK))
    known = past_of(now, store.read("prod", NOW))
    assert known.since["cache.ping"] == outage_since(now, store.read("prod", NOW)) == NOW - 20 * MINUTE
    assert known.streaks["cache.ping"] == 2


def test_what_is_blocked_has_not_recovered(store: Store) -> None:
    """While something stands in the way of looking, what failed behind it is taken to fail still."""
    remember(store, report(found("db.login"), at=NOW - 20 * MINUTE))
    blocked = found("db.login", Outcome.BLOCKED, blocked_by="db.port", severity=Severity.MAJOR)
    remember(store, report(blocked, found("db.port", severity=Severity.MAJOR), at=NOW - 10 * MINUTE))
    assert past(store, found("db.login")).since["db.login"] == NOW - 20 * MINUTE


def test_what_its_check_no_longer_names_is_well(store: Store) -> None:
    """A table that was bloated and is not named any more has recovered, if the check of tables was run at all."""
    table: dict[str, Any] = {"nodeid": "checks/db/test_tables.py::test_tables"}
    remember(store, report(found("db.bloat[visits]", **table), at=NOW - 30 * MINUTE))
    remember(store, report(found("db.bloat", OK, **table), at=NOW - 20 * MINUTE))
    rows = store.rows("findings")
    assert [(row["finding"], row["outcome"]) for row in rows][1:] == [("db.bloat", "pass"), ("db.bloat[visits]", GONE)]
    now = report(found("db.bloat[visits]", **table))
    again = past_of(now, store.read("prod", NOW))
    assert again.since["db.bloat[visits]"] == outage_since(now, store.read("prod", NOW)) == NOW
    assert again.recovery == {}, "its beginning is not known"


def test_a_check_has_one_name_however_many_targets() -> None:
    """The target stands in a node id only where there are several."""
    names = {"[prod-db]": "[db]", "[prod]": "", "": "", "[db]": "[db]", "[production]": "[production]"}
    assert {end: check_of(found("db.port", nodeid=f"t.py::test_it{end}")) for end in names} == {
        end: f"t.py::test_it{short}" for end, short in names.items()
    }


def test_the_outage_clock_runs_on_while_its_cause_changes(store: Store) -> None:
    """The database is stopped, then starts but refuses logins: for users that is one outage, from the first run on."""
    remember(store, report(found("service.running"), at=NOW - 20 * MINUTE))
    remember(store, report(found("service.running", OK), found("db.login"), at=NOW - 5 * MINUTE))
    down = found("service.running", OK), found("db.login")
    assert past(store, *down).since["db.login"] == NOW - 5 * MINUTE
    assert report(*down).verdict.escalation is Escalation.NONE
    assert escalation(store, *down) == (Escalation.NOW, "down for 20 min, more than 15 min")


def test_the_outage_clock_starts_anew_after_an_outage(store: Store) -> None:
    """One look at which nothing critical failed ends it; what evidence knows of its beginning counts."""
    remember(store, report(found("db.login"), at=NOW - 60 * MINUTE))
    remember(store, report(found("db.login", OK), at=NOW - 50 * MINUTE))
    told = "yours to mend now; call the manager if it is not restored by 03:11 UTC"
    assert escalation(store, found("db.login", since=NOW - 4 * MINUTE)) == (Escalation.NONE, told)


def test_what_is_not_critical_is_no_outage(store: Store) -> None:
    """Users can work: nobody is woken up for it, however long it lasts."""
    some = found("db.bloat", severity=Severity.MAJOR)
    remember(store, report(some, at=NOW - DAY))
    assert outage_since(report(some), store.read("prod", NOW)) is None
    assert escalation(store, some) == (Escalation.NEXT_BUSINESS_DAY, "users can work")


def test_a_history_never_lowers_an_escalation(store: Store) -> None:
    """What the verdict asks for by itself stands."""
    grave = replace(found("db.login"), escalation=Escalation.NOW, escalation_reason="data is lost")
    assert escalation(store, grave) == (Escalation.NOW, "db.login: data is lost")


def test_a_trend_has_a_bounded_number_of_points(store: Store) -> None:
    """However often was looked, there are at most sixty points, evenly over a month, the newest among them."""
    for hour in range(120, 0, -1):
        remember(store, report(found("host.disk", OK, float(120 - hour)), at=NOW - timedelta(hours=hour)))
    remember(store, report(found("host.disk", OK, 1.0), at=NOW - 40 * DAY))
    known = past(store, found("host.disk", OK, 120))
    points = known.trends["host.disk", "used"]
    assert 50 <= len(points) <= 60
    assert (points[-1], points[-2]) == ((NOW, 120), (NOW - timedelta(hours=1), 119))
    assert points[0][0] >= NOW - 6 * DAY
    distances = [later - sooner for (sooner, _), (later, _) in pairwise(points)]
    assert max(distances) <= timedelta(hours=5)


def test_a_unit_that_changed_begins_a_new_trend(store: Store) -> None:
    """Percent and bytes of one name are not drawn as one line."""
    remember(store, report(found("host.disk", OK, 50.0), at=NOW - DAY))
    one = found("host.disk", OK, 51)
    in_bytes = replace(one, measurements=(replace(one.measurements[0], unit="B"),))
    assert past(store, in_bytes).trends["host.disk", "used"] == ((NOW, 51),)


def test_what_is_coming_is_told_while_all_is_well(store: Store) -> None:
    """A disk that grows by two percent a day passes today, and is full of meaning for the morning's reader."""
    for day in range(10, 0, -1):
        remember(store, report(found("host.disk", OK, 70.0 - 2 * day), at=NOW - day * DAY))
    full = report(found("host.disk", OK, 70))
    known = past_of(full, store.read("prod", NOW))
    assert list(coming(full, known)) == ["host.disk: used 70 %, reaches 80 % in 5 days"]
    (trend,) = trend_words(full.findings[0], known)
    assert trend.startswith("used ▁")
    assert trend.endswith("█ 50 % to 70 % in 10 d")


def test_targets_have_pasts_of_their_own(store: Store) -> None:
    """What fails in one says nothing of another."""
    remember(store, report(found("db.login"), at=NOW - DAY, target="staging"))
    assert past(store, found("db.login")).runs == 0


def test_small_pictures_and_short_moments() -> None:
    """One point, and points that are all alike, make a line, too; a moment of another year has its year."""
    assert sparkline(((NOW, 5.0),)) == "▁"
    assert sparkline(((NOW, 5.0), (NOW + DAY, 5.0)), width=4) == "▁  ▁"
    assert moment(NOW - 400 * DAY, NOW) == "20 Oct 2025"
