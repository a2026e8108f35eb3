"""Application errors: what the services themselves log as wrong."""

from __future__ import annotations

from datetime import datetime

from allodoc_health.finding import Escalation, Recorder, Severity, duration
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.logs import LogGroup, LogSummary

SHOWN = 5

OWN = (
    "service.running[{service}]",
    "service.exit-code[{service}]",
    "service.restart-loop[{service}]",
    "service.oom-killed[{service}]",
    "service.required-env[{service}]",
)
MACHINE = ("host.disk", "host.memory", "host.docker")
POSTGRES = ("service.running[postgres]", "service.oom-killed[postgres]", "service.log-errors[postgres]")
DATABASE = (
    "db.port",
    "db.accepts-connections",
    "db.login",
    "db.query",
    "db.connection-headroom",
    "db.parameters-match",
    "db.idle-in-transaction",
    "db.blocked-sessions",
    "db.deadlocks",
    "db.long-running",
    "db.synchronous-commit",
    "db.log-errors",
    "deploy.migrations",
    "logs.sql-errors",
)
REDIS = ("service.running[redis]", "service.oom-killed[redis]")
CACHE = ("cache.ping", "cache.clients", "cache.memory", "cache.persistence")
STORES = (*POSTGRES, *DATABASE, "db.reachable-from-backend", *REDIS, *CACHE)
TO_STORES = ("network.service-link[backend-to-postgres]", "network.service-link[backend-to-redis]")
BEHIND_NGINX = ("network.service-link[nginx-to-backend]", "network.service-link[nginx-to-frontend]")
MAY_FOLLOW_FROM = {
    "postgres": DATABASE,
    "redis": CACHE,
    "backend": (*STORES, *TO_STORES, "service.health-endpoint[direct]"),
    "frontend": (),
    "nginx": (
        "service.running[backend]",
        "service.running[frontend]",
        "service.health-endpoint[direct]",
        "network.backend[edge]",
        "network.nginx-connections",
        "network.nginx-upstream",
        *BEHIND_NGINX,
        *STORES,
    ),
}
"""Whose faults show up in whose log, besides its own and the machine's."""

FOREIGN = [f"{service}: {cause}" for service, causes in MAY_FOLLOW_FROM.items() for cause in causes]


@symptom("service.log-errors", severity=Severity.MAJOR, caused_by=[*OWN, *MACHINE, *FOREIGN])
def test_the_log_has_no_errors(log_errors: LogSummary, limits: Limits, now: datetime, finding: Recorder) -> None:
    """The service logged no error in the last 10 minutes."""
    covered = duration(log_errors.seconds)
    finding.says(f"no error among {log_errors.lines} lines in {covered}")
    finding.note(*(line(group) for group in log_errors.groups[:SHOWN]))
    if log_errors.truncated and not log_errors.lines:
        finding.not_applicable("its newest lines are too long to be looked at")
    if log_errors.truncated:
        finding.note(f"only its newest part was read: {log_errors.lines} lines of the last {covered}")
    if log_errors.damage:
        finding.fail(f"it tells of damaged data: {log_errors.damage[0].damage}", variant="damage")
        finding.escalate(Escalation.NOW, "data may be damaged")
    if not log_errors.errors:
        return
    if log_errors.fatal:
        finding.fail(f"{log_errors.fatal[0].count} × fatal: {log_errors.fatal[0].message[:56]}", variant="fatal")
    if log_errors.current:
        finding.measure("errors a minute", log_errors.rate, limit=limits.service.error_rate)
    else:
        ago = duration((now - max(group.last for group in log_errors.groups)).total_seconds())
        count = f"{log_errors.errors} error{'s' if log_errors.errors > 1 else ''}"
        finding.warn(f"{count} in {covered}, none since {ago} ago or the last start")


def line(group: LogGroup) -> str:
    """A group of errors as a line of proof."""
    first, last = (moment.strftime("%H:%M:%S") for moment in (group.first, group.last))
    when = f"at {last}" if group.count == 1 else f"{first} to {last}"
    stack = ", with a stack trace" if group.with_stack else ""
    return f"{group.count} × {group.level}: {group.message[:200]} ({when} UTC{stack})"
