"""Waivers: what somebody has accepted for a time. Which finding one covers, and which of them nobody should rely on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from allodoc_health.finding import Finding, Outcome, named
from allodoc_health.target import Target, Waiver, line_in, nearest

WAIVABLE = (Outcome.FAIL, Outcome.WARN)


def waived(waiver: Waiver | None, outcome: Outcome, now: datetime) -> bool:
    """Whether a waiver in force turns a finding with this outcome into a waived one."""
    return waiver is not None and outcome in WAIVABLE and waiver.expires > now


def warnings_on(target: Target, findings: Sequence[Finding], whole: Collection[str]) -> Iterator[str]:
    """A sentence for each waiver that has run out, and for each whose parameter nothing has that was looked at.

    ``whole`` are the symptoms whose checks ran over all their parameters: of others nobody can tell.
    """
    for index, waiver in enumerate(target.waivers):
        where = line_in(Path(target.origin), ("waivers", index, "symptom"))
        called = f"{where}: the waiver of {waiver.owner} for {named(waiver.symptom, waiver.parameter)}"
        about = [finding for finding in findings if finding.id == waiver.symptom]
        if waiver.expires <= target.started:
            counts = any(waiver.covers(f.id, f.parameter) and f.outcome in WAIVABLE for f in about)
            then = "the finding counts again" if counts else "nothing in this run needs it"
            yield f"{called} ran out at {waiver.expires.isoformat(timespec='minutes')}; {then}"
        elif waiver.parameter is not None and waiver.symptom in whole and _misses(waiver, about):
            parameters = {finding.parameter for finding in about if finding.parameter is not None}
            yield f"{called} matches nothing that was looked at; {nearest(waiver.parameter, parameters)}"


def _misses(waiver: Waiver, about: Sequence[Finding]) -> bool:
    """Whether none of a symptom's findings is the one that a waiver is for, although its check got to see them all."""
    if any(finding.parameter is None and finding.outcome is not Outcome.PASS for finding in about):
        return False
    return bool(about) and not any(waiver.covers(finding.id, finding.parameter) for finding in about)
