"""A backend that misbehaves: a script of the test's own is loaded into it before its code."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.beds.embedded import Demo

Misbehave = Callable[[str], None]


@pytest.fixture
def misbehave(demo: Demo) -> Misbehave:
    """``misbehave("…")`` starts the backend with this JavaScript; the demo is mended after the test."""

    def start(script: str) -> None:
        file = demo.state / "misbehaviour.js"
        file.write_text(script, "utf-8")
        file.chmod(0o644)
        demo.set_env("backend", NODE_OPTIONS=f"--require {file}")
        demo.recreate("backend")
        demo.wait_healthy("backend", "nginx")

    return start


def behave(demo: Demo) -> None:
    """Take the script's text away: from its next start on, the backend is itself again."""
    (demo.state / "misbehaviour.js").write_text("", "utf-8")
