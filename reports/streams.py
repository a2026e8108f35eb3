"""Where words go that are neither the verdict nor a report: not to whoever else reads the standard output."""

from __future__ import annotations

import sys
from typing import TextIO

import pytest


def move_terminal(config: pytest.Config, stream: TextIO) -> None:
    """Have pytest's terminal write elsewhere, from before its first word: the standard output is for another reader."""
    terminal: pytest.TerminalReporter | None = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None:
        # It stays the object to which other plugins hold on, and becomes like a new one that writes to the stream.
        vars(terminal).update(vars(type(terminal)(config, stream)))


def tell(config: pytest.Config, trouble: str) -> None:
    """Say in one line what went wrong with an output; on stderr where the standard output is not for people."""
    terminal: pytest.TerminalReporter | None = config.pluginmanager.getplugin("terminalreporter")
    if terminal is None or config.pluginmanager.hasplugin("health-nagios"):
        sys.stderr.write(f"{trouble}\n")
    else:
        terminal.ensure_newline()
        terminal.write_line(trouble, red=True)


def reason(error: Exception) -> str:
    """Why something could not be written, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"
