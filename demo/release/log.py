"""The deploy log: what a deploy script writes, of which ``up`` is one."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

FILE_LIMIT = 1024 * 1024


class DeployLog:
    """One deployment's lines in the log of all of them, each with its time and level."""

    def __init__(self, path: Path, revision: str) -> None:
        self._path = path
        self._revision = revision[:12] or "without a revision"
        self._began = time.monotonic()
        if path.exists() and path.stat().st_size > FILE_LIMIT:
            path.replace(path.with_name(f"{path.name}.1"))

    def begin(self) -> None:
        """Write the marker that a deployment begins."""
        self.say("INFO", f"=== Deployment started: {self._revision} ===")

    def end(self) -> None:
        """Write the marker that it came to its end."""
        self.say("INFO", f"=== Deployment finished: {self._revision}, {time.monotonic() - self._began:.1f} s ===")

    def fail(self, reason: str) -> None:
        """Write why it did not, and the marker of that."""
        for line in reason.splitlines():
            self.say("ERROR", line)
        self.say("ERROR", f"=== Deployment failed: {self._revision} ===")

    def say(self, level: str, text: str) -> None:
        """Write a line."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(f"{moment} {level:<5} {text}\n")
