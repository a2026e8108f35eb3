"""The tables of a history, and the migrations that lead to them.

A table of versions and a list of migrations, not Alembic: that would bring a folder of scripts, a template engine and
its start-up time into every run, for four tables that are migrated where they are opened, without a person at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    func,
    insert,
    inspect,
    select,
)


class TooNew(Exception):
    """A newer suite has migrated this history: this one leaves it alone."""


class Moment(TypeDecorator[datetime]):
    """A moment in UTC. SQLite has no time zones: there they are left out, and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment as it is stored."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment as it was."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


TABLES = MetaData()

runs = Table(
    "runs",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("target", Text, nullable=False),
    Column("started", Moment, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("state", Text, nullable=False),
    Column("root_causes", JSON, nullable=False),
    Column("escalation", Text, nullable=False),
    Column("whole", Boolean, nullable=False, comment="whether all checks were selected"),
    Column("cut_short", Text, nullable=False, comment="why the run ended before it was through"),
    Column("outage_since", Moment, comment="since when something critical has been failing"),
    Index("runs_by_time", "target", "started"),
)

# What is followed over runs: a finding, or (with a name of its own) one of its measurements.
series = Table(
    "series",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("target", Text, nullable=False),
    Column("finding", Text, nullable=False),
    Column("measurement", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("check", Text, nullable=False, quote=True, comment="the check that makes the finding"),
    Column("last_trouble", Integer, comment="the last run in which it warned or failed; spares reading all others"),
    UniqueConstraint("target", "finding", "measurement", "unit"),
)

# Rows in the order of their keys: half the size, and the numbers of a run stand together.
findings = Table(
    "findings",
    TABLES,
    Column("run_id", ForeignKey(runs.c.id), primary_key=True),
    Column("series_id", ForeignKey(series.c.id), primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("message", Text, nullable=False, comment="its first line, where it did not pass"),
    Index("findings_by_series", "series_id", "run_id"),
    sqlite_with_rowid=False,
)

measurements = Table(
    "measurements",
    TABLES,
    Column("run_id", ForeignKey(runs.c.id), primary_key=True),
    Column("series_id", ForeignKey(series.c.id), primary_key=True),
    Column("value", Double, nullable=False),
    sqlite_with_rowid=False,
)

# What was told to whom, one row after the other: of two runs that want to tell the same change, one gets the row.
told = Table(
    "told",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("target", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("after", Integer, nullable=False, comment="the row before, 0 for the first"),
    Column("moment", Moment, nullable=False),
    Column("since", Moment, comment="since when there is trouble, if there is"),
    Column("state", Text, nullable=False),
    Column("root_causes", JSON, nullable=False),
    Column("escalation", Text, nullable=False),
    UniqueConstraint("target", "channel", "after"),
)

_versions = Table(
    "schema_versions",
    MetaData(),
    Column("version", Integer, primary_key=True),
    Column("since", Moment, nullable=False),
)


def _first(connection: Connection) -> None:
    TABLES.create_all(connection, checkfirst=False)


MIGRATIONS: Sequence[Callable[[Connection], None]] = (_first,)
"""What makes version 1 of nothing, version 2 of version 1, and so on. One that was released is never changed."""


def is_current(connection: Connection) -> bool:
    """Whether there is nothing to migrate. Raises TooNew."""
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise TooNew(f"it has version {version}, this suite knows up to {len(MIGRATIONS)}: update the suite")
    return version == len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Bring the tables up to date. The caller holds the lock of a writer and commits. Raises TooNew."""
    if is_current(connection):
        return
    version = _version(connection)
    _versions.create(connection, checkfirst=True)
    for number, migration in enumerate(MIGRATIONS[version:], version + 1):
        migration(connection)
        connection.execute(insert(_versions).values(version=number, since=datetime.now(UTC)))


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(_versions.name):
        return 0
    return connection.scalar(select(func.max(_versions.c.version))) or 0
