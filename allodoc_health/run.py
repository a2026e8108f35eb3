"""What a run leaves behind: for each target its findings, verdict and evidence, ready for every output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from allodoc_health.finding import Finding
from allodoc_health.remedy import Remedy
from allodoc_health.target import Target
from allodoc_health.verdict import Verdict

SCHEMA = "allodoc-health/1"


@dataclass(frozen=True, slots=True)
class Defect:
    """A check or probe that broke down itself. Never a finding: the suite is at fault, not the target."""

    nodeid: str
    symptom: str
    text: str
    target: str = ""


@dataclass(frozen=True)
class TargetReport:
    """All that was found out about one target.

    ``not_run`` names the checks that were selected and did not get their turn, ``cut_short`` says why the run ended
    before it was through.
    """

    target: Target
    started: datetime
    seconds: float
    findings: Sequence[Finding]
    verdict: Verdict
    evidence: Mapping[str, Any]
    timings: Mapping[str, float]
    remedies: Mapping[str, Remedy] = field(default_factory=dict)
    defects: Sequence[Defect] = ()
    not_run: Sequence[str] = ()
    cut_short: str = ""

    def finding(self, name: str) -> Finding:
        """The finding of a name, ``id`` or ``id[parameter]``. Raises KeyError."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)


def to_json(value: Any) -> Any:
    """Evidence, findings and the like as what JSON can hold; times in ISO 8601 with their zone."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=str)


def dumps(value: Any) -> str:
    """JSON text of :func:`to_json`, as it is kept in a file."""
    return json.dumps(to_json(value), ensure_ascii=False, indent=1)
