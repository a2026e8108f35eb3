"""Log analysis: what the logs say of the services, of their clients, and of themselves."""

from __future__ import annotations

from allodoc_health.finding import Escalation, Recorder, Severity, quantity
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.access_log import ENOUGH, AccessSummary
from fixtures.log_habits import Leaks, LevelRates, LogVolume, SqlErrors

FEW = 5
"""Errors or warnings below which their becoming more says nothing."""


@symptom("logs.levels", severity=Severity.MINOR, caused_by=["service.log-errors[{service}]", "logs.flood[{service}]"])
def test_errors_do_not_become_more(level_rates: LevelRates, limits: Limits, finding: Recorder) -> None:
    """Errors and warnings come no more often than in the hour before."""
    finding.measure("errors in 10 min", level_rates.errors)
    finding.measure("warnings in 10 min", level_rates.warnings)
    finding.says(f"{level_rates.errors} errors and {level_rates.warnings} warnings in 10 min")
    for what, now, earlier in (
        ("errors", level_rates.errors, level_rates.earlier_errors),
        ("warnings", level_rates.warnings, level_rates.earlier_warnings),
    ):
        ratio = level_rates.ratio(now, earlier)
        if now >= FEW and ratio is not None:
            finding.measure(f"{what}, times as often as in the hour before,", ratio, limit=limits.logs.error_ratio)


@symptom("logs.top-clients", severity=Severity.MINOR)
def test_no_client_crowds_out_the_others(access: AccessSummary, limits: Limits, finding: Recorder) -> None:
    """No single address makes most of the requests."""
    if access.requests < ENOUGH:
        finding.not_applicable(access.elsewhere or f"too little traffic: {access.requests} requests in 10 min")
    if not access.clients:
        finding.not_applicable("nginx logs no client's address")
    if access.clients == 1 and access.top_client_is_internal:
        finding.not_applicable(f"nginx sees every client as {access.top_client}, an address of the stack itself")
    finding.fact(client=access.top_client)
    finding.measure(
        f"requests by {access.top_client}", access.top_client_requests, of=access.requests, limit=limits.logs.one_client
    )
    finding.note(f"{access.clients} addresses in all")


@symptom("logs.leaked-secrets", severity=Severity.MAJOR)
def test_the_log_holds_no_secret(leaks: Leaks, finding: Recorder) -> None:
    """No password, token or key stands in the service's log."""
    finding.says(f"none in {leaks.lines} lines")
    for leak in leaks.found:
        finding.warn(f"{leak.count} lines hold a {leak.kind}, the last at {leak.last:%H:%M:%S} UTC")
        finding.note(leak.example)
        finding.escalate(Escalation.EMERGENCY_MEETING, f"a {leak.kind} stands in a log and has to be replaced")


REFUSED_BY = (
    "deploy.migrations",
    "db.port",
    "db.accepts-connections",
    "db.connection-headroom",
    "db.login",
    "db.query",
    "db.sequences",
    "db.blocked-sessions",
    "db.long-running",
    "db.synchronous-commit",
    "db.deadlocks",
    "db.log-errors",
    "network.service-link[backend-to-postgres]",
)
"""What makes queries fail whatever they ask for."""


@symptom("logs.sql-errors", severity=Severity.MAJOR, caused_by=[*REFUSED_BY, "auth.account"])
def test_queries_of_the_application_succeed(sql_errors: SqlErrors, limits: Limits, finding: Recorder) -> None:
    """The backend logged no query error in the last 10 minutes.

    What the database lacks or forbids fails at once: no user's mistake brings that about, and it goes on.
    """
    if not sql_errors.misses_users_alone:
        finding.follows_only_from(*REFUSED_BY)
    if sql_errors.refusals:
        worst = sql_errors.refusals[0]
        finding.fact(thing=worst.thing)
        finding.fail(f"{worst.what} ({worst.count} × in 10 min)", variant=worst.kind)
        finding.note(*(f"{refusal.count} × {refusal.what}" for refusal in sql_errors.refusals[1:]))
    if sql_errors.over:
        finding.measure("query errors in 10 min", sql_errors.total)
        if limits.logs.sql_errors.crossed(sql_errors.total, limits.logs.sql_errors.warn):
            finding.warn(f"{quantity(sql_errors.total, 'query errors')} in 10 min, none any more")
    else:
        finding.measure("query errors in 10 min", sql_errors.total, limit=limits.logs.sql_errors)
    finding.note(*(f"{count} × {name}" for name, count in sql_errors.classes.items()))


@symptom("logs.volume", severity=Severity.MINOR)
def test_the_log_does_not_fill_the_disk(log_volume: LogVolume, limits: Limits, finding: Recorder) -> None:
    """The service's log is rotated and takes little of the disk."""
    finding.measure("of the disk is log", log_volume.size, unit="B", of=log_volume.disk, limit=limits.logs.volume)
    if log_volume.rotated is False:
        finding.warn("the log is not rotated: it grows until the disk is full", variant="unbounded")
