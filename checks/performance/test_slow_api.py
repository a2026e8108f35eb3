"""Slow API response times: what a client measures, what nginx logged, what the backend counts."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity, duration, quantity
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.access_log import ENOUGH, AccessSummary
from fixtures.metrics import MetricsEndpoint, NodeProcess, RouteTime
from fixtures.response_times import ResponseTime
from fixtures.usage import Activity

BUSY_DATABASE = (
    "db.idle-in-transaction",
    "db.blocked-sessions",
    "db.long-running",
    "db.synchronous-commit",
    "db.slow-statements",
    "db.connection-headroom",
    "db.cpu",
    "db.query",
)
BUSY_MACHINE = ("host.cpu[backend]", "host.cpu[nginx]", "host.load", "host.memory", "host.swap", "cache.slow-commands")
ILL = ("service.health-endpoint[direct]", "service.health-endpoint[edge]", "service.running[backend]", "host.docker")


@symptom(
    "api.response-time",
    severity=Severity.MAJOR,
    smoke=True,
    caused_by=["api.response-time[direct]", "api.nodejs", *BUSY_DATABASE, *BUSY_MACHINE, *ILL],
)
def test_the_api_answers_quickly(response_time: ResponseTime, limits: Limits, finding: Recorder) -> None:
    """The API answers in less than two seconds."""
    finding.fact(url=response_time.url)
    times = response_time.median
    finding.measure(f"median of {response_time.rounds} answers", times.total, unit="s", limit=limits.api.response)
    for name, seconds in (
        ("name lookup", times.lookup),
        ("connect", times.connect),
        ("TLS", times.tls),
        ("first byte", times.first_byte),
    ):
        if seconds is not None:
            finding.measure(name, seconds, unit="s")
    if response_time.cut_short:
        finding.warn(f"one of {response_time.rounds + 1} requests got no answer: {response_time.cut_short}")


@symptom(
    "api.access-log-latency",
    severity=Severity.MAJOR,
    caused_by=["api.response-time", "api.nodejs", *BUSY_DATABASE],
)
def test_users_are_answered_quickly(access: AccessSummary, limits: Limits, finding: Recorder) -> None:
    """95 % of the users' latest requests were answered in less than two seconds."""
    if access.timed < ENOUGH:
        few = access.elsewhere or f"too little traffic: {access.requests} requests in 10 min"
        untimed = access.untimed or f"nginx logs no request times: {access.timed} of {access.requests} are timed"
        finding.not_applicable(untimed if access.requests >= ENOUGH else few)
    finding.measure("95th percentile", access.p95 or 0.0, unit="s", limit=limits.api.response)
    finding.measure("median", access.p50 or 0.0, unit="s")
    finding.measure("99th percentile", access.p99 or 0.0, unit="s")
    finding.note(*(f"{r.name}: {duration(r.p95 or 0.0)} at the 95th of {r.requests}" for r in access.slowest))


@symptom(
    "api.error-rate",
    severity=Severity.CRITICAL,
    caused_by=[
        *ILL,
        *BUSY_DATABASE,
        "service.restart-loop[backend]",
        "service.stays-up[backend]",
        "service.log-errors[backend]",
        "logs.sql-errors",
        "deploy.migrations",
        "cache.ping",
        "cache.clients",
        "cache.memory",
        "db.port",
        "db.accepts-connections",
        "db.login",
        "db.reachable-from-backend",
        "network.nginx-upstream",
        "network.nginx-connections",
    ],
)
def test_requests_do_not_fail(access: AccessSummary, limits: Limits, finding: Recorder) -> None:
    """Less than one in a hundred requests of the last 5 minutes was answered 5xx."""
    if access.recent_requests < ENOUGH:
        few = f"too little traffic: {access.recent_requests} requests in 5 min, {ENOUGH} say something"
        finding.not_applicable(access.elsewhere or few)
    failed, asked = access.recent_server_errors, access.recent_requests
    if access.errors_over:
        finding.measure("requests in 5 min answered 5xx", failed, of=asked)
        if limits.api.errors.crossed(100.0 * failed / asked, limits.api.errors.warn):
            finding.warn(f"{failed} of {asked} requests in 5 min were answered 5xx, none any more")
    else:
        finding.measure("requests in 5 min answered 5xx", failed, of=asked, limit=limits.api.errors)
    finding.measure("of the newest lines", access.server_errors, of=access.requests)
    if limits.api.errors.crossed(100.0 * access.limited / asked, limits.api.errors.warn):
        told = f"{access.limited} of {asked} requests in 5 min were turned away by nginx' own limit"
        finding.warn(told, variant="limited")
    finding.note(*(f"{route.name}: {route.server_errors} of {route.requests}" for route in access.failing))


@symptom("api.metrics", severity=Severity.MINOR, smoke=True, caused_by=ILL)
def test_the_backend_has_metrics(metrics_endpoint: MetricsEndpoint, finding: Recorder) -> None:
    """The metrics endpoint answers with metrics that can be read."""
    finding.fact(url=metrics_endpoint.url)
    finding.says(f"{len(metrics_endpoint.families)} metrics")
    if metrics_endpoint.reason == "absent":
        finding.warn(metrics_endpoint.message, variant="absent")
    assert metrics_endpoint.reason in ("", "absent"), metrics_endpoint.message


@symptom(
    "api.duration-histogram",
    severity=Severity.MAJOR,
    caused_by=["api.access-log-latency", "api.response-time", "api.nodejs", *BUSY_DATABASE],
)
def test_no_route_is_slow(route_times: tuple[RouteTime, ...], limits: Limits, finding: Recorder) -> None:
    """95 % of each route's answers since the start took less than two seconds."""
    if not route_times:
        finding.not_applicable(f"no route has had {ENOUGH} requests since the start")
    slowest, limit = route_times[0], limits.api.response
    # It counts since the start and never forgets: it fails only as long as nginx' log of the last minutes agrees.
    if slowest.lately is None or not limit.crossed(slowest.lately, limit.fail):
        limit = limit.model_copy(update={"fail": None})
    finding.measure(f"95th percentile of {slowest.route} since the start", slowest.p95, unit="s", limit=limit)
    finding.note(
        "how quick it is now is not known: nginx has logged too little, or no times"
        if slowest.lately is None
        else f"95th percentile of all that nginx has logged lately: {duration(slowest.lately)}"
    )
    finding.note(*(f"{one.route}: {duration(one.p95)} at the 95th of {one.requests}" for one in route_times))


@symptom("api.nodejs", severity=Severity.MAJOR, caused_by=["host.cpu[backend]", "logs.flood[backend]", "host.load"])
def test_the_node_process_keeps_up(node_process: NodeProcess, limits: Limits, finding: Recorder) -> None:
    """The serving Node process has a free event loop and room in its heap."""
    if node_process.event_loop_lag is None and node_process.heap_used is None:
        finding.not_applicable("the metrics say nothing of Node's event loop and heap")
    if node_process.event_loop_lag is not None:
        finding.measure("event-loop lag", node_process.event_loop_lag, unit="s", limit=limits.api.event_loop_lag)
    if node_process.heap_used is not None and node_process.heap_limit:
        finding.measure("heap", node_process.heap_used, unit="B", of=node_process.heap_limit, limit=limits.api.heap)
    elif node_process.heap_used is not None:
        finding.measure("heap", node_process.heap_used, unit="B")
    if node_process.open_handles is not None:
        finding.measure("open handles", node_process.open_handles)


@symptom("api.memory-growth", severity=Severity.MINOR, caused_by=["logs.flood[{service}]"])
def test_memory_does_not_grow(activity: Activity, limits: Limits, finding: Recorder) -> None:
    """The service's memory does not grow from one look to the next."""
    finding.measure("memory", activity.memory[-1], unit="B")
    if not activity.growth:
        finding.says(f"{activity.name} uses {quantity(activity.memory[-1], 'B')} and does not grow")
        return
    finding.measure("growth a second", activity.growth, unit="B", limit=limits.api.memory_growth)
    if activity.memory_limit:
        left = max(activity.memory_limit - activity.memory[-1], 0) / activity.growth
        finding.note(f"its limit of {quantity(activity.memory_limit, 'B')} is reached in {duration(left)} like this")
