"""Finding AlloDoc among the containers of a host that nobody described.

A role is recognised by several signs (compose labels, name, image, command, ports, environment), never by one, and
containers of other applications are left alone. :func:`recognise` is a pure function over inspected containers;
:func:`discover_containers` fetches them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from allodoc_health.runtimes.interface import RuntimeUnavailable

Inspected = Mapping[str, Any]

ROLES = ("postgres", "redis", "backend", "frontend", "nginx")

# What counts as a role, and how much. No single sign reaches ENOUGH by itself.
ENOUGH = 4
_WEIGHTS = {"service": 3, "name": 2, "image": 3, "command": 2, "port": 2, "environment": 3, "link": 3}

_WORDS: Mapping[str, frozenset[str]] = {
    "postgres": frozenset({"postgres", "postgresql", "pg", "db", "database", "postgis"}),
    "redis": frozenset({"redis", "valkey", "cache"}),
    "backend": frozenset({"backend", "api", "server"}),
    "frontend": frozenset({"frontend", "web", "page", "ui", "spa"}),
    "nginx": frozenset({"nginx", "proxy", "edge", "gateway"}),
}
_IMAGES: Mapping[str, frozenset[str]] = {
    "postgres": frozenset({"postgres", "postgresql", "postgis", "timescaledb", "pgvector"}),
    "redis": frozenset({"redis", "valkey", "keydb"}),
    "backend": frozenset({"backend", "api"}),
    "frontend": frozenset({"frontend", "web"}),
    "nginx": frozenset({"nginx"}),
}
_PORTS: Mapping[int, str] = {5432: "postgres", 6379: "redis", 3000: "backend", 4200: "frontend", 443: "nginx"}
_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_COMMON_NETWORKS = frozenset({"bridge", "host", "none", "podman"})
# Containers that live beside a service and bear its name.
_HELPERS = frozenset(
    {
        "exporter",
        "commander",
        "admin",
        "pgadmin",
        "adminer",
        "insight",
        "backup",
        "bouncer",
        "pgbouncer",
        "migrate",
        "migration",
        "migrations",
        "migrator",
        "worker",
        "cron",
        "scheduler",
        "certbot",
        "test",
        "tests",
    }
)
_JWT = re.compile(r"JWT_(ACCESS_|REFRESH_)?SECRET")
LOOKED_FOR = (
    "those that several signs mark as AlloDoc's postgres, redis, backend, frontend or nginx: "
    "compose labels, names, images, commands, ports and environment (a backend has DATABASE_HOST and JWT_* secrets)"
)


class Containers(Protocol):
    """Where the containers are asked for; :class:`allodoc_health.runtimes.docker_engine.EngineApi` is one."""

    def containers(self, deadline: float) -> Sequence[Inspected]:
        """All containers, running or not, inspected."""


@dataclass(frozen=True, slots=True)
class DiscoveredContainer:
    """A container that plays a role, and the signs by which it was recognised (fit to print: they hold no secret).

    ``replicas`` are the names of further containers of the same compose service. ``environment`` holds secrets.
    """

    role: str
    name: str
    id: str
    status: str
    signs: tuple[str, ...]
    replicas: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Stack:
    """One AlloDoc on this host: what holds it together (compose project, network, way of naming), and its roles.

    ``named`` says that something calls it AlloDoc; otherwise it only looks like it, by its backend's settings.
    """

    title: str
    containers: Mapping[str, DiscoveredContainer]
    named: bool = True

    def __str__(self) -> str:
        return f"{self.title} ({', '.join(found.name for found in self.containers.values())})"


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was recognised; ``stack`` is None when nothing was. ``seen`` is how many containers there were."""

    stack: Stack | None
    seen: int

    @property
    def containers(self) -> Mapping[str, DiscoveredContainer]:
        """The containers by role, in the order of ROLES; empty when nothing was recognised."""
        return self.stack.containers if self.stack else {}

    @property
    def names(self) -> Mapping[str, str]:
        """The container names by role, as a DockerRuntime wants them."""
        return {role: found.name for role, found in self.containers.items()}

    @property
    def environments(self) -> Mapping[str, Mapping[str, str]]:
        """The environment of each role's container. Holds secrets."""
        return {role: found.environment for role, found in self.containers.items()}

    @property
    def looked_for(self) -> str:
        """The sentence that says what was looked for, and among how many containers."""
        return f"looked among {self.seen} containers, running or not, for {LOOKED_FOR}"

    def lines(self) -> list[str]:
        """For the header: each role, its container, and the signs that it was recognised by."""
        return [
            f"{role}: {found.name}{f' and {len(found.replicas)} more' if found.replicas else ''}"
            f"{'' if found.status == 'running' else f', {found.status}'} (by {', '.join(found.signs)})"
            for role, found in self.containers.items()
        ]


class AmbiguousDiscovery(Exception):
    """There are several AlloDocs on this host, and nothing says which one is meant; ``candidates`` are all of them."""

    def __init__(self, candidates: Sequence[Stack]) -> None:
        self.candidates = tuple(candidates)
        listed = "; ".join(str(stack) for stack in self.candidates)
        many = len(self.candidates)
        super().__init__(f"{many} AlloDoc stacks are on this host, choose one with a target file: {listed}")


def discover_containers(api: Containers, deadline: float) -> Discovery:
    """Ask for all containers and recognise AlloDoc among them.

    Raises :class:`AmbiguousDiscovery`, and RuntimeUnavailable when there is no answer within ``deadline`` seconds.
    """
    containers = api.containers(deadline)
    try:
        return recognise(containers)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise RuntimeUnavailable("the Docker daemon describes its containers as no Docker Engine does") from error


def recognise(containers: Sequence[Inspected]) -> Discovery:
    """AlloDoc among inspected containers. Pure. Raises :class:`AmbiguousDiscovery` when there are several."""
    candidates = [_Candidate(container) for container in containers]
    likely = [candidate for candidate in candidates if candidate.scores and not candidate.helper]
    stacks = [stack for title, group in _groups(likely) if (stack := _stack(title, group, likely)) is not None]
    # Others have a DATABASE_HOST and a JWT secret too: what is called AlloDoc goes before what looks like it.
    stacks = [stack for stack in stacks if stack.named] or stacks
    if any("backend" in stack.containers for stack in stacks):
        # What has no backend may be a leftover, or production whose backend is gone: then more of it is there.
        stacks = [stack for stack in stacks if "backend" in stack.containers or len(stack.containers) >= 3]
    stacks = [stack for stack in stacks if not any(_is_companion(stack, other) for other in stacks)]
    if len(stacks) > 1:
        raise AmbiguousDiscovery(stacks)
    return Discovery(stacks[0] if stacks else None, len(containers))


class _Candidate:
    """One container with what it could be."""

    def __init__(self, container: Inspected) -> None:
        config = container.get("Config") or {}
        self.id = str(container.get("Id") or "")
        self.name = str(container.get("Name") or "").lstrip("/")
        self.status = str((container.get("State") or {}).get("Status") or "")
        self.labels: Mapping[str, str] = config.get("Labels") or {}
        self.project = self.labels.get(_PROJECT, "")
        self.service = self.labels.get(_SERVICE, "")
        self.image = str(config.get("Image") or "")
        self.environment = dict(str(entry).split("=", 1) for entry in config.get("Env") or [] if "=" in str(entry))
        attached = (container.get("NetworkSettings") or {}).get("Networks") or {}
        self.networks = frozenset(attached) - _COMMON_NETWORKS
        self.addresses = {self.name, self.service, str(config.get("Hostname") or ""), self.id[:12]} - {""}
        for network in attached.values():
            self.addresses |= {*(network.get("Aliases") or ()), network.get("IPAddress") or ""} - {""}
        words = {*_split(self.service or self.name), *_split(self._image_name())}
        oneoff = self.labels.get("com.docker.compose.oneoff", "").lower() == "true"
        self.helper = oneoff or bool(words & _HELPERS)
        self.command = [
            str(word)
            for part in (config.get("Entrypoint"), config.get("Cmd"))
            for word in ([part] if isinstance(part, str) else part or [])
        ]
        self.ports = self._ports(container)
        self.signs: dict[str, list[tuple[int, str]]] = {}
        for role, kind, sign in self._read():
            found = self.signs.setdefault(role, [])
            found.append((_WEIGHTS[kind], sign))

    @property
    def scores(self) -> Mapping[str, int]:
        """The roles that at least two signs speak for, and how strongly."""
        totals = {role: sum(weight for weight, _ in found) for role, found in self.signs.items() if len(found) >= 2}
        return {role: total for role, total in totals.items() if total >= ENOUGH}

    @property
    def stem(self) -> str:
        """The name without the word for its role: what the containers of one stack have in common."""
        words = [word for word in _split(self.name) if not word.isdigit()]
        return "_".join(word for word in words if not any(word in known for known in _WORDS.values()))

    @property
    def named(self) -> bool:
        """Whether something calls it AlloDoc."""
        database = self.environment.get("POSTGRES_DB", "") + " " + self.environment.get("DATABASE_NAME", "")
        named = " ".join((self.name, self.project, self.image, database))
        return "allodoc" in named.lower()

    @property
    def database(self) -> tuple[str, str]:
        """Which database it is told to use."""
        return self.environment.get("DATABASE_HOST", ""), self.environment.get("DATABASE_NAME", "")

    def _image_name(self) -> str:
        return re.split(r"[:@]", self.image.rpartition("/")[2])[0]

    def _read(self) -> Iterator[tuple[str, str, str]]:
        for role in ROLES:
            if self.service and _WORDS[role] & set(_split(self.service)):
                yield role, "service", f"compose service {self.service}"
            # Compose makes names of the service's: the same sign must not count twice.
            derived = bool(self.service) and "".join(_split(self.service)) in "".join(_split(self.name))
            if not derived and _WORDS[role] & set(_split(self.name)):
                yield role, "name", f"name {self.name}"
            if _IMAGES[role] & set(_split(self._image_name())):
                # Many a frontend is nginx's image: there it only tells how, not what for.
                yield role, "command" if role == "nginx" else "image", f"image {self.image[:60]}"
        program = self._program()
        if program:
            yield program[0], "command", f"command {program[1]}"
        yield from self._by_port()
        if "DATABASE_HOST" in self.environment:
            yield "backend", "environment", "environment DATABASE_HOST"
        if any(_JWT.fullmatch(key) for key in self.environment):
            yield "backend", "environment", "environment JWT_*"
        if {"POSTGRES_DB", "POSTGRES_USER"} & self.environment.keys():
            yield "postgres", "environment", "environment POSTGRES_*"

    def _by_port(self) -> Iterator[tuple[str, str, str]]:
        for port in sorted(self.ports):
            if port in _PORTS:
                yield _PORTS[port], "port", f"port {port}"
        if 80 in self.ports:
            # A web server on plain HTTP only shows files to the proxy; one with TLS as well is the proxy.
            yield ("nginx" if 443 in self.ports else "frontend"), "port", "port 80"

    def _program(self) -> tuple[str, str] | None:
        line = " ".join(self.command[:6])
        for pattern, role in (
            (r"(^|[ /])postgres( |$)", "postgres"),
            (r"(^|[ /])(redis|valkey|keydb)-server", "redis"),
            (r"(^|[ /])node( .*)?(dist/|main|server|index)|(^|[ /])nest( |$)|npm (run )?start", "backend"),
            (r"(^|[ /])(http-server|serve)( |$)|(^|[ /])ng serve", "frontend"),
            (r"(^|[ /])nginx( |$)", "nginx"),
        ):
            found = re.search(pattern, line)
            if found:
                return role, found[0].strip(" /").split(" ")[0]
        return None

    @staticmethod
    def _ports(container: Inspected) -> frozenset[int]:
        exposed: Iterable[str] = [
            *((container.get("Config") or {}).get("ExposedPorts") or {}),
            *((container.get("HostConfig") or {}).get("PortBindings") or {}),
            *((container.get("NetworkSettings") or {}).get("Ports") or {}),
        ]
        return frozenset(int(port.split("/")[0]) for port in exposed if port.split("/")[0].isdigit())


def _split(name: str) -> list[str]:
    """The words of a name: allodoc_api_prod, redis-prod, web1."""
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def _is_companion(stack: Stack, other: Stack) -> bool:
    """Whether a stack is but a second backend on another one's databases, as a rolling deployment starts one."""
    own = {role: found.id for role, found in stack.containers.items() if role != "backend"}
    theirs = {role: found.id for role, found in other.containers.items()}
    return bool(own) and len(stack.containers) < len(other.containers) and own.items() <= theirs.items()


def _groups(candidates: Sequence[_Candidate]) -> list[tuple[str, list[_Candidate]]]:
    """What belongs together: by compose project, else by networks; then parted by names where two stacks meet."""
    groups: list[tuple[str, list[_Candidate]]] = []
    projects: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        if candidate.project:
            projects.setdefault(candidate.project, []).append(candidate)
    groups += [(f"compose project {project}", members) for project, members in projects.items()]
    groups += _by_network([candidate for candidate in candidates if not candidate.project])
    parted: list[tuple[str, list[_Candidate]]] = []
    for title, members in groups:
        # Several backends of one database are one stack (a worker, a second version); of several, they are several.
        if len({member.database for member in members if _best(member) == "backend"}) < 2:
            parted.append((title, members))
            continue
        by_stem: dict[str, list[_Candidate]] = {}
        for member in members:
            by_stem.setdefault(member.stem, []).append(member)
        parted += [(f"{title}, names like {stem}", some) for stem, some in by_stem.items()]
    return parted


def _by_network(candidates: Sequence[_Candidate]) -> list[tuple[str, list[_Candidate]]]:
    """Containers joined by networks, even through a third one; those without any are one group."""
    alone = [candidate for candidate in candidates if not candidate.networks]
    groups: list[tuple[set[str], list[_Candidate]]] = []
    for candidate in candidates:
        if not candidate.networks:
            continue
        joined: tuple[set[str], list[_Candidate]] = (set(candidate.networks), [candidate])
        apart = []
        for group in groups:
            if group[0] & joined[0]:
                joined[0].update(group[0])
                joined[1].extend(group[1])
            else:
                apart.append(group)
        groups = [*apart, joined]
    found = [(f"network {' + '.join(sorted(networks))}", members) for networks, members in groups]
    return [*found, ("containers without a network of their own", alone)] if alone else found


def _best(candidate: _Candidate) -> str:
    scores = candidate.scores
    return max(scores, key=lambda role: scores[role]) if scores else ""


def _stack(title: str, group: Sequence[_Candidate], everything: Sequence[_Candidate]) -> Stack | None:
    """The roles of one group; None when the group is not AlloDoc."""
    backend = _first("backend", group)
    members = list(group)
    if backend is not None:
        # What the backend is told to talk to is its own, whatever it is called and whoever made it.
        for role, key in (("postgres", "DATABASE_HOST"), ("redis", "REDIS_HOST")):
            wanted = backend.environment.get(key, "")
            for other in everything:
                reachable = bool(other.networks & backend.networks) or other in members
                if wanted and wanted in other.addresses and reachable and role in other.signs:
                    sign = (_WEIGHTS["link"], f"the backend's {key}")
                    if sign not in other.signs[role]:
                        other.signs[role].append(sign)
                    if other not in members:
                        members.append(other)
    # What somebody started by hand in place of a service has no project; its name and its network say whose it is.
    for role in ROLES:
        if _first(role, members) is None:
            networks, stems = {n for member in members for n in member.networks}, {member.stem for member in members}
            members += [
                other
                for other in everything
                if not other.project and _best(other) == role and other.networks & networks and other.stem in stems
            ]
    containers: dict[str, DiscoveredContainer] = {}
    taken: set[str] = set()
    for role in sorted(ROLES, key=lambda role: -max((member.scores.get(role, 0) for member in members), default=0)):
        found = _first(role, [member for member in members if member.id not in taken])
        if found is None:
            continue
        twins = [
            other
            for other in members
            if other is not found and found.service and (other.project, other.service) == (found.project, found.service)
        ]
        taken |= {found.id, *(twin.id for twin in twins)}
        containers[role] = DiscoveredContainer(
            role=role,
            name=found.name,
            id=found.id,
            status=found.status,
            signs=tuple(sign for _, sign in found.signs[role]),
            replicas=tuple(sorted(twin.name for twin in twins)),
            environment=found.environment,
        )
    chosen = [member for member in members if member.id in taken]
    # A database and a cache that nothing calls AlloDoc may be anybody's.
    named = any(member.named for member in chosen)
    shaped = backend is not None and len(backend.signs["backend"]) >= 3
    if not (named and (backend is not None or len(containers) >= 2)) and not (shaped and len(containers) >= 2):
        return None
    return Stack(title, {role: containers[role] for role in ROLES if role in containers}, named)


def _first(role: str, members: Sequence[_Candidate]) -> _Candidate | None:
    """Who plays a role best, and no other role better; by name where several do, so that the answer is stable."""
    fitting = [
        member for member in members if role in member.scores and member.scores[role] >= max(member.scores.values())
    ]
    return min(fitting, key=lambda member: (-member.scores[role], member.name), default=None)
