"""Reports by hand, and pages made of them in this process: many a page a second, and incidents that nobody need stage.

Their evidence is of the classes that the probes make, their remedies are those of the guide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from allodoc_health.finding import Finding, Measurement, Outcome, Severity
from allodoc_health.limits import Limit, Limits
from allodoc_health.probe import Unobserved
from allodoc_health.remedy import remedy_for, render
from allodoc_health.run import Defect, TargetReport
from allodoc_health.runtimes.docker_engine import DockerWords
from allodoc_health.runtimes.interface import Health, HealthStatus, ServiceState, Status
from allodoc_health.target import ROLES, Services, Target, Waiver
from allodoc_health.verdict import explain, judge
from allodoc_health.words import vocabulary
from fixtures.certificates import Certificate
from fixtures.deploy_window import Sample, summarise
from fixtures.http import Exchange, Timings
from fixtures.logs import LogGroup, LogSummary
from fixtures.page import Page
from fixtures.postgres import RoundTrip
from fixtures.postgres_sessions import Session, Sessions
from fixtures.postgres_statements import Statement, StatementStatistics
from fixtures.response_times import ResponseTime
from fixtures.tls import Handshake, Handshakes, TlsHost
from fixtures.working_tree import Revisions
from reports.comparison import COMPARISONS, Change, Comparison, Direction, Kind
from reports.history import PAST, Forecast, Past
from reports.html import HealthReport

NOW = datetime(2026, 11, 24, 2, 12, 40, tzinfo=UTC)
NAMES = {role: f"allodoc_{role}_prod" for role in ROLES}
PageOf = Callable[..., str]


@pytest.fixture
def page_of(pytestconfig: pytest.Config, tmp_path: Path) -> PageOf:
    """``page_of(report, …)`` is the page on these targets, as a run that found that would have written it.

    What is under test is made with the configuration of the tests themselves, and is a plugin only while it writes.
    """
    path = tmp_path / "page.html"

    def make(*reports: TargetReport, past: Past | None = None, comparison: Comparison | None = None) -> str:
        plugin = HealthReport(pytestconfig, path)
        pytestconfig.stash[PAST] = {report.target.name: past for report in reports if past}
        pytestconfig.stash[COMPARISONS] = {report.target.name: comparison for report in reports if comparison}
        pytestconfig.pluginmanager.register(plugin)
        try:
            plugin.pytest_html_results_table_header(plugin._report.table_header)
            for report in reports:
                plugin.pytest_health_report(report)
                for each in _test_reports(report):
                    plugin.pytest_runtest_logreport(each)
            plugin.pytest_sessionfinish(SimpleNamespace(config=pytestconfig))  # type: ignore[arg-type]  # all it asks for
        finally:
            pytestconfig.pluginmanager.unregister(plugin)
            pytestconfig.stash[PAST], pytestconfig.stash[COMPARISONS] = {}, {}
        assert not plugin.trouble, plugin.trouble
        return path.read_text("utf-8")

    return make


def _test_reports(report: TargetReport) -> Iterable[pytest.TestReport]:
    """What pytest would have reported of these findings."""
    for finding in report.findings:
        told = [("target", report.target.name), ("symptom", finding.name), ("severity", finding.severity.value)]
        told.append(("findings", "[]"))
        for when in ("setup", "call", "teardown"):
            yield pytest.TestReport(
                finding.nodeid,
                ("", 0, ""),
                {},
                "passed",
                None,
                when,
                user_properties=list(told) if when == "call" else [],
            )


def finding(
    id: str,
    message: str = "as it should be",
    outcome: Outcome = Outcome.PASS,
    *,
    severity: Severity = Severity.MAJOR,
    **more: Any,
) -> Finding:
    """A finding of the real suite's."""
    chapter = {"db": "db", "auth": "auth", "logs": "logs", "deploy": "deployment", "tls": "network"}
    folder = chapter.get(id.partition(".")[0], "service")
    name = id.partition(".")[2].replace("-", "_")
    parameter = more.get("parameter")
    nodeid = f"checks/{folder}/test_{name}.py::test_{name}" + (f"[{parameter}]" if parameter else "")
    return Finding(
        id=id,
        target="prod",
        outcome=outcome,
        severity=severity,
        title=more.pop("title", "It is as it should be."),
        message=message,
        nodeid=nodeid,
        **more,
    )


def measured(name: str, value: float, unit: str, limit: Limit) -> tuple[Measurement, ...]:
    """A measurement of a finding."""
    return (Measurement(name, value, unit, limit.warn, limit.fail, limit.source, limit.worse),)


def report_of(*findings: Finding, **more: Any) -> TargetReport:
    """The report of a run that found this, besides a few things that are well."""
    services = Services.model_validate({role: {"container": NAMES[role]} for role in ROLES})
    target = Target(name="prod", origin="discovered", services=services, started=NOW, **more.pop("settings", {}))
    found = explain([*findings, *well()])
    remedies = {}
    for each in found:
        remedy = remedy_for(each.id, each.variant) if each.outcome is not Outcome.PASS else None
        if remedy and each.outcome in (Outcome.FAIL, Outcome.WARN, Outcome.WAIVED):
            facts = {**each.facts, "parameter": each.parameter or ""}
            remedies[each.name] = render(remedy, vocabulary(target, DockerWords(NAMES), facts))
    found = [replace(each, remedy=remedies[each.name].anchor) if each.name in remedies else each for each in found]
    return TargetReport(
        target=target,
        started=NOW,
        seconds=2.4,
        findings=found,
        verdict=judge(found, NOW),
        evidence=more.pop("evidence", evidence()),
        timings={"sessions": 0.03, "response_time[edge]": 0.41},
        remedies=remedies,
        **more,
    )


def well() -> tuple[Finding, ...]:
    """What is well in every one of these reports."""
    limits = Limits()
    return (
        finding("host.memory", measurements=measured("memory available", 41, "%", limits.host.memory_available)),
        finding("host.disk", parameter="root", measurements=measured("used", 72, "%", limits.host.disk_used)),
        finding("logs.levels", parameter="nginx"),
        finding("deploy.revision"),
        finding("db.replication", "there is no replica", Outcome.NOT_APPLICABLE),
        finding("service.resource-limits", "no memory limit", Outcome.WARN, severity=Severity.MINOR, parameter="redis"),
    )


def evidence() -> dict[str, Any]:
    """One piece of evidence of each kind that the page shows."""
    exchange = Exchange("GET", "https://app.allodoc.example/", "10.0.0.5:443", Timings(0.001, 0.002, 0.01, 0.2, 0.21))
    certificate = Certificate(
        "app.allodoc.example",
        "R11",
        ("app.allodoc.example",),
        NOW - timedelta(60),
        NOW + timedelta(30),
        False,
        False,
        1,
    )
    statement = Statement('SELECT * FROM "patients" WHERE id = $1', "77", 1200, 0.004, 0.9, 4.8, 60.0)
    session = Session(
        pid=812,
        kind="client backend",
        user="allodoc_prod",
        database="allodoc_prod",
        application="api",
        address="10.0.0.7",
        state="idle in transaction",
        wait="Client: ClientRead",
        state_age=720.0,
        transaction_age=720.0,
        statement_age=None,
        waited=None,
        lock="",
        blocked_by=(),
        statement="LOCK TABLE patients",
    )
    log = LogSummary(
        lines=412, seconds=600, truncated=True, warnings=3, errors=61, since_start=61, current=61,
        groups=(LogGroup("error", "sorry, too many clients already", 61, 61, NOW - timedelta(minutes=4), NOW),),
    )  # fmt: skip
    states = {
        role: ServiceState(
            role,
            NAMES[role],
            Status.RUNNING,
            image=f"allodoc/{role}:2.14.1",
            health=Health(HealthStatus.HEALTHY, 0, "ok", NOW),
            started_at=NOW - timedelta(3),
            exit_code=1,
            error="it ended",
            memory_limit=2**30,
        )
        for role in ROLES
    }
    return {
        "deploy_window": summarise(
            [Sample(number / 5, "502" if 20 <= number < 24 else "") for number in range(60)], "/api/v1/health", NOW, 12
        ),
        "service_states": states,
        "response_time[edge]": ResponseTime("https://app.allodoc.example/api", 3, exchange.timings, 0.3),
        "response_time[direct]": ResponseTime(
            "http://10.0.0.6:3000/api", 3, Timings(None, 0.001, None, 0.1, 0.11), 0.2
        ),
        "loaded_page[edge]": Page(exchange),
        "statement_statistics": StatementStatistics("", slowest=(statement,), heaviest=(statement,)),
        "sessions": Sessions(100, 3, 0, "allodoc_prod", "allodoc_prod", None, None, 0, 0, (session,), (), ()),
        "log_errors[postgres]": log,
        "handshakes": Handshakes(
            (
                Handshake(
                    TlsHost("app.allodoc.example", True, ""), "10.0.0.5:443", version="TLSv1.3", chain=(certificate,)
                ),
            )
        ),
        "round_trip": RoundTrip(0.0002, "16.4", False, False, "", NOW - timedelta(9)),
        "revisions": Revisions("/opt/allodoc", "2b296cd7eba7", "main", "", {"backend": "2b296cd7eba7"}),
        "deploy_log": {"not_applicable": "there is none"},
    }


def healthy() -> TargetReport:
    """All is well."""
    return report_of(evidence=evidence())


def out_of_connections() -> TargetReport:
    """PostgreSQL has no connection left."""
    limit = Limits().db.connections_used
    return report_of(
        finding(
            "db.connection-headroom",
            f"94 of 97 client connections = 97 %   (fail at {limit.fail:.0f} %)",
            Outcome.FAIL,
            severity=Severity.CRITICAL,
            measurements=measured("client connections", 96.9, "%", limit),
            details=("by state: 61 idle in transaction, 33 idle", "by application: 94 api"),
            since=NOW - timedelta(minutes=17),
        ),
        finding(
            "db.login", "too many clients", Outcome.FAIL, severity=Severity.CRITICAL, causes=("db.connection-headroom",)
        ),
        finding("db.query", "blocked by db.login", Outcome.BLOCKED, blocked_by="db.login"),
        finding("db.slow-statements", "blocked by db.login", Outcome.BLOCKED, blocked_by="db.login"),
    )


def crash_loop() -> TargetReport:
    """The backend lacks a setting, and ends whenever it is started."""
    cause = ("service.required-env[backend]",)
    return report_of(
        finding(
            "service.required-env",
            "not set in backend: JWT_ACCESS_SECRET",
            Outcome.FAIL,
            severity=Severity.CRITICAL,
            parameter="backend",
        ),
        finding("service.restart-loop", "started again 9 times", Outcome.FAIL, parameter="backend", causes=cause),
        finding(
            "network.backend", "HTTP 502", Outcome.FAIL, parameter="edge", causes=("service.restart-loop[backend]",)
        ),
        finding("auth.login", "blocked", Outcome.BLOCKED, blocked_by="service.restart-loop[backend]"),
    )


def expired_and_slow() -> TargetReport:
    """The certificate expired two days ago, and the API is slow besides."""
    limits = Limits()
    return report_of(
        finding(
            "tls.expiry",
            "expired 2 d ago, on 2026-11-22 00:09 UTC",
            Outcome.FAIL,
            severity=Severity.CRITICAL,
            parameter="app.allodoc.example",
            measurements=measured("app.allodoc.example lasts", -2 * 86400, "s", limits.tls.lasts),
            since=NOW - timedelta(2),
        ),
        finding(
            "api.response-time",
            "median of 3 answers 3.3 s (fail at 3 s)",
            Outcome.FAIL,
            parameter="direct",
            measurements=measured("median of 3 answers", 3.3, "s", Limit(warn=2, fail=3)),
        ),
    )


def daemon_frozen() -> TargetReport:
    """The Docker daemon gives no answer."""
    blocked = [
        finding(f"service.{name}", "blocked by host.docker", Outcome.BLOCKED, parameter=role, blocked_by="host.docker")
        for role in ROLES
        for name in ("running", "stays-up", "exit-code")
    ]
    return report_of(
        finding("host.docker", "the Docker daemon gave no answer within 2 s", Outcome.FAIL, severity=Severity.CRITICAL),
        *blocked,
        unobserved={"service_states": Unobserved("failed", "no answer", "host.docker")},
        evidence={},
    )


SITUATIONS: Mapping[str, Callable[[], TargetReport]] = {
    "healthy": healthy,
    "out of connections": out_of_connections,
    "crash loop": crash_loop,
    "expired and slow": expired_and_slow,
    "daemon frozen": daemon_frozen,
}
"""The five nights that the page was drawn for."""


def everything() -> tuple[TargetReport, Past, Comparison]:
    """A report in which every part of the page has something to say, with a past and a run to compare with."""
    waiver = {"reason": "comes with the new host", "owner": "ops", "expires": NOW + timedelta(30)}
    old = {"symptom": "host.load", "reason": "as ever", "owner": "ops", "expires": NOW - timedelta(30)}
    waivers = (Waiver.model_validate({"symptom": "logs.volume", **waiver}), Waiver.model_validate(old))
    report = out_of_connections()
    report = replace(
        report,
        findings=[
            *report.findings,
            finding("logs.volume", "much log", Outcome.WAIVED, details=("waived until 2026-12-24 by ops",)),
        ],
        target=report.target.model_copy(update={"waivers": waivers, "undiscovered": "no right to ask Docker"}),
        defects=(Defect("checks/db/test_x.py::test_x", "db.x", "KeyError: 'x'", "prod"),),
        not_run=("db.cpu",),
        cut_short="interrupted",
        warnings=("the waiver of host.load ran out",),
    )
    points = tuple((NOW - timedelta(days=day), 60.0 + day) for day in (3, 2, 1, 0))
    past = Past(
        runs=4,
        trends={("db.connection-headroom", "client connections"): points},
        since={"service.resource-limits[redis]": NOW - timedelta(2)},
        failed_this_month={"db.connection-headroom": 3},
        flapping=frozenset({"db.connection-headroom"}),
        forecasts={("host.disk[root]", "used"): Forecast(2.0, 9.0, 90.0)},
        recovery={"db.connection-headroom": timedelta(minutes=21)},
    )
    changes = (
        Change(Kind.FINDING, "db.connection-headroom", "pass", "fail", Direction.WORSE),
        Change(Kind.CONFIGURATION, "image of backend", "2.14.0", "2.14.1"),
    )
    return report, past, Comparison(NOW - timedelta(days=1), NOW, changes, ("db.gone",), ("db.new",))


def written(page: str, folder: Path) -> str:
    """The address of a page in a file."""
    path = folder / "report.html"
    path.write_text(page, "utf-8")
    return path.as_uri()
