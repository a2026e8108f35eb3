"""The report as Markdown, for wikis, tickets and the summary of a GitHub Actions run.

Observed text is escaped or stands in code, where Markdown has no effect: it makes no link, no picture and no heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC

from allodoc_health.finding import Finding, Measurement, Outcome, duration, quantity
from allodoc_health.remedy import Remedy
from allodoc_health.run import TargetReport
from allodoc_health.verdict import State
from reports.printable import lines, one_line
from reports.summary import counted, partly, whom
from reports.terminal import because

SIGNS = {State.HEALTHY: "●", State.WARNING: "▲", State.FAILING: "■", State.UNKNOWN: "◆"}
# What means something within a line, also in GitHub's dialect, which makes links of addresses that nobody marked.
_MEANS_SOMETHING = re.compile(r"[\\`*\[\]<>&|~$#@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=(?i:www))\.|:(?=//)")


def document(reports: Sequence[TargetReport]) -> str:
    """The report on all targets."""
    return "\n".join(line for report in reports for line in _of_target(report)) + "\n"


def escaped(text: str) -> str:
    r"""Text that Markdown leaves as it is.

    >>> escaped("a *b* <c>")
    'a \\*b\\* \\<c\\>'
    """
    return _MEANS_SOMETHING.sub(r"\\\g<0>", " ".join(one_line(text).split()))


def code(text: str) -> str:
    """Text as code within a line, whatever backticks it has; bars are escaped as cells of a table need it.

    >>> code("a`b"), code("")
    ('`` a`b ``', '')
    """
    shown = " ".join(one_line(text).split()).replace("|", "¦")
    if not shown:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    padding = " " if "`" in shown else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def fenced(text: str, language: str = "") -> Iterator[str]:
    """Text as a block of code."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    yield f"{fence}{language}"
    yield lines(text)
    yield fence
    yield ""


def _of_target(report: TargetReport) -> Iterator[str]:
    verdict = report.verdict
    yield f"# {SIGNS[verdict.state]} {escaped(report.target.name)} {verdict.state.phrase}"
    yield ""
    moment = report.started.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    replayed = f", told again from {code(report.replayed)}" if report.replayed else ""
    yield f"{moment}{replayed} · {escaped(counted(report))} · {escaped(duration(report.seconds))}"
    yield ""
    if report.partial:
        yield f"**Partial:** {escaped(partly(report))}."
        yield ""
    if whom(report):
        yield f"**{escaped(whom(report))}.**"
        yield ""
    for warning in report.warnings:
        yield f"**Warning:** {escaped(warning)}."
        yield ""
    roots = [report.finding(name) for name in verdict.root_causes]
    if roots:
        yield f"## Root cause{'s' if len(roots) > 1 else ''}"
        yield ""
    for finding in roots:
        yield from _in_full(finding, report.remedies.get(finding.name))
    consequences = [report.finding(name) for name in verdict.consequences]
    yield from _table("Follows from that" if roots else "Blocked", consequences, verdict.root_causes)
    by_outcome = {outcome: [f for f in report.findings if f.outcome is outcome] for outcome in Outcome}
    yield from _table("Warnings", by_outcome[Outcome.WARN])
    yield from _table("Waived", by_outcome[Outcome.WAIVED])
    if report.defects:
        yield "## Broken down"
        yield ""
        yield "The suite itself is at fault:"
        yield ""
        for defect in report.defects:
            yield f"- {code(defect.symptom or defect.nodeid)} {escaped((defect.text.splitlines() or [''])[-1])}"
        yield ""
    yield from _table("Passed", by_outcome[Outcome.PASS])
    yield from _table("Not applicable", by_outcome[Outcome.NOT_APPLICABLE])
    if report.not_run:
        yield "## Not run"
        yield ""
        yield from (f"- {code(name)}" for name in report.not_run)
        yield ""


def _in_full(finding: Finding, remedy: Remedy | None) -> Iterator[str]:
    yield f"### {code(finding.name)} {escaped(finding.message.partition(chr(10))[0])}"
    yield ""
    proof = [*finding.message.splitlines()[1:], *finding.details]
    if proof:
        yield from fenced("\n".join(proof))
    limited = [measurement for measurement in finding.measurements if _limits(measurement)]
    for measurement in limited:
        source = f" · {escaped(measurement.source)}" if measurement.source else ""
        limits = escaped(_limits(measurement))
        yield f"- {escaped(measurement.name)}: **{escaped(measurement.text)}** ({limits}){source}"
    if limited:
        yield ""
    if remedy is None:
        return
    usual = f" · usual time {escaped(remedy.usual_time)}" if remedy.usual_time else ""
    yield f"What to do: {code(remedy.anchor)}{usual}"
    yield ""
    for word, steps in (("Look", remedy.look), ("Mend", remedy.mend)):
        for number, step in enumerate(steps, 1):
            yield f"**{word} {number}.** {escaped(step.text)}"
            yield ""
            if step.caution:
                yield f"**Caution:** {escaped(step.caution)}"
                yield ""
            for command in step.commands:
                yield from fenced(command, "sh")
    if remedy.escalate:
        yield f"Escalate: {escaped(remedy.escalate)}"
        yield ""


def _limits(measurement: Measurement) -> str:
    at = "at" if measurement.worse == "above" else "below"
    bounds = (("warn", measurement.warn), ("fail", measurement.fail))
    return ", ".join(f"{word} {at} {quantity(bound, measurement.unit)}" for word, bound in bounds if bound is not None)


def _table(title: str, findings: Sequence[Finding], roots: Sequence[str] = ()) -> Iterator[str]:
    if not findings:
        return
    yield f"## {title} ({len(findings)})"
    yield ""
    yield "| check | severity | what was found |"
    yield "| --- | --- | --- |"
    for finding in findings:
        why = f" (because of {because(finding, roots)})" if finding.caused_by else ""
        yield f"| {code(finding.name)} | {finding.severity.value} | {escaped(_said(finding) + why)} |"
    yield ""


def _said(finding: Finding) -> str:
    first = finding.message.partition("\n")[0]
    return f"{first} ({finding.details[0]})" if finding.outcome is Outcome.WAIVED and finding.details else first
