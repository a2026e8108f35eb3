"""Captured output: every line with its stream and the time it was received, in a file of bounded size."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

FILE_LIMIT = 8 * 1024 * 1024
LINE_LIMIT = 16 * 1024  # longer ones are split, as Docker does


class LogFile:
    """A log and its predecessor: when one is full it becomes ``NAME.1`` and the last ``NAME.1`` goes."""

    def __init__(self, path: Path, limit: int = FILE_LIMIT) -> None:
        self.path = path
        self.previous = path.with_name(f"{path.name}.1")
        self._limit = limit
        self._handle = self._open()
        self._size = os.fstat(self._handle).st_size
        self._partial = {"stdout": b"", "stderr": b""}

    def feed(self, stream: str, data: bytes) -> None:
        """Take what a service wrote."""
        if not data:
            return
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        while len(rest) > LINE_LIMIT:
            lines.append(rest[:LINE_LIMIT])
            rest = rest[LINE_LIMIT:]
        self._partial[stream] = rest
        self._write(stream, lines)

    def flush(self) -> None:
        """Write unfinished lines: the service has ended."""
        for stream, rest in self._partial.items():
            self._partial[stream] = b""
            if rest:
                self._write(stream, [rest])

    def close(self) -> None:
        """Flush and let go of the file."""
        self.flush()
        os.close(self._handle)

    def tail(self, count: int) -> list[str]:
        """The last lines, without their times."""
        try:
            text = self.path.read_bytes()[-64 * 1024 :].decode(errors="replace")
        except OSError:
            return []
        return [line.split(" ", 2)[-1] for line in text.splitlines()[-count:]]

    def _write(self, stream: str, lines: list[bytes]) -> None:
        if not lines:
            return
        prefix = f"{_timestamp()} {stream} ".encode()
        block = b"".join(prefix + line.rstrip(b"\r") + b"\n" for line in lines)
        if self._size + len(block) > self._limit:
            os.close(self._handle)
            self.path.replace(self.previous)
            self._handle = self._open()
            self._size = 0
        # One write a block: a reader never sees half a line, save at the end of a very large one.
        os.write(self._handle, block)
        self._size += len(block)

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _timestamp() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
