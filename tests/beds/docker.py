"""Real containers to break: an engine, throw-away containers, and the guide's own stack.

Fixtures for tests, to be imported by a conftest: ``engine`` and ``whole_stack`` (one for a session), ``container``
(makes small containers that are gone after the test, however it ends) and ``stack`` (whole again after each test).
On a machine without an engine these tests are skipped and say why; where CI=true they fail.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env
from filelock import FileLock

from allodoc_health.discovery import ROLES
from allodoc_health.runtimes.docker_engine import DockerRuntime
from allodoc_health.runtimes.interface import Execution, HealthStatus, ServiceState, Status
from demo.compose import build
from demo.release.checkout import commit, revision
from demo.release.log import DeployLog

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "demo" / "compose" / "docker-compose.prod.yml"
# The guide fixes the containers' names, so there is one stack on a machine, and one test session that has it.
PROJECT = "allodocbed"
LOCK = Path(tempfile.gettempdir()) / "allodoc-docker-bed.lock"
# On every throw-away container: the process that made it, so that what a killed session left is known as such.
OWNER = "com.allodoc.bed.owner"
SECRETS = ("DATABASE_PASSWORD", "REDIS_PASSWORD", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET", "COOKIE_SECRET")
SMOKE_EMAIL = "smoke@allodoc.test"


def wait_until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Wait until ``condition()`` is true; fails the test with ``what`` after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    pause = 0.02
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout:g} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


class Engine:
    """A Docker Engine for tests: the SDK's client, the base image, and a way to make containers."""

    def __init__(self, client: APIClient) -> None:
        self.client = client
        self.base = ""
        self.bare = ""

    def prepare(self) -> None:
        """Make the images that throw-away containers need, and remove what killed sessions left."""
        self.base = build.build_base(self.client)
        self.bare = "allodoc/bare:1"
        if not self.client.images(self.bare, quiet=True):
            # One program and nothing else: no shell, no library, no folder.
            recipe = f"FROM {self.base} AS base\nFROM scratch\nCOPY --from=base /usr/bin/busybox /sleep\n"
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "Dockerfile").write_text(recipe)
                said = list(self.client.build(path=folder, tag=self.bare, rm=True, forcerm=True, decode=True))
            assert self.client.images(self.bare, quiet=True), said
        for left in self.client.containers(all=True, filters={"label": OWNER}):
            owner = left["Labels"].get(OWNER, "")
            if not (owner.isdigit() and Path(f"/proc/{owner}").exists()):
                self.remove(left["Id"])

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The daemon stopped in its tracks (SIGSTOP) for as long as the block lasts; at most 30 s, whatever happens."""
        try:
            pid = int(Path("/var/run/docker.pid").read_text())
            if Path(f"/proc/{pid}/comm").read_text().strip() != "dockerd":
                pytest.skip(f"process {pid} is not dockerd: it runs elsewhere")
        except (OSError, ValueError):
            pytest.skip("dockerd's process is not known here")
        # Should this process be killed meanwhile, the machine's Docker must not stay frozen.
        guard = subprocess.Popen(["sh", "-c", f"sleep 30; kill -CONT {pid}"], start_new_session=True)
        try:
            os.kill(pid, signal.SIGSTOP)
        except PermissionError:
            guard.kill()
            guard.wait()
            pytest.skip("not permitted to stop dockerd")
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
            os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()

    def remove(self, name: str) -> None:
        """Remove a container with its volumes, whatever its state; one that is gone already is fine."""
        with contextlib.suppress(NotFound):
            try:
                self.client.remove_container(name, force=True, v=True)
            except APIError as error:
                if "is already in progress" not in str(error):
                    raise


class Container:
    """One throw-away container, with a runtime that knows it by the role ``service``."""

    def __init__(self, engine: Engine, identity: str, name: str) -> None:
        self.id = identity
        self.name = name
        self._client = engine.client
        self.runtime = DockerRuntime({"service": name})

    @property
    def state(self) -> ServiceState:
        """How the runtime under test sees it now."""
        return self.runtime.states(5)["service"]

    def start(self) -> None:
        """Start it (again)."""
        self._client.start(self.id)

    def stop(self, grace: int = 1) -> None:
        """Stop it: SIGTERM, and SIGKILL after ``grace`` seconds."""
        self._client.stop(self.id, timeout=grace)

    def kill(self, name: str = "KILL") -> None:
        """Send a signal to its main process."""
        self._client.kill(self.id, name)

    def pause(self) -> None:
        """Freeze it."""
        self._client.pause(self.id)

    def unpause(self) -> None:
        """Let it go on."""
        self._client.unpause(self.id)

    def remove(self) -> None:
        """Remove it."""
        self._client.remove_container(self.id, force=True, v=True)

    def wait_status(self, status: Status, timeout: float = 10) -> ServiceState:
        """Wait until the engine says that it is in this state, and return all that it says."""
        wait_until(lambda: self.state.status is status, timeout, f"{self.name} is {status}")
        return self.state

    def wait_health(self, health: HealthStatus, timeout: float = 10) -> ServiceState:
        """Wait until its health check says so, and return the state."""

        def reached() -> bool:
            found = self.state.health
            return found is not None and found.status is health

        wait_until(reached, timeout, f"{self.name} is {health}")
        return self.state

    def wait_log(self, text: str, timeout: float = 10) -> None:
        """Wait until its log holds a text."""
        wait_until(lambda: text.encode() in self._client.logs(self.id), timeout, f"{self.name} logs {text!r}")


class ContainerFactory:
    """Makes throw-away containers; each is removed when the test is over."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._made: list[str] = []
        self._networks: list[str] = []

    def __call__(
        self,
        command: Sequence[str] = ("sleep", "600"),
        *,
        name: str = "",
        image: str = "",
        env: Mapping[str, str] | None = None,
        memory: str | None = None,
        cpus: float | None = None,
        healthcheck: Mapping[str, Any] | None = None,
        restart: str = "no",
        labels: Mapping[str, str] | None = None,
        read_only: bool = False,
        user: str = "",
        tty: bool = False,
        init: bool = True,
        publish: Mapping[int, int] | None = None,
        network: str = "none",
        volumes: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> Container:
        """A container of the base image (or ``image``), started unless ``start`` is false.

        ``memory`` is as Docker writes it (16m), without swap; ``healthcheck`` as the Engine API has it (``test`` and
        times in nanoseconds); ``publish`` maps ports inside to ports of 127.0.0.1; ``network`` is one that exists;
        ``volumes`` maps names of volumes to folders inside.
        """
        client = self._engine.client
        name = name or f"bed-{os.getpid()}-{secrets.token_hex(3)}"
        created = client.create_container(
            image or self._engine.base,
            list(command),
            name=name,
            environment=dict(env or {}),
            labels={**(labels or {}), OWNER: str(os.getpid())},
            healthcheck=dict(healthcheck) if healthcheck else None,
            user=user or None,
            tty=tty,
            ports=list(publish or {}),
            volumes=list((volumes or {}).values()),
            host_config=client.create_host_config(
                mem_limit=memory,
                memswap_limit=memory,
                nano_cpus=int(cpus * 1e9) if cpus else None,
                restart_policy={"Name": restart},
                read_only=read_only,
                init=init,
                network_mode=network,
                binds=[f"{volume}:{folder}" for volume, folder in (volumes or {}).items()],
                port_bindings={port: ("127.0.0.1", there) for port, there in (publish or {}).items()},
            ),
        )
        self._made.append(created["Id"])
        made = Container(self._engine, created["Id"], name)
        if start:
            made.start()
        return made

    def network(self) -> str:
        """A private network, removed after the test; returns its name."""
        name = f"bed-{os.getpid()}-{secrets.token_hex(3)}"
        self._engine.client.create_network(name, driver="bridge", internal=True, labels={OWNER: str(os.getpid())})
        self._networks.append(name)
        return name

    def clear(self) -> None:
        """Remove what was made."""
        for identity in self._made:
            self._engine.remove(identity)
        for name in self._networks:
            with contextlib.suppress(NotFound):
                self._engine.client.remove_network(name)
        self._made.clear()
        self._networks.clear()


class Stack:
    """The guide's own stack, up through docker-compose with free ports, and the ways to break it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.names: Mapping[str, str] = {role: f"allodoc_{role}_prod" for role in ROLES}
        self.runtime = DockerRuntime(self.names)
        self.ports = dict(
            zip(("postgres", "redis", "backend", "frontend", "http", "https"), free_ports(6), strict=True)
        )
        # Not in the image's history nor in this repository: new ones for each session.
        self.secrets = {name: secrets.token_hex(24) for name in SECRETS}
        self.smoke_password = secrets.token_urlsafe(16)
        self._touched = False
        self._changed: set[str] = set()
        self._known: list[str] = []
        self._files: dict[tuple[str, str], str] = {}
        self._volumes: list[str] = []
        self._others: list[str] = []

    @property
    def target(self) -> str:
        """The target file for a run of the suite on this stack: it says no more than discovery would find."""
        return '[runtime]\nkind = "docker"\n'

    @property
    def smoke_account(self) -> Mapping[str, str]:
        """The variables that tell the suite which account it may log in with."""
        return {"ALLODOC_SMOKE_EMAIL": SMOKE_EMAIL, "ALLODOC_SMOKE_PASSWORD": self.smoke_password}

    # Ways to break it, and what undoes them. Each returns when the engine has done it.

    def stop(self, role: str) -> None:
        """Stop a service as an operator would."""
        self._act("stop", role, timeout=3)

    def start(self, role: str) -> None:
        """Start a service."""
        self._act("start", role)

    def kill(self, role: str, name: str = "KILL") -> None:
        """Send a signal to a service's main process."""
        self._act("kill", role, signal=name)

    def pause(self, role: str) -> None:
        """Freeze a service."""
        self._act("pause", role)

    def unpause(self, role: str) -> None:
        """Let a frozen service go on."""
        self._act("unpause", role)

    def restart(self, role: str) -> None:
        """Stop and start a service."""
        self._act("restart", role, timeout=3)

    def remove(self, role: str) -> None:
        """Remove a service's container; its volumes stay."""
        self._touched = True
        self.engine.client.remove_container(self.names[role], force=True)

    def recreate(self, role: str, env: Mapping[str, str | None] | None = None, **options: Any) -> None:
        """Make a service anew with a changed environment (None: not set) or other options of a compose service.

        Does not wait for its health. Undone after the test.
        """
        self._touched = True
        self._changed.add(role)
        service: dict[str, object] = {**options}
        if env:
            service["environment"] = dict(env)
        override = self.folder / "override.yml"
        named = (str(mount).partition(":")[0] for mount in options.get("volumes", ()))
        volumes = {name: {"external": True} for name in named if not name.startswith("/")}
        override.write_text(json.dumps({"services": {role: service}, "volumes": volumes}))  # JSON is YAML.
        self._compose("up", "-d", "--no-deps", "--force-recreate", role, files=[COMPOSE_FILE, override])

    def correct(self) -> None:
        """Take back in the project's files what :meth:`recreate` changed; the service stays as it is."""
        (self.folder / "override.yml").write_text(json.dumps({"services": {role: {} for role in ROLES}}))

    def misbehave(self, script: str, **options: object) -> None:
        """Make the backend anew with a script that is loaded before its own code, and wait until it is healthy."""
        encoded = base64.b64encode(script.encode()).decode()
        self.recreate("backend", {"NODE_OPTIONS": f"--import=data:text/javascript;base64,{encoded}"}, **options)
        self.wait_healthy(roles=["backend"])
        self.follow_addresses()

    def run_by_hand(self, role: str, *options: str) -> None:
        """Put a container of the same image in a service's place, as somebody makes it with docker run."""
        image = self.client.inspect_container(self.names[role])["Config"]["Image"]
        self.remove(role)
        self._changed.add(role)
        network = f"{PROJECT}_allodoc"
        command = ["docker", "run", "-d", "--name", self.names[role], "--network", network, *options, image]
        subprocess.run(command, capture_output=True, check=True)
        if role != "nginx":
            self.follow_addresses()

    def follow_up(self, role: str) -> Container:
        """Start a second container like a service's beside it, as a rolling deployment does, and wait for its health.

        Removed after the test.
        """
        self._touched = True
        like = self.client.inspect_container(self.names[role])
        health = like["Config"]["Healthcheck"]
        made = self.client.create_container(
            like["Config"]["Image"],
            name=f"{self.names[role]}_next",
            environment=like["Config"]["Env"],
            healthcheck={"test": health["Test"], "interval": health["Interval"], "timeout": health["Timeout"]},
            labels={OWNER: str(os.getpid())},
            host_config=self.client.create_host_config(
                network_mode=f"{PROJECT}_allodoc", binds=like["HostConfig"]["Binds"]
            ),
        )
        following = Container(self.engine, made["Id"], f"{self.names[role]}_next")
        self._others.append(following.name)
        following.start()
        following.wait_health(HealthStatus.HEALTHY, 30)
        return following

    def call(self, other: Container, role: str) -> None:
        """Give a container of the stack's network a service's names there, and start it."""
        self._touched = True
        self._known = []  # nginx may hear of it
        network = f"{PROJECT}_allodoc"
        self.client.disconnect_container_from_network(other.id, network)
        self.client.connect_container_to_network(other.id, network, aliases=[self.names[role], role])
        other.start()

    def allow_cores(self, role: str, cores: float) -> None:
        """Change how much processor time a running service may use. Undone after the test."""
        self._update(role, "--cpus", f"{cores:g}")

    def allow_tasks(self, role: str, count: int) -> None:
        """Change how many processes and threads a running service may have. Undone after the test."""
        self._update(role, "--pids-limit", str(count))

    def forget_to_restart(self, role: str) -> None:
        """Take a running service's restart policy away. Undone after the test."""
        self._update(role, "--restart", "no")

    def redis(self, *command: str) -> str:
        """Ask Redis something, with its own password."""
        self._touched = True
        done = self.exec("redis", "redis-cli", *command)
        assert done.exit_code == 0, done.stderr
        return done.stdout.decode()

    def small_volume(self, role: str, folder: str, size: str, make: ContainerFactory) -> Container:
        """Make a service anew on a small copy of its data: a file system of its own, held by the returned container."""
        self._touched = True
        self._changed.add(role)
        mounts = self.client.inspect_container(self.names[role])["Mounts"]
        mount = next(one for one in mounts if one["Destination"] == folder)
        name = f"bed-{os.getpid()}-{secrets.token_hex(3)}"
        options = {"type": "tmpfs", "device": "tmpfs", "o": f"size={size}"}
        self.client.create_volume(name, driver="local", driver_opts=options, labels={OWNER: str(os.getpid())})
        self._volumes.append(name)
        self.stop(role)
        holder = make(["sleep", "600"], volumes={mount["Name"]: "/from", name: "/to"})
        holder.runtime.execute("service", ["cp", "-a", "/from/.", "/to/"], 30)
        self.recreate(role, volumes=[f"{name}:{folder}"])
        return holder

    def put(self, role: str, path: str, text: str) -> None:
        """Write a file inside a service, whatever is there already. Undone after the test."""
        self._touched = True
        self._changed.add(role)
        self._files.setdefault((role, path), self.read(role, path))
        self._write(role, path, text)

    def write_over(self, role: str, path: str, text: str) -> None:
        """Overwrite a file that Docker itself keeps for a service's container. Undone after the test."""
        self._touched = True
        self._changed.add(role)
        kept = self.client.inspect_container(self.names[role])
        Path({"hosts": kept["HostsPath"], "resolv.conf": kept["ResolvConfPath"]}[Path(path).name]).write_text(text)

    def _write(self, role: str, path: str, text: str) -> None:
        target = PurePosixPath(path)
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            info = tarfile.TarInfo(target.name)
            info.size, info.mtime, info.mode = len(text.encode()), int(time.time()), 0o644
            archive.addfile(info, io.BytesIO(text.encode()))
        self.client.put_archive(self.names[role], str(target.parent), stream.getvalue())

    def log_at(self, role: str, when: datetime, line: str) -> None:
        """Add a line to a service's log as if it had been written then."""
        self._touched = True
        record = {"log": f"{line}\n", "stream": "stderr", "time": when.isoformat().replace("+00:00", "000Z")}
        path = Path(self.client.inspect_container(self.names[role])["LogPath"])
        path.write_text(json.dumps(record) + "\n" + path.read_text("utf-8"), "utf-8")

    def read(self, role: str, path: str) -> str:
        """A file inside a service."""
        return self.exec(role, "cat", path).stdout.decode()

    def follow_addresses(self) -> None:
        """Have nginx look the others' addresses up again, if one has got another since nginx began."""
        if self._addresses() != self._known:
            self.client.restart(self.names["nginx"], timeout=1)
            self.wait_healthy(roles=["nginx"])
            self._known = self._addresses()

    def disconnect(self, role: str) -> None:
        """Take a service off the stack's network. Undone after the test."""
        self._touched = True
        self._changed.add(role)
        self.engine.client.disconnect_container_from_network(self.names[role], f"{PROJECT}_allodoc", force=True)

    def exec(self, role: str, *command: str, user: str = "", deadline: float = 30) -> Execution:
        """Run a command inside a service through the runtime under test."""
        return self.runtime.execute(role, command, deadline, user=user)

    # Looking at it.

    @property
    def states(self) -> Mapping[str, ServiceState]:
        """All services as the runtime under test sees them now."""
        return self.runtime.states(10)

    def wait_until(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        """Wait until ``condition()`` is true; fails the test with ``what`` after ``timeout`` seconds."""
        wait_until(condition, timeout, what)

    def wait_healthy(self, timeout: float = 60, roles: Sequence[str] = ROLES) -> None:
        """Wait until all services, or some, run and are healthy by their own checks."""
        seen: dict[str, str] = {}

        def healthy() -> bool:
            states = self.states
            seen.update({role: f"{states[role].status} {states[role].health}" for role in roles})
            return all(_is_healthy(states[role]) for role in roles)

        end = time.monotonic() + timeout
        while not healthy():
            if time.monotonic() > end:
                pytest.fail(f"the stack is not healthy within {timeout:g} s: {seen}")
            time.sleep(0.1)

    def is_healthy(self) -> bool:
        """Whether all services run, and none is ill by its own check."""
        found = self.states.values()
        return all(state.running and (state.health is None or _is_healthy(state)) for state in found)

    @property
    def client(self) -> APIClient:
        """The SDK's client, for what has no method here."""
        return self.engine.client

    # The life of the stack; the fixtures call these.

    def up(self) -> None:
        """Build the images, start the stack, migrate and seed its database, and wait until it is healthy."""
        self._refuse_foreign()
        self.down()
        build.build(self.engine.client)
        self._check_out()
        self._write_environment()
        log = DeployLog(self.folder / "deploy.log", revision(self.folder))
        log.begin()
        self._compose("up", "-d", "postgres", "redis")
        self.wait_healthy(60, ("postgres", "redis"))
        # The backend does not start on an empty database.
        smoke = {"SMOKE_EMAIL": SMOKE_EMAIL, "SMOKE_PASSWORD": self.smoke_password}
        passed = [word for name in smoke for word in ("-e", name)]
        self._compose("run", "--rm", "-T", "--no-deps", *passed, "backend", "node", "src/setup.js", also=smoke)
        self._compose("up", "-d")
        self.wait_healthy(60)
        log.end()
        self._known = self._addresses()

    def restore(self) -> None:
        """Make whole what a test broke, and wait until it is healthy. Costs nothing when nothing was touched."""
        if not self._touched:
            return
        for role, state in self.runtime.states(10).items():
            if state.status is Status.PAUSED:
                self.client.unpause(self.names[role])
        while self._others:
            self.engine.remove(self._others.pop())
        # Compose sees by itself what differs from its file; what was taken off its network does not differ.
        for role in self._changed:
            self.engine.remove(self.names[role])
        # Compose gives what it was about to replace another name, and leaves it so when the new one does not start.
        for found in self.client.containers(all=True, filters={"label": f"com.docker.compose.project={PROJECT}"}):
            if not {name.lstrip("/") for name in found["Names"]} & set(self.names.values()):
                self.engine.remove(found["Id"])
        if self._changed:
            self._known = []  # nginx may know the address of one that is no more
        if self._changed or any(not state.running or state.restart_count for state in self.states.values()):
            self._compose("up", "-d")
        # What lies in a volume outlives its container.
        for (role, path), text in self._files.items():
            self._write(role, path, text)
        self._files.clear()
        # What is in a crash loop would wait out its back-off. The backend comes last: it needs the databases.
        states = self.states
        for role in ROLES:
            if states[role].restart_count or (role == "backend" and not _is_healthy(states[role])):
                self.client.restart(self.names[role], timeout=2)
        self.wait_healthy(90, [role for role in ROLES if role != "nginx"])
        self.follow_addresses()
        self.wait_healthy(90)
        self.forget_logs()
        for volume in self._volumes:
            with contextlib.suppress(NotFound):
                self.client.remove_volume(volume, force=True)
        self._volumes.clear()
        self._touched = False
        self._changed.clear()

    def forget_logs(self) -> None:
        """Empty the services' logs, so that the errors of one test are not found by the next."""
        for name in self.names.values():
            with contextlib.suppress(OSError):
                os.truncate(self.client.inspect_container(name)["LogPath"], 0)

    def _addresses(self) -> list[str]:
        """What nginx may remember: where the others are, and which nginx that is."""
        nginx = self.client.inspect_container(self.names["nginx"])["State"]["StartedAt"]
        return [nginx, *(address for role in ("backend", "frontend") for address in self.states[role].addresses)]

    def down(self) -> None:
        """Remove the stack with its volumes and its network."""
        if not (self.folder / ".env").exists():
            self._write_environment()
        self._compose("down", "--volumes", "--remove-orphans", "--timeout", "1")

    def _update(self, role: str, *options: str) -> None:
        self._touched = True
        self._changed.add(role)
        subprocess.run(["docker", "update", *options, self.names[role]], capture_output=True, check=True)

    def _act(self, action: str, role: str, **options: object) -> None:
        self._touched = True
        getattr(self.client, action)(self.names[role], **options)

    def _refuse_foreign(self) -> None:
        for found in self.client.containers(all=True):
            names = {name.lstrip("/") for name in found["Names"]} & set(self.names.values())
            if names and found["Labels"].get("com.docker.compose.project") != PROJECT:
                _unavailable(f"container {names.pop()} is here already and is not ours: the bed needs its name")

    def _check_out(self) -> None:
        """Make the project's folder what a deployment is made from: a working tree, with the Dockerfiles."""
        for role in ("backend", "frontend"):
            (self.folder / role).mkdir(exist_ok=True)
            shutil.copy(COMPOSE_FILE.parent / "images" / role / "Dockerfile", self.folder / role)
        (self.folder / ".gitignore").write_text(".env\n*.log\noverride.yml\n")
        commit(self.folder, "Release of the bed")

    def _write_environment(self) -> None:
        ports = {f"ALLODOC_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        settings = {**self.secrets, **ports, "ALLODOC_HEALTH_INTERVAL": "1s"}
        settings["ALLODOC_REVISION"] = revision(self.folder)
        path = self.folder / ".env"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        path.chmod(0o600)

    def _compose(
        self, *arguments: str, files: Sequence[Path] = (COMPOSE_FILE,), also: Mapping[str, str] | None = None
    ) -> None:
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        # Settings of the tester's own shell would go before those of the project's .env file.
        names = {*self.secrets, "CORS_ORIGIN", "DATABASE_POOL_SIZE", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME"}
        environment = {key: value for key, value in os.environ.items() if key not in names and "ALLODOC" not in key}
        environment |= also or {}
        command = [*program, *(word for path in files for word in ("-f", str(path)))]
        command += ["--project-directory", str(self.folder), "-p", PROJECT, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def _is_healthy(state: ServiceState) -> bool:
    return state.running and state.health is not None and state.health.status is HealthStatus.HEALTHY


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody holds now; all held at once while they are chosen, so that they differ."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            ports.append(int(listener.getsockname()[1]))
        return ports


def _unavailable(reason: str) -> None:
    """Skip on a laptop; fail where the engine is promised."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A reachable Docker Engine with the base image."""
    try:
        client = APIClient(timeout=60, **kwargs_from_env())
        client.ping()
    except DockerException as error:
        _unavailable(f"no Docker Engine: {error}")
    made = Engine(client)
    try:
        with FileLock(f"{LOCK}.build", timeout=300):
            made.prepare()
    except build.BuildFailed as failure:
        _unavailable(f"no images: {failure}")
    yield made
    client.close()


@pytest.fixture
def container(engine: Engine) -> Iterator[ContainerFactory]:
    """A factory of throw-away containers."""
    factory = ContainerFactory(engine)
    yield factory
    factory.clear()


@pytest.fixture(scope="session")
def whole_stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The guide's stack, up and healthy; one session on this machine has it at a time."""
    with FileLock(LOCK, timeout=600):
        made = Stack(engine, tmp_path_factory.mktemp("allodoc"))
        try:
            made.up()
        except build.BuildFailed as failure:
            _unavailable(f"no images: {failure}")
        except BaseException:
            made.down()
            raise
        yield made
        made.down()


@pytest.fixture
def stack(whole_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The guide's stack to break, with its smoke account in the environment: it is made whole after the test."""
    for name, value in whole_stack.smoke_account.items():
        monkeypatch.setenv(name, value)
    yield whole_stack
    whole_stack.restore()
