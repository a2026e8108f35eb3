"""The wiring: which plugins make this folder a health suite."""

from pathlib import Path

import pytest

# Every module of fixtures/ is a plugin. They import one another: rewriting is asked for before the first of them is.
pytest.register_assert_rewrite("fixtures")
FIXTURES = sorted(path.stem for path in Path(__file__).with_name("fixtures").glob("[a-z]*.py"))

pytest_plugins = [
    "allodoc_health.catalogue",
    "allodoc_health.plugin",
    *(f"fixtures.{name}" for name in FIXTURES),
    "reports.terminal",
    "reports.snapshot",
    "reports.html",
]
