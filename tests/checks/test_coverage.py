"""The coverage page: every part of the guide has a check, every check a part of the guide."""

from __future__ import annotations

import re

from tests.beds.suite import ROOT

PAGE = (ROOT / "checks" / "COVERAGE.md").read_text("utf-8")
ROWS = re.findall(r"^\| (symptom|cause|command) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
SYMPTOMS, CAUSES = 36, 25


def _declared() -> set[str]:
    sources = (path.read_text("utf-8") for path in (ROOT / "checks").rglob("test_*.py"))
    return {name for source in sources for name in re.findall(r'@symptom\(\s*"([^"]+)"', source)}


def _listed() -> set[str]:
    return {name for _, _, checks in ROWS for name in re.findall(r"`([^`]+)`", checks)}


def test_every_entry_has_checks_that_exist() -> None:
    """No entry names a check that does not exist, and none names no check."""
    assert not _listed() - _declared()
    assert all("`" in checks for _, _, checks in ROWS)


def test_every_check_has_an_entry() -> None:
    """No check is without a place in the guide."""
    assert not _declared() - _listed()


def test_the_page_is_complete() -> None:
    """All of the guide's symptoms and numbered causes are listed, each once under its heading."""
    kinds = [kind for kind, _, _ in ROWS]
    assert (kinds.count("symptom"), kinds.count("cause")) == (SYMPTOMS, CAUSES)
    words = [(kind, text) for kind, text, _ in ROWS]
    assert len(set(words)) == len(words)
