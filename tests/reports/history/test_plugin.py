"""The history in a run: told to its reader, written once, and never in the way."""

from __future__ import annotations

import csv
import io
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from allodoc_health.finding import Escalation
from reports.history import __main__ as command_line
from reports.history.store import Store
from tests.beds.pretend import Pretend
from tests.beds.suite import ROOT
from tests.reports.history.making import NOW, at, found, remember, report

pytest_plugins = ["pytester"]

CHECKS = """
    @symptom("db.headroom", severity=Severity.CRITICAL)
    def test_headroom(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", float(os.environ["USED"]), unit="%", limit=Limit(warn=80, fail=95))
    @symptom("db.port", severity=Severity.CRITICAL)
    def test_port(finding):
        \"\"\"The port is open.\"\"\"
        finding.says("open")
"""


def kept(folder: Path) -> list[tuple[str, int]]:
    """State of each run that is kept, and whether it was of all checks."""
    with closing(sqlite3.connect(folder / "history.sqlite")) as connection:
        return connection.execute("SELECT state, whole FROM runs ORDER BY id").fetchall()


def test_a_run_tells_what_was_before(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first failure is new; the second says since when, and -v draws the way there. A part of it is marked."""
    pretend.checks(CHECKS)
    monkeypatch.setenv("USED", "97")
    first = pretend.run("checks")
    assert "      new" not in first.lines, "nothing was before, so nothing is known to be new"
    part = pretend.run("checks", "-k", "db.port")
    assert "prod is healthy" in part.output
    again = pretend.run("checks", "-v", "-n1")
    assert "(2 runs)" in again.output, "what was not looked at has not recovered"
    assert "not in the history" not in again.output
    assert kept(again.folder) == [("failing", 1), ("healthy", 0), ("failing", 1)]


def test_the_outage_clock_of_every_output(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a run twenty minutes ago saw it down is in the snapshot's verdict, and in that of its replay."""
    pretend.checks(CHECKS)
    monkeypatch.setenv("USED", "97")
    with closing(sqlite3.connect(pretend.run("checks").folder / "history.sqlite")) as connection:
        began = (datetime.now(UTC) - timedelta(minutes=20)).strftime("%Y-%m-%d %H:%M:%S.%f")
        connection.execute("UPDATE runs SET started = ?, outage_since = ?", (began, began))
        connection.commit()
    run = pretend.run("checks", "--snapshot=down.json")
    verdict = run.snapshot["verdict"]
    assert verdict["escalation"] == Escalation.NOW
    assert verdict["escalation_reason"] == "down for 20 min, more than 15 min"
    assert verdict["escalation_reason"] in run.output
    assert pretend.run("checks", "--replay=down.json").snapshot["verdict"] == verdict


def test_no_history_is_no_file(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    """--no-history leaves none, and neither does --no-reports, unless a place is named."""
    pretend.checks(CHECKS)
    monkeypatch.setenv("USED", "10")
    assert pretend.run("checks", "--no-history").exit_status == 0
    assert pretend.run("checks", "--no-reports").exit_status == 0
    assert not list(pretend.folder.rglob("*.sqlite"))
    assert pretend.run("checks", "--no-reports", "--history", "elsewhere.sqlite").exit_status == 0
    assert (pretend.folder / "elsewhere.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--history", "mysql://me:s3cret@db/x"], "not in 'mysql'"),
        (["--history", "x.sqlite", "--no-history"], "--history and --no-history: one or the other"),
        (["--history-keep", "0"], "--history-keep 0: a number of days above 0"),
    ],
)
def test_a_wrong_option_ends_the_run_at_once(pretend: Pretend, arguments: list[str], told: str) -> None:
    """Exit status 4, before anything is looked at, and without a password."""
    pretend.checks(CHECKS)
    ran = pretend.run("checks", *arguments)
    assert ran.exit_status == 4
    assert told in ran.errors
    assert "s3cret" not in ran.errors + ran.output
    assert not ran.snapshots


@pytest.mark.parametrize(
    ("history", "told"),
    [
        pytest.param("/proc/nowhere/history.sqlite", "no history: /proc/nowhere", id="out of reach"),
        pytest.param("damaged.sqlite", "the history was damaged: it is kept as ", id="damaged"),
        pytest.param(
            "postgresql://me:s3cret@127.0.0.1:1/x", "no history: postgresql://me@127.0.0.1:1/x: ", id="refused"
        ),
    ],
)
def test_a_broken_history_is_one_line(
    pretend: Pretend, monkeypatch: pytest.MonkeyPatch, history: str, told: str
) -> None:
    """Verdict, reports and exit status are those of a run without one."""
    pretend.checks(CHECKS)
    monkeypatch.setenv("USED", "10")
    (pretend.folder / "damaged.sqlite").write_bytes(b"no database " * 1000)
    ran = pretend.run("checks", "--history", history)
    (line,) = [line for line in ran.lines if line.startswith(("no history", "the history", "this run is not"))]
    assert line.startswith(told)
    assert "s3cret" not in ran.output + ran.errors
    assert ran.exit_status == 0
    assert "prod is healthy" in ran.output
    assert ran.snapshot["verdict"]["state"] == "healthy"


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def history(tmp_path: Path) -> str:
    """A history of two runs."""
    healthy = report(found("db.login"), at=NOW, target="staging", cut_short="interrupted")
    remember(Store(at(tmp_path)), report(found("db.login", value=97), found("db.port")), healthy)
    return str(at(tmp_path).file)


def test_show_tells_the_last_runs(history: str) -> None:
    """As a person runs it: one line a run, what failed in it, and whether it was all of it."""
    done = subprocess.run(
        [sys.executable, "-m", "reports.history", "--history", history, "show", "--last", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "2026-11-24 03:00:00 UTC   staging      failing    1.5 s: db.login\n"


def test_export_is_csv(history: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """To the terminal or to a file, the same rows, narrowed by target and day."""
    assert command_line.main(["--history", history, "export", "measurements"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["finding"], row["measurement"], row["value"], row["unit"]) == ("db.login", "used", "97.0", "%")
    file = tmp_path / "runs.csv"
    assert command_line.main(["--history", history, "export", "runs", "--target", "prod", "--output", str(file)]) == 0
    (row,) = csv.DictReader(io.StringIO(file.read_text("utf-8")))
    assert (row["started"], row["root_causes"]) == (NOW.isoformat(), '["db.login", "db.port"]')
    assert command_line.main(["--history", history, "export", "runs", "--since", "2026-11-25"]) == 0
    assert capsys.readouterr().out.strip() == ""


def test_export_is_parquet(history: str, tmp_path: Path) -> None:
    """With pyarrow, a file that pyarrow reads, with moments as moments."""
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "runs.parquet"
    assert command_line.main(["--history", history, "export", "runs", "--output", str(file)]) == 0
    rows = parquet.read_table(file).to_pylist()
    assert [(row["target"], row["started"]) for row in rows] == [("prod", NOW), ("staging", NOW)]


def test_parquet_without_pyarrow_is_said(
    history: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names what to install, and what to do without it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    file = str(tmp_path / "runs.parquet")
    assert command_line.main(["--history", history, "export", "runs", "--output", file]) == 1
    assert "pip install pyarrow, or use --format csv" in capsys.readouterr().err


def test_prune_forgets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says how many runs are gone."""
    history, yesterday = str(tmp_path / "history.sqlite"), datetime.now(UTC) - timedelta(days=1)
    remember(Store(at(tmp_path)), *(report(found("db.login"), at=yesterday) for _ in range(2)))
    assert command_line.main(["--history", history, "prune", "--keep", "0.5"]) == 0
    assert capsys.readouterr().out == "2 runs forgotten\n"
    assert command_line.main(["--history", history, "show"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "finding"], "did you mean 'findings'?"),
        (["export", "runs", "--format", "parket"], "did you mean 'parquet'?"),
        (["export", "runs", "--since", "yesterday"], "a day as 2026-11-24"),
        (["show", "--last", "none"], "a number above 0"),
    ],
)
def test_a_wrong_command_line_names_what_is_valid(
    history: str, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    """Exit status 2, as of any command."""
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--history", history, *arguments])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_what_is_not_there_is_said(history: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A target without runs, and a history that nobody began: reading makes no file."""
    assert command_line.main(["--history", history, "show", "--target", "pro"]) == 1
    assert "no runs of 'pro'; did you mean 'prod'?" in capsys.readouterr().err
    nothing = tmp_path / "nothing.sqlite"
    assert command_line.main(["--history", str(nothing), "show"]) == 1
    assert "there is no history yet" in capsys.readouterr().err
    assert not nothing.exists()
