"""A finding: the outcome of one check for one parameter, with what was measured.

A check records into a :class:`Recorder`; :meth:`Recorder.findings` turns what was recorded into immutable findings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NoReturn

from allodoc_health.limits import Limit


class Outcome(StrEnum):
    """The six ways in which a check can end."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    BLOCKED = "blocked"
    WAIVED = "waived"
    NOT_APPLICABLE = "not-applicable"


# From harmless to grave: a check with several findings shows the gravest.
GRAVITY = (Outcome.NOT_APPLICABLE, Outcome.PASS, Outcome.WAIVED, Outcome.WARN, Outcome.BLOCKED, Outcome.FAIL)


class Severity(StrEnum):
    """How much a failure hurts.

    Critical: users can't work, or data is at risk. Major: worse than it should be. Minor: will hurt later.
    """

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"


class Escalation(StrEnum):
    """Whom a verdict concerns, in the words of the guide's last chapter."""

    NONE = "none"
    NEXT_BUSINESS_DAY = "next business day"
    EMERGENCY_MEETING = "schedule an emergency meeting"
    NOW = "now: call the manager"


ESCALATION_ORDER = tuple(Escalation)


class NotApplicable(Exception):
    """The question does not arise on this target; the text says why."""


class Failed(Exception):
    """A probe could not observe what it is for: the one check that guards it fails, the others are blocked by it.

    ``guard`` is the name of that check, ``id`` or ``id[parameter]``. ``variant`` picks a remedy of the guard's own
    for this way to fail. ``details`` are lines that prove it, ``since`` is when it began.
    """

    def __init__(
        self,
        message: str,
        guard: str = "",
        variant: str = "",
        details: tuple[str, ...] = (),
        since: datetime | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.guard = guard
        self.variant = variant
        self.details = details
        self.since = since


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number with its unit and the limits that it was held against."""

    name: str
    value: float
    unit: str
    warn: float | None = None
    fail: float | None = None
    source: str = ""
    worse: str = "above"

    @property
    def text(self) -> str:
        """The measured value with its unit, as a person writes it."""
        return quantity(self.value, self.unit)

    def limit_text(self, outcome: Outcome) -> str:
        """The limit that the value crossed (or has to keep), as in ``fail at 95 %``; empty without one."""
        bound = self.fail if outcome is Outcome.FAIL and self.fail is not None else self.warn
        if bound is None:
            bound = self.fail
        if bound is None:
            return ""
        word = "fail" if bound == self.fail and (outcome is Outcome.FAIL or self.warn is None) else "warn"
        return f"{word} {'at' if self.worse == 'above' else 'below'} {quantity(bound, self.unit)}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found for one parameter of one target.

    ``sign_of`` is the thing at fault, where findings of several parameters may all be signs of one.
    """

    id: str
    target: str
    outcome: Outcome
    severity: Severity
    title: str
    message: str
    parameter: str | None = None
    details: tuple[str, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    variant: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    remedy: str = ""
    blocked_by: str | None = None
    caused_by: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    sign_of: str = ""
    since: datetime | None = None
    escalation: Escalation = Escalation.NONE
    escalation_reason: str = ""
    nodeid: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """How findings are called: ``id`` or ``id[parameter]``."""
        return named(self.id, self.parameter)


def named(symptom: str, parameter: str | None) -> str:
    """``id`` or ``id[parameter]``."""
    return symptom if parameter is None else f"{symptom}[{parameter}]"


_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def quantity(value: float, unit: str) -> str:
    """A value as a person reads it.

    >>> quantity(96.9, "%"), quantity(0.0042, "s"), quantity(5400, "s"), quantity(3 * 2**30, "B")
    ('97 %', '4.2 ms', '1 h 30 min', '3 GiB')
    >>> quantity(float("inf"), "s"), quantity(float("nan"), "")
    ('inf s', 'nan')
    """
    if not math.isfinite(value):
        return f"{value:g} {unit}".rstrip()
    if unit == "s":
        return duration(value)
    if unit == "B":
        return size(value)
    if unit == "%" and 0.005 <= abs(value) < 10:
        return f"{value:.2g} %"
    if unit == "%" and abs(value) < 10:
        return "0 %"
    number = f"{value:,.0f}".replace(",", " ") if abs(value) >= 10 or value == int(value) else f"{value:.2g}"
    return f"{number} {unit}".rstrip()


def duration(seconds: float) -> str:
    """Seconds as the largest two units that matter.

    >>> duration(0.5), duration(4.25), duration(4320), duration(3 * 86400 + 7200)
    ('500 ms', '4.2 s', '1 h 12 min', '3 d 2 h')
    """
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours and days < 10 else f"{days} d"


def size(count: float) -> str:
    """Bytes in the largest binary unit that leaves at least one.

    >>> size(512), size(1536), size(5 * 2**30)
    ('512 B', '1.5 KiB', '5 GiB')
    """
    for unit in _BYTE_UNITS:
        if abs(count) < 1024 or unit == _BYTE_UNITS[-1]:
            break
        count /= 1024
    return f"{count:.1f} {unit}".replace(".0 ", " ") if abs(count) < 100 else f"{count:.0f} {unit}"


class Recorder:
    """What a check says while it runs.

    The check's own words become the finding: ``measure`` for numbers, ``fail`` and ``warn`` for what is not one,
    ``note`` for a line of proof. ``recorder["patients"]`` records for one of several things that only the evidence
    names (a table, a statement); each becomes a finding of its own.
    """

    def __init__(self, blank: Finding) -> None:
        self._blank = blank
        self._outcome = Outcome.PASS
        self._message = ""
        self._summary = ""
        self._details: list[str] = []
        self._measurements: list[Measurement] = []
        self._variant = ""
        self._facts: dict[str, str] = {}
        self._since: datetime | None = None
        self._escalation = (Escalation.NONE, "")
        self._causes = blank.causes
        self._sign_of = ""
        self._parts: dict[str, Recorder] = {}

    def __getitem__(self, parameter: str) -> Recorder:
        """The recorder for one thing among several, by its name."""
        if parameter not in self._parts:
            self._parts[parameter] = Recorder(replace(self._blank, parameter=parameter))
        return self._parts[parameter]

    def measure(
        self, name: str, value: float, *, unit: str = "", of: float | None = None, limit: Limit | None = None
    ) -> Measurement:
        """Record a number and hold it against a limit.

        With ``of``, the limit is for the share in percent: ``measure("connections in use", 94, of=97, ...)`` records
        96.9 % and reads "94 of 97 connections in use = 97 %". Returns the measurement.
        """
        if of is not None:
            share = 100.0 * value / of if of else (100.0 if value else 0.0)
            text = f"{quantity(value, unit)} of {quantity(of, unit)} {name} = {quantity(share, '%')}"
            value, unit = share, "%"
        else:
            text = f"{name} {quantity(value, unit)}"
        if limit is None:
            measurement = Measurement(name, value, unit)
        else:
            measurement = Measurement(name, value, unit, limit.warn, limit.fail, limit.source, limit.worse)
        self._measurements.append(measurement)
        if limit is not None and limit.crossed(value, limit.fail):
            self._set(Outcome.FAIL, f"{text}   ({measurement.limit_text(Outcome.FAIL)})")
        elif limit is not None and limit.crossed(value, limit.warn):
            self._set(Outcome.WARN, f"{text}   ({measurement.limit_text(Outcome.WARN)})")
        elif not self._summary:
            self._summary = text
        return measurement

    def fail(self, message: str, variant: str = "") -> None:
        """Record a failure that is not a number. ``variant`` picks the remedy for this way to fail."""
        self._set(Outcome.FAIL, message, variant)

    def warn(self, message: str, variant: str = "") -> None:
        """Record what is not as it should be, but does not fail yet."""
        self._set(Outcome.WARN, message, variant)

    def says(self, summary: str) -> None:
        """What a passing finding says of what was seen."""
        self._summary = summary

    def note(self, *lines: str) -> None:
        """Add lines of proof; they stand below the message."""
        self._details.extend(lines)

    def fact(self, **facts: object) -> None:
        """Name values that the remedy's commands need, such as the pid of the session to look at."""
        self._facts.update({name: str(value) for name, value in facts.items()})

    def began(self, since: datetime | None) -> None:
        """Say since when it has been so; the outage clock of the escalation runs from there."""
        self._since = since

    def follows_only_from(self, *causes: str) -> None:
        """Narrow the declared causes to these, where the evidence tells which can explain it.

        An id alone means all of it; one that was declared alone may be narrowed to a parameter.
        """
        declared = self._causes
        kept = [cause for cause in declared if cause in causes or cause.partition("[")[0] in causes]
        narrowed = [cause for cause in causes if cause not in declared and cause.partition("[")[0] in declared]
        self._causes = tuple(dict.fromkeys((*kept, *narrowed)))

    def sign_of(self, thing: object) -> None:
        """Name what is at fault: of the check's findings that are signs of the same, the first explains the others."""
        self._sign_of = str(thing)

    def escalate(self, level: Escalation, reason: str) -> None:
        """Ask for a higher escalation than the severity alone would."""
        if ESCALATION_ORDER.index(level) > ESCALATION_ORDER.index(self._escalation[0]):
            self._escalation = (level, reason)

    def not_applicable(self, reason: str) -> NoReturn:
        """End the check: its question does not arise here."""
        raise NotApplicable(reason)

    def _set(self, outcome: Outcome, message: str, variant: str = "") -> None:
        if GRAVITY.index(outcome) > GRAVITY.index(self._outcome):
            if self._message:
                self._details.insert(0, self._message)
            self._outcome, self._message, self._variant = outcome, message, variant
        else:
            self._details.append(message)

    def _own(self, **overrides: Any) -> Finding:
        made = replace(
            self._blank,
            outcome=self._outcome,
            message=self._message or self._summary or self._blank.title,
            details=tuple(self._details),
            measurements=tuple(self._measurements),
            variant=self._variant,
            facts=self._facts,
            causes=self._causes,
            sign_of=self._sign_of,
            since=self._since,
            escalation=self._escalation[0],
            escalation_reason=self._escalation[1],
        )
        return replace(made, **overrides)

    def _silent(self) -> bool:
        # What a pass says is for when there is nothing else to say.
        return self._outcome is Outcome.PASS and not (self._measurements or self._details)

    def findings(self) -> Iterator[Finding]:
        """What was recorded: the check's own finding unless only its parts have one, then each part's."""
        if not self._parts or not self._silent():
            yield self._own()
        for part in self._parts.values():
            yield from part.findings()

    def ended(self, outcome: Outcome, message: str, **overrides: Any) -> Iterator[Finding]:
        """What was recorded by a check that was ended by something else than its own last line: that comes first."""
        if self._message and self._message != message:
            self._details.insert(0, self._message)
        yield self._own(outcome=outcome, message=message, **overrides)
        for part in self._parts.values():
            yield from part.findings()
