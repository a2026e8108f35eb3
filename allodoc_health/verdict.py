"""The verdict: all findings of a target, told from the root cause down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from allodoc_health.finding import ESCALATION_ORDER, Escalation, Finding, Outcome, Severity, duration

OUTAGE_PATIENCE = timedelta(minutes=15)
"""From the guide's last chapter: a complete outage of more than 15 minutes is the manager's."""

SEVERAL = 3
"""So many independent root causes at once are several systems affected, in the guide's sense."""


class State(StrEnum):
    """A target in one word."""

    HEALTHY = "healthy"
    WARNING = "warning"
    FAILING = "failing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target's state, the names of what is at the root of it and of what follows from that, and whom it concerns."""

    state: State
    root_causes: tuple[str, ...]
    consequences: tuple[str, ...]
    escalation: Escalation
    escalation_reason: str


def explain(findings: Sequence[Finding]) -> list[Finding]:
    """The same findings, each failing one with the names of the failing findings that explain it in ``caused_by``."""
    failing = [finding for finding in findings if finding.outcome is Outcome.FAIL]
    names = {finding.name for finding in failing}
    by_id: dict[str, list[str]] = {}
    for finding in failing:
        by_id.setdefault(finding.id, []).append(finding.name)
    explained = []
    for finding in findings:
        if finding.outcome is Outcome.FAIL:
            causes = tuple(dict.fromkeys(_resolve(finding.causes, names, by_id)))
            finding = replace(finding, caused_by=tuple(cause for cause in causes if cause != finding.name))
        explained.append(finding)
    return explained


def _resolve(causes: Iterable[str], names: set[str], by_id: Mapping[str, list[str]]) -> Iterable[str]:
    for cause in causes:
        if "[" in cause:
            if cause in names:
                yield cause
        else:
            yield from by_id.get(cause, ())


_SEVERITY_ORDER = {Severity.CRITICAL: 0, Severity.MAJOR: 1, Severity.MINOR: 2}


def judge(findings: Sequence[Finding], now: datetime, defects: int = 0) -> Verdict:
    """The verdict on findings that :func:`explain` has seen. ``defects`` counts checks that broke down themselves.

    A root cause is a failing finding that no other failing finding explains. Consequences are the failing ones that
    are explained and the blocked ones.
    """
    failing = [finding for finding in findings if finding.outcome is Outcome.FAIL]
    blocked = [finding for finding in findings if finding.outcome is Outcome.BLOCKED]
    warned = [finding for finding in findings if finding.outcome is Outcome.WARN]
    roots = [finding for finding in failing if not finding.caused_by]
    if failing and not roots:
        # Checks that explain one another in a circle: rather name them all than none.
        roots = failing
    if failing:
        state = State.FAILING
    elif blocked or defects:
        state = State.UNKNOWN
    else:
        state = State.WARNING if warned else State.HEALTHY
    ranked = sorted(roots, key=lambda finding: (_SEVERITY_ORDER[finding.severity], -_explains(finding, findings)))
    root_names = tuple(finding.name for finding in ranked)
    consequences = tuple(f.name for f in failing if f.name not in root_names) + tuple(f.name for f in blocked)
    escalation, reason = _escalate(failing, roots, blocked, warned, now)
    return Verdict(state, root_names, consequences, escalation, reason)


def _explains(cause: Finding, findings: Sequence[Finding]) -> int:
    return sum(cause.name in finding.caused_by or finding.blocked_by == cause.name for finding in findings)


def _escalate(
    failing: Sequence[Finding],
    roots: Sequence[Finding],
    blocked: Sequence[Finding],
    warned: Sequence[Finding],
    now: datetime,
) -> tuple[Escalation, str]:
    asked = max(
        (*failing, *warned),
        key=lambda finding: ESCALATION_ORDER.index(finding.escalation),
        default=None,
    )
    if asked is not None and asked.escalation is Escalation.NOW:
        return asked.escalation, f"{asked.name}: {asked.escalation_reason}"
    down_since = min(
        (finding.since for finding in failing if finding.severity is Severity.CRITICAL and finding.since), default=None
    )
    if down_since is not None and now - down_since > OUTAGE_PATIENCE:
        down = (now - down_since).total_seconds()
        return Escalation.NOW, f"down for {duration(down)}, more than {duration(OUTAGE_PATIENCE.total_seconds())}"
    if asked is not None and asked.escalation is Escalation.EMERGENCY_MEETING:
        return asked.escalation, f"{asked.name}: {asked.escalation_reason}"
    if len(roots) >= SEVERAL:
        return Escalation.EMERGENCY_MEETING, f"{len(roots)} independent root causes: several systems are affected"
    if any(finding.severity is Severity.CRITICAL for finding in failing):
        if down_since is not None:
            by = (down_since + OUTAGE_PATIENCE).strftime("%H:%M UTC")
            return Escalation.NONE, f"yours to mend now; call the manager if it is not restored by {by}"
        return Escalation.NONE, "yours to mend now; call the manager if it can't be restored within 15 min"
    if failing or warned:
        return Escalation.NEXT_BUSINESS_DAY, "users can work"
    if blocked:
        return Escalation.NONE, "not everything could be looked at"
    return Escalation.NONE, ""


def expand_causes(causes: Iterable[str], parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Declared causes with this check's own parameters in place of words in braces.

    >>> expand_causes(["service.running[{service}]", "host.memory"], {"service": "redis"})
    ('service.running[redis]', 'host.memory')
    """
    return tuple(re.sub(r"\{(\w+)\}", lambda m: parameters.get(m.group(1), m.group()), cause) for cause in causes)
