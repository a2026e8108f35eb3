"""Looking again: ``--wait`` until a target is well, ``--watch`` for as long as somebody watches.

pytest runs each check once and tells its outputs. Looks before that are evaluated here, in silence: the checks are the
same, what they find is told by :func:`HealthHooks.pytest_health_look`, and the last look is what pytest then runs.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol

from allodoc_health.collected import Collected
from allodoc_health.finding import Outcome
from allodoc_health.run import TargetReport, Waited
from allodoc_health.target import TargetError
from allodoc_health.verdict import explain, judge

if TYPE_CHECKING:
    from allodoc_health.plugin import HealthRun

FIRST_PAUSE = 0.5
"""Seconds before the second look; each further pause is longer by :data:`GROWTH`, up to :data:`LONGEST_PAUSE`."""
GROWTH = 1.6
LONGEST_PAUSE = 5.0
JITTER = 0.2
"""The share by which a pause is shorter or longer by chance, so that several suites don't look in step."""


@dataclass(frozen=True)
class Look:
    """One look of several: its reports, its number from 1, the seconds since the first one began.

    ``waiting_for`` are, by target, the root causes of what is not green yet, or what can't be looked at; ``left`` the
    seconds that are left for it to become so. In a watch ``left`` is the time to the next look.
    """

    number: int
    seconds: float
    left: float
    reports: Sequence[TargetReport] = ()
    waiting_for: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Record:
    """How the findings of a target went from look to look."""

    def __init__(self) -> None:
        self._states: dict[str, list[tuple[float, bool]]] = {}

    def note(self, seconds: float, states: Mapping[str, bool]) -> None:
        """Note which findings were green, this many seconds after the first look began."""
        for name, green in states.items():
            known = self._states.setdefault(name, [])
            if not known or known[-1][1] is not green:
                known.append((seconds, green))

    def waited(self, seconds: float, limit: float, looks: int) -> Waited:
        """What came of it: when each finding that was not green became so, and which changed to and fro."""
        last = {name: states[-1] for name, states in self._states.items()}
        return Waited(
            seconds=seconds,
            limit=limit,
            looks=looks,
            green_after={
                name: last[name][0] for name, states in self._states.items() if last[name][1] and len(states) > 1
            },
            flapped=tuple(name for name, states in self._states.items() if sum(not green for _, green in states) > 1),
        )


def pauses() -> Iterator[float]:
    """Seconds between one look and the next, longer each time, never quite the same."""
    pause = FIRST_PAUSE
    while True:
        yield pause * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # no secret depends on it
        pause = min(LONGEST_PAUSE, pause * GROWTH)


@contextmanager
def undisturbed() -> Iterator[threading.Event]:
    """Put an interrupt (Ctrl-C, SIGTERM) off until the block is over, and set the event; a second one interrupts it."""
    came = threading.Event()

    def note(number: int, frame: object) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    heeded = [one for one in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(one))]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Looker:
    """Looks at the checks of a run again and again, before pytest runs them for the last time."""

    def __init__(self, run: HealthRun, items: Sequence[pytest.Item]) -> None:
        self._run = run
        self._items = items
        self._began = time.monotonic()
        self._lost: dict[str, TargetError] = {}
        strict = bool(run.config.getini("strict"))
        self._red = {Outcome.FAIL, Outcome.BLOCKED, *([Outcome.WARN] if strict else [])}

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def wait(self, limit: float) -> dict[str, Waited]:
        """Look until everything is green, or for ``limit`` seconds; how that went, by target.

        Only what is not green is looked at again; once it is, everything is. The evidence of the last look at
        everything is what remains. Raises TargetError where a target is not to be found in the end.
        """
        records = {name: Record() for name in self._run.inspections}
        pending: Sequence[pytest.Item] = self._items
        for number, pause in enumerate(pauses(), 1):
            collected = self._look(pending)
            waiting_for: dict[str, Sequence[str]] = {name: [str(error)] for name, error in self._lost.items()}
            for name, record in records.items():
                findings = explain(collected.findings(name))
                states = {finding.name: finding.outcome not in self._red for finding in findings}
                record.note(self._seconds, states)
                roots = judge(findings, self._run.inspections[name].target.started).root_causes
                waiting_for.setdefault(name, roots or [found for found, green in states.items() if not green])
            looked_at_everything = len(pending) == len(self._items)
            not_green = collected.not_green(self._red)
            pending = [item for item in pending if item.nodeid in not_green or self._target_of(item) in self._lost]
            if looked_at_everything and not pending:
                break
            left = max(0.0, limit - self._seconds)
            self._tell(Look(number, self._seconds, left, waiting_for=waiting_for))
            if not left:
                self._renew(self._items)
                break
            time.sleep(min(pause, left) if pending else 0)
            pending = pending or self._items
            self._renew(pending)
        for error in self._lost.values():
            raise error
        return {name: record.waited(self._seconds, limit, number) for name, record in records.items()}

    def watch(self, every: float) -> None:
        """Look at everything every so many seconds, until interrupted. The evidence of the last look remains.

        A look that is under way comes to its end first, as half of one tells nothing; a second interrupt ends the run.
        """
        with suppress(KeyboardInterrupt):
            for number in count(1):
                began = time.monotonic()
                with undisturbed() as interrupted:
                    collected = self._look(self._items)
                told = (self._run.report(name, collected, began) for name in self._run.inspections)
                left = max(0.0, every - (time.monotonic() - began))
                reports = [report for report in told if report is not None]
                lost: dict[str, Sequence[str]] = {name: [str(error)] for name, error in self._lost.items()}
                self._tell(Look(number, self._seconds, left, reports, lost))
                if interrupted.is_set():
                    return
                time.sleep(left)
                with undisturbed() as interrupted:
                    self._renew(self._items)
                if interrupted.is_set():
                    return

    def _look(self, items: Sequence[pytest.Item]) -> Collected:
        """What these checks find, told to nobody else. Nothing is looked at on a target that is not to be found."""
        found = [item for item in items if self._target_of(item) not in self._lost]
        self._run.observe(found)
        collected = Collected()
        for item in found:
            self._run.forget(item)
            for report in runtestprotocol(item, log=False, nextitem=None):
                collected.take(report)
            self._run.forget(item)
        return collected

    def _renew(self, items: Sequence[pytest.Item]) -> None:
        """Find the targets of these checks anew: what is deployed now may have other addresses, or none."""
        for name in dict.fromkeys(self._target_of(item) for item in items):
            try:
                self._run.renew(name)
            except TargetError as error:
                self._lost[name] = error
            else:
                self._lost.pop(name, None)

    def _target_of(self, item: pytest.Item) -> str:
        return self._run.inspection(item).target.name

    def _tell(self, look: Look) -> None:
        self._run.config.hook.pytest_health_look(config=self._run.config, look=look)
