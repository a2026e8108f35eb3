"""Markdown: the whole report, and observed text that stays text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from markdown_it import MarkdownIt
from markdown_it.token import Token

from allodoc_health.finding import Measurement, Outcome
from reports.markdown import code, document, escaped, fenced
from reports.printable import one_line
from tests.beds.incidents import found, hostile_reports, incident, some, texts, told
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

READER = MarkdownIt("gfm-like", {"linkify": False, "html": True})
MEANT = {"text", "code_inline", "strong_open", "strong_close", "fence", "inline", "softbreak"} | {
    f"{tag}_{end}"
    for tag in ("heading", "paragraph", "table", "thead", "tbody", "tr", "th", "td", "bullet_list", "list_item")
    for end in ("open", "close")
}


def tokens(text: str) -> list[Token]:
    """All tokens of a document, those within lines too."""

    def each(given: Sequence[Token]) -> Iterator[Token]:
        for token in given:
            yield token
            yield from each(token.children or ())

    return list(each(READER.parse(text)))


def test_an_incident_is_told_in_full() -> None:
    """The verdict, the root cause with value, limits and remedy, and a table for each other outcome."""
    text = document([incident()])
    assert text.startswith("# ■ prod is failing\n\n2026-11-23 03:00:00 UTC · 2 fail, 1 blocked, 1 warn, 1 waived, ")
    for line in (
        "**Warning:** prod.toml:7: the waiver of Kim for db.x ran out.",
        "### `db.idle-in-transaction` oldest idle transaction 12 min (fail at 10 min)",
        "pid 812 holds up 3 sessions",
        "- oldest idle transaction: **12 min** (warn at 1 min, fail at 10 min) · default of this suite",
        "What to do: `guide/database.md#a-transaction-idles` · usual time 10–30 min",
        "**Caution:** what it did is rolled back.",
        "psql -c 'SELECT pg_terminate_backend(812)'",
        "## Follows from that (2)",
        "| `db.blocked-sessions[patients]` | critical | longest wait 12 min (because of db.idle-in-transaction) |",
        "| `db.accepted` | critical | known (waived until 2026-12-01 by Kim: ticket 4711) |",
        "| `db.absent` | minor | no replica |",
    ):
        assert line in text.splitlines(), line
    assert "**Partial:**" not in text


def test_a_partial_report_says_so() -> None:
    """Why it is partial, and what had no turn."""
    text = document([incident(not_run=("db.later",), cut_short="interrupted")])
    assert "**Partial:** interrupted; 1 check did not get its turn." in text
    assert "## Not run\n\n- `db.later`\n" in text


@some
@given(hostile_reports())
def test_observed_text_stays_text(report: Any) -> None:
    """Any text anywhere: no link, picture, HTML or rule comes of it, and no more headings or rows."""
    parsed = tokens(document([report]))
    assert {token.type for token in parsed} <= MEANT
    kinds = Counter(token.type for token in parsed)
    outcomes = Counter(finding.outcome for finding in report.findings)
    roots = len(report.verdict.root_causes)
    tables = kinds["table_open"]
    assert kinds["tr_open"] - tables == sum(outcomes.values()) - roots
    assert sum(token.type == "heading_open" and token.tag == "h1" for token in parsed) == 1
    assert sum(token.type == "heading_open" and token.tag == "h3" for token in parsed) == roots


@some
@given(texts)
def test_an_escaped_text_reads_as_it_was(text: str) -> None:
    """What a reader sees is the text, on one line; no word of it becomes a link in GitHub's dialect."""
    paragraph = tokens(f"x {escaped(text)} x")
    assert {token.type for token in paragraph} <= {
        "paragraph_open",
        "paragraph_close",
        "inline",
        "text",
        "text_special",
    }
    seen = "".join(token.content for token in paragraph if token.type in ("text", "text_special"))
    assert re.sub(r"\s|�", "", seen) == "x" + re.sub(r"\s|�", "", re.sub(_unshown, "", text)) + "x"
    assert not re.search(r"(?<!\\)://|www\.|(?<!\\)@", escaped(text))


_unshown = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@some
@given(texts)
def test_code_is_one_piece(text: str) -> None:
    """Within a line and as a block, whatever backticks it has."""
    inline = [token for token in tokens(f"x {code(text)} x") if token.type == "code_inline"]
    assert len(inline) == (1 if one_line(text).strip() else 0)
    block = [token.type for token in tokens("\n".join(fenced(text)))]
    assert block == ["fence"]


def test_several_targets_in_one_file(pretend: Pretend) -> None:
    """--markdown writes all targets of a run, one after the other."""
    pretend.checks(
        """
    @symptom("db.fine", severity=Severity.MINOR)
    def test_fine(finding):
        \"\"\"It is fine.\"\"\"
    """
    )
    pretend.target("prod")
    pretend.target("staging")
    run = pretend.run("--target", "prod", "--target", "staging", "--markdown", "made/report.md")
    text = (run.folder / "report.md").read_text("utf-8")
    assert re.findall("^# (.*)$", text, re.MULTILINE) == ["● prod is healthy", "● staging is healthy"]


@pytest.mark.parametrize("unit", ["s", "B", "%", "", "per min"])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_can_be_told(odd: float, unit: str) -> None:
    """A division by nothing costs no report."""
    measured = Measurement("odd", odd, unit, odd, 1)
    text = document([told(found("db.x", Outcome.FAIL, measurements=(measured,)))])
    assert f"- odd: **{odd:g}" in text


def test_nothing_is_lost_of_an_empty_report() -> None:
    """A target of which nothing is known has a heading that says so."""
    assert document([told(cut_short="interrupted")]).startswith("# ◆ prod is unknown\n")


@pytest.mark.parametrize("text", ["www.example.org", "http://example.org", "a@example.org", "#123", "@everyone"])
def test_nothing_becomes_a_link_by_itself(text: str) -> None:
    """GitHub links addresses, mentions and numbers that nobody marked: a backslash prevents it."""
    assert "\\" in escaped(text)
