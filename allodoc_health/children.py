"""Programs that are started for a run, and that do not outlive it, however it ends."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
# Looked up now: between fork and exec is no time to load anything. Other systems than Linux have no such call.
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def die_with_parent() -> None:
    """Between fork and exec: be killed when the thread that waits for us ends. One system call, and no lock."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
