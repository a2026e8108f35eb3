"""What is worth telling somebody who is not looking, and in which words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from allodoc_health.finding import ESCALATION_ORDER, Escalation, Outcome, duration
from allodoc_health.remedy import Remedy, Step
from allodoc_health.run import TargetReport
from allodoc_health.verdict import State
from reports.history import Past
from reports.history.telling import course_words

MOST_CAUSES = 3
"""How many root causes are told with what to do; the others are named."""


class Occasion(StrEnum):
    """When something is told."""

    CHANGE = "change"
    FAILURE = "failure"
    ALWAYS = "always"


class Kind(StrEnum):
    """What a message is about."""

    TROUBLE = "trouble"
    REMINDER = "reminder"
    RECOVERY = "recovery"
    STATE = "state"


BAD = frozenset({State.FAILING, State.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Condition:
    """How a target is, as far as it is told: what is at the root of it, whom it concerns, since when it is bad."""

    state: State = State.HEALTHY
    root_causes: tuple[str, ...] = ()
    escalation: Escalation = Escalation.NONE
    since: datetime | None = None

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to do something. A warning waits for the morning's report."""
        return self.state in BAD


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent."""

    kind: Kind
    title: str
    body: str


def condition_of(report: TargetReport, past: Past | None, before: Condition, *, whole: bool) -> Condition:
    """How a target is now, given how it was when that was told last.

    A run of some of the checks says nothing of a root cause that it did not look at: that one stays.
    """
    seen = {finding.name for finding in report.findings if finding.outcome is not Outcome.BLOCKED}
    unseen = () if whole else tuple(name for name in before.root_causes if name not in seen)
    causes = tuple(dict.fromkeys((*report.verdict.root_causes, *unseen)))
    state = State.FAILING if unseen else report.verdict.state
    level = report.verdict.escalation
    if unseen:
        level = max(level, before.escalation, key=ESCALATION_ORDER.index)
    if state not in BAD:
        return Condition(state, causes, level)
    known = [past.since[name] for name in report.verdict.root_causes if name in past.since] if past else []
    began = before.since if before.is_bad else None
    return Condition(state, causes, level, began or min((*known, report.started.astimezone(UTC))))


def worth_telling(
    occasion: Occasion, report: TargetReport, past: Past | None, before: Condition, now: Condition
) -> Kind | None:
    """What a message would be about, or ``None`` if there is none to send.

    A change is told once: new trouble, a higher escalation of it, and its end. What vanishes and comes back while there
    is trouble is not new, and what flaps is not over until it has settled.
    """
    if occasion is Occasion.ALWAYS:
        return Kind.TROUBLE if now.is_bad else Kind.STATE
    if occasion is Occasion.FAILURE:
        return Kind.TROUBLE if now.is_bad else None
    if report.cut_short and not report.verdict.root_causes:
        return None  # somebody ended it: that it saw little is no news
    if now.is_bad:
        if not before.is_bad or set(now.root_causes) - set(before.root_causes):
            return Kind.TROUBLE
        higher = ESCALATION_ORDER.index(now.escalation) > ESCALATION_ORDER.index(before.escalation)
        return Kind.REMINDER if higher else None
    flapping = past.flapping if past else frozenset()
    return Kind.RECOVERY if before.is_bad and not flapping & set(before.root_causes) else None


def message(
    kind: Kind, report: TargetReport, past: Past | None, before: Condition, now: Condition, link: str
) -> Message:
    """The message in plain text: what it is, the value that shows it, the next step, whom to call, where to read on."""
    return Message(kind, _title(kind, report, before, now), "\n".join(_lines(kind, report, past, now, link)))


def _title(kind: Kind, report: TargetReport, before: Condition, now: Condition) -> str:
    name = report.target.name
    if kind is Kind.RECOVERY:
        took = duration((report.started - before.since).total_seconds()) if before.since else ""
        return f"{name} has recovered" + (f" after {took}" if took else "")
    causes = f": {_few(now.root_causes)}" if now.root_causes else ""
    if kind is Kind.REMINDER:
        return f"{name} {now.state.phrase.replace('is ', 'is still ')}, {now.escalation.value}{causes}"
    return f"{name} {now.state.phrase}{causes}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_CAUSES} more" if len(names) > MOST_CAUSES else ""
    return ", ".join(names[:MOST_CAUSES]) + more


def _lines(kind: Kind, report: TargetReport, past: Past | None, now: Condition, link: str) -> Iterator[str]:
    level, reason = report.verdict.escalation, report.verdict.escalation_reason
    if kind is Kind.RECOVERY and now.state is State.WARNING:
        warned = [finding.name for finding in report.findings if finding.outcome is Outcome.WARN]
        yield f"Users can work; {_few(warned)} still warn{'s' if len(warned) == 1 else ''}."
    for name in report.verdict.root_causes[:MOST_CAUSES]:
        finding = report.finding(name)
        yield f"{name} ({finding.severity.value}): {finding.message.partition(chr(10))[0]}"
        if past is not None and (words := course_words(finding, past, report.started)):
            yield f"  {words}"
        if (remedy := report.remedies.get(name)) is not None:
            yield from _next_step(remedy)
    blocked = {finding.blocked_by for finding in report.findings if finding.outcome is Outcome.BLOCKED} - {None}
    if not report.verdict.root_causes and blocked:
        yield f"Not everything could be looked at: blocked by {', '.join(sorted(map(str, blocked)))}."
    if unseen := [name for name in now.root_causes if name not in report.verdict.root_causes]:
        yield f"Not looked at in this run: {_few(unseen)}."
    if report.verdict.root_causes and report.verdict.consequences:
        count = len(report.verdict.consequences)
        yield f"{count} more follow{'s' if count == 1 else ''} from that."
    if level is not Escalation.NONE:
        yield f"Escalate: {level.value} ({reason})"
    elif reason and now.is_bad:
        yield f"Escalate: {reason}"
    if link:
        yield f"Report: {link}"


def _next_step(remedy: Remedy) -> Iterator[str]:
    """The first thing to do. Looking comes before mending, and both are in the report in full."""
    step: Step | None = next(iter((*remedy.look, *remedy.mend)), None)
    if step is None:
        return
    yield f"  next: {step.text} ({remedy.anchor})"
    if step.caution:
        yield f"  Caution: {step.caution}"
    for command in step.commands:
        yield from (f"    {line}" for line in command.splitlines())
