"""What a demo may have left running."""

from __future__ import annotations

import time
from pathlib import Path

import psutil


def processes_of(state: Path) -> list[str]:
    """Every process that names the state folder in its command, works in it or has a file in it open."""
    found = []
    for process in psutil.process_iter():
        try:
            places = [*process.cmdline(), process.cwd(), *(file.path for file in process.open_files())]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(state) in place for place in places):
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it, to be asked later whether they are gone."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def assert_gone(state: Path, members: list[psutil.Process], timeout: float = 15.0) -> None:
    """Fail unless none of these processes, and none that has to do with the folder, is left by then."""
    deadline = time.monotonic() + timeout
    while True:
        left = [str(member) for member in members if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
        left += processes_of(state)
        if not left:
            return
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)
