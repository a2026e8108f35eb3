"""Sessions that hold connections, locks or the processor of the demo's PostgreSQL; gone when their block ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.beds.embedded import Demo

# Statements that waited or slept on a test's behalf would be slow ones for the tests that follow.
FORGET = "SELECT pg_stat_statements_reset()"


@contextmanager
def waiting(demo: Demo, *statements: str) -> Iterator[None]:
    """Sessions that run these statements and have to wait for a lock; they end with them, at the latest with this."""
    threads: list[threading.Thread] = []
    with ExitStack() as held:
        pids = []
        for statement in statements:
            connection = held.enter_context(demo.connect(application_name="waiter"))
            pids.append(connection.info.backend_pid)

            def run(connection: psycopg.Connection[object] = connection, statement: str = statement) -> None:
                with suppress(psycopg.Error), connection:
                    connection.execute(statement.encode())

            threads.append(threading.Thread(target=run, daemon=True))
            threads[-1].start()
        count = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s) AND wait_event_type = 'Lock'"
        demo.wait_until(lambda: demo.sql(count, pids) == [(len(pids),)], what="the sessions to wait")
        try:
            yield
        finally:
            demo.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", pids)
            for thread in threads:
                thread.join(5)
            demo.sql(FORGET)


@contextmanager
def statement(demo: Demo, sql: str, application: str) -> Iterator[int]:
    """A session that runs a statement; its pid."""
    with demo.connect(application_name=application) as connection:

        def run() -> None:
            try:
                connection.execute(sql.encode())
            except psycopg.Error:
                return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        pid = connection.info.backend_pid
        active = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        demo.wait_until(lambda: demo.sql(active, pid), what="the statement to run")
        try:
            yield pid
        finally:
            demo.sql("SELECT pg_terminate_backend(%s)", pid)
            thread.join(5)
            demo.sql(FORGET)


@contextmanager
def connections(demo: Demo, count: int, user: str, password: str) -> Iterator[list[psycopg.Connection[Any]]]:
    """Connections of a role, opened until there are ``count`` or the server refuses."""
    with ExitStack() as held:
        opened = []
        for _ in range(count):
            try:
                connection = psycopg.connect(
                    host="127.0.0.1",
                    port=demo.port("postgres"),
                    user=user,
                    password=password,
                    dbname="allodoc_prod",
                    application_name="leaky",
                    autocommit=True,
                )
            except psycopg.OperationalError:
                break
            opened.append(held.enter_context(connection))
        yield opened


@contextmanager
def table(demo: Demo, definition: str, *statements: str, name: str = "visits") -> Iterator[None]:
    """A table of a test's own, filled by statements, and dropped in the end."""
    demo.sql(f"DROP TABLE IF EXISTS {name} CASCADE")
    try:
        demo.sql(f"CREATE TABLE {name} {definition}")
        for one in statements:
            demo.sql(one)
        yield
    finally:
        demo.sql(f"DROP TABLE IF EXISTS {name} CASCADE")


@contextmanager
def data_folder(demo: Demo) -> Iterator[Path]:
    """PostgreSQL's data folder. Signal files and changed rules are taken away afterwards, the server restarted."""
    folder = demo.folder.service("postgres") / "data"
    rules = (folder / "pg_hba.conf").read_bytes()
    try:
        yield folder
    finally:
        changed = (folder / "pg_hba.conf").read_bytes() != rules
        (folder / "pg_hba.conf").write_bytes(rules)
        signals = list(folder.glob("*.signal"))
        for path in signals:
            path.unlink()
        if signals or changed:
            demo.restart("postgres")
            demo.wait_healthy("postgres")


def owned(path: Path) -> None:
    """Make an empty file that belongs to whom its folder belongs."""
    path.touch()
    os.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)


def answers(demo: Demo) -> bool:
    """Whether PostgreSQL lets somebody in."""
    return not refusal(demo)


def refusal(demo: Demo) -> str:
    """What PostgreSQL says to somebody who wants in; empty when it lets them in."""
    try:
        demo.sql("SELECT 1")
    except psycopg.Error as error:
        return str(error)
    return ""
