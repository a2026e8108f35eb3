"""A database that nobody looks after: each neglect made in a real PostgreSQL, found, mended, gone."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from allodoc_health.finding import Escalation, Outcome
from allodoc_health.limits import Limits
from allodoc_health.runtimes.process_supervisor import SupervisorRuntime
from checks.db.test_maintenance import test_commits_are_answered as commits_are_answered
from checks.db.test_maintenance import test_dead_rows_are_cleaned_up as dead_rows_are_cleaned_up
from checks.db.test_maintenance import test_its_log_has_no_errors as its_log_has_no_errors
from checks.db.test_maintenance import test_no_safeguard_is_switched_off as no_safeguard_is_switched_off
from checks.db.test_maintenance import test_replicas_keep_up as replicas_keep_up
from checks.db.test_maintenance import test_sequences_are_far_from_their_end as sequences_last
from checks.db.test_maintenance import test_the_planner_knows_the_tables as the_planner_knows_the_tables
from checks.db.test_maintenance import test_transaction_ids_are_far_from_their_end as transaction_ids_last
from demo.binaries import find_binaries
from fixtures.backups import FolderInside, sniff
from fixtures.logs import LogGroup, LogSummary
from fixtures.postgres_maintenance import Holder, OldestIds, Replica, Replication, Slot
from fixtures.postgres_sequences import Numbers, Sequences
from fixtures.postgres_settings import Safeguards, Unlogged
from fixtures.postgres_tables import Table, Tables
from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.recorded import escalation_of, finding_on
from tests.beds.sessions import table
from tests.beds.suite import Health

# The machine that tests run on may be busy; it is no part of the bed.
CHAPTERS = ("checks/service", "checks/db", "-k", "not host")
MAINTENANCE = "checks/db/test_maintenance.py"
PERFORMANCE = "checks/db/test_performance.py"
NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)


def limits(**changed: str) -> str:
    """Lines for a target file that lower limits of the database chapter."""
    return "\n[limits.db]\n" + "".join(f"{name} = {{{value}}}\n" for name, value in changed.items())


# --- settings and sequences -------------------------------------------------------------------------------------------


def test_a_safeguard_that_is_off_costs_something() -> None:
    """Recorded: the gravest is said first, with what it costs; nothing is said where all is on."""
    off = Safeguards((("fsync", "configuration file"), ("autovacuum", "command line")))
    found = finding_on(no_safeguard_is_switched_off, safeguards=off)
    assert (found.outcome, found.message) == (Outcome.WARN, "fsync is off: a crash of the machine may ruin all data")
    assert "autovacuum comes from: command line" in found.details
    assert found.facts["settings"] == "fsync autovacuum"
    assert finding_on(no_safeguard_is_switched_off, safeguards=Safeguards(())).outcome is Outcome.PASS


def test_a_table_without_a_log_is_named() -> None:
    """Recorded: each has a finding of its own, whose remedy knows the table."""
    found = finding_on(no_safeguard_is_switched_off, safeguards=Safeguards((), (Unlogged("visits", "public.visits"),)))
    assert (found.name, found.variant, found.facts["table"]) == ("db.settings[visits]", "unlogged", "public.visits")


@pytest.mark.parametrize(
    ("used", "outcome"),
    [(79.0, Outcome.PASS), (80.0, Outcome.WARN), (95.0, Outcome.FAIL), (100.0, Outcome.FAIL)],
)
def test_a_sequence_close_to_its_end(used: float, outcome: Outcome) -> None:
    """Recorded: it warns while there is time for bigint, and fails before the last number is given out."""
    numbers = Numbers("visits_id_seq", "public.visits_id_seq", used, 100.0, 100, "public.visits", "id")
    found = finding_on(sequences_last, sequences=Sequences(1, 0, (numbers,)), limits=Limits())
    assert found.outcome is outcome
    assert found.escalation is (Escalation.EMERGENCY_MEETING if used == 100 else Escalation.NONE)


def test_sequences_that_the_role_may_not_read() -> None:
    """Recorded: what is not seen is said, and nothing is claimed where nothing is seen."""
    found = finding_on(sequences_last, sequences=Sequences(3, 1, ()), limits=Limits())
    assert (found.outcome, found.details) == (Outcome.PASS, ("this role may not read 1 more: grant it SELECT on them",))
    unseen = finding_on(sequences_last, sequences=Sequences(3, 3, ()), limits=Limits())
    assert unseen.outcome is Outcome.NOT_APPLICABLE


# --- what autovacuum would do -----------------------------------------------------------------------------------------

NEGLECTED = "(id int, state int) WITH (autovacuum_enabled = off)"


def rows(count: int) -> str:
    """The statement that fills the table."""
    return f"INSERT INTO visits SELECT i, 0 FROM generate_series(1, {count}) AS i"


def test_much_changed_since_a_table_was_analysed(demo: Demo, suite: Health) -> None:
    """Changes to a third of the rows warn with that share."""
    with table(demo, NEGLECTED, rows(3000), "ANALYZE visits", "DELETE FROM visits WHERE id % 4 = 0"):
        demo.sql("VACUUM visits")
        run = suite(MAINTENANCE, target=demo.target)
        run.warns("db.statistics-fresh[visits]")
        assert round(run.finding("db.statistics-fresh[visits]")["measurements"][0]["value"]) == 33


def test_small_tables_do_not_matter(demo: Demo, suite: Health) -> None:
    """Under a thousand rows nothing is called stale or bloated."""
    with table(demo, NEGLECTED, rows(400), "UPDATE visits SET state = 1"):
        run = suite(MAINTENANCE, target=demo.target)
        assert run.outcome("db.statistics-fresh") == "pass"
        assert run.outcome("db.dead-rows") == "pass"


def test_dead_rows_that_a_forgotten_transaction_keeps_follow_from_it(demo: Demo, suite: Health) -> None:
    """VACUUM may not remove what an open transaction could still see: that transaction is the root cause."""
    target = demo.target + limits(idle_in_transaction="warn = 0.1, fail = 0.2")
    update = "UPDATE visits SET state = state + 1"
    with table(demo, NEGLECTED, rows(3000)), demo.connect(autocommit=False) as forgotten:
        forgotten.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        forgotten.execute("SELECT 1 FROM patients LIMIT 1")
        for statement in (update, update, "VACUUM (ANALYZE) visits"):
            demo.sql(statement)
        run = suite("checks/db", target=target)
        run.blames("db.idle-in-transaction")
        assert "db.dead-rows[visits]" in run.snapshot["verdict"]["consequences"]
        forgotten.rollback()


def _tables(*, autovacuum: bool = True, standby: bool = False, **own: object) -> Tables:
    plain: dict[str, object] = dict.fromkeys(
        ("dead", "changed", "table_bytes", "index_bytes", "scans", "rows_scanned", "index_scans", "rows_by_index"), 0
    )
    plain |= {"analyzed": True, "last_analyze": NOW, "last_vacuum": NOW, "autovacuum": True, "being_cleaned": False}
    one = Table(name="visits", sql="public.visits", rows=20_000, **(plain | own))  # type: ignore[arg-type]
    return Tables("allodoc_prod", 10**9, standby, autovacuum, 8, 0, (one,))


def test_autovacuum_is_given_the_time_to_come() -> None:
    """Recorded: a table never analysed warns where autovacuum is on, and fails where it never comes."""
    judged = {
        autovacuum: finding_on(
            the_planner_knows_the_tables,
            tables=_tables(autovacuum=autovacuum, analyzed=False),
            now=NOW,
            limits=Limits(),
        )
        for autovacuum in (True, False)
    }
    assert judged[True].outcome is Outcome.WARN
    assert judged[False].outcome is Outcome.FAIL
    assert "autovacuum is off for the whole server" in judged[False].details


def test_a_table_that_is_being_vacuumed_does_not_fail() -> None:
    """Recorded: what is under way is said, but needs nobody."""
    tables = _tables(dead=60_000, being_cleaned=True)
    assert finding_on(dead_rows_are_cleaned_up, tables=tables, now=NOW, limits=Limits()).outcome is Outcome.WARN


def test_a_standby_can_not_tell() -> None:
    """Recorded: a standby's own counters say nothing of its tables' upkeep."""
    tables = _tables(standby=True, analyzed=False)
    for check in (the_planner_knows_the_tables, dead_rows_are_cleaned_up):
        assert finding_on(check, tables=tables, now=NOW, limits=Limits()).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("tried", ["granted", "waited for"])
def test_a_table_that_somebody_holds_exclusively_is_not_waited_for(demo: Demo, suite: Health, tried: str) -> None:
    """Its size is asked of the catalogue, while a migration has the table for itself or queues for it."""
    with demo.connect(autocommit=False) as reader, demo.connect(autocommit=False) as migration:
        if tried == "waited for":
            reader.execute("SELECT 1 FROM patients LIMIT 1")
            migration.pgconn.send_query(b"BEGIN; LOCK TABLE patients; ROLLBACK")
            waiting = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"
            demo.wait_until(lambda: demo.sql(waiting))
        else:
            migration.execute("LOCK TABLE patients")
        run = suite(MAINTENANCE, PERFORMANCE, target=demo.target)
        run.is_calm()
        assert any(line.startswith("patients has ") for line in run.finding("db.sizes")["details"])
        reader.rollback()
        migration.close()


# --- wraparound -------------------------------------------------------------------------------------------------------


def _ids(age: int, multixact: int = 0) -> OldestIds:
    holder = Holder("replication slot forgotten", age)
    return OldestIds("archive", age, "allodoc_prod", multixact, 200_000_000, 400_000_000, (holder,))


@pytest.mark.parametrize(
    ("age", "multixact", "outcome"),
    [
        pytest.param(210_000_000, 0, Outcome.PASS, id="autovacuum freezes by force, as it should"),
        pytest.param(1_200_000_000, 0, Outcome.WARN, id="half"),
        pytest.param(1_800_000_000, 0, Outcome.FAIL, id="near the end"),
        pytest.param(50_000_000, 1_800_000_000, Outcome.FAIL, id="multixacts near the end"),
    ],
)
def test_transaction_ids_run_out(age: int, multixact: int, outcome: Outcome) -> None:
    """Recorded: a share of the two billion ids that there are, of transactions and of multixacts."""
    finding = finding_on(transaction_ids_last, oldest_ids=_ids(age, multixact), limits=Limits())
    assert finding.outcome is outcome
    assert any("replication slot forgotten" in line for line in finding.details)
    assert finding.facts["database"] == ("archive" if age > multixact else "allodoc_prod")


def test_running_out_of_ids_needs_a_meeting() -> None:
    """The guide wants an expert for it."""
    assert escalation_of(transaction_ids_last) is Escalation.EMERGENCY_MEETING


def test_the_ages_of_a_real_server_are_read(demo: Demo, suite: Health) -> None:
    """On a young server the ids in use are few, and the look of the remedy works."""
    run = suite(MAINTENANCE, target=demo.target + limits(wraparound="warn = 0.000000001"))
    run.warns("db.wraparound")
    run.do("db.wraparound", "look")
    run.do("db.wraparound")


# --- size -------------------------------------------------------------------------------------------------------------


def test_the_database_grew(demo: Demo, suite: Health) -> None:
    """Past the limit it warns with its biggest tables; without the rows it passes."""
    ((size,),) = demo.sql("SELECT pg_database_size(current_database())")
    target = demo.target + limits(size=f"warn = {size + 2_000_000}")
    fill = "INSERT INTO visits SELECT i, repeat('x', 400) FROM generate_series(1, 10000) AS i"
    with table(demo, "(id int, note text)", fill):
        run = suite(*CHAPTERS, target=target)
        run.warns("db.sizes")
        assert any(line.startswith("visits has 4.") for line in run.finding("db.sizes")["details"])
        run.do("db.sizes", "look")
    assert suite(MAINTENANCE, target=target).outcome("db.sizes") == "pass"


# --- its log ----------------------------------------------------------------------------------------------------------


def test_bad_sql_is_in_the_log(demo: Demo, suite: Health) -> None:
    """A refused statement warns with the message and without the value in it."""
    with pytest.raises(psycopg.errors.UndefinedTable):
        demo.sql("SELECT * FROM visitz WHERE name = 'Erika Mustermann'")
    demo.wait_until(lambda: "visitz" in demo.log_text("postgres"))
    run = suite(*CHAPTERS, target=demo.target)
    run.warns("db.log-errors")
    assert "Mustermann" not in run.output
    assert any("does not exist" in line for line in run.finding("db.log-errors")["details"])
    assert any("visitz" in line for line in run.do("db.log-errors", "look"))
    run.do("db.log-errors")


def test_a_session_that_somebody_ended_is_no_error(demo: Demo, suite: Health) -> None:
    """PostgreSQL says FATAL, but somebody wanted it: a remedy that ends sessions turns nothing red."""
    with demo.connect() as session:
        demo.sql(f"SELECT pg_terminate_backend({session.info.backend_pid})")
        demo.wait_until(lambda: "administrator command" in demo.log_text("postgres"))
    assert suite(MAINTENANCE, target=demo.target).outcome("db.log-errors") == "pass"


def test_a_page_is_damaged(demo: Demo, suite: Health) -> None:
    """A block of zeros and garbage in a table's file is found in the log; it is the manager's at once."""
    with table(demo, "AS SELECT i AS id, repeat('x', 200) AS note FROM generate_series(1, 500) AS i"):
        ((path,),) = demo.sql("SELECT current_setting('data_directory') || '/' || pg_relation_filepath('visits')")
        demo.sql("CHECKPOINT")
        demo.stop("postgres")
        with Path(path).open("r+b") as file:
            file.write(b"\x5a" * 512)
        demo.start("postgres")
        demo.wait_healthy("postgres")
        with pytest.raises(psycopg.errors.DataCorrupted):
            demo.sql("SELECT count(*) FROM visits")
        demo.wait_until(lambda: "invalid page" in demo.log_text("postgres"))
        demo.wait_healthy()
        run = suite(*CHAPTERS, target=demo.target)
        run.blames("db.log-errors")
        assert run.snapshot["verdict"]["escalation"] == "now: call the manager", run.output
        assert "damaged" in run.snapshot["remedies"]["db.log-errors"]["title"]
        run.do("db.log-errors", "look")


@pytest.mark.parametrize(
    ("group", "outcome", "escalation"),
    [
        pytest.param({"level": "panic", "damage": True}, Outcome.FAIL, Escalation.NOW, id="PANIC"),
        pytest.param({"level": "fatal"}, Outcome.FAIL, Escalation.NONE, id="FATAL"),
        pytest.param({"level": "fatal", "current": 0}, Outcome.WARN, Escalation.NONE, id="FATAL, but over"),
        pytest.param({"level": "error"}, Outcome.WARN, Escalation.NONE, id="ERROR"),
    ],
)
def test_how_grave_a_message_is(group: dict[str, object], outcome: Outcome, escalation: Escalation) -> None:
    """Recorded: PANIC is for the manager, what is over only warns."""
    made = LogGroup(**{"message": "…", "count": 1, "current": 1, "first": NOW, "last": NOW, **group})  # type: ignore[arg-type]
    finding = finding_on(its_log_has_no_errors, database_log=LogSummary(9, 600.0, False, 0, 1, 1, 1, (made,)))
    assert (finding.outcome, finding.escalation) == (outcome, escalation)


# --- backups ----------------------------------------------------------------------------------------------------------

GOOD = b"PGDMP\x01\x0e\x00" + b"\x00" * 40_000
PLAIN = (
    b"--\n-- PostgreSQL database dump\n--\n\nSET x = 1;\n"
    + b"-- row\n" * 2000
    + b"-- PostgreSQL database dump complete\n--\n"
)


def dump(folder: Path, name: str, content: bytes = GOOD, *, hours: float = 1.0) -> Path:
    """A dump of a given age."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


def test_a_backup_that_is_three_days_old(demo: Demo, suite: Health) -> None:
    """Old dumps are the manager's; the remedy makes a new one, in the demo's own folder, and it passes."""
    folder = demo.folder.backups
    kept = {path: path.stat().st_mtime for path in folder.iterdir()}
    made: list[Path] = []
    try:
        for path in kept:
            os.utime(path, (time.time() - 72 * 3600,) * 2)
        run = suite(*CHAPTERS, target=demo.target)
        run.blames("db.backup-age")
        assert "3 d" in run.finding("db.backup-age")["message"]
        assert run.snapshot["verdict"]["escalation"] == "now: call the manager", run.output
        run.do("db.backup-age", "look")
        run.do("db.backup-age")
        made = [path for path in folder.iterdir() if path not in kept]
        assert [path.read_bytes()[:5] for path in made] == [b"PGDMP"]
        mended = suite(MAINTENANCE, target=demo.target)
        assert mended.outcome("db.backup-age") == "pass"
    finally:
        for path in made:
            path.unlink()
        for path, moment in kept.items():
            os.utime(path, (moment, moment))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backup folder of a test's own."""
    made = tmp_path / "backups"
    made.mkdir()
    return made


Judge = Callable[[], tuple[str, str]]


@pytest.fixture
def judged(demo: Demo, suite: Health, folder: Path) -> Judge:
    """Outcome and message of the check on what is in that folder."""

    def judge() -> tuple[str, str]:
        target = f'{demo.target}\n[services.postgres]\nbackups = "{folder}"\n'
        found = suite(MAINTENANCE, "-k", "backup", target=target).finding("db.backup-age")
        return found["outcome"], found["message"]

    return judge


def test_a_dump_was_truncated(folder: Path, judged: Judge) -> None:
    """Shrunk by half, empty, without its header: each fails in its own words; a whole one passes."""
    dump(folder, "allodoc_prod_20261121.dump", hours=25)
    newest = dump(folder, "allodoc_prod_20261122.dump")
    assert judged() == ("pass", "age of the newest dump 1 h")
    newest.write_bytes(GOOD[:15_000])
    assert judged()[0] == "fail"
    assert judged()[1].startswith("smaller than the one before by 63 %")
    newest.write_bytes(b"")
    assert judged() == ("fail", "allodoc_prod_20261122.dump is empty")
    newest.write_bytes(b"pg_dump: error: connection failed\n" * 2000)
    assert judged() == ("fail", "allodoc_prod_20261122.dump has no header of a PostgreSQL dump")


def test_a_backup_that_is_late_but_not_lost(folder: Path, judged: Judge) -> None:
    """After a missed night it warns."""
    dump(folder, "allodoc_prod_20261121.sql", PLAIN, hours=30)
    assert judged() == ("warn", "age of the newest dump 30 h   (warn at 26 h)")


def test_a_plain_dump_that_was_cut_off(folder: Path, judged: Judge) -> None:
    """A dump in SQL ends with a line of its own."""
    dump(folder, "allodoc_prod_20261121.sql", PLAIN[:-60])
    assert judged()[1] == "allodoc_prod_20261121.sql is cut short: the line that ends a dump is missing"


def test_what_lies_beside_the_dumps_is_no_dump(folder: Path, judged: Judge) -> None:
    """The newest files are Redis' and the uploads'; the dump of the database is older and packed."""
    dump(folder, "daily/allodoc_prod-2026-11-21.sql.gz", gzip.compress(PLAIN), hours=50)
    dump(folder, "redis/dump.rdb", b"REDIS0011" + b"\x00" * 90_000)
    dump(folder, "uploads-20261123.tar.gz", gzip.compress(b"patients.pdf" + b"\x00" * 90_000))
    dump(folder, "daily/allodoc_prod-2026-11-21.sql.gz.sha256", b"0" * 64)
    assert judged() == ("fail", "age of the newest dump 2 d 2 h   (fail at 2 d)")


def test_there_is_no_dump(folder: Path, judged: Judge) -> None:
    """An empty folder fails, and so does one that is gone."""
    assert judged() == ("fail", f"there is no dump in {folder}")
    folder.rmdir()
    assert judged() == ("fail", f"the backup folder {folder} does not exist")


def test_a_dump_that_is_being_written_is_not_judged(demo: Demo, folder: Path, judged: Judge) -> None:
    """While pg_dump is connected, what it has written so far is left alone."""
    dump(folder, "allodoc_prod_20261121.dump", hours=20)
    with demo.connect(application_name="pg_dump"):
        time.sleep(0.01)  # file times are coarser than the server's
        (folder / "allodoc_prod_20261122.dump").write_bytes(b"")
        assert judged() == ("pass", "age of the newest dump 20 h")
    assert judged()[0] == "fail"


def test_a_folder_inside_a_service(demo: Demo, tmp_path: Path) -> None:
    """Where the folder can't be reached from here it is read by commands inside the service, to the same result."""
    inside = demo.folder.service("postgres") / "test-backups"
    inside.mkdir(mode=0o755)
    try:
        dump(inside, "a dump.sql", PLAIN, hours=2)
        folder = FolderInside(SupervisorRuntime(demo.state), "postgres", str(inside))
        ((name, size),) = [(file.name, file.bytes) for file in folder.files()]
        assert (name, size) == ("a dump.sql", len(PLAIN))
        assert folder.head(name) == PLAIN[:4096]
        assert folder.tail(name) == PLAIN[-4096:]
    finally:
        for path in inside.iterdir():
            path.unlink()
        inside.rmdir()


@pytest.mark.parametrize(
    ("head", "content"),
    [
        pytest.param(GOOD, "custom format", id="pg_dump -Fc"),
        pytest.param(gzip.compress(PLAIN), "plain SQL, gzip", id="pg_dump | gzip"),
        pytest.param(gzip.compress(os.urandom(9) * 9000)[:4096], "", id="a gzip of something else"),
        pytest.param(b"\x1f\x8b\x08\x00garbage", "", id="a broken gzip"),
        pytest.param(b"toc.dat".ljust(257, b"\0") + b"ustar", "tar", id="pg_dump -Ft"),
        pytest.param(b"photo.jpg".ljust(257, b"\0") + b"ustar", "", id="another tar"),
        pytest.param(b"/* made by hand */", "", id="a comment"),
        pytest.param(b"BEGIN;\nCREATE TABLE a (b int);\n", "plain SQL", id="another tool's SQL"),
        pytest.param(b"<!DOCTYPE html>", "", id="an error page"),
    ],
)
def test_what_a_dump_begins_with(head: bytes, content: str) -> None:
    """Every format of PostgreSQL's tools is known by its first bytes; nothing else is."""
    told, problem = sniff(head[:4096])
    assert told == content
    assert bool(problem) is not bool(content)


def test_the_guides_own_stack(stack: Stack, suite: Health) -> None:
    """In containers nothing fails falsely; the backup folder is known once it is mounted, and the remedy fills it."""
    run = suite(MAINTENANCE, PERFORMANCE)
    run.is_calm()
    assert run.outcome("db.backup-age") == "not-applicable"
    assert run.finding("db.backup-age")["message"].startswith("no backup folder is known")
    folder = stack.folder / "backups"
    folder.mkdir()
    stack.recreate("postgres", volumes=[f"{folder}:/backups"])
    stack.wait_healthy(roles=["postgres"])
    empty = suite("checks/db")
    empty.blames("db.backup-age")
    assert empty.finding("db.backup-age")["message"] == f"there is no dump in {folder}"
    empty.do("db.backup-age", "look")
    empty.do("db.backup-age")
    filled = suite(MAINTENANCE)
    assert filled.outcome("db.backup-age") == "pass", filled.output
    assert any("custom format" in line for line in filled.finding("db.backup-age")["details"])
    ((file,),) = [(path.name,) for path in folder.iterdir()]
    inside = FolderInside(stack.runtime, "postgres", "/backups")
    assert [found.name for found in inside.files()] == [file]
    assert inside.head(file).startswith(b"PGDMP")


# --- replication ------------------------------------------------------------------------------------------------------


def test_a_slot_that_nobody_reads(demo: Demo, suite: Health) -> None:
    """It keeps WAL: a little warns, much is the root cause; dropped by the remedy, there is nothing to look at."""
    demo.sql("SELECT pg_create_physical_replication_slot('left_behind', true)")
    try:
        suite(*CHAPTERS, target=demo.target).warns("db.replication")
        demo.sql("CREATE TABLE visits AS SELECT repeat('x', 400) AS note FROM generate_series(1, 5000)")
        demo.sql("DROP TABLE visits")
        target = demo.target + limits(retained_wal="fail = 1000000")
        run = suite(*CHAPTERS, target=target)
        run.blames("db.replication")
        assert run.finding("db.replication")["message"].startswith("slot left_behind is not read and keeps")
        run.do("db.replication", "look")
        run.do("db.replication")
        assert suite(MAINTENANCE, target=target).outcome("db.replication") == "not-applicable"
    finally:
        demo.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


@contextmanager
def standby(demo: Demo, folder: Path) -> Iterator[int]:
    """A standby of the demo's PostgreSQL; yields its port."""
    programs = find_binaries().postgres
    given = demo.environment("postgres")
    account = demo.service("postgres")
    identity = {"user": account["uid"], "group": account["gid"], "extra_groups": []} if os.geteuid() == 0 else {}
    folder.mkdir(mode=0o700)
    os.chown(folder, account["uid"], account["gid"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    connect = ["-h", "127.0.0.1", "-p", str(demo.port("postgres")), "-U", given["POSTGRES_USER"]]
    subprocess.run(
        [str(programs / "pg_basebackup"), *connect, "-D", str(folder / "data"), "-R", "-X", "stream", "-c", "fast"],
        env={"PGPASSWORD": given["POSTGRES_PASSWORD"], "PATH": os.defpath},
        check=True,
        capture_output=True,
        timeout=60,
        cwd="/",
        **identity,
    )
    server = subprocess.Popen(
        [
            *(str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-k", str(folder)),
            *("-c", "wal_receiver_status_interval=1s", "-c", "cluster_name=second"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **identity,
    )
    try:
        demo.wait_until(lambda: demo.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"), 20)
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)
        demo.wait_until(lambda: not demo.sql("SELECT 1 FROM pg_stat_replication"), 10)


def test_a_standby_falls_behind(demo: Demo, suite: Health) -> None:
    """A paused standby lags, seen from both ends; every database check has an answer on a standby too."""
    target = demo.target + limits(replication_lag="warn = 0.1, fail = 0.2")
    with standby(demo, demo.state / "standby") as port:
        second = f'{target}\n[services.postgres]\nhost = "127.0.0.1"\nport = {port}\n'
        given = demo.environment("postgres")
        with psycopg.connect(
            host="127.0.0.1",
            port=port,
            user=given["POSTGRES_USER"],
            password=given["POSTGRES_PASSWORD"],
            dbname=given["POSTGRES_DB"],
            autocommit=True,
        ) as there:
            demo.sql("CREATE TABLE visits ()")
            replayed = "SELECT 1 FROM pg_class WHERE relname = 'visits'"
            demo.wait_until(lambda: there.execute(replayed).fetchall(), 15, "the standby to replay")
            demo.sql("DROP TABLE visits")
            there.execute("SELECT pg_wal_replay_pause()")
            demo.sql("CREATE TABLE visits AS SELECT repeat('x', 400) AS note FROM generate_series(1, 5000)")
            demo.sql("DROP TABLE visits")
            lag = "SELECT 1 FROM pg_stat_replication WHERE replay_lag > '300 ms'"
            demo.wait_until(lambda: demo.sql(lag), 20, "the lag to be seen")
            run = suite("checks/db", target=target)
            run.blames("db.replication")
            assert run.finding("db.replication")["message"].startswith("replica second is behind by")
            behind = suite(MAINTENANCE, PERFORMANCE, target=second)
            behind.blames("db.replication")
            assert behind.finding("db.replication")["message"] == "this standby's replay is paused"
            assert "FROM pg_stat_replication" not in behind.output, "the remedy is the one for a paused standby"
            assert behind.outcome("db.statistics-fresh") == "not-applicable"
            there.execute("SELECT pg_wal_replay_resume()")
            demo.wait_until(
                lambda: there.execute("SELECT 1 WHERE pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()").fetchall()
            )
            assert suite(MAINTENANCE, target=second).outcome("db.replication") == "pass"


@pytest.mark.parametrize(
    ("replication", "outcome", "said"),
    [
        pytest.param(
            Replication(False, None, None, False, False, True, (Replica("b", "streaming", 90.0, 5 * 2**20),)),
            Outcome.WARN,
            "replica b is behind by 1 min 30 s",
            id="a replica is late",
        ),
        pytest.param(
            Replication(False, None, None, False, False, True, (), (Slot("cdc", "logical", False, True, 0),)),
            Outcome.FAIL,
            "slot cdc has lost WAL that its reader needs",
            id="a slot has lost WAL",
        ),
        pytest.param(
            Replication(False, None, None, False, False, True, (), (Slot("b", "physical", True, False, 3 * 2**30),)),
            Outcome.PASS,
            "all replicas and slots are read",
            id="an active slot may keep much",
        ),
        pytest.param(
            Replication(True, 3.0, 16, True, False, True),
            Outcome.WARN,
            "this standby's replay is paused",
            id="a paused standby",
        ),
    ],
)
def test_replicas_and_slots(replication: Replication, outcome: Outcome, said: str) -> None:
    """Recorded: each state of a replica or slot has its own words."""
    finding = finding_on(replicas_keep_up, replication=replication, limits=Limits())
    assert finding.outcome is outcome
    assert finding.message.startswith(said)


@pytest.mark.parametrize(
    ("replication", "outcome", "said"),
    [
        pytest.param(Replication(False, None, None, False, False, True), Outcome.NOT_APPLICABLE, "", id="none"),
        pytest.param(
            Replication(False, None, None, False, False, True, synchronous="standby1"),
            Outcome.PASS,
            "commits wait for standby1, which is there",
            id="there",
        ),
        pytest.param(
            Replication(
                False,
                None,
                None,
                False,
                False,
                True,
                synchronous="standby1",
                awaited="standby1",
                waiting=1,
                waited=61.0,
            ),
            Outcome.FAIL,
            "commits wait for a standby that is not there: standby1",
            id="gone",
        ),
    ],
)
def test_commits_that_wait(replication: Replication, outcome: Outcome, said: str) -> None:
    """Recorded: a standby that commits wait for has to be there."""
    finding = finding_on(commits_are_answered, replication=replication)
    assert finding.outcome is outcome
    assert finding.message.startswith(said)
    assert not replication.waiting or "1 session waits for an answer to a commit, the first for 1 min 1 s" in (
        finding.details
    )


def test_lag_needs_a_meeting() -> None:
    """The guide wants an expert for it."""
    assert escalation_of(replicas_keep_up) is Escalation.EMERGENCY_MEETING
    assert timedelta(minutes=10).total_seconds() == Limits().db.replication_lag.fail
