"""The terminal: a letter for each check while it runs, and the verdict last, so that it is what stays on the screen."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest

from allodoc_health.finding import Escalation, Finding, Outcome, duration
from allodoc_health.looks import Look
from allodoc_health.remedy import Remedy, Step
from allodoc_health.run import TargetReport, Waited
from reports.comparison import COMPARISONS, Comparison, Kind, compare, comparison_lines
from reports.history import PAST, Past
from reports.history.telling import coming, course_words, trend_words
from reports.overview import STATE_COLOURS, overview_lines, worst_first

LETTERS = {
    Outcome.PASS: ("passed", ".", "PASS", {"green": True}),
    Outcome.WARN: ("warned", "w", "WARN", {"yellow": True}),
    Outcome.FAIL: ("failing", "F", "FAIL", {"red": True}),
    Outcome.BLOCKED: ("blocked", "B", "BLOCKED", {"red": True}),
    Outcome.WAIVED: ("waived", "v", "WAIVED", {"cyan": True}),
    Outcome.NOT_APPLICABLE: ("not applicable", "-", "N/A", {"light": True}),
}
DEFECT = ("error", "E", ("DEFECT", {"red": True}))

# How many root causes are told with their remedy, how many consequences, and in a watch how many changes, before the
# rest is only named or counted.
SHOWN_REMEDIES = 3
SHOWN_CONSEQUENCES = 12
SHOWN_CHANGES = 12
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
        self._shown_before: list[str] | None = None
        self._turn_before: dict[str, TargetReport] = {}

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
                inspection.observer.on_wait = self._waiting

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

    def pytest_health_look(self, look: Look) -> None:
        """Show one look of several: in a watch the whole verdict, while waiting what is waited for, when that changes.

        A terminal is redrawn; a file gets what is new.
        """
        terminal = self.terminal
        if terminal is None:
            return
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            if self.config.option.watch is None:
                self._show_waiting(terminal, look)
            else:
                self._show_turn(terminal, look)
            terminal.flush()

    def _show_waiting(self, terminal: pytest.TerminalReporter, look: Look) -> None:
        several = len(look.waiting_for) > 1
        names = [f"{target} {name}" if several else name for target, some in look.waiting_for.items() for name in some]
        if names == self._shown_before:
            return
        self._shown_before = names
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        told = f"waiting for {', '.join(names[:4])}{more}" if names else "all green: looking at everything once more"
        terminal.write_line(f"{look.seconds:5.0f} s: {told} ({look.left:.0f} s left)", yellow=bool(names))

    def _show_turn(self, terminal: pytest.TerminalReporter, look: Look) -> None:
        if terminal.isatty:
            terminal.write("\x1b[H\x1b[2J\x1b[3J")
        moment = datetime.now(UTC).strftime("%H:%M:%S UTC")
        every = duration(self.config.option.watch)
        terminal.write_line(f"{moment}, look {look.number}, every {every}; Ctrl-C ends with a report", light=True)
        for target, (error,) in look.waiting_for.items():
            terminal.write_line(f"{target}: {error}", red=True)
        for report in look.reports:
            before = self._turn_before.get(report.target.name)
            self._turn_before[report.target.name] = report
            changes = compare(before, report) if before is not None else None
            if changes is not None and not terminal.isatty and not changes.of(Kind.FINDING):
                continue
            terminal.write_line("")
            for text, markup in turn_lines(report, changes):
                terminal.write_line(text, **markup)

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
        # What stays on the screen is the worst of them.
        for report in reversed(worst_first(self.reports)):
            if self.config.get_verbosity() >= 0:
                terminal.write_line("")
            compared = self.config.stash.get(COMPARISONS, {}).get(report.target.name)
            if compared is not None and self.config.getoption("diff"):
                for text, markup in comparison_lines(compared):
                    terminal.write_line(text, **markup)
            for text, markup in verdict_lines(
                report,
                self.config.get_verbosity(),
                width=width,
                reasons="s" in told,
                passes="p" in told,
                strict=strict,
                past=self.config.stash.get(PAST, {}).get(report.target.name),
            ):
                terminal.write_line(text, **markup)
        if len(self.reports) > 1:
            terminal.write_line("")
            for text, markup in overview_lines(self.reports):
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
    past: Past | None = None,
) -> Iterator[Line]:
    """The verdict on one target as lines with their colours, the gravest nearest to the end of the screen.

    With ``verbosity`` below 0 only the root causes' first lines and the state, below -1 the state alone; above 0 what
    passed and what is not applicable too, and what warns with its remedy; above 1 also the evidence that the findings
    rest on. ``reasons`` and ``passes`` are pytest's ``-rs`` and ``-rp``. ``past`` is what history knows.
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
                loud = verbosity > 0
                yield from finding_lines(finding, report, width=width, remedy=loud, proof=loud, past=past, trend=loud)
    told: set[Remedy] = set()
    for index, name in enumerate(verdict.root_causes if verbosity >= -1 else ()):
        remedy = report.remedies.get(name)
        full = verbosity > 0 or (index < SHOWN_REMEDIES and remedy not in told)
        loud = verbosity >= 0
        yield from finding_lines(
            by_name[name],
            report,
            width=width,
            remedy=loud and full,
            proof=loud,
            past=past if loud else None,
            trend=verbosity > 0,
        )
        if remedy is not None:
            told.add(remedy)
    consequences = [by_name[name] for name in verdict.consequences]
    if consequences and verbosity >= 0:
        yield from _consequence_lines(consequences, verbosity, verdict.root_causes, width)
    for text in coming(report, past) if past is not None and verbosity >= 0 else ():
        yield f"soon  {text}", {"yellow": True}
    yield from _last_lines(report, verbosity, strict, past)


def turn_lines(report: TargetReport, changes: Comparison | None) -> Iterator[Line]:
    """One look of a watch: the state on top, then the root causes with what to do, then what changed since the last."""
    *_, state = _last_lines(report, -1, strict=False, past=None)
    yield state
    by_name = {finding.name: finding for finding in report.findings}
    for index, name in enumerate(report.verdict.root_causes):
        yield from finding_lines(by_name[name], report, width=WIDEST, remedy=index == 0, proof=True)
    if changes is not None:
        yield from comparison_lines(changes, SHOWN_CHANGES)


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


def finding_lines(
    finding: Finding,
    report: TargetReport,
    *,
    width: int,
    remedy: bool,
    proof: bool,
    past: Past | None = None,
    trend: bool = False,
) -> Iterator[Line]:
    """A finding as in the design: what was measured, how it came to that, what proves it, what to do."""
    yield _headline(finding), {**LETTERS[finding.outcome][3], "bold": True}
    if past is not None and (words := course_words(finding, past, report.started)):
        yield INDENT + words, {}
    if past is not None and trend:
        yield from _indented(list(trend_words(finding, past)))
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


def waited_text(waited: Waited) -> str:
    """How long it took until a target was well, what took longest, and what went to and fro."""
    looks = f"{waited.looks} look{'s' if waited.looks > 1 else ''}"
    over = waited.seconds >= waited.limit
    said = (
        f"waited {duration(waited.seconds)} of {duration(waited.limit)}, {looks}{': not all is green' if over else ''}"
    )
    if waited.green_after:
        name, seconds = max(waited.green_after.items(), key=lambda item: item[1])
        said += f"; {len(waited.green_after)} became green, the last after {duration(seconds)}: {name}"
    return said + (f"; to and fro: {', '.join(waited.flapped)}" if waited.flapped else "")


def _last_lines(report: TargetReport, verbosity: int, strict: bool, past: Past | None) -> Iterator[Line]:
    verdict = report.verdict
    level, reason = verdict.escalation, verdict.escalation_reason
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
    for warning in report.warnings if verbosity >= 0 else ():
        yield f"warning: {warning}", {"yellow": True}
    if report.waited is not None and verbosity >= 0:
        yield waited_text(report.waited), {}
    if report.cut_short and verbosity >= 0:
        yield f"the run ended early: {report.cut_short}", {"yellow": True}
    if verbosity < -1:
        pass
    elif level is not Escalation.NONE:
        yield f" then escalate: {level.value} ({reason})", {"bold": True}
    elif reason:
        yield f" then {reason}", {"bold": True}
    cause = f": {', '.join(verdict.root_causes)}" if verdict.root_causes else ""
    refused = ", which --strict makes failures," if strict and counts[Outcome.WARN] else ""
    told = f"({', '.join(parts)}; {duration(report.seconds)})"
    yield (
        f"{report.target.name} {verdict.state.phrase}{refused}{cause}   {told}",
        {
            **STATE_COLOURS[verdict.state],
            "bold": True,
        },
    )
