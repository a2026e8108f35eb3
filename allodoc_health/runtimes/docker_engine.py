"""A Docker Engine as the runtime of a target, through its API; Podman's socket speaks the same.

The SDK finds the engine (DOCKER_HOST, contexts, TLS) and carries the requests. Reading the answers is done here,
because the SDK has no deadline for a whole call, can't bound a log, and can't tell a log's two streams apart. The SDK
is imported by the first call: importing this module costs nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from allodoc_health.runtimes.interface import (
    DeadlineExceeded,
    Execution,
    Health,
    HealthStatus,
    LastStop,
    LogChunk,
    Mount,
    Neighbour,
    PublishedPort,
    RuntimeInfo,
    RuntimeUnavailable,
    ServiceImage,
    ServiceState,
    ServiceUnavailable,
    Status,
    Usage,
    understood,
)

if TYPE_CHECKING:
    from docker import APIClient
    from requests import Response

# An inspected container, as the Engine API describes it.
Inspected = Mapping[str, Any]

_Method = TypeVar("_Method", bound=Callable[..., Any])

# The newest API version whose answers this module was written for. Old engines are asked in their own version.
API_VERSION = (1, 45)
USUAL_ADDRESS = "unix:///var/run/docker.sock"
DOCKER_SOCKETS = ("/var/run/docker.sock",)
CGROUPS = Path("/sys/fs/cgroup")
# Seconds for the engine to say that it is there; it needs a thousandth of that.
PING_DEADLINE = 0.25
# The share of a call's time that looking at its container may take: the rest is for what was asked.
INSPECTION = 0.5
# Bytes of a command's output that are kept; a command that prints more is cut, never the memory of the run.
OUTPUT_LIMIT = 8 * 1024 * 1024
# Bytes of one JSON answer, and of one message of a stream: far more than an engine ever sends.
ANSWER_LIMIT = 32 * 1024 * 1024
MESSAGE_LIMIT = 16 * 1024 * 1024
# A line without an end is handed on in parts of this size.
PART = 1024 * 1024

# What the engine means when it names no address. Reported, never bound.
ANY_ADDRESS = "0.0.0.0"  # noqa: S104

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_NEVER = "0001-01-01T00:00:00"
_RANK = (
    Status.MISSING,
    Status.DEAD,
    Status.REMOVING,
    Status.EXITED,
    Status.CREATED,
    Status.RESTARTING,
    Status.PAUSED,
    Status.RUNNING,
)


class Clock:
    """The time that is left of one call, which may make several requests."""

    def __init__(self, deadline: float) -> None:
        self.allowed = deadline
        self._end = time.monotonic() + deadline

    def left(self) -> float:
        """Seconds until the deadline; negative when it is past."""
        return self._end - time.monotonic()

    def part(self, share: float) -> Clock:
        """A clock for a share of what is left."""
        return Clock(max(self.left(), 0) * share)

    def __str__(self) -> str:
        return f"{self.allowed:.3g} s"


class Late(RuntimeUnavailable):
    """A request got no answer in time: the engine's fault, or that of the one container that it was about."""


class NotFound(Exception):
    """The engine knows no such object; ``message`` is its own sentence."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(Exception):
    """The engine answered a request with an error: its HTTP status and its own sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class EngineApi:
    """Requests to one Docker Engine, each with a deadline for the whole of it.

    >>> EngineApi("unix:///var/run/docker.sock").get("/version", deadline=2)["ApiVersion"]  # doctest: +SKIP
    '1.41'

    ``address`` is what DOCKER_HOST would be; when it is not given, DOCKER_HOST, the current Docker context, the usual
    socket and Podman's sockets are tried in this order.
    """

    def __init__(self, address: str = "") -> None:
        self._given = address
        self._lock = threading.Lock()
        self._client: APIClient | None = None
        self._prefix = ""
        self.address = address
        self.program = "docker"

    @property
    def local(self) -> bool:
        """Whether the engine is reached through a socket of this machine (its processes may still be elsewhere)."""
        return self.address.startswith("unix://")

    def get(self, path: str, *, deadline: float, **query: str | int) -> Any:
        """The JSON answer to a GET. Raises RuntimeUnavailable, :class:`NotFound` or :class:`Refused`."""
        return self.request("GET", path, Clock(deadline), query)

    def is_alive(self) -> bool:
        """Whether the engine itself answers at once, whatever becomes of a request about one container."""
        try:
            self.request("GET", "/_ping", Clock(PING_DEADLINE))
        except (RuntimeUnavailable, NotFound, Refused):
            return False
        return True

    @understood
    def containers(self, deadline: float) -> list[Inspected]:
        """All containers of the engine, running or not, inspected. One that goes away meanwhile is left out."""
        clock = Clock(deadline)
        inspected: list[Inspected] = []
        for entry in self.request("GET", "/containers/json", clock, {"all": 1}):
            with suppress(NotFound):
                inspected.append(self.request("GET", f"/containers/{entry['Id']}/json", clock))
        return inspected

    def close(self) -> None:
        """Let go of the connections; the next call opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def request(
        self,
        method: str,
        path: str,
        clock: Clock,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Any:
        """The JSON answer to any request; as :meth:`get`, with a clock that several requests may share."""
        with self.stream(method, path, clock, query, body) as chunks:
            content = self.whole(chunks)
        try:
            return json.loads(content) if content.strip() else None
        except (ValueError, RecursionError) as error:
            if path == "/_ping":
                return None
            raise self.strange() from error

    def strange(self) -> RuntimeUnavailable:
        """What is said of an answer that no engine gives."""
        return RuntimeUnavailable(f"{self.address} answered, but not as a Docker Engine does")

    def whole(self, pieces: Iterator[bytes]) -> bytes:
        """A body in one piece, if it has a sane size."""
        content = bytearray()
        for piece in pieces:
            content += piece
            if len(content) > ANSWER_LIMIT:
                raise self.strange()
        return bytes(content)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        clock: Clock,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, object] | None = None,
        stdin: bytes | None = None,
        connected: Callable[[], None] | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """Send a request; gives its body in pieces as they come. ``stdin`` goes out once it has begun.

        The input should be small: it is sent whole before any output is read.
        """
        with self._translated(clock):
            client = self._connected(clock)
            self._knock(clock)
            response = client.request(
                method,
                f"{client.base_url}{self._prefix}{path}",
                params=query,
                json=body,
                stream=True,
                timeout=_positive(clock),
            )
        try:
            if response.status_code >= 400:
                with self._translated(clock):
                    self._raise(response, clock)
            if connected is not None:
                connected()
            if stdin is not None:
                with self._translated(clock):
                    self._send(response, stdin, clock)
            yield self._pieces(response, clock, unread=bool(stdin))
        finally:
            # A stream that was not read to its end must not go back to the pool with the rest in it.
            connection = getattr(response.raw, "connection", None)
            response.close()
            if connection is not None:
                connection.close()

    def _pieces(self, response: Response, clock: Clock, *, unread: bool = False) -> Iterator[bytes]:
        """A body as it comes. ``unread``: input may have been left over, at which the daemon resets the connection."""
        from urllib3.exceptions import ProtocolError

        channel = _socket_of(response)
        with self._translated(clock):
            while True:
                left = _positive(clock)
                # A body that was read to its end may have closed its socket already.
                if channel is not None and channel.fileno() >= 0:
                    channel.settimeout(left)
                try:
                    piece = response.raw.read1(65536)
                except ProtocolError as error:
                    if not unread or not isinstance(error.args[-1], ConnectionResetError):
                        raise
                    return
                if not piece:
                    return
                yield piece

    @staticmethod
    def _send(response: Response, stdin: bytes, clock: Clock) -> None:
        channel = _socket_of(response)
        if channel is None:
            raise RuntimeUnavailable("this connection to the Docker daemon can't carry a command's input")
        channel.settimeout(_positive(clock))
        # A command that does not read its input may be over before it is sent.
        with suppress(BrokenPipeError, ConnectionResetError):
            channel.sendall(stdin)
            channel.shutdown(socket.SHUT_WR)

    def _raise(self, response: Response, clock: Clock) -> None:
        content = self.whole(self._pieces(response, clock))[:65536]
        try:
            message = str(json.loads(content)["message"])[:2000]
        except (ValueError, KeyError, TypeError, RecursionError):
            message = content.decode(errors="replace").strip()[:300]
        if response.status_code == 404:
            raise NotFound(message)
        raise Refused(response.status_code, message)

    def _connected(self, clock: Clock) -> APIClient:
        """The client, whose first request is the daemon's own /_ping: it tells the API version and costs under 1 ms."""
        with self._lock:
            if self._client is not None:
                return self._client
            import docker

            address, tls = _engine_address(self._given)
            self.address = address
            self.program = "podman" if "podman" in address else "docker"
            try:
                client = docker.APIClient(base_url=address, version="1.41", tls=tls, timeout=60)
            except docker.errors.DockerException as error:
                raise RuntimeUnavailable(f"no Docker daemon at {address}: {error}") from error
            self._knock(clock)
            response = client.get(f"{client.base_url}/_ping", timeout=_positive(clock), stream=True)
            response.close()
            version = re.fullmatch(r"(\d+)\.(\d+)", response.headers.get("Api-Version", ""))
            if version is not None:
                major, minor = min((int(version[1]), int(version[2])), API_VERSION)
                self._prefix = f"/v{major}.{minor}"
            self._client = client
            return client

    def _knock(self, clock: Clock) -> None:
        """Connect to a local socket and leave. The SDK forgets to close a socket that can't be connected."""
        if self.local:
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(_positive(clock))
                door.connect(self.address.removeprefix("unix://"))

    @contextmanager
    def _translated(self, clock: Clock) -> Iterator[None]:
        """Failures of the transport, each as its own sentence."""
        import requests
        import urllib3

        try:
            yield
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            causes = list(_causes(error))
            if any(isinstance(c, (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)) for c in causes):
                raise Late(f"the Docker daemon gave no answer within {clock}") from error
            raise RuntimeUnavailable(self._sentence(error, causes)) from error

    def _sentence(self, error: BaseException, causes: Sequence[BaseException]) -> str:
        path = self.address.removeprefix("unix://")
        for cause in causes:
            if isinstance(cause, FileNotFoundError):
                return f"no Docker daemon: there is no socket {path}"
            if isinstance(cause, PermissionError):
                return f"no permission to open the Docker daemon's socket {path} (join its group, or use sudo)"
            if isinstance(cause, ConnectionRefusedError):
                return f"no Docker daemon: nobody listens at {path}"
            if isinstance(cause, socket.gaierror):
                return f"no Docker daemon: the name in {path} does not resolve"
            if isinstance(cause, NotADirectoryError | IsADirectoryError):
                return f"no Docker daemon: {path} is not a socket"
        return f"the Docker daemon at {path} broke off: {type(error).__name__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything inside it; requests and urllib3 wrap errors in arguments as well as in causes."""
    todo: list[object] = [error]
    seen: set[int] = set()
    while todo:
        item = todo.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        todo += [getattr(item, "reason", None), *item.args, item.__cause__, item.__context__]


def _positive(clock: Clock) -> float:
    left = clock.left()
    if left <= 0:
        raise TimeoutError
    return left


def _socket_of(response: Response) -> socket.socket | None:
    """The socket below a response, to give each read the time that is left; the SDK reaches for it likewise.

    ``None`` when the libraries hide it: then each single read keeps the time-out that the request was made with.
    """
    reader: Any = getattr(getattr(getattr(response.raw, "_fp", None), "fp", None), "raw", None)
    found = getattr(reader, "_sock", None)
    return found if isinstance(found, socket.socket) else None


def _engine_address(given: str) -> tuple[str, Any]:
    """Where the engine is, and its TLS settings or False: given, DOCKER_HOST, the Docker context, the usual sockets."""
    from docker.context import ContextAPI
    from docker.utils import kwargs_from_env

    if given:
        return given, False
    chosen: Mapping[str, Any] = kwargs_from_env()
    if not chosen.get("base_url"):
        # The types lag behind the SDK, which has had this since 7.2.
        chosen = getattr(ContextAPI, "kwargs_from_context", dict)() or {}
    address = str(chosen.get("base_url") or "").replace("http+unix://", "unix://")
    if address and address != USUAL_ADDRESS:
        return address, chosen.get("tls") or False
    sockets = [*DOCKER_SOCKETS]
    own = os.environ.get("XDG_RUNTIME_DIR")
    if own:
        sockets += [f"{own}/docker.sock", f"{own}/podman/podman.sock"]
    sockets.append("/run/podman/podman.sock")
    return next((f"unix://{path}" for path in sockets if Path(path).exists()), USUAL_ADDRESS), False


def parse_time(text: str) -> datetime | None:
    """An Engine time (RFC 3339, nanoseconds) as an aware UTC time; ``None`` for Docker's "never".

    >>> parse_time("2026-11-23T14:02:50.841123456Z")
    datetime.datetime(2026, 11, 23, 14, 2, 50, 841123, tzinfo=datetime.timezone.utc)
    >>> parse_time("0001-01-01T00:00:00Z") is None
    True
    """
    if not text or text.startswith(_NEVER):
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(UTC)
    except ValueError:
        return None


def state_of(role: str, container: Inspected) -> ServiceState:
    """What an inspected container tells about the service that it is. Pure; its command may hold a password."""
    state = container.get("State") or {}
    config = container.get("Config") or {}
    host = container.get("HostConfig") or {}
    network = container.get("NetworkSettings") or {}
    status = _status(state)
    ended = parse_time(state.get("FinishedAt") or "")
    attached: Mapping[str, Any] = network.get("Networks") or {}
    return ServiceState(
        role=role,
        name=str(container.get("Name") or "").lstrip("/"),
        status=status,
        id=str(container.get("Id") or ""),
        image=str(config.get("Image") or ""),
        pid=state.get("Pid") or None,
        health=_health(state.get("Health") or state.get("Healthcheck"), config.get("Healthcheck")),
        # The engine forgets the exit code when it starts a container again: 0 there is not what ended the last run.
        # One that could not even be started has an exit code as well.
        exit_code=int(state.get("ExitCode") or 0) if (ended or state.get("Error")) and not _runs(status) else None,
        error=str(state.get("Error") or ""),
        oom_killed=bool(state.get("OOMKilled")),
        restart_count=int(container.get("RestartCount") or 0),
        restart_policy=str((host.get("RestartPolicy") or {}).get("Name") or ""),
        created_at=parse_time(container.get("Created") or ""),
        started_at=parse_time(state.get("StartedAt") or ""),
        finished_at=ended,
        command=(*_words_of(config.get("Entrypoint")), *_words_of(config.get("Cmd"))),
        user=str(config.get("User") or ""),
        memory_limit=host.get("Memory") or None,
        cpu_limit=_cpu_limit(host),
        ports=_ports(network.get("Ports") or host.get("PortBindings") or {}),
        mounts=_mounts(container.get("Mounts") or [], host.get("Tmpfs") or {}),
        addresses=tuple(a for net in attached.values() for a in (net.get("IPAddress"),) if a),
        networks=tuple(attached),
        aliases=tuple(
            dict.fromkeys(
                name for net in attached.values() for kind in ("Aliases", "DNSNames") for name in net.get(kind) or ()
            )
        ),
        log_files=(str(container["LogPath"]),) if container.get("LogPath") else (),
        log_rotated=_rotated(host.get("LogConfig") or {}),
        labels=dict(config.get("Labels") or {}),
        stop_signal=str(config.get("StopSignal") or "SIGTERM"),
        stop_timeout=float(10 if config.get("StopTimeout") is None else config["StopTimeout"]),
    )


def _environment_of(container: Inspected) -> Mapping[str, str]:
    entries = (container.get("Config") or {}).get("Env") or []
    # A name alone is how compose asks for a variable to be left out: the process does not get it.
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _addresses_in(entry: Inspected, networks: Collection[str]) -> set[str]:
    """The addresses of a listed container on some networks, of both families."""
    attached: Mapping[str, Any] = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    there = [network for name, network in attached.items() if name in networks and network]
    return {str(net[key]) for net in there for key in ("IPAddress", "GlobalIPv6Address") if net.get(key)}


def _neighbour(container: Inspected) -> Neighbour:
    config = container.get("Config") or {}
    return Neighbour(
        id=str(container.get("Id") or ""),
        name=str(container.get("Name") or "").lstrip("/"),
        image=str(config.get("Image") or ""),
        labels=dict(config.get("Labels") or {}),
        environment=_environment_of(container),
    )


def _rotated(log: Mapping[str, Any]) -> bool | None:
    """Whether a container's log files are bounded; ``None`` for a driver that keeps none of its own here."""
    driver = log.get("Type")
    if driver == "local":  # Bounded unless somebody asks for the contrary.
        return True
    # A size below zero is how unlimited is written.
    return not str((log.get("Config") or {}).get("max-size", "-1")).startswith("-") if driver == "json-file" else None


def last_stop_in(events: Iterable[Mapping[str, Any]]) -> LastStop | None:
    """The last stop that a container's start, kill, die and stop events tell of, oldest first. Pure.

    The engine sends the stop signal, kills what has not ended in time, and says "stop" only after a stop: a container
    that somebody killed, or that ended by itself, has no such event.
    """
    found: LastStop | None = None
    signals: list[float] = []
    died: tuple[float, int | None] | None = None
    for event in events:
        action = event.get("Action")
        at = float(event.get("timeNano") or 0) / 1e9
        if action == "start":
            signals, died = [], None
        elif action == "kill":
            signals.append(at)
        elif action == "die":
            code = str(((event.get("Actor") or {}).get("Attributes") or {}).get("exitCode") or "")
            died = (at, int(code) if code.isdigit() else None)
        elif action == "stop" and died is not None:
            ended, exit_code = died
            forced = exit_code == 128 + signal.SIGKILL and len(signals) > 1
            found = LastStop(datetime.fromtimestamp(ended, UTC), ended - min(signals, default=ended), exit_code, forced)
    return found


def _words_of(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(str(word) for word in value) if isinstance(value, list) else ()


def _runs(status: Status) -> bool:
    return status in (Status.RUNNING, Status.PAUSED)


def _status(state: Mapping[str, Any]) -> Status:
    word = str(state.get("Status") or "").lower()
    # Podman's words for what Docker calls otherwise.
    word = {"configured": "created", "initialized": "created", "stopped": "exited", "stopping": "running"}.get(
        word, word
    )
    try:
        return Status(word)
    except ValueError:
        return Status.RUNNING if state.get("Running") else Status.EXITED


def _health(health: Mapping[str, Any] | None, settings: Mapping[str, Any] | None) -> Health | None:
    if not health or health.get("Status") in (None, "", "none"):
        return None
    try:
        status = HealthStatus(str(health["Status"]))
    except ValueError:
        return None
    streak = int(health.get("FailingStreak") or 0)
    if status is HealthStatus.UNHEALTHY and streak == 0:
        # Nothing has failed: the engine says so of a check that was halted (a pause, a stop) and is about to begin.
        status = HealthStatus.STARTING
    last: Mapping[str, Any] = (health.get("Log") or [{}])[-1]
    return Health(
        status=status,
        failing_streak=streak,
        last_output=str(last.get("Output") or "").strip(),
        checked_at=parse_time(str(last.get("End") or "")),
        patience=_patience(settings or {}),
    )


def _patience(settings: Mapping[str, Any]) -> float:
    """Seconds from a start until a health check that always fails says so; the engine's defaults where none is set."""
    second = 1e9
    interval, timeout = (float(settings.get(name) or 30 * second) for name in ("Interval", "Timeout"))
    tries = int(settings.get("Retries") or 3)
    return (float(settings.get("StartPeriod") or 0) + (tries + 1) * (interval + timeout)) / second


def _cpu_limit(host: Mapping[str, Any]) -> float | None:
    if host.get("NanoCpus"):
        return float(host["NanoCpus"]) / 1e9
    if (host.get("CpuQuota") or 0) > 0:
        return float(host["CpuQuota"]) / float(host.get("CpuPeriod") or 100_000)
    return None


def _ports(bindings: Mapping[str, Any]) -> tuple[PublishedPort, ...]:
    published = {
        PublishedPort(
            host_ip=binding.get("HostIp") or ANY_ADDRESS, host_port=int(binding["HostPort"]), port=int(inside[0])
        )
        for port, found in bindings.items()
        for binding in found or ()
        # Without a number the engine has not chosen one yet.
        if (inside := port.split("/"))[-1] != "udp" and str(binding.get("HostPort") or "").isdigit()
    }
    return tuple(sorted(published, key=lambda port: (port.port, port.host_port, port.host_ip)))


def _mounts(mounts: Sequence[Mapping[str, Any]], tmpfs: Mapping[str, str]) -> tuple[Mount, ...]:
    found = [
        Mount(
            kind=str(mount.get("Type") or ""),
            source=str(mount.get("Source") or ""),
            destination=str(mount.get("Destination") or ""),
            writable=bool(mount.get("RW", True)),
        )
        for mount in mounts
    ]
    known = {mount.destination for mount in found}
    found += [
        Mount(kind="tmpfs", source="", destination=path, writable="ro" not in options.split(","))
        for path, options in tmpfs.items()
        if path not in known
    ]
    return tuple(sorted(found, key=lambda mount: mount.destination))


def compose_program(labels: Mapping[str, str]) -> str:
    """How compose is called on this host: the way the project was made where that is still here, else what is."""
    old = shutil.which("docker-compose") is not None
    plugin = any(
        (Path(folder) / "docker-compose").exists()
        for folder in (
            Path.home() / ".docker/cli-plugins",
            "/usr/local/lib/docker/cli-plugins",
            "/usr/local/libexec/docker/cli-plugins",
            "/usr/lib/docker/cli-plugins",
            "/usr/libexec/docker/cli-plugins",
        )
    )
    made_by_old = labels.get("com.docker.compose.version", "").startswith("1.")
    if old and (made_by_old or not plugin):
        return "docker-compose"
    return "docker compose"


@dataclass(frozen=True, slots=True)
class ComposeService:
    """How compose is asked for a service: the ``command`` line with the project's own files, and the service's name."""

    command: str
    service: str


def compose_service(labels: Mapping[str, str], program: str) -> ComposeService | None:
    """What a container's labels tell of how compose made it; ``None`` if something else did."""
    if _SERVICE not in labels:
        return None
    folder = labels.get("com.docker.compose.project.working_dir", "")
    words = [compose_program(labels) if program == "docker" else f"{program}-compose"]
    for name in labels.get("com.docker.compose.project.config_files", "").split(","):
        if name:
            # The old compose writes the path as it was typed, mostly relative to the project's folder.
            beside = Path(folder) / name
            words += ["-f", shlex.quote(str(beside) if beside.exists() else name)]
    if folder:
        words += ["--project-directory", shlex.quote(folder)]
    environment = labels.get("com.docker.compose.project.environment_file", "")
    if environment:
        words += ["--env-file", shlex.quote(environment)]
    if labels.get(_PROJECT):
        words += ["-p", shlex.quote(labels[_PROJECT])]
    return ComposeService(" ".join(words), labels[_SERVICE])


@dataclass(frozen=True, slots=True)
class DockerWords:
    """An operator's commands for Docker. Every one works when it is pasted: none wants a terminal, none shows a secret.

    ``names`` are the containers by role, ``present`` the roles of those that exist, ``composed`` how compose made them.
    """

    names: Mapping[str, str]
    present: tuple[str, ...] = ()
    composed: Mapping[str, ComposeService] = field(default_factory=dict)
    program: str = "docker"
    kind: Literal["docker"] = "docker"

    def start(self, role: str) -> str:
        """The command that starts a service."""
        return f"{self.program} start {self._name(role)}"

    def stop(self, role: str) -> str:
        """The command that stops a service."""
        return f"{self.program} stop {self._name(role)}"

    def restart(self, role: str) -> str:
        """The command that restarts a service."""
        return f"{self.program} restart {self._name(role)}"

    def unpause(self, role: str) -> str:
        """The command that lets a paused service go on."""
        return f"{self.program} unpause {self._name(role)}"

    def recreate(self, role: str) -> str:
        """The command that makes a service anew, through compose with the project's own files where it made it."""
        made = self._composed(role)
        if made is None:
            return f"{self.program} restart {self._name(role)}  # not made by compose: to recreate it, repeat its run"
        return f"{made.command} up -d --no-deps --force-recreate {shlex.quote(made.service)}"

    def ps(self) -> str:
        """The command that lists the services with their states, stopped ones too."""
        filters = " ".join(f"--filter name=^{shlex.quote(name)}$" for name in self.names.values())
        return f"{self.program} ps -a {filters} --format 'table {{{{.Names}}}}\\t{{{{.Status}}}}\\t{{{{.Ports}}}}'"

    def inspect(self, role: str) -> str:
        """The command that shows state, exit code, restarts and health of a service, and no secret."""
        shown = (
            "{{.State.Status}} exit={{.State.ExitCode}} oom={{.State.OOMKilled}} restarts={{.RestartCount}} "
            "started={{.State.StartedAt}} finished={{.State.FinishedAt}}"
            "{{if .State.Health}} health={{.State.Health.Status}} failing={{.State.Health.FailingStreak}}{{end}}"
            " {{.State.Error}}"
        )
        return f"{self.program} inspect --format '{shown}' {self._name(role)}"

    def logs(self, role: str, since: str = "10m") -> str:
        """The command that prints both streams of a service's log."""
        return f"{self.program} logs --since {since} {self._name(role)} 2>&1"

    def exec(self, role: str, command: str, user: str = "", environment: Mapping[str, str] | None = None) -> str:
        """``command`` (already quoted for a shell), run inside a service without a terminal.

        Values of ``environment`` stand in double quotes on the command line, so ``$(…)`` in them is evaluated there.
        """
        as_user = f"-u {shlex.quote(user)} " if user else ""
        variables = "".join(f'-e {name}="{value}" ' for name, value in (environment or {}).items())
        return f"{self.program} exec {as_user}{variables}{self._name(role)} {command}"

    def variables(self, role: str) -> str:
        """The command that lists the names of the variables that a service was given, and no value."""
        return f"{self._environment(role)} | cut -d= -f1 | sort"

    def setting(self, role: str, name: str) -> str:
        """The command that prints the value of one variable that a service was given, whether it runs or not."""
        # No name=value: what redacts a report would take it for a secret.
        return f'{self._environment(role)} | awk -F= \'$1 == "{name}" {{sub(/[^=]*=/, ""); print}}\''

    def usage(self) -> str:
        """The command that shows memory and CPU of all services."""
        # The client shows nothing at all when one of the names does not exist.
        names = [name for role, name in self.names.items() if role in self.present] or list(self.names.values())
        return f"{self.program} stats --no-stream {' '.join(shlex.quote(name) for name in names)}"

    def _environment(self, role: str) -> str:
        listed = f"{self.program} inspect --format '{{{{range .Config.Env}}}}{{{{println .}}}}{{{{end}}}}'"
        return f"{listed} {self._name(role)}"

    def _name(self, role: str) -> str:
        return shlex.quote(self.names.get(role, role))

    def _composed(self, role: str) -> ComposeService | None:
        if role in self.present:
            return self.composed.get(role)
        # A service that no longer exists belongs to its neighbours' project, and its name there is made like theirs.
        for neighbour, made in self.composed.items():
            if neighbour in made.service:
                return replace(made, service=made.service.replace(neighbour, role))
        return None


def of_one_service(method: _Method) -> _Method:
    """A runtime's method about one service, whose container is to blame if the engine is late with it alone.

    The engine waits for a container that has no processor time, or whose disk is dead, and answers all else.
    """

    @wraps(method)
    def call(self: DockerRuntime, role: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            return method(self, role, *arguments, **keywords)
        except Late as error:
            if not self.answers:
                raise
            raise DeadlineExceeded(f"{role}: {error}, about this container alone") from error

    return understood(call)  # type: ignore[return-value]  # it has the signature of what it wraps


class DockerRuntime:
    """The services of one target in a Docker Engine.

    ``containers`` names the container of each role (or gives its id). ``address`` is as for :class:`EngineApi`.
    Every method takes at most its ``deadline`` and raises
    :class:`~allodoc_health.runtimes.interface.RuntimeUnavailable` with a sentence that tells a missing socket, a
    missing permission, a refused connection and a silent daemon apart. Threads may share one runtime.
    """

    kind = "docker"

    def __init__(self, containers: Mapping[str, str], address: str = "", api: EngineApi | None = None) -> None:
        self._names = dict(containers)
        self._api = api or EngineApi(address)
        self._labels: dict[str, Mapping[str, str]] = {}
        self._shown: dict[str, str] = {}
        self._seen: dict[str, Inspected] = {}

    @property
    def answers(self) -> bool:
        """Whether the engine itself answers now, at once."""
        return self._api.is_alive()

    @property
    def local(self) -> bool:
        """Whether the engine is reached through a socket of this machine."""
        return self._api.local

    def strange(self) -> RuntimeUnavailable:
        """What is said of an answer that no engine gives."""
        return self._api.strange()

    @property
    def words(self) -> DockerWords:
        """The operator's commands, with what has been learnt of the containers' compose projects so far."""
        names = {role: self._shown.get(role, name) for role, name in self._names.items()}
        program = self._api.program
        made = {role: compose_service(labels, program) for role, labels in self._labels.items()}
        composed = {role: service for role, service in made.items() if service is not None}
        return DockerWords(names, tuple(self._labels), composed, program)

    @understood
    def info(self, deadline: float) -> RuntimeInfo:
        """Ask the engine who it is. ``response_seconds`` is how long it took to answer."""
        clock = Clock(deadline)
        self._engine("GET", "/_ping", clock)  # So that the next answer's time is the daemon's, not that of our imports.
        started = time.perf_counter()
        answer = self._engine("GET", "/info", clock)
        return RuntimeInfo(
            name="Podman" if self._api.program == "podman" else "Docker Engine",
            version=str(answer.get("ServerVersion") or ""),
            data_root=str(answer.get("DockerRootDir") or ""),
            response_seconds=time.perf_counter() - started,
            logging_driver=str(answer.get("LoggingDriver") or ""),
        )

    def states(self, deadline: float) -> Mapping[str, ServiceState]:
        """The state of each service by role; the worst of its replicas where compose runs several."""
        return {role: found[0] for role, found in self.replicas(deadline).items()}

    @understood
    def replicas(self, deadline: float) -> Mapping[str, tuple[ServiceState, ...]]:
        """All containers of each service, the worst first; a service that does not exist has one, ``missing``."""
        clock = Clock(deadline)
        listed = self._engine("GET", "/containers/json", clock, {"all": 1})
        by_role: dict[str, tuple[ServiceState, ...]] = {}
        for role, name in self._names.items():
            found = [
                state_of(role, container)
                for entry in self._of_service(name, listed)
                if (container := self._inspected_or_none(entry["Id"], clock)) is not None
            ]
            if found:
                self._seen[name] = self._seen[found[0].id]
                self._labels[role] = found[0].labels or {}
                self._shown[role] = found[0].name
            else:
                self._labels.pop(role, None)
            found.sort(key=lambda state: _RANK.index(state.status))
            by_role[role] = tuple(found) or (ServiceState(role=role, name=name, status=Status.MISSING),)
        by_role = dict(self._with_last_exit_codes(by_role, clock))
        if not self._api.local:
            return by_role
        return {role: tuple(_with_oom_from_kernel(state) for state in found) for role, found in by_role.items()}

    @understood
    def neighbours(
        self, addresses: Collection[str], networks: Collection[str], deadline: float
    ) -> Mapping[str, Neighbour]:
        """The running containers that have these addresses on these networks, by address."""
        clock = Clock(deadline)
        found: dict[str, Neighbour] = {}
        for entry in self._engine("GET", "/containers/json", clock):
            own = _addresses_in(entry, networks) & set(addresses)
            container = self._inspected_or_none(entry["Id"], clock) if own else None
            if container is not None:
                found |= dict.fromkeys(own, _neighbour(container))
        return found

    @of_one_service
    def environment(self, role: str, deadline: float) -> Mapping[str, str]:
        """The environment that a service was given. Holds secrets. Raises ServiceUnavailable when it is missing."""
        return _environment_of(self._inspect(role, Clock(deadline)))

    @of_one_service
    def image(self, role: str, deadline: float) -> ServiceImage | None:
        """What a service's container runs from, and what the name of that image means to the engine now."""
        clock = Clock(deadline)
        container = self._inspect(role, clock)
        name = str((container.get("Config") or {}).get("Image") or "")
        runs = str(container.get("Image") or "")
        current = self._image_or_none(name, clock)
        own = current if current and current.get("Id") == runs else self._image_or_none(runs, clock)
        return ServiceImage(
            name=name,
            id=runs,
            current=str(current["Id"]) if current else None,
            pinned="@sha256:" in name or runs.removeprefix("sha256:").startswith(name.removeprefix("sha256:") or "-"),
            created_at=parse_time(str((own or {}).get("Created") or "")),
            current_created_at=parse_time(str((current or {}).get("Created") or "")),
        )

    @of_one_service
    def last_stop(self, role: str, deadline: float) -> LastStop | None:
        """How the last stop of a service's container went, from the engine's memory of its last 256 events."""
        clock = Clock(deadline)
        container = self._inspect(role, clock)
        query: dict[str, str | int] = {
            "since": 0,
            "until": f"{time.time():.3f}",
            "filters": json.dumps(
                {"type": ["container"], "event": ["start", "kill", "die", "stop"], "container": [str(container["Id"])]}
            ),
        }
        try:
            with self._api.stream("GET", "/events", clock, query) as pieces:
                lines = self._api.whole(pieces).splitlines()
        except (NotFound, Refused):
            return None
        return last_stop_in(json.loads(line) for line in lines if line.strip())

    @of_one_service
    def usage(self, role: str, deadline: float) -> Usage:
        """Memory and CPU time of a service: from its cgroup's files where they can be read, else from the engine."""
        clock = Clock(deadline)
        container = self._entered(role, clock, also=(Status.PAUSED,))
        identity = str(container["Id"])
        if self._api.local:
            found = usage_from_cgroup(int(container["State"].get("Pid") or 0), identity)
            if found is not None:
                return found
        path = f"/containers/{identity}/stats"
        return _usage_from_stats(self._engine("GET", path, clock, {"stream": "false", "one-shot": "true"}))

    @of_one_service
    def logs(self, role: str, since: datetime, limit: int, deadline: float) -> LogChunk:
        """What a service wrote since then, the newest ``limit`` bytes; reads a small multiple of that at most.

        Raises ServiceUnavailable when the service is missing or its logging driver can't be read.
        """
        clock = Clock(deadline)
        container = self._inspect(role, clock)
        terminal = bool((container.get("Config") or {}).get("Tty"))
        # The engine counts lines from the end of the file. How long they are is known after the first try only.
        tail, shrunk = max(limit // 150, 50), False
        while True:
            kept = self._tail(str(container["Id"]), since, limit, tail, terminal, clock)
            if kept.too_much:
                # Fewer than a quarter each time, so this ends soon.
                tail, shrunk = max(1, kept.received * limit // kept.seen), True
                continue
            whole = kept.received < tail and not shrunk
            if whole or shrunk or kept.dropped or kept.bytes >= limit:
                break
            tail *= max(2, min(64, 2 * limit // max(kept.bytes, 1)))
        # Not the window's whole: the last tail was full, or older lines gave way.
        return LogChunk(lines=kept.merged(), truncated=kept.dropped or not whole)

    @of_one_service
    def execute(
        self, role: str, command: Sequence[str], deadline: float, user: str = "", stdin: bytes = b""
    ) -> Execution:
        """Run a command inside a service, without a shell and without a terminal.

        Raises ServiceUnavailable, which names the state, when the service can't be entered, and DeadlineExceeded when
        the command was not over in time. What it had started is then ended where this process may do that: through
        the engine's own process number, on the same machine, and only after that number is seen to belong to the
        container. Elsewhere the command stays until it ends by itself; wrap one that may hang in ``timeout``.
        """
        clock = Clock(deadline)
        container = self._entered(role, clock)
        identity, shown = str(container["Id"]), str(container["Name"]).lstrip("/")
        body = {
            "AttachStdin": bool(stdin),
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": False,
            "User": user,
            "Cmd": list(command),
        }
        try:
            created = self._api.request("POST", f"/containers/{identity}/exec", clock, body=body)
        except NotFound as error:
            raise ServiceUnavailable(f"{role}: container {shown} does not exist any more") from error
        except Refused as error:
            # Between our look and our knock it was paused or it stopped.
            raise ServiceUnavailable(f"{role}: container {shown} can't be entered: {error.message}") from error
        return self._run(role, str(created["Id"]), identity, command, stdin, clock)

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def _run(
        self, role: str, execution: str, container: str, command: Sequence[str], stdin: bytes, clock: Clock
    ) -> Execution:
        output = {1: bytearray(), 2: bytearray()}
        begun = False

        def connected() -> None:
            nonlocal begun
            begun = True

        try:
            with self._api.stream(
                "POST",
                f"/exec/{execution}/start",
                clock,
                body={"Detach": False, "Tty": False},
                stdin=stdin or None,
                connected=connected,
            ) as pieces:
                for stream, payload in _frames(pieces):
                    kept = output.setdefault(stream, bytearray())
                    kept += payload[: max(0, OUTPUT_LIMIT - len(kept))]
            ended = self._exit_code(execution, clock)
        except Refused as error:
            # An old engine says here, and not by the exit code, that there is no such program.
            if re.search(r"executable file not found|no such file|permission denied", error.message, re.IGNORECASE):
                return Execution(127, b"", error.message.encode())
            raise ServiceUnavailable(f"{role}: the command can't be started: {error.message}") from error
        except RuntimeUnavailable as error:
            if clock.left() > 0.05:
                raise
            self._end_what_we_started(execution, container, clock)
            what = shlex.join(command)[:80]
            began = "was not over" if begun else "was not begun"
            raise DeadlineExceeded(f"{role}: {what} {began} after {clock}") from error
        stdout, stderr = bytes(output[1]), bytes(output[2])
        if ended in (126, 127) and not stderr and b"exec failed" in stdout:
            stdout, stderr = b"", stdout
        return Execution(ended, stdout, stderr)

    def _exit_code(self, execution: str, clock: Clock) -> int:
        """The exit code, which the engine may know a moment after the output has ended."""
        pause = 0.001
        while True:
            answer = self._api.request("GET", f"/exec/{execution}/json", clock)
            if not answer.get("Running") and answer.get("ExitCode") is not None:
                return int(answer["ExitCode"])
            time.sleep(min(pause, max(clock.left(), 0)))
            pause = min(pause * 2, 0.05)

    def _end_what_we_started(self, execution: str, container: str, clock: Clock) -> None:
        """Kill the command that overran, and its children; best effort, and never anything else's process."""
        if not self._api.local:
            return
        grace = Clock(min(0.25, max(clock.allowed, 0.05)))
        try:
            answer = self._api.request("GET", f"/exec/{execution}/json", grace)
        except (RuntimeUnavailable, NotFound, Refused):
            return
        pid = int(answer.get("Pid") or 0)
        if not answer.get("Running") or pid <= 1 or container not in _cgroup_text(pid):
            return
        import psutil

        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            for own in [*process.children(recursive=True), process]:
                with suppress(psutil.Error, OSError):
                    own.send_signal(signal.SIGKILL)

    def _engine(self, method: str, path: str, clock: Clock, query: Mapping[str, str | int] | None = None) -> Any:
        """A request that has no service to be missing: an error of the engine is the engine's."""
        try:
            return self._api.request(method, path, clock, query)
        except (NotFound, Refused) as error:
            raise RuntimeUnavailable(f"the Docker daemon refused {path}: {error.message}") from error

    def _inspected_or_none(self, name: str, clock: Clock) -> Inspected | None:
        """What the engine tells of a container; where it is late with that, what it told before in this run."""
        try:
            found: Inspected = self._api.request("GET", f"/containers/{name}/json", clock.part(INSPECTION))
        except NotFound:
            return None
        except Refused as error:
            raise RuntimeUnavailable(f"the Docker daemon can't inspect {name}: {error.message}") from error
        except Late:
            if name not in self._seen or not self.answers:
                raise
            return self._seen[name]
        self._seen[name] = found
        return found

    def _image_or_none(self, name: str, clock: Clock) -> Inspected | None:
        try:
            found: Inspected = self._api.request("GET", f"/images/{quote(name, safe='/:@')}/json", clock)
        except (NotFound, Refused):
            return None
        return found

    def _inspect(self, role: str, clock: Clock) -> Inspected:
        name = self._name(role)
        found = self._inspected_or_none(name, clock)
        if found is None:
            raise ServiceUnavailable(f"{role}: there is no container {name}")
        return found

    def _entered(self, role: str, clock: Clock, also: tuple[Status, ...] = ()) -> Inspected:
        """The container, if it is in a state in which it can be entered."""
        container = self._inspect(role, clock)
        status = _status(container.get("State") or {})
        if status is Status.RUNNING or status in also:
            return container
        raise ServiceUnavailable(f"{role}: container {str(container['Name']).lstrip('/')} is {status.value}")

    def _name(self, role: str) -> str:
        try:
            return self._names[role]
        except KeyError:
            raise ServiceUnavailable(f"{role}: this target has no such service") from None

    @staticmethod
    def _of_service(name: str, listed: Sequence[Inspected]) -> list[Inspected]:
        """The container of that name or id, and after it the others of its compose service."""
        first = [
            entry
            for entry in listed
            if f"/{name}" in (entry.get("Names") or ()) or (len(name) >= 12 and entry["Id"].startswith(name))
        ]
        labels = (first[0].get("Labels") or {}) if first else {}
        if _PROJECT not in labels or _SERVICE not in labels:
            return first
        mark = (labels[_PROJECT], labels[_SERVICE])
        more = [
            entry
            for entry in listed
            if entry is not first[0]
            and mark == ((entry.get("Labels") or {}).get(_PROJECT), (entry.get("Labels") or {}).get(_SERVICE))
            # `compose run` makes passing containers of a service, which are no replicas.
            and (entry.get("Labels") or {}).get("com.docker.compose.oneoff", "False").lower() != "true"
        ]
        return first + more

    def _with_last_exit_codes(
        self, by_role: Mapping[str, tuple[ServiceState, ...]], clock: Clock
    ) -> Mapping[str, tuple[ServiceState, ...]]:
        """Fill in how the last run of a running service ended, from the engine's memory of its last events."""
        wanted = [
            state for found in by_role.values() for state in found if state.exit_code is None and state.finished_at
        ]
        if not wanted:
            return by_role
        since = min(state.finished_at.timestamp() for state in wanted if state.finished_at) - 1
        query = {
            "since": f"{since:.0f}",
            "until": f"{time.time():.3f}",
            "filters": json.dumps({"type": ["container"], "event": ["die"], "container": [s.id for s in wanted]}),
        }
        codes: dict[str, int] = {}
        # It remembers 256 events only: a bonus, whose absence is no finding.
        with suppress(NotFound, Refused), self._api.stream("GET", "/events", clock, query) as pieces:
            for line in self._api.whole(pieces).splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    actor = json.loads(line)["Actor"]
                    codes[actor["ID"]] = int(actor["Attributes"]["exitCode"])
        return {
            role: tuple(
                replace(state, exit_code=codes[state.id]) if state.exit_code is None and state.id in codes else state
                for state in found
            )
            for role, found in by_role.items()
        }

    def _tail(self, container: str, since: datetime, limit: int, tail: int, terminal: bool, clock: Clock) -> _Tail:
        query: dict[str, str | int] = {
            "stdout": 1,
            "stderr": 1,
            "timestamps": 1,
            "since": f"{since.timestamp():.9f}",
            "tail": tail,
        }
        kept = _Tail(limit)
        try:
            with self._api.stream("GET", f"/containers/{container}/logs", clock, query) as pieces:
                source = _terminal_lines(pieces) if terminal else _frames(pieces)
                for stream, payload in source:
                    kept.add(stream, payload)
                    if tail > 1 and kept.seen > 4 * limit:
                        # What would be dropped is not worth reading; and the newest comes last.
                        kept.too_much = True
                        return kept
        except NotFound as error:
            raise ServiceUnavailable(f"the container went away: {error.message}") from error
        except Refused as error:
            raise ServiceUnavailable(f"its log can't be read: {error.message}") from error
        kept.finish()
        return kept


class _Tail:
    """The newest bytes of a log, built from the engine's messages: each a timestamp, a space and (part of) a line."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.seen = 0
        self.received = 0
        self.dropped = False
        self.too_much = False
        self._lines: deque[tuple[datetime, str, bytes]] = deque()
        self._open: dict[int, tuple[datetime, bytearray]] = {}

    def add(self, stream: int, payload: bytes) -> None:
        """Take the next message."""
        self.received += 1
        stamp, _, text = payload.partition(b" ")
        when = parse_time(stamp.decode("ascii", "replace"))
        if when is None:
            # Not a message of its own: the engine broke a line, or a driver adds no time.
            text, when = payload, datetime.now(UTC)
        self.seen += len(text)  # Without the timestamps, so that very short lines are not taken for too much.
        begun = self._open.get(stream)
        if begun is None:
            begun = self._open[stream] = (when, bytearray())
        # A line longer than the engine's 16 KiB comes in several messages; only the last ends it.
        if len(begun[1]) < self.limit:
            begun[1].extend(text)
        if text.endswith(b"\n"):
            self._close(stream)

    def _close(self, stream: int) -> None:
        when, text = self._open.pop(stream)
        line = bytes(text).rstrip(b"\r\n")
        if len(line) + 1 > self.limit:
            line = line[: max(self.limit - 1, 0)]
            self.dropped = True
        self._lines.append((when, "stderr" if stream == 2 else "stdout", line))
        self.bytes += len(line) + 1
        while self.bytes > self.limit and self._lines:
            self.bytes -= len(self._lines.popleft()[2]) + 1
            self.dropped = True

    def finish(self) -> None:
        """Take a last line without an end as a line."""
        for stream in list(self._open):
            self._close(stream)

    def merged(self) -> tuple[tuple[datetime, str, str], ...]:
        """The lines of both streams by their time."""
        ordered = sorted(self._lines, key=lambda line: line[0])
        return tuple((when, stream, text.decode("utf-8", "replace")) for when, stream, text in ordered)


def _frames(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """The engine's multiplexed stream, taken apart: an 8-byte header (stream, length), then so many bytes."""
    pending = bytearray()
    for piece in pieces:
        pending += piece
        start = 0
        while len(pending) - start >= 8:
            stream, length = struct.unpack_from(">BxxxL", pending, start)
            if length > MESSAGE_LIMIT:
                raise RuntimeUnavailable("the Docker daemon's stream of output is broken")
            if len(pending) - start - 8 < length:
                break
            yield stream, bytes(pending[start + 8 : start + 8 + length])
            start += 8 + length
        del pending[:start]


def _terminal_lines(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """A service with a terminal has one stream, without headers."""
    pending = b""
    for piece in pieces:
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            yield 1, line + b"\n"
        if len(pending) > PART:
            yield 1, pending
            pending = b""
    if pending:
        yield 1, pending


def _with_oom_from_kernel(state: ServiceState) -> ServiceState:
    """Ask the kernel's log whether memory was the reason of a SIGKILL; the engine misses some on a busy machine."""
    if state.exit_code != 137 or state.oom_killed or state.finished_at is None:
        return state
    ended = state.finished_at.timestamp()
    found = any(ended - 5 < when < ended + 2 for when in oom_kills_in(kernel_log(), state.id))
    return replace(state, oom_killed=True) if found else state


def kernel_log() -> Iterator[str]:
    """The records of the kernel's log ring (a few megabytes at most); none where it may not be read."""
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        while True:
            try:
                yield os.read(descriptor, 8192).decode(errors="replace")
            except BrokenPipeError:
                continue  # The ring overtook us: the next read is the oldest record that is left.
            except OSError:
                return  # Nothing more now.
    finally:
        os.close(descriptor)


def oom_kills_in(records: Iterable[str], container: str) -> list[float]:
    """When the kernel killed processes of a container for want of memory, in seconds since the epoch."""
    booted = time.time() - time.monotonic()
    found = []
    for record in records:
        # "6,1234,2847825381,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,task_memcg=/docker/<id>,task=node,pid=…"
        head, _, text = record.partition(";")
        if text.startswith("oom-kill:") and container in text:
            found.append(booted + int(head.split(",")[2]) / 1e6)
    return found


def _cgroup_text(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def usage_from_cgroup(pid: int, container: str, cgroups: Path = CGROUPS) -> Usage | None:
    """Memory and CPU of a container from the files of its cgroup, version 1 or 2.

    ``pid`` is its main process on this machine. ``None`` when there is no such process here, when it belongs to another
    container (the engine is elsewhere), or when the files can't be read.
    """
    text = _cgroup_text(pid) if pid > 1 else ""
    if container not in text:
        return None
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    try:
        if "memory" in paths:
            return _usage_v1(cgroups, paths)
        return _usage_v2(cgroups / paths[""].lstrip("/"))
    except (OSError, KeyError, ValueError):
        return None


def _usage_v1(cgroups: Path, paths: Mapping[str, str]) -> Usage:
    def folder(controller: str) -> Path:
        mounted = cgroups / controller
        if not mounted.exists():
            mounted = next(path for path in cgroups.iterdir() if controller in path.name.split(","))
        return mounted / paths[controller].lstrip("/")

    memory = folder("memory")
    cache = _table(memory / "memory.stat")["total_inactive_file"]
    throttled = _table(folder("cpu") / "cpu.stat").get("throttled_time")
    return Usage(
        at=datetime.now(UTC),
        memory=max(int((memory / "memory.usage_in_bytes").read_text()) - cache, 0),
        cpu_seconds=int((folder("cpuacct") / "cpuacct.usage").read_text()) / 1e9,
        throttled_seconds=None if throttled is None else throttled / 1e9,
        oom_kills=_table(memory / "memory.oom_control").get("oom_kill"),
        **(_tasks(folder("pids")) if "pids" in paths else {}),
    )


def _usage_v2(folder: Path) -> Usage:
    cpu = _table(folder / "cpu.stat")
    throttled = cpu.get("throttled_usec")
    return Usage(
        at=datetime.now(UTC),
        memory=max(int((folder / "memory.current").read_text()) - _table(folder / "memory.stat")["inactive_file"], 0),
        cpu_seconds=cpu["usage_usec"] / 1e6,
        throttled_seconds=None if throttled is None else throttled / 1e6,
        oom_kills=_table(folder / "memory.events").get("oom_kill"),
        **_tasks(folder),
    )


def _tasks(folder: Path) -> dict[str, int]:
    """What runs in a cgroup, of how many that may, where there is a limit."""
    try:
        found = {"tasks": int((folder / "pids.current").read_text())}
        most = (folder / "pids.max").read_text().strip()
    except OSError:
        return {}
    return found if most == "max" else {**found, "tasks_limit": int(most)}


def _table(path: Path) -> dict[str, int]:
    """A cgroup file of names and numbers."""
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


_ANY_NUMBER = 2**62
"""What the engine gives as a limit from here on is its word for none."""


def _usage_from_stats(stats: Mapping[str, Any]) -> Usage:
    memory = stats.get("memory_stats") or {}
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu = stats.get("cpu_stats") or {}
    throttled = (cpu.get("throttling_data") or {}).get("throttled_time")
    pids = stats.get("pids_stats") or {}
    most = int(pids.get("limit") or 0)
    return Usage(
        at=parse_time(str(stats.get("read") or "")) or datetime.now(UTC),
        memory=max(int(memory.get("usage") or 0) - int(cache or 0), 0),
        cpu_seconds=int((cpu.get("cpu_usage") or {}).get("total_usage") or 0) / 1e9,
        throttled_seconds=None if throttled is None else int(throttled) / 1e9,
        tasks=pids.get("current"),
        tasks_limit=most if 0 < most < _ANY_NUMBER else None,
    )
