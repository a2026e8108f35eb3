"""The release that the demo runs from, to break: as it was after each test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from demo.release.checkout import revision
from tests.beds.embedded import Demo


class Release:
    """The checkout of a demo, its deploy log, and git on it."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.root = demo.folder.checkout
        self.log = demo.folder.deploy_log
        self.commit = revision(self.root)
        self._log_text = self.log.read_text(encoding="utf-8")
        self._other_code = False

    def git(self, *arguments: str) -> str:
        """Run git in the checkout; what it printed."""
        who = ["-c", "user.name=Test", "-c", "user.email=test@allodoc.test"]
        done = subprocess.run(
            ["git", "-C", str(self.root), *who, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file of the checkout; the old text has to be in it."""
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        path.write_text(text.replace(old, new), encoding="utf-8")
        self._other_code |= name.startswith("backend/src")

    def write_log(self, *lines: str) -> None:
        """Add lines to the deploy log."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)

    def restore(self) -> None:
        """Put commit, files and log back, and let the backend run that commit."""
        self.git("reset", "--quiet", "--hard", self.commit)
        self.git("clean", "--quiet", "-d", "--force")
        self.log.write_text(self._log_text, encoding="utf-8")
        label = self.demo.service("backend")["labels"].get("org.opencontainers.image.revision")
        if label != self.commit or self._other_code:
            self.demo.recreate("backend")


@pytest.fixture
def release(demo: Demo) -> Iterator[Release]:
    """The demo's release to break, restored afterwards."""
    made = Release(demo)
    try:
        yield made
    finally:
        made.restore()
