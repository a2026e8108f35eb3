"""The application does not start: containers that do not run, ports that are taken, settings that are missing."""

from __future__ import annotations

from allodoc_health.finding import Escalation, Recorder, Severity
from allodoc_health.limits import Limit, Limits
from allodoc_health.runtimes.interface import HealthStatus
from allodoc_health.symptom import symptom
from fixtures.containers import WHAT_ENDS_A_SERVICE, HealthReport, Life, RuntimeReport, lasted
from fixtures.env_files import EnvFiles, Fault
from fixtures.environment import ServiceEnvironment
from fixtures.ports import PortUse


@symptom("host.docker", severity=Severity.CRITICAL)
def test_the_runtime_answers(runtime_report: RuntimeReport, limits: Limits, finding: Recorder) -> None:
    """What runs the services answers in time."""
    info = runtime_report.info
    finding.measure("answer after", info.response_seconds, unit="s", limit=limits.host.docker_response)
    finding.note(f"{info.name} {info.version}")
    if runtime_report.disk_used is not None:
        finding.note(f"the disk with its data in {info.data_root} is {runtime_report.disk_used:.0f} % full")


@symptom(
    "service.running",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=WHAT_ENDS_A_SERVICE,
)
def test_the_service_runs(standing: Life, finding: Recorder) -> None:
    """The service's container exists and runs."""
    finding.follows_only_from(*standing.stop_follows_from)
    finding.says(standing.sentence)
    if not standing.running:
        finding.began(standing.ended)
        finding.fail(standing.sentence, variant="restarting" if standing.looping else standing.status)
        if standing.error:
            finding.note(f"the engine said: {standing.error}")


@symptom(
    "service.healthcheck",
    severity=Severity.MAJOR,
    smoke=True,
    caused_by=[
        "service.restart-loop[{service}]",
        "service.oom-killed[{service}]",
        "service.resource-limits[{service}]",
        "service.required-env[{service}]",
        "service.port-conflict",
        "service.running",
        "service.health-endpoint",
        "service.app-loads",
        "db.port",
        "db.accepts-connections",
        "db.connection-headroom",
        "db.query",
        "cache.ping",
        "cache.clients",
    ],
)
def test_the_health_check_passes(runtime_health: HealthReport, limits: Limits, finding: Recorder) -> None:
    """The runtime's own health check of the service passes."""
    finding.follows_only_from(*runtime_health.suspects)
    health = runtime_health.health
    if health.status is HealthStatus.HEALTHY:
        finding.says(f"healthy when last asked, {lasted(runtime_health.checked_ago)} ago")
        return
    finding.note(f"{health.failing_streak} failed in a row; the last one said: {health.last_output or 'nothing'}")
    if health.status is HealthStatus.UNHEALTHY:
        finding.fail(f"{runtime_health.name} is unhealthy: {health.failing_streak} health checks failed")
        return
    limit = limits.service.health_starting
    if health.patience is not None:
        limit = Limit(warn=health.patience, source="interval, time-out and retries of its own health check")
    finding.measure("not yet healthy after", runtime_health.uptime, unit="s", limit=limit)


@symptom("service.port-conflict", severity=Severity.CRITICAL)
def test_the_service_has_its_port(port_use: PortUse, limits: Limits, finding: Recorder) -> None:
    """The published port is held by the service that it leads to."""
    port, intruder = port_use.port, port_use.intruder
    finding.fact(service=port_use.service)
    finding.note(
        *(f"{one.address}: {one}, {one.who}, run by {one.user or 'nobody known'}" for one in port_use.listeners)
    )
    if intruder is not None:
        finding.fact(pid=intruder.pid or "PID")
        finding.fail(f"port {port} of {port_use.service} is held by {intruder}", variant=intruder.holder)
    elif port_use.listeners:
        finding.says(f"held by {port_use.listeners[0].who}")
    elif port_use.uptime is None:
        finding.says(f"free for {port_use.service}, which is {port_use.status}")
    elif limits.service.uptime.crossed(port_use.uptime, limits.service.uptime.warn):
        finding.warn(f"nobody listens on port {port} yet, {lasted(port_use.uptime)} after the start", variant="silent")
    else:
        finding.fail(f"nobody listens on port {port}, though {port_use.name} runs", variant="silent")


@symptom("service.env-file", severity=Severity.MAJOR, only=("backend", "frontend"))
def test_the_environment_file_is_sound(env_files: EnvFiles, finding: Recorder) -> None:
    """The service's environment file exists, parses, and is not open to everybody."""
    worst = env_files.worst
    finding.fact(path=worst.path)
    finding.says(worst.sentence)
    finding.note(*(file.story for file in env_files.files))
    if worst.fault in (Fault.MISSING, Fault.SYNTAX):
        finding.fail(worst.sentence, variant=worst.fault)
    elif worst.fault is not Fault.NONE:
        finding.warn(worst.sentence, variant=worst.fault)


@symptom(
    "service.required-env",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=["service.env-file[{service}]"],
)
def test_the_required_variables_are_set(environment: ServiceEnvironment, finding: Recorder) -> None:
    """The variables that the service needs are set, and not to a placeholder."""
    if not environment.required:
        finding.not_applicable(f"{environment.service} needs no variable")
    finding.says(f"{len(environment.required)} required variables are set")
    if environment.missing():
        finding.fail(f"not set in {environment.service}: {', '.join(environment.missing())}", variant="missing")
    if environment.placeholders():
        finding.warn(f"left as in the example: {', '.join(environment.placeholders())}", variant="placeholder")
        if environment.production:
            finding.escalate(Escalation.NOW, "a secret that everybody may know is used in production")
    if environment.defaulted():
        finding.warn(f"not set, so a default counts: {', '.join(environment.defaulted())}", variant="missing")
    if environment.without_password:
        finding.note("POSTGRES_HOST_AUTH_METHOD is trust: PostgreSQL asks nobody for a password")
