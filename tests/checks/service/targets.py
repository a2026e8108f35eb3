"""Target files for the beds of this chapter's tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

CHAPTERS = ("checks/service", "checks/db")
CONTAINERS = (
    "checks/service/test_application_does_not_start.py",
    "checks/service/test_service_starts_but_crashes.py",
)

# The machine that runs the tests may be busy; that is not what they are about.
HOST = "[limits.host]\nload_per_core = {warn = 1000, fail = 2000}\n"
DISCOVERED = f'[runtime]\nkind = "docker"\n{HOST}'


def demo_target(state: Path, more: str = "") -> str:
    """A target file for a demo."""
    return f'[runtime]\nkind = "supervisor"\nstate = "{state}"\n{HOST}{more}'


def redis_in(name: str, more: str = "") -> str:
    """A target file for one container, which plays Redis: nothing is required of its environment."""
    return (
        'absent = ["postgres", "backend", "frontend", "nginx"]\n[runtime]\nkind = "docker"\n'
        f'[services.redis]\ncontainer = "{name}"\n{HOST}{more}'
    )


def shell(script: str) -> Sequence[str]:
    """A container's command that is a script."""
    return ("sh", "-c", script)
