"""Waivers: what somebody has accepted for a time is still measured and shown, and counts again when the time is up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from allodoc_health.finding import Outcome
from allodoc_health.target import Waiver
from allodoc_health.waivers import waived
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


# --- what nobody should rely on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [[], ["-n2"]], ids=["one-process", "xdist"])
def test_a_waiver_that_ran_out_warns(pretend: Pretend, processes: list[str]) -> None:
    """At the end and in the other outputs, by file, line, owner and name, whether its finding counts or not."""
    pretend.checks(CHECKS)
    path = pretend.target("prod", waiver("db.full", -1) + waiver("db.tables", -1, "attic"))
    run = pretend.run("--target", "prod", "-k", "db.full", "--markdown=made/report.md", "--summary", *processes)
    warnings = [line for line in run.lines if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert warnings[0].startswith(f"warning: {path}:2: the waiver of Kim for db.full ran out at 20")
    assert warnings[0].endswith("; the finding counts again")
    assert warnings[1].startswith(f"warning: {path}:7: the waiver of Kim for db.tables[attic] ran out at 20")
    assert warnings[1].endswith("; nothing in this run needs it")
    assert "**Warning:** " in (run.folder / "report.md").read_text("utf-8")
    assert "of Kim for db.full ran out" in next(line for line in run.lines if "(looked at " in line)


@pytest.mark.parametrize("processes", [[], ["-n2"]], ids=["one-process", "xdist"])
def test_a_waiver_for_an_unknown_parameter_is_told(pretend: Pretend, processes: list[str]) -> None:
    """With the nearest one that there is; the run stays what it is."""
    pretend.checks(CHECKS)
    path = pretend.target("prod", waiver("db.tables", 3, "vists") + waiver("db.tables", 3, "patients"))
    run = pretend.run("--target", "prod", "-k", "db.tables", *processes)
    said = (
        f"{path}:2: the waiver of Kim for db.tables[vists] matches nothing that was looked at; did you mean 'visits'?"
    )
    assert [line for line in run.lines if line.startswith("warning: ")] == [f"warning: {said}"]
    assert run.outcomes == {"db.tables[patients]": "waived", "db.tables[visits]": "fail"}


AXIS = """
    @symptom("db.port", severity=Severity.CRITICAL)
    def test_port(service, finding):
        \"\"\"The port opens.\"\"\"
"""


@pytest.mark.parametrize(
    ("selected", "told"),
    [("db.port", True), ("redis", False), ("db.port and not redis", False)],
)
def test_only_a_whole_check_can_tell(pretend: Pretend, selected: str, told: bool) -> None:
    """Where only some of a check's parameters were selected, the waiver's may be among the others."""
    pretend.checks(AXIS)
    pretend.target("prod", waiver("db.port", 3, "rediss"))
    run = pretend.run("--target", "prod", "-k", selected)
    assert ("matches nothing that was looked at; did you mean 'redis'?" in run.output) is told


@pytest.mark.parametrize("ended", ['finding.fail("refused")', 'finding.not_applicable("no tables")', "raise_failed()"])
def test_a_check_that_saw_no_parts_tells_nothing(pretend: Pretend, ended: str) -> None:
    """What it would have seen nobody knows: the waiver may be right."""
    pretend.checks(
        f"""
    def raise_failed():
        raise Failed("gone", guard="db.port")
    @symptom("db.port", severity=Severity.CRITICAL)
    def test_port(finding):
        \"\"\"The port opens.\"\"\"
    @symptom("db.tables", severity=Severity.MINOR)
    def test_tables(finding):
        \"\"\"Tables are well.\"\"\"
        {ended}
    """
    )
    pretend.target("prod", waiver("db.tables", 3, "visits"))
    assert "matches nothing" not in pretend.run("--target", "prod").output


def test_a_run_that_was_cut_short_tells_nothing(pretend: Pretend) -> None:
    """The check that the waiver is for may have had no turn."""
    pretend.checks(CHECKS)
    pretend.target("prod", waiver("db.tables", 3, "vists"))
    run = pretend.run("--target", "prod", "-x")
    assert "db.tables" in run.snapshot["not_run"]
    assert "matches nothing" not in run.output


# --- how one is written -----------------------------------------------------------------------------------------------

WRITTEN = """\
[[waivers]]
symptom = "db.full"
reason = "known"
owner = "Kim"
"""


@pytest.mark.parametrize(
    "when", ["2027-01-31", "2027-01-31T00:00:00", '"2027-01-31"', '"soon"', "12:00:00", "1800000000"]
)
def test_an_expiry_that_is_no_moment_is_refused(pretend: Pretend, when: str) -> None:
    """A date, a time without its zone, a number: with file, line and an example of what is wanted."""
    pretend.checks(CHECKS)
    path = pretend.target("prod", f"{WRITTEN}expires = {when}\n")
    run = pretend.run("--target", "prod")
    assert run.exit_status == 4
    assert f"{path}:5: waivers.0.expires = " in run.errors
    assert "needs a date, a time and a zone, as in 2027-01-31T00:00:00Z" in run.errors


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (WRITTEN, "1: waivers.0.expires is required"),
        (WRITTEN.replace("Kim", " ") + "expires = 2027-01-31T00:00:00Z\n", "4: waivers.0.owner = ' ': "),
        (
            WRITTEN + "expires = 2027-01-31T00:00:00Z\nexpirs = 1\n",
            "6: unknown key 'expirs' (waivers.0.expirs); did you",
        ),
    ],
)
def test_a_waiver_lacks_nothing(pretend: Pretend, written: str, said: str) -> None:
    """Reason, owner and expiry are required, and a key that is misspelt is named."""
    pretend.checks(CHECKS)
    path = pretend.target("prod", written)
    run = pretend.run("--target", "prod")
    assert run.exit_status == 4
    assert f"{path}:{said}" in run.errors


@pytest.mark.parametrize("zone", ["Z", "+01:00"])
def test_an_expiry_with_a_zone_is_taken(pretend: Pretend, zone: str) -> None:
    """In UTC or another."""
    pretend.checks(CHECKS)
    pretend.target("prod", f"{WRITTEN}expires = 2999-01-31T00:00:00{zone}\n")
    assert pretend.run("--target", "prod", "-k", "db.full").outcomes == {"db.full": "waived"}
