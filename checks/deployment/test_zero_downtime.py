"""Zero-downtime deployment problems: interruptions during a deployment, 502 errors, services that are killed."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity, duration
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.deploy_window import DeployWindow
from fixtures.stopping import StopBehaviour
from fixtures.upstream_errors import UpstreamErrors

NO_RESTART = ("", "no")

BACKEND_GONE = (
    "service.running",
    "service.stays-up[backend]",
    "service.restart-loop[backend]",
    "service.oom-killed[backend]",
    "service.required-env[backend]",
    "service.health-endpoint",
    "service.port-conflict",
    "network.nginx-upstream",
    "network.service-link",
    "cache.ping",
    "db.port",
    "db.accepts-connections",
    "db.login",
)
"""What leaves requests without an answer, whether or not something is being deployed."""


@symptom("deploy.graceful-shutdown", severity=Severity.MINOR)
def test_the_service_stops_when_it_is_told_to(stop_behaviour: StopBehaviour, finding: Recorder) -> None:
    """The service handles its stop signal, so that a deployment cuts off no request."""
    stop = stop_behaviour
    patience = f" after {duration(stop.timeout)}" if stop.timeout else ""
    finding.fact(signal=stop.signal, process=stop.process, container=stop.container, pid=stop.pid)
    if stop.init:
        finding.note(f"{stop.init} passes the signal on to {stop.process}")
    last = stop.last_stop
    if last is not None:
        finding.note(f"the last stop took {duration(last.seconds)}, exit code {last.exit_code}")
    if last is not None and last.forced and not stop.handled:
        finding.fail(f"killed at its last stop, {duration(last.seconds)} after {stop.signal}")
    if stop.shell:
        finding.warn(f"{stop.shell} does not pass {stop.signal} on to {stop.process}: killed{patience}")
    elif stop.ignored:
        finding.warn(f"{stop.process} takes no notice of {stop.signal}: killed{patience} at each stop")
    elif not stop.handled:
        finding.warn(f"{stop.process} has no handler for {stop.signal}: requests under way are cut off")
    elif last is not None and last.forced:
        finding.warn(f"it handles {stop.signal}, yet was killed at its last stop, {duration(last.seconds)} later")
    if stop.restart_policy in NO_RESTART:
        finding.warn("no restart policy: it stays down after a crash or a reboot", variant="restart-policy")
    if stop.known_by == "code":
        finding.note("according to the application's code; no stop of it is on record yet")
    unseen = "" if stop.known_by else ", as far as can be seen from here"
    finding.says(f"{stop.process} handles {stop.signal}{unseen}")


@symptom(
    "deploy.availability",
    severity=Severity.MAJOR,
    smoke=True,
    caused_by=[*BACKEND_GONE, "deploy.dependencies", "deploy.migrations"],
)
def test_the_deployment_cuts_nobody_off(deploy_window: DeployWindow, limits: Limits, finding: Recorder) -> None:
    """While something is deployed, requests are answered as before."""
    window = deploy_window
    finding.note(*(f"{count} × {failure}" for failure, count in window.failed.items()))
    if window.failed:
        finding.warn(f"{window.unanswered} of {window.sent} requests failed in {duration(window.seconds)}")
    finding.measure("requests failed", window.unanswered, of=window.sent, limit=limits.deploy.unanswered)
    finding.measure("longest gap", window.longest_gap, unit="s", limit=limits.deploy.gap)
    if not window.gap_ended:
        finding.began(window.gap_began)
        finding.fail(f"no answer any more in the last {duration(window.longest_gap)} of {duration(window.seconds)}")


@symptom(
    "deploy.upstream-errors",
    severity=Severity.MAJOR,
    caused_by=[*BACKEND_GONE, "deploy.dependencies", "deploy.migrations", "deploy.availability"],
)
def test_nginx_finds_a_backend(upstream_errors: UpstreamErrors, limits: Limits, finding: Recorder) -> None:
    """nginx has a backend for every request, also while one is being deployed."""
    seen = upstream_errors
    where = "since the last deployment" if seen.since_deployment else "in the last minutes"
    finding.note(*(f"{count} × {status}" for status, count in seen.counts.items()))
    finding.note(*(f"{count} × {kind}" for kind, count in seen.kinds.items()))
    if seen.limited:
        finding.note(f"{seen.limited} requests were turned away by nginx's own limit, which does not count here")
    told = limits.deploy.upstream_errors_counted
    if seen.errors and not seen.over and told.crossed(seen.errors, told.warn):
        finding.began(seen.first)
        finding.measure(
            f"requests without a backend {where}", seen.errors, of=seen.requests, limit=limits.deploy.upstream_errors
        )
    if seen.errors:
        ended = "over by now" if seen.over else "the last one just now"
        finding.warn(
            f"{seen.errors} of {seen.requests} requests without a backend in {duration(seen.seconds)}, {ended}"
        )
    elif seen.logged:
        finding.warn(f"{seen.logged} lines of nginx's that it reached no backend, {next(iter(seen.kinds))}")
    finding.says(f"a backend for each of {seen.requests} requests {where}")
