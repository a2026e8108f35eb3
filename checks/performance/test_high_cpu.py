"""High CPU usage: which service uses it."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.log_habits import Flood
from fixtures.usage import Activity

WORK = {"postgres": ("db.long-running", "db.slow-statements", "db.cpu"), "redis": ("cache.slow-commands",)}
"""What keeps a service busy, beside a log that it floods."""


@symptom(
    "host.cpu",
    severity=Severity.MAJOR,
    smoke=True,
    caused_by=["logs.flood[{service}]", *(cause for causes in WORK.values() for cause in causes)],
)
def test_the_service_has_processor_time_left(
    service: str, activity: Activity, limits: Limits, finding: Recorder
) -> None:
    """The service uses only part of the processor time that it may use."""
    finding.follows_only_from(f"logs.flood[{service}]", *WORK.get(service, ()))
    finding.fact(name=activity.name)
    finding.measure("in use", activity.cores, unit="cores", of=activity.available, limit=limits.host.cpu)
    if activity.throttled:
        finding.measure("of the time held back by its limit", activity.throttled, unit="%")


@symptom("logs.flood", severity=Severity.MINOR, caused_by=["service.log-errors[{service}]"])
def test_the_log_is_not_flooded(flood: Flood, limits: Limits, finding: Recorder) -> None:
    """No message is logged again and again, and none tells of an endless loop."""
    if flood.runaway:
        finding.fail(f"{flood.count} lines tell of an endless loop", variant="runaway")
    finding.measure("times a minute the same message", flood.rate, limit=limits.logs.repeated)
    finding.measure("lines a minute", flood.lines_a_minute)
    if flood.count:
        finding.note(f"the most frequent: {flood.message}")
