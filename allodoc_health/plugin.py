"""The pytest plugin: it gives checks their targets, observes, turns reports into findings and findings into a verdict.

Outputs are plugins of their own; they implement :func:`HealthHooks.pytest_health_report`.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import allodoc_health.axes  # noqa: F401  # defines the axis "service", which every target has
from allodoc_health.catalogue import Entry, read_catalogue, split_name
from allodoc_health.collected import Collected
from allodoc_health.finding import (
    GRAVITY,
    Escalation,
    Failed,
    Finding,
    NotApplicable,
    Outcome,
    Recorder,
    Severity,
    duration,
    named,
)
from allodoc_health.inspection import Inspection
from allodoc_health.limits import Limits
from allodoc_health.looks import Look, Looker
from allodoc_health.opening import Opener
from allodoc_health.probe import AXES, PROBES, Observations
from allodoc_health.remedy import GuideError, Remedy, remedy_for, render
from allodoc_health.run import Defect, TargetReport, Waited, to_json
from allodoc_health.symptom import CHAPTERS, Symptom, symptom_of
from allodoc_health.target import Target, TargetError, line_in, nearest
from allodoc_health.verdict import expand_causes, explain, judge
from allodoc_health.waivers import waived, warnings_on
from allodoc_health.words import vocabulary
from allodoc_health.workers import make_scheduler, target_of

DEFAULT_BUDGET = 10.0

AHEAD = 1
"""How many targets are observed while another one's checks run: a silent one costs its deadlines, and nobody else's."""

LEAST_PAUSE = 1.0
"""Seconds: a watch that looks more often costs its target more than it tells."""


class HealthHooks:
    """The hooks that this plugin adds to pytest's."""

    def pytest_health_report(self, config: pytest.Config, report: TargetReport) -> None:
        """One target has been judged. Called once a target, after the last check, where the terminal is."""

    @pytest.hookspec(firstresult=True)
    def pytest_health_outage(self, config: pytest.Config, report: TargetReport) -> datetime | None:
        """Since when something critical has failed on a target at any time, as earlier runs know.

        Called before a report is given to the outputs; its verdict is that of this run alone, so far.
        """

    def pytest_health_look(self, config: pytest.Config, look: Look) -> None:
        """One look of several is over, of ``--wait`` or of ``--watch``; the last one is reported like any run."""


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
        help="inspect targets/NAME.toml (repeatable; * ? [] match several); without it, what runs on this Docker host",
    )
    group.addoption(
        "--budget",
        type=float,
        default=DEFAULT_BUDGET,
        metavar="SECONDS",
        help="what all probes together may take (default: %(default)s s)",
    )
    group.addoption(
        "--replay",
        action="append",
        metavar="SNAPSHOT",
        help="tell a recorded run again, with today's checks, limits and remedies, touching nothing (repeatable); "
        "with --target, that target's limits and waivers",
    )
    group.addoption(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="look again at what is not green until it is, or for so long; then tell how it is",
    )
    group.addoption(
        "--watch",
        type=float,
        metavar="SECONDS",
        help="look again every so many seconds until interrupted (Ctrl-C), which then ends the run with a report",
    )
    group.addoption(
        "--deploy-window",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="send requests steadily for so long, while something is deployed, before looking at the rest",
    )
    group.addoption(
        "--unmask-addresses",
        action="store_true",
        help="show public client addresses as they are, in every output: for those who may see them",
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
    _refuse_conflicts(config)
    config.pluginmanager.register(HealthRun(config), "health-run")


def _refuse_conflicts(config: pytest.Config) -> None:
    """End a run before it begins whose options for looking again make no sense, alone or together."""
    option = config.option
    again = [word for word, wanted in (("--wait", option.wait), ("--watch", option.watch is not None)) if wanted]
    if option.deploy_window and getattr(option, "numprocesses", None):
        raise pytest.UsageError("--deploy-window comes before all else, in one process: leave out -n")
    if len(again) > 1:
        raise pytest.UsageError("--wait ends when everything is well, --watch when you say so: choose one")
    if option.budget <= 0:
        raise pytest.UsageError(f"--budget {option.budget:g}: a number of seconds above 0")
    if option.deploy_window < 0:
        raise pytest.UsageError("--deploy-window takes seconds")
    if option.deploy_window and option.watch is not None:
        raise pytest.UsageError("--deploy-window is over when it is over, --watch is not: choose one")
    if option.wait < 0 or (option.watch is not None and option.watch < LEAST_PAUSE):
        raise pytest.UsageError(f"--wait takes seconds, --watch at least {LEAST_PAUSE:g} of them")
    for word in again:
        if option.replay:
            raise pytest.UsageError(f"{word} looks again, and a replay always shows the same: leave one of them out")
        if getattr(option, "numprocesses", None):
            raise pytest.UsageError(f"{word} looks again in one process: leave out -n")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist the moment of the run and the key of its tokens, which are one for all of them."""
    run: HealthRun = node.config.pluginmanager.getplugin("health-run")
    node.workerinput["health-token-key"] = run.token_key
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
        self.collected = Collected()
        self.selected: dict[str, dict[str, str]] = {}
        self._rows: Counter[tuple[str, str]] = Counter()
        self._checks: dict[str, list[pytest.Item]] = {}
        self.remote: dict[str, dict[str, Any]] = {}
        self.reports: list[TargetReport] = []
        self._opened_at = time.monotonic()
        self._opener = Opener(config)
        self.token_key = self._opener.token_key
        self._waited: dict[str, Waited] = {}

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
        try:
            for inspection in self._opener.open():
                self.inspections[inspection.target.name] = inspection
                self._check_waivers(inspection.target)
        except TargetError as error:
            for inspection in self.inspections.values():
                inspection.close()
            raise pytest.UsageError(str(error)) from None

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
                self._rows[name, symptom.id] += 1
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

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Bring the checks of each target together: it is observed when they come, not all targets at once."""
        if len(self.inspections) > 1:
            place = {name: index for index, name in enumerate(self.inspections)}
            items.sort(key=lambda item: place[self.inspection(item).target.name] if symptom_of(item) else -1)

    def pytest_report_header(self) -> list[str]:
        """Say what is under inspection and how it was found."""
        lines = ["public client addresses are not masked"] if self.config.option.unmask_addresses else []
        for inspection in self.inspections.values():
            target = inspection.target
            lines.append(f"target: {target.name} ({target.origin})")
            if target.deploy_window and not inspection.replayed:
                lines.append(f"  requests from now on, for {duration(target.deploy_window)}")
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
        checks = [item for item in session.items if symptom_of(item) is not None]
        for item in checks:
            target = self.inspection(item).target.name
            self._checks.setdefault(target, []).append(item)
            self.selected.setdefault(target, {})[item.nodeid] = _name_of(item)
        if not checks or self.is_worker:
            return
        try:
            if self.config.option.deploy_window and not self.config.option.replay:
                if not any(self._lasts(item) for item in checks):
                    raise TargetError("--deploy-window is what deploy.availability tells, which is not selected")
                self._outlast()
            if self.config.option.watch is not None:
                Looker(self, checks).watch(self.config.option.watch)
            elif self.config.option.wait:
                changing = [item for item in checks if not self._lasts(item)]
                self._waited = Looker(self, changing).wait(self.config.option.wait)
            self._observe_from(self.inspection(checks[0]).target.name)
        except TargetError as error:
            raise pytest.UsageError(str(error)) from None

    def observe(self, checks: Iterable[pytest.Item]) -> None:
        """Set off the probes that checks need, where nothing has been set off yet. Raises TargetError in a replay."""
        for name, probes in self._wanted(checks).items():
            observer = self.inspections[name].observer
            if not observer.started:
                observer.start(probes)

    def _wanted(self, checks: Iterable[pytest.Item]) -> dict[str, list[tuple[str, Mapping[str, str]]]]:
        """The probes that checks need, as name and axis values, by target."""
        wanted: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
        for item in checks:
            values = getattr(getattr(item, "callspec", None), "params", {})
            if None not in values.values():
                probes = wanted.setdefault(self.inspection(item).target.name, [])
                probes.extend((name, values) for name in getattr(item, "fixturenames", ()) if name in PROBES)
        return wanted

    def _outlast(self) -> None:
        """Come to the end of what lasts on purpose, on all targets at the same time, before anything else begins."""
        with ThreadPoolExecutor(len(self._checks)) as pool:
            for name, checks in self._checks.items():
                pool.submit(self.inspections[name].observer.outlast, self._wanted(checks).get(name, []))

    def _lasts(self, item: pytest.Item) -> bool:
        """Whether a check is about something that lasts on purpose: it can't become green any more."""
        target = self.inspection(item).target
        return any(PROBES[name].lasts(target) > 0 for name in getattr(item, "fixturenames", ()) if name in PROBES)

    def _observe_from(self, name: str) -> None:
        """Observe a target whose checks come now, and those that come next; in a worker nobody knows which they are."""
        names = list(self._checks)
        first = names.index(name)
        for one in names[first : first + (1 if self.is_worker else 1 + AHEAD)]:
            if not self.inspections[one].observer.started:
                self.observe(self._checks[one])

    def renew(self, name: str) -> None:
        """Open a target anew, so that everything is observed again. Raises TargetError where it is not to be found."""
        fresh, old = self._opener.again(name), self.inspections[name]
        fresh.observer.on_wait = old.observer.on_wait
        fresh.observer.keep(old.observer)
        self.inspections[name] = fresh
        old.close()

    def forget(self, item: pytest.Item) -> None:
        """Let a check begin with nothing recorded, though it ran before."""
        if _RECORDER in item.stash:
            del item.stash[_RECORDER]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Observe, in a worker, only the targets whose checks it was given; end what has nothing to look at."""
        symptom = symptom_of(item)
        if symptom is None:
            return
        if self._checks:
            self._observe_from(self.inspection(item).target.name)
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
            message = f"blocked by {problem.guard} – {problem.message}"  # a colon after *password* hides a word
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
        self.collected.take(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count a file of checks that can't be read: what is in it is not checked."""
        if report.failed and self.inspections:
            self.collected.add(Defect(report.nodeid, "", report.longreprtext))

    # -- the end --------------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over what a worker of pytest-xdist observed."""
        for name, observed in json.loads(getattr(node, "workeroutput", {}).get("health", "{}")).items():
            if observed["evidence"] or observed["unobserved"] or name not in self.remote:
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
            for name in self.inspections:
                report = self.report(name, self.collected, self._opened_at, cut_short)
                if report is not None:
                    self.reports.append(report)
                    self.config.hook.pytest_health_report(config=self.config, report=report)
            if exitstatus == pytest.ExitCode.OK and any(report.defects for report in self.reports):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            elif exitstatus == pytest.ExitCode.INTERRUPTED and session.shouldfail:
                # pytest-xdist calls the end that -x asked for an interrupt; pytest itself does not.
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for inspection in self.inspections.values():
            inspection.close()

    def _observed(self, inspection: Inspection) -> dict[str, Any]:
        return {
            "evidence": {name: to_json(value) for name, value in inspection.observer.collected().items()},
            "unobserved": to_json(inspection.observer.unobserved()),
            "timings": inspection.observer.timings(),
            "selected": self.selected.get(inspection.target.name, {}),
            "whole": self._whole(inspection.target.name),
        }

    def _whole(self, target: str) -> list[str]:
        """The symptoms of which everything was selected that there is on a target."""
        selected = Counter(split_name(check)[0] for check in self.selected.get(target, {}).values())
        return [symptom for symptom, count in selected.items() if count == self._rows[target, symptom]]

    def report(self, name: str, collected: Collected, began: float, cut_short: str = "") -> TargetReport | None:
        """What was found out about a target, judged; ``None`` if nothing was looked at.

        ``began`` is a moment of the monotonic clock.
        """
        inspection = self.inspections[name]
        findings = explain(collected.findings(name))
        remedies, wrong = rendered_remedies(findings, inspection)
        defects = (*collected.defects(name), *wrong)
        told = {finding.nodeid for finding in findings} | {defect.nodeid for defect in defects}
        not_run = tuple(check for nodeid, check in self.selected.get(name, {}).items() if nodeid not in told)
        if not findings and not defects and not (not_run and cut_short):
            return None
        observed = self.remote.get(name) or self._observed(inspection)
        whole = observed["whole"] if not (not_run or defects) else ()
        judged = partial(judge, findings, inspection.target.started, len(defects), len(not_run) + bool(cut_short))
        report = TargetReport(
            target=inspection.target,
            started=inspection.target.started,
            seconds=time.monotonic() - began,
            findings=findings,
            verdict=judged(),
            evidence=inspection.redactor.evidence(observed["evidence"]),
            unobserved=inspection.redactor.evidence(observed["unobserved"]),
            timings=observed["timings"],
            operator=inspection.redactor.evidence(to_json(inspection.words())),
            replayed=inspection.replayed,
            remedies=remedies,
            defects=defects,
            not_run=not_run,
            cut_short=cut_short,
            warnings=inspection.redactor.evidence(tuple(warnings_on(inspection.target, findings, whole))),
            waited=self._waited.get(name),
        )
        since = inspection.outage_since or self.config.hook.pytest_health_outage(config=self.config, report=report)
        return replace(report, verdict=judged(outage_since=since))


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
                words = vocabulary(inspection.target, inspection.words(), facts)
                remedies[finding.name] = render(remedy, words, inspection.redactor.text)
        except GuideError as error:
            where = finding.remedy or "guide"
            defects.setdefault(str(error), Defect(where, finding.name, str(error), inspection.target.name))
    return remedies, tuple(defects.values())


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


def _name_of(item: pytest.Item) -> str:
    symptom = symptom_of(item)
    assert symptom is not None
    return named(symptom.id, _parameter(item))


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
def observer(request: pytest.FixtureRequest) -> Observations:
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
