"""What every runtime can tell about the services that it runs.

A runtime is whatever starts, stops and isolates the services of a target: a Docker Engine, or the supervisor of the
embedded demo. Probes ask it questions through :class:`Runtime`; nothing in this interface assumes that it is local.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import wraps
from typing import Any, Protocol, TypeVar

_Method = TypeVar("_Method", bound=Callable[..., Any])


class RuntimeUnavailable(Exception):
    """The runtime itself does not answer: no daemon, a frozen daemon, a socket that may not be opened."""


class ServiceUnavailable(Exception):
    """The runtime answers, but the service can't be entered: it is missing, stopped, paused or restarting."""


class DeadlineExceeded(Exception):
    """The runtime began something that was not over when its deadline was."""


def understood(method: _Method) -> _Method:
    """A runtime's method for which an answer of another form than expected is the runtime's fault, and no defect.

    Its class has ``strange()``, which makes the RuntimeUnavailable that says so.
    """

    @wraps(method)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        try:
            return method(self, *arguments, **keywords)
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise self.strange() from error

    return call  # type: ignore[return-value]  # it has the signature of what it wraps


class Status(StrEnum):
    """The life of a service, in the Docker Engine's words; ``missing`` is ours."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"
    MISSING = "missing"


class HealthStatus(StrEnum):
    """The verdict of the runtime's own health check."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Health:
    """The runtime's own health check: its verdict, how often it failed in a row, and what it printed last.

    ``patience`` is how many seconds after a start it may take to come to a verdict, where its settings are known.
    """

    status: HealthStatus
    failing_streak: int
    last_output: str
    checked_at: datetime | None
    patience: float | None = None


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of a service that is open to the host: ``host_ip:host_port`` leads to ``port`` inside."""

    host_ip: str
    host_port: int
    port: int


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host that is seen inside the service. ``kind`` is bind, volume or tmpfs."""

    kind: str
    source: str
    destination: str
    writable: bool


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service as its runtime sees it now.

    ``memory_limit`` is in bytes and ``cpu_limit`` in cores; ``None`` means that no limit is set. ``exit_code`` is that
    of the last end, and ``None`` while the service has never ended. Times are aware, UTC. ``aliases`` are what it is
    called on its networks besides its name. ``stop_signal`` is what asks it to end; after ``stop_timeout`` seconds it
    is killed. ``log_files`` are
    where the runtime keeps what the service writes, oldest first; ``log_rotated`` is ``None`` where it can't tell.
    """

    role: str
    name: str
    status: Status
    id: str = ""
    image: str = ""
    pid: int | None = None
    health: Health | None = None
    exit_code: int | None = None
    error: str = ""
    oom_killed: bool = False
    restart_count: int = 0
    restart_policy: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    command: tuple[str, ...] = ()
    user: str = ""
    memory_limit: int | None = None
    cpu_limit: float | None = None
    ports: tuple[PublishedPort, ...] = ()
    mounts: tuple[Mount, ...] = ()
    addresses: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    log_files: tuple[str, ...] = ()
    log_rotated: bool | None = None
    aliases: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None
    stop_signal: str = "SIGTERM"
    stop_timeout: float | None = None

    @property
    def running(self) -> bool:
        """Whether a process of the service runs and is given time."""
        return self.status is Status.RUNNING


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A running container as others on its networks meet it, be it a service of the target or anybody's.

    ``environment`` holds secrets: never evidence as it is.
    """

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceImage:
    """What a service runs from: ``name`` as it was given, the ``id`` of the image that runs, and what that name is now.

    ``current`` is ``None`` where the name means nothing any more. ``pinned``: the name can't ever mean anything else.
    """

    name: str
    id: str
    current: str | None
    pinned: bool = False
    created_at: datetime | None = None
    current_created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LastStop:
    """The last time that a service was told to stop. ``forced``: it did not end by itself in time, and was killed."""

    at: datetime
    seconds: float
    exit_code: int | None
    forced: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What a service uses now. Memory is without the page cache, in bytes; ``cpu_seconds`` counts since its start.

    ``oom_kills`` counts processes inside the service that the kernel killed for want of memory (the main process may
    have survived); ``throttled_seconds`` is time for which the CPU limit held it back. ``None``: it can't tell.
    ``tasks`` are its processes and their threads, of ``tasks_limit``, which is ``None`` where there is no limit.
    ``received`` is in seconds of a clock that nobody sets, unlike the one that ``at`` is from.
    """

    at: datetime
    memory: int
    cpu_seconds: float
    throttled_seconds: float | None = None
    oom_kills: int | None = None
    tasks: int | None = None
    tasks_limit: int | None = None
    received: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class LogChunk:
    """The end of a service's log: both streams, oldest first, each line with the time the runtime received it.

    ``truncated`` says that older lines of the window were left out because ``limit`` bytes were reached.
    """

    lines: tuple[tuple[datetime, str, str], ...]  # (time, "stdout" or "stderr", text without its line end)
    truncated: bool


@dataclass(frozen=True, slots=True)
class Execution:
    """How a command inside a service ended. 126 and 127 mean that there is no such command there."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def command_missing(self) -> bool:
        """Whether the service has no such program (slim images lack even a shell)."""
        return self.exit_code in (126, 127)


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """The runtime itself. ``data_root`` is the folder of the host in which images and volumes live, if it is known."""

    name: str
    version: str
    data_root: str = ""
    response_seconds: float = 0.0
    logging_driver: str = ""


class OperatorWords(Protocol):
    """How an operator types an action in a shell for this runtime. Remedies are written with these words."""

    def start(self, role: str) -> str:
        """The command that starts a service."""

    def stop(self, role: str) -> str:
        """The command that stops a service."""

    def restart(self, role: str) -> str:
        """The command that restarts a service."""

    def unpause(self, role: str) -> str:
        """The command that lets a paused service go on."""

    def recreate(self, role: str) -> str:
        """The command that makes a service anew, with its present configuration."""

    def ps(self) -> str:
        """The command that lists the services with their states."""

    def inspect(self, role: str) -> str:
        """The command that shows state, exit code, restarts and health of a service, and no secret."""

    def logs(self, role: str, since: str = "10m") -> str:
        """The command that prints both streams of a service's log."""

    def exec(self, role: str, command: str, user: str = "", environment: Mapping[str, str] | None = None) -> str:
        """``command`` (already quoted for a shell), run inside a service without a terminal.

        Values of ``environment`` stand in double quotes on the command line, so ``$(…)`` in them is evaluated there.
        """

    def variables(self, role: str) -> str:
        """The command that lists the names of the variables that a service was given, and no value."""

    def setting(self, role: str, name: str) -> str:
        """The command that prints the value of one variable that a service was given, whether it runs or not."""

    def usage(self) -> str:
        """The command that shows memory and CPU of all services."""


class Runtime(Protocol):
    """One target's services, seen through what runs them.

    Every method takes at most ``deadline`` seconds and raises :class:`RuntimeUnavailable` when the runtime
    does not answer. ``role`` is one of the target's service roles.
    """

    @property
    def kind(self) -> str:
        """``docker`` or ``supervisor``."""

    @property
    def local(self) -> bool:
        """Whether it is reached without a network: its services then run on this machine, as far as can be told."""

    @property
    def words(self) -> OperatorWords:
        """How an operator types an action for this runtime."""

    def info(self, deadline: float) -> RuntimeInfo:
        """Ask the runtime who it is."""

    def states(self, deadline: float) -> Mapping[str, ServiceState]:
        """The state of each service of the target by role; one that does not exist is ``missing``."""

    def replicas(self, deadline: float) -> Mapping[str, tuple[ServiceState, ...]]:
        """All that run as a service, by role: several where it is scaled, one otherwise."""

    def neighbours(
        self, addresses: Collection[str], networks: Collection[str], deadline: float
    ) -> Mapping[str, Neighbour]:
        """Who has these addresses on these networks, by address; nobody where services are no containers."""

    def environment(self, role: str, deadline: float) -> Mapping[str, str]:
        """The environment that a service was given. Holds secrets: never evidence as it is."""

    def image(self, role: str, deadline: float) -> ServiceImage | None:
        """What a service runs from; ``None`` where services are no containers. Raises ServiceUnavailable if missing."""

    def last_stop(self, role: str, deadline: float) -> LastStop | None:
        """How the last stop of a service went; ``None`` when there was none, as far as the runtime remembers."""

    def usage(self, role: str, deadline: float) -> Usage:
        """Memory and CPU time of a service. Raises :class:`ServiceUnavailable` when it does not run."""

    def logs(self, role: str, since: datetime, limit: int, deadline: float) -> LogChunk:
        """What a service wrote since then, the newest ``limit`` bytes. Holds secrets: never evidence as it is."""

    def execute(
        self, role: str, command: Sequence[str], deadline: float, user: str = "", stdin: bytes = b""
    ) -> Execution:
        """Run a command inside a service. Raises :class:`ServiceUnavailable` or :class:`DeadlineExceeded`."""

    def close(self) -> None:
        """Let go of connections."""
