"""JUnit XML in place of pytest's own, which tells neither a warning from a pass nor what is blocked from what fails.

JUnit's schemas let only suites have properties. Each finding is therefore a suite of one test case, called as the
finding is; the first suite of a target holds no test, only the verdict. So the file is valid for Jenkins' junit-10.xsd.

| outcome | in JUnit |
| --- | --- |
| pass | a test case that passed |
| warn | one that passed, with the message as its output; a failure of type ``warn`` under ``--strict`` |
| fail | a failure of type ``fail`` |
| blocked | an error of type ``blocked``; of type ``defect`` where the check itself broke down |
| waived, not applicable, not run | skipped, of that type |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from allodoc_health.finding import Finding, Outcome
from allodoc_health.remedy import Remedy
from allodoc_health.run import Defect, TargetReport
from reports.printable import lines, one_line
from reports.summary import paragraph
from reports.whole_file import WholeFile

Others = Sequence[pytest.TestReport]

_TAGS = {
    Outcome.FAIL: "failure",
    Outcome.BLOCKED: "error",
    Outcome.WAIVED: "skipped",
    Outcome.NOT_APPLICABLE: "skipped",
}


class JUnitFile(WholeFile):
    """Writes the file that ``--junitxml`` asks for. Tests that are no checks stand in it, too, if the run had some."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        super().__init__(config, "--junitxml", path, self._document)
        self._others: dict[str, pytest.TestReport] = {}
        self._name = str(config.getini("junit_suite_name"))
        self._strict = bool(config.getini("strict"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep how a test ended that is no check: of its phases the one that did not pass, or else the call."""
        if "symptom" not in dict(report.user_properties) and (report.when == "call" or not report.passed):
            self._others[report.nodeid] = report

    def _document(self, reports: Sequence[TargetReport]) -> str:
        return document(reports, list(self._others.values()), name=self._name, strict=self._strict)


def document(
    reports: Sequence[TargetReport], others: Others = (), *, name: str = "pytest", strict: bool = False
) -> str:
    """The XML for all targets, and for tests that are no checks in a last suite of this ``name``."""
    root = ET.Element("testsuites", name="allodoc-health")
    for report in reports:
        root.extend(_of_target(report, strict))
    if others:
        root.append(_of_others(others, name))
    for number, suite in enumerate(root):
        suite.set("id", str(number))
    for tag, counted in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        root.set(tag, str(len(root.findall(f".//{counted}"))))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, "unicode")}\n'


def _of_target(report: TargetReport, strict: bool) -> Iterator[ET.Element]:
    target, verdict = report.target.name, report.verdict
    properties = [
        ("state", verdict.state.value),
        *(("root-cause", name) for name in verdict.root_causes),
        ("escalation", verdict.escalation.value),
        ("escalation-reason", verdict.escalation_reason),
        ("partial", str(report.partial).lower()),
        ("cut-short", report.cut_short),
        *(("warning", warning) for warning in report.warnings),
    ]
    yield _suite(target, report.started, report.seconds, properties, [], paragraph(report))
    for finding in report.findings:
        yield _of_finding(report, finding, strict)
    for defect in report.defects:
        yield _of_defect(report, defect)
    for check in report.not_run:
        case = _case(target, check)
        _end(case, "skipped", "not-run", f"did not get its turn: {report.cut_short or 'the run ended before it'}")
        yield _suite(f"{target} {check}", report.started, 0, [("symptom", check), ("outcome", "not-run")], [case])


def _of_finding(report: TargetReport, finding: Finding, strict: bool) -> ET.Element:
    case = _case(report.target.name, finding.name, finding.seconds)
    tag = _TAGS.get(finding.outcome)
    output = ""
    if strict and finding.outcome is Outcome.WARN:
        tag = "failure"
    if tag:
        _end(case, tag, finding.outcome.value, finding.message, _in_full(finding, report.remedies.get(finding.name)))
    elif finding.outcome is Outcome.WARN:
        output = f"warn: {_in_full(finding, report.remedies.get(finding.name))}"
    name = f"{report.target.name} {finding.name}"
    return _suite(name, report.started, finding.seconds, list(_properties(finding)), [case], output)


def _properties(finding: Finding) -> Iterator[tuple[str, str]]:
    yield "symptom", finding.name
    yield "id", finding.id
    if finding.parameter is not None:
        yield "parameter", finding.parameter
    yield "outcome", finding.outcome.value
    yield "severity", finding.severity.value
    yield "message", finding.message
    if finding.remedy:
        yield "remedy", finding.remedy
    if finding.blocked_by:
        yield "blocked-by", finding.blocked_by
    for cause in finding.caused_by:
        yield "caused-by", cause
    if finding.since is not None:
        yield "since", finding.since.isoformat()
    for measurement in finding.measurements:
        about = f"measurement {measurement.name}"
        yield f"{about} value", f"{measurement.value:.12g}"
        yield f"{about} unit", measurement.unit
        for word, bound in (("warn", measurement.warn), ("fail", measurement.fail)):
            if bound is not None:
                yield f"{about} {word}", f"{bound:.12g}"
        if measurement.warn is not None or measurement.fail is not None:
            yield f"{about} worse", measurement.worse
            yield f"{about} source", measurement.source
    if finding.nodeid:
        yield "nodeid", finding.nodeid


def _in_full(finding: Finding, remedy: Remedy | None) -> str:
    """The message, what proves it, and what to do."""
    told = [finding.message, *finding.details]
    if remedy is not None:
        told.append(f"do: {remedy.anchor}" + (f" (usual time {remedy.usual_time})" if remedy.usual_time else ""))
        for word, steps in (("look", remedy.look), ("mend", remedy.mend)):
            for step in steps:
                caution = f" Caution: {step.caution}" if step.caution else ""
                told += [f"{word}: {step.text}{caution}", *(f"    {command}" for command in step.commands)]
    return "\n".join(told)


def _of_defect(report: TargetReport, defect: Defect) -> ET.Element:
    name = defect.symptom or defect.nodeid
    case = _case(report.target.name, name)
    _end(case, "error", "defect", "the suite itself is at fault", defect.text)
    properties = [("symptom", defect.symptom), ("outcome", "defect"), ("nodeid", defect.nodeid)]
    return _suite(f"{report.target.name} {name}", report.started, 0, properties, [case])


def _of_others(others: Others, name: str) -> ET.Element:
    cases = []
    for other in others:
        path, _, test = other.nodeid.partition("::")
        case = _element("testcase", classname=path, name=test or path, time=f"{other.duration:.3f}")
        if other.failed:
            _end(case, "failure" if other.when == "call" else "error", "fail", "failed", other.longreprtext)
        elif other.skipped:
            why = other.longrepr[2] if isinstance(other.longrepr, tuple) else other.longreprtext
            _end(case, "skipped", "pytest.skip", why)
        cases.append(case)
    began = datetime.fromtimestamp(min(other.start for other in others), UTC)
    return _suite(name, began, sum(other.duration for other in others), [], cases)


def _suite(
    name: str,
    started: datetime,
    seconds: float,
    properties: Sequence[tuple[str, str]],
    cases: Sequence[ET.Element],
    output: str = "",
) -> ET.Element:
    suite = _element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{seconds:.3f}",
        # JUnit's times have no zone; they are UTC.
        timestamp=started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
    )
    holder = ET.SubElement(suite, "properties")
    holder.extend(_element("property", name=name, value=value) for name, value in properties)
    suite.extend(cases)
    if output:
        ET.SubElement(suite, "system-out").text = lines(output)
    return suite


def _case(target: str, name: str, seconds: float = 0.0) -> ET.Element:
    """A test case; its class is target and chapter, by which Jenkins and GitLab group."""
    return _element("testcase", classname=f"{target}.{name.partition('.')[0]}", name=name, time=f"{seconds:.3f}")


def _end(case: ET.Element, tag: str, type: str, message: str, text: str = "") -> None:
    ended = _element(tag, type=type, message=message.partition("\n")[0])
    ended.text = lines(text)
    case.append(ended)


def _element(tag: str, **attributes: str) -> ET.Element:
    return ET.Element(tag, {name: one_line(value) for name, value in attributes.items()})
