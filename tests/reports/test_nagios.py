"""Nagios: one answer in the guidelines' grammar, whatever a finding holds, and its exit status."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given

from allodoc_health.finding import Measurement, Outcome
from reports.nagios import performance_data, plugin_output, status_of
from tests.beds.incidents import found, hostile_reports, incident, some, told
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

# 'label'=value[UOM];[warn];[crit];[min];[max] by the Monitoring Plugins Development Guidelines: a label in quotes has
# no quote and no equals sign; numbers are of the class [-0-9.]; ranges are [@][start:][end], where ~ is minus infinity.
NUMBER = r"-?\d+(?:\.\d+)?"
RANGE = rf"@?(?:(?:{NUMBER}|~)?:)?(?:{NUMBER})?"
DATUM = re.compile(
    rf"'(?P<label>[^'=|\x00-\x1f]+)'="
    rf"(?:U|(?P<value>{NUMBER})(?P<unit>s|us|ms|%|B|KB|MB|GB|TB|c)?"
    rf"(?:;(?P<warn>{RANGE}))?(?:;(?P<fail>{RANGE}))?(?:;(?P<low>{NUMBER})?)?(?:;(?P<high>{NUMBER})?)?)"
)
CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
STATUS = re.compile(r"ALLODOC (OK|WARNING|CRITICAL|UNKNOWN) - [^|]+")


def data_of(text: str) -> list[dict[str, str | None]]:
    """Performance data, each datum apart by one space; anything else in it fails."""
    found_data, rest = [], text
    while rest:
        match = DATUM.match(rest)
        assert match, f"no datum: {rest!r}"
        rest = rest[match.end() :]
        assert rest == "" or rest[0] == " ", f"runs on: {rest!r}"
        rest = rest[1:]
        found_data.append(match.groupdict())
    return found_data


def read(output: str) -> tuple[str, list[str], list[dict[str, str | None]]]:
    """The status, the lines of text and the performance data of an output, read as Nagios reads several lines."""
    first, *more = output.split("\n")
    status, _, data = first.partition(" | ")
    assert STATUS.fullmatch(status), status
    collected = data_of(data)
    text: list[str] = []
    while more and "|" not in more[0]:
        text.append(more.pop(0))
    if more:
        last, _, data = more.pop(0).partition(" | ")
        text.append(last)
        for line in (data, *more):
            collected += data_of(line)
    assert not {unicodedata.category(char) for line in output.split("\n") for char in line} & CONTROLS, output
    labels = [datum["label"] for datum in collected]
    assert len(labels) == len(set(labels)), "a label occurs twice"
    return status, text, collected


def bad(value: float, given: str | None) -> bool:
    """Whether a value alerts by a range of the guidelines."""
    if not given:
        return False
    start, colon, end = given.partition(":")
    low, high = (start, end) if colon else ("0", start)
    return value < (-math.inf if low == "~" else float(low or 0)) or value > (float(high) if high else math.inf)


def test_an_incident_is_told_in_the_guidelines_words() -> None:
    """State, root cause, value with its limits; then what to do, what follows, whom to call; then the other numbers."""
    output = plugin_output([incident()])
    assert output.splitlines()[0] == (
        "ALLODOC CRITICAL - prod is failing: db.idle-in-transaction oldest idle transaction 12 min (fail at 10 min)"
        " | 'db.idle-in-transaction oldest idle transaction'=720s;60;600;0"
    )
    _, text, data = read(output)
    assert text[:2] == ["do guide/database.md#a-transaction-idles", "2 blocked or failing because of that"]
    assert "prod.toml:7: the waiver of Kim for db.x ran out" in text
    by_label = {datum["label"]: datum for datum in data}
    lasts = by_label["tls.lasts certificate lasts"]
    assert (lasts["value"], lasts["unit"], lasts["warn"], lasts["fail"]) == ("1728000", "s", "2592000:", "604800:")
    used = by_label["db.blocked-sessions[patients] in use"]
    assert (used["unit"], used["low"], used["high"]) == ("%", "0", "100")
    assert by_label["db.blocked-sessions[patients] database size"]["value"] == str(5 * 2**30)


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([Outcome.PASS], 0),
        ([Outcome.WAIVED, Outcome.NOT_APPLICABLE], 0),
        ([Outcome.PASS, Outcome.WARN], 1),
        ([Outcome.WARN, Outcome.FAIL, Outcome.BLOCKED], 2),
        ([Outcome.WARN, Outcome.BLOCKED], 3),
    ],
)
def test_the_exit_status_is_the_state(outcomes: Sequence[Outcome], status: int) -> None:
    """Healthy, warning, failing and unknown are 0 to 3."""
    reports = [told(*(found(f"db.{number}", outcome) for number, outcome in enumerate(outcomes)))]
    assert status_of(reports) == status
    assert read(plugin_output(reports))[0].split()[1] == ("OK", "WARNING", "CRITICAL", "UNKNOWN")[status]


def test_of_several_targets_the_gravest_counts() -> None:
    """It comes first, and every label says which target it is of."""
    healthy = told(found("db.x", Outcome.PASS, measurements=(Measurement("m", 1, "s"),)), target="staging")
    status, _, data = read(plugin_output([healthy, incident()]))
    assert status.startswith("ALLODOC CRITICAL - prod is failing: ")
    assert status.endswith("; staging is healthy")
    assert {str(datum["label"]).split()[0] for datum in data} == {"prod", "staging"}
    assert status_of([healthy, told(found("db.x", Outcome.WARN))]) == 1
    assert status_of([told(cut_short="interrupted"), told(found("db.x", Outcome.WARN))]) == 3
    assert status_of([]) == 3


def test_a_partial_run_is_never_ok() -> None:
    """What had no turn is unknown, and the first line says that it is partial."""
    report = told(found("db.x", Outcome.PASS), not_run=("db.later",), cut_short="interrupted")
    assert status_of([report]) == 3
    assert plugin_output([report]).splitlines()[0] == "ALLODOC UNKNOWN - prod is unknown (partial)"


@pytest.mark.parametrize(
    ("value", "warn", "fail", "worse", "written"),
    [
        (720, 60, 600, "above", "720s;60;600;0"),
        (0.000001, None, None, "above", "0.000001s;;;0"),
        (1e21, None, 1e22, "above", "1000000000000000000000s;;10000000000000000000000;0"),
        (-5, 10, 5, "below", "-5s;10:;5:"),
        (-5, -10, -1, "above", "-5s;~:-10;~:-1"),
        (math.nan, 1, 2, "above", "U"),
        (math.inf, 1, 2, "above", "U"),
        (1, math.inf, None, "above", "1s;;;0"),
    ],
)
def test_numbers_and_ranges(value: float, warn: float | None, fail: float | None, worse: str, written: str) -> None:
    """No exponents; what is undetermined says so; the worse side below is a range that begins at the limit."""
    measurement = Measurement("m", value, "s", warn, fail, "", worse)
    (datum,) = performance_data(found("db.x", Outcome.PASS, measurements=(measurement,)))
    assert datum == f"'db.x m'={written}"


@pytest.mark.parametrize("worse", ["above", "below"])
@pytest.mark.parametrize("limit", [-10.0, 0.0, 95.0])
def test_a_range_alerts_on_the_side_that_is_worse(worse: str, limit: float) -> None:
    """Whoever applies the ranges as the guidelines say comes to the outcome that the check came to."""
    for value in (limit - 1, limit + 1):
        measurement = Measurement("m", value, "", limit, limit, "", worse)
        (datum,) = data_of(next(performance_data(found("db.x", Outcome.PASS, measurements=(measurement,)))))
        assert bad(value, datum["warn"]) is bad(value, datum["fail"]) is ((value > limit) == (worse == "above"))


@some
@given(hostile_reports(), hostile_reports())
def test_nothing_breaks_the_grammar(one: Any, other: Any) -> None:
    """Any text anywhere: what a strict reader makes of it has no more data than there are measurements."""
    _, _, data = read(plugin_output([one, other]))
    assert len(data) <= sum(len(finding.measurements) for report in (one, other) for finding in report.findings)


CHECKS = """
    @symptom("db.full", severity=Severity.CRITICAL)
    def test_full(finding):
        \"\"\"There is room.\"\"\"
        print("noise")
        finding.measure("connections", USED, of=100, limit=Limit(warn=80, fail=95))
"""


@pytest.mark.parametrize(("used", "status"), [(50, 0), (85, 1), (97, 2)])
@pytest.mark.parametrize("processes", [(), ("-n2",)], ids=["one-process", "xdist"])
def test_a_run_prints_nothing_else(pretend: Pretend, used: int, status: int, processes: tuple[str, ...]) -> None:
    """Its standard output is the plugin's output and its exit status is the state, also under xdist."""
    pretend.checks(CHECKS.replace("USED", str(used)))
    pretend.target("prod")
    run = pretend.run("--target", "prod", "--nagios", *processes)
    assert run.exit_status == status
    read(run.output)
    assert (pretend.folder / "made" / "latest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "prdo"), "did you mean 'prod'?"),
        (("--target", "prod", "checks/no_such.py"), "file or directory not found"),
        (("--target", "prod", "-k", "nothing-of-that-name"), "nothing was checked"),
        (("--target", "prod", "--summary"), "--nagios wants the standard output for itself and excludes --summary"),
        (("--target", "prod", "--explain", "db.full"), "excludes --explain"),
    ],
)
def test_what_cannot_be_checked_is_unknown(pretend: Pretend, arguments: tuple[str, ...], said: str) -> None:
    """A wrong target or path, nothing selected, an option that excludes it: status 3, and a line that says why."""
    pretend.checks(CHECKS.replace("USED", "50"))
    pretend.target("prod")
    run = pretend.run("--nagios", *arguments)
    assert run.exit_status == 3, run.output + run.errors
    assert said in run.output
    assert read(run.output)[0].startswith("ALLODOC UNKNOWN - ")


def test_an_output_that_fails_is_told_on_stderr(pretend: Pretend) -> None:
    """The answer and its status stay what they are."""
    pretend.checks(CHECKS.replace("USED", "50"))
    pretend.target("prod")
    (pretend.folder / "file").touch()
    run = pretend.run("--target", "prod", "--nagios", "--markdown", "file/report.md")
    assert run.exit_status == 0
    assert read(run.output)[0] == "ALLODOC OK - prod is healthy"
    assert "no --markdown: " in run.errors
