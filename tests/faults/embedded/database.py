"""PostgreSQL of the embedded demo: it turns clients away, is held up, or was not looked after."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import psycopg

from tests.beds.embedded import Demo
from tests.beds.sessions import FORGET, answers, connections, data_folder, owned, refusal, statement, table, waiting
from tests.faults.embedded.authentication import NO_LOGIN
from tests.faults.embedded.consequences import BEHIND_THE_LOGIN, DATABASE_GONE, THE_API
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]

# What the API can't do while the database turns it away or holds it up.
HINDERED = (*THE_API, "service.log-errors[backend]", "service.log-errors[postgres]")

IMPATIENT = """
[limits.db]
idle_in_transaction = {warn = 0.1, fail = 0.3}
blocked = {warn = 0.1, fail = 0.3}
"""


def limits(**changed: str) -> str:
    """Lines for a target file that lower limits of the database chapter."""
    return "\n[limits.db]\n" + "".join(f"{name} = {{{value}}}\n" for name, value in changed.items())


@contextmanager
def own_role(demo: Demo, rights: str = "SUPERUSER") -> Iterator[str]:
    """A role of the application's own, so that an administrator is left whatever is done to it."""
    password = demo.environment("backend")["DATABASE_PASSWORD"]
    demo.sql(f"CREATE ROLE api {rights} LOGIN PASSWORD '{password}'")
    # What is taken from an administrator leaves nothing; others have what they were given.
    for kind in ("TABLES", "SEQUENCES") if rights == "NOSUPERUSER" else ():
        demo.sql(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO api")
    demo.set_env("backend", DATABASE_USERNAME="api")
    demo.recreate("backend")
    demo.wait_healthy("backend")
    try:
        yield "api"
    finally:
        demo.mend()
        demo.sql("DROP OWNED BY api")
        demo.sql("DROP ROLE api")


# --- it turns clients away --------------------------------------------------------------------------------------------


@fault(
    root=["db.accepts-connections"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, "service.healthcheck[postgres]"),
    shows=["no answer within 2 s"],
    mend=steps(1),
)
def postgres_frozen_behind_the_runtimes_back(demo: Demo) -> Iterator[Hand]:
    """All of PostgreSQL's processes were stopped, while its runtime believes that they run."""
    main = psutil.Process(demo.pid("postgres"))
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.suspend()

    def go_on() -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    try:
        yield go_on
    finally:
        go_on()


@fault(
    root=["db.accepts-connections"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, "service.healthcheck[postgres]"),
    shows=["the database system is shutting down"],
    mend=steps(0),
)
def shutdown_that_waits_for_the_pool(demo: Demo) -> Iterator[None]:
    """Somebody shut PostgreSQL down the polite way, and it waits for a pool that never lets go."""
    with demo.connect():
        os.kill(demo.pid("postgres"), signal.SIGTERM)
        demo.wait_until(lambda: not answers(demo), what="the shutdown to begin")
        yield


@fault(
    root=["db.accepts-connections"],
    follows=["db.login"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, "service.*[backend]", "service.healthcheck[postgres]"),
    shows=["starting up"],
    mend=Exempt("its remedy is to wait: the bed's archive never answers"),
)
def postgres_starting_up(demo: Demo) -> Iterator[None]:
    """PostgreSQL replays its log from an archive that takes its time: it is to be left alone."""
    with data_folder(demo) as folder:
        owned(folder / "recovery.signal")
        demo.set_env("postgres", EXTRA_ARGS="-c restore_command='sleep 60; false'")
        demo.recreate("postgres")
        demo.wait_until(lambda: "is starting up" in refusal(demo), what="recovery")
        try:
            yield
        finally:
            demo.unset_env("postgres", "EXTRA_ARGS")
            demo.kill("postgres")
            (folder / "recovery.signal").unlink(missing_ok=True)
            demo.start("postgres")
            demo.wait_healthy("postgres")


@fault(
    root=["service.port-conflict[*]"],
    follows=["db.port", "service.health-endpoint[direct]"],
    may=(*DATABASE_GONE, *HINDERED),
    limits="[limits.service]\nuptime = {warn = 0.01}\n",
    shows=["nobody listens on port"],
    mend=steps(0),
)
def postgres_listens_on_its_socket_alone(demo: Demo) -> Iterator[Hand]:
    """listen_addresses was emptied: PostgreSQL runs, and no TCP reaches it."""
    demo.set_env("postgres", EXTRA_ARGS="-c listen_addresses=''")
    demo.recreate("postgres")
    demo.wait_until(lambda: "ready to accept" in demo.log_text("postgres").rpartition("starting")[2], what="it")
    yield lambda: demo.unset_env("postgres", "EXTRA_ARGS")


@fault(
    root=["db.login"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=["is not permitted to log in"],
    mend=steps(0),
)
def role_locked(demo: Demo) -> Iterator[Hand]:
    """Somebody took the application's role its right to log in."""
    with own_role(demo) as role:
        demo.sql(f"ALTER ROLE {role} NOLOGIN")
        drop_sessions(demo, role)
        # In ten minutes what the log tells of it is history.
        yield demo.forget_logs


@fault(
    root=["db.login"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=['the password of role "api" has expired'],
    mend=steps(0),
)
def password_expired(demo: Demo) -> Iterator[Hand]:
    """The password of the application's role has expired; the client is only told that it is wrong."""
    with own_role(demo) as role:
        demo.sql(f"ALTER ROLE {role} VALID UNTIL 'yesterday'")
        drop_sessions(demo, role)
        # In ten minutes what the log tells of it is history.
        yield demo.forget_logs


@fault(
    root=["db.login"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, "service.healthcheck[postgres]"),
    shows=["pg_hba.conf"],
    mend=steps(0, 1),
)
def no_rule_for_the_client(demo: Demo) -> Iterator[Hand]:
    """A line of pg_hba.conf was lost: PostgreSQL knows no rule for the application's address."""
    with data_folder(demo) as folder:
        path = folder / "pg_hba.conf"
        lines = path.read_text("utf-8").splitlines()
        path.write_text("\n".join(f"# {line}" if line.startswith("host") else line for line in lines) + "\n", "utf-8")
        os.kill(demo.pid("postgres"), signal.SIGHUP)
        demo.wait_until(lambda: not answers(demo), what="the rules to be read")
        yield demo.forget_logs


@fault(
    root=["db.login"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, "service.healthcheck[postgres]"),
    shows=["pg_hba.conf rejects"],
    looks=["127.0.0.1"],
    mend=steps(0, 1),
)
def rule_that_rejects_the_client(demo: Demo) -> Iterator[Hand]:
    """Somebody shut the application out with the first line of pg_hba.conf: the line that lets it in comes too late."""
    with data_folder(demo) as folder:
        path = folder / "pg_hba.conf"
        path.write_text("host all all 127.0.0.1/32 reject\n" + path.read_text("utf-8"), "utf-8")
        os.kill(demo.pid("postgres"), signal.SIGHUP)
        demo.wait_until(lambda: not answers(demo), what="the rules to be read")
        yield demo.forget_logs


@fault(
    root=["db.login"],
    may=(*BEHIND_THE_LOGIN,),
    limits='[services.postgres]\npassword_env = "NOT_SET_ANYWHERE"\n',
    shows=["is expected in $NOT_SET_ANYWHERE, which is not set"],
    looks=["not set"],
    mend=steps(0),
)
def password_that_the_suite_was_not_told(demo: Demo) -> Iterator[Hand]:
    """The target file names a variable for the password that nobody set: the database is well, and not looked at."""

    def tell() -> None:
        # What the remedy exports counts in the shell that it is pasted into.
        os.environ["NOT_SET_ANYWHERE"] = demo.environment("backend")["DATABASE_PASSWORD"]

    try:
        yield tell
    finally:
        os.environ.pop("NOT_SET_ANYWHERE", None)


@fault(
    root=["db.login"],
    follows=["service.restart-loop[backend]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, "*[backend]", "network.*", "deploy.*"),
    shows=["server does not support SSL"],
    mend=steps(1),
)
def application_wants_tls_that_the_server_has_not(demo: Demo) -> Iterator[Hand]:
    """DATABASE_SSL was switched on for the API before the server had a certificate."""
    demo.set_env("backend", DATABASE_SSL="true", DATABASE_RETRY_ATTEMPTS="1")
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 2, what="the backend to loop")
    yield lambda: demo.set_env("backend", DATABASE_SSL="false")


@fault(
    root=["db.query"],
    follows=["auth.login"],
    may=("auth.*", "logs.sql-errors", "service.log-errors[*]", "deploy.migrations"),
    shows=["role api finds none of the ", 'tables: its search_path is ""'],
    looks=["search_path=", "public"],
    mend=steps(0, 1),
)
def search_path_emptied(demo: Demo) -> Iterator[Hand]:
    """Somebody emptied the role's search_path, and each query says that its table does not exist."""
    with own_role(demo) as role:
        demo.sql(f"ALTER ROLE {role} SET search_path = ''")
        drop_sessions(demo, role)
        yield demo.forget_logs


@fault(
    root=["db.query"],
    follows=["auth.login"],
    may=("auth.*", "db.*", "logs.sql-errors", "service.log-errors[*]", "deploy.migrations"),
    shows=["role api acts as reader, which may read no table"],
    looks=["role=reader"],
    mend=steps(0, 1),
)
def role_that_acts_as_another(demo: Demo) -> Iterator[Hand]:
    """Somebody had the application's sessions begin in another role's place, which may read nothing."""
    demo.sql("CREATE ROLE reader")
    try:
        with own_role(demo) as role:
            demo.sql(f"ALTER ROLE {role} SET role = 'reader'")
            drop_sessions(demo, role)
            yield demo.forget_logs
    finally:
        demo.sql("DROP ROLE reader")


def drop_sessions(demo: Demo, role: str) -> None:
    """End a role's sessions, so that its clients have to log in anew."""
    demo.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", role)


@fault(
    root=["auth.account"],
    follows=["auth.login"],
    may=NO_LOGIN,
    shows=["row-level security hides all rows of users from role api"],
    looks=["users"],
    mend=steps(0),
)
def users_hidden_by_row_level_security(demo: Demo) -> Iterator[Hand]:
    """Row-level security was switched on for the users, and the policy forgotten: the application finds nobody."""
    with own_role(demo, "NOSUPERUSER"):
        demo.sql("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
        try:
            yield demo.forget_logs
        finally:
            demo.sql("ALTER TABLE users DISABLE ROW LEVEL SECURITY")


# --- sessions ---------------------------------------------------------------------------------------------------------


@fault(
    warns=["db.idle-connections"],
    limits=limits(idle_age="warn = 0.2"),
    shows=["forgotten"],
    mend=steps(0),
)
def connections_left_behind(demo: Demo) -> Iterator[None]:
    """A tool opened connections, and never closed them."""
    with ExitStack() as held:
        for _ in range(14):
            held.enter_context(demo.connect(application_name="forgotten"))
        yield


@fault(
    root=["db.idle-in-transaction"],
    limits=limits(idle_in_transaction="warn = 0.1, fail = 0.3"),
    shows=['application "holder"'],
    mend=steps(0),
)
def transaction_left_open(demo: Demo) -> Iterator[None]:
    """Somebody left a transaction open and went home."""
    with demo.connect(autocommit=False, application_name="holder") as holder:
        holder.execute("SELECT 1")
        yield
        holder.close()


@fault(
    root=["db.long-running"],
    limits=limits(long_running="warn = 0.1, fail = 0.2"),
    shows=['application "report"', "SELECT pg_sleep(?), ?"],
    mend=steps(0),
)
def report_that_never_ends(demo: Demo) -> Iterator[None]:
    """A report runs for minutes."""
    with statement(demo, "SELECT pg_sleep(50), 'Erika Mustermann'", "report"):
        yield


@fault(
    root=["db.long-running"],
    follows=["db.blocked-sessions"],
    limits=IMPATIENT,
    shows=["blocks 2 sessions"],
    mend=steps(0),
)
def pile_up_behind_a_long_statement(demo: Demo) -> Iterator[None]:
    """A migration waits for one long statement, and everybody else behind the migration."""
    with (
        table(demo, "AS SELECT n AS id, '' AS note FROM generate_series(1, 9) AS n"),
        statement(demo, "UPDATE visits SET note = pg_sleep(50)::text WHERE id = 3", "holder"),
    ):
        held = "SELECT 1 FROM pg_locks WHERE relation = 'visits'::regclass AND mode = 'RowExclusiveLock' AND granted"
        demo.wait_until(lambda: demo.sql(held), what="the statement to run")
        with waiting(demo, "ALTER TABLE visits ADD COLUMN more int", "SELECT * FROM visits"):
            yield


@fault(
    root=["db.blocked-sessions"],
    limits=IMPATIENT,
    shows=["blocks 1 session"],
    mend=steps(1),
)
def busy_transaction_that_holds_a_lock(demo: Demo) -> Iterator[None]:
    """One transaction holds a lock while it does a thousand quick things: none of them is long, and it never idles."""
    done = threading.Event()

    def work(holder: psycopg.Connection[object]) -> None:
        with suppress(psycopg.Error):
            while not done.is_set():
                holder.execute("SELECT pg_sleep(0.02)")

    with (
        table(demo, "AS SELECT n AS id, '' AS note FROM generate_series(1, 9) AS n"),
        demo.connect(autocommit=False, application_name="holder") as holder,
    ):
        holder.execute("DELETE FROM visits WHERE id = 5")
        thread = threading.Thread(target=work, args=(holder,), daemon=True)
        thread.start()
        with waiting(demo, "DELETE FROM visits WHERE id = 5 AND id > 0"):
            began = time.monotonic()
            demo.wait_until(lambda: time.monotonic() > began + 0.4, what="a wait that is long enough")
            try:
                yield
            finally:
                done.set()
                thread.join(5)
                holder.close()


@fault(
    root=["db.deadlocks"],
    may=("service.log-errors[postgres]",),
    shows=["in the log of the last 10 min"],
    looks=["deadlock detected"],
    mend=Exempt("the application is to be mended"),
)
def transactions_that_deadlock(demo: Demo) -> Iterator[None]:
    """Two parts of the application touch the same rows in another order each."""
    with table(demo, "AS SELECT n AS id, '' AS note FROM generate_series(1, 9) AS n"):
        for _ in range(11):
            deadlock(demo)
        demo.wait_until(lambda: demo.log_text("postgres").count("deadlock detected") >= 11, what="the log lines")
        yield
        demo.forget_logs()


def deadlock(demo: Demo) -> None:
    """Let two transactions run into each other; the server ends one of them."""
    with demo.connect(autocommit=False) as one, demo.connect(autocommit=False) as other:
        for connection in (one, other):
            connection.execute("SET deadlock_timeout = '1ms'")
        one.execute("UPDATE visits SET note = 'a' WHERE id = 7")
        other.execute("UPDATE visits SET note = 'b' WHERE id = 8")

        def cross() -> None:
            with suppress(psycopg.errors.DeadlockDetected):
                other.execute("UPDATE visits SET note = 'b' WHERE id = 7")
            other.rollback()

        thread = threading.Thread(target=cross, daemon=True)
        thread.start()
        with suppress(psycopg.errors.DeadlockDetected):
            one.execute("UPDATE visits SET note = 'a' WHERE id = 8")
        one.rollback()
        thread.join(5)


# --- slow -------------------------------------------------------------------------------------------------------------


@fault(
    root=["db.slow-statements"],
    limits=limits(statement_mean="warn = 0.05, fail = 0.1"),
    shows=["the slowest statement takes on average"],
    mend=steps(1),
)
def slow_statement_of_the_application(demo: Demo) -> Iterator[None]:
    """A statement that the application runs all the time takes long."""
    with table(demo, "AS SELECT n AS id FROM generate_series(1, 9) AS n"):
        demo.sql(FORGET)
        with demo.connect() as session:
            for _ in range(3):
                session.execute("SELECT pg_sleep(0.15) FROM visits WHERE id = 3")
        yield
        demo.sql(FORGET)


@fault(
    root=["db.cpu"],
    may=("host.cpu[postgres]", "host.load"),
    limits=limits(cpu_used="warn = 10, fail = 15"),
    shows=["busy-query"],
    mend=steps(0),
)
def query_that_uses_up_the_processor(demo: Demo) -> Iterator[None]:
    """A query that never ends keeps a core busy."""
    busy = "SELECT count(*) FROM generate_series(1, 1e12) AS i WHERE i::text = 'Erika'"
    with statement(demo, busy, "busy-query") as pid:
        # On a machine that is busy with other things, too, it still is to get its core.
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, pid, -15)
        yield


@fault(
    root=["db.missing-index[visits]"],
    limits="[limits.db]\nscanned_table = {warn = 1000000, fail = 2000000}\n",
    shows=["visits_patientId_fkey"],
    mend=steps(0, 1),
)
def index_dropped_from_a_big_table(demo: Demo) -> Iterator[None]:
    """An index was dropped, and every look at the table reads all of it."""
    fill = """
        INSERT INTO visits SELECT i, p.id, repeat('x', 80)
          FROM generate_series(1, 30000) AS i
          JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM patients) AS p ON p.n = i % 200 + 1
    """
    columns = '(id int PRIMARY KEY, "patientId" uuid REFERENCES patients (id), note text)'
    with table(demo, columns, fill, "ANALYZE visits"):
        with demo.connect() as session:
            for _ in range(60):
                session.execute('SELECT count(*) FROM visits WHERE "patientId" = (SELECT id FROM patients LIMIT 1)')
        yield


@fault(
    root=["db.cache-hit"],
    limits=limits(cache_traffic="warn = 5000"),
    mend=steps(1),
)
def cache_too_small_for_what_is_read(demo: Demo) -> Iterator[Hand]:
    """A table bigger than the buffer cache is read again and again."""
    fill = "INSERT INTO visits SELECT i, repeat('x', 900) FROM generate_series(1, 50000) AS i"
    with table(demo, "(id int, note text)", fill, "ANALYZE visits"):
        demo.sql("SELECT pg_stat_reset()")
        with demo.connect() as session:
            for _ in range(3):
                session.execute("SELECT count(*) FROM visits")
        demo.sql("ANALYZE")
        yield lambda: demo.sql("DROP TABLE visits")


@fault(warns=["db.invalid-index"], shows=["visits Unique of visits is invalid"], mend=steps(0))
def index_whose_build_failed(demo: Demo) -> Iterator[None]:
    """A unique index could not be built for duplicates, and was left invalid."""
    with table(demo, "AS SELECT i % 10 AS id FROM generate_series(1, 100) AS i"):
        with suppress(psycopg.errors.UniqueViolation):
            demo.sql('CREATE UNIQUE INDEX CONCURRENTLY "visits Unique" ON visits (id)')
        demo.forget_logs()
        yield


@fault(warns=["db.statement-statistics"], shows=["not created in this database"], mend=steps(0))
def statement_counters_dropped(demo: Demo) -> Iterator[None]:
    """Nobody counts statements any more: the extension is gone from the database."""
    demo.sql("DROP EXTENSION pg_stat_statements")
    try:
        yield
    finally:
        demo.sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")


@fault(warns=["db.slow-query-log"], mend=steps(0, 1))
def slow_statements_not_logged(demo: Demo) -> Iterator[None]:
    """Logging of slow statements was switched off."""
    demo.sql("ALTER SYSTEM SET log_min_duration_statement = -1")
    demo.sql("SELECT pg_reload_conf()")
    demo.wait_until(lambda: demo.sql("SHOW log_min_duration_statement") == [("-1",)], what="the setting")
    try:
        yield
    finally:
        for name in ("log_min_duration_statement", "log_parameter_max_length"):
            demo.sql(f"ALTER SYSTEM RESET {name}")
        demo.sql("SELECT pg_reload_conf()")


# --- not looked after -------------------------------------------------------------------------------------------------

NEGLECTED = "(id int, state int) WITH (autovacuum_enabled = off)"


def rows(count: int) -> str:
    """The statement that fills the table."""
    return f"INSERT INTO visits SELECT i, 0 FROM generate_series(1, {count}) AS i"


@fault(
    root=["db.statistics-fresh[visits]"],
    shows=["never analysed, 12 000 rows", "autovacuum is off for this table"],
    mend=steps(0, 1),
)
def big_table_never_analysed(demo: Demo) -> Iterator[None]:
    """A table was loaded with autovacuum off: the planner knows nothing of it."""
    with table(demo, NEGLECTED, rows(12_000)):
        yield


@fault(
    root=["db.dead-rows[visits]"],
    shows=["6 000 of 9 000 rows are dead = 67 %"],
    mend=steps(0, 1),
)
def dead_rows_pile_up(demo: Demo) -> Iterator[None]:
    """Everything was updated twice with autovacuum off: two thirds of the table are dead."""
    update = "UPDATE visits SET state = state + 1"
    with table(demo, NEGLECTED, rows(3000), update, update, "ANALYZE visits"):
        yield


@fault(warns=["db.sizes"], limits=limits(size="warn = 16000000"), mend=Exempt("the growth is wanted here"))
def database_grew_past_its_plan(demo: Demo) -> Iterator[None]:
    """The database is bigger than anybody planned for."""
    fill = "INSERT INTO visits SELECT i, repeat('x', 400) FROM generate_series(1, 20000) AS i"
    with table(demo, "(id int, note text)", fill, "ANALYZE visits"):
        yield


@fault(
    warns=["db.wraparound"],
    limits=limits(wraparound="warn = 0.000000001"),
    mend=Exempt("two billion transactions can't be made here: a limit of a few stands in for them"),
)
def transaction_ids_run_out(demo: Demo) -> Iterator[None]:
    """Many transaction ids are in use since the oldest was frozen."""
    del demo
    yield


@fault(
    root=["db.log-errors"],
    may=("service.log-errors[*]",),
    shows=["terminated by signal 9"],
    looks=["terminated by signal 9"],
    mend=steps(0),
)
def server_process_killed(demo: Demo) -> Iterator[Hand]:
    """One of PostgreSQL's processes was killed, and all sessions went with it."""
    with demo.connect() as session:
        os.kill(session.info.backend_pid, signal.SIGKILL)
        demo.wait_until(lambda: "terminated by signal 9" in demo.log_text("postgres"), what="PostgreSQL to notice")
    demo.wait_healthy()
    # In ten minutes it is history.
    yield demo.forget_logs


@fault(
    warns=["db.log-errors"], shows=["does not exist"], looks=["visitz"], mend=Exempt("the statement is to be mended")
)
def statements_that_are_refused(demo: Demo) -> Iterator[None]:
    """A new version asks for a table that the database does not have."""
    with suppress(psycopg.errors.UndefinedTable):
        demo.sql("SELECT * FROM visitz WHERE name = 'Erika Mustermann'")
    demo.wait_until(lambda: "visitz" in demo.log_text("postgres"), what="the log line")
    yield


@fault(root=["db.backup-age"], shows=["age of the newest dump 3 d"], mend=steps(0))
def no_backup_for_three_days(demo: Demo) -> Iterator[None]:
    """The nightly backup has not run for three days, and nobody noticed."""
    with no_recent_backup(demo):
        yield


@contextmanager
def no_recent_backup(demo: Demo) -> Iterator[None]:
    """The dumps that there are, three days old; those that are made meanwhile are taken away again."""
    kept = {path: path.stat().st_mtime for path in demo.folder.backups.iterdir()}
    for path in kept:
        os.utime(path, (time.time() - 72 * 3600,) * 2)
    try:
        yield
    finally:
        for path in demo.folder.backups.iterdir():
            if path in kept:
                os.utime(path, (kept[path],) * 2)
            else:
                path.unlink()


@fault(
    root=["db.replication"],
    limits=limits(retained_wal="fail = 1000000"),
    shows=["slot left_behind is not read and keeps"],
    mend=steps(0, 1),
)
def replication_slot_left_behind(demo: Demo) -> Iterator[None]:
    """A replica was taken away and its slot was not: it keeps WAL until the disk is full."""
    demo.sql("SELECT pg_create_physical_replication_slot('left_behind', true)")
    try:
        with table(demo, "AS SELECT repeat('x', 400) AS note FROM generate_series(1, 5000)"):
            yield
    finally:
        demo.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


@fault(
    root=["db.synchronous-commit"],
    follows=["auth.login"],
    may=(*THE_API, "db.long-running", "db.blocked-sessions", "auth.*"),
    limits=limits(long_running="warn = 0.1, fail = 0.2"),
    shows=["commits wait for a standby that is not there: standby1", "waits for an answer to a commit"],
    looks=["standby1", "SyncRep"],
    mend=steps(1),
)
def commits_wait_for_a_standby_that_is_gone(demo: Demo) -> Iterator[None]:
    """A standby was to have every commit, and was taken away: whatever writes waits without an end."""
    with table(demo, "(id int)"):
        demo.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby1'")
        demo.sql("SELECT pg_reload_conf()")
        demo.wait_until(lambda: demo.sql("SHOW synchronous_standby_names") == [("standby1",)], what="the setting")
        try:
            with statement(demo, "INSERT INTO visits VALUES (1)", "writer"):
                waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                demo.wait_until(lambda: demo.sql(waits), what="the commit to wait")
                yield
        finally:
            demo.sql("ALTER SYSTEM RESET synchronous_standby_names")
            demo.sql("SELECT pg_reload_conf()")
            demo.wait_until(lambda: demo.sql("SHOW synchronous_standby_names") == [("",)], what="the setting")


@fault(
    root=["db.sequences[visits_id_seq]"],
    shows=["2 100 000 000 of 2 147 483 647 numbers are given out", "the column's type ends at 2147483647"],
    looks=["visits_id_seq", "integer"],
    mend=steps(1),
)
def numbers_of_a_table_run_out(demo: Demo) -> Iterator[None]:
    """A table counts its rows in an integer, and most of the integers are given out; the sequence has far more."""
    with table(demo, "(id serial PRIMARY KEY)"):
        demo.sql("ALTER SEQUENCE visits_id_seq AS bigint")
        demo.sql("SELECT setval('visits_id_seq', 2100000000)")
        yield


@fault(
    warns=["db.settings"],
    shows=["fsync is off: a crash of the machine may ruin all data", "full_page_writes is off"],
    looks=["full_page_writes"],
    mend=steps(0, 3),
)
def durability_given_away(demo: Demo) -> Iterator[None]:
    """Somebody made a big import quick, and left the server so: a power cut ruins it."""
    with switched_off(demo, "fsync", "full_page_writes"):
        yield


@fault(
    warns=["db.settings"],
    shows=["autovacuum is off", "track_counts is off", "track_activities is off"],
    mend=steps(0),
)
def nobody_cleans_up_or_counts(demo: Demo) -> Iterator[None]:
    """Autovacuum, the counters that it goes by and the view of sessions were switched off for a benchmark."""
    with switched_off(demo, "autovacuum", "track_counts", "track_activities"):
        yield


@contextmanager
def switched_off(demo: Demo, *names: str) -> Iterator[None]:
    """Settings of the whole server that are off meanwhile."""
    for name in names:
        demo.sql(f"ALTER SYSTEM SET {name} = off")
    demo.sql("SELECT pg_reload_conf()")
    count = "SELECT count(*) FROM pg_settings WHERE name = ANY (%s) AND setting = 'off'"
    demo.wait_until(lambda: demo.sql(count, list(names)) == [(len(names),)], what="the settings to be read")
    try:
        yield
    finally:
        for name in names:
            demo.sql(f"ALTER SYSTEM RESET {name}")
        demo.sql("SELECT pg_reload_conf()")


@fault(
    warns=["db.settings[visits]"],
    shows=["UNLOGGED: a crash of the server empties it"],
    looks=["visits"],
    mend=steps(0),
)
def table_that_a_crash_empties(demo: Demo) -> Iterator[None]:
    """A table of the application was made UNLOGGED, to load it quickly."""
    with table(demo, "(id int)"):
        demo.sql("ALTER TABLE visits SET UNLOGGED")
        yield


# --- settings ---------------------------------------------------------------------------------------------------------


@fault(
    warns=["db.parameters-match"],
    shows=["PostgreSQL would not start again: shared_buffers 900GB, of "],
    looks=["900GB"],
    mend=steps(0),
)
def setting_that_the_next_start_does_not_survive(demo: Demo) -> Iterator[None]:
    """Somebody set more memory than the machine has; nothing happens before the next restart."""
    demo.sql("ALTER SYSTEM SET shared_buffers = '900GB'")
    demo.sql("SELECT pg_reload_conf()")
    pending = "SELECT 1 FROM pg_settings WHERE pending_restart"
    demo.wait_until(lambda: demo.sql(pending), what="the setting to be read")
    try:
        yield
    finally:
        demo.sql("ALTER SYSTEM RESET shared_buffers")
        demo.sql("SELECT pg_reload_conf()")
        if demo.sql(pending):
            demo.restart("postgres")
            demo.wait_healthy()


@fault(
    root=["db.parameters-match"],
    follows=["db.reachable-from-backend", "service.restart-loop[backend]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, "*[backend]", "network.*", "deploy.*"),
    shows=["DATABASE_PORT is 1, expected"],
    mend=steps(0),
)
def wrong_port_of_the_database(demo: Demo) -> Iterator[Hand]:
    """DATABASE_PORT leads to a port at which nobody listens."""
    right = demo.environment("backend")["DATABASE_PORT"]
    demo.set_env("backend", DATABASE_PORT="1", DATABASE_RETRY_ATTEMPTS="1")
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 2, what="the backend to loop")
    yield lambda: demo.set_env("backend", DATABASE_PORT=right)


@fault(
    root=["db.connection-headroom"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=["no connection slot left for role api", 'too many connections for role "api"'],
    looks=["|            3 |           3"],
    mend=steps(0),
)
def role_with_a_limit_of_its_own(demo: Demo) -> Iterator[Hand]:
    """Somebody gave the role a limit of its own, which a tool of the same role has used up; the server has room."""
    with own_role(demo) as role:
        demo.sql(f"ALTER ROLE {role} NOSUPERUSER CONNECTION LIMIT 3")
        demo.sql(f"GRANT allodoc_prod, pg_monitor TO {role}")
        drop_sessions(demo, role)
        with connections(demo, 3, role, demo.environment("backend")["DATABASE_PASSWORD"]):
            yield demo.forget_logs


@fault(
    root=["db.connection-headroom"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=["no connection slot left for role allodoc_prod"],
    mend=steps(0),
)
def not_even_a_reserved_connection_is_left(demo: Demo) -> Iterator[Hand]:
    """A superuser's tool holds every connection, the reserved ones, too."""
    given = demo.environment("postgres")
    with connections(demo, 60, given["POSTGRES_USER"], given["POSTGRES_PASSWORD"]) as held:

        def stop_one() -> None:
            held[0].close()
            demo.wait_until(lambda: answers(demo), what="a slot to be free")
            demo.forget_logs()

        yield stop_one
