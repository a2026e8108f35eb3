"""The page of causes: it names every edge that the checks declare, and no other, each with its reason."""

from __future__ import annotations

from collections import Counter
from importlib import import_module

from allodoc_health.catalogue import entries
from allodoc_health.symptom import CHAPTERS
from tests.beds.suite import ROOT
from tests.checks.causes import PAGE, arrows, pairs, sections

SECTIONS = list(sections(PAGE.read_text("utf-8")))
ROWS = [row for section in SECTIONS for row in section.rows]
LISTED = Counter(edge for row in ROWS for edge in row.edges)


def _declared() -> set[tuple[str, str]]:
    """Each symptom with each of its causes, as the decorators made them."""
    found = set()
    for path in sorted((ROOT / "checks").rglob("test_*.py")):
        module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for function in vars(module).values():
            for mark in getattr(function, "pytestmark", []):
                if mark.name == "symptom":
                    found |= {(mark.args[0].id, cause) for cause in mark.args[0].caused_by}
    return found


DECLARED = _declared()


def test_every_declared_edge_has_a_reason() -> None:
    """No check names a cause that the page does not explain."""
    assert not sorted(f"{symptom} because of {cause}" for symptom, cause in DECLARED - LISTED.keys())


def test_every_edge_of_the_page_is_declared() -> None:
    """The page names no cause that the verdict does not know."""
    assert not sorted(f"{symptom} because of {cause}" for symptom, cause in LISTED.keys() - DECLARED)


def test_an_edge_has_one_reason() -> None:
    """None stands in two rows."""
    assert not sorted(f"{symptom} because of {cause}" for (symptom, cause), count in LISTED.items() if count > 1)


def test_a_row_is_whole() -> None:
    """Each names symptoms, causes, and a reason that is a sentence; no line of a table is left unread."""
    assert not [row for row in ROWS if not (row.symptoms and row.causes)]
    assert not [row for row in ROWS if not row.reason.endswith(".")]
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    heads = 2 * sum(bool(section.rows) for section in SECTIONS)
    assert len(lines) == len(ROWS) + heads


def test_a_symptom_stands_in_its_chapter() -> None:
    """Chapters are the suite's, and what they explain are their own symptoms."""
    chapters = {entry.id: CHAPTERS[entry.path.parent.name] for entry in entries([ROOT / "checks"])}
    assert list(dict.fromkeys(section.chapter for section in SECTIONS)) == list(CHAPTERS.values())
    assert not [
        f"{symptom} under {section.chapter}"
        for section in SECTIONS
        for row in section.rows
        for symptom in row.symptoms
        if chapters.get(symptom) != section.chapter
    ]


def test_drawings_show_what_the_tables_say() -> None:
    """The arrows of each drawing are the edges of the table below it; `python -m tests.checks.causes` sees to that."""
    for section in SECTIONS:
        assert arrows(section.drawing) == pairs(section.rows), section.title
