"""Every fault of the catalogue: made for real, told by the whole suite, judged, and mended as its remedy says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.suite import ROOT, Health, Run
from tests.faults.fault import BEDS, FAULTS, Fault, Steps
from tests.faults.judge import Judgement, judge, told
from tests.faults.replays import keep_snapshot

for path in sorted((ROOT / "tests" / "faults").glob("*/[a-z]*.py")):
    import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))

WHOLE = "checks"
GREEN_WITHIN = 30.0
"""Seconds for a mended service to be well: health checks lag, and a crash loop waits out its back-off."""

HEALTHY_WITHIN = 10.0
"""Seconds for which it is left alone before it is looked at, if its own health checks do not pass before."""

CHAPTERS: Mapping[str, Sequence[str]] = {
    "api": ("performance",),
    "cache": ("performance",),
    "deploy": ("deployment",),
    "host": ("performance", "service"),
    "logs": ("logs", "performance"),
    "tls": ("network",),
}
"""The folders of checks whose ids do not begin with the folder's own name."""


def _entry(name: str, entry: Fault) -> Any:
    marks: list[Any] = [pytest.mark.docker] if entry.bed == "docker" else []
    if entry.missed:
        marks.append(pytest.mark.xfail(reason=entry.missed, strict=True))
    return pytest.param(entry, id=name, marks=marks)


@pytest.mark.parametrize("entry", [_entry(name, entry) for name, entry in FAULTS.items()])
def test_fault(entry: Fault, suite: Health, keep: Callable[[Judgement], None], request: pytest.FixtureRequest) -> None:
    """The fault's root causes are named, no others, nothing unrelated is red, and the remedy turns it green again."""
    given: dict[str, Any] = {name: request.getfixturevalue(name) for name in entry.fixtures}
    bed = request.getfixturevalue(BEDS[entry.bed])
    target = "" if entry.discovered else bed.target + entry.limits
    with contextmanager(entry.inject)(**given) as by_hand:
        run = suite(WHOLE, target=target)
        keep_snapshot(request.node.callspec.id, run)
        judged = judge(entry, run)
        keep(judged)
        if not judged.flawless:
            pytest.xfail(f"{judged.problems}: it counts against recall and precision, which are asserted in the end")
        try:
            mended = mend_as_told(entry, run, by_hand, lambda: again(suite, entry, bed, run, target))
        except AssertionError as problem:
            keep(replace(judged, mended=f"FAILED: {str(problem).splitlines()[0][:120]}"))
            pytest.xfail(f"the remedy: {problem}: it counts against the share of remedies that work")
        if mended:
            keep(replace(judged, mended=mended))


def mend_as_told(entry: Fault, run: Run, by_hand: Callable[[], object] | None, look: Callable[[], Run]) -> str:
    """Execute what the remedies of a fault say; how it went, or nothing where they are not to be executed."""
    found = told(entry, run)
    printed = "\n".join(text for name in found for text in run.do(name, "look"))
    assert not [text for text in entry.looks if text not in printed], printed
    mending = {name: mend for name, called in found.items() if isinstance(mend := entry.mend[called], Steps)}
    if by_hand is not None:
        by_hand()
    for name, mend in mending.items():
        run.do(name, steps=mend.numbers)
    if len(mending) < len(found):
        return ""
    # What failed may go on to warn of what was: errors that have ended, clients that were turned away.
    return f"green after {green_after(look, found.keys() & run.names('warn')):.0f} s"


def again(suite: Health, entry: Fault, bed: Demo | Stack, before: Run, target: str) -> Run:
    """A run of the chapters that something was wrong in, once the bed's own health checks have had their time.

    What else a remedy may have broken, the next fault's run of the whole suite shows.
    """
    ends = time.monotonic() + HEALTHY_WITHIN
    while not bed.is_healthy() and time.monotonic() < ends:
        time.sleep(0.05)
    return suite(*chapters_of({*before.names("fail", "blocked"), *told(entry, before)}), target=target)


def chapters_of(names: Iterable[str]) -> list[str]:
    """The folders of the checks that gave these findings."""
    kinds = {name.partition(".")[0] for name in names}
    return sorted({f"checks/{folder}" for kind in kinds for folder in CHAPTERS.get(kind, (kind,))})


def green_after(look: Callable[[], Run], warned: set[str]) -> float:
    """Seconds until a look finds nothing red, nor one of these warnings; an error after :data:`GREEN_WITHIN`."""
    began = time.monotonic()
    while True:
        run = look()
        took = time.monotonic() - began
        left = warned & run.names("warn")
        if took > GREEN_WITHIN or not (run.names("fail", "blocked") or left):
            run.is_calm()
            assert not left, run.output
            return took
