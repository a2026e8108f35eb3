"""The supervisor of the embedded demo, seen through the state that it publishes.

The two share a file format and nothing else: ``state.json`` in the demo's state folder, which ``demo/state.py``
describes. The file alone is never believed: the supervisor must live (pid and start time), answer on its socket, and
so must each process that it says is running.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from dotenv import dotenv_values

from allodoc_health.children import die_with_parent
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

SCHEMA = "allodoc-demo-state/1"
ROLES = ("postgres", "redis", "backend", "nginx")
CHECKOUT = Path(__file__).resolve().parent.parent.parent
STATE_VARIABLE = "ALLODOC_DEMO_STATE"
# How long a process may be gone before the supervisor has written so.
SETTLING_SECONDS = 0.5
OUTPUT_LIMIT = 8 * 1024 * 1024
STATE_LIMIT = 4 * 1024 * 1024
_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z")


def default_state_folder() -> Path:
    """Where the demo keeps its state when nobody says otherwise."""
    named = os.environ.get(STATE_VARIABLE)
    return Path(named).absolute() if named else CHECKOUT / ".demo"


def _python() -> str:
    """What to type for this very Python: ``python`` if that is it, otherwise its path, short if it can be."""
    found = shutil.which("python")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "python"
    executable = Path(sys.executable)
    with contextlib.suppress(ValueError):
        return shlex.quote(str(executable.relative_to(CHECKOUT)))
    return shlex.quote(str(executable))


@dataclass(frozen=True, slots=True)
class SupervisorWords:
    """The demo's command line, as it is typed in the checkout.

    >>> SupervisorWords(CHECKOUT / ".demo", python="python").start("redis")
    'python -m demo start redis'
    >>> SupervisorWords(Path("/tmp/two demos"), python="python").exec("redis", "redis-cli ping")
    "python -m demo exec redis --state '/tmp/two demos' -- redis-cli ping"
    """

    state: Path
    python: str = field(default_factory=_python)
    kind: Literal["supervisor"] = "supervisor"

    def start(self, role: str) -> str:
        """The command that starts a service."""
        return self._command("start", role)

    def stop(self, role: str) -> str:
        """The command that stops a service."""
        return self._command("stop", role)

    def restart(self, role: str) -> str:
        """The command that restarts a service."""
        return self._command("restart", role)

    def unpause(self, role: str) -> str:
        """The command that lets a paused service go on."""
        return self._command("unpause", role)

    def recreate(self, role: str) -> str:
        """The command that makes a service anew, with its present environment file."""
        return self._command("recreate", role)

    def ps(self) -> str:
        """The command that lists the services with their states."""
        return self._command("ps")

    def inspect(self, role: str) -> str:
        """The command that shows state, exit code, restarts and health of a service, and no secret."""
        return self._command("inspect", role)

    def logs(self, role: str, since: str = "10m") -> str:
        """The command that prints both streams of a service's log."""
        return f"{self._command('logs', role)} --since {shlex.quote(since)} 2>&1"

    def exec(self, role: str, command: str, user: str = "", environment: Mapping[str, str] | None = None) -> str:
        """``command`` (already quoted for a shell), run inside a service.

        Values of ``environment`` stand in double quotes on the command line, so ``$(…)`` in them is evaluated there.
        """
        as_user = f" --user {shlex.quote(user)}" if user else ""
        variables = "".join(f'{name}="{value}" ' for name, value in (environment or {}).items())
        return f"{self._command('exec', role)}{as_user} -- {'env ' if variables else ''}{variables}{command}"

    def variables(self, role: str) -> str:
        """The command that lists the names of the variables that a service is given, and no value."""
        path = shlex.quote(str(self.state / role / "env.given"))
        return f"sed -n 's/^\\([A-Za-z_][A-Za-z0-9_]*\\)=.*/\\1/p' {path} | sort"

    def setting(self, role: str, name: str) -> str:
        """The command that prints the value of one variable that a service was given, whether it runs or not."""
        path = shlex.quote(str(self.state / role / "env.given"))
        # Written without an equals sign after the name, which would look like a secret to whoever masks them.
        return f"sed -n \"/^{name}\\>/{{s/^[^=]*=//;s/^'//;s/'$//;p}}\" {path}"

    def usage(self) -> str:
        """The command that shows memory and CPU of all services."""
        return self._command("stats")

    def _command(self, action: str, role: str = "") -> str:
        state = "" if self.state == default_state_folder() else f" --state {shlex.quote(str(self.state))}"
        return f"{self.python} -m demo {action}{' ' + role if role else ''}{state}"


class SupervisorRuntime:
    """The services of one embedded demo."""

    kind = "process-supervisor"
    local = True

    def __init__(self, state: Path | None = None, roles: Iterable[str] = ROLES) -> None:
        self._state = (state or default_state_folder()).absolute()
        self._roles = tuple(roles)
        self.words = SupervisorWords(self._state)

    def strange(self) -> RuntimeUnavailable:
        """What is said of a state that no supervisor publishes."""
        return RuntimeUnavailable(f"{self._state / 'state.json'} is not as the demo's supervisor writes it")

    @understood
    def info(self, deadline: float) -> RuntimeInfo:
        """Ask the supervisor who it is."""
        began = time.monotonic()
        document = self._document(deadline)
        return RuntimeInfo(
            name="AlloDoc demo supervisor",
            version=str(document["version"]),
            data_root=str(document["state"]),
            response_seconds=time.monotonic() - began,
            logging_driver="file",
        )

    @understood
    def states(self, deadline: float) -> Mapping[str, ServiceState]:
        """The state of each service by role; one that the demo does not have is ``missing``."""
        settled = time.monotonic() + min(SETTLING_SECONDS, deadline / 2)
        while True:
            services = self._document(deadline)["services"]
            lost = {role for role, service in services.items() if service["pid"] and not _alive(service)}
            if not lost or time.monotonic() > settled:
                break
            time.sleep(0.02)  # it ended this very moment, and its supervisor is about to say so
        return {
            role: _service_state(services[role], role in lost)
            if role in services
            else ServiceState(role=role, name=role, status=Status.MISSING)
            for role in self._roles
        }

    def replicas(self, deadline: float) -> Mapping[str, tuple[ServiceState, ...]]:
        """The same: the supervisor runs one of each."""
        return {role: (state,) for role, state in self.states(deadline).items()}

    def neighbours(
        self, addresses: Collection[str], networks: Collection[str], deadline: float
    ) -> Mapping[str, Neighbour]:
        """Nobody: the services are processes, and have this machine's addresses."""
        del addresses, networks, deadline
        return {}

    @understood
    def environment(self, role: str, deadline: float) -> Mapping[str, str]:
        """The environment that a service was given: the running one, otherwise the one it would be given now."""
        service = self._service(role, deadline)
        return _read_env(Path(service["given_env_file" if service["pid"] else "env_file"]))

    def image(self, role: str, deadline: float) -> ServiceImage | None:
        """Nothing: the services are processes, and no images are involved."""
        del role, deadline
        return None

    @understood
    def last_stop(self, role: str, deadline: float) -> LastStop | None:
        """How the last stop of a service went, as the supervisor remembers it."""
        last = self._service(role, deadline).get("last_stop")
        if last is None:
            return None
        return LastStop(datetime.fromisoformat(last["at"]), last["seconds"], last["exit_code"], last["forced"])

    @understood
    def usage(self, role: str, deadline: float) -> Usage:
        """Memory (each shared page counted in parts) and CPU time of all processes of a service."""
        service = self._service(role, deadline)
        if not service["pid"] or not _alive(service):
            raise ServiceUnavailable(f"{role} is {service['status']}")
        memory, seconds = 0, 0.0
        try:
            main = psutil.Process(service["pid"])
            members = [main, *main.children(recursive=True)]
        except psutil.Error as error:
            raise ServiceUnavailable(f"{role} ended while it was measured") from error
        for process in members:
            # A child may end meanwhile; its time is then in its parent's.
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                seconds += times.user + times.system + times.children_user + times.children_system
                memory += _memory(process)
        return Usage(at=datetime.now(UTC), memory=memory, cpu_seconds=seconds)

    @understood
    def logs(self, role: str, since: datetime, limit: int, deadline: float) -> LogChunk:
        """What a service wrote since then, the newest ``limit`` bytes of it."""
        service = self._service(role, deadline)
        # Each line is kept with its time and stream, which count for nothing here: read more than is wanted.
        text, cut = _tail([Path(name) for name in service["log_files"]], 3 * limit)
        begin = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        lines: list[tuple[datetime, str, str]] = []
        size = 0
        # By line feeds alone: a service may print any other character that Unicode calls the end of a line.
        for line in reversed(text.split("\n")):
            moment, _, rest = line.partition(" ")
            stream, _, content = rest.partition(" ")
            if stream not in ("stdout", "stderr") or not _STAMP.fullmatch(moment):
                continue
            if moment < begin:
                cut = False  # the window was read to its beginning
                break
            size += len(content.encode())
            if size > limit and lines:
                cut = True
                break
            with contextlib.suppress(ValueError):  # of a 35th of the month, say
                lines.append((datetime.fromisoformat(moment[:26] + "+00:00"), stream, content))
        return LogChunk(lines=tuple(reversed(lines)), truncated=cut)

    @understood
    def execute(
        self, role: str, command: Sequence[str], deadline: float, user: str = "", stdin: bytes = b""
    ) -> Execution:
        """Run a command with a service's environment, working folder and user; all of it is killed at the deadline."""
        ends = time.monotonic() + deadline
        service = self._service(role, deadline)
        if service["status"] != Status.RUNNING or not _alive(service):
            raise ServiceUnavailable(f"{role} is {service['status']}: no command can be run in it")
        env = {**_read_env(Path(service["given_env_file"])), **_read_env(Path(service["exec_env_file"]))}
        try:
            uid, gid = _account(service, user)
        except LookupError as error:
            return Execution(126, b"", str(error).encode())
        program = shutil.which(command[0], path=env.get("PATH", os.defpath)) if "/" not in command[0] else command[0]
        if program is None:
            return Execution(127, b"", f"{command[0]}: not found".encode())
        readers, writers = zip(os.pipe(), os.pipe(), strict=True)
        if uid is not None and gid is not None:
            for writer in writers:
                os.fchown(writer, uid, gid)  # programs such as nginx open /dev/stdout anew
        identity: dict[str, Any] = {} if uid is None else {"user": uid, "group": gid, "extra_groups": []}
        try:
            process = subprocess.Popen(
                [*command],
                executable=program,
                env=env,
                cwd=service["cwd"],
                stdin=subprocess.PIPE,
                stdout=writers[0],
                stderr=writers[1],
                start_new_session=True,
                preexec_fn=die_with_parent,
                **identity,
            )
        except (OSError, subprocess.SubprocessError) as error:
            for reader in readers:
                os.close(reader)
            return Execution(127 if isinstance(error, FileNotFoundError) else 126, b"", str(error).encode())
        finally:
            for writer in writers:
                os.close(writer)
        process.stdout, process.stderr = (os.fdopen(reader, "rb") for reader in readers)
        with process:
            try:
                stdout, stderr = _communicate(process, stdin, ends)
            except BaseException as error:
                _kill_group(process.pid)
                if isinstance(error, subprocess.TimeoutExpired):
                    message = f"{command[0]} in {role} was not over after {deadline:g} s"
                    raise DeadlineExceeded(message) from error
                raise
        code = process.returncode
        return Execution(code if code >= 0 else 128 - code, stdout, stderr)

    def close(self) -> None:
        """There is nothing to let go of."""

    # --- what the supervisor published ---

    def _service(self, role: str, deadline: float) -> dict[str, Any]:
        services = self._document(deadline)["services"]
        if role not in services:
            raise ServiceUnavailable(f"the demo has no service {role}")
        service: dict[str, Any] = services[role]
        return service

    def _document(self, deadline: float) -> dict[str, Any]:
        """The published state, fresh: the supervisor writes it anew when it is asked whether it is there."""
        document = self._read()
        supervisor = document["supervisor"]
        if not _alive(supervisor):
            raise RuntimeUnavailable(
                f"the demo's supervisor (pid {supervisor['pid']}) is gone and left its state in {self._state}"
            )
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(deadline)
            try:
                line.connect(document["control"])
                line.sendall(b'{"op": "ping"}\n')
                answer = line.recv(4096)
            except TimeoutError:
                raise RuntimeUnavailable(
                    f"the demo's supervisor (pid {supervisor['pid']}) gave no answer within {deadline:g} s"
                ) from None
            except OSError as error:
                raise RuntimeUnavailable(f"the demo's supervisor can't be asked: {error}") from error
        if not answer:
            raise RuntimeUnavailable("the demo's supervisor hung up: it is going down")
        return self._read()

    def _read(self) -> dict[str, Any]:
        path = self._state / "state.json"
        try:
            with path.open("rb") as stream:
                document = json.loads(stream.read(STATE_LIMIT))
        except FileNotFoundError:
            raise RuntimeUnavailable(f"the demo is not up: there is no {path}") from None
        except OSError as error:
            raise RuntimeUnavailable(f"{path} can't be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise RuntimeUnavailable(f"{path} is not JSON: {error}") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise RuntimeUnavailable(f"{path} is not of the schema {SCHEMA}")
        services = document.get("services")
        if not isinstance(services, dict) or not all(isinstance(one, dict) for one in services.values()):
            raise RuntimeUnavailable(f"{path} is not of the schema {SCHEMA}: it has no services")
        return document


def _service_state(service: Mapping[str, Any], lost: bool) -> ServiceState:
    health = service["health"]
    return ServiceState(
        role=service["role"],
        name=service["name"],
        status=Status.EXITED if lost else Status(service["status"]),
        id=service["id"],
        image=service["image"],
        pid=None if lost else service["pid"],
        health=health
        and Health(
            status=HealthStatus(health["status"]),
            failing_streak=health["failing_streak"],
            last_output=health["last_output"],
            checked_at=_moment(health["checked_at"]),
        ),
        exit_code=service["exit_code"],
        error=service["error"],
        oom_killed=service["oom_killed"],
        restart_count=service["restart_count"],
        restart_policy=service["restart_policy"],
        created_at=_moment(service["created_at"]),
        started_at=_moment(service["started_at"]),
        finished_at=_moment(service["finished_at"]),
        command=tuple(service["command"]),
        user=service["user"],
        ports=tuple(PublishedPort(port["host_ip"], port["host_port"], port["port"]) for port in service["ports"]),
        mounts=tuple(
            Mount(mount["kind"], mount["source"], mount["destination"], mount["writable"])
            for mount in service["mounts"]
        ),
        addresses=("127.0.0.1",),
        log_files=tuple(service["log_files"]),
        log_rotated=True,  # The supervisor bounds what it keeps.
        labels=service["labels"],
        stop_signal=service.get("stop_signal") or "SIGTERM",
        stop_timeout=service.get("stop_timeout"),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _alive(process: Mapping[str, Any]) -> bool:
    """Whether that very process still runs: a later one with its pid began at another tick."""
    try:
        text = Path(f"/proc/{process['pid']}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    fields = text.rpartition(")")[2].split()
    return fields[0] not in "ZX" and int(fields[19]) == process["start_ticks"]


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


def _read_env(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}


def _account(service: Mapping[str, Any], user: str) -> tuple[int | None, int | None]:
    """User and group to change to, ``None`` to stay. Raises LookupError for a user that there is not."""
    if user:
        try:
            entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        except KeyError:
            raise LookupError(f"there is no user {user}") from None
        wanted = (entry.pw_uid, entry.pw_gid)
    elif service["capability"] is not None:
        # The service reaches its files only with a right of root's that we can't hand on: stay who we are.
        return None, None
    else:
        wanted = (service["uid"], service["gid"])
    return (None, None) if wanted[0] == os.geteuid() else wanted


def _tail(paths: Sequence[Path], limit: int) -> tuple[str, bool]:
    """The last bytes of files that follow each other, from the beginning of a line; whether there were more."""
    parts: list[bytes] = []
    for path in reversed(paths):
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size - limit))
                parts.insert(0, stream.read(limit))
        except FileNotFoundError:
            continue
        limit -= size
        if limit < 0:
            parts[0] = parts[0].partition(b"\n")[2]
        if limit <= 0:
            return b"".join(parts).decode(errors="replace"), True
    return b"".join(parts).decode(errors="replace"), False


def _communicate(process: subprocess.Popen[bytes], stdin: bytes, ends: float) -> tuple[bytes, bytes]:
    """A command's output, :data:`OUTPUT_LIMIT` of each stream at most. Raises TimeoutExpired."""
    output = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for stream, kept in zip((process.stdout, process.stderr), output, strict=True):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, kept)
        assert process.stdin is not None
        waiting = memoryview(stdin)
        if waiting:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        else:
            process.stdin.close()
        while selector.get_map():
            left = ends - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(process.args, 0)
            for key, _ in selector.select(left):
                if key.data is not None:
                    piece = os.read(key.fd, 65536)
                    key.data.extend(piece[: max(0, OUTPUT_LIMIT - len(key.data))])
                    if piece:
                        continue
                else:
                    try:
                        waiting = waiting[os.write(key.fd, waiting) :]
                    except BlockingIOError:
                        continue
                    except BrokenPipeError:  # it does not want the rest
                        waiting = waiting[:0]
                    if waiting:
                        continue
                selector.unregister(key.fileobj)
                if key.data is None:
                    process.stdin.close()
    process.wait(max(0.0, ends - time.monotonic()))
    return bytes(output[0]), bytes(output[1])


def _kill_group(pid: int) -> None:
    """Kill a command with everything that it started, also what left its group."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
