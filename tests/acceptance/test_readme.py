"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from allodoc_health.target import load_settings
from tests.beds.embedded import Demo
from tests.beds.suite import ROOT

README = (ROOT / "README.md").read_text("utf-8")
FOLDERS = ("allodoc_health", "checks", "fixtures", "guide", "reports", "targets")


def _blocks(language: str) -> list[str]:
    return [match[1] for match in re.findall(rf"^(`{{3,}}){language}\n(.*?)^\1$", README, re.MULTILINE | re.DOTALL)]


def test_the_worked_example_is_a_check(demo: Demo, tmp_path: Path) -> None:
    """The three pieces of the example, put where they say, make a check that passes with its measurement."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    written = []
    for block in (*_blocks("python"), *_blocks("markdown")):
        path = tmp_path / block.splitlines()[0].strip("#<!-> ")
        path.write_text(block, "utf-8")
        written.append(path.relative_to(tmp_path).as_posix())
    assert written == ["fixtures/spilled_queries.py", "checks/db/test_spilled_queries.py", "guide/spilled-queries.md"]
    (tmp_path / "targets" / "bed.toml").write_text(demo.target, "utf-8")
    command = [sys.executable, "-m", "pytest", "--target", "bed", "-k", "db.spilled-queries", "-v", "--no-reports"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_target_file_is_valid(tmp_path: Path) -> None:
    """The example of a target file has no key that does not exist."""
    path = tmp_path / "staging.toml"
    path.write_text(_blocks("toml")[0], "utf-8")
    settings = load_settings(path)
    assert settings.limits.db.connections_used.fail == 90
    assert settings.waivers[0].owner == "ops"


def test_every_make_target_exists() -> None:
    """The commands that the README tells to type are targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
