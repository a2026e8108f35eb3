"""The terminal: the root cause where it stays on the screen, as much as was asked for, and no more."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

from allodoc_health.finding import Finding, Measurement, Outcome, Severity
from allodoc_health.inspection import complete
from allodoc_health.remedy import Remedy, Step
from allodoc_health.run import Defect, TargetReport
from allodoc_health.target import TargetSettings
from allodoc_health.verdict import explain, judge
from reports.terminal import verdict_lines
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
REMEDY = Remedy(
    anchor="guide/database.md#the-pool-is-exhausted",
    title="The pool is exhausted",
    symptoms=("db.headroom",),
    meaning="All slots are taken.",
    look=(Step("See who holds them:", "", ("docker exec pg psql",)),),
    mend=(Step("End them:", "what they did is rolled back.", ("docker restart api", "docker logs api")),),
    usual_time="10–30 min",
    escalate="To the administrator.",
)


def found(name: str, outcome: Outcome, message: str = "", **fields: Any) -> Finding:
    """A finding."""
    known: dict[str, Any] = {"severity": Severity.CRITICAL, "title": "It is well.", **fields}
    return Finding(id=name, target="prod", outcome=outcome, message=message or f"{name} says so", **known)


FINDINGS = [
    found("db.fine", Outcome.PASS, "seen to be fine"),
    found("db.absent", Outcome.NOT_APPLICABLE, "no replica"),
    found("db.accepted", Outcome.WAIVED, "known", details=("waived until tomorrow by Kim: ticket",)),
    found("db.slow", Outcome.WARN, "round trip 200 ms   (warn at 100 ms)", details=("measured thrice",)),
    found(
        "db.headroom",
        Outcome.FAIL,
        "94 of 97 connections = 97 %   (fail at 95 %)",
        details=("61 idle in transaction", "two\nlines"),
        measurements=(Measurement("connections", 97, "%", 80, 95),),
    ),
    found("db.login", Outcome.FAIL, "too many clients", causes=("db.headroom",)),
    found("db.query", Outcome.BLOCKED, blocked_by="db.login"),
    found("db.locks", Outcome.BLOCKED, blocked_by="db.login"),
]


def report(*findings: Finding, **fields: Any) -> TargetReport:
    """A report with a verdict on these findings."""
    explained = explain(findings)
    defects = fields.get("defects", ())
    return TargetReport(
        target=complete(TargetSettings(), "prod", "test", {}, {}),
        started=NOW,
        seconds=1.25,
        findings=explained,
        verdict=judge(explained, NOW, len(defects), len(fields.get("not_run", ()))),
        evidence={"round_trip": 0.2},
        timings={},
        **{"remedies": {"db.headroom": REMEDY}, **fields},
    )


def lines(given: TargetReport, verbosity: int = 0, **options: Any) -> list[str]:
    """What the terminal shows of a report."""
    return [text for text, _ in verdict_lines(given, verbosity, **options)]


LAST = "prod is failing: db.headroom   (1 passed, 1 warned, 2 failing, 2 blocked, 1 waived, 1 not applicable; 1.2 s)"


def test_the_usual_screen() -> None:
    """Warnings in a line each, the root cause in full with its remedy, what follows, whom to call, and the verdict."""
    assert lines(report(*FINDINGS)) == [
        "WAIVED db.accepted   known",
        "      waived until tomorrow by Kim: ticket",
        "WARN  db.slow   round trip 200 ms   (warn at 100 ms)",
        "FAIL  db.headroom   94 of 97 connections = 97 %   (fail at 95 %)",
        "      61 idle in transaction",
        "      two",
        "      lines",
        "  do  guide/database.md#the-pool-is-exhausted   usual time 10–30 min",
        "      look 1. See who holds them:",
        "              docker exec pg psql",
        "      mend 2. End them:",
        "              Caution: what they did is rolled back.",
        "              docker restart api",
        "              docker logs api",
        "      escalate: To the administrator.",
        "3 more follow from that:",
        "      db.login: too many clients (because of db.headroom)",
        "      2 blocked by db.login: db.query, db.locks",
        " then yours to mend now; call the manager if it can't be restored within 15 min",
        LAST,
    ]


def test_quiet_is_root_causes_and_verdict() -> None:
    """-q leaves out warnings, remedies and consequences; -qq all but the verdict."""
    assert lines(report(*FINDINGS), -1) == [
        "FAIL  db.headroom   94 of 97 connections = 97 %   (fail at 95 %)",
        " then yours to mend now; call the manager if it can't be restored within 15 min",
        LAST,
    ]
    assert lines(report(*FINDINGS), -2) == [LAST]


def test_verbose_has_everything_in_a_line() -> None:
    """-v adds what passed and what is not applicable, and the proof of warnings; -vv the evidence too."""
    shown = lines(report(*FINDINGS), 1)
    assert shown[:2] == ["PASS  db.fine   seen to be fine", "N/A   db.absent   no replica"]
    assert "      measured thrice" in shown
    assert shown[-1] == LAST
    evidence = lines(report(*FINDINGS), 2)
    assert evidence[0] == "evidence"
    assert '"round_trip": 0.2' in evidence[1]
    assert evidence[-1] == LAST


def test_reasons_and_passes_on_demand() -> None:
    """-rs shows what is not applicable, -rp what passed."""
    assert "N/A   db.absent   no replica" in lines(report(*FINDINGS), reasons=True)
    assert "PASS  db.fine   seen to be fine" in lines(report(*FINDINGS), passes=True)


def test_many_root_causes_leave_room_for_the_verdict() -> None:
    """Only the first have their remedy in full, and a remedy that is the same is not told twice."""
    findings = [found(f"db.x{number}", Outcome.FAIL, severity=Severity.MAJOR) for number in range(5)]
    remedies = {finding.name: Remedy(**{**_fields(REMEDY), "anchor": finding.name}) for finding in findings}
    shown = lines(report(*findings, remedies=remedies))
    assert sum("docker exec pg psql" in line for line in shown) == 3
    assert sum(line.startswith("  do  ") for line in shown) == 5
    same = lines(report(*findings, remedies=dict.fromkeys(remedies, REMEDY)))
    assert sum("docker exec pg psql" in line for line in same) == 1
    assert sum("docker exec pg psql" in line for line in lines(report(*findings, remedies=remedies), 1)) == 5


def _fields(remedy: Remedy) -> dict[str, Any]:
    return {name: getattr(remedy, name) for name in Remedy.__dataclass_fields__}


def test_many_consequences_are_counted() -> None:
    """The first are told, the rest on -v."""
    cause = found("db.headroom", Outcome.FAIL)
    effects = [found(f"db.x{number}", Outcome.FAIL, causes=("db.headroom",)) for number in range(20)]
    shown = lines(report(cause, *effects))
    assert "      … and 8 more that fail (-v shows them)" in shown
    assert len(lines(report(cause, *effects), 1)) == len(shown) + 7


def test_what_explains_a_consequence_is_told_shortly() -> None:
    """The root causes among its causes; without one, the first two and how many more."""
    roots = [found(f"db.root{number}", Outcome.FAIL) for number in range(4)]
    near = found("db.near", Outcome.FAIL, causes=("db.root0",))
    both = found("db.both", Outcome.FAIL, causes=("db.near", "db.root0"))
    far = found("db.far", Outcome.FAIL, causes=("db.near", "db.both"))
    many = found("db.many", Outcome.FAIL, causes=tuple(root.id for root in roots))
    shown = "\n".join(lines(report(*roots, near, both, far, many), 1))
    assert "db.both: db.both says so (because of db.root0)" in shown
    assert "db.far: db.far says so (because of db.near, db.both)" in shown
    assert "db.many: db.many says so (because of db.root0, db.root1 and 2 more)" in shown


def test_what_was_not_checked_is_told() -> None:
    """Defects of the suite, checks that had no turn, and why the run ended early stand right above the verdict."""
    given = report(
        found("db.fine", Outcome.PASS),
        defects=(Defect("checks/x.py::test_y", "db.broken", "Traceback\nKeyError: 'x'", "prod"),),
        not_run=("db.later",),
        cut_short="interrupted",
    )
    assert lines(given) == [
        "DEFECT db.broken   the suite itself is at fault: KeyError: 'x'",
        "the run ended early: interrupted",
        "prod is unknown   (1 passed, 1 not run, 1 broken down (a defect of the suite); 1.2 s)",
    ]


def test_a_healthy_target_is_one_line() -> None:
    """Nothing to say is said in a line."""
    assert lines(report(found("db.fine", Outcome.PASS))) == ["prod is healthy   (1 passed; 1.2 s)"]


# -- with a real pytest --------------------------------------------------------------------------------

SOURCE = """
    @probe(guard="db.slow", deadline=5)
    def slow():
        time.sleep(1.6)
        return 1
    @symptom("db.full", severity=Severity.CRITICAL)
    def test_full(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", 97, of=97, limit=Limit(warn=80, fail=95))
    @symptom("db.slow", severity=Severity.MAJOR)
    def test_slow(slow, finding):
        \"\"\"It is quick.\"\"\"
"""


def test_no_colours_and_no_progress_in_a_pipe(pretend: Pretend) -> None:
    """What is not a terminal gets plain text."""
    pretend.checks(SOURCE)
    run = pretend.run()
    assert "\x1b" not in run.output
    assert "waiting for" not in run.output
    assert "checks/db/test_pretended.py F." in run.output


def test_a_terminal_gets_colours_and_what_is_waited_for(pretend: Pretend) -> None:
    """A probe that takes longer than a second is named while it does, and the line is whole again afterwards."""
    pretend.checks(SOURCE)
    screen = _screen(pretend)
    assert "waiting for slow" in screen
    assert re.search(r"\x1b\[K(\x1b\[\d+m)*\.", screen), "the dot comes after the text was taken away"
    assert "\x1b[1m\x1b[31mFAIL  db.full" in screen or "\x1b[31m\x1b[1mFAIL  db.full" in screen
    summary = next(line for line in screen.splitlines() if "1 failing" in line and "====" in line)
    assert summary.startswith("\x1b[31m"), "the line that counts is red"
    assert "\x1b[31m\x1b[1m1 failing" in summary or "\x1b[31m1 failing" in summary


def _screen(pretend: Pretend) -> str:
    """What pytest writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--no-reports"],
        cwd=pretend.folder,
        env={**os.environ, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    read = b""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        read += part
    os.close(ours)
    assert process.wait(timeout=10) == 1
    return read.decode()
