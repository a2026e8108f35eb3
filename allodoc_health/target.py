"""A target: one deployment of AlloDoc under inspection, from its file, from discovery, or from both.

A target holds no secret. A credential names the environment variable that holds it, either of this process or of one
of the target's own services.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from allodoc_health.limits import Limits

ROLES = ("postgres", "redis", "backend", "frontend", "nginx")
"""The roles that a service can have. In newer deployments there is no frontend of its own: nginx serves the page."""

REQUIRED_ROLES = ("postgres", "redis", "backend", "nginx")
"""What every AlloDoc consists of: one that is not there has been removed, unless the target says ``absent``."""

REQUIRED_ENVIRONMENT: dict[str, tuple[str, ...]] = {
    "backend": (
        "DATABASE_HOST",
        "DATABASE_PORT",
        "DATABASE_NAME",
        "DATABASE_USERNAME",
        "DATABASE_PASSWORD",
        "REDIS_HOST",
        "REDIS_PORT",
        "JWT_ACCESS_SECRET",
        "JWT_REFRESH_SECRET",
    ),
    "postgres": ("POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"),
}
"""What a service can't do without, by role: the guide's DATABASE_, JWT_ and REDIS_ and the database image's own."""


class TargetError(Exception):
    """A target that can't be used as it is written. The text names file, line and the nearest valid name."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Credential(_Settings):
    """Where a secret is: an environment variable of this process, or of one of the target's services."""

    variable: str
    role: str | None = None


class RuntimeSettings(_Settings):
    """What runs the services, and how it is reached.

    ``kind`` is ``docker`` (a Docker or Podman engine; ``host`` as in DOCKER_HOST) or ``supervisor`` (the embedded demo;
    ``state`` is its folder). ``up`` and ``down`` are commands that start and stop the target around a run.
    """

    kind: Literal["docker", "supervisor"] = "docker"
    host: str | None = None
    project: str | None = None
    state: str | None = None
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()


class ServiceSettings(_Settings):
    """What can be said of any service: its container and, when it isn't published, where it answers."""

    container: str | None = None
    host: str | None = None
    port: Annotated[int, Field(gt=0, lt=65536)] | None = None
    required_env: tuple[str, ...] = ()
    env_file: str | None = None


class PostgresSettings(ServiceSettings):
    """PostgreSQL: the database and role that the application uses."""

    database: str | None = None
    user: str | None = None
    password_env: str | None = None
    backups: str | None = None


class RedisSettings(ServiceSettings):
    """Redis: an ACL user if there is one, and its password."""

    user: str | None = None
    password_env: str | None = None


class BackendSettings(ServiceSettings):
    """The API: its address from here (``http://127.0.0.1:3000``) and the paths that it answers on."""

    url: str | None = None
    health_path: str | None = None


class FrontendSettings(ServiceSettings):
    """The page, where a service of its own serves it."""

    url: str | None = None


class NginxSettings(ServiceSettings):
    """The edge: the address that users type, and where it answers from here when that name does not lead to it.

    ``ca_file`` holds, on this machine, the certificate of an authority of one's own that is to be trusted as well.
    """

    url: str | None = None
    http_port: Annotated[int, Field(gt=0, lt=65536)] | None = None
    address: str | None = None
    ca_file: str | None = None


class Services(_Settings):
    """The services of a target by role; ``None`` for one that it does not have."""

    postgres: PostgresSettings | None = None
    redis: RedisSettings | None = None
    backend: BackendSettings | None = None
    frontend: FrontendSettings | None = None
    nginx: NginxSettings | None = None

    def get(self, role: str) -> ServiceSettings | None:
        """The settings of a role."""
        settings: ServiceSettings | None = getattr(self, role)
        return settings


class HostSettings(_Settings):
    """The machine that the services run on: whether it is this one, folders whose file systems matter, crash folder."""

    local: bool = True
    disks: tuple[str, ...] = ()
    crash_folder: str = "/var/crash"


class DeploymentSettings(_Settings):
    """How this deployment was made, where compose's labels don't tell. Paths begin at the project's folder.

    ``log`` is what the deploy script writes, ``checkout`` the working tree, ``revision`` the commit that should run.
    ``env_file`` is the backend's production environment, ``env_example`` what it is compared with.
    """

    log: str | None = None
    checkout: str | None = None
    revision: str | None = None
    compose_files: tuple[str, ...] = ()
    compose_env: str | None = None
    env_file: str | None = None
    env_example: str | None = None
    dockerfiles: dict[Literal["backend", "frontend"], str] = {}


class AccountSettings(_Settings):
    """The smoke account that checks log in with: variables of this process, or a JSON file with email and password."""

    email_env: str = "ALLODOC_SMOKE_EMAIL"
    password_env: str = "ALLODOC_SMOKE_PASSWORD"
    file: str | None = None


Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""A text that says something."""


def _moment(value: object) -> object:
    """Refuse whatever is no moment for everybody: a number, a date, or a time whose zone one has to guess."""
    given = value
    if isinstance(value, str):
        with suppress(ValueError):
            given = datetime.fromisoformat(value)
    if not isinstance(given, datetime) or given.tzinfo is None:
        raise ValueError("needs a date, a time and a zone, as in 2027-01-31T00:00:00Z")
    return given


class Waiver(_Settings):
    """A finding that somebody has accepted for a time. It is still measured and shown."""

    symptom: str
    parameter: str | None = None
    reason: Words
    owner: Words
    expires: Annotated[AwareDatetime, BeforeValidator(_moment)]

    def covers(self, symptom: str, parameter: str | None) -> bool:
        """Whether this waiver is about a finding; one without a parameter is about all of a symptom's."""
        return self.symptom == symptom and self.parameter in (None, parameter)


def _origin(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+", value):
        raise ValueError(
            f"an origin is scheme, host and port without a path, as in https://app.example.org, not {value!r}"
        )
    return value


class TargetSettings(_Settings):
    """The content of ``targets/<name>.toml``. Every key is optional: what is not said is discovered.

    ``absent`` names the roles that this deployment does without; ``origins`` the addresses that pages are served from.
    """

    runtime: RuntimeSettings = RuntimeSettings()
    services: Services = Services()
    host: HostSettings = HostSettings()
    account: AccountSettings = AccountSettings()
    deployment: DeploymentSettings = DeploymentSettings()
    absent: tuple[Literal["postgres", "redis", "backend", "frontend", "nginx"], ...] = ()
    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    limits: Limits = Limits()
    waivers: tuple[Waiver, ...] = ()


class Target(TargetSettings):
    """A target with everything that could be found out about it.

    ``found`` says how each service was recognised; ``undiscovered`` why discovery could not look, if it couldn't.
    ``deploy_window`` is for how many seconds requests are sent while something is deployed.
    """

    name: str
    origin: str
    found: dict[str, str] = {}
    undiscovered: str = ""
    credentials: dict[str, Credential] = {}
    deploy_window: float = 0.0
    started: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the services that this target has."""
        return tuple(role for role in ROLES if self.services.get(role) is not None)


def nearest(name: str, valid: Iterable[str]) -> str:
    """The sentence that helps after a wrong name: the nearest valid one, or all of them.

    >>> nearest("postgre", ["postgres", "redis"])
    "did you mean 'postgres'?"
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(names) or 'none'}"


def load_settings(path: Path) -> TargetSettings:
    """Read a target file. Raises TargetError with file, line and the nearest valid name for whatever is wrong in it."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise TargetError(f"{path}: can't be read: {error}") from error
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise TargetError(f"{path}: not valid TOML: nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{path}:{line[1] if line else len(text.splitlines()) or 1}"
        raise TargetError(f"{where}: not valid TOML: {error}") from error
    try:
        return TargetSettings.model_validate(raw)
    except ValidationError as error:
        raise TargetError("\n".join(_explain(path, text, problem) for problem in error.errors())) from error


def _explain(path: Path, text: str, problem: Any) -> str:
    location = tuple(problem["loc"])
    where = f"{path}:{_line_of(text, location)}"
    dotted = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        model = _model_at(location[:-1])
        valid = sorted(model.model_fields) if model else []
        kind = {"services": "role", "limits": "chapter of limits"}.get(
            str(location[0]) if len(location) == 2 else "", "key"
        )
        if location[0] == "limits" and len(location) == 3:
            kind = "limit"
        return f"{where}: unknown {kind} {location[-1]!r} ({dotted}); {nearest(str(location[-1]), valid)}"
    if problem["type"] == "missing":
        return f"{where}: {dotted} is required"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    if problem["type"] == "literal_error":
        valid = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        return f"{where}: {dotted} = {given!r} is not valid; {nearest(str(given), valid)}"
    if isinstance(given, dict | list):
        return f"{where}: {dotted}: {message}"
    return f"{where}: {dotted} = {str(given) if isinstance(given, date | time) else repr(given)}: {message}"


def line_in(path: Path, location: tuple[int | str, ...]) -> str:
    """Where in a target file a value stands, as ``file:line``; the file alone if it can't be read.

    >>> line_in(Path("no-such-target.toml"), ("waivers", 0, "symptom"))
    'no-such-target.toml'
    """
    try:
        return f"{path}:{_line_of(path.read_text('utf-8'), location)}"
    except OSError:
        return str(path)


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel] | None:
    model: type[BaseModel] = TargetSettings
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return None
        for candidate in _models_in(field.annotation):
            model = candidate
            break
        else:
            return None
    return model


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


_HEADER = re.compile(r"^\s*\[+\s*([^\]]+?)\s*\]+")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+?)\s*=")


def _line_of(text: str, location: tuple[int | str, ...]) -> int:
    """The line on which a value stands. tomllib does not tell, so headers and keys are followed by hand."""
    wanted = [str(part) for part in location if isinstance(part, str)]
    index = next((part for part in location if isinstance(part, int)), None)
    table: list[str] = []
    counts: dict[str, int] = {}
    best = (0, 1)
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = [part.strip(" \"'") for part in header.group(1).split(".")]
            counts[header.group(1)] = counts.get(header.group(1), -1) + 1
            here = table
        elif key := _KEY.match(line):
            here = table + [part.strip(" \"'") for part in key.group(1).split(".")]
        else:
            continue
        if index is not None and table and counts.get(".".join(table), 0) != index and table == wanted[: len(table)]:
            if line.lstrip().startswith("[["):
                continue
            if any(row.lstrip().startswith("[[" + ".".join(table)) for row in text.splitlines()):
                continue
        depth = len(here) if here == wanted[: len(here)] else 0
        if depth > best[0] or (
            re.search(rf"\b{re.escape(wanted[-1])}\b\s*=", line) and here == wanted[: len(here)] and depth >= best[0]
        ):
            best = (depth, number)
    return best[1]


def target_file(name: str, folder: Path) -> Path:
    """The file of a named target. Raises TargetError with the nearest existing name."""
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = [file.stem for file in folder.glob("*.toml")]
        raise TargetError(f"no target {name!r} in {folder}; {nearest(name, known)}")
    return path
