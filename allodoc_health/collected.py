"""What checks reported, target by target, in whichever process they ran."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest

from allodoc_health.finding import Finding, Outcome
from allodoc_health.run import Defect

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class Collected:
    """The findings of one pass over the checks, the guards that failed beside them, and the checks that broke down."""

    def __init__(self) -> None:
        self._findings: dict[str, list[Finding]] = {}
        self._guards: dict[str, dict[str, Finding]] = {}
        self._defects: list[Defect] = []

    def take(self, report: pytest.TestReport) -> None:
        """Take what a check's report carries."""
        properties = dict(report.user_properties)
        if report.when == "teardown":
            return
        target = str(properties.get("target", ""))
        if "findings" in properties:
            for finding in read_findings(str(properties["findings"])):
                self._findings.setdefault(target, []).append(replace(finding, nodeid=report.nodeid))
            for guard in read_findings(str(properties.get("guard", "[]"))):
                self._guards.setdefault(target, {}).setdefault(guard.name, guard)
        elif "defect" in properties and report.failed:
            symptom = str(properties.get("symptom", ""))
            self.add(Defect(report.nodeid, symptom, report.longreprtext, target))

    def add(self, defect: Defect) -> None:
        """Count a check that broke down, or a file of them."""
        self._defects.append(defect)

    def findings(self, target: str) -> list[Finding]:
        """The findings of a target, with the guards that failed where it blocks them."""
        return with_guards(self._findings.get(target, []), self._guards.get(target, {}))

    def not_green(self, outcomes: Collection[Outcome]) -> set[str]:
        """The node ids of the checks with a finding of these outcomes, or that broke down."""
        findings = (finding for found in self._findings.values() for finding in found)
        return {finding.nodeid for finding in findings if finding.outcome in outcomes} | {
            defect.nodeid for defect in self._defects
        }

    def defects(self, target: str) -> list[Defect]:
        """What broke down in looking at a target, or before it was known at which."""
        return [defect for defect in self._defects if defect.target in ("", target)]


def with_guards(found: Sequence[Finding], guards: Mapping[str, Finding]) -> list[Finding]:
    """The findings, with each guard failing that blocks one of them.

    A guard that was not selected has failed all the same, and whoever ran only one chapter needs to know it, too. So
    has one whose check passed on other evidence: what it guards was not to be had.
    """
    blockers = {finding.blocked_by for finding in found}
    needed = {name: guard for name, guard in guards.items() if name in blockers}
    passed = (Outcome.PASS, Outcome.WARN, Outcome.NOT_APPLICABLE)
    told = []
    for finding in found:
        guard = needed.pop(finding.name, None)
        if guard is not None and finding.outcome in passed:
            finding = replace(
                guard,
                nodeid=finding.nodeid,
                seconds=finding.seconds,
                measurements=finding.measurements,
                causes=finding.causes,
            )
        told.append(finding)
    ids = {finding.id for finding in found if finding.outcome not in passed}
    return [*(guard for name, guard in needed.items() if name not in ids), *told]


def read_findings(text: str) -> list[Finding]:
    """Findings from the JSON that a report carried."""
    return _findings_adapter().validate_json(text)


@cache
def _findings_adapter() -> TypeAdapter[list[Finding]]:
    from pydantic import TypeAdapter

    return TypeAdapter(list[Finding])
