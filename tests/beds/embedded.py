"""The embedded demo as a bed for tests: start it, break it, mend it, look at it.

``demo_bed`` is one demo for the whole session. ``demo`` is the same one for a single test, mended again afterwards:
environment files as they were, every service running and healthy. What a test makes inside the database or Redis
(sessions, tables, locks, keys) it must take away itself, save sessions: those of a test's own clients end with them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from demo.control import running
from demo.envfile import read_env, write_env
from demo.state import ROLES, StateFolder

CHECKOUT = Path(__file__).resolve().parent.parent.parent
COMMAND_TIMEOUT = 90.0


class Demo:
    """One demo in a state folder of its own."""

    def __init__(
        self,
        state: Path,
        *,
        binaries: str = "auto",
        python: Sequence[str] = (sys.executable,),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.state = state
        self.folder = StateFolder(state)
        self.binaries = binaries
        self._settings = dict(settings or {})
        self._python = list(python)
        self._environments: dict[str, dict[str, str]] = {}

    @classmethod
    def temporary(cls, **options: Any) -> Demo:
        """A demo in a new, short folder that the services' account can reach; :meth:`remove` it."""
        folder = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp"))
        return cls(folder, **options)

    @property
    def target(self) -> str:
        """The target file for a run of the suite on this demo."""
        return f'[runtime]\nkind = "supervisor"\nstate = "{self.state}"\n'

    # --- the command line ---

    def run(self, *arguments: str, timeout: float = COMMAND_TIMEOUT) -> subprocess.CompletedProcess[str]:
        """``python -m demo …`` on this state folder; never raises for its exit status."""
        words = list(arguments)
        cut = words.index("--") if "--" in words else len(words)
        command = [*self._python, "-m", "demo", *words[:cut], "--state", str(self.state), *words[cut:]]
        return subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**os.environ, **self._settings},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def must(self, *arguments: str, timeout: float = COMMAND_TIMEOUT) -> str:
        """Like :meth:`run`, but a failure is an error that shows what was said. Returns what was printed."""
        done = self.run(*arguments, timeout=timeout)
        if done.returncode != 0:
            raise AssertionError(f"demo {' '.join(arguments)} gave {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def up(self, *arguments: str) -> None:
        """Start it; it dies with this test process at the latest."""
        self.must("up", "--owner-pid", str(os.getpid()), "--binaries", self.binaries, *arguments)
        if not self._environments:
            self._environments = {role: read_env(self.folder.env_file(role)) for role in ROLES}

    def down(self) -> None:
        """Stop it."""
        self.must("down")

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.run("down")
        shutil.rmtree(self.state, ignore_errors=True)

    def start(self, role: str) -> None:
        """Start a service."""
        self.must("start", role)

    def stop(self, role: str) -> None:
        """Stop a service; it stays down."""
        self.must("stop", role)

    def restart(self, role: str) -> None:
        """Stop and start a service, with the environment that it has."""
        self.must("restart", role)

    def recreate(self, role: str) -> None:
        """Start a service anew, with its environment file as it is now."""
        self.must("recreate", role)

    def kill(self, role: str) -> None:
        """SIGKILL a service as an operator would: it stays down."""
        self.must("kill", role)

    def crash(self, role: str, number: int = signal.SIGKILL) -> None:
        """Send its main process a signal behind the supervisor's back: it is started again."""
        os.kill(self.pid(role), number)

    def pause(self, role: str) -> None:
        """Freeze a service."""
        self.must("pause", role)

    def unpause(self, role: str) -> None:
        """Let a frozen service go on."""
        self.must("unpause", role)

    # --- what is so ---

    def document(self) -> dict[str, Any]:
        """The published state."""
        document = running(self.folder)
        if document is None:
            raise AssertionError(f"the demo in {self.state} is not up")
        return document

    def service(self, role: str) -> dict[str, Any]:
        """The published state of one service."""
        service: dict[str, Any] = self.document()["services"][role]
        return service

    def pid(self, role: str) -> int:
        """The main process of a service."""
        pid = self.service(role)["pid"]
        if not isinstance(pid, int):
            raise AssertionError(f"{role} is not running")
        return pid

    def port(self, role: str, inner: int = 0) -> int:
        """A host port of a service: the first, or the one that leads to the conventional port ``inner``."""
        ports = self.service(role)["ports"]
        return int(next(port["host_port"] for port in ports if inner in (0, port["port"])))

    @property
    def urls(self) -> dict[str, str]:
        """``https`` (nginx), ``http`` (its redirect) and ``api`` (the backend itself)."""
        urls: dict[str, str] = self.document()["urls"]
        return urls

    @property
    def ca_file(self) -> Path:
        """The certificate that nginx's was signed with."""
        return self.folder.service("nginx") / "tls" / "ca.pem"

    @property
    def smoke(self) -> dict[str, str]:
        """``email`` and ``password`` of the account that may log in."""
        account: dict[str, str] = json.loads(self.folder.smoke_file.read_text(encoding="utf-8"))
        return account

    def log_text(self, role: str) -> str:
        """Everything in a service's present log file, with times and streams."""
        return Path(self.service(role)["log_files"][-1]).read_text(encoding="utf-8", errors="replace")

    def is_healthy(self, *roles: str) -> bool:
        """Whether these services (all, if none are named) run and their health checks say that they are well."""
        document = running(self.folder)
        if document is None:
            return False
        services = document["services"]
        return all(
            services[role]["status"] == "running" and (services[role]["health"] or {}).get("status") == "healthy"
            for role in roles or ROLES
        )

    # --- waiting ---

    def wait_until(self, condition: Callable[[], object], timeout: float = 15.0, what: str = "it to happen") -> None:
        """Wait until a condition is true; an error that names ``what`` was waited for otherwise."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout:g} s for {what}")
            time.sleep(0.02)

    def wait_status(self, role: str, status: str, timeout: float = 15.0) -> None:
        """Wait until a service has a status such as ``exited``."""
        self.wait_until(lambda: self.service(role)["status"] == status, timeout, f"{role} to be {status}")

    def wait_healthy(self, *roles: str, timeout: float = 30.0) -> None:
        """Wait until these services (all, if none are named) are healthy."""
        self.wait_until(lambda: self.is_healthy(*roles), timeout, f"{', '.join(roles) or 'all services'} to be healthy")

    # --- environments ---

    def environment(self, role: str) -> dict[str, str]:
        """The environment file of a service as it is now."""
        return read_env(self.folder.env_file(role))

    def set_env(self, role: str, **variables: str) -> None:
        """Change a service's environment file. It counts from its next ``start`` or ``recreate``."""
        write_env(self.folder.env_file(role), {**self.environment(role), **variables})

    def unset_env(self, role: str, *names: str) -> None:
        """Take variables out of a service's environment file."""
        left = {name: value for name, value in self.environment(role).items() if name not in names}
        write_env(self.folder.env_file(role), left)

    def mend(self) -> None:
        """Make it as it was: environment files, and every service running with them and healthy."""
        for role in ROLES:
            wanted = self._environments[role]
            if self.environment(role) != wanted:
                write_env(self.folder.env_file(role), wanted)
            service = self.service(role)
            if read_env(Path(service["given_env_file"])) != wanted:
                self.recreate(role)
            elif service["status"] == "paused":
                self.unpause(role)
            elif service["status"] == "exited":
                self.start(role)
            # The next one in line needs it; one that waits for its next restart need not wait. A start by hand also
            # ends the count of restarts, by which the next test would take it for looping.
            if self.service(role)["restart_count"]:
                self.restart(role)
            self.wait_healthy(role)
        self.forget_logs()

    def forget_logs(self) -> None:
        """Empty the services' logs, so that the errors of one test are not found by the next."""
        for role in ROLES:
            for name in self.service(role)["log_files"]:
                with contextlib.suppress(FileNotFoundError):
                    os.truncate(name, 0)

    # --- clients ---

    def connect(self, *, autocommit: bool = True, application_name: str = "test-bed") -> psycopg.Connection[Any]:
        """A superuser's connection through TCP, to hold locks and transactions with. Close it."""
        given = self._environments["postgres"]
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port("postgres"),
            user=given["POSTGRES_USER"],
            password=given["POSTGRES_PASSWORD"],
            dbname=given["POSTGRES_DB"],
            connect_timeout=5,
            autocommit=autocommit,
            application_name=application_name,
        )

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as superuser, outside a transaction; its rows, if it has any."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def redis(self) -> redis.Redis:
        """A client with the password that the running Redis was given."""
        given = read_env(Path(self.service("redis")["given_env_file"]))
        return redis.Redis(
            host="127.0.0.1",
            port=self.port("redis"),
            password=given.get("REDIS_PASSWORD") or None,
            socket_timeout=5,
            decode_responses=True,
        )


@pytest.fixture(scope="session")
def demo_bed() -> Iterator[Demo]:
    """A demo that is up for the whole session."""
    bed = Demo.temporary()
    try:
        bed.up()
        yield bed
    finally:
        bed.remove()


@pytest.fixture
def demo(demo_bed: Demo) -> Iterator[Demo]:
    """The session's demo, healthy, and mended after the test."""
    yield demo_bed
    demo_bed.mend()
