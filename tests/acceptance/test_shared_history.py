"""A history that several machines share, in a real PostgreSQL."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from allodoc_health.finding import Outcome
from reports.history.location import Location, locate
from reports.history.records import Records
from reports.history.store import HistoryError, Store
from tests.beds.embedded import Demo
from tests.reports.history.making import KEPT, NOW, at, found, remember, report, write_on

PASSWORD = "s3cret/p@ss"


@pytest.fixture
def shared(demo: Demo) -> Iterator[Location]:
    """An empty database of a role with a difficult password, in the demo's PostgreSQL."""
    with demo.connect() as admin:
        admin.execute(sql.SQL("CREATE ROLE historian LOGIN PASSWORD {}").format(PASSWORD))
        admin.execute("CREATE DATABASE remembered OWNER historian")
    quoted = PASSWORD.replace("/", "%2F").replace("@", "%40")
    try:
        yield locate(f"postgresql://historian:{quoted}@127.0.0.1:{demo.port('postgres')}/remembered", Path())
    finally:
        with demo.connect() as admin:
            admin.execute("DROP DATABASE remembered WITH (FORCE)")
            admin.execute("DROP ROLE historian")


def test_a_history_in_postgresql(shared: Location, tmp_path: Path) -> None:
    """It is told the same past as from a file; three machines may write at once."""
    stores = Store(shared), Store(at(tmp_path))
    table: dict[str, Any] = {"nodeid": "checks/test_tables.py::test_tables"}
    runs = [
        report(found("db.login", value=97.0), found("db.bloat[visits]", **table), at=NOW - timedelta(hours=3)),
        report(
            found("db.login", Outcome.PASS, 50.0), found("db.bloat", Outcome.PASS, **table), at=NOW - timedelta(hours=2)
        ),
        report(found("db.login", Outcome.WARN, 85.0), at=NOW - timedelta(hours=1)),
    ]
    for store in stores:
        remember(store, *runs)
    assert stores[0].read("prod", NOW) == stores[1].read("prod", NOW)
    rows = [[{**row, "run": None} for row in store.rows("findings")] for store in stores]
    assert rows[0] == rows[1]
    assert stores[0].prune(NOW - timedelta(hours=2, minutes=30)) == 1
    processes = multiprocessing.get_context("forkserver")
    writers = []
    for _ in range(3):
        listening, speaking = processes.Pipe(duplex=False)
        writers.append((processes.Process(target=write_on, args=(shared, speaking, 5)), listening))
        writers[-1][0].start()
    for writer, _ in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert stores[0].read("prod", NOW).runs == 2 + 15


def test_a_history_that_refuses_or_is_not_there(demo: Demo, shared: Location) -> None:
    """It is a reason in one line, within a few seconds, and the password is not in it."""
    wrong = shared.url.replace("p%40ss", "p%40zz")
    gone = shared.url.replace(f":{demo.port('postgres')}/", ":1/")
    for url in (wrong, gone, shared.url.replace("/remembered", "/nothing-here")):
        began = time.monotonic()
        with pytest.raises(HistoryError) as told:
            Store(Location(url, shared.shown)).read("prod", NOW)
        assert time.monotonic() - began < 10
        assert str(told.value).startswith(f"{shared.shown}: ")
        assert "s3cret" not in str(told.value)
        assert "\n" not in str(told.value)


def test_a_history_that_another_holds_is_not_waited_for(shared: Location) -> None:
    """A writer that never ends costs the next one two seconds."""
    store = Store(shared)
    remember(store, report(found("db.login")))
    with psycopg.connect(shared.url.replace("postgresql+psycopg", "postgresql")) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [0x416C6C6F])
        with pytest.raises(HistoryError, match=r"lock timeout|statement timeout"):
            store.record(report(found("db.login")), Records(), whole=True, keep=KEPT)
