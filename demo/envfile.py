"""Environment files in dotenv syntax: every line ``NAME=value``, values quoted when they must be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from demo.state import write_private


def read_env(path: Path) -> dict[str, str]:
    """The variables of a file, empty when there is no such file. Nothing is interpolated."""
    if not path.exists():
        return {}
    return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}


def write_env(path: Path, variables: Mapping[str, str], heading: str = "") -> None:
    """Replace the file, mode 0600. ``heading`` becomes a comment on its first line."""
    lines = [f"# {heading}"] if heading else []
    lines += [f"{name}={_quoted(value)}" for name, value in variables.items()]
    write_private(path, "\n".join(lines) + "\n")


def _quoted(value: str) -> str:
    if value and all(character.isalnum() or character in "-_./:@,+=%^" for character in value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" if value else ""
