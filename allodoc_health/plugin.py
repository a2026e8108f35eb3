"""The pytest plugin: it gives checks their targets, observes, turns reports into findings and findings into a verdict.

Outputs are plugins of their own; they implement :func:`HealthHooks.pytest_health_report`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from allodoc_health.finding import (
    GRAVITY,
    Escalation,
    Failed,
    Finding,
    NotApplicable,
    Outcome,
    Recorder,
    Severity,
    named,
)
from allodoc_health.inspection import Inspection, open_inspection, waived
from allodoc_health.limits import Limits
from allodoc_health.probe import AXES, PROBES, Observer
from allodoc_health.remedy import GuideError, Remedy, remedy_for, render
from allodoc_health.run import Defect, TargetReport, to_json
from allodoc_health.symptom import CHAPTERS, Symptom, symptom_of
from allodoc_health.target import Target, TargetError
from allodoc_health.verdict import expand_causes, explain, judge
from allodoc_health.words import vocabulary

DEFAULT_BUDGET = 10.0


class HealthHooks:
    """The hooks that this plugin adds to pytest's."""

    def pytest_health_report(self, config: pytest.Config, report: TargetReport) -> None:
        """One target has been judged. Called once a target, after the last check, where the terminal is."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add this plugin's hooks."""
    pluginmanager.add_hookspecs(HealthHooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add this plugin's options."""
    group = parser.getgroup("health", "AlloDoc Health")
    group.addoption(
        "--target",
        action="append",
        metavar="NAME",
        help="inspect targets/NAME.toml (repeatable); without it, what runs on this Docker host",
    )
    group.addoption(
        "--budget",
        type=float,
        default=DEFAULT_BUDGET,
        metavar="SECONDS",
        help="what all probes together may take (default: %(default)s s)",
    )
    parser.addini("check_paths", "folders whose tests are checks", type="paths", default=["checks"])
    parser.addini("target_path", "folder of the target files", default="targets")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "symptom(symptom): the check of a symptom; set by the decorator")
    config.addinivalue_line("markers", "smoke: the few checks that say whether users can work")
    for severity in Severity:
        config.addinivalue_line("markers", f"{severity.value}: checks of this severity")
    for chapter, title in CHAPTERS.items():
        config.addinivalue_line("markers", f"{chapter}: checks of the chapter {title!r}")
    config.pluginmanager.register(HealthRun(config), "health-run")


class HealthRun:
    """The state of one pytest session: its targets under inspection and what was found."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.inspections: dict[str, Inspection] = {}
        self.findings: dict[str, list[Finding]] = {}
        self.defects: list[Defect] = []
        self.remote: dict[str, dict[str, Any]] = {}
        self.reports: list[TargetReport] = []
        self._opened_at = time.monotonic()

    # -- targets ------------------------------------------------------------------------------------------------

    def _checks_wanted(self) -> bool:
        """Whether any path on the command line leads to checks, rather than to the tests of this suite alone."""
        folders = [Path(path) for path in self.config.getini("check_paths")]
        for argument in self.config.args:
            path = (self.config.invocation_params.dir / argument.split("::")[0]).resolve()
            for folder in folders:
                if path == folder or folder in path.parents or path in folder.parents:
                    return True
        return False

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Make the targets ready. A target that can't be used ends the session here, with exit status 4."""
        if not self._checks_wanted():
            return
        names: list[str | None] = list(self.config.getoption("target") or [None])
        folder = self.config.rootpath / self.config.getini("target_path")
        try:
            for name in dict.fromkeys(names):
                inspection = open_inspection(name, folder, self.config.getoption("budget"), self.config.rootpath)
                self.inspections[inspection.target.name] = inspection
        except TargetError as error:
            raise pytest.UsageError(str(error)) from None

    def inspection(self, item: pytest.Item) -> Inspection:
        """The inspection that an item belongs to."""
        params = getattr(getattr(item, "callspec", None), "params", {})
        name = params.get("target_name")
        return self.inspections[name] if name else next(iter(self.inspections.values()))

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each check over the targets, and over the values of the axes that it or its evidence names."""
        marks = [mark for mark in metafunc.definition.iter_markers("symptom")]
        if not marks or not self.inspections:
            return
        symptom: Symptom = marks[0].args[0]
        several = len(self.inspections) > 1
        axes = [name for name in metafunc.fixturenames if name in AXES]
        rows: list[Any] = []
        for name, inspection in self.inspections.items():
            combinations: list[tuple[str, ...]] = [()]
            for axis in axes:
                values = [value for value in AXES[axis](inspection.target)]
                if symptom.only:
                    values = [value for value in values if value in symptom.only]
                combinations = [(*row, value) for row in combinations for value in values]
            for row in combinations:
                label = "-".join((*([name] if several else []), *row))
                rows.append(pytest.param(name, *row, id=label or pytest.HIDDEN_PARAM))
        metafunc.fixturenames[:] = ["target_name", *(n for n in metafunc.fixturenames if n != "target_name")]
        metafunc.parametrize(["target_name", *axes], rows)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Give a check the markers and keywords by which -m and -k select it."""
        symptom = symptom_of(item)
        if symptom is None:
            return
        item.extra_keyword_matches.add(named(symptom.id, _parameter(item)))
        item.add_marker(symptom.severity.value)
        if symptom.smoke:
            item.add_marker("smoke")
        for folder in item.path.parents:
            if folder.name in CHAPTERS:
                item.add_marker(folder.name)
                break

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Check the waivers against the catalogue, and keep a target's checks together under pytest-xdist."""
        for item in items:
            if symptom_of(item) is not None:
                item.add_marker(pytest.mark.xdist_group(self.inspection(item).target.name))

    def pytest_report_collectionfinish(self) -> list[str]:
        """Say what is under inspection and how it was found."""
        lines = []
        for inspection in self.inspections.values():
            target = inspection.target
            lines.append(f"target {target.name} ({target.origin})")
            if target.undiscovered:
                lines.append(f"  nothing could be discovered: {target.undiscovered}")
            for role, why in target.found.items():
                service = target.services.get(role)
                lines.append(f"  {role:<9} {service.container if service else ''} ({why})")
        return lines

    # -- observing ----------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Set off every probe that a selected check needs, all of them at once."""
        if self.config.option.collectonly or (
            session.testsfailed and not self.config.option.continue_on_collection_errors
        ):
            return
        wanted: dict[str, list[tuple[str, dict[str, str]]]] = {}
        for item in session.items:
            if symptom_of(item) is None:
                continue
            values = getattr(getattr(item, "callspec", None), "params", {})
            probes = wanted.setdefault(self.inspection(item).target.name, [])
            probes.extend((name, values) for name in getattr(item, "fixturenames", ()) if name in PROBES)
        for name, probes in wanted.items():
            self.inspections[name].observer.start(probes)

    # -- from reports to findings ---------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Turn how a check ended into findings, which travel in the report's user_properties."""
        report: pytest.TestReport = yield  # type: ignore[assignment]  # the wrapped hook's result
        symptom = symptom_of(item)
        if symptom is None or call.when == "teardown":
            return report  # type: ignore[return-value]  # a wrapper returns the result
        if call.when == "setup" and call.excinfo is None:
            return report  # type: ignore[return-value]
        findings = self._findings(item, symptom, call)
        if findings is None:
            report.user_properties.append(("symptom", named(symptom.id, _parameter(item))))
            report.user_properties.append(("defect", "1"))
            return report  # type: ignore[return-value]
        strict = bool(self.config.getini("strict"))
        worst = max(findings, key=lambda finding: GRAVITY.index(finding.outcome))
        report.when = "call"
        if worst.outcome in (Outcome.FAIL, Outcome.BLOCKED) or (strict and worst.outcome is Outcome.WARN):
            report.outcome = "failed"
            report.longrepr = f"{worst.name}: {worst.message}"
        elif worst.outcome is Outcome.NOT_APPLICABLE:
            report.outcome = "skipped"
            report.longrepr = (str(item.path), item.reportinfo()[1] or 0, f"not applicable: {worst.message}")
        else:
            report.outcome = "passed"
            report.longrepr = None
        report.sections = []
        report.user_properties += _properties(worst)
        report.user_properties.append(("findings", json.dumps(to_json(findings))))
        return report  # type: ignore[return-value]

    def _findings(self, item: pytest.Item, symptom: Symptom, call: pytest.CallInfo[None]) -> list[Finding] | None:
        """The findings of a check that has just ended, or ``None`` if it broke down by a defect of its own."""
        inspection = self.inspection(item)
        recorder = _recorder(item, symptom, inspection.target.name)
        problem = call.excinfo.value if call.excinfo else None
        own = named(symptom.id, _parameter(item))
        if problem is None:
            findings = list(recorder.findings())
        elif isinstance(problem, Failed) and problem.guard in (own, symptom.id):
            recorder.note(*problem.details)
            findings = [recorder.ended(Outcome.FAIL, problem.message, variant=problem.variant, since=problem.since)]
        elif isinstance(problem, Failed):
            message = f"blocked by {problem.guard}: {problem.message}"
            findings = [recorder.ended(Outcome.BLOCKED, message, blocked_by=problem.guard)]
        elif isinstance(problem, NotApplicable):
            findings = [recorder.ended(Outcome.NOT_APPLICABLE, str(problem))]
        elif isinstance(problem, AssertionError) and call.when == "call":
            message = str(problem).split("\nassert ")[0].strip()
            if not message or message.startswith("assert "):
                return None
            findings = [recorder.ended(Outcome.FAIL, message)]
        else:
            return None
        seconds = call.duration
        return [self._finish(replace(finding, seconds=seconds), inspection, symptom) for finding in findings]

    def _finish(self, finding: Finding, inspection: Inspection, symptom: Symptom) -> Finding:
        waiver = inspection.waiver(finding.id, finding.parameter)
        now = inspection.target.started
        if waiver is not None and waived(waiver, finding.outcome, now):
            until = waiver.expires.isoformat(timespec="minutes")
            note = f"waived until {until} by {waiver.owner}: {waiver.reason}"
            finding = replace(finding, outcome=Outcome.WAIVED, details=(note, *finding.details))
        elif waiver is not None and waiver.expires <= now and finding.outcome in (Outcome.FAIL, Outcome.WARN):
            note = f"the waiver of {waiver.owner} ran out at {waiver.expires.isoformat(timespec='minutes')}"
            finding = replace(finding, details=(note, *finding.details))
        if finding.outcome is Outcome.FAIL and symptom.escalation is not Escalation.NONE:
            finding = replace(finding, escalation=symptom.escalation, escalation_reason=finding.message)
        if finding.outcome in (Outcome.FAIL, Outcome.WARN, Outcome.WAIVED):
            remedy = remedy_for(finding.id, finding.variant)
            finding = replace(finding, remedy=remedy.anchor if remedy else "")
        return inspection.redactor.evidence(finding)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect findings, wherever the check ran."""
        properties = dict(report.user_properties)
        if "findings" in properties:
            for finding in read_findings(str(properties["findings"])):
                self.findings.setdefault(finding.target, []).append(replace(finding, nodeid=report.nodeid))
        elif "defect" in properties and report.failed:
            self.defects.append(Defect(report.nodeid, str(properties.get("symptom", "")), report.longreprtext))

    # -- the end --------------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over what a worker of pytest-xdist observed."""
        for name, observed in json.loads(getattr(node, "workeroutput", {}).get("health", "{}")).items():
            if observed["evidence"] or name not in self.remote:
                self.remote[name] = observed

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge each target and hand the report to the outputs."""
        worker_output = getattr(self.config, "workeroutput", None)
        if worker_output is not None:
            worker_output["health"] = json.dumps({name: self._observed(one) for name, one in self.inspections.items()})
        elif not self.config.option.collectonly:
            for name, inspection in self.inspections.items():
                self._report(name, inspection)
        for inspection in self.inspections.values():
            inspection.close()

    def _observed(self, inspection: Inspection) -> dict[str, Any]:
        evidence = {name: to_json(value) for name, value in inspection.observer.collected().items()}
        return {"evidence": evidence, "timings": inspection.observer.timings()}

    def _report(self, name: str, inspection: Inspection) -> None:
        findings = explain(self.findings.get(name, []))
        if not findings and not self.defects:
            return
        observed = self.remote.get(name) or self._observed(inspection)
        verdict = judge(findings, inspection.target.started, len(self.defects))
        report = TargetReport(
            target=inspection.target,
            started=inspection.target.started,
            seconds=time.monotonic() - self._opened_at,
            findings=findings,
            verdict=verdict,
            evidence=inspection.redactor.evidence(observed["evidence"]),
            timings=observed["timings"],
            remedies=rendered_remedies(findings, inspection),
            defects=tuple(self.defects),
        )
        self.reports.append(report)
        self.config.hook.pytest_health_report(config=self.config, report=report)


def rendered_remedies(findings: Iterable[Finding], inspection: Inspection) -> dict[str, Remedy]:
    """The remedies of all findings that have one, by the finding's name, with this target's names filled in."""
    remedies = {}
    for finding in findings:
        if finding.remedy and (remedy := remedy_for(finding.id, finding.variant)) is not None:
            facts = {**finding.facts, "parameter": finding.parameter or ""}
            words = vocabulary(inspection.target, inspection.runtime.words, facts)
            try:
                remedies[finding.name] = inspection.redactor.evidence(render(remedy, words))
            except GuideError as error:
                raise GuideError(f"{finding.name}: {error}") from error
    return remedies


def read_findings(text: str) -> list[Finding]:
    """Findings from the JSON that a report carried."""
    from pydantic import TypeAdapter

    return TypeAdapter(list[Finding]).validate_json(text)


def _properties(finding: Finding) -> list[tuple[str, object]]:
    properties: list[tuple[str, object]] = [
        ("symptom", finding.name),
        ("outcome", finding.outcome.value),
        ("severity", finding.severity.value),
        ("remedy", finding.remedy),
    ]
    properties += [(f"measurement {m.name}", f"{m.value:g} {m.unit}".rstrip()) for m in finding.measurements]
    return properties


def _parameter(item: pytest.Item) -> str | None:
    params = getattr(getattr(item, "callspec", None), "params", {})
    values = [str(value) for name, value in params.items() if name != "target_name"]
    return ", ".join(values) or None


_RECORDER = pytest.StashKey[Recorder]()


def _recorder(item: pytest.Item, symptom: Symptom, target: str) -> Recorder:
    if _RECORDER not in item.stash:
        params = {k: str(v) for k, v in getattr(getattr(item, "callspec", None), "params", {}).items()}
        item.stash[_RECORDER] = Recorder(
            Finding(
                id=symptom.id,
                target=target,
                outcome=Outcome.PASS,
                severity=symptom.severity,
                title=symptom.title,
                message="",
                parameter=_parameter(item),
                causes=expand_causes(symptom.caused_by, params),
            )
        )
    return item.stash[_RECORDER]


# -- fixtures that every check may ask for -------------------------------------------------------------------------


@pytest.fixture
def finding(request: pytest.FixtureRequest) -> Recorder:
    """The recorder of the check that runs: ``finding.measure(…)``, ``finding.fail(…)``, ``finding.note(…)``."""
    run: HealthRun = request.config.pluginmanager.getplugin("health-run")
    symptom = symptom_of(request.node)
    if symptom is None:
        raise pytest.UsageError(f"{request.node.nodeid} asks for a finding but is no check: decorate it with @symptom")
    return _recorder(request.node, symptom, run.inspection(request.node).target.name)


@pytest.fixture
def observer(request: pytest.FixtureRequest) -> Observer:
    """The observer of the target that the check is about. Checks ask for evidence by name instead."""
    run: HealthRun = request.config.pluginmanager.getplugin("health-run")
    return run.inspection(request.node).observer


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """The target that the check is about."""
    run: HealthRun = request.config.pluginmanager.getplugin("health-run")
    return run.inspection(request.node).target


@pytest.fixture
def limits(target: Target) -> Limits:
    """The target's limits: the defaults with their sources, overridden by its file."""
    return target.limits


@pytest.fixture
def now(target: Target) -> datetime:
    """The moment of the run, aware, UTC. Checks never look at the clock."""
    return target.started
