"""Reports for the outputs to write: of one incident that every output has to tell, and of any text that could occur."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from allodoc_health.finding import Finding, Measurement, Outcome, Severity
from allodoc_health.inspection import complete
from allodoc_health.remedy import Remedy, Step
from allodoc_health.run import Defect, TargetReport
from allodoc_health.target import TargetSettings, Waiver
from allodoc_health.verdict import explain, judge

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
REMEDY = Remedy(
    anchor="guide/database.md#a-transaction-idles",
    title="A transaction idles",
    symptoms=("db.idle-in-transaction",),
    meaning="It holds its locks.",
    look=(Step("See which:", "", ("psql -c 'SELECT 1'",)),),
    mend=(Step("End that session.", "what it did is rolled back.", ("psql -c 'SELECT pg_terminate_backend(812)'",)),),
    usual_time="10–30 min",
    escalate="To the administrator.",
)


def found(name: str, outcome: Outcome, message: str = "", **fields: Any) -> Finding:
    """A finding of target prod."""
    known: dict[str, Any] = {"target": "prod", "severity": Severity.CRITICAL, "title": "It is well.", **fields}
    return Finding(id=name, outcome=outcome, message=message or f"{name} says so", **known)


def told(*findings: Finding, target: str = "prod", waivers: tuple[Waiver, ...] = (), **fields: Any) -> TargetReport:
    """A report on a target with a verdict on these findings."""
    explained = explain(findings)
    unseen = len(fields.get("not_run", ())) + bool(fields.get("cut_short"))
    return TargetReport(
        target=complete(TargetSettings(waivers=waivers), target, "test", {}, {}),
        started=NOW,
        seconds=1.25,
        findings=explained,
        verdict=judge(explained, NOW, len(fields.get("defects", ())), unseen),
        **{"evidence": {}, "timings": {}, **fields},
    )


def incident(**fields: Any) -> TargetReport:
    """One transaction idles: an outcome of every kind, several measurements, a part, a waiver that ran out."""
    return told(
        found(
            "db.fine", Outcome.PASS, "round trip 4 ms", measurements=(Measurement("round trip", 0.004, "s", 0.1, 1),)
        ),
        found("db.absent", Outcome.NOT_APPLICABLE, "no replica", severity=Severity.MINOR),
        found("db.accepted", Outcome.WAIVED, "known", details=("waived until 2026-12-01 by Kim: ticket 4711",)),
        found(
            "tls.lasts",
            Outcome.WARN,
            "certificate lasts 20 d   (warn below 30 d)",
            severity=Severity.MAJOR,
            measurements=(
                Measurement("certificate lasts", 1728000, "s", 2592000, 604800, "RB", "below"),
                Measurement("chain length", 3, ""),
            ),
        ),
        found(
            "db.idle-in-transaction",
            Outcome.FAIL,
            "oldest idle transaction 12 min   (fail at 10 min)",
            details=("pid 812 holds up 3 sessions",),
            measurements=(Measurement("oldest idle transaction", 720, "s", 60, 600, "default of this suite"),),
            remedy=REMEDY.anchor,
            since=NOW - timedelta(minutes=12),
        ),
        found(
            "db.blocked-sessions",
            Outcome.FAIL,
            "longest wait 12 min",
            causes=("db.idle-in-transaction",),
            parameter="patients",
            measurements=(Measurement("in use", 97.5, "%", 80, 95), Measurement("database size", 5 * 2**30, "B")),
        ),
        found("db.query", Outcome.BLOCKED, "blocked by db.idle-in-transaction", blocked_by="db.idle-in-transaction"),
        **{
            "remedies": {"db.idle-in-transaction": REMEDY},
            "warnings": ("prod.toml:7: the waiver of Kim for db.x ran out",),
            **fields,
        },
    )


some = settings(max_examples=50, deadline=None)
"""How often a property is tried: enough to meet what is nasty, in a second or two on a busy machine."""

# Whatever has a meaning in one of the formats, and whatever has none in any.
_NASTY = (
    *(
        "\n",
        "\r\n",
        "\r",
        "\t",
        "\0",
        "\x1b[31m",
        "\x1b]0;title\x07",
        "\x85",
        "\u2028",
        "\u202e",
        "\ud800",
        "\ufffe",
        " ",
    ),
    *(
        "|",
        "'",
        '"',
        "=",
        ",",
        ":",
        ";",
        "::",
        "::error::x",
        "%0A",
        "%25",
        "'x'=1",
        "# EOF",
        "\\",
        "\\n",
        "{",
        "}",
        "¦",
        "😀",
    ),
    *(
        "]]>",
        "<![CDATA[",
        "&amp;",
        "<script>",
        "</testsuite>",
        "<!--",
        "-->",
        "[x](y)",
        "![x](y)",
        "http://x",
        "www.x",
        "a@b",
    ),
    *("`", "``", "```", "~~~", "#", ">", "-", "*", "**", "_", "__", "$", "$x$", "1.", "||", "--- | ---"),
)
texts = st.lists(st.sampled_from(_NASTY) | st.text(max_size=2), max_size=4).map("".join)
names = texts.map(lambda text: f"db.{text}")
numbers = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def _measurements(draw: st.DrawFn) -> Measurement:
    limits = st.none() | numbers
    unit = draw(st.sampled_from(["s", "B", "%", "per min", "cores", "pages/s", ""]) | texts)
    worse = draw(st.sampled_from(["above", "below"]))
    return Measurement(draw(texts), draw(numbers), unit, draw(limits), draw(limits), draw(texts), worse)


@st.composite
def _findings(draw: st.DrawFn) -> Finding:
    return found(
        draw(names),
        draw(st.sampled_from(Outcome)),
        draw(texts),
        parameter=draw(st.none() | texts),
        details=tuple(draw(st.lists(texts, max_size=2))),
        measurements=tuple(draw(st.lists(_measurements(), max_size=3))),
        remedy=draw(texts),
        blocked_by=draw(st.none() | names),
        title=draw(texts),
    )


@st.composite
def hostile_reports(draw: st.DrawFn) -> TargetReport:
    """A report that holds anything wherever it holds text."""
    findings = draw(st.lists(_findings(), max_size=4, unique_by=lambda finding: finding.name))
    step = st.builds(Step, texts, texts, st.lists(texts, max_size=2).map(tuple))
    steps = st.lists(step, max_size=2).map(tuple)
    remedies = st.builds(Remedy, texts, texts, st.just(()), texts, steps, steps, texts, texts)
    return told(
        *findings,
        target=draw(texts) or "prod",
        remedies={finding.name: draw(remedies) for finding in findings if finding.outcome is Outcome.FAIL},
        defects=tuple(draw(st.lists(st.builds(Defect, texts, names, texts, texts), max_size=1))),
        not_run=tuple(draw(st.lists(names, max_size=2))),
        cut_short=draw(texts),
        warnings=tuple(draw(st.lists(texts, max_size=2))),
        replayed=draw(texts),
    )
