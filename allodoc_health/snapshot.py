"""The format of a snapshot, typed: what readers may rely on. ``reports/snapshot.schema.json`` is made from it.

Writing one needs none of this: the models are only imported to read.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from allodoc_health.finding import Measurement, Outcome, Severity
from allodoc_health.probe import Unobserved
from allodoc_health.remedy import Remedy
from allodoc_health.run import Defect, Waited
from allodoc_health.verdict import Verdict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SuiteRun(_Part):
    """The suite that made the snapshot: its version, its libraries', and how it was called."""

    version: str
    python: str
    packages: dict[str, str]
    arguments: list[str]
    replayed: str | None = Field(
        description="The snapshot that was replayed; null where the target itself was observed"
    )


class SnapshotFinding(_Part):
    """One check's outcome for one parameter."""

    id: str
    parameter: str | None
    outcome: Outcome
    severity: Severity
    title: str
    message: str
    details: list[str]
    measurements: list[Measurement]
    remedy: str | None = Field(description="The section of the guide, whose text is among the remedies")
    blocked_by: str | None
    caused_by: list[str]
    since: AwareDatetime | None
    nodeid: str

    @property
    def name(self) -> str:
        """``id`` or ``id[parameter]``."""
        return self.id if self.parameter is None else f"{self.id}[{self.parameter}]"


class Snapshot(_Part):
    """Evidence, findings and verdict of one target in one run.

    Findings, causes and blockers are named ``id`` or ``id[parameter]``; evidence ``probe`` or ``probe[value]``. Times
    are ISO 8601 with their zone, durations seconds, sizes bytes, shares percent; a number that is none is a string
    (``"Infinity"``). What may not leave the target was replaced before it was written: equal tokens (``‹7f3a2b›``)
    stand for equal values within one snapshot.
    """

    schema_: Literal["allodoc-health/2"] = Field(alias="schema")
    target: str
    started: AwareDatetime
    seconds: float
    suite: SuiteRun
    verdict: Verdict
    findings: list[SnapshotFinding]
    defects: list[Defect] = Field(description="Checks that broke down themselves: not findings")
    not_run: list[str] = Field(description="Checks that were selected and did not get their turn")
    cut_short: str = Field(description="Why the run ended early; empty if it did not: otherwise this is partial")
    waited: Waited | None = Field(description="With --wait: how it became well, or did not")
    warnings: list[str] = Field(description="What everybody should know besides, such as a waiver that ran out")
    remedies: dict[str, Remedy] = Field(description="By the name of the finding, with the target's names filled in")
    timings: dict[str, float] = Field(description="Seconds that each probe took")
    target_settings: dict[str, JsonValue] = Field(description="The target as a target file and discovery describe it")
    operator: dict[str, JsonValue] = Field(description="What an operator's commands for this target are made of")
    evidence: dict[str, JsonValue]
    unobserved: dict[str, Unobserved] = Field(description="Probes that gave no evidence, with the reason")
    digest: str = Field(description="SHA-256 of all the rest, keys sorted, without white space")

    def finding(self, name: str) -> SnapshotFinding | None:
        """The finding of a name, if there is one."""
        return next((finding for finding in self.findings if finding.name == name), None)


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a snapshot."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Snapshot.model_json_schema(by_alias=True, mode="serialization"),
    }
