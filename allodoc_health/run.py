"""What a run leaves behind: for each target its findings, verdict and evidence, ready for every output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from allodoc_health.finding import Finding
from allodoc_health.probe import Unobserved
from allodoc_health.remedy import Remedy
from allodoc_health.target import Target
from allodoc_health.verdict import Verdict

SCHEMA = "allodoc-health/2"


@dataclass(frozen=True, slots=True)
class Defect:
    """A check or probe that broke down itself. Never a finding: the suite is at fault, not the target."""

    nodeid: str
    symptom: str
    text: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Waited:
    """How a target became well, or did not: after how many ``seconds`` of at most ``limit``, in how many ``looks``.

    ``green_after`` holds, for each finding that was not green at first, the seconds after which it was; ``flapped`` the
    names of those that were so more than once.
    """

    seconds: float
    limit: float
    looks: int
    green_after: Mapping[str, float]
    flapped: tuple[str, ...]


@dataclass(frozen=True)
class TargetReport:
    """All that was found out about one target.

    ``unobserved`` names the probes that gave no evidence. ``not_run`` names the checks that were selected and did not
    get their turn, ``cut_short`` says why the run ended before it was through. ``replayed`` is the snapshot that was
    told again, if the target itself was not looked at. ``operator`` is what the words of its commands are made of.
    ``warnings`` are sentences on what nobody asked for and everybody should know, such as a waiver that ran out.
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
    unobserved: Mapping[str, Unobserved] = field(default_factory=dict)
    operator: Mapping[str, Any] = field(default_factory=dict)
    replayed: str = ""
    waited: Waited | None = None
    warnings: Sequence[str] = ()

    @property
    def partial(self) -> bool:
        """Whether there is less in it than was asked for."""
        return bool(self.not_run or self.cut_short)

    def finding(self, name: str) -> Finding:
        """The finding of a name, ``id`` or ``id[parameter]``. Raises KeyError."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)


def to_json(value: Any) -> Any:
    """Evidence, findings and the like as what JSON can hold; times in ISO 8601 with their zone.

    JSON has no infinity: it becomes a string, which is read back as the number that it was.
    """
    import pydantic_core

    return json.loads(pydantic_core.to_json(value, fallback=str, inf_nan_mode="strings"))


def dumps(value: Any) -> str:
    """JSON text of :func:`to_json`, as it is kept in a file."""
    return json.dumps(to_json(value), ensure_ascii=False, indent=1, allow_nan=False)


def digest_of(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a snapshot's content as plain JSON, without its own ``digest``."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    canonical = json.dumps(rest, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
