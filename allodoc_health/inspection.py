"""One target under inspection in this run: its runtime, its secrets, its observer; opened, observed, closed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from allodoc_health.finding import Failed
from allodoc_health.probe import Observations, Observer
from allodoc_health.redaction import Redactor
from allodoc_health.runtimes.interface import DeadlineExceeded, OperatorWords, Runtime, RuntimeUnavailable, ServiceState
from allodoc_health.target import (
    REQUIRED_ENVIRONMENT,
    REQUIRED_ROLES,
    ROLES,
    Credential,
    NginxSettings,
    Services,
    Target,
    TargetError,
    TargetSettings,
    Waiver,
    load_settings,
    target_file,
)

ANSWER_DEADLINE = 2.0
"""Seconds that the runtime has to answer at start-up, and the figure that the guard of the runtime then names."""

EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  # as Docker writes it; nothing is bound here
"""The addresses of a published port that mean all of the host's."""

UP_DEADLINE = 60.0
"""Seconds that a target's own ``up`` command may take."""


class Secrets:
    """The secrets of a target: read when they are needed, from where the target says that they are."""

    def __init__(self, target: Target, environments: Mapping[str, Mapping[str, str]], own: Mapping[str, str]) -> None:
        self._target = target
        self._environments = environments
        self._own = own

    def environment(self, role: str) -> Mapping[str, str]:
        """The environment that a service was given; empty when the runtime could not tell."""
        return self._environments.get(role, {})

    def password(self, role: str) -> str | None:
        """The password for a service, or ``None`` if the target knows of none.

        Raises Failed when the target names a variable that is not set.
        """
        credential = self._target.credentials.get(role)
        if credential is None:
            return None
        source = self._own if credential.role is None else self._environments.get(credential.role, {})
        value = source.get(credential.variable)
        if value is None and credential.role is None:
            raise Failed(f"the password for {role} is expected in ${credential.variable}, which is not set")
        return value


class Inspection:
    """A target with all that lives as long as the run does.

    ``words`` are how its operator types an action, as far as is known when they are asked for. ``replayed`` is the
    snapshot whose evidence this is, if it isn't the target's own, and ``outage_since`` what was known then of the
    beginning of an outage.
    """

    def __init__(
        self,
        target: Target,
        redactor: Redactor,
        observer: Observations,
        words: Callable[[], OperatorWords],
        close: Callable[[], None] = lambda: None,
        replayed: str = "",
        outage_since: datetime | None = None,
    ) -> None:
        self.target = target
        self.redactor = redactor
        self.observer = observer
        self.words = words
        self.replayed = replayed
        self.outage_since = outage_since
        self._close = close

    @classmethod
    def live(
        cls,
        target: Target,
        runtime: Runtime,
        secrets: Secrets,
        redactor: Redactor,
        budget: float,
    ) -> Inspection:
        """The inspection of a target through what runs it, within a budget in seconds."""
        observer = Observer(
            {"target": target, "runtime": runtime, "now": target.started, "redactor": redactor, "secrets": secrets},
            budget=budget,
            seal=redactor.evidence,
        )
        return cls(target, redactor, observer, lambda: runtime.words, runtime.close)

    @classmethod
    def of_recording(
        cls, path: Path, today: TargetSettings | None, redactor: Redactor, taken: Container[str] = ()
    ) -> Inspection:
        """The inspection of what a snapshot holds, under the target's name unless that is taken: then with a number.

        With ``today``, the limits and waivers of these settings take the place of the recorded ones. Raises
        SnapshotError.
        """
        from allodoc_health.replay import Recording, Replay

        recording = Recording.read(path)
        own = recording.target.name
        name = own if own not in taken else next(new for n in count(2) if (new := f"{own}-{n}") not in taken)
        changes: dict[str, object] = {"origin": f"replayed from {path}", "name": name}
        if today is not None:
            changes |= {"limits": today.limits, "waivers": today.waivers}
        target = recording.target.model_copy(update=changes)
        return cls(
            target,
            redactor,
            Replay(recording),
            lambda: recording.words,
            replayed=str(path),
            outage_since=recording.outage_since,
        )

    def waiver(self, symptom: str, parameter: str | None) -> Waiver | None:
        """The waiver that covers a finding, expired or not; one that is in force first."""
        covering = [waiver for waiver in self.target.waivers if waiver.covers(symptom, parameter)]
        return max(covering, key=lambda waiver: waiver.expires, default=None)

    def close(self) -> None:
        """Close what probes opened, then the runtime."""
        self.observer.close()
        self._close()


def open_inspection(
    name: str | None,
    folder: Path,
    budget: float,
    root: Path,
    started: datetime | None = None,
    *,
    bring_up: bool = True,
    deploy_window: float = 0.0,
    redactor: Redactor | None = None,
) -> Inspection:
    """Make a target ready for inspection: by its file, or by discovery where ``name`` is ``None``.

    ``started`` is the moment of the run, if it is not this one; ``bring_up`` whether its own ``up`` command is run
    first, if it has one; ``deploy_window`` as in :class:`Target`; ``redactor`` decides on what may be shown. Raises
    TargetError if the file is wrong, or nothing was found.
    """
    if name is None:
        settings, origin, shown = TargetSettings(), "discovered", ""
    else:
        path = target_file(name, folder)
        settings, origin, shown = load_settings(path), str(path), name
        if bring_up:
            _bring_up(settings, root)
    run = {"started": started or datetime.now(UTC), "deploy_window": deploy_window}
    return _open(settings, shown, origin, budget, root, run, redactor or Redactor())


def _open(
    settings: TargetSettings,
    name: str,
    origin: str,
    budget: float,
    root: Path,
    run: Mapping[str, object],
    redactor: Redactor,
) -> Inspection:
    runtime: Runtime
    found: dict[str, str] = {}
    undiscovered = ""
    if settings.runtime.kind == "supervisor":
        from allodoc_health.runtimes.process_supervisor import SupervisorRuntime

        runtime = SupervisorRuntime(_state_folder(settings, root))
        settings = _with_own_authority(settings, _state_folder(settings, root) / "nginx" / "tls" / "ca.pem")
        settings = _with_own_account(settings, _state_folder(settings, root) / "smoke.json")
    else:
        from allodoc_health.discovery import AmbiguousDiscovery, discover_containers
        from allodoc_health.runtimes.docker_engine import DockerRuntime, EngineApi

        containers = {
            role: service.container
            for role in ROLES
            if (service := settings.services.get(role)) is not None and service.container
        }
        api = EngineApi(settings.runtime.host or "")
        try:
            discovery = discover_containers(api, ANSWER_DEADLINE)
        except RuntimeUnavailable as error:
            undiscovered = str(error)
        except AmbiguousDiscovery as error:
            if not containers:
                raise TargetError(str(error)) from error
        else:
            if discovery.stack is None and origin == "discovered":
                raise TargetError(f"no AlloDoc found: {discovery.looked_for}; to try the suite, use --target demo")
            found = {
                role: ", ".join(container.signs)
                for role, container in discovery.containers.items()
                if role not in containers and role not in settings.absent
            }
            containers = {role: discovery.names[role] for role in found} | containers
            containers = _expected(containers, settings.absent) | containers
        runtime = DockerRuntime(containers, api=api)
    states: Mapping[str, ServiceState] = {}
    environments: dict[str, Mapping[str, str]] = {}
    if not undiscovered:
        try:
            states = runtime.states(ANSWER_DEADLINE)
            environments = _environments(runtime, states)
        except (RuntimeUnavailable, DeadlineExceeded) as error:
            undiscovered = str(error)
    target = complete(settings, name or "discovered", origin, states, environments).model_copy(
        update={"found": found, "undiscovered": undiscovered, **run}
    )
    for environment in environments.values():
        redactor.learn_environment(environment)
    own = dict(os.environ)
    redactor.learn(*(own[c.variable] for c in target.credentials.values() if c.role is None and c.variable in own))
    for state in states.values():
        for word, following in zip(state.command, state.command[1:], strict=False):
            if word == "--requirepass":
                redactor.learn(following)
                environments["redis"] = {**environments.get("redis", {}), "--requirepass": following}
    return Inspection.live(target, runtime, Secrets(target, environments, own), redactor, budget)


def _expected(containers: Mapping[str, str], absent: Sequence[str]) -> dict[str, str]:
    """The containers that ought to be there beside those that are, called as their siblings are."""
    if not containers:
        return {}
    role, sibling = next(iter(containers.items()))
    missing = [other for other in REQUIRED_ROLES if other not in containers and other not in absent]
    return {other: sibling.replace(role, other) if role in sibling else other for other in missing}


def _environments(runtime: Runtime, states: Mapping[str, ServiceState]) -> dict[str, Mapping[str, str]]:
    present = [role for role, state in states.items() if state.status != "missing"]
    with ThreadPoolExecutor(max(1, len(present))) as pool:
        answers = pool.map(lambda role: runtime.environment(role, ANSWER_DEADLINE), present)
        return dict(zip(present, answers, strict=True))


def _bring_up(settings: TargetSettings, root: Path) -> None:
    """Run the target's ``up`` command. It gets this process' id, and is to go down when this process ends."""
    if not settings.runtime.up:
        return
    names = {"{python}": sys.executable, "{pid}": str(os.getpid())}
    command = [names.get(word, word) for word in settings.runtime.up]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=UP_DEADLINE, check=False)
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"{' '.join(command)}: not up after {UP_DEADLINE:.0f} s") from error
    # A target that does not come up whole is what the suite is for; one that can't be started at all is not.
    if done.returncode != 0 and not (_state_folder(settings, root) / "state.json").exists():
        raise TargetError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


def _with_own_authority(settings: TargetSettings, ca_file: Path) -> TargetSettings:
    """The settings with the authority that the demo made for itself, unless they name another."""
    nginx = settings.services.nginx or NginxSettings()
    if nginx.ca_file or not ca_file.exists():
        return settings
    services = settings.services.model_copy(update={"nginx": nginx.model_copy(update={"ca_file": str(ca_file)})})
    return settings.model_copy(update={"services": services})


def _with_own_account(settings: TargetSettings, file: Path) -> TargetSettings:
    """The settings with the smoke account that the demo made for itself, unless they name another."""
    account = settings.account
    if account.file or account.email_env in os.environ or not file.exists():
        return settings
    return settings.model_copy(update={"account": account.model_copy(update={"file": str(file)})})


def _state_folder(settings: TargetSettings, root: Path) -> Path:
    return root / os.path.expandvars(settings.runtime.state or ".demo")


def complete(
    settings: TargetSettings,
    name: str,
    origin: str,
    states: Mapping[str, ServiceState],
    environments: Mapping[str, Mapping[str, str]],
) -> Target:
    """Fill in what a target file leaves open from what the runtime knows: pure, so that it can be tested offline."""
    postgres_env = environments.get("postgres", {})
    redis_env = environments.get("redis", {})
    backend_env = environments.get("backend", {})
    wanted = dict(settings.services)
    services: dict[str, dict[str, object]] = {}
    for role in ROLES:
        given = wanted[role].model_dump(exclude_none=True, exclude_defaults=True) if wanted[role] else None
        state = states.get(role)
        if given is None and state is None:
            continue
        services[role] = dict(given or {})
        if state is not None:
            services[role].setdefault("container", state.name)
        services[role].setdefault("required_env", REQUIRED_ENVIRONMENT.get(role, ()))

    def reach(role: str, port: int) -> tuple[str | None, int | None]:
        state = states.get(role)
        if state is None:
            return None, None
        for published in state.ports:
            if published.port == port and published.host_port:
                host = published.host_ip if published.host_ip not in EVERYWHERE else "127.0.0.1"
                return host, published.host_port
        return (state.addresses[0], port) if state.addresses else (None, None)

    def fill(role: str, **values: object) -> None:
        if role in services:
            for key, value in values.items():
                if value is not None:
                    services[role].setdefault(key, value)

    credentials: dict[str, Credential] = {}
    if "postgres" in services:
        host, port = reach("postgres", 5432)
        fill(
            "postgres",
            host=host or (backend_env.get("DATABASE_HOST") if not states.get("postgres") else None),
            port=port,
            # The application's own settings first: what matters is whether *it* can log in.
            database=backend_env.get("DATABASE_NAME") or postgres_env.get("POSTGRES_DB"),
            user=backend_env.get("DATABASE_USERNAME") or postgres_env.get("POSTGRES_USER"),
        )
        if (named := services["postgres"].get("password_env")) is not None:
            credentials["postgres"] = Credential(variable=str(named))
        elif "DATABASE_PASSWORD" in backend_env:
            credentials["postgres"] = Credential(role="backend", variable="DATABASE_PASSWORD")
        elif "POSTGRES_PASSWORD" in postgres_env:
            credentials["postgres"] = Credential(role="postgres", variable="POSTGRES_PASSWORD")
    if "redis" in services:
        host, port = reach("redis", 6379)
        fill("redis", host=host, port=port, user=redis_env.get("REDIS_USERNAME") or backend_env.get("REDIS_USERNAME"))
        state = states.get("redis")
        if (named := services["redis"].get("password_env")) is not None:
            credentials["redis"] = Credential(variable=str(named))
        elif backend_env.get("REDIS_PASSWORD"):
            credentials["redis"] = Credential(role="backend", variable="REDIS_PASSWORD")
        elif redis_env.get("REDIS_PASSWORD"):
            credentials["redis"] = Credential(role="redis", variable="REDIS_PASSWORD")
        elif state is not None and "--requirepass" in state.command:
            credentials["redis"] = Credential(role="redis", variable="--requirepass")
    if "backend" in services:
        inner = int(backend_env["PORT"]) if backend_env.get("PORT", "").isdigit() else 3000
        state = states.get("backend")
        published = [each.port for each in (state.ports if state else ()) if each.host_port]
        # What it is told to listen on, unless only the usual port leads into it.
        host, port = reach("backend", 3000 if 3000 in published and inner not in published else inner)
        fill("backend", host=host, port=port, url=f"http://{host}:{port}" if port else None)
    if "frontend" in services:
        # Which port it listens on is its image's choice; one that is published is surely one of its own.
        published = [one.port for one in (states["frontend"].ports if "frontend" in states else ()) if one.host_port]
        usual = [inner for inner in (80, 4200, 8080, 3000) if inner in published]
        host, port = reach("frontend", (*usual, *published, 80)[0])
        fill("frontend", host=host, port=port, url=f"http://{host}:{port}" if port else None)
    if "nginx" in services:
        host, port = reach("nginx", 443)
        plain_host, plain_port = reach("nginx", 80)
        fill("nginx", host=host or plain_host, port=port, http_port=plain_port, address=host or plain_host)
        scheme, shown = ("https", port) if port else ("http", plain_port)
        default = 443 if scheme == "https" else 80
        public = host or plain_host
        fill("nginx", url=(f"{scheme}://{public}" + ("" if shown == default else f":{shown}")) if shown else None)
    origins = settings.origins or tuple(
        part.strip().rstrip("/")
        for part in backend_env.get("CORS_ORIGIN", "").split(",")
        if part.strip() not in ("", "*")
    )
    return Target(
        name=name,
        origin=origin,
        credentials=credentials,
        **settings.model_dump(exclude={"services", "origins"}),
        services=Services.model_validate(services),
        origins=origins,
        started=datetime.now(UTC),
    )
