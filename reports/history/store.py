"""The database of a history: SQLite in the folder of the reports, or a PostgreSQL that several machines share.

One thread uses a :class:`Store`. It holds no connection between two requests. A writer takes a lock for the few
milliseconds that it writes, and everything that it writes is one transaction: a run is there as a whole or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    NullPool,
    Row,
    create_engine,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError, SQLAlchemyError

from allodoc_health.finding import Finding, Outcome
from allodoc_health.run import TargetReport
from reports.history import Points
from reports.history.course import GONE, LOOKED_AT, TROUBLED, Change, Course
from reports.history.location import Location
from reports.history.records import Followed, Records, check_of, no_longer_found, outage_since
from reports.history.schema import TooNew, findings, is_current, measurements, migrate, runs, series, told

_Answer = TypeVar("_Answer")

PATIENCE = 2.0
"""Seconds that a writer waits for another one."""

CONNECT_PATIENCE = 3
STATEMENT_PATIENCE = 5.0

# What the past is told from: how findings fared over a quarter, numbers over a month as so many points.
COURSE_DAYS = 90
TREND_DAYS = 30
TREND_POINTS = 59  # this run's is the sixtieth
MOST_RUNS = 20_000  # looked at for these points: a run every two minutes

PRUNED_AT_ONCE = 50
"""Runs that an ordinary run removes at most, so that none has to clear up after years."""

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_WRITERS = 0x416C6C6F  # the advisory lock of whoever writes a history in PostgreSQL


class HistoryError(Exception):
    """The history can't be read or written; the text says why, without a password."""


class Store:
    """A history in a database. ``notices`` are lines for the user, such as that a damaged file was set aside."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.notices: list[str] = []
        self._ready = False
        try:
            self._engine = _engine(location)
        except (SQLAlchemyError, ValueError) as error:
            raise HistoryError(self._reason(error)) from None

    # -- what a run needs -------------------------------------------------------------------------------------------

    def read(self, target: str, now: datetime) -> Records:
        """What is known of a target up to now. Raises HistoryError."""
        return self._attempt(lambda connection: _records(connection, target, now))

    def record(self, report: TargetReport, records: Records, *, whole: bool, keep: timedelta) -> None:
        """Keep what a run found, and forget what is older than ``keep``. Raises HistoryError."""

        def write(connection: Connection) -> None:
            _record(connection, report, records, whole=whole)
            _prune(connection, report.started - keep, PRUNED_AT_ONCE)

        self._attempt(write, writing=True)

    # -- what was told ----------------------------------------------------------------------------------------------

    def last_told(self, target: str, channel: str) -> Row[Any] | None:
        """What was told last of a target over a channel. Raises HistoryError."""
        ours = (told.c.target == target) & (told.c.channel == channel)
        query = select(told).where(ours).order_by(told.c.id.desc()).limit(1)
        return self._attempt(lambda connection: connection.execute(query).first())

    def claim(self, **values: Any) -> int | None:
        """Take the turn to tell something; ``None`` if another run took it. Raises HistoryError."""

        def write(connection: Connection) -> int | None:
            try:
                return int(connection.execute(insert(told).values(**values).returning(told.c.id)).scalar_one())
            except IntegrityError:
                return None

        return self._attempt(write, writing=True)

    def unclaim(self, claim: int) -> None:
        """Give the turn back: it could not be told. Raises HistoryError."""
        self._attempt(lambda connection: connection.execute(delete(told).where(told.c.id == claim)), writing=True)

    # -- what people ask for ------------------------------------------------------------------------------------------

    def rows(self, table: str, target: str = "", since: datetime | None = None) -> list[Mapping[str, Any]]:
        """The rows of ``runs``, ``findings`` or ``measurements`` with their names, the oldest first."""
        columns: dict[str, Sequence[Column[Any]]] = {
            "runs": [column for column in runs.c if column.name != "id"],
            "findings": [series.c.finding, findings.c.outcome, series.c.severity, findings.c.message],
            "measurements": [series.c.finding, series.c.measurement, measurements.c.value, series.c.unit],
        }
        query = select(runs.c.id.label("run"), *columns[table]).order_by(runs.c.id)
        if table != "runs":
            rows = findings if table == "findings" else measurements
            query = select(runs.c.id.label("run"), runs.c.target, runs.c.started, *columns[table])
            query = query.join_from(runs, rows).join(series, rows.c.series_id == series.c.id)
            query = query.order_by(runs.c.id, series.c.finding, series.c.measurement)
        if target:
            query = query.where(runs.c.target == target)
        if since is not None:
            query = query.where(runs.c.started >= since)
        return self._attempt(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    def prune(self, before: datetime) -> int:
        """Remove all runs that started before a moment, and what is left of nothing. Returns how many there were."""

        def write(connection: Connection) -> int:
            count = _prune(connection, before, None)
            kept = select(findings.c.series_id).union(select(measurements.c.series_id))
            connection.execute(delete(series).where(series.c.id.not_in(kept)))
            return count

        count = self._attempt(write, writing=True)
        if self.location.file is not None:
            self._attempt(lambda connection: connection.exec_driver_sql("VACUUM"))
        return count

    # -- how it is done -----------------------------------------------------------------------------------------------

    def _attempt(self, work: Callable[[Connection], _Answer], *, writing: bool = False) -> _Answer:
        """Do something with the database; on a damaged file, set it aside and do it on a new one."""
        for again in (True, False):
            try:
                self._prepare()
                with self._transaction() if writing else self._connected() as connection:
                    return work(connection)
            except (SQLAlchemyError, OSError, TooNew, ValueError) as error:
                # A damaged page can hold anything, also what is no number and no time.
                if not (again and self._is_damaged(error) and self._set_aside()):
                    raise HistoryError(self._reason(error)) from None
        raise AssertionError("the second attempt returned or raised")

    def _prepare(self) -> None:
        if self._ready:
            return
        if self.location.file is not None:
            self.location.file.parent.mkdir(parents=True, exist_ok=True)
        with self._connected() as connection:
            current = is_current(connection)
        if not current:
            with self._transaction() as connection:
                migrate(connection)
        self._ready = True

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction of the only writer at this time."""
        with self._engine.connect() as connection, connection.begin():
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _WRITERS})
            yield connection

    def _is_damaged(self, error: Exception) -> bool:
        cause = error.orig if isinstance(error, DatabaseError) else None
        if isinstance(cause, sqlite3.Error):
            code: int = getattr(cause, "sqlite_errorcode", 0)
            return code & 0xFF in _DAMAGE
        return self.location.file is not None and isinstance(error, ValueError)

    def _set_aside(self) -> bool:
        """Rename a damaged file, with what SQLite keeps beside it; whether there is room for a new one now."""
        file = self.location.file
        if file is None:
            return False
        # Its hooks on forks must not come while a probe's thread forks: nobody but a damaged history needs them.
        from filelock import FileLock

        with FileLock(f"{file}.lock", timeout=PATIENCE):
            if _is_sound(file):  # another run was quicker
                return True
            moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            aside = file.with_name(f"{file.name}.damaged-{moment}")
            for suffix in ("-journal", "-wal", "-shm", ""):
                beside = file.with_name(file.name + suffix)
                if beside.exists():
                    beside.rename(aside.with_name(aside.name + suffix))
        self._ready = False
        self.notices.append(f"the history was damaged: it is kept as {aside}, and a new one begins")
        return True

    def _reason(self, error: Exception) -> str:
        """Why something failed, in one line. A driver may quote the address that it was given, password and all."""
        if isinstance(error, OSError):
            reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        elif isinstance(error, DatabaseError):
            reason = str(error.orig)
        else:
            reason = str(error)
        reason = " ".join(reason.split())
        for secret in _secrets(self.location):
            reason = reason.replace(secret, "***")
        return f"{self.location.shown}: {reason}"


def _engine(location: Location) -> Engine:
    if location.file is not None:
        # Python's module begins transactions by itself only without an isolation level of None.
        arguments: dict[str, Any] = {"timeout": PATIENCE, "isolation_level": None}
    else:
        milliseconds = int(1000 * STATEMENT_PATIENCE)
        arguments = {
            "connect_timeout": CONNECT_PATIENCE,
            "application_name": "allodoc-health history",
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={int(1000 * PATIENCE)}",
        }
    return create_engine(location.url, poolclass=NullPool, connect_args=arguments)


def _secrets(location: Location) -> Iterator[str]:
    """The password of a location, and whatever else its URL holds that is not shown."""
    from urllib.parse import parse_qsl, unquote, urlsplit

    if location.file is not None:
        return
    yield location.url
    parts = urlsplit(location.url)
    for secret in (parts.password or "", *(value for _, value in parse_qsl(parts.query))):
        if secret:
            yield from (secret, unquote(secret))


def _is_sound(file: Path) -> bool:
    """Whether a file is no damaged database; one that is not there is none."""
    if not file.exists():
        return True
    try:
        connection = sqlite3.connect(file, timeout=PATIENCE)
        try:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        finally:
            connection.close()
    except sqlite3.DatabaseError:
        return False


# -- reading ----------------------------------------------------------------------------------------------------------


def _records(connection: Connection, target: str, now: datetime) -> Records:
    ours = runs.c.target == target
    count, first = connection.execute(
        select(func.count(), func.min(runs.c.id).filter(runs.c.started >= now - timedelta(days=COURSE_DAYS))).where(
            ours
        )
    ).one()
    outage = connection.scalar(select(runs.c.outage_since).where(ours).order_by(runs.c.id.desc()).limit(1))
    if first is None:
        return Records(runs=count, outage_since=outage)
    return Records(count, _followed(connection, target, first), _numbers(connection, target, now), outage)


def _followed(connection: Connection, target: str, first: int) -> dict[str, Followed]:
    """How those findings fared that were ever in trouble since run number ``first``."""
    query = select(series.c.id, series.c.finding, series.c.severity, series.c.check).where(
        series.c.target == target, series.c.measurement == "", series.c.last_trouble >= first
    )
    troubled = {row.id: row for row in connection.execute(query)}
    each, in_order = findings.c.series_id, findings.c.run_id
    looks = (
        select(
            findings.c.series_id,
            runs.c.started,
            findings.c.outcome,
            func.lag(findings.c.outcome).over(partition_by=each, order_by=in_order).label("before"),
            func.row_number().over(partition_by=each, order_by=in_order).label("look"),
            func.count().over(partition_by=each).label("looks"),
        )
        .join_from(findings, runs)
        .where(findings.c.series_id.in_(troubled), findings.c.run_id >= first, findings.c.outcome.in_(LOOKED_AT))
        .subquery()
    )
    changes = (
        select(looks)
        .where(or_(looks.c.before.is_(None), looks.c.before != looks.c.outcome))
        .order_by(looks.c.series_id, looks.c.look)
    )
    followed = {}
    for key, rows in groupby(connection.execute(changes), key=lambda row: row.series_id):
        made = list(rows)
        course = Course(tuple(Change(row.look, row.started, row.outcome) for row in made), made[0].looks)
        one_series = troubled[key]
        followed[one_series.finding] = Followed(course, one_series.severity, one_series.check)
    return followed


def _numbers(connection: Connection, target: str, now: datetime) -> dict[tuple[str, str, str], Points]:
    """The trend of every measurement, from one run in each of as many stretches of time as there are to be points."""
    month = select(runs.c.id, runs.c.started).where(
        runs.c.target == target, runs.c.started >= now - timedelta(days=TREND_DAYS)
    )
    recent = list(connection.execute(month.order_by(runs.c.started.desc()).limit(MOST_RUNS)))
    if not recent:
        return {}
    oldest = recent[-1].started
    stretch = max((now - oldest) / TREND_POINTS, timedelta(microseconds=1))
    sampled: dict[int, Row[int, datetime]] = {}
    for row in recent:  # the newest first, which the stretch keeps
        sampled.setdefault(min((row.started - oldest) // stretch, TREND_POINTS - 1), row)
    started = {row.id: row.started for row in sampled.values()}
    names = {
        row.id: (row.finding, row.measurement, row.unit)
        for row in connection.execute(
            select(series.c.id, series.c.finding, series.c.measurement, series.c.unit).where(
                series.c.target == target, series.c.measurement != ""
            )
        )
    }
    numbers: dict[tuple[str, str, str], list[tuple[datetime, float]]] = {}
    query = select(measurements).where(measurements.c.run_id.in_(started)).order_by(measurements.c.run_id)
    for run, key, value in connection.execute(query):
        if key in names:
            numbers.setdefault(names[key], []).append((started[run], value))
    return {name: tuple(points) for name, points in numbers.items()}


# -- writing ----------------------------------------------------------------------------------------------------------


def _record(connection: Connection, report: TargetReport, records: Records, *, whole: bool) -> None:
    verdict = report.verdict
    run = connection.execute(
        insert(runs)
        .values(
            target=report.target.name,
            started=report.started,
            seconds=report.seconds,
            state=verdict.state.value,
            root_causes=list(verdict.root_causes),
            escalation=verdict.escalation.value,
            whole=whole,
            cut_short=report.cut_short,
            outage_since=outage_since(report, records),
        )
        .returning(runs.c.id)
    ).scalar_one()
    gone = list(no_longer_found(report, records))
    keys = _keys(connection, report, gone)
    outcomes = [
        {
            "run_id": run,
            "series_id": keys[finding.name, "", ""],
            "outcome": finding.outcome.value,
            "message": "" if finding.outcome is Outcome.PASS else finding.message.partition("\n")[0],
        }
        for finding in _once(report.findings)
    ]
    outcomes += [{"run_id": run, "series_id": keys[name, "", ""], "outcome": GONE, "message": ""} for name in gone]
    values = {
        keys[finding.name, measurement.name, measurement.unit]: measurement.value
        for finding in report.findings
        for measurement in finding.measurements
        if measurement.value == measurement.value  # NaN compares unequal, and PostgreSQL sorts it above all numbers
    }
    if outcomes:
        connection.execute(insert(findings), outcomes)
    if values:
        rows = [{"run_id": run, "series_id": key, "value": value} for key, value in values.items()]
        connection.execute(insert(measurements), rows)
    troubled = [keys[f.name, "", ""] for f in report.findings if f.outcome.value in TROUBLED]
    if troubled:
        connection.execute(update(series).where(series.c.id.in_(troubled)).values(last_trouble=run))


def _once(found: Iterable[Finding]) -> Iterable[Finding]:
    """Each finding once: two of one name are the same to a history, which keeps the last."""
    return {finding.name: finding for finding in found}.values()


def _keys(connection: Connection, report: TargetReport, gone: Sequence[str]) -> dict[tuple[str, str, str], int]:
    """The key of each series of a report by finding, measurement and unit; those that are new are made."""
    target = report.target.name
    wanted: dict[tuple[str, str, str], tuple[str, str]] = {}
    for finding in report.findings:
        traits = (finding.severity.value, check_of(finding))
        wanted[finding.name, "", ""] = traits
        wanted.update({(finding.name, one.name, one.unit): traits for one in finding.measurements})
    names = {name for name, _, _ in wanted}.union(gone)
    query = select(
        series.c.id, series.c.finding, series.c.measurement, series.c.unit, series.c.severity, series.c.check
    ).where(series.c.target == target, series.c.finding.in_(names))
    keys: dict[tuple[str, str, str], int] = {}
    for key, *name, severity, check in connection.execute(query):
        keys[name[0], name[1], name[2]] = key
        traits = wanted.get((name[0], name[1], name[2]), (severity, check))
        # A finding that only blocked others does not know its check; once it is known it is not forgotten.
        if traits not in ((severity, check), (severity, "")):
            changed = {"severity": traits[0], "check": traits[1] or check}
            connection.execute(update(series).where(series.c.id == key).values(changed))
    fresh = [
        {"target": target, "finding": name, "measurement": measurement, "unit": unit, "severity": grave, "check": check}
        for (name, measurement, unit), (grave, check) in wanted.items()
        if (name, measurement, unit) not in keys
    ]
    if fresh:
        made = insert(series).returning(series.c.finding, series.c.measurement, series.c.unit, series.c.id)
        keys.update({(name, one, unit): key for name, one, unit, key in connection.execute(made, fresh)})
    return keys


def _prune(connection: Connection, before: datetime, at_most: int | None) -> int:
    old = list(connection.scalars(select(runs.c.id).where(runs.c.started < before).order_by(runs.c.id).limit(at_most)))
    if old:
        for table in (findings, measurements):
            connection.execute(delete(table).where(table.c.run_id.in_(old)))
        connection.execute(delete(runs).where(runs.c.id.in_(old)))
    return len(old)
