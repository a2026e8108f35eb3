"""One supervised service: its process, restarts, health checks, output and what is published of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from demo.capture import LogFile
from demo.children import Children
from demo.envfile import read_env, write_env
from demo.processes import (
    Identity,
    current_account,
    freeze_tree,
    identify,
    kill_children,
    kill_tree,
    send,
    spawn,
    thaw_tree,
)
from demo.release.checkout import revision
from demo.services.role import Role, Verdict
from demo.state import now, stamp

FIRST_DELAY, LONGEST_DELAY, SETTLED_AFTER = 0.1, 10.0, 10.0
HEALTH_INTERVAL, START_INTERVAL, HEALTH_TIMEOUT, HEALTH_RETRIES = 1.0, 0.05, 2.0, 3
STOP_TIMEOUT = 10.0
HELPER_TIMEOUT = 60.0


class Refused(Exception):
    """What was asked can't be done to the service in its present state."""


@dataclass(slots=True)
class HealthRecord:
    """What the health checks of one run of the service said."""

    status: str = "starting"
    failing_streak: int = 0
    last_output: str = ""
    checked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The last time that a service was told to stop: how long that took, and whether it had to be killed."""

    at: datetime
    seconds: float
    exit_code: int | None
    forced: bool


class Service:
    """Runs a role's command, and again when it ends by itself (like ``restart: unless-stopped``)."""

    def __init__(self, role: Role, children: Children, log: LogFile, changed: Callable[[], None]) -> None:
        self.role = role
        self.name = role.name
        self.log = log
        self.version = ""
        self._children = children
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._ended = asyncio.Event()
        self._ended.set()
        self._health_task: asyncio.Task[None] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._wanted = False
        self._delay = FIRST_DELAY
        self._began = 0.0
        self.given: dict[str, str] = {}
        self.status = "created"
        self.identity: Identity | None = None
        self.health: HealthRecord | None = None
        self.exit_code: int | None = None
        self.error = ""
        self.restart_count = 0
        self.id = secrets.token_hex(32)
        self.created_at = now()
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.command: list[str] = []
        self.revision = ""
        self.last_stop: Stop | None = None
        self.reload_environment()

    # --- what operators can ask for ---

    async def start(self) -> None:
        """Start it with the environment file as it is now. Nothing happens when it runs already."""
        async with self._lock:
            if self.status == "paused":
                raise Refused(f"{self.name} is paused: unpause it instead")
            if self.status == "running":
                return
            self._cancel_restart()
            self.reload_environment()
            self._begin()

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Ask it to end, and kill it when it has not after ``timeout`` seconds. It stays down."""
        async with self._lock:
            await self._stop(timeout)

    async def restart(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop and start it with the environment that it was given before."""
        async with self._lock:
            await self._stop(timeout)
            self._begin()

    async def recreate(self, timeout: float = STOP_TIMEOUT) -> None:
        """Stop it and start a new one with the environment file as it is now."""
        async with self._lock:
            await self._stop(timeout)
            self.id = secrets.token_hex(32)
            self.created_at = now()
            self.exit_code, self.finished_at, self.last_stop = None, None, None
            self.reload_environment()
            self._begin()

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to its main process. As with ``docker kill``, one that ends it leaves it down."""
        async with self._lock:
            if self.identity is None:
                raise Refused(f"{self.name} is not running")
            if number in (signal.SIGKILL, signal.SIGTERM, self.role.stop_signal):
                self._wanted = False
            send(self.identity.pid, number)
            if number == signal.SIGKILL:
                await self._ended.wait()

    async def pause(self) -> None:
        """Freeze all its processes."""
        async with self._lock:
            if self.status != "running" or self.identity is None:
                raise Refused(f"{self.name} is {self.status}, only a running service can be paused")
            self._stop_health()
            freeze_tree(self.identity.pid)
            self._set(status="paused")

    async def unpause(self) -> None:
        """Let them go on."""
        async with self._lock:
            if self.status != "paused" or self.identity is None:
                raise Refused(f"{self.name} is {self.status}, not paused")
            thaw_tree(self.identity.pid)
            self._set(status="running")
            self._start_health()

    # --- what the supervisor asks ---

    @property
    def healthy(self) -> bool:
        """Whether it runs and its last health check was good."""
        return self.status == "running" and self.health is not None and self.health.status == "healthy"

    def reload_environment(self) -> None:
        """Take the environment file as it is now."""
        self.given = read_env(self.role.context.folder.env_file(self.name))

    async def helper(
        self, command: Sequence[str], env: Mapping[str, str], *, as_ourselves: bool = False
    ) -> tuple[int, str]:
        """Run a program to its end as this service's account, or as our own."""
        account = current_account() if as_ourselves else self.role.context.account
        folder = self.role.context.folder.service(self.name)
        given = {"PATH": self.role.search_path(), "LC_ALL": "C.UTF-8", **env}
        return await self._children.run(command, given, account, folder, HELPER_TIMEOUT)

    def published(self) -> dict[str, Any]:
        """Its part of ``state.json``."""
        folder, account = self.role.context.folder, self.role.context.account
        return {
            "role": self.name,
            "name": f"allodoc_{self.name}_demo",
            "id": self.id,
            "image": self.version,
            "user": account.name,
            "uid": account.uid,
            "gid": account.gid,
            "capability": account.capability,
            "command": self.command,
            "cwd": str(self.role.cwd()),
            "labels": self._labels(),
            "status": self.status,
            "pid": self.identity.pid if self.identity else None,
            "start_ticks": self.identity.start_ticks if self.identity else None,
            "health": self.health
            and {
                "status": self.health.status,
                "failing_streak": self.health.failing_streak,
                "last_output": self.health.last_output,
                "checked_at": stamp(self.health.checked_at),
            },
            "exit_code": self.exit_code,
            "error": self.error,
            "oom_killed": False,
            "restart_count": self.restart_count,
            "restart_policy": "unless-stopped",
            "stop_signal": signal.Signals(self.role.stop_signal).name,
            "stop_timeout": STOP_TIMEOUT,
            "last_stop": self.last_stop
            and {
                "at": stamp(self.last_stop.at),
                "seconds": self.last_stop.seconds,
                "exit_code": self.last_stop.exit_code,
                "forced": self.last_stop.forced,
            },
            "created_at": stamp(self.created_at),
            "started_at": stamp(self.started_at),
            "finished_at": stamp(self.finished_at),
            "ports": [{"host_ip": "127.0.0.1", "host_port": real, "port": usual} for usual, real in self.role.ports()],
            "mounts": [
                {"kind": "bind", "source": str(path), "destination": str(path), "writable": writable}
                for path, writable in self.role.data_folders()
            ],
            "log_files": [str(self.log.previous), str(self.log.path)],
            "env_file": str(folder.env_file(self.name)),
            "given_env_file": str(folder.given_env_file(self.name)),
            "exec_env_file": str(folder.exec_env_file(self.name)),
        }

    def _labels(self) -> dict[str, str]:
        folder = self.role.context.folder
        labels = {
            "allodoc.role": self.name,
            "allodoc.state": str(folder.root),
            "allodoc.checkout": str(folder.checkout),
            "allodoc.deploy-log": str(folder.deploy_log),
        }
        if self.revision:
            labels["org.opencontainers.image.revision"] = self.revision
        return labels

    # --- its life ---

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        self._changed()

    def _begin(self) -> None:
        """A start that somebody asked for: nothing is held against it."""
        self.restart_count = 0
        self._delay = FIRST_DELAY
        self._spawn()

    def _spawn(self) -> None:
        self._restart = None
        context = self.role.context
        write_env(context.folder.given_env_file(self.name), self.given)
        write_env(context.folder.exec_env_file(self.name), self.role.exec_environment(self.given))
        self.command = self.role.command(self.given)
        self.revision = revision(context.folder.checkout) if self.role.runs_from_checkout() else ""
        env = {"PATH": self.role.search_path(), "LC_ALL": "C.UTF-8", **self.given}
        env.pop("EXTRA_ARGS", None)
        readers, writers = zip(os.pipe(), os.pipe(), strict=True)
        for writer in writers:
            if context.account.foreign:
                # nginx opens /dev/stdout anew, which only the pipe's owner may.
                os.fchown(writer, context.account.uid, context.account.gid)
        self._wanted = True
        try:
            process = spawn(
                self.command,
                env=env,
                cwd=self.role.cwd(),
                account=context.account,
                stdout=writers[0],
                stderr=writers[1],
            )
        except (OSError, ValueError, RuntimeError) as error:
            for end in (*readers, *writers):
                os.close(end)
            self._wanted = False
            self._set(status="exited", exit_code=127, error=f"{self.command[0]}: {error}", finished_at=now())
            return
        for writer in writers:
            os.close(writer)
        for reader, stream in zip(readers, ("stdout", "stderr"), strict=True):
            os.set_blocking(reader, False)
            self._loop.add_reader(reader, self._read, reader, stream)
        self._ended.clear()
        self._began = time.monotonic()
        self._set(identity=identify(process.pid), status="running", started_at=now(), error="", health=HealthRecord())
        self._children.watch(process, lambda code: self._end(code, readers))
        self._start_health()

    def _read(self, reader: int, stream: str) -> None:
        try:
            data = os.read(reader, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.log.feed(stream, data)
        else:
            self._loop.remove_reader(reader)
            os.close(reader)

    def _end(self, code: int, readers: Sequence[int]) -> None:
        """The main process is gone; so is everything that it leaves behind, as in a container."""
        kill_children(self._children.known)
        self._stop_health()
        for reader, stream in zip(readers, ("stdout", "stderr"), strict=True):
            # What it said last, while the pipe still holds it.
            with contextlib.suppress(OSError):
                while data := os.read(reader, 65536):
                    self.log.feed(stream, data)
        self.log.flush()
        lived = time.monotonic() - self._began
        self._set(identity=None, exit_code=code, finished_at=now(), status="exited")
        if self._wanted:
            if lived >= SETTLED_AFTER:
                self._delay = FIRST_DELAY
            self._restart = self._loop.call_later(self._delay, self._again)
            self._delay = min(self._delay * 2, LONGEST_DELAY)
            self._set(status="restarting")
        self._ended.set()

    def _again(self) -> None:
        self.restart_count += 1
        self._spawn()

    async def _stop(self, timeout: float) -> None:
        self._wanted = False
        self._cancel_restart()
        if self.identity is None:
            return
        pid = self.identity.pid
        began, forced = time.monotonic(), False
        self._stop_health()
        send(pid, self.role.stop_signal)
        if self.status == "paused":
            thaw_tree(pid)
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            forced = True
            kill_tree(pid)
            await self._ended.wait()
        self._set(last_stop=Stop(now(), round(time.monotonic() - began, 3), self.exit_code, forced))

    def _cancel_restart(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
            self._set(status="exited")

    # --- its health ---

    def _start_health(self) -> None:
        self._stop_health()
        self._health_task = self._loop.create_task(self._watch_health())

    def _stop_health(self) -> None:
        if self._health_task is not None:
            self._health_task.cancel()
            self._health_task = None

    async def _watch_health(self) -> None:
        record = self.health
        if record is None:
            return
        while True:
            verdict = await self._ask()
            record.checked_at = now()
            record.last_output = verdict.output[:1000]
            if verdict.healthy:
                record.status, record.failing_streak = "healthy", 0
            elif record.status != "starting" or time.monotonic() - self._began > self.role.start_period:
                record.failing_streak += 1
                if record.failing_streak >= HEALTH_RETRIES:
                    record.status = "unhealthy"
            self._changed()
            await asyncio.sleep(START_INTERVAL if record.status == "starting" else HEALTH_INTERVAL)

    async def _ask(self) -> Verdict:
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT):
                return await self.role.check_health(self.given, self.helper)
        except TimeoutError:
            return Verdict(False, f"no answer within {HEALTH_TIMEOUT:g} s")
        except OSError as error:
            return Verdict(False, str(error))


def log_path(folder: Path, name: str) -> Path:
    """Where a service's output goes."""
    return folder / f"{name}.log"
