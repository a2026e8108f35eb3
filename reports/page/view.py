"""From a report to what its page says: plain values only. Escaping is left to the templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from allodoc_health.finding import Escalation, Finding, Outcome, duration
from allodoc_health.run import TargetReport
from allodoc_health.symptom import CHAPTERS
from allodoc_health.verdict import State
from reports.comparison import Comparison, Direction
from reports.history import Past
from reports.page import measurements
from reports.page.evidence import environment_view, evidence_view
from reports.page.room import Room
from reports.page.service_map import service_map
from reports.terminal import LETTERS, because, waited_text

SIGNS = {
    "fail": "■",
    "blocked": "◆",
    "warn": "▲",
    "waived": "◇",
    "not-applicable": "–",
    "pass": "●",
    "broken-down": "✕",
}
"""A sign for each outcome, so that nobody needs to tell colours apart; what can break down is the suite itself."""

_DIRECTIONS = {Direction.WORSE: "▲ worse", Direction.BETTER: "▼ better", Direction.OTHER: "≠ changed"}

NO_PAST = Past(runs=0)

GRAVEST_FIRST = ("broken-down", "fail", "blocked", "warn", "waived", "pass", "not-applicable")


@dataclass(frozen=True)
class Context:
    """What a page shows beside the report itself, where there is any of it.

    ``how`` says how the suite was run, as pairs of a word and a text.
    """

    past: Past = NO_PAST
    comparison: Comparison | None = None
    how: Sequence[tuple[str, str]] = ()


NOTHING = Context()


def target_view(report: TargetReport, number: int, context: Context, room: Room) -> dict[str, Any]:
    """What the page says of one target, the ``number``-th on it."""
    verdict = report.verdict
    views = {
        finding.name: finding_view(finding, report, room, context, f"cause-{number}-{index}")
        for index, finding in enumerate(report.findings)
    }
    by_outcome: dict[Outcome, list[dict[str, Any]]] = {outcome: [] for outcome in Outcome}
    for finding in report.findings:
        by_outcome[finding.outcome].append(views[finding.name])
    causes = _causes(verdict.root_causes, views)
    usual_times = [cause["remedy"].usual_time for cause in causes if cause["remedy"]]
    consequences = [views[name] for name in room.some(verdict.consequences, room.rows)]
    target = report.target
    escalate = [c["remedy"].escalate for c in causes if c["remedy"] and c["remedy"].escalate]
    return {
        "number": number,
        "name": target.name,
        "anchor": f"target-{number}",
        "origin": "what was discovered on this host" if target.origin == "discovered" else target.origin,
        "undiscovered": room.text(target.undiscovered),
        "services": [
            (role, service.container or "", target.found.get(role, ""))
            for role in target.roles
            if (service := target.services.get(role)) is not None
        ],
        "state": verdict.state.value,
        "verb": verdict.state.phrase.partition(" ")[0],
        "phrase": verdict.state.phrase.partition(" ")[2],
        "calm": verdict.state in (State.HEALTHY, State.WARNING),
        "iso": report.started.astimezone(UTC).isoformat(timespec="seconds"),
        "utc": moment(report.started),
        "local": local(report.started.astimezone()),
        "seconds": duration(report.seconds),
        "counts": [(LETTERS[outcome][0], len(some)) for outcome, some in by_outcome.items() if some],
        "cut_short": report.cut_short,
        "replayed": report.replayed,
        "waited": room.text(waited_text(report.waited)) if report.waited else "",
        "warnings": report.warnings,
        "has_trends": bool(context.past.trends),
        "escalation": "" if verdict.escalation is Escalation.NONE else verdict.escalation.value,
        "escalation_reason": room.text(verdict.escalation_reason),
        "causes": causes[: room.causes],
        "more_causes": causes[room.causes :],
        "whom": list(dict.fromkeys(escalate))[: room.causes],
        "usual_times": list(dict.fromkeys(usual for usual in usual_times if usual))[: room.causes],
        "follows": [view for view in consequences if view["outcome"] == Outcome.FAIL],
        "blocked": grouped((view for view in consequences if view["outcome"] == Outcome.BLOCKED), "blocked_by"),
        "map": service_map(report),
        "nearest": measurements.nearest(report.findings, context.past.forecasts),
        "measurements": room.some(measurements.measurement_rows(report.findings, context.past), room.rows),
        "evidence": evidence_view(report, room),
        "comparison": _comparison(context.comparison, room),
        "waivers": [_waiver(waiver, report) for waiver in target.waivers],
        "warned": room.some(by_outcome[Outcome.WARN], room.warnings),
        "waived": room.some(by_outcome[Outcome.WAIVED], room.warnings),
        "not_applicable": grouped(room.some(by_outcome[Outcome.NOT_APPLICABLE], room.rows), "first"),
        "not_run": room.some(report.not_run, room.rows),
        "defects": [
            {"name": defect.symptom or defect.nodeid, "text": room.text(defect.text)}
            for defect in room.some(report.defects, room.warnings)
        ],
        "environment": environment_view(report, room),
        "how": context.how,
        "probes": len(report.timings),
        "slowest": [
            (name, duration(seconds)) for name, seconds in sorted(report.timings.items(), key=lambda one: -one[1])[:5]
        ],
    }


def _causes(names: Sequence[str], views: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The root causes, each with the one that told the same remedy before, if one did: nobody reads it twice."""
    told: dict[Any, dict[str, Any]] = {}
    causes = []
    for view in (views[name] for name in names):
        remedy = view["remedy"]
        causes.append({**view, "remedy_of": told.get(remedy) if remedy else None})
        told.setdefault(remedy, view)
    return causes


def finding_view(
    finding: Finding, report: TargetReport, room: Room, context: Context, anchor: str = ""
) -> dict[str, Any]:
    """What the page says of one finding."""
    first, *rest = finding.message.splitlines() or [""]
    proof = [*rest, *finding.details]
    return {
        "name": room.text(finding.name),
        "anchor": anchor,
        "title": finding.title,
        "outcome": finding.outcome.value,
        "severity": finding.severity.value,
        "first": room.text(first),
        "proof": [room.text(line) for line in room.some(proof)],
        "unsaid": max(0, len(proof) - room.lines),
        "measurements": [measurements.measurement_view(each) for each in finding.measurements],
        "bars": measurements.bars(finding),
        "spark": _spark(finding, context),
        "remedy": report.remedies.get(finding.name),
        "anchor_in_guide": finding.remedy,
        "because": because(finding, report.verdict.root_causes),
        "causes": ", ".join(finding.caused_by),
        "blocked_by": finding.blocked_by or "",
        "since": _since(finding, report.started, context),
        "seconds": duration(finding.seconds),
    }


def chapter_of(nodeid: str) -> str:
    """The chapter that a check belongs to, by the folder it stands in; empty for what is no check."""
    return next((part for part in nodeid.partition("::")[0].split("/") if part in CHAPTERS), "")


def grouped(views: Iterable[Mapping[str, Any]], key: str) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Views that have the same value under a key, together, in the order in which they came."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for view in views:
        groups.setdefault(view[key], []).append(view)
    return list(groups.items())


def moment(when: datetime) -> str:
    """A moment in UTC, with its zone."""
    return when.astimezone(UTC).strftime("%a %d %b %Y %H:%M:%S UTC")


def local(when: datetime) -> str:
    """The same moment on the clock of whoever ran the suite, with its zone and that zone's distance to UTC."""
    if not when.utcoffset():
        return f"local time is {when.tzname()}"
    offset = when.strftime("%z")
    return f"= {when:%a %H:%M:%S} {when.tzname()} (UTC{offset[:3]}:{offset[3:]})"


def _since(finding: Finding, started: datetime, context: Context) -> str:
    """Since when a finding fails, by the evidence or else by earlier runs, and how it has been in the last month."""
    if finding.outcome not in (Outcome.FAIL, Outcome.WARN):
        return ""
    said = []
    past = context.past
    began = finding.since
    if began is not None:
        lasted = max(0.0, (started - began).total_seconds())
        day = "%a %d %b " if lasted >= 86400 else ""
        said.append(f"for {duration(lasted)}, since {began.astimezone(UTC):{day}%H:%M:%S UTC}")
    elif (seen := past.since.get(finding.name)) is not None and seen < started:
        said.append(f"in every run since {seen.astimezone(UTC):%a %d %b %H:%M UTC}")
    if (times := past.failed_this_month.get(finding.name, 0)) > 1:
        said.append(f"began {times} times this month")
    if finding.name in past.flapping:
        said.append("comes and goes")
    if (usual := past.recovery.get(finding.name)) is not None:
        said.append(f"was well again after {duration(usual.total_seconds())} on average")
    return ", ".join(said)


def _spark(finding: Finding, context: Context) -> dict[str, str] | None:
    for measurement in finding.measurements:
        trend = context.past.trends.get((finding.name, measurement.name))
        if trend and (made := measurements.spark(trend, measurement.unit)) is not None:
            return made
    return None


def _comparison(comparison: Comparison | None, room: Room) -> dict[str, Any] | None:
    """What is not as it was in the run before, what got worse first."""
    if comparison is None:
        return None
    order = tuple(_DIRECTIONS)
    return {
        "before": moment(comparison.before),
        "changes": [
            {"direction": change.direction.value, "sign": _DIRECTIONS[change.direction], "text": room.text(change.text)}
            for change in room.some(sorted(comparison.changes, key=lambda change: order.index(change.direction)))
        ],
        "only_before": room.some(comparison.only_before),
        "only_after": room.some(comparison.only_after),
    }


def _waiver(waiver: Any, report: TargetReport) -> dict[str, Any]:
    left = (waiver.expires - report.started).total_seconds()
    covered = [finding.name for finding in report.findings if waiver.covers(finding.id, finding.parameter)]
    waived = [f.name for f in report.findings if f.name in covered and f.outcome is Outcome.WAIVED]
    return {
        "name": f"{waiver.symptom}[{waiver.parameter}]" if waiver.parameter else waiver.symptom,
        "reason": waiver.reason,
        "owner": waiver.owner,
        "expires": moment(waiver.expires),
        "left": f"{duration(left)} left" if left > 0 else f"ran out {duration(-left)} ago: it waives nothing any more",
        "expired": left <= 0,
        "used": bool(waived),
    }
