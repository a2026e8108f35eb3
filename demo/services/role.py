"""What the supervisor needs to know of a service."""

from __future__ import annotations

import abc
import asyncio
import os
import re
import shlex
import signal
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from demo.settings import Context
from demo.state import write_private

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class PreparationFailed(Exception):
    """A service can't be started at all; the message says why."""


class RunHelper(Protocol):
    """Runs a helper to its end."""

    async def __call__(
        self, command: Sequence[str], env: Mapping[str, str], *, as_ourselves: bool = False
    ) -> tuple[int, str]:
        """Its exit code and what it printed. It runs as the services' account, or as the supervisor's own."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one health check."""

    healthy: bool
    output: str


class Role(abc.ABC):
    """One service of the stack."""

    name: str
    stop_signal: int = signal.SIGTERM
    start_period: float = 10.0

    def __init__(self, context: Context) -> None:
        self.context = context
        self.folder = context.folder.service(self.name)

    @abc.abstractmethod
    def command(self, env: Mapping[str, str]) -> list[str]:
        """The program and its arguments. ``env`` is the service's own environment, without PATH."""

    @abc.abstractmethod
    async def check_health(self, env: Mapping[str, str], run: RunHelper) -> Verdict:
        """Ask it once. The supervisor sets the deadline."""

    @abc.abstractmethod
    def ports(self) -> list[tuple[int, int]]:
        """Pairs of the conventional port and the real one."""

    @abc.abstractmethod
    def version_command(self) -> list[str]:
        """Prints the version."""

    def cwd(self) -> Path:
        """Where it runs."""
        return self.folder

    def runs_from_checkout(self) -> bool:
        """Whether what it runs or serves is of the release."""
        return False

    def data_folders(self) -> list[tuple[Path, bool]]:
        """Folders it works with, and whether it may write there."""
        return []

    @abc.abstractmethod
    async def prepare(self, env: Mapping[str, str], run: RunHelper) -> None:
        """Make what the first start needs. Raises :class:`PreparationFailed`."""

    def path(self) -> list[str]:
        """Folders with the service's own programs."""
        return []

    def exec_environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """What a command inside the service gets on top of the service's environment."""
        del env
        return {"PATH": self.search_path()}

    def search_path(self) -> str:
        """PATH for the service and for commands in it."""
        return os.pathsep.join([*self.path(), SYSTEM_PATH])

    async def keep_versions_apart(self, data: Path, run: RunHelper) -> None:
        """Set aside data of another major version, which this one could not read, and fetch its own if there is any."""
        _, output = await run(self.version_command(), {})
        found = re.search(r"\d+", output)
        major = found[0] if found else "unknown"
        note = self.folder / "data-version"
        last = note.read_text(encoding="utf-8").strip() if note.exists() else major
        if last != major and data.exists():
            data.rename(self.folder / f"data-{last}")
            own = self.folder / f"data-{major}"
            if own.exists():
                own.rename(data)
        note.write_text(major + "\n", encoding="utf-8")

    def wrapper(self, name: str, target: Path, arguments: Sequence[str]) -> None:
        """Put a program into the service's ``bin`` that adds what it takes to reach this very service."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        script = folder / name
        write_private(script, f'#!/bin/sh\nexec {shlex.join([str(target), *arguments])} "$@"\n')
        script.chmod(0o755)

    def extra_arguments(self, env: Mapping[str, str]) -> list[str]:
        """More arguments for the server, from EXTRA_ARGS in its environment file."""
        return shlex.split(env.get("EXTRA_ARGS", ""))


async def http_status(port: int, path: str, tls: bool = False) -> tuple[int, str]:
    """GET a path on loopback; the status and the start of the answer."""
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: demo-health\r\n\r\n".encode())
        await writer.drain()
        answer = (await reader.read(4096)).decode(errors="replace")
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    parts = head.split(" ", 2)
    return (int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0), body
