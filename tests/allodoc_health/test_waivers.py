"""Waivers: what somebody has accepted for a time is still measured and shown, and counts again when the time is up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from allodoc_health.finding import Outcome
from allodoc_health.inspection import waived
from allodoc_health.target import Waiver
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
CHECKS = """
    @probe(guard="db.port")
    def port():
        raise Failed("refused")
    @symptom("db.port", severity=Severity.CRITICAL)
    def test_port(port):
        \"\"\"The port opens.\"\"\"
    @symptom("db.full", severity=Severity.CRITICAL)
    def test_full(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", 97, of=97, limit=Limit(warn=80, fail=95))
    @symptom("db.tables", severity=Severity.MINOR)
    def test_tables(finding):
        \"\"\"Tables are well.\"\"\"
        finding["patients"].fail("bloated")
        finding["visits"].fail("bloated")
"""


def waiver(symptom: str, days: float, parameter: str | None = None) -> str:
    """A waiver as it stands in a target file, for so many days from now."""
    expires = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
    narrowed = f'parameter = "{parameter}"\n' if parameter else ""
    accepted = 'reason = "known, ticket 4711"\nowner = "Kim"\n'
    return f'[[waivers]]\nsymptom = "{symptom}"\n{narrowed}{accepted}expires = {expires}\n'


def test_a_waiver_in_force_makes_it_count_no_more(pretend: Pretend) -> None:
    """The run is healthy with exit status 0; the finding keeps its measurement and says who waived it, why and until
    when. A check whose evidence failed can be waived, too.
    """
    pretend.checks(CHECKS)
    pretend.target("prod", waiver("db.full", 3) + waiver("db.tables", 3) + waiver("db.port", 3))
    run = pretend.run("--target", "prod")
    assert run.exit_status == 0, run.output
    assert set(run.outcomes.values()) == {"waived"}
    assert run.snapshot["verdict"]["state"] == "healthy"
    full = run.finding("db.full")
    assert full["measurements"][0]["value"] == 100
    assert full["details"][0].startswith("waived until 20")
    assert full["details"][0].endswith("by Kim: known, ticket 4711")
    assert "WAIVED db.full   97 of 97 connections = 100 %   (fail at 95 %)" in run.output
    assert "known, ticket 4711" in run.page


def test_a_waiver_that_ran_out_counts_again(pretend: Pretend) -> None:
    """The finding fails again and says whose waiver ran out, and when."""
    pretend.checks(CHECKS)
    pretend.target("prod", waiver("db.full", -1))
    run = pretend.run("--target", "prod", "-k", "db.full")
    assert run.exit_status == 1
    full = run.finding("db.full")
    assert full["outcome"] == "fail"
    assert full["details"][0].startswith("the waiver of Kim ran out at 20")
    assert "the waiver of Kim ran out" in run.output


def test_a_waiver_may_be_about_one_parameter(pretend: Pretend) -> None:
    """The others of the same symptom still count."""
    pretend.checks(CHECKS)
    pretend.target("prod", waiver("db.tables", 3, "visits"))
    run = pretend.run("--target", "prod", "-k", "db.tables")
    assert run.outcomes == {"db.tables[patients]": "fail", "db.tables[visits]": "waived"}
    assert run.exit_status == 1


def test_what_a_waived_failure_blocks_is_still_not_green(pretend: Pretend) -> None:
    """A waiver accepts one finding; what could not be looked at because of it stays blocked."""
    pretend.checks(
        CHECKS
        + """
    @symptom("db.query", severity=Severity.MAJOR)
    def test_query(port):
        \"\"\"It answers.\"\"\"
    """
    )
    pretend.target("prod", waiver("db.port", 3))
    run = pretend.run("--target", "prod", "-k", "db.port or db.query")
    assert run.outcomes == {"db.port": "waived", "db.query": "blocked"}
    assert (run.exit_status, run.snapshot["verdict"]["state"]) == (1, "unknown")


def test_a_waiver_for_an_unknown_symptom_is_an_error(pretend: Pretend) -> None:
    """A waiver that waives nothing is refused at start-up, with file, line and the nearest id; selected or not."""
    pretend.checks(CHECKS)
    path = pretend.target("prod", waiver("db.full", 3) + waiver("db.tabels", 3))
    run = pretend.run("--target", "prod", "-k", "db.full")
    assert run.exit_status == 4
    assert f"{path}:7: a waiver for an unknown symptom 'db.tabels'; did you mean 'db.tables'?" in run.errors


@pytest.mark.parametrize(
    ("outcome", "days", "expected"),
    [
        (Outcome.FAIL, 1, True),
        (Outcome.WARN, 1, True),
        (Outcome.PASS, 1, False),
        (Outcome.BLOCKED, 1, False),
        (Outcome.NOT_APPLICABLE, 1, False),
        (Outcome.FAIL, 0, False),
        (Outcome.FAIL, -1, False),
    ],
)
def test_which_outcomes_a_waiver_changes(outcome: Outcome, days: int, expected: bool) -> None:
    """Failures and warnings, until the moment that it expires."""
    given = Waiver(symptom="db.x", reason="r", owner="o", expires=NOW + timedelta(days=days))
    assert waived(given, outcome, NOW) is expected
    assert waived(None, outcome, NOW) is False
