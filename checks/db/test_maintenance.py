"""Database maintenance: statistics, dead rows, wraparound, size, its log, its backups, its replicas."""

from __future__ import annotations

import shlex
from datetime import datetime

from allodoc_health.finding import Escalation, Recorder, Severity, duration, quantity, size
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.backups import Backups
from fixtures.logs import LogGroup, LogSummary
from fixtures.postgres_maintenance import COUNTER_END, OldestIds, Replication
from fixtures.postgres_sequences import Sequences
from fixtures.postgres_settings import Safeguards
from fixtures.postgres_tables import Tables


@symptom("db.statistics-fresh", severity=Severity.MINOR, caused_by=["db.long-running"])
def test_the_planner_knows_the_tables(tables: Tables, now: datetime, limits: Limits, finding: Recorder) -> None:
    """Tables have been analysed since most of their rows last changed.

    Where autovacuum is on, a table that was never analysed is about to be: that warns. Small tables never do.
    """
    if tables.in_recovery:
        finding.not_applicable("a standby does not count changed rows: ask its primary")
    least, never = limits.db.rows_considered.warn or 0, limits.db.rows_considered.fail or 0
    grown = [table for table in tables.tables if table.rows >= least]
    finding.says(f"{len(grown)} of {tables.count} tables have {quantity(least, 'rows')} and more")
    for table in grown:
        if not table.analyzed and table.rows >= never:
            message = f"never analysed, {quantity(table.rows, 'rows')}"
            if tables.see_to(table):
                finding[table.name].warn(f"{message}; autovacuum is due")
            else:
                finding[table.name].fail(message)
        elif limits.db.rows_changed.crossed(100 * table.changed / table.rows, limits.db.rows_changed.warn):
            limit = limits.db.rows_changed
            finding[table.name].measure("rows changed since ANALYZE", table.changed, of=table.rows, limit=limit)
        else:
            continue
        finding[table.name].note(*tables.upkeep(table, now))
        finding[table.name].fact(table=table.sql)


@symptom(
    "db.dead-rows",
    severity=Severity.MAJOR,
    caused_by=["db.idle-in-transaction", "db.long-running", "db.replication"],
)
def test_dead_rows_are_cleaned_up(tables: Tables, now: datetime, limits: Limits, finding: Recorder) -> None:
    """Few rows of a table are dead ones that VACUUM has still to remove."""
    if tables.in_recovery:
        finding.not_applicable("a standby does not count dead rows: ask its primary")
    least, limit = limits.db.rows_considered.warn or 0, limits.db.dead_rows
    grown = [table for table in tables.tables if table.rows + table.dead >= least]
    finding.says(f"{len(grown)} of {tables.count} tables have {quantity(least, 'rows')} and more")
    for table in grown:
        rows = table.rows + table.dead
        if limit.crossed(100 * table.dead / rows, limit.warn):
            # One that is being vacuumed just now is on its way.
            own = limit.model_copy(update={"fail": None}) if table.being_cleaned else limit
            finding[table.name].measure("rows are dead", table.dead, of=rows, limit=own)
            finding[table.name].note(*tables.upkeep(table, now))
            finding[table.name].fact(table=table.sql)


@symptom(
    "db.wraparound",
    severity=Severity.CRITICAL,
    caused_by=["db.idle-in-transaction", "db.long-running", "db.replication"],
    escalation=Escalation.EMERGENCY_MEETING,
)
def test_transaction_ids_are_far_from_their_end(oldest_ids: OldestIds, limits: Limits, finding: Recorder) -> None:
    """Transaction ids are frozen long before they run out and writes would stop."""
    limit = limits.db.wraparound
    by_transaction = oldest_ids.age >= oldest_ids.multixact_age
    finding.fact(database=oldest_ids.database if by_transaction else oldest_ids.multixact_database)
    finding.measure("transaction ids in use", oldest_ids.age, of=COUNTER_END, limit=limit)
    finding.measure("multixact ids in use", oldest_ids.multixact_age, of=COUNTER_END, limit=limit)
    finding.note(
        f"the oldest are in database {oldest_ids.database}; autovacuum freezes by force from"
        f" {quantity(oldest_ids.freeze_at, '')} on"
    )
    finding.note(*(f"held back by {holder.what}, {quantity(holder.age, '')} old" for holder in oldest_ids.holders))


@symptom("db.sizes", severity=Severity.MINOR)
def test_the_database_is_no_bigger_than_expected(tables: Tables, limits: Limits, finding: Recorder) -> None:
    """The database is of a size that was planned for."""
    finding.measure("database size", tables.database_bytes, unit="B", limit=limits.db.size)
    for table in tables.tables[:5]:
        sizes = f"{size(table.table_bytes)} and {size(table.index_bytes)} of indexes"
        finding.note(f"{table.name} has {sizes}, {quantity(table.rows, 'rows')}")


def _told(group: LogGroup) -> str:
    """A group of log records as one line."""
    times = f"{group.count} times, last at" if group.count > 1 else "at"
    return f"{group.level.upper()} {group.message} ({times} {group.last:%H:%M:%S} UTC)"


@symptom(
    "db.log-errors",
    severity=Severity.MAJOR,
    caused_by=[
        "service.oom-killed[postgres]",
        "service.restart-loop[postgres]",
        "service.running[postgres]",
        "db.accepts-connections",
        "host.disk",
        "host.memory",
    ],
)
def test_its_log_has_no_errors(database_log: LogSummary, finding: Recorder) -> None:
    """PostgreSQL wrote no errors to its log in the last ten minutes."""
    finding.says(f"no errors in {quantity(database_log.lines, 'lines')} of {duration(database_log.seconds)}")
    for group in database_log.damage:
        finding.fail(f"damaged data? {_told(group)}", variant="damage")
        finding.escalate(Escalation.NOW, "the log tells of damaged data")
    for group in database_log.fatal:
        finding.fail(_told(group), variant="crash")
    if database_log.errors:
        finding.warn(f"{quantity(database_log.errors, 'errors')} in {duration(database_log.seconds)}")
    finding.note(*(_told(group) for group in database_log.groups[:8]))


@symptom("db.backup-age", severity=Severity.CRITICAL, escalation=Escalation.NOW)
def test_there_is_a_fresh_backup(backups: Backups, now: datetime, limits: Limits, finding: Recorder) -> None:
    """There is a whole dump of the database from the last day."""
    newest, before = backups.newest, backups.before
    finding.fact(folder=shlex.quote(backups.folder), service=backups.service)
    finding.note(f"{backups.folder} ({backups.found})" + (f" in {backups.service}" if backups.service else ""))
    if backups.writing:
        finding.note(f"{backups.writing} is being written")
    assert newest is not None, f"there is no dump in {backups.folder}"
    if newest.problem:
        finding.fail(f"{newest.name} {newest.problem}")
    age = max((now - newest.modified_at).total_seconds(), 0.0)
    finding.measure("age of the newest dump", age, unit="s", limit=limits.db.backup_age)
    if before is not None:
        shrunk = max(100 * (1 - newest.bytes / before.bytes), 0.0)
        finding.measure("smaller than the one before by", shrunk, unit="%", limit=limits.db.backup_shrinkage)
    for dump in backups.dumps:
        content = f", {dump.content}" if dump.content else ""
        finding.note(f"{dump.name}, {size(dump.bytes)}{content}")


@symptom("db.synchronous-commit", severity=Severity.CRITICAL, smoke=True)
def test_commits_are_answered(replication: Replication, finding: Recorder) -> None:
    """No commit waits for a standby that is not there."""
    if not replication.synchronous:
        finding.not_applicable("commits wait for no standby: synchronous_standby_names is empty")
    finding.says(f"commits wait for {replication.synchronous}, which is there")
    if replication.awaited:
        finding.fail(f"commits wait for a standby that is not there: {replication.awaited}")
    if replication.awaited and replication.waiting:
        waiting = "1 session waits" if replication.waiting == 1 else f"{replication.waiting} sessions wait"
        finding.note(f"{waiting} for an answer to a commit, the first for {duration(replication.waited or 0.0)}")


@symptom("db.replication", severity=Severity.MAJOR, escalation=Escalation.EMERGENCY_MEETING)
def test_replicas_keep_up(replication: Replication, limits: Limits, finding: Recorder) -> None:
    """Replicas keep up, and no slot keeps WAL for a reader that never comes."""
    if not (replication.is_standby or replication.replicas or replication.slots):
        finding.not_applicable("there are no replicas and no replication slots")
    finding.says("all replicas and slots are read")
    if replication.is_standby:
        behind, limit = replication.standby_lag or 0.0, limits.db.replication_lag
        if not replication.replaying:
            late = finding.fail if limit.crossed(behind, limit.fail) else finding.warn
            late("this standby's replay is paused", variant="paused")
        elif not replication.receiving:
            finding.warn("this standby receives nothing from a primary")
        finding.measure("behind the primary by", behind, unit="s", limit=limit)
        if replication.standby_bytes is not None:
            finding.note(f"{size(replication.standby_bytes)} received and not yet replayed")
    for replica in replication.replicas:
        name = f"replica {replica.name} is behind by"
        finding.measure(name, replica.lag or 0.0, unit="s", limit=limits.db.replication_lag)
        if replica.bytes_behind is not None:
            finding.note(f"replica {replica.name} is {replica.state}, {size(replica.bytes_behind)} behind")
    if replication.replicas and not replication.visible:
        finding.note("this role may not see how far replicas are: grant it pg_monitor")
    for slot in (slot for slot in replication.slots if not slot.active):
        finding.fact(slot=slot.name)
        finding.measure(
            f"slot {slot.name} is not read and keeps", slot.retained, unit="B", limit=limits.db.retained_wal
        )
        if slot.lost:
            finding.fail(f"slot {slot.name} has lost WAL that its reader needs")
        else:
            finding.warn(f"{slot.kind} slot {slot.name} has no reader")


COSTS = {
    "fsync": "a crash of the machine may ruin all data",
    "full_page_writes": "a crash of the machine may ruin pages",
    "autovacuum": "nobody removes dead rows, statistics grow old",
    "track_counts": "autovacuum does not know what to clean up",
    "track_activities": "nobody sees what the sessions do",
}


@symptom("db.settings", severity=Severity.MAJOR)
def test_no_safeguard_is_switched_off(safeguards: Safeguards, finding: Recorder) -> None:
    """What keeps data through a crash is switched on, and so is what cleans up."""
    finding.says(f"{', '.join(COSTS)} are on, and every table writes its log")
    if safeguards.off:
        finding.fact(settings=" ".join(name for name, _ in safeguards.off))
    for name, source in safeguards.off:
        finding.warn(f"{name} is off: {COSTS[name]}")
        finding.note(f"{name} comes from: {source}")
    for table in safeguards.unlogged:
        finding[table.name].fact(table=table.sql)
        finding[table.name].warn("the table is UNLOGGED: a crash of the server empties it", variant="unlogged")


@symptom("db.sequences", severity=Severity.MAJOR)
def test_sequences_are_far_from_their_end(sequences: Sequences, limits: Limits, finding: Recorder) -> None:
    """Sequences have numbers left, and their columns have room for them."""
    if sequences.count == sequences.unseen:
        finding.not_applicable(f"this role may read none of {quantity(sequences.count, 'sequences')}")
    limit = limits.db.sequence_used
    finding.says(f"none of {quantity(sequences.count - sequences.unseen, 'sequences')} is close to its end")
    for one in sequences.fullest:
        if not limit.crossed(100 * one.used / max(one.room, 1.0), limit.warn):
            continue
        recorder = finding[one.name]
        recorder.fact(sequence=one.sql, table=one.table or "TABLE", column=one.column or "COLUMN")
        recorder.measure("numbers are given out", one.used, of=one.room, limit=limit)
        if one.table:
            recorder.note(f"it numbers {one.table}.{one.column}")
        ends = "the column's type ends at" if one.ends_with_column else "its own MAXVALUE is"
        recorder.note(f"{ends} {one.end}")
        if one.used >= one.room:
            recorder.escalate(Escalation.EMERGENCY_MEETING, "no row can be added to its table")
    if sequences.unseen:
        finding.note(f"this role may not read {quantity(sequences.unseen, 'more')}: grant it SELECT on them")
