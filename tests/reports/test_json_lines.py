"""JSON lines: a finding a line while the run goes on, nothing else in them, and the verdict last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given

from reports.json_lines import finding_line, line, verdict_content
from tests.beds.incidents import hostile_reports, incident, some
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

CHECKS = """
    @probe(guard="db.port")
    def port():
        raise Failed("refused")
    @symptom("db.login", severity=Severity.MAJOR, caused_by=["db.full"])
    def test_login(finding):
        \"\"\"One can log in.\"\"\"
        print("noise")
        finding.fail("too many clients")
    @symptom("db.full", severity=Severity.CRITICAL)
    def test_full(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", 97, of=100, limit=Limit(warn=80, fail=95))
    @symptom("db.query", severity=Severity.MAJOR)
    def test_query(port):
        \"\"\"It answers.\"\"\"
"""


def read(text: str) -> list[dict[str, Any]]:
    """The lines as JSON, each of which is an object with a type."""
    assert text.endswith("\n")
    return [json.loads(each) for each in text.removesuffix("\n").split("\n")]


@pytest.mark.parametrize("processes", [(), ("-n2",)], ids=["one-process", "xdist"])
def test_a_run_is_told_line_by_line(pretend: Pretend, processes: tuple[str, ...]) -> None:
    """The run, each finding, again what turned out to have a cause and the guard that was not selected, the verdict."""
    pretend.checks(CHECKS)
    pretend.target("prod")
    run = pretend.run("--target", "prod", "--json-lines", "made/lines.jsonl", *processes)
    first, *findings, last = read((run.folder / "lines.jsonl").read_text("ascii"))
    assert (first["type"], [target["name"] for target in first["targets"]]) == ("run", ["prod"])
    assert [(each["type"], each["name"], each["outcome"], each["caused_by"]) for each in findings] == [
        ("finding", "db.login", "fail", []),
        ("finding", "db.full", "fail", []),
        ("finding", "db.query", "blocked", []),
        ("finding", "db.port", "fail", []),
        ("finding", "db.login", "fail", ["db.full"]),
    ]
    assert findings[1]["measurements"][0]["fail"] == 95
    assert (last["type"], last["state"], last["partial"]) == ("verdict", "failing", False)
    assert set(last["root_causes"]) == {"db.full", "db.port"}


def test_the_standard_output_is_theirs_alone(pretend: Pretend) -> None:
    """With - for the file, what pytest says goes to stderr, and both targets are told."""
    pretend.checks(CHECKS)
    pretend.target("prod")
    pretend.target("staging")
    run = pretend.run("--target", "prod", "--target", "staging", "--json-lines", "-")
    told = read(run.output + "\n")
    assert [each["target"] for each in told if each["type"] == "verdict"] == ["prod", "staging"]
    assert {each["target"] for each in told if each["type"] == "finding"} == {"prod", "staging"}
    assert "staging is failing: " in run.errors
    assert run.exit_status == 1


def test_a_line_is_there_as_soon_as_its_check_has_ended(pretend: Pretend) -> None:
    """The reader of a pipe has the first finding while the second check still waits for it."""
    pretend.checks(
        """
    @symptom("db.first", severity=Severity.MAJOR)
    def test_first(finding):
        \"\"\"It comes first.\"\"\"
    @symptom("db.second", severity=Severity.MAJOR)
    def test_second(finding):
        \"\"\"It waits until the first was read.\"\"\"
        ends = time.monotonic() + 30
        while not Path("read").exists():
            assert time.monotonic() < ends, "nobody read the first finding"
            time.sleep(0.01)
    """
    )
    pretend.target("prod")
    command = [sys.executable, "-m", "pytest", "--target", "prod", "--reports=made", "--json-lines", "-"]
    with subprocess.Popen(
        command, cwd=pretend.folder, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["type"] == "run"
        assert json.loads(process.stdout.readline())["name"] == "db.first"
        (pretend.folder / "read").touch()
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(rest.splitlines()[-1])["state"] == "healthy"


def test_a_reader_that_leaves_costs_nothing(pretend: Pretend) -> None:
    """A pipe that nobody reads any more is told in one line; verdict and exit status stay."""
    pretend.checks(CHECKS)
    pretend.target("prod")
    command = [sys.executable, "-m", "pytest", "--target", "prod", "--reports=made", "--json-lines", "-"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command, cwd=pretend.folder, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert done.stderr.count("no --json-lines: stdout: Broken pipe") == 1
    assert "prod is failing: " in done.stderr


@some
@given(hostile_reports())
def test_nothing_breaks_a_line(report: Any) -> None:
    """Any text anywhere is one line of ASCII that holds the text as it is; numbers that JSON lacks are strings."""
    for finding in report.findings:
        text = line("finding", finding_line(finding))
        assert text.isascii()
        assert text.isprintable()
        content = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
        assert content["message"].encode("utf-8", "replace") == finding.message.encode("utf-8", "replace")
        assert len(content["measurements"]) == len(finding.measurements)
    verdict = json.loads(line("verdict", verdict_content(report)))
    assert verdict["partial"] is report.partial


def test_the_verdict_says_that_it_is_partial() -> None:
    """And why, and what had no turn."""
    content = verdict_content(incident(not_run=("db.later",), cut_short="interrupted"))
    assert (content["partial"], content["cut_short"], content["not_run"]) == (True, "interrupted", ("db.later",))
    assert content["warnings"] == ("prod.toml:7: the waiver of Kim for db.x ran out",)
