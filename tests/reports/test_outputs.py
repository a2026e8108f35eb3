"""All outputs at once: they agree, they tell what is partial, and none of them can cost the verdict."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.beds.pretend import SECRET, Pretend
from tests.reports.test_junit import parsed, properties
from tests.reports.test_nagios import read as read_nagios
from tests.reports.test_openmetrics import read as read_openmetrics
from tests.reports.test_openmetrics import value

pytest_plugins = ["pytester"]

FILES = {
    "--json-lines": "lines.jsonl",
    "--openmetrics": "health.prom",
    "--markdown": "report.md",
    "--junitxml": "junit.xml",
}
CHECKS = """
    @symptom("db.full", severity=Severity.CRITICAL)
    def test_full(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", 97, of=100, limit=Limit(warn=80, fail=95))
    @symptom("db.later", severity=Severity.MAJOR)
    def test_later(finding):
        \"\"\"It comes later.\"\"\"
        LATER
"""
WAITS = 'Path("begun").touch(); time.sleep(60)'


def everything(folder: str = "made") -> list[str]:
    """The arguments that ask for every output which can be had together."""
    return [*(f"{option}={folder}/{name}" for option, name in FILES.items()), "--summary"]


def made(folder: Path) -> dict[str, str]:
    """The files that were written, by the option that asked for them."""
    return {option: (folder / name).read_text("utf-8") for option, name in FILES.items() if (folder / name).exists()}


def all_say_partial(written: Mapping[str, str], snapshot: Mapping[str, Any], why: str) -> None:
    """Assert that no output can be taken for the whole, and that each has the finding that there was."""
    assert set(written) == set(FILES)
    verdict = json.loads(written["--json-lines"].splitlines()[-1])
    assert (verdict["partial"], verdict["not_run"]) == (True, ["db.later"])
    assert why in verdict["cut_short"]
    families = read_openmetrics(written["--openmetrics"])
    assert value(families["allodoc_health_partial"], target="prod") == 1
    assert value(families["allodoc_health_outcome"], symptom="db.full") == 2
    assert "**Partial:** " in written["--markdown"]
    root = parsed(written["--junitxml"])
    assert properties(root, "prod")["partial"] == "true"
    assert root.find(".//testcase[@name='db.later']/skipped").get("type") == "not-run"
    assert root.find(".//testcase[@name='db.full']/failure") is not None
    assert why in snapshot["cut_short"]
    assert snapshot["not_run"] == ["db.later"]


@pytest.mark.parametrize(
    ("number", "processes"),
    [(signal.SIGINT, []), (signal.SIGTERM, []), (signal.SIGTERM, ["-n2"])],
    ids=["SIGINT", "SIGTERM", "SIGTERM-xdist"],
)
def test_an_interrupt_leaves_every_output(pretend: Pretend, number: signal.Signals, processes: list[str]) -> None:
    """Ctrl-C or SIGTERM: what there is is written in every format, marked partial, and the exit status is 2."""
    pretend.checks(CHECKS.replace("LATER", WAITS))
    pretend.target("prod")
    # A shell that starts its jobs in the background has them ignore the signal.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "pytest", "--target=prod", "--reports=made"]
    with subprocess.Popen(
        [*command, *everything(), *processes],
        cwd=pretend.folder,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        ends = time.monotonic() + 30
        while not _is_under_way(pretend.folder) and time.monotonic() < ends:
            time.sleep(0.02)
        process.send_signal(number)
        try:
            output, _ = process.communicate(timeout=30)
        finally:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert process.returncode == 2, output
    (snapshot,) = [json.loads(path.read_text("utf-8")) for path in (pretend.folder / "made").glob("2*.json")]
    all_say_partial(made(pretend.folder / "made"), snapshot, "interrupted")
    assert "This is partial: interrupted" in output
    assert output.rstrip().splitlines()[-1].startswith("prod is failing: db.full")


def _is_under_way(folder: Path) -> bool:
    """Whether the first finding has come in and the second check runs."""
    lines = folder / "made" / FILES["--json-lines"]
    return (folder / "begun").exists() and lines.exists() and "db.full" in lines.read_text("utf-8")


@pytest.mark.parametrize("processes", [[], ["-n2"]], ids=["one-process", "xdist"])
def test_the_first_failure_may_be_enough(pretend: Pretend, processes: list[str]) -> None:
    """With -x every output has what came before, marked partial; the exit status is that of a failure."""
    pretend.checks(CHECKS.replace("LATER", "pass"))
    pretend.target("prod")
    run = pretend.run("--target", "prod", "-x", *everything(), *processes)
    assert run.exit_status == 1, run.output + run.errors
    all_say_partial(made(run.folder), run.snapshot, "stopping after 1 failures")


def test_nagios_tells_a_partial_run(pretend: Pretend) -> None:
    """A plugin that loses patience gets the findings so far, and that they are not all."""
    pretend.checks(CHECKS.replace("LATER", "pass"))
    pretend.target("prod")
    run = pretend.run("--target", "prod", "-x", "--nagios")
    status, text, _ = read_nagios(run.output)
    assert status.startswith("ALLODOC CRITICAL - prod is failing (partial): db.full ")
    assert any(line.startswith("partial: stopping after 1 failures") for line in text)
    assert run.exit_status == 2


# --- what can't be written -------------------------------------------------------------------------------------------


def test_what_cannot_be_written_costs_one_line_each(pretend: Pretend) -> None:
    """It is told at the start, once more where it failed, and verdict, exit status and the other reports stay true."""
    pretend.checks(CHECKS.replace("LATER", "pass"))
    pretend.target("prod")
    (pretend.folder / "file").touch()
    run = pretend.run("--target", "prod", *everything("file"))
    assert run.exit_status == 1
    for option, name in FILES.items():
        path = pretend.folder / "file" / name
        assert f"{option}: {path} can't be written: {path.parent} is no folder" in run.lines
        assert [line for line in run.lines if line.startswith(f"no {option}: {path}: ")] != [], run.output
    assert "INTERNALERROR" not in run.output + run.errors
    assert run.lines[-1].startswith("prod is failing: db.full")
    assert run.outcomes == {"db.full": "fail", "db.later": "pass"}


def test_a_device_is_written_to_never_replaced(pretend: Pretend) -> None:
    """Four outputs to a device that is always full: a line for each, and the device is what it was."""
    pretend.checks(CHECKS.replace("LATER", "pass"))
    pretend.target("prod")
    places = {option: pretend.folder / f"full-{name}" for option, name in FILES.items()}
    try:
        for place in places.values():
            os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 7))
            place.open("w").close()
    except PermissionError:
        pytest.skip("no device can be made here")
    run = pretend.run("--target", "prod", *(f"{option}={place}" for option, place in places.items()))
    assert run.exit_status == 1
    for option, place in places.items():
        assert run.output.count(f"no {option}: {place}: No space left on device") == 1
        assert place.is_char_device()
    assert run.lines[-1].startswith("prod is failing: db.full")


def test_a_link_goes_on_leading_where_it_led(pretend: Pretend) -> None:
    """The file behind it is replaced, not the link."""
    pretend.checks(CHECKS.replace("LATER", "pass"))
    pretend.target("prod")
    (pretend.folder / "there.md").write_text("old", "utf-8")
    (pretend.folder / "link.md").symlink_to("there.md")
    pretend.run("--target", "prod", "--markdown=link.md")
    assert (pretend.folder / "link.md").is_symlink()
    assert (pretend.folder / "there.md").read_text("utf-8").startswith("# ")


def test_a_full_file_system_keeps_what_was_there(pretend: Pretend) -> None:
    """On a file system without room the old files stay whole, and the verdict is told."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder, kept = pretend.folder / "small", pretend.folder / "kept"
    folder.mkdir()
    pretend.checks(CHECKS.replace("LATER", 'finding.note("x" * 200_000)'))
    pretend.target("prod")
    script = (
        'mount -t tmpfs -o size=32k full "$1" || exit 77\n'
        'for old in report.md junit.xml; do echo old >"$1/$old"; done\n'
        'small=$1; kept=$2; trap \'cp -a "$small" "$kept"\' EXIT; shift 2; "$@"'
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(folder), str(kept)]
    command += [sys.executable, "-m", "pytest", "--target=prod", "--reports=made", *everything("small")]
    done = subprocess.run(command, cwd=pretend.folder, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 1, done.stdout + done.stderr
    for option in ("--markdown", "--junitxml", "--json-lines"):
        assert f"no {option}: {folder}/{FILES[option]}: No space left on device" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("prod is failing: db.full")
    assert {name: (kept / name).read_text() for name in ("report.md", "junit.xml")} == {
        "report.md": "old\n",
        "junit.xml": "old\n",
    }
    assert not [path.name for path in kept.glob(".*")]


# --- what can't be asked for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--markdown=made/x", "--openmetrics=made/../made/x"], "--openmetrics and --markdown would both write"),
        (["--markdown=made/x.html", "--html=made/x.html"], "--markdown and --html would both write"),
        (["--markdown=targets"], "--markdown must be a file, and"),
        (["--json-lines=-", "--symptoms"], "--json-lines - wants the standard output for itself and excludes --sy"),
        (["--json-lines=-", "--collect-only"], "excludes --collect-only"),
    ],
)
def test_what_cannot_be_combined_is_refused(pretend: Pretend, arguments: list[str], said: str) -> None:
    """In a sentence, before anything is looked at, with exit status 4."""
    pretend.checks(CHECKS.replace("LATER", "pass"))
    pretend.target("prod")
    run = pretend.run("--target", "prod", *arguments)
    assert run.exit_status == 4
    assert said in run.errors
    assert "Traceback" not in run.errors
    assert not run.snapshots


def test_an_ordinary_run_imports_none_of_them(pretend: Pretend) -> None:
    """What nobody asked for costs nothing at the start."""
    pretend.checks(CHECKS.replace("LATER", "pass"))
    pretend.target("prod")
    (pretend.folder / "watch.py").write_text(
        "import sys\ndef pytest_unconfigure():\n"
        "    print('imported', *sorted(name for name in sys.modules if name.split('.')[0] in"
        " ('reports', 'prometheus_client', 'lxml', 'xml')))\n",
        "utf-8",
    )
    run = pretend.run("--target", "prod", "-p", "watch")
    (imported,) = [line.split()[1:] for line in run.lines if line.startswith("imported ")]
    writers = {f"reports.{name}" for name in ("junit", "json_lines", "openmetrics", "nagios", "github", "markdown")}
    assert not writers & set(imported)
    assert not {name for name in imported if name.startswith("prometheus_client")}


# --- privacy ---------------------------------------------------------------------------------------------------------

MAIL = "wilhelmina.quastenberg@praxis.example"
BEARER = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
PLANTED = f"user {MAIL} sent Authorization: Bearer {BEARER} with password={SECRET}"
CANARIES = (MAIL, "quastenberg@", BEARER, SECRET)
LEAKY = """
    import dataclasses
    PLANTED = __PLANTED__
    @dataclasses.dataclass(frozen=True)
    class Row:
        text: str
    @probe(guard="db.rows")
    def rows():
        return (Row(PLANTED),)
    @probe(guard="db.session")
    def session():
        raise Failed("refused " + PLANTED, details=(PLANTED,))
    @symptom("db.session", severity=Severity.CRITICAL)
    def test_session(session):
        \"\"\"One can log in.\"\"\"
    @symptom("db.query", severity=Severity.CRITICAL)
    def test_query(session):
        \"\"\"It answers.\"\"\"
    @symptom("db.rows", severity=Severity.MAJOR)
    def test_rows(rows, finding):
        \"\"\"Rows are well.\"\"\"
        finding.measure("growth of " + rows[0].text, 97, of=100, limit=Limit(warn=80, fail=95, source=PLANTED))
        finding.note(PLANTED)
        finding.fact(pid=PLANTED)
        finding.escalate(Escalation.NOW, PLANTED)
    @symptom("db.warned", severity=Severity.MAJOR)
    def test_warned(finding):
        \"\"\"It does not warn.\"\"\"
        finding.warn(PLANTED)
    @symptom("db.absent", severity=Severity.MAJOR)
    def test_absent(finding):
        \"\"\"It is there.\"\"\"
        finding.not_applicable(PLANTED)
    @symptom("db.broken", severity=Severity.MAJOR)
    def test_broken(finding):
        \"\"\"It does not break.\"\"\"
        raise RuntimeError(PLANTED)
"""


@pytest.mark.parametrize("processes", [[], ["-n2"]], ids=["one-process", "xdist"])
def test_canaries_reach_no_output(pretend: Pretend, monkeypatch: pytest.MonkeyPatch, processes: list[str]) -> None:
    """What is planted in messages, details, measurements, facts, reasons and tracebacks is in none of the formats."""
    pretend.checks(LEAKY.replace("__PLANTED__", repr(PLANTED)))
    pretend.target("prod")
    summary = pretend.folder / "made" / "summary.md"
    summary.parent.mkdir()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    run = pretend.run("--target", "prod", "--github", "-vv", *everything(), *processes)
    nagios = pretend.run("--target", "prod", "--nagios", *processes)
    texts = {path.name: path.read_bytes().decode(errors="replace") for path in run.folder.iterdir() if path.is_file()}
    assert set(FILES.values()) | {"summary.md", "latest.json", "latest.html"} <= set(texts)
    texts |= {"terminal": run.output + run.errors, "nagios": nagios.output + nagios.errors}
    assert run.outcomes["db.rows"] == "fail"
    for name, text in texts.items():
        for canary in CANARIES:
            assert canary not in text, f"{canary!r} is in {name}: …{text[max(0, text.find(canary) - 200) :][:400]}…"
    assert etree.fromstring(texts["junit.xml"].encode()) is not None
