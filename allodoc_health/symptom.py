"""The decorator that makes a pytest function a check, and the catalogue of symptoms that it fills."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from allodoc_health.finding import Escalation, Severity

CHAPTERS = {
    "service": "Service issues",
    "db": "Database issues",
    "performance": "Performance problems",
    "auth": "Authentication issues",
    "network": "Network issues",
    "deployment": "Deployment issues",
    "logs": "Log analysis",
}

_ID = re.compile(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*")
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Symptom:
    """What a check looks for.

    ``id`` is stable once shipped. ``title`` states the healthy condition. ``caused_by`` names the checks whose failure
    explains this one's, as ``id`` (with any parameter), ``id[parameter]`` or ``id[{service}]``, where a word in braces
    stands for the check's own parameter; ``redis: id`` is a cause only where that parameter is ``redis``. ``only``
    narrows the parameter; ``escalation`` is for what must not wait.
    """

    id: str
    title: str
    severity: Severity
    smoke: bool
    caused_by: tuple[str, ...]
    only: tuple[str, ...]
    escalation: Escalation


def symptom(
    id: str,
    *,
    severity: Severity,
    smoke: bool = False,
    caused_by: Sequence[str] = (),
    only: Sequence[str] = (),
    escalation: Escalation = Escalation.NONE,
) -> Callable[[_Function], _Function]:
    """Make a function the check of a symptom. The first line of its docstring is the title: the healthy condition.

    Raises ValueError for an id that is not ``chapter.slug`` or a function without a docstring.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f"{id!r} is no symptom id: write it as chapter.slug, in lower case, with dashes")

    def mark(function: _Function) -> _Function:
        if not function.__doc__:
            raise ValueError(f"the check of {id} needs a docstring: its first line states the healthy condition")
        title = function.__doc__.strip().splitlines()[0]
        made = Symptom(id, title, severity, smoke, tuple(caused_by), tuple(only), escalation)
        return pytest.mark.symptom(made)(function)  # type: ignore[no-any-return]  # pytest types marks as Any

    return mark


def symptom_of(item: pytest.Item | pytest.Function) -> Symptom | None:
    """The symptom that a pytest item checks, or ``None`` for an ordinary test."""
    mark = item.get_closest_marker("symptom")
    return mark.args[0] if mark else None
