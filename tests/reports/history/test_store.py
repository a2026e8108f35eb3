"""The database: whole or not at all, shared, damaged, killed, and never a reason to show a password."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from datetime import UTC, timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from allodoc_health.finding import Outcome
from reports.history import schema
from reports.history.location import Location, locate
from reports.history.records import Records
from reports.history.store import HistoryError, Store
from tests.reports.history.making import KEPT, NOW, at, found, remember, report, write_on

PASSWORD = "s3cret/p@ss"
KILLS = 50


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Starts processes that know the history already, in a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reports.history.making"])
    return context


def check(file: Path) -> int:
    """Assert that a database is whole, with whole runs in it; how many there are."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        sizes = connection.execute("SELECT count(*) FROM findings GROUP BY run_id").fetchall()
        assert set(sizes) <= {(200,)}, "a run is there by half"
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
        assert runs == len(sizes)
        return int(runs)


# -- whole or not at all ----------------------------------------------------------------------------------------------


def test_killed_while_it_writes(processes: ForkServerContext, tmp_path: Path) -> None:
    """SIGKILL at fifty random moments: never a damaged database, at most the last run missing."""
    location = at(tmp_path)
    assert location.file is not None
    moments = random.Random(5)  # noqa: S311  # which moments does not matter, that they differ does
    acknowledged = 0
    for _ in range(KILLS):
        listening, speaking = processes.Pipe(duplex=False)
        writer = processes.Process(target=write_on, args=(location, speaking, 10_000))
        writer.start()
        speaking.close()
        assert listening.poll(30), "the writer writes"
        time.sleep(moments.random() * 0.05)
        writer.kill()
        writer.join()
        try:
            while listening.poll():
                listening.recv()
                acknowledged += 1
        except EOFError:
            pass
        assert writer.exitcode == -signal.SIGKILL
        kept = check(location.file)
        assert acknowledged <= kept <= acknowledged + 1
        acknowledged = kept


def test_two_write_at_once(processes: ForkServerContext, tmp_path: Path) -> None:
    """Neither fails, and nothing is lost, from the very first moment on, when both make the tables."""
    location = at(tmp_path)
    pipes = [processes.Pipe(duplex=False) for _ in range(3)]
    writers = [processes.Process(target=write_on, args=(location, speaking, 20)) for _, speaking in pipes]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert location.file is not None
    assert check(location.file) == 60


def test_a_run_that_fails_to_be_written_leaves_nothing(tmp_path: Path) -> None:
    """An error in the middle of a run takes back its beginning."""
    store = Store(at(tmp_path))
    remember(store, report(found("db.login")))
    broken = report(found("db.login", message="half a character \ud800"))
    with pytest.raises(HistoryError):
        store.record(broken, Records(), whole=True, keep=KEPT)
    assert len(store.rows("runs")) == len(store.rows("findings")) == 1


# -- damaged, foreign, out of reach -----------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    """It is kept under another name, said in a line, and a new history begins."""
    location = at(tmp_path)
    assert location.file is not None
    location.file.write_bytes(b"what a disk made of it " * 100)
    store = Store(location)
    remember(store, report(found("db.login")))
    (aside,) = tmp_path.glob("history.sqlite.damaged-*")
    assert aside.read_bytes().startswith(b"what a disk")
    assert store.notices == [f"the history was damaged: it is kept as {aside}, and a new one begins"]
    assert len(store.rows("runs")) == 1


def test_damage_in_the_middle_is_found_while_reading(tmp_path: Path) -> None:
    """The head of the file is sound, a page further on is not: that is damage as well."""
    location = at(tmp_path)
    assert location.file is not None
    some = [found(f"db.number-{number}", value=1.0) for number in range(300)]
    remember(Store(location), *(report(*some, at=NOW - timedelta(minutes=minute)) for minute in (3, 2, 1)))
    whole = location.file.read_bytes()
    location.file.write_bytes(whole[:8192] + os.urandom(len(whole) - 8192))
    store = Store(location)
    remember(store, report(*some))
    assert len(list(tmp_path.glob("history.sqlite.damaged-*"))) == len(store.notices) == 1
    assert len(store.rows("runs")) == 1


def test_a_history_of_a_newer_suite_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two checkouts of different age share a history: the older one says so, and changes nothing."""
    location = at(tmp_path)
    with monkeypatch.context() as newer:
        newer.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, lambda connection: None))
        remember(Store(location), report(found("db.login")))
    with pytest.raises(HistoryError, match="it has version 2, this suite knows up to 1: update the suite"):
        Store(location).read("prod", NOW)
    assert not list(tmp_path.glob("*.damaged-*"))


def test_an_older_history_is_migrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer suite adds what is missing, keeps what is there, and does not do it again."""
    location, done = at(tmp_path), []
    remember(Store(location), report(found("db.login"), at=NOW - timedelta(days=1)))

    def add_column(connection: Connection) -> None:
        done.append(1)
        connection.execute(text("ALTER TABLE runs ADD COLUMN looks INTEGER"))

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, add_column))
    for _ in range(2):
        store = Store(location)
        assert store.read("prod", NOW).runs == 1
    assert location.file is not None
    with contextlib.closing(sqlite3.connect(location.file)) as connection:
        assert "looks" in [column[1] for column in connection.execute("PRAGMA table_info(runs)")]
    assert done == [1]


@pytest.mark.parametrize("place", ["/proc/nowhere/history.sqlite", "/dev/null/history.sqlite", "/"])
def test_a_place_that_can_not_be_written_is_named(place: str) -> None:
    """The reason comes with the path, as one line."""
    with pytest.raises(HistoryError) as told:
        Store(locate(place, Path())).read("prod", NOW)
    assert str(told.value).startswith(place)
    assert "\n" not in str(told.value)


def test_what_can_be_read_but_not_written(tmp_path: Path) -> None:
    """A history on a read-only disk still tells the past."""
    location = at(tmp_path)
    remember(Store(location), report(found("db.login"), at=NOW - timedelta(days=1)))
    frozen = Store(Location(f"sqlite:///file:{location.file}?mode=ro&uri=true", location.shown, location.file))
    assert frozen.read("prod", NOW).runs == 1
    with pytest.raises(HistoryError, match="readonly database"):
        frozen.record(report(found("db.login")), Records(), whole=True, keep=KEPT)
    assert not frozen.notices


# -- retention --------------------------------------------------------------------------------------------------------


def test_old_runs_are_forgotten(tmp_path: Path) -> None:
    """Each run removes what is too old by now, and pruning by hand also what is left of nothing."""
    store = Store(at(tmp_path))
    for days in (30, 20, 10):
        remember(store, report(found(f"db.old-{days}", Outcome.PASS, 1.0), at=NOW - timedelta(days=days)))
    store.record(report(found("db.new")), Records(), whole=True, keep=timedelta(days=25))
    assert [row["finding"] for row in store.rows("findings")] == ["db.old-20", "db.old-10", "db.new"]
    assert store.prune(NOW - timedelta(days=15)) == 1
    assert [row["finding"] for row in store.rows("measurements")] == ["db.old-10"]
    names = store._attempt(lambda connection: list(connection.scalars(text("SELECT DISTINCT finding FROM series"))))
    assert sorted(names) == ["db.new", "db.old-10"]


# -- what was told ----------------------------------------------------------------------------------------------------


def test_of_two_that_want_to_tell_one_does(tmp_path: Path) -> None:
    """Both know the same last message; the second to claim the next one gets nothing, until it is given back."""
    store, other = Store(at(tmp_path)), Store(at(tmp_path))
    row = {
        "target": "prod",
        "channel": "mailto 1",
        "after": 0,
        "moment": NOW.astimezone(UTC),
        "since": None,
        "state": "failing",
        "root_causes": ["db.login"],
        "escalation": "none",
    }
    claim = store.claim(**row)
    assert claim is not None
    assert other.claim(**row) is None
    assert other.claim(**{**row, "channel": "slack 2"}) is not None
    assert other.claim(**{**row, "after": claim}) is not None
    store.unclaim(claim)
    assert other.claim(**row) is not None


# -- where it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("runs.sqlite", "/here/runs.sqlite"),
        ("/var/lib/runs.sqlite", "/var/lib/runs.sqlite"),
        ("sqlite:///runs.sqlite", "/here/runs.sqlite"),
        ("sqlite:////var/lib/runs.sqlite", "/var/lib/runs.sqlite"),
        (f"postgresql://me:{PASSWORD}@db:5432/health".replace("/p@", "%2Fp%40"), "postgresql://me@db:5432/health"),
        ("postgresql+psycopg://db/health?password=s3cret", "postgresql://db/health"),
    ],
)
def test_a_place_is_shown_without_its_password(given: str, shown: str) -> None:
    """Of a URL only user, host, port and database are ever shown."""
    location = locate(given, Path("/here"))
    assert location.shown == shown
    assert "s3cret" not in repr(location)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("mysql://me:s3cret@db/health", "SQLite or PostgreSQL, not in 'mysql'"),
        ("postgres://me:s3cret@db/health", "did you mean 'postgresql'?"),
        (f"postgresql://me:{PASSWORD}@db/health", "with %40 for an @ and %2F for a / in the password"),
        ("postgresql://me:s3cret@db", "names no database"),
        ("sqlite://runs.sqlite", "a SQLite history is a file"),
    ],
)
def test_what_is_no_place_is_refused(given: str, told: str) -> None:
    """The message says what is valid, and repeats nothing that could be a password."""
    with pytest.raises(ValueError, match=r"PostgreSQL|postgresql|SQLite") as refused:
        locate(given, Path("/here"))
    assert told in str(refused.value)
    assert "s3cret" not in str(refused.value)
