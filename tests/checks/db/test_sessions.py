"""Sessions that hold connections or locks for real, and what the suite makes of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from fixtures.postgres_deadlocks import WINDOW, Deadlocks
from tests.beds.embedded import Demo
from tests.beds.sessions import statement, waiting
from tests.beds.suite import Health, Run

CHAPTERS = ("checks/service", "checks/db", "-k", "not test_host")
IMPATIENT = "[limits.db]\nidle_in_transaction = {warn = 0.1, fail = 0.3}\nblocked = {warn = 0.1, fail = 0.3}\n"


@pytest.fixture
def queue(demo: Demo) -> Iterator[str]:
    """A table to wait for."""
    demo.sql("CREATE TABLE bed_queue (id int PRIMARY KEY, note text)")
    demo.sql("INSERT INTO bed_queue SELECT n, '' FROM generate_series(1, 10) AS n")
    yield "bed_queue"
    demo.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND application_name IN ('waiter', 'holder', 'test-bed')"
    )
    demo.sql("DROP TABLE bed_queue")


def details(run: Run, name: str) -> str:
    """The lines of proof of a finding."""
    return "\n".join(run.finding(name)["details"])


# --- idle ------------------------------------------------------------------------------------------------------------


def test_idle_in_transaction_warns(demo: Demo, suite: Health) -> None:
    """A transaction that idles and blocks nobody warns first, and its statement is shown without what it is about."""
    with demo.connect(autocommit=False, application_name="holder") as holder:
        holder.execute("SELECT 'Erika Mustermann'")
        limits = "[limits.db]\nidle_in_transaction = {warn = 0.1, fail = 600}\n"
        run = suite("checks/db", "-k", "test_sessions", target=demo.target + limits)
        run.warns("db.idle-in-transaction")
        assert f"pid {holder.info.backend_pid}" in details(run, "db.idle-in-transaction")
        assert 'application "holder"' in details(run, "db.idle-in-transaction")
        assert "SELECT ?" in details(run, "db.idle-in-transaction")
        assert "Erika" not in run.output


# --- blocked ---------------------------------------------------------------------------------------------------------


def test_idle_blocker_with_default_limits(demo: Demo, suite: Health, queue: str) -> None:
    """One that blocks others fails at once, however short it has idled."""
    with demo.connect(autocommit=False, application_name="holder") as holder:
        holder.execute(f"DELETE FROM {queue} WHERE id = 2".encode())
        with waiting(demo, f"DELETE FROM {queue} WHERE id = 2"):
            age = "SELECT now() - waitstart > interval '0.6 s' FROM pg_locks WHERE NOT granted"
            demo.wait_until(lambda: demo.sql(age) == [(True,)], what="the wait to be no passing one")
            run = suite("checks/db", "-k", "test_sessions", target=demo.target)
            run.blames("db.idle-in-transaction")
            message = run.finding("db.idle-in-transaction")["message"]
            assert message == f"pid {holder.info.backend_pid} idles in a transaction that blocks 1 session"
            assert run.outcome("db.blocked-sessions") in ("pass", "warn")
        holder.rollback()


def test_short_waits_warn(demo: Demo, suite: Health, queue: str) -> None:
    """Waits that are not yet too long warn, with the root named."""
    with demo.connect(autocommit=False, application_name="holder") as holder:
        holder.execute(f"DELETE FROM {queue} WHERE id = 4".encode())
        with waiting(demo, f"DELETE FROM {queue} WHERE id = 4"):
            limits = "[limits.db]\nblocked = {warn = 0.01, fail = 60}\nidle_blocking = {fail = 60}\n"
            run = suite("checks/db", "-k", "test_sessions", target=demo.target + limits)
            run.warns("db.blocked-sessions")
        holder.rollback()


def test_prepared_transaction(demo: Demo, suite: Health, queue: str) -> None:
    """A prepared transaction that nobody ends is named, though no session holds it."""
    demo.set_env("postgres", EXTRA_ARGS="-c max_prepared_transactions=2")
    demo.recreate("postgres")
    demo.wait_healthy("postgres")
    with demo.connect() as holder:
        holder.execute("BEGIN")
        holder.execute(f"DELETE FROM {queue} WHERE id = 5".encode())
        holder.execute("PREPARE TRANSACTION 'forgotten'")
    try:
        with waiting(demo, f"DELETE FROM {queue} WHERE id = 5"):
            run = suite("checks/db", "-k", "test_sessions", target=demo.target + IMPATIENT)
            run.blames("db.blocked-sessions")
            assert "a prepared transaction blocks 1 session" in details(run, "db.blocked-sessions")
            run.do("db.blocked-sessions", "look")
    finally:
        demo.sql("ROLLBACK PREPARED 'forgotten'")


def test_advisory_locks_warn(demo: Demo, suite: Health) -> None:
    """Waiting for an advisory lock may be meant so: it warns at most."""
    with demo.connect(application_name="holder") as holder:
        holder.execute("SELECT pg_advisory_lock(4711)")
        with waiting(demo, "SELECT pg_advisory_lock(4711)"):
            run = suite("checks/db", "-k", "test_sessions", target=demo.target + IMPATIENT)
            run.warns("db.blocked-sessions")
            assert "advisory" in run.finding("db.blocked-sessions")["message"]
            run.do("db.blocked-sessions", "look")
            run.do("db.blocked-sessions")
            holder.close()


# --- deadlocks -------------------------------------------------------------------------------------------------------


def deadlock(demo: Demo, queue: str) -> None:
    """Let two transactions run into each other; the server ends one of them."""
    with demo.connect(autocommit=False) as one, demo.connect(autocommit=False) as other:
        for connection in (one, other):
            connection.execute("SET deadlock_timeout = '1ms'")
        one.execute(f"UPDATE {queue} SET note = 'a' WHERE id = 7".encode())
        other.execute(f"UPDATE {queue} SET note = 'b' WHERE id = 8".encode())

        def cross() -> None:
            with suppress(psycopg.errors.DeadlockDetected):
                other.execute(f"UPDATE {queue} SET note = 'b' WHERE id = 7".encode())
            other.rollback()

        thread = threading.Thread(target=cross, daemon=True)
        thread.start()
        with suppress(psycopg.errors.DeadlockDetected):
            one.execute(f"UPDATE {queue} SET note = 'a' WHERE id = 8".encode())
        one.rollback()
        thread.join(5)


def test_deadlocks(demo: Demo, suite: Health, queue: str) -> None:
    """A deadlock in the last ten minutes warns, more than one a minute fail."""
    before = demo.log_text("postgres").count("deadlock detected")
    deadlock(demo, queue)
    demo.wait_until(lambda: demo.log_text("postgres").count("deadlock detected") > before, what="the log line")
    run = suite("checks/db", "-k", "test_sessions", target=demo.target)
    run.warns("db.deadlocks")
    assert "1 in the log of the last 10 min" in details(run, "db.deadlocks")
    run.do("db.deadlocks", "look")
    for _ in range(9):
        deadlock(demo, queue)
    demo.wait_until(lambda: demo.log_text("postgres").count("deadlock detected") >= before + 10, what="the log lines")
    suite("checks/db", "-k", "test_sessions", target=demo.target).blames("db.deadlocks")


NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("logged", "counted_since", "rate"),
    [
        pytest.param((NOW - timedelta(minutes=3),), None, 0.1, id="one in the log"),
        pytest.param((), NOW - timedelta(days=300), 0.0, id="last year's count for nothing"),
        pytest.param(None, None, None, id="no log and no begin"),
        pytest.param(None, NOW - timedelta(minutes=50), 1.0, id="no log: the average"),
        pytest.param(None, NOW - timedelta(seconds=5), 5.0, id="no log, just reset"),
    ],
)
def test_deadlock_rate(logged: tuple[datetime, ...] | None, counted_since: datetime | None, rate: float | None) -> None:
    """Recorded: which of log and statistics counts, and over which time."""
    seen = Deadlocks(50, counted_since, logged, NOW - WINDOW, NOW, "" if logged is not None else "no log")
    assert seen.rate == rate


# --- long statements -------------------------------------------------------------------------------------------------


def test_backups_may_take_their_time(demo: Demo, suite: Health) -> None:
    """A dump is told of, and is no long statement."""
    limits = "[limits.db]\nlong_running = {warn = 0.1, fail = 0.2}\n"
    with statement(demo, "SELECT pg_sleep(30)", "pg_dump") as pid:
        run = suite("checks/db", "-k", "long-running", target=demo.target + limits)
        run.is_calm()
        assert f"pid {pid}" in details(run, "db.long-running")


# --- what a role may see ---------------------------------------------------------------------------------------------


def test_hidden_sessions(demo: Demo, suite: Health) -> None:
    """A role that may not look into others' sessions still counts them, and says that it can't see what they do."""
    demo.sql("CREATE ROLE clerk LOGIN PASSWORD 'clerk-clerk'")
    target = f'{demo.target}[services.postgres]\nuser = "clerk"\npassword_env = "CLERK_PASSWORD"\n'
    try:
        with demo.connect(autocommit=False) as holder:
            holder.execute("SELECT 1")
            run = suite(
                "checks/db",
                "-k",
                "test_sessions or headroom",
                target=target,
                environment={"CLERK_PASSWORD": "clerk-clerk"},
            )
        run.is_calm()
        told = details(run, "db.connection-headroom")
        assert "sessions of other roles are hidden from role clerk" in told
        # The bed's own transaction and at least one connection of the backend's pool.
        assert run.finding("db.connection-headroom")["measurements"][0]["value"] >= 100 * 2 / 47
    finally:
        demo.sql("DROP ROLE clerk")
