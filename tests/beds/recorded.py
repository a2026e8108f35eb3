"""Feeds a check with recorded evidence, for faults that can't be made in a test: ids that run out, swapping hosts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from allodoc_health.finding import Escalation, Finding, NotApplicable, Outcome, Recorder
from allodoc_health.symptom import Symptom, symptom_of
from allodoc_health.verdict import explain


def findings_on(check: Callable[..., None], *, parameter: str | None = None, **evidence: Any) -> list[Finding]:
    """What a check finds on this evidence, as the engine would record it."""
    symptom = _symptom(check)
    blank = Finding(
        id=symptom.id,
        target="recorded",
        outcome=Outcome.PASS,
        severity=symptom.severity,
        title=symptom.title,
        message="",
        parameter=parameter,
        causes=symptom.caused_by,
    )
    recorder = Recorder(blank)
    try:
        check(**evidence, finding=recorder)
    except NotApplicable as reason:
        return list(recorder.ended(Outcome.NOT_APPLICABLE, str(reason)))
    except AssertionError as error:
        return list(recorder.ended(Outcome.FAIL, str(error).split("\nassert ")[0]))
    return explain(list(recorder.findings()))


def finding_on(check: Callable[..., None], **evidence: Any) -> Finding:
    """The one finding of a check on this evidence."""
    (finding,) = findings_on(check, **evidence)
    return finding


def escalation_of(check: Callable[..., None]) -> Escalation:
    """What a failure of this check escalates to by its own declaration."""
    return _symptom(check).escalation


def _symptom(check: Callable[..., None]) -> Symptom:
    marks = SimpleNamespace(
        get_closest_marker=lambda name: next(
            (mark for mark in getattr(check, "pytestmark", ()) if mark.name == name), None
        )
    )
    symptom = symptom_of(marks)  # type: ignore[arg-type]  # it has the one method that is asked for
    assert symptom is not None, f"{check} is no check"
    return symptom
