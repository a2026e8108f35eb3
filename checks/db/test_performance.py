"""Database performance issues: slow statements, a busy processor, tables without the index that they need."""

from __future__ import annotations

from datetime import datetime

from allodoc_health.finding import Recorder, Severity, duration, quantity, size
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.postgres_maintenance import CacheUse
from fixtures.postgres_statements import DatabaseCpu, SlowQueryLog, StatementStatistics
from fixtures.postgres_tables import Indexes, TableAccess


@symptom("db.statement-statistics", severity=Severity.MINOR)
def test_statements_are_counted(statement_statistics: StatementStatistics, finding: Recorder) -> None:
    """pg_stat_statements is preloaded, created and readable: slow ones can be found."""
    finding.fact(libraries=statement_statistics.libraries_with_it)
    finding.says(f"{statement_statistics.known} statements of the application are counted")
    if statement_statistics.problem:
        finding.warn(statement_statistics.reason, variant=statement_statistics.problem)
    elif statement_statistics.hidden:
        finding.warn(f"this role may not see {statement_statistics.hidden} statements of others", variant="unreadable")


@symptom(
    "db.slow-statements",
    severity=Severity.MAJOR,
    caused_by=["db.missing-index", "db.statistics-fresh", "db.dead-rows", "db.blocked-sessions", "host.swap"],
)
def test_statements_answer_quickly(
    statement_statistics: StatementStatistics, limits: Limits, finding: Recorder
) -> None:
    """The application's statements take less than a second on average.

    The counters say nothing of when a statement ran. One that was slow last month and is hardly called any more warns
    instead of failing, until its counters are reset.
    """
    if statement_statistics.problem:
        finding.not_applicable(statement_statistics.reason)
    if not statement_statistics.slowest:
        finding.not_applicable("no statement was called often enough for a mean to say something")
    hourly = limits.db.statement_rate.fail or 0
    regular = [one for one in statement_statistics.slowest if one.is_regular(hourly)]
    rare = [one for one in statement_statistics.slowest if not one.is_regular(hourly)]
    worst = max(regular or rare, key=lambda one: one.mean)
    finding.fact(schema=statement_statistics.schema, queryid=worst.queryid)
    if regular:
        finding.measure("the slowest statement takes on average", worst.mean, unit="s", limit=limits.db.statement_mean)
    for one in rare:
        if limits.db.statement_mean.crossed(one.mean, limits.db.statement_mean.warn):
            finding.warn(f"a statement takes {duration(one.mean)} on average, but is called less than once an hour")
            break
    finding.note(*(one.line for one in statement_statistics.slowest))
    finding.note(*(f"altogether {duration(one.total)}: {one.text}" for one in statement_statistics.heaviest[:3]))


@symptom("db.slow-query-log", severity=Severity.MINOR)
def test_slow_statements_are_logged(slow_query_log: SlowQueryLog, limits: Limits, finding: Recorder) -> None:
    """Slow statements are written to the log, and there are few of them."""
    if slow_query_log.threshold is None:
        finding.warn("slow statements are not logged: log_min_duration_statement is off")
    else:
        finding.says(f"statements of {duration(slow_query_log.threshold)} and longer are logged")
    if slow_query_log.logged is not None:
        finding.measure(
            "slow statements in the log of 10 min", slow_query_log.logged, limit=limits.db.slow_statements_logged
        )


@symptom("db.cpu", severity=Severity.MAJOR, caused_by=["db.long-running", "db.slow-statements", "db.missing-index"])
def test_postgres_has_processor_time_left(database_cpu: DatabaseCpu, limits: Limits, finding: Recorder) -> None:
    """PostgreSQL leaves part of the processor time that it may use."""
    finding.measure("in use", database_cpu.used, unit="cores", of=database_cpu.cores, limit=limits.db.cpu_used)
    for session in database_cpu.busy:
        finding.note(f"pid {session.pid} ({session.who}) for {duration(session.seconds)}: {session.text}")
    if database_cpu.busy:
        finding.fact(pid=database_cpu.busy[0].pid)


@symptom("db.missing-index", severity=Severity.MAJOR)
def test_big_tables_are_read_through_indexes(
    table_access: TableAccess, now: datetime, limits: Limits, finding: Recorder
) -> None:
    """Big tables are read through their indexes, and have one for each foreign key."""
    suspects = [access for access in table_access.big if access.foreign_keys or access.is_scanned(limits.db, now)]
    if not suspects:
        least = size(limits.db.scanned_table.warn or 0)
        counted = f"{len(table_access.big)} tables have" if table_access.big else "no table has"
        finding.says(f"{counted} {least} and more" + (", none is read by scanning" if table_access.big else ""))
        finding.note(*(key.line for key in table_access.small_foreign_keys))
    for access in suspects:
        table, part = access.table, finding[access.table.name]
        part.fact(table=table.sql, columns=access.candidate or "COLUMN", name=table.name)
        if access.is_scanned(limits.db, now):
            limit = access.limit(limits.db)
            part.measure("accesses read the whole table", access.scans, of=access.accesses, limit=limit)
        for key in access.foreign_keys:
            part.warn(f"no index for {key.constraint} ({', '.join(key.columns)})")
        part.note(*access.proof)


@symptom("db.invalid-index", severity=Severity.MINOR)
def test_no_index_is_invalid(indexes: Indexes, finding: Recorder) -> None:
    """No index was left invalid by a build that failed."""
    finding.says("no index is invalid")
    if indexes.invalid:
        first = indexes.invalid[0]
        finding.fact(index=first.sql)
        more = f", and {len(indexes.invalid) - 1} more" if len(indexes.invalid) > 1 else ""
        finding.warn(f"index {first.name} of {first.table} is invalid{more}")
        finding.note(*(f"invalid {index.line}" for index in indexes.invalid[1:]))
    finding.note(*(f"being built {index.line}" for index in indexes.building))
    finding.note(*(f"same as {index.same_as} {index.line}" for index in indexes.duplicate))
    finding.note(*(f"never read {index.line}" for index in indexes.unused))


@symptom("db.cache-hit", severity=Severity.MINOR, caused_by=["db.missing-index"])
def test_most_blocks_are_found_in_the_cache(cache_use: CacheUse, limits: Limits, finding: Recorder) -> None:
    """Nearly all blocks that are needed lie in PostgreSQL's buffer cache."""
    least = limits.db.cache_traffic.warn or 0
    if cache_use.blocks < least:
        finding.not_applicable(
            f"too little traffic to judge the cache: {quantity(cache_use.blocks, '')} of {quantity(least, 'blocks')}"
        )
    rate = 100 * cache_use.hit / max(cache_use.blocks, 1)
    finding.measure("blocks found in the cache", rate, unit="%", limit=limits.db.cache_hit)
    finding.note(f"{quantity(cache_use.blocks, 'blocks')} asked for, the cache holds {size(cache_use.buffers)}")
