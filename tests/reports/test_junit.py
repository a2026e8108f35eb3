"""JUnit: every outcome told apart, the numbers as properties, and valid by the schema whatever a finding holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from lxml import etree

from reports.junit import document
from reports.printable import one_line
from tests.beds.incidents import hostile_reports, incident, some, told
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parent / "junit.xsd"))


def parsed(text: str) -> Any:
    """The root of a document that the schema accepts, with the sums of its suites right."""
    root = etree.fromstring(text.encode())
    SCHEMA.assertValid(root)
    for tag, counted in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        assert int(root.get(tag)) == sum(int(suite.get(tag)) for suite in root) == len(root.findall(f".//{counted}"))
    return root


def properties(root: Any, suite: str) -> dict[str, str]:
    """The properties of the suite of this name."""
    return {each.get("name"): each.get("value") for each in root.iterfind(f"testsuite[@name='{suite}']/properties/*")}


def ends(root: Any) -> dict[str, tuple[str, str]]:
    """How each test case ended: the element and its type; empty for one that passed."""
    return {
        case.get("name"): (case[0].tag, case[0].get("type")) if len(case) else ("", "")
        for case in root.iterfind("testsuite/testcase")
    }


def test_every_outcome_is_told_apart() -> None:
    """A failure fails, what is blocked is an error, a warning passes with its words, what is waived was skipped."""
    root = parsed(document([incident()]))
    assert ends(root) == {
        "db.fine": ("", ""),
        "db.absent": ("skipped", "not-applicable"),
        "db.accepted": ("skipped", "waived"),
        "tls.lasts": ("", ""),
        "db.idle-in-transaction": ("failure", "fail"),
        "db.blocked-sessions[patients]": ("failure", "fail"),
        "db.query": ("error", "blocked"),
    }
    (warning,) = root.iterfind("testsuite[@name='prod tls.lasts']/system-out")
    assert warning.text.startswith("warn: certificate lasts 20 d")
    (failure,) = root.iterfind(".//testcase[@name='db.idle-in-transaction']/failure")
    assert failure.get("message") == "oldest idle transaction 12 min   (fail at 10 min)"
    assert "pid 812 holds up 3 sessions" in failure.text
    assert "mend: End that session. Caution: what it did is rolled back.\n    psql -c" in failure.text


def test_a_finding_has_its_numbers_and_its_remedy_as_properties() -> None:
    """Each measurement with unit, limits, worse side and source; id, parameter, severity, outcome, cause and remedy."""
    root = parsed(document([incident()]))
    assert properties(root, "prod db.idle-in-transaction") == {
        "symptom": "db.idle-in-transaction",
        "id": "db.idle-in-transaction",
        "outcome": "fail",
        "severity": "critical",
        "message": "oldest idle transaction 12 min   (fail at 10 min)",
        "remedy": "guide/database.md#a-transaction-idles",
        "since": "2026-11-23T02:48:00+00:00",
        "measurement oldest idle transaction value": "720",
        "measurement oldest idle transaction unit": "s",
        "measurement oldest idle transaction warn": "60",
        "measurement oldest idle transaction fail": "600",
        "measurement oldest idle transaction worse": "above",
        "measurement oldest idle transaction source": "default of this suite",
    }
    part = properties(root, "prod db.blocked-sessions[patients]")
    assert (part["id"], part["parameter"]) == ("db.blocked-sessions", "patients")
    assert part["caused-by"] == "db.idle-in-transaction"
    assert part["measurement database size value"] == "5368709120"
    assert properties(root, "prod db.query")["blocked-by"] == "db.idle-in-transaction"
    assert properties(root, "prod")["state"] == "failing"
    assert properties(root, "prod")["root-cause"] == "db.idle-in-transaction"
    assert "ran out" in properties(root, "prod")["warning"]


def test_what_did_not_run_is_marked() -> None:
    """A run that was cut short says so, and its missing checks are no passes."""
    root = parsed(document([incident(not_run=("db.later",), cut_short="interrupted")]))
    assert ends(root)["db.later"] == ("skipped", "not-run")
    assert (properties(root, "prod")["partial"], properties(root, "prod")["cut-short"]) == ("true", "interrupted")


def test_strict_makes_a_warning_a_failure() -> None:
    """As it does for the exit status."""
    root = parsed(document([incident()], strict=True))
    assert ends(root)["tls.lasts"] == ("failure", "warn")


@some
@given(hostile_reports(), hostile_reports())
def test_nothing_breaks_the_document(one: Any, other: Any) -> None:
    """Any text anywhere: the document stays valid and has a test case for each finding, under its own name."""
    root = parsed(document([one, other]))
    expected = [
        one_line(name)
        for report in (one, other)
        for name in (
            *(finding.name for finding in report.findings),
            *(defect.symptom for defect in report.defects),
            *report.not_run,
        )
    ]
    assert [case.get("name") for case in root.iterfind("testsuite/testcase")] == expected


CHECKS = """
    @probe(guard="db.port")
    def port():
        raise Failed("refused")
    @symptom("db.port", severity=Severity.CRITICAL)
    def test_port(port):
        \"\"\"The port opens.\"\"\"
    @symptom("db.query", severity=Severity.CRITICAL)
    def test_query(port):
        \"\"\"It answers.\"\"\"
    @symptom("db.tables", severity=Severity.MINOR)
    def test_tables(finding):
        \"\"\"Tables are well.\"\"\"
        finding["patients"].measure("dead rows", 30, unit="%", limit=Limit(warn=20, fail=50))
        finding["visits"].measure("dead rows", 60, unit="%", limit=Limit(warn=20, fail=50))
    @symptom("db.broken", severity=Severity.MINOR)
    def test_broken(finding):
        \"\"\"It does not break.\"\"\"
        1 / 0
"""
ENDED = {
    "db.port": ("failure", "fail"),
    "db.query": ("error", "blocked"),
    "db.tables[patients]": ("", ""),
    "db.tables[visits]": ("failure", "fail"),
    "db.broken": ("error", "defect"),
}


@pytest.mark.parametrize("processes", [(), ("-n2",)], ids=["one-process", "xdist"])
def test_a_run_writes_it(pretend: Pretend, processes: tuple[str, ...]) -> None:
    """The file that --junitxml names holds every finding, those of parts and of blocked checks, also under xdist."""
    pretend.checks(CHECKS)
    pretend.target("prod")
    run = pretend.run("--target", "prod", "--junitxml", "made/out/junit.xml", *processes)
    assert run.exit_status == 1
    root = parsed((run.folder / "out" / "junit.xml").read_text("utf-8"))
    assert ends(root) == ENDED
    assert properties(root, "prod db.tables[patients]")["measurement dead rows value"] == "30"


def test_several_targets_are_several_suites(pretend: Pretend) -> None:
    """Each target has its own verdict and its own test cases, apart by their class."""
    pretend.checks(CHECKS)
    pretend.target("prod")
    pretend.target("staging")
    run = pretend.run("--target", "prod", "--target", "staging", "--junitxml", "made/junit.xml")
    root = parsed((run.folder / "junit.xml").read_text("utf-8"))
    cases = {(case.get("classname"), case.get("name")) for case in root.iterfind("testsuite/testcase")}
    assert cases == {(f"{target}.db", name) for target in ("prod", "staging") for name in ENDED}
    assert {properties(root, target)["state"] for target in ("prod", "staging")} == {"failing"}


def test_tests_that_are_no_checks_stand_in_it_too(pretend: Pretend) -> None:
    """Whoever runs both loses neither."""
    pretend.checks(CHECKS)
    pretend.target("prod")
    (pretend.folder / "test_other.py").write_text(
        "import pytest\ndef test_well(): pass\ndef test_ill(): assert 1 == 2\n"
        "def test_left_out(): pytest.skip('not today')\n",
        "utf-8",
    )
    run = pretend.run("--target", "prod", "--junitxml", "made/junit.xml", "checks", "test_other.py")
    root = parsed((run.folder / "junit.xml").read_text("utf-8"))
    assert ends(root) == ENDED | {
        "test_well": ("", ""),
        "test_ill": ("failure", "fail"),
        "test_left_out": ("skipped", "pytest.skip"),
    }


def test_an_empty_report_is_valid() -> None:
    """A target of which nothing is known but that it was cut short."""
    assert len(parsed(document([told(cut_short="interrupted")]))) == 1
