"""The verdict: all findings of a target, told from the root cause down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from allodoc_health.finding import ESCALATION_ORDER, Escalation, Finding, Outcome, Severity, duration

_SEVERITY_ORDER = {Severity.CRITICAL: 0, Severity.MAJOR: 1, Severity.MINOR: 2}

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

    @property
    def phrase(self) -> str:
        """The state as the predicate of a sentence: prod *is healthy*, prod *has warnings*."""
        return "has warnings" if self is State.WARNING else f"is {self.value}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target's state, the names of what is at the root of it and of what follows from that, and whom it concerns.

    ``outage_since`` is when something critical began to fail, as far as that is known; ``None`` while nothing does.
    """

    state: State
    root_causes: tuple[str, ...]
    consequences: tuple[str, ...]
    escalation: Escalation
    escalation_reason: str
    outage_since: datetime | None = None


def explain(findings: Sequence[Finding]) -> list[Finding]:
    """The same findings, each failing one with the names of the failing findings that explain it in ``caused_by``.

    A declared cause that could not be looked at explains as well: what blocks it then stands in its place, unless that
    is less severe, so that it merely hides something, or is itself explained by the finding. Of one check's findings
    that are signs of the same thing, the first explains those that nothing else does.
    """
    failing = {finding.name: finding for finding in findings if finding.outcome is Outcome.FAIL}
    seen: dict[str, list[str]] = {}
    unseen: dict[str, list[str]] = {}
    for finding in findings:
        for key in {finding.name, finding.id}:
            if finding.name in failing:
                seen.setdefault(key, []).append(finding.name)
            elif finding.blocked_by in failing:
                unseen.setdefault(key, []).append(finding.blocked_by)
    causes: dict[str, list[str]] = {}
    for name, finding in failing.items():
        declared = (cause for key in finding.causes for cause in seen.get(key, ()))
        causes[name] = [cause for cause in dict.fromkeys(declared) if cause != name]
    # What one check says of two parameters, each because of the other, tells why of neither.
    mutual = {(a, b) for a in causes for b in causes[a] if a in causes[b] and failing[a].id == failing[b].id}
    causes = {name: [cause for cause in found if (name, cause) not in mutual] for name, found in causes.items()}
    for name, finding in failing.items():
        for blocker in dict.fromkeys(blocker for key in finding.causes for blocker in unseen.get(key, ())):
            if _SEVERITY_ORDER[failing[blocker].severity] > _SEVERITY_ORDER[finding.severity]:
                continue
            if blocker != name and blocker not in causes[name] and name not in _ancestors(blocker, causes):
                causes[name].append(blocker)
    first: dict[tuple[str, str], str] = {}
    for name, finding in failing.items():
        if finding.sign_of and (known := first.setdefault((finding.id, finding.sign_of), name)) != name:
            causes[name] = causes[name] or [known]
    return [replace(f, caused_by=tuple(causes[f.name])) if f.name in failing else f for f in findings]


def _ancestors(name: str, causes: Mapping[str, Iterable[str]]) -> set[str]:
    """Everything that explains a finding, however far back; the finding itself if it stands in a circle."""
    found: set[str] = set()
    fresh = set(causes.get(name, ()))
    while fresh:
        found |= fresh
        fresh = {cause for known in fresh for cause in causes.get(known, ())} - found
    return found


def judge(
    findings: Sequence[Finding],
    now: datetime,
    defects: int = 0,
    not_run: int = 0,
    outage_since: datetime | None = None,
) -> Verdict:
    """The verdict on findings that :func:`explain` has seen.

    ``defects`` counts checks that broke down themselves, ``not_run`` those that did not get their turn: without them a
    target is not healthy, only unknown. A root cause is a failing finding that no other failing finding explains.
    Consequences are the failing ones that are explained and the blocked ones. ``outage_since`` is what earlier runs
    know of the beginning of what fails; where the findings themselves know of an earlier one, that counts.
    """
    failing = [finding for finding in findings if finding.outcome is Outcome.FAIL]
    blocked = [finding for finding in findings if finding.outcome is Outcome.BLOCKED]
    warned = [finding for finding in findings if finding.outcome is Outcome.WARN]
    roots = [finding for finding in failing if not finding.caused_by] + _circles(failing)
    if failing:
        state = State.FAILING
    elif blocked or defects or not_run:
        state = State.UNKNOWN
    else:
        state = State.WARNING if warned else State.HEALTHY
    ranked = sorted(roots, key=lambda finding: (_SEVERITY_ORDER[finding.severity], -_explains(finding, findings)))
    root_names = tuple(finding.name for finding in ranked)
    consequences = tuple(f.name for f in failing if f.name not in root_names) + tuple(f.name for f in blocked)
    began = None
    if critical := [finding for finding in failing if finding.severity is Severity.CRITICAL]:
        known = [since for since in (outage_since, *(finding.since for finding in critical)) if since is not None]
        began = min(known, default=None)
    escalation, reason = _escalate(failing, roots, blocked, warned, now, began)
    return Verdict(state, root_names, consequences, escalation, reason, began)


def _circles(failing: Sequence[Finding]) -> list[Finding]:
    """Findings that explain one another in a circle which nothing else explains: rather name them all than none."""
    causes = {finding.name: finding.caused_by for finding in failing}
    ancestors = {name: _ancestors(name, causes) for name in causes}
    # In a circle one's causes are one's consequences; only where that holds for all of them does it begin there.
    return [
        finding
        for finding in failing
        if finding.name in ancestors[finding.name]
        and all(finding.name in ancestors.get(other, ()) for other in ancestors[finding.name])
    ]


def _explains(cause: Finding, findings: Sequence[Finding]) -> int:
    return sum(cause.name in finding.caused_by or finding.blocked_by == cause.name for finding in findings)


def _escalate(
    failing: Sequence[Finding],
    roots: Sequence[Finding],
    blocked: Sequence[Finding],
    warned: Sequence[Finding],
    now: datetime,
    down_since: datetime | None,
) -> tuple[Escalation, str]:
    asked = max(
        (*failing, *warned),
        key=lambda finding: ESCALATION_ORDER.index(finding.escalation),
        default=None,
    )
    if asked is not None and asked.escalation is Escalation.NOW:
        return asked.escalation, f"{asked.name}: {asked.escalation_reason}"
    if down_since is not None and now - down_since > OUTAGE_PATIENCE:
        down = (now - down_since).total_seconds()
        return Escalation.NOW, f"down for {duration(down)}, more than {duration(OUTAGE_PATIENCE.total_seconds())}"
    if asked is not None and asked.escalation is Escalation.EMERGENCY_MEETING:
        return asked.escalation, f"{asked.name}: {asked.escalation_reason}"
    if len(roots) >= SEVERAL:
        return Escalation.EMERGENCY_MEETING, f"{len(roots)} independent root causes: several systems are affected"
    if any(finding.severity is Severity.CRITICAL for finding in failing):
        if down_since is not None:
            by = (down_since + OUTAGE_PATIENCE).astimezone(UTC).strftime("%H:%M UTC")
            return Escalation.NONE, f"yours to mend now; call the manager if it is not restored by {by}"
        return Escalation.NONE, "yours to mend now; call the manager if it can't be restored within 15 min"
    if failing or warned:
        return Escalation.NEXT_BUSINESS_DAY, "users can work"
    if blocked:
        return Escalation.NONE, "not everything could be looked at"
    return Escalation.NONE, ""


def expand_causes(causes: Iterable[str], parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Declared causes as they are for a check's own parameters.

    They take the place of words in braces. ``postgres: db.port`` is a cause where ``postgres`` is one of them.

    >>> expand_causes(["service.running[{service}]", "host.memory", "redis: cache.ping"], {"service": "postgres"})
    ('service.running[postgres]', 'host.memory')
    """
    expanded = []
    for cause in causes:
        condition, _, name = cause.rpartition(": ")
        if not condition or condition in parameters.values():
            expanded.append(re.sub(r"\{(\w+)\}", lambda m: parameters.get(m.group(1), m.group()), name))
    return tuple(dict.fromkeys(expanded))
