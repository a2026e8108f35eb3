"""The pytest plugin: it gives checks their targets, observes, turns reports into findings and findings into a verdict.

Outputs are plugins of their own; they implement :func:`HealthHooks.pytest_health_report`.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

import allodoc_health.axes  # noqa: F401  # defines the axis "service", which every target has
from allodoc_health.catalogue import Entry, read_catalogue, split_name
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
from allodoc_health.target import Target, TargetError, line_in, nearest
from allodoc_health.verdict import expand_causes, explain, judge
from allodoc_health.words import vocabulary
from allodoc_health.workers import make_scheduler, target_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

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


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist the moment of the run, which is one for all of them."""
    run: HealthRun = node.config.pluginmanager.getplugin("health-run")
    node.workerinput["health-started"] = {
        name: inspection.target.started.isoformat() for name, inspection in run.inspections.items()
    }


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the checks of a target together, except where the user wants every worker to run everything."""
    run: HealthRun = config.pluginmanager.getplugin("health-run")
    if not run.inspections or config.getoption("dist") == "each":
        return None
    folders = [path.relative_to(config.rootpath).as_posix() for path in run.folders if path != config.rootpath]
    return make_scheduler(config, log, lambda nodeid: target_of(nodeid, list(run.inspections), folders or ["."]))


def wants_checks(config: pytest.Config) -> bool:
    """Whether any path on the command line leads to checks, rather than to the tests of this suite alone."""
    folders = [Path(path) for path in config.getini("check_paths")]
    for argument in config.args:
        path = (config.invocation_params.dir / argument.split("::")[0]).resolve()
        for folder in folders:
            if path == folder or folder in path.parents or path in folder.parents:
                return True
    return False


def end_as_by_ctrl_c() -> None:
    """Have SIGTERM, which a scheduler or CI sends when it loses patience, end the run like Ctrl-C: with a report."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one means it
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)


class HealthRun:
    """The state of one pytest session: its targets under inspection and what was found."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.folders = [Path(path) for path in config.getini("check_paths")]
        self.inspections: dict[str, Inspection] = {}
        self.findings: dict[str, list[Finding]] = {}
        self.guards: dict[str, dict[str, Finding]] = {}
        self.defects: list[Defect] = []
        self.selected: dict[str, dict[str, str]] = {}
        self.remote: dict[str, dict[str, Any]] = {}
        self.reports: list[TargetReport] = []
        self._wanted: dict[str, list[tuple[str, dict[str, str]]]] = {}
        self._opened_at = time.monotonic()

    @property
    def is_worker(self) -> bool:
        """Whether this process is a worker of pytest-xdist."""
        return hasattr(self.config, "workerinput")

    # -- targets ------------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Make the targets ready. A target that can't be used ends the session here, with exit status 4."""
        if not wants_checks(self.config):
            return
        end_as_by_ctrl_c()
        names: list[str | None] = list(self.config.getoption("target") or [None])
        folder = self.config.rootpath / self.config.getini("target_path")
        try:
            for name in dict.fromkeys(names):
                inspection = open_inspection(name, folder, self.config.getoption("budget"), self.config.rootpath)
                self.inspections[inspection.target.name] = self._at_the_same_moment(inspection)
                self._check_waivers(inspection.target)
        except TargetError as error:
            for inspection in self.inspections.values():
                inspection.close()
            raise pytest.UsageError(str(error)) from None

    def _at_the_same_moment(self, inspection: Inspection) -> Inspection:
        """In a worker, the inspection with the start of the whole run for its *now*."""
        started = getattr(self.config, "workerinput", {}).get("health-started", {}).get(inspection.target.name)
        if started is None:
            return inspection
        target = inspection.target.model_copy(update={"started": datetime.fromisoformat(started)})
        return Inspection(
            target, inspection.runtime, inspection.secrets, inspection.redactor, self.config.getoption("budget")
        )

    @cached_property
    def catalogue(self) -> Mapping[str, Entry]:
        """Every symptom that has a check, whether it was selected or not."""
        return read_catalogue(self.folders)

    def _check_waivers(self, target: Target) -> None:
        """A waiver for a symptom that nothing checks waives nothing: say so before anybody relies on it."""
        for index, waiver in enumerate(target.waivers):
            if waiver.symptom not in self.catalogue:
                where = line_in(Path(target.origin), ("waivers", index, "symptom"))
                wrong = f"{where}: a waiver for an unknown symptom {waiver.symptom!r}"
                raise TargetError(f"{wrong}; {nearest(waiver.symptom, self.catalogue)}")

    def inspection(self, item: pytest.Item) -> Inspection:
        """The inspection that an item belongs to."""
        params = getattr(getattr(item, "callspec", None), "params", {})
        name = params.get("target_name")
        return self.inspections[name] if name else next(iter(self.inspections.values()))

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each check over the targets, and over the values of the axes that it or its evidence names."""
        marks = list(metafunc.definition.iter_markers("symptom"))
        if not marks or not self.inspections:
            return
        symptom: Symptom = marks[0].args[0]
        several = len(self.inspections) > 1
        axes = [name for name in metafunc.fixturenames if name in AXES]
        rows: list[Any] = []
        for name, inspection in self.inspections.items():
            combinations: list[tuple[str | None, ...]] = [()]
            for axis in axes:
                values = list(AXES[axis](inspection.target))
                if symptom.only:
                    values = [value for value in values if value in symptom.only]
                combinations = [(*row, value) for row in combinations for value in values]
            # Where there is nothing to look at, one item says so: not checked is not healthy.
            for row in combinations or [(None,) * len(axes)]:
                label = "-".join((*([name] if several else []), *(value for value in row if value is not None)))
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

    def pytest_report_header(self) -> list[str]:
        """Say what is under inspection and how it was found."""
        lines = []
        for inspection in self.inspections.values():
            target = inspection.target
            lines.append(f"target: {target.name} ({target.origin})")
            if target.undiscovered:
                lines.append(f"  nothing could be discovered: {target.undiscovered}")
            for role, why in target.found.items():
                service = target.services.get(role)
                lines.append(f"  {role:<9} {service.container if service else ''} ({why})")
        return [inspection.redactor.text(line) for line in lines]

    # -- observing ----------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Set off every probe that a selected check needs, all of them at once."""
        if self.config.option.collectonly or (
            session.testsfailed and not self.config.option.continue_on_collection_errors
        ):
            return
        for item in session.items:
            symptom = symptom_of(item)
            if symptom is None:
                continue
            target = self.inspection(item).target.name
            self.selected.setdefault(target, {})[item.nodeid] = named(symptom.id, _parameter(item))
            values = getattr(getattr(item, "callspec", None), "params", {})
            if None not in values.values():
                probes = self._wanted.setdefault(target, [])
                probes.extend((name, values) for name in getattr(item, "fixturenames", ()) if name in PROBES)
        if not self.is_worker:
            for name in self._wanted:
                self._observe(name)

    def _observe(self, name: str) -> None:
        observer = self.inspections[name].observer
        if not observer.started:
            observer.start(self._wanted.get(name, []))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Observe, in a worker, only the targets whose checks it was given; end what has nothing to look at."""
        symptom = symptom_of(item)
        if symptom is None:
            return
        self._observe(self.inspection(item).target.name)
        for axis, value in getattr(getattr(item, "callspec", None), "params", {}).items():
            if value is None:
                among = f" among {', '.join(symptom.only)}" if symptom.only else ""
                raise NotApplicable(f"this target has no {axis}{among}")

    # -- from reports to findings ---------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn how a check ended into findings, which travel in the report's user_properties."""
        symptom = symptom_of(item)
        if symptom is None or call.when == "teardown" or (call.when == "setup" and call.excinfo is None):
            return (yield)
        inspection = self.inspection(item)
        findings = self._findings(item, symptom, call)
        if findings is None:
            report = yield
            report.user_properties.append(("target", inspection.target.name))
            report.user_properties += [("symptom", named(symptom.id, _parameter(item))), ("defect", "1")]
            _redact_defect(report, inspection)
            return report
        # The finding takes the traceback's place: pytest need not spend a third of the run on wording tracebacks.
        excinfo, call.excinfo = call.excinfo, None
        try:
            report = yield
        finally:
            call.excinfo = excinfo
        report.user_properties.append(("target", inspection.target.name))
        worst = max(findings, key=lambda finding: GRAVITY.index(finding.outcome))
        strict = bool(self.config.getini("strict"))
        if worst.outcome in (Outcome.FAIL, Outcome.BLOCKED) or (strict and worst.outcome is Outcome.WARN):
            report.outcome = "failed"
            report.longrepr = f"{worst.name}: {worst.message}"
        elif worst.outcome is Outcome.NOT_APPLICABLE or call.when == "setup":
            # One that its evidence ended has no body to run, or pytest would run it after a setup that passed.
            report.outcome = "skipped"
            report.longrepr = (str(item.path), item.reportinfo()[1] or 0, _reason(worst))
        else:
            report.outcome = "passed"
            report.longrepr = None
        report.when = "call"
        report.sections = []
        report.user_properties += _properties(worst)
        item.user_properties += _properties(worst)  # the teardown's report brings them into JUnit
        report.user_properties.append(("findings", json.dumps(to_json(findings))))
        problem = excinfo.value if excinfo else None
        if worst.outcome is Outcome.BLOCKED and isinstance(problem, Failed):
            guard = self._guard(problem, inspection)
            report.user_properties.append(("guard", json.dumps(to_json([guard]))))
        return report

    def _findings(self, item: pytest.Item, symptom: Symptom, call: pytest.CallInfo[None]) -> list[Finding] | None:
        """The findings of a check that has just ended, or ``None`` if it broke down by a defect of its own."""
        inspection = self.inspection(item)
        recorder = _recorder(item, symptom, inspection.target.name)
        problem = call.excinfo.value if call.excinfo else None
        own = named(symptom.id, _parameter(item))
        if problem is None:
            findings = recorder.findings()
        elif isinstance(problem, Failed) and problem.guard in ("", own, symptom.id):
            recorder.note(*problem.details)
            findings = recorder.ended(Outcome.FAIL, problem.message, variant=problem.variant, since=problem.since)
        elif isinstance(problem, Failed):
            message = f"blocked by {problem.guard}: {problem.message}"
            findings = recorder.ended(Outcome.BLOCKED, message, blocked_by=problem.guard)
        elif isinstance(problem, NotApplicable | pytest.skip.Exception):
            findings = recorder.ended(Outcome.NOT_APPLICABLE, str(problem))
        elif isinstance(problem, AssertionError) and call.when == "call":
            message = str(problem).split("\nassert ")[0].strip()
            if not message or message.startswith("assert "):
                return None
            findings = recorder.ended(Outcome.FAIL, message)
        else:
            return None
        return [self._finish(replace(finding, seconds=call.duration), inspection, symptom) for finding in findings]

    def _guard(self, failure: Failed, inspection: Inspection) -> Finding:
        """The failing finding of the check that guards a probe, as it would be told if that check had been selected."""
        name, parameter = split_name(failure.guard)
        entry = self.catalogue.get(name)
        causes = entry.caused_by if entry else ()
        guard = Finding(
            id=name,
            target=inspection.target.name,
            outcome=Outcome.FAIL,
            severity=entry.severity if entry else Severity.MAJOR,
            title=entry.title if entry else name,
            message=failure.message,
            parameter=parameter,
            details=failure.details,
            variant=failure.variant,
            causes=expand_causes(causes, dict.fromkeys(AXES, parameter or "")),
            since=failure.since,
        )
        return self._finish(guard, inspection)

    def _finish(self, finding: Finding, inspection: Inspection, symptom: Symptom | None = None) -> Finding:
        waiver = inspection.waiver(finding.id, finding.parameter)
        now = inspection.target.started
        if waiver is not None and waived(waiver, finding.outcome, now):
            until = waiver.expires.isoformat(timespec="minutes")
            note = f"waived until {until} by {waiver.owner}: {waiver.reason}"
            finding = replace(finding, outcome=Outcome.WAIVED, details=(note, *finding.details))
        elif waiver is not None and waiver.expires <= now and finding.outcome in (Outcome.FAIL, Outcome.WARN):
            note = f"the waiver of {waiver.owner} ran out at {waiver.expires.isoformat(timespec='minutes')}"
            finding = replace(finding, details=(note, *finding.details))
        if symptom and finding.outcome is Outcome.FAIL and symptom.escalation is not Escalation.NONE:
            finding = replace(finding, escalation=symptom.escalation, escalation_reason=finding.message)
        if finding.outcome in (Outcome.FAIL, Outcome.WARN, Outcome.WAIVED):
            with suppress(GuideError):  # which rendered_remedies reports
                remedy = remedy_for(finding.id, finding.variant)
                finding = replace(finding, remedy=remedy.anchor if remedy else "")
        # Names are ours or were redacted with the evidence; they tie findings together and have to stay what they are.
        return replace(
            inspection.redactor.evidence(finding),
            id=finding.id,
            target=finding.target,
            parameter=finding.parameter,
            variant=finding.variant,
            blocked_by=finding.blocked_by,
            causes=finding.causes,
            title=finding.title,
            remedy=finding.remedy,
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect findings, wherever the check ran."""
        properties = dict(report.user_properties)
        if report.when == "teardown":
            return
        target = str(properties.get("target", ""))
        if "findings" in properties:
            for finding in read_findings(str(properties["findings"])):
                self.findings.setdefault(target, []).append(replace(finding, nodeid=report.nodeid))
            for guard in read_findings(str(properties.get("guard", "[]"))):
                self.guards.setdefault(target, {}).setdefault(guard.name, guard)
        elif "defect" in properties and report.failed:
            symptom = str(properties.get("symptom", ""))
            self.defects.append(Defect(report.nodeid, symptom, report.longreprtext, target))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a file of checks that can't be read: what is in it is not checked."""
        if report.failed and self.inspections:
            self.defects.append(Defect(report.nodeid, "", report.longreprtext))

    # -- the end --------------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over what a worker of pytest-xdist observed."""
        for name, observed in json.loads(getattr(node, "workeroutput", {}).get("health", "{}")).items():
            if observed["evidence"] or name not in self.remote:
                self.remote[name] = observed
            self.selected.setdefault(name, observed["selected"])

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Judge each target and hand the report to the outputs."""
        worker_output = getattr(self.config, "workeroutput", None)
        if worker_output is not None:
            worker_output["health"] = json.dumps({name: self._observed(one) for name, one in self.inspections.items()})
        elif not self.config.option.collectonly:
            cut_short = str(session.shouldfail or session.shouldstop or "")
            if exitstatus == pytest.ExitCode.INTERRUPTED:
                cut_short = cut_short or "interrupted"
            for name, inspection in self.inspections.items():
                self._report(name, inspection, cut_short)
            if exitstatus == pytest.ExitCode.OK and any(report.defects for report in self.reports):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for inspection in self.inspections.values():
            inspection.close()

    def _observed(self, inspection: Inspection) -> dict[str, Any]:
        evidence = {name: to_json(value) for name, value in inspection.observer.collected().items()}
        timings = inspection.observer.timings()
        return {"evidence": evidence, "timings": timings, "selected": self.selected.get(inspection.target.name, {})}

    def _report(self, name: str, inspection: Inspection, cut_short: str) -> None:
        found = self.findings.get(name, [])
        findings = explain(with_guards(found, self.guards.get(name, {})))
        remedies, wrong = rendered_remedies(findings, inspection)
        defects = (*(defect for defect in self.defects if defect.target in ("", name)), *wrong)
        told = {finding.nodeid for finding in found} | {defect.nodeid for defect in defects}
        not_run = tuple(check for nodeid, check in self.selected.get(name, {}).items() if nodeid not in told)
        if not findings and not defects and not (not_run and cut_short):
            return
        observed = self.remote.get(name) or self._observed(inspection)
        verdict = judge(findings, inspection.target.started, len(defects), len(not_run) + bool(cut_short))
        report = TargetReport(
            target=inspection.target,
            started=inspection.target.started,
            seconds=time.monotonic() - self._opened_at,
            findings=findings,
            verdict=verdict,
            evidence=inspection.redactor.evidence(observed["evidence"]),
            timings=observed["timings"],
            remedies=remedies,
            defects=defects,
            not_run=not_run,
            cut_short=cut_short,
        )
        self.reports.append(report)
        self.config.hook.pytest_health_report(config=self.config, report=report)


def _reason(finding: Finding) -> str:
    plain = finding.outcome is Outcome.NOT_APPLICABLE
    return finding.message if plain else f"{finding.outcome.value}: {finding.message}"


def _redact_defect(report: pytest.TestReport, inspection: Inspection) -> None:
    """A traceback shows values: where one of them is a secret, the text without it takes the traceback's place."""
    if report.longrepr is not None and not report.skipped:
        text = report.longreprtext
        if (redacted := inspection.redactor.text(text)) != text:
            report.longrepr = redacted
    report.sections = [(title, inspection.redactor.text(text)) for title, text in report.sections]


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


def rendered_remedies(
    findings: Iterable[Finding], inspection: Inspection
) -> tuple[dict[str, Remedy], tuple[Defect, ...]]:
    """The remedies of all findings that have one, by the finding's name, with this target's names filled in.

    Also the defects of a guide that can't be read or filled in: they cost the remedies, not the verdict.
    """
    remedies: dict[str, Remedy] = {}
    defects: dict[str, Defect] = {}
    for finding in findings:
        if finding.outcome not in (Outcome.FAIL, Outcome.WARN, Outcome.WAIVED):
            continue
        facts = {**finding.facts, "parameter": finding.parameter or ""}
        try:
            if (remedy := remedy_for(finding.id, finding.variant)) is not None:
                words = vocabulary(inspection.target, inspection.runtime.words, facts)
                remedies[finding.name] = inspection.redactor.evidence(render(remedy, words))
        except GuideError as error:
            where = finding.remedy or "guide"
            defects.setdefault(str(error), Defect(where, finding.name, str(error), inspection.target.name))
    return remedies, tuple(defects.values())


def read_findings(text: str) -> list[Finding]:
    """Findings from the JSON that a report carried."""
    return _findings_adapter().validate_json(text)


@cache
def _findings_adapter() -> TypeAdapter[list[Finding]]:
    from pydantic import TypeAdapter

    return TypeAdapter(list[Finding])


def _properties(finding: Finding) -> list[tuple[str, object]]:
    properties: list[tuple[str, object]] = [
        ("symptom", finding.name),
        ("outcome", finding.outcome.value),
        ("severity", finding.severity.value),
        ("remedy", finding.remedy),
        ("message", finding.message),
    ]
    properties += [(f"measurement {m.name}", f"{m.value:g} {m.unit}".rstrip()) for m in finding.measurements]
    return properties


def _parameter(item: pytest.Item) -> str | None:
    params = getattr(getattr(item, "callspec", None), "params", {})
    values = [str(value) for name, value in params.items() if name != "target_name" and value is not None]
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
