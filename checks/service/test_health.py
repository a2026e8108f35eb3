"""Health endpoints: what the API says of itself, asked directly and as users reach it."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity, duration, quantity
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.health import Dependency, Health
from fixtures.http import Timings

DATABASE = (
    "service.running[postgres]",
    "db.port",
    "db.accepts-connections",
    "db.login",
    "db.query",
    "db.connection-headroom",
    "db.reachable-from-backend",
    "db.parameters-match",
    "db.blocked-sessions",
    "db.log-errors",
    "network.service-link[backend-to-postgres]",
)
CACHE = (
    "service.running[redis]",
    "service.oom-killed[redis]",
    "cache.ping",
    "cache.clients",
    "cache.memory",
    "network.service-link[backend-to-redis]",
)
BACKEND = (
    "service.running[backend]",
    "service.stays-up[backend]",
    "service.restart-loop[backend]",
    "service.exit-code[backend]",
    "service.port-conflict",
    "service.required-env[backend]",
    "service.oom-killed[backend]",
    "host.cpu[backend]",
    "host.docker",
)
EDGE = (
    "service.health-endpoint[direct]",
    "service.running[nginx]",
    "service.stays-up[nginx]",
    "service.restart-loop[nginx]",
    "service.exit-code[nginx]",
    "network.backend[{way}]",
)
WHO = {"postgres": DATABASE, "redis": CACHE}


@symptom(
    "service.health-endpoint",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[*EDGE, *BACKEND, *DATABASE, *CACHE],
)
def test_the_health_endpoint_says_healthy(health: Health, limits: Limits, finding: Recorder) -> None:
    """The health URL answers in time, with 2xx and a body that says healthy."""
    exchange = health.exchange
    url = exchange.url.partition("?")[0]
    missed = next((dependency.role for dependency in health.down if dependency.role), "postgres")
    finding.fact(url=url, address=exchange.address, role=missed)
    finding.note(f"{exchange.method} {url} at {exchange.address}: {phases(exchange.timings)}")
    if exchange.distrust:
        finding.note(f"its certificate is not trusted here ({exchange.distrust}), which does not count for health")
    for dependency in health.down:
        finding.note(f"{dependency.name}: {dependency.error or 'down'}")
    if health.down and all(dependency.role for dependency in health.down):
        # The body says whose fault it is: other faults of today don't explain it.
        finding.follows_only_from(*EDGE, *(cause for dependency in health.down for cause in WHO[dependency.role]))
    if exchange.problem:
        silent = exchange.problem in ("silent", "unfinished")
        finding.fail(f"{exchange.address}: {exchange.message}", variant="silent" if silent else "unreachable")
    elif exchange.status == 404:
        finding.fail(f"no health endpoint: 404 for {', '.join(health.tried)}", variant="not-found")
    elif exchange.ok and health.form == "page":
        finding.fail("the page came in place of the API's answer", variant="not-found")
    elif health.down or health.healthy is False:
        said = f"HTTP {exchange.status}, and the body says {health.word or 'unhealthy'}{blamed(health.down)}"
        finding.fail(said, variant="dependency")
    elif exchange.status in (502, 503, 504):
        finding.fail(
            f"HTTP {exchange.status}: {exchange.server or 'the server'} gets no answer from the API", "gateway"
        )
    elif not exchange.ok:
        sent_on = f", which sends to {exchange.location[:48]}" if exchange.location else ""
        finding.fail(f"HTTP {exchange.status}{sent_on}, expected 2xx", variant="not-found")
    elif exchange.cut:
        finding.fail(f"more than {quantity(exchange.size, 'B')} came, which is no health answer", variant="not-found")
    else:
        finding.says(f"healthy within {duration(exchange.timings.total)}")
        finding.measure("answer after", exchange.timings.total, unit="s", limit=limits.service.health_response)
        if health.healthy is None:
            finding.warn(f"HTTP {exchange.status}, but the body does not say whether it is healthy", variant="mute")


def blamed(down: tuple[Dependency, ...]) -> str:
    """Which dependencies are down, as the end of a sentence."""
    return f": {', '.join(dependency.name for dependency in down)} down" if down else ""


def phases(timings: Timings) -> str:
    """The table that curl would show, in a line."""
    named = (
        ("lookup", timings.lookup),
        ("connect", timings.connect),
        ("TLS", timings.tls),
        ("first byte", timings.first_byte),
        ("total", timings.total),
    )
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in named if seconds is not None)
