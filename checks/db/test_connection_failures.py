"""Database connection failures: refused, turned away, wrong credentials, no answer."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity, duration, size
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.backend_settings import Pools
from fixtures.database_parameters import Parameters
from fixtures.links import Link, Way
from fixtures.postgres import RoundTrip
from fixtures.postgres_handshake import Handshake
from fixtures.postgres_sessions import Sessions


@symptom(
    "db.port",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[
        "service.running[postgres]",
        "service.restart-loop[postgres]",
        "service.oom-killed[postgres]",
        "service.port-conflict",
    ],
)
def test_the_port_is_open(database_port: Handshake, finding: Recorder) -> None:
    """PostgreSQL's port opens."""
    finding.says(f"{database_port.at} is open")


@symptom(
    "db.accepts-connections",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[
        "service.running[postgres]",
        "service.restart-loop[postgres]",
        "service.oom-killed[postgres]",
        "host.disk",
        "host.memory",
    ],
)
def test_the_server_accepts_connections(database_readiness: Handshake, finding: Recorder) -> None:
    """PostgreSQL accepts connections."""
    finding.says(f"ready after {duration(database_readiness.seconds)}")


@symptom("db.login", severity=Severity.CRITICAL, smoke=True, caused_by=["db.parameters-match"])
def test_the_application_can_log_in(database_login: Handshake, finding: Recorder) -> None:
    """The application's own credentials open the database."""
    finding.says(f"role {database_login.user} opens {database_login.database}")


@symptom("db.query", severity=Severity.CRITICAL, smoke=True, caused_by=["db.cpu", "host.swap", "host.memory"])
def test_a_query_is_answered(round_trip: RoundTrip, limits: Limits, finding: Recorder) -> None:
    """SELECT 1 is answered at once, and writes would be taken."""
    finding.measure("round trip", round_trip.seconds, unit="s", limit=limits.db.round_trip)
    if round_trip.in_recovery or round_trip.read_only:
        finding.follows_only_from()
    if round_trip.in_recovery:
        finding.fail("the server takes no writes: it is in recovery, as a standby is", variant="in-recovery")
    if round_trip.read_only:
        finding.fact(reset=round_trip.reset)
        finding.fail("the database takes no writes: default_transaction_read_only is on", variant="read-only")
    if round_trip.barred or round_trip.astray:
        finding.follows_only_from()
        finding.fact(reset=round_trip.reset)
    if round_trip.barred and round_trip.acts_as:
        told = f"role {round_trip.role} acts as {round_trip.acts_as}, which may read no table: permission denied"
        finding.fail(told, variant="acts-as")
    elif round_trip.barred:
        told = f"role {round_trip.role} may read none of the {round_trip.tables} tables: permission denied"
        finding.fail(told, variant="no-rights")
    if round_trip.astray:
        path = round_trip.search_path
        told = f"role {round_trip.role} finds none of the {round_trip.tables} tables: its search_path is {path}"
        finding.fail(told, variant="search-path")


ELSEWHERE = ("db.parameters-match", "service.running[postgres]", "db.port", "db.accepts-connections")


@symptom(
    "db.reachable-from-backend",
    severity=Severity.CRITICAL,
    caused_by=[*ELSEWHERE, "host.cpu[backend]"],
)
def test_the_backend_reaches_the_database(database_link: Link, limits: Limits, finding: Recorder) -> None:
    """The database's name resolves and its port opens from inside the backend."""
    where = f"{database_link.host}:{database_link.port}"
    finding.fact(host=database_link.host, port=database_link.port)
    finding.follows_only_from(*ELSEWHERE)  # a look that came to an end was not short of processor time
    finding.note(f"looked from inside the {database_link.source} with {database_link.tool}")
    if database_link.stranded:
        finding.note(f"the {database_link.source} is on no network")
    if database_link.strangers and database_link.way is not Way.OPEN:
        finding.follows_only_from()
        finding.fail(database_link.astray, variant="astray")
    if database_link.deaf:
        finding.fail(f"{where} from the backend: the name does not resolve, though it is right", variant="resolver")
    elif database_link.way is not Way.OPEN:
        finding.fail(f"{where} from the backend: {_WAYS[database_link.way]}", variant=database_link.way.value)
    elif database_link.seconds is not None:
        finding.measure(f"reaching {where}", database_link.seconds, unit="s", limit=limits.db.link_response)
    else:
        finding.says(f"{where} is open from the backend")


_WAYS = {
    Way.UNRESOLVABLE: "the name does not resolve",
    Way.REFUSED: "connection refused",
    Way.TIMEOUT: "no answer in time",
    Way.UNREACHABLE: "no way there",
}


@symptom("db.parameters-match", severity=Severity.CRITICAL)
def test_the_backend_uses_this_database(database_parameters: Parameters, finding: Recorder) -> None:
    """The backend's database settings lead to the database under inspection."""
    if not database_parameters.given.variables:
        finding.not_applicable("the backend is told nothing of its database: it uses its own defaults")
    for difference in database_parameters.differences:
        finding.fact(variable=difference.variable)
        finding.fail(f"{difference.variable} is {difference.given}, expected {difference.expected}")
    for doubt in database_parameters.doubts:
        finding.warn(doubt)
    for pending in sorted(database_parameters.pending, key=lambda one: not one.too_big):
        finding.fact(setting=pending.name)
        value = f" {pending.value}" if pending.value else ""
        if pending.too_big:
            told = f"PostgreSQL would not start again: {pending.name}{value}, of {size(pending.machine or 0)} of memory"
            finding.warn(told, variant="pending")
        else:
            finding.warn(f"a changed {pending.name}{value} waits for the server's next restart", variant="pending")
    given = database_parameters.given
    finding.says(f"{given.host}:{given.port} leads to the database {database_parameters.through}".strip())


@symptom(
    "db.connection-headroom",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[
        "db.idle-in-transaction",
        "db.blocked-sessions",
        "db.long-running",
        "db.synchronous-commit",
        "db.pool-size-fits",
    ],
)
def test_clients_leave_connection_headroom(sessions: Sessions, limits: Limits, finding: Recorder) -> None:
    """Clients leave connections free, so that the backend can still open one."""
    clients = sessions.clients
    used = limits.db.connections_used
    finding.measure("client connections", len(clients), of=sessions.usable, limit=used)
    own = [session for session in clients if session.user == sessions.role]
    if sessions.role_limit is not None:
        told = f"{len(own)} of the {sessions.role_limit} connections that role {sessions.role} may have"
        if used.crossed(100.0 * len(own) / max(sessions.role_limit, 1), used.fail):
            finding.fail(told, variant="role-limit")
        finding.measure(f"connections of role {sessions.role}", len(own), of=sessions.role_limit, limit=used)
    here = [session for session in clients if session.database == sessions.database]
    if sessions.database_limit is not None:
        told = f"{len(here)} of the {sessions.database_limit} connections that {sessions.database} may have"
        if used.crossed(100.0 * len(here) / max(sessions.database_limit, 1), used.fail):
            finding.fail(told, variant="database-limit")
        finding.measure(f"connections to {sessions.database}", len(here), of=sessions.database_limit, limit=used)
    finding.follows_only_from("db.pool-size-fits", *sessions.reasons_for_the_crowd)
    finding.note(*sessions.holders)


@symptom("db.pool-size-fits", severity=Severity.MAJOR)
def test_the_pools_fit(pools: Pools, sessions: Sessions, limits: Limits, finding: Recorder) -> None:
    """All backends' connection pools together fit into what PostgreSQL allows."""
    finding.measure(
        "connections when all pools are full", pools.connections, of=sessions.usable, limit=limits.db.pool_capacity
    )
    size = f"DATABASE_POOL_SIZE {pools.pool_size}" if pools.pool_size_given else f"{pools.pool_size} (the default)"
    finding.note(f"{pools.backends} × {size}; max_connections {sessions.max_connections}")
    finding.fact(usable=sessions.usable, fitting=max(1, int(sessions.usable * 0.8 / pools.backends)))
