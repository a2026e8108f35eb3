"""The limits that measurements are held against: one place, each default with its source, overridable by target.

RB stands for AlloDoc's own operations runbook and alert rules; *guide* for its troubleshooting guide. Shares are in
percent, times in seconds, sizes in bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

RUNBOOK = "RB: AlloDoc's runbook and alert rules"
GUIDE = "guide: AlloDoc's troubleshooting guide"
OURS = "default of this suite"

MIB = 1024**2
GIB = 1024**3


class Limit(BaseModel):
    """Where a measurement begins to warn and where it fails; ``None`` where it never does.

    ``worse`` says on which side of the limit the trouble is. A value that reaches the limit has crossed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    warn: float | None = None
    fail: float | None = None
    worse: Literal["above", "below"] = "above"
    source: str = OURS

    @model_validator(mode="after")
    def _fail_is_beyond_warn(self) -> Limit:
        if self.warn is not None and self.fail is not None:
            ordered = self.warn <= self.fail if self.worse == "above" else self.warn >= self.fail
            if not ordered:
                raise ValueError(
                    f"fail ({self.fail:g}) must lie beyond warn ({self.warn:g}), the worse side is {self.worse}"
                )
        return self

    def crossed(self, value: float, bound: float | None) -> bool:
        """Whether ``value`` has reached ``bound`` on the worse side."""
        if bound is None:
            return False
        return value >= bound if self.worse == "above" else value <= bound


class LimitGroup(BaseModel):
    """The limits of one chapter. An override keeps what it does not name of the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _merge_with_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        merged = dict(given)
        for name, override in given.items():
            field = cls.model_fields.get(name)
            if field is not None and isinstance(override, dict) and isinstance(field.default, Limit):
                merged[name] = {**field.default.model_dump(), "source": "target file", **override}
        return merged


class ServiceLimits(LimitGroup):
    """Limits of the service chapter."""

    health_response: Limit = Limit(warn=2.0, fail=5.0, source=f"{RUNBOOK} (API answers under 2 s)")
    uptime: Limit = Limit(warn=60.0, worse="below")
    new_restarts: Limit = Limit(warn=1.0, source=f"{GUIDE} (repeated restart attempts)")
    error_rate: Limit = Limit(warn=0.1, fail=1.0)
    core_dumps: Limit = Limit(fail=1.0, source=f"{GUIDE} (core dumps in the crash folder)")
    memory_used: Limit = Limit(warn=85.0, fail=95.0, source=RUNBOOK)
    cpu_used: Limit = Limit(warn=80.0, fail=95.0, source=RUNBOOK)


class HostLimits(LimitGroup):
    """Limits of the machine that the services run on."""

    memory_available: Limit = Limit(
        warn=15.0, fail=5.0, worse="below", source=f"{RUNBOOK} (memory < 85 %, > 95 % critical)"
    )
    swap_pages: Limit = Limit(warn=1.0, fail=1000.0)
    disk_used: Limit = Limit(warn=90.0, fail=95.0, source=RUNBOOK)
    inodes_used: Limit = Limit(warn=90.0, fail=95.0, source=RUNBOOK)
    load_per_core: Limit = Limit(warn=1.0, fail=2.0)
    pressure: Limit = Limit(warn=20.0, fail=60.0)
    docker_response: Limit = Limit(warn=0.5, fail=2.0)


class DatabaseLimits(LimitGroup):
    """Limits of the database chapter."""

    round_trip: Limit = Limit(warn=0.1, fail=1.0)
    connections_used: Limit = Limit(warn=80.0, fail=95.0, source=f"{RUNBOOK} (connections < 80 %)")
    pool_capacity: Limit = Limit(warn=80.0, fail=100.0)
    idle_connections: Limit = Limit(warn=25.0, source=f"{GUIDE} (idle for more than an hour)")
    idle_in_transaction: Limit = Limit(warn=60.0, fail=600.0)
    blocked: Limit = Limit(warn=5.0, fail=30.0)
    deadlock_rate: Limit = Limit(fail=1.0)
    long_running: Limit = Limit(warn=60.0, fail=300.0, source=f"{GUIDE} (active for more than 5 minutes)")
    statement_mean: Limit = Limit(warn=1.0, fail=3.0, source=f"{RUNBOOK} and {GUIDE} (responses over 3 s)")
    slow_statements_logged: Limit = Limit(warn=10.0)
    cpu_used: Limit = Limit(warn=80.0, fail=95.0, source=RUNBOOK)
    link_response: Limit = Limit(warn=0.5)
    rows_changed: Limit = Limit(warn=20.0)
    dead_rows: Limit = Limit(warn=20.0, fail=50.0)
    wraparound: Limit = Limit(warn=50.0, fail=80.0)
    cache_hit: Limit = Limit(warn=95.0, fail=90.0, worse="below")
    size: Limit = Limit(warn=5.0 * GIB, source=f"{RUNBOOK} (database over 5 GB)")
    backup_age: Limit = Limit(warn=26 * 3600.0, fail=48 * 3600.0, source=f"{RUNBOOK} (daily backup)")
    backup_shrinkage: Limit = Limit(warn=50.0)
    replication_lag: Limit = Limit(warn=60.0, fail=600.0)
    retained_wal: Limit = Limit(fail=1.0 * GIB)


class Limits(BaseModel):
    """All limits of a target, by chapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: ServiceLimits = ServiceLimits()
    host: HostLimits = HostLimits()
    db: DatabaseLimits = DatabaseLimits()
