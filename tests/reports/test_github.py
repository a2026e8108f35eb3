"""GitHub Actions: annotations that say what was meant and nothing else, and a summary of the job."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from allodoc_health.finding import Outcome
from reports.github import LARGEST, annotated, command
from tests.beds.incidents import found, hostile_reports, incident, some, texts, told
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

CHECKS = """
    @symptom("db.full", severity=Severity.CRITICAL)
    def test_full(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", 97, of=100, limit=Limit(warn=80, fail=95))
        finding.note("::error title=pwned::planted in a log")
"""


def understood(line: str) -> tuple[str, dict[str, str], str]:
    """What the runner makes of a line: the command, its properties and its data."""
    match = re.fullmatch(r"::(?P<name>[a-z-]+)(?: (?P<properties>[^:]*))?::(?P<data>.*)", line)
    assert match, line
    properties = dict(part.split("=", 1) for part in (match["properties"] or "").split(",") if part)
    return match["name"], {key: _unescaped(text) for key, text in properties.items()}, _unescaped(match["data"])


def _unescaped(text: str) -> str:
    assert not re.search("%(?!25|0D|0A|3A|2C)", text), text
    for escaped, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(escaped, char)
    return text


def test_an_incident_is_annotated() -> None:
    """The root cause is an error with what to do, warnings are warnings, what follows is one notice."""
    told_lines = [understood(line) for line in annotated(incident())]
    assert [(name, properties["title"]) for name, properties, _ in told_lines] == [
        ("error", "prod: db.idle-in-transaction"),
        ("warning", "prod: tls.lasts"),
        ("warning", "prod"),
        ("notice", "prod: what follows"),
    ]
    message = told_lines[0][2].split("\n")
    assert message[0] == "oldest idle transaction 12 min   (fail at 10 min)"
    assert "do: guide/database.md#a-transaction-idles" in message
    assert told_lines[-1][2] == "db.blocked-sessions[patients], db.query"


def test_what_only_warns_is_no_error() -> None:
    """A healthy target has no annotation, one with warnings none that is red, one that is blocked or partial has."""
    assert list(annotated(told(found("db.x", Outcome.PASS)))) == []
    assert [understood(line)[0] for line in annotated(told(found("db.x", Outcome.WARN)))] == ["warning"]
    assert understood(next(annotated(told(found("db.x", Outcome.BLOCKED)))))[0] == "error"
    assert [understood(line)[0] for line in annotated(told(cut_short="interrupted"))] == ["error"]


def test_escapes() -> None:
    """Percent, line breaks, colons and commas are escaped where they mean something."""
    assert command("error", "a:b,c%", "50 %:\r\nx,y") == "::error title=a%3Ab%2Cc%25::50 %25:%0Ax,y"


@some
@given(texts, texts)
def test_nothing_breaks_a_command(title: str, message: str) -> None:
    """Any text is one line and one command with one property; its data is the text but for what can't be shown."""
    line = command("error", title, message)
    assert len(line.splitlines()) == 1
    name, properties, data = understood(line)
    assert (name, list(properties)) == ("error", ["title"])
    for given_text, shown in ((title, properties["title"]), (message, data)):
        assert re.sub(r"[\W�]", "", shown) == re.sub(r"[\W�]", "", re.sub(r"[\x00-\x1f]|\x7f", "", given_text))


@some
@given(hostile_reports())
def test_any_report_can_be_annotated(report: Any) -> None:
    """Every line is a command that annotates, and nothing else."""
    assert {understood(line)[0] for line in annotated(report)} <= {"error", "warning", "notice"}


def test_a_run_on_github(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where $GITHUB_ACTIONS is true nobody has to ask: commands are off while observed text is printed, then the
    annotations come, and the summary is appended to what is there.
    """
    pretend.checks(CHECKS)
    pretend.target("prod")
    summary = pretend.folder / "summary.md"
    summary.write_text("before\n", "utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run = pretend.run("--target", "prod")
    (off,) = [number for number, line in enumerate(run.lines) if line.startswith("::stop-commands::")]
    on = run.lines.index(f"::{run.lines[off].removeprefix('::stop-commands::')}::")
    assert off < next(number for number, line in enumerate(run.lines) if "planted in a log" in line) < on
    assert [understood(line)[0] for line in run.lines[on + 1 :]] == ["error"]
    assert "%0A::error title=pwned::planted in a log" in run.lines[on + 1]
    text = summary.read_text("utf-8")
    assert text.startswith("before\n# ■ prod is failing\n")
    assert run.exit_status == 1


@pytest.mark.parametrize("processes", [(), ("-n2",)], ids=["one-process", "xdist"])
def test_it_can_be_asked_for(pretend: Pretend, processes: tuple[str, ...]) -> None:
    """--github annotates elsewhere, too; a summary that can't be written is told and changes nothing."""
    pretend.checks(CHECKS)
    pretend.target("prod")
    pretend.pytester._monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pretend.folder / "no" / "such" / "file"))
    run = pretend.run("--target", "prod", "--github", *processes)
    assert run.lines[-1].startswith("::error title=prod%3A db.full::")
    assert "no summary for GitHub: " in run.output
    assert run.exit_status == 1


def test_the_summary_has_the_size_that_github_shows(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a mebibyte would not be shown at all: the rest is left out, and that is said."""
    pretend.checks(CHECKS + '        finding.note("ü" * 1_000_000)\n')
    pretend.target("prod")
    summary = pretend.folder / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    pretend.run("--target", "prod", "--github")
    size = Path(summary).stat().st_size
    assert LARGEST - 8 < size <= LARGEST
    assert summary.read_text("utf-8").endswith("it is too long for this summary.\n")
