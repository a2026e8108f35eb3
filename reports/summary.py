"""The verdict in one paragraph of plain text, to paste into a chat or a ticket."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC

import pytest

from allodoc_health.finding import Escalation, Finding, Outcome
from allodoc_health.remedy import Remedy
from allodoc_health.run import TargetReport
from reports.printable import one_line

NAMED = 3
"""How many root causes or warnings are told with what was measured; of the others only how many there are."""


def paragraph(report: TargetReport) -> str:
    """State, root causes with their value and limit, the first step that mends, whom to call, when it was looked at."""
    verdict = report.verdict
    moment = report.started.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    looked = f"told again from the snapshot of {moment}" if report.replayed else f"looked at {moment}"
    sentences = [f"{report.target.name} {verdict.state.phrase} ({looked}, {counted(report)})."]
    if report.partial:
        sentences.append(f"This is partial: {partly(report)}.")
    told = told_first(report)
    sentences += [f"{finding.name}: {finding.message.partition(chr(10))[0]}." for finding in told[:NAMED]]
    if len(told) > NAMED:
        sentences.append(f"{len(told) - NAMED} more: {', '.join(finding.name for finding in told[NAMED:])}.")
    if verdict.consequences:
        follow = "follows" if len(verdict.consequences) == 1 else "follow"
        sentences.append(f"{len(verdict.consequences)} more {follow} from that." if told else "")
    remedy = report.remedies.get(told[0].name) if told else None
    if remedy is not None:
        sentences += _to_do(remedy)
    sentences.append(f"{whom(report)}." if whom(report) else "")
    sentences += [f"{warning}." for warning in report.warnings]
    return " ".join(filter(None, (" ".join(one_line(sentence).split()) for sentence in sentences)))


def told_first(report: TargetReport) -> list[Finding]:
    """What a reader has to know before anything else: the root causes; if nothing fails what is blocked, or warns."""
    if report.verdict.root_causes:
        return [report.finding(name) for name in report.verdict.root_causes]
    blocked = [finding for finding in report.findings if finding.outcome is Outcome.BLOCKED]
    return blocked or [finding for finding in report.findings if finding.outcome is Outcome.WARN]


def counted(report: TargetReport) -> str:
    """How many findings there are of each outcome, gravest first, as in ``1 fail, 144 pass``."""
    order = (Outcome.FAIL, Outcome.BLOCKED, Outcome.WARN, Outcome.WAIVED, Outcome.PASS, Outcome.NOT_APPLICABLE)
    counts = {outcome: sum(finding.outcome is outcome for finding in report.findings) for outcome in order}
    parts = [f"{count} {outcome.value.replace('-', ' ')}" for outcome, count in counts.items() if count]
    if report.defects:
        parts.append(f"{len(report.defects)} broken down")
    return ", ".join(parts) or "nothing checked"


def partly(report: TargetReport) -> str:
    """Why a report is partial, and how many checks it lacks."""
    count = len(report.not_run)
    lacks = f"{count} checks did not get their turn" if count > 1 else "1 check did not get its turn" if count else ""
    return "; ".join(filter(None, (report.cut_short, lacks)))


def whom(report: TargetReport) -> str:
    """Whom it concerns and why, in the verdict's words; empty if nobody."""
    verdict = report.verdict
    if verdict.escalation is Escalation.NONE:
        return verdict.escalation_reason[:1].upper() + verdict.escalation_reason[1:]
    return f"Escalate: {verdict.escalation.value} ({verdict.escalation_reason})"


def _to_do(remedy: Remedy) -> list[str]:
    steps = remedy.mend or remedy.look
    usual = f", usual time {remedy.usual_time}" if remedy.usual_time else ""
    said = [f"First step ({remedy.anchor}{usual}): {steps[0].text}" if steps else f"See {remedy.anchor}{usual}."]
    if steps and steps[0].caution:
        said.append(f"Caution: {steps[0].caution}")
    if steps and steps[0].commands:
        said.append(steps[0].commands[0])
    return said


class ChatSummary:
    """Prints the paragraphs of all targets above the verdicts."""

    def __init__(self) -> None:
        self._reports: list[TargetReport] = []

    def pytest_health_report(self, report: TargetReport) -> None:
        """Keep what is known of one target."""
        self._reports.append(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None]:
        """Write them below everything else that pytest says."""
        yield
        for report in self._reports:
            terminalreporter.ensure_newline()
            terminalreporter.write_line("")
            terminalreporter.write_line(paragraph(report))
