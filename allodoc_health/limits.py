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

    def only_if(self, other: Limit, value: float) -> Limit:
        """This limit as far as another measurement has crossed its own as well, for what only the two together tell.

        >>> share, room = Limit(warn=90, fail=95), Limit(warn=20, fail=10, worse="below")
        >>> share.only_if(room, 15).warn, share.only_if(room, 15).fail
        (90.0, None)
        """
        return self.model_copy(
            update={
                "warn": self.warn if other.crossed(value, other.warn) else None,
                "fail": self.fail if other.crossed(value, other.fail) else None,
                "source": f"{self.source}; only with: {other.source}",
            }
        )


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
    since_restart: Limit = Limit(warn=600.0, worse="below", source=f"{GUIDE} (repeated restart attempts)")
    since_oom: Limit = Limit(fail=24 * 3600.0, worse="below")
    health_starting: Limit = Limit(warn=120.0)
    error_rate: Limit = Limit(warn=0.1, fail=1.0)
    core_dumps: Limit = Limit(fail=1.0, source=f"{GUIDE} (core dumps in the crash folder)")
    memory_used: Limit = Limit(warn=85.0, fail=95.0, source=RUNBOOK)
    cpu_used: Limit = Limit(warn=80.0, fail=95.0, source=RUNBOOK)
    tasks_used: Limit = Limit(warn=90.0, fail=95.0)


class HostLimits(LimitGroup):
    """Limits of the machine that the services run on."""

    memory_available: Limit = Limit(
        warn=15.0, fail=5.0, worse="below", source=f"{RUNBOOK} (memory < 85 %, > 95 % critical)"
    )
    # A single page fault reads several pages ahead; a machine that lives from its swap moves thousands a second.
    swap_pages: Limit = Limit(warn=100.0, fail=1000.0)
    disk_used: Limit = Limit(warn=90.0, fail=95.0, source=RUNBOOK)
    disk_free: Limit = Limit(
        warn=20.0 * GIB, fail=10.0 * GIB, worse="below", source="as netdata's disk alarms: percent and absolute"
    )
    inodes_used: Limit = Limit(warn=90.0, fail=95.0, source=RUNBOOK)
    load_per_core: Limit = Limit(warn=1.0, fail=2.0)
    pressure: Limit = Limit(warn=20.0, fail=60.0)
    docker_response: Limit = Limit(warn=0.5, fail=2.0)
    cpu: Limit = Limit(warn=80.0, fail=95.0, source=RUNBOOK)


class DatabaseLimits(LimitGroup):
    """Limits of the database chapter."""

    round_trip: Limit = Limit(warn=0.1, fail=1.0)
    connections_used: Limit = Limit(warn=80.0, fail=95.0, source=f"{RUNBOOK} (connections < 80 %)")
    pool_capacity: Limit = Limit(warn=80.0, fail=100.0)
    idle_connections: Limit = Limit(warn=25.0, source=f"{GUIDE} (idle for more than an hour)")
    idle_age: Limit = Limit(warn=3600.0, source=f"{GUIDE} (idle for more than an hour)")
    idle_in_transaction: Limit = Limit(warn=60.0, fail=600.0)
    # Long enough that the waits of ordinary traffic, whose statements follow one another at once, are none of them.
    idle_blocking: Limit = Limit(fail=0.5)
    blocked: Limit = Limit(warn=5.0, fail=30.0)
    deadlock_rate: Limit = Limit(warn=0.1, fail=1.0)
    long_running: Limit = Limit(warn=60.0, fail=300.0, source=f"{GUIDE} (active for more than 5 minutes)")
    statement_mean: Limit = Limit(warn=1.0, fail=3.0, source=f"{RUNBOOK} and {GUIDE} (responses over 3 s)")
    # Calls before a mean says something, and calls an hour below which a slow statement warns but does not fail.
    statement_calls: Limit = Limit(warn=2.0)
    statement_rate: Limit = Limit(fail=1.0)
    slow_statements_logged: Limit = Limit(warn=10.0)
    cpu_used: Limit = Limit(warn=80.0, fail=95.0, source=RUNBOOK)
    link_response: Limit = Limit(warn=0.5)
    # Bytes of a table that an index is worth it for, scans before their share says something, and that share of reads.
    scanned_table: Limit = Limit(warn=10.0 * MIB, fail=100.0 * MIB)
    scans_counted: Limit = Limit(warn=50.0)
    scans: Limit = Limit(warn=10.0, fail=50.0)
    # Rows of a table below which its upkeep does not matter, and from which a table never analysed fails.
    rows_considered: Limit = Limit(warn=1000.0, fail=10_000.0)
    rows_changed: Limit = Limit(warn=20.0)
    dead_rows: Limit = Limit(warn=20.0, fail=50.0)
    wraparound: Limit = Limit(warn=50.0, fail=80.0)
    # Blocks asked for before their hit rate says something: 8 kB each, about 800 MB.
    cache_traffic: Limit = Limit(warn=100_000.0)
    cache_hit: Limit = Limit(warn=95.0, fail=90.0, worse="below")
    size: Limit = Limit(warn=5.0 * GIB, source=f"{RUNBOOK} (database over 5 GB)")
    backup_age: Limit = Limit(warn=26 * 3600.0, fail=48 * 3600.0, source=f"{RUNBOOK} (daily backup)")
    backup_shrinkage: Limit = Limit(fail=50.0)
    replication_lag: Limit = Limit(warn=60.0, fail=600.0)
    retained_wal: Limit = Limit(fail=1.0 * GIB)
    sequence_used: Limit = Limit(warn=80.0, fail=95.0)


class ApiLimits(LimitGroup):
    """Limits of the API half of the performance chapter."""

    response: Limit = Limit(warn=2.0, fail=3.0, source=f"{RUNBOOK} (p95 < 2 s) and {GUIDE} (> 3 s)")
    errors: Limit = Limit(warn=1.0, fail=5.0, source=RUNBOOK)
    event_loop_lag: Limit = Limit(warn=0.1, fail=1.0)
    heap: Limit = Limit(warn=85.0, fail=95.0, source=f"{RUNBOOK} (memory)")
    memory_growth: Limit = Limit(warn=10.0 * MIB)


class AuthLimits(LimitGroup):
    """Limits of the authentication chapter."""

    response: Limit = Limit(warn=2.0, source=f"{RUNBOOK} (API answers under 2 s)")
    failures: Limit = Limit(warn=20.0, fail=50.0)
    clock_skew: Limit = Limit(warn=2.0, fail=30.0)
    hash_cost: Limit = Limit(warn=9.0, worse="below")
    unequal_lifetime: Limit = Limit(fail=5.0)


class LogLimits(LimitGroup):
    """Limits of the log chapter."""

    repeated: Limit = Limit(warn=60.0, fail=600.0)
    error_ratio: Limit = Limit(warn=2.0, fail=10.0)
    one_client: Limit = Limit(warn=50.0, fail=90.0)
    # As often as errors of any kind may stand in a log: once a minute.
    sql_errors: Limit = Limit(warn=1.0, fail=10.0)
    volume: Limit = Limit(warn=5.0, fail=10.0)


class CacheLimits(LimitGroup):
    """Limits of Redis, in the performance chapter."""

    round_trip: Limit = Limit(warn=0.05)
    # Once it is full, a Redis that may evict keys goes on: that only warns.
    memory_used: Limit = Limit(warn=85.0, fail=95.0, source=RUNBOOK)
    # Resident memory as a multiple of what the data takes up, and the bytes from which that matters.
    fragmentation: Limit = Limit(warn=1.5)
    memory_wasted: Limit = Limit(warn=100.0 * MIB)
    hit_rate: Limit = Limit(warn=80.0, worse="below")
    # Lookups of keys before their hit rate says something.
    lookups: Limit = Limit(warn=1000.0)
    clients_used: Limit = Limit(warn=80.0, fail=95.0)
    # Seconds after which Redis closes an idle connection: a health check each half minute keeps those of more alive.
    patience: Limit = Limit(warn=60.0, worse="below")
    # Seconds past the moment at which Redis' own save points wanted a save, or for which one has been under way.
    save_overdue: Limit = Limit(warn=300.0)
    slow_command: Limit = Limit(warn=0.010, fail=0.100)


class NetworkLimits(LimitGroup):
    """Limits of the network chapter."""

    link_response: Limit = Limit(warn=0.5)


class TlsLimits(LimitGroup):
    """Limits of certificates."""

    lasts: Limit = Limit(warn=30 * 86400.0, fail=7 * 86400.0, worse="below", source=f"{RUNBOOK} (certificate 30 days)")


class DeploymentLimits(LimitGroup):
    """Limits of the deployment chapter."""

    # Silence of a deployment that has begun and not ended: scripts write something now and then.
    log_silence: Limit = Limit(warn=0.0, fail=900.0)
    # Share of the proxied requests that nginx got no answer for, and how many before the share says something.
    upstream_errors: Limit = Limit(fail=1.0, source=f"{RUNBOOK} (error rate < 1 %)")
    upstream_errors_counted: Limit = Limit(warn=5.0)
    # Share of the requests of --deploy-window that failed, and the longest time without an answer, in seconds.
    unanswered: Limit = Limit(fail=1.0, source=f"{RUNBOOK} (error rate < 1 %)")
    gap: Limit = Limit(fail=1.0)


class Limits(BaseModel):
    """All limits of a target, by chapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: ServiceLimits = ServiceLimits()
    host: HostLimits = HostLimits()
    db: DatabaseLimits = DatabaseLimits()
    cache: CacheLimits = CacheLimits()
    network: NetworkLimits = NetworkLimits()
    tls: TlsLimits = TlsLimits()
    deploy: DeploymentLimits = DeploymentLimits()
    api: ApiLimits = ApiLimits()
    logs: LogLimits = LogLimits()
    auth: AuthLimits = AuthLimits()
