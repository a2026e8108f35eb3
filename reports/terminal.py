"""The terminal: a letter for each check while it runs, and the verdict last, so that it is what stays on the screen."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from allodoc_health.finding import Escalation, Finding, Outcome, duration
from allodoc_health.remedy import Remedy, Step
from allodoc_health.run import TargetReport
from allodoc_health.verdict import State

LETTERS = {
    Outcome.PASS: ("passed", ".", "PASS", {"green": True}),
    Outcome.WARN: ("warned", "w", "WARN", {"yellow": True}),
    Outcome.FAIL: ("failing", "F", "FAIL", {"red": True}),
    Outcome.BLOCKED: ("blocked", "B", "BLOCKED", {"red": True}),
    Outcome.WAIVED: ("waived", "v", "WAIVED", {"cyan": True}),
    Outcome.NOT_APPLICABLE: ("not applicable", "-", "N/A", {"light": True}),
}
DEFECT = ("error", "E", ("DEFECT", {"red": True}))

COLOURS = {
    State.HEALTHY: {"green": True},
    State.WARNING: {"yellow": True},
    State.FAILING: {"red": True},
    State.UNKNOWN: {"red": True},
}

# How many root causes are told with their remedy, and how many consequences at all, before the rest is only named.
SHOWN_REMEDIES = 3
SHOWN_CONSEQUENCES = 12
INDENT = "      "
WIDEST = 120


def pytest_configure(config: pytest.Config) -> None:
    """Register the screen once the terminal reporter is there."""
    config.pluginmanager.register(Screen(config), "health-screen")


class Screen:
    """Writes the verdicts of all targets below everything that pytest writes itself."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reports: list[TargetReport] = []

    @property
    def terminal(self) -> pytest.TerminalReporter | None:
        """pytest's own terminal; ``None`` in a worker of pytest-xdist."""
        terminal: pytest.TerminalReporter | None = self.config.pluginmanager.getplugin("terminalreporter")
        return terminal

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Let slow observations say so, and let pytest's own lines have the colours of our outcomes."""
        run: Any = self.config.pluginmanager.getplugin("health-run")
        terminal = self.terminal
        if terminal is None or not run.inspections:
            return
        _teach_colours(terminal)
        if terminal.isatty and os.environ.get("TERM") != "dumb":
            for inspection in run.inspections.values():
                inspection.on_wait = self._waiting

    def _waiting(self, names: Sequence[str]) -> None:
        """Show, behind what the line already says, what is being waited for, as long as there is something."""
        terminal = self.terminal
        if terminal is None:
            return
        writer = terminal._tw
        text = "\x1b[K"
        room = writer.fullwidth - writer.width_of_current_line - 2
        if names and room > 20:
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            # The cursor goes back to where it was, so that pytest's next letter takes this text's place.
            text = f"\x1b7\x1b[K  {textwrap.shorten(f'waiting for {shown}', room, placeholder=' …')}\x1b8"
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            # Past the writer, which counts what it writes to align the progress at the right.
            writer._file.write(text)
            writer.flush()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, Mapping[str, bool]]] | None:
        """The letter of a check's outcome, in place of pytest's own; a check that broke down is the suite's error."""
        properties = dict(getattr(report, "user_properties", ()))
        if "defect" in properties and report.when == "call" and report.failed:
            return DEFECT
        if "outcome" not in properties or report.when != "call":
            return None
        category, letter, word, markup = LETTERS[Outcome(str(properties["outcome"]))]
        return category, letter, (word, dict(markup))

    def pytest_health_report(self, report: TargetReport) -> None:
        """Keep the report until pytest has said what it has to say."""
        self.reports.append(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None]:
        """Write the verdicts after the terminal reporter's last line, whatever has gone wrong before it."""
        try:
            yield
        finally:
            self._write_verdicts()

    def _write_verdicts(self) -> None:
        terminal = self.terminal
        if terminal is None:
            return
        width = min(WIDEST, terminal._tw.fullwidth) if terminal.isatty else WIDEST
        told = set(terminal.reportchars)
        strict = bool(self.config.getini("strict"))
        for report in self.reports:
            if self.config.get_verbosity() >= 0:
                terminal.write_line("")
            for text, markup in verdict_lines(
                report, self.config.get_verbosity(), width=width, reasons="s" in told, passes="p" in told, strict=strict
            ):
                terminal.write_line(text, **markup)


def _teach_colours(terminal: pytest.TerminalReporter) -> None:
    """Give pytest's summary line and progress our outcomes' colours: it takes what it doesn't know for a warning."""
    from _pytest import terminal as module

    for category, _, _, markup in LETTERS.values():
        colour = next(iter(markup))
        module._color_for_type.setdefault(category, "white" if colour == "light" else colour)
    original = terminal._determine_main_color

    def main_colour(unknown_type_seen: bool) -> str:
        if terminal.stats.get("failing") or terminal.stats.get("blocked"):
            return "red"
        harmless = {"waived", "not applicable"}
        grave = any(reports and name not in harmless for name, reports in terminal.stats.items() if name in CATEGORIES)
        return original(unknown_type_seen and grave)

    terminal._determine_main_color = main_colour  # type: ignore[method-assign]  # there is no hook for it


CATEGORIES = frozenset(category for category, *_ in LETTERS.values()) - {"passed"}

Line = tuple[str, Mapping[str, bool]]


def verdict_lines(
    report: TargetReport,
    verbosity: int = 0,
    *,
    width: int = WIDEST,
    reasons: bool = False,
    passes: bool = False,
    strict: bool = False,
) -> Iterator[Line]:
    """The verdict on one target as lines with their colours, the gravest nearest to the end of the screen.

    With ``verbosity`` below 0 only the root causes' first lines and the state, below -1 the state alone; above 0 what
    passed and what is not applicable too, and what warns with its remedy; above 1 also the evidence that the findings
    rest on. ``reasons`` and ``passes`` are pytest's ``-rs`` and ``-rp``.
    """
    verdict = report.verdict
    by_name = {finding.name: finding for finding in report.findings}
    if verbosity > 1:
        from allodoc_health.run import dumps

        yield "evidence", {"bold": True}
        yield dumps(report.evidence), {}
    if verbosity > 0 or passes:
        yield from _brief(report, Outcome.PASS)
    if verbosity > 0 or reasons:
        yield from _brief(report, Outcome.NOT_APPLICABLE)
    if verbosity >= 0:
        yield from _brief(report, Outcome.WAIVED)
        for finding in report.findings:
            if finding.outcome is Outcome.WARN:
                yield from finding_lines(finding, report, width=width, remedy=verbosity > 0, proof=verbosity > 0)
    told: set[Remedy] = set()
    for index, name in enumerate(verdict.root_causes if verbosity >= -1 else ()):
        remedy = report.remedies.get(name)
        full = verbosity > 0 or (index < SHOWN_REMEDIES and remedy not in told)
        loud = verbosity >= 0
        yield from finding_lines(by_name[name], report, width=width, remedy=loud and full, proof=loud)
        if remedy is not None:
            told.add(remedy)
    consequences = [by_name[name] for name in verdict.consequences]
    if consequences and verbosity >= 0:
        yield from _consequence_lines(consequences, verbosity, verdict.root_causes, width)
    yield from _last_lines(report, verbosity, strict)


def _brief(report: TargetReport, outcome: Outcome) -> Iterator[Line]:
    for finding in report.findings:
        if finding.outcome is outcome:
            yield _headline(finding), LETTERS[outcome][3]
            if outcome is Outcome.WAIVED:
                yield from _indented(finding.details)


def _headline(finding: Finding) -> str:
    first, _, rest = finding.message.partition("\n")
    return f"{LETTERS[finding.outcome][2]:<5} {finding.name}   {first}{' …' if rest else ''}"


def _indented(texts: Sequence[str]) -> Iterator[Line]:
    for text in texts:
        for line in text.splitlines():
            yield INDENT + line, {}


def finding_lines(finding: Finding, report: TargetReport, *, width: int, remedy: bool, proof: bool) -> Iterator[Line]:
    """A finding as in the design: what was measured, what proves it, what to do."""
    yield _headline(finding), {**LETTERS[finding.outcome][3], "bold": True}
    if proof:
        yield from _indented(finding.message.splitlines()[1:])
        yield from _indented(finding.details)
    found = report.remedies.get(finding.name)
    if found is not None and (proof or remedy):
        usual = f"   usual time {found.usual_time}" if found.usual_time else ""
        yield f"  do  {found.anchor}{usual}", {"bold": True}
        if remedy:
            yield from _remedy_lines(found, width)


def _remedy_lines(remedy: Remedy, width: int) -> Iterator[Line]:
    number = 0
    for steps, word in ((remedy.look, "look"), (remedy.mend, "mend")):
        for index, step in enumerate(steps):
            number += 1
            yield from _step_lines(word if index == 0 else "", number, step, width)
    if remedy.escalate:
        for line in textwrap.wrap(f"escalate: {remedy.escalate}", width - len(INDENT)):
            yield INDENT + line, {}


def _step_lines(word: str, number: int, step: Step, width: int) -> Iterator[Line]:
    lead = f"{number}. "
    before = " " * (len(INDENT) + 5 + len(lead))
    for index, line in enumerate(textwrap.wrap(step.text, width - len(before))):
        yield (f"{INDENT}{word:<5}{lead}" if index == 0 else before) + line, {}
    if step.caution:
        for line in textwrap.wrap(f"Caution: {step.caution}", width - len(before)):
            yield before + line, {"yellow": True}
    for command in step.commands:
        for line in command.splitlines():
            yield before + line, {"cyan": True}


def _consequence_lines(
    consequences: Sequence[Finding], verbosity: int, roots: Sequence[str], width: int
) -> Iterator[Line]:
    """What fails because of something else, one a line, and what is blocked, by what blocks it."""
    follow = "follows" if len(consequences) == 1 else "follow"
    yield f"{len(consequences)} more {follow} from that:" if roots else "blocked:", {"bold": True}
    failing = [finding for finding in consequences if finding.outcome is Outcome.FAIL]
    shown = failing if verbosity > 0 else failing[:SHOWN_CONSEQUENCES]
    for finding in shown:
        first = finding.message.partition("\n")[0]
        yield f"{INDENT}{finding.name}: {first} (because of {because(finding, roots)})", {}
    if len(shown) < len(failing):
        yield f"{INDENT}… and {len(failing) - len(shown)} more that fail (-v shows them)", {}
    blocked: dict[str, list[Finding]] = {}
    for finding in consequences:
        if finding.outcome is Outcome.BLOCKED:
            blocked.setdefault(finding.blocked_by or "", []).append(finding)
    for blocker, some in blocked.items():
        told = f"{len(some)} blocked by {blocker}: {', '.join(finding.name for finding in some)}"
        for index, line in enumerate(textwrap.wrap(told, width - 8, break_on_hyphens=False)):
            yield INDENT + "  " * bool(index) + line, {}


def because(finding: Finding, roots: Sequence[str]) -> str:
    """What explains a finding, shortly: the root causes among its causes, or else the first of them."""
    causes = [cause for cause in finding.caused_by if cause in roots] or list(finding.caused_by)
    more = f" and {len(causes) - 2} more" if len(causes) > 2 else ""
    return ", ".join(causes[:2]) + more


def _last_lines(report: TargetReport, verbosity: int, strict: bool) -> Iterator[Line]:
    verdict = report.verdict
    counts = dict.fromkeys(Outcome, 0)
    for finding in report.findings:
        counts[finding.outcome] += 1
    parts = [f"{count} {LETTERS[outcome][0]}" for outcome, count in counts.items() if count]
    if report.not_run:
        parts.append(f"{len(report.not_run)} not run")
    if report.defects:
        parts.append(f"{len(report.defects)} broken down (a defect of the suite)")
        if verbosity >= 0:
            for defect in report.defects:
                where, words = defect.symptom or defect.nodeid, defect.text.strip().splitlines()[-1:]
                yield f"DEFECT {where}   the suite itself is at fault: {''.join(words)}", {"red": True}
    if report.cut_short and verbosity >= 0:
        yield f"the run ended early: {report.cut_short}", {"yellow": True}
    if verbosity < -1:
        pass
    elif verdict.escalation is not Escalation.NONE:
        yield f" then escalate: {verdict.escalation.value} ({verdict.escalation_reason})", {"bold": True}
    elif verdict.escalation_reason:
        yield f" then {verdict.escalation_reason}", {"bold": True}
    cause = f": {', '.join(verdict.root_causes)}" if verdict.root_causes else ""
    refused = ", which --strict makes failures," if strict and counts[Outcome.WARN] else ""
    told = f"({', '.join(parts)}; {duration(report.seconds)})"
    yield (
        f"{report.target.name} {verdict.state.phrase}{refused}{cause}   {told}",
        {
            **COLOURS[verdict.state],
            "bold": True,
        },
    )
