"""Targets: what is wrong in a file is told with its line and the nearest valid name; what is left open is filled in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from allodoc_health.inspection import complete
from allodoc_health.limits import Limit
from allodoc_health.runtimes.interface import PublishedPort, ServiceState, Status
from allodoc_health.target import ROLES, Credential, Target, TargetError, TargetSettings, load_settings, target_file

EVERYWHERE = "0.0.0.0"  # noqa: S104  # as Docker writes it; nothing listens here
WAIVER = "[[waivers]]\nsymptom = 'db.x'\nreason = 'known'\nowner = 'me'\nexpires = 2026-12-01T00:00:00Z\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[runtime]\nkimd = 'docker'", [":2: unknown key 'kimd' (runtime.kimd); did you mean 'kind'?"]),
        ("runtimes = 1", [":1: unknown key 'runtimes' (runtimes); did you mean 'runtime'?"]),
        ("services.postgres.prt = 1", [":1: unknown key 'prt' (services.postgres.prt); did you mean 'port'?"]),
        ("\n[services.postgre]\nport = 1", [":2: unknown role 'postgre' (services.postgre); did you mean 'postgres'?"]),
        ("[limits.dba]\nx = {}", [":1: unknown chapter of limits 'dba' (limits.dba); did you mean 'db'?"]),
        (
            "[limits.db]\n\nconections_used = {warn = 1}",
            [":3: unknown limit 'conections_used' (limits.db.conections_used); did you mean 'connections_used'?"],
        ),
        (
            "[limits.db]\nconnections_used = {wann = 1}",
            [":2: unknown key 'wann' (limits.db.connections_used.wann); did you mean 'warn'?"],
        ),
        (
            "[limits.db.connections_used]\nwarn = 99",
            [":1: limits.db.connections_used: fail (95) must lie beyond warn (99), the worse side is above"],
        ),
        (
            "[services.postgres]\nport = 'many'",
            [":2: services.postgres.port = 'many': Input should be a valid integer"],
        ),
        ("[services.postgres]\nport = 70000", [":2: services.postgres.port = 70000: Input should be less than 65536"]),
        ("[runtime]\nkind = 'dokcer'", [":2: runtime.kind = 'dokcer' is not valid; did you mean 'docker'?"]),
        ("absent = ['frontent']", [":1: absent.0 = 'frontent' is not valid; did you mean 'frontend'?"]),
        (
            "origins = ['app.example.org/x']",
            [":1: origins.0 = 'app.example.org/x': an origin is scheme, host and port"],
        ),
        ("services = 3", [":1: services = 3: Input should be a valid dictionary"]),
        (WAIVER + WAIVER.replace("owner = 'me'\n", ""), [":6: waivers.1.owner is required"]),
        (WAIVER.replace("00Z", "00"), [":5: waivers.0.expires = 2026-12-01 00:00:00: needs a date, a time and a zone"]),
        (WAIVER.replace("known", ""), [":3: waivers.0.reason = '': String should have at least 1 character"]),
        ("[runtime\n", [":1: not valid TOML: "]),
        ("a = '''", [":1: not valid TOML: "]),
        (
            "[runtime]\nkimd = 1\n[services.redis]\nuserr = 'x'",
            [":2: unknown key 'kimd'", ":4: unknown key 'userr' (services.redis.userr); did you mean 'user'?"],
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path: Path, text: str, told: list[str]) -> None:
    """Each thing that is wrong has a line of its own: file, line, what it is, and the nearest valid name."""
    path = tmp_path / "prod.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(TargetError) as caught:
        load_settings(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(told), lines
    for line, expected in zip(lines, told, strict=True):
        assert line.startswith(f"{path}{expected}"), line


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Neither a missing file nor one that is not text ends in a traceback."""
    with pytest.raises(TargetError, match="can't be read"):
        load_settings(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match="can't be read"):
        load_settings(tmp_path / "binary.toml")


def test_an_unknown_target_names_the_nearest(tmp_path: Path) -> None:
    """A typo in --target is told with the target that was meant, or with all there are."""
    for name in ("prod", "staging"):
        (tmp_path / f"{name}.toml").touch()
    assert target_file("prod", tmp_path) == tmp_path / "prod.toml"
    with pytest.raises(TargetError, match=r"no target 'prdo' in .*; did you mean 'prod'"):
        target_file("prdo", tmp_path)
    with pytest.raises(TargetError, match=r"no target 'xyz' in .*; valid: prod, staging"):
        target_file("xyz", tmp_path)


def test_an_override_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    """A limit in the file replaces the bound that it names; the source says where it is from."""
    path = tmp_path / "prod.toml"
    path.write_text("[limits.db]\nconnections_used = {warn = 50}\nquick = 1".replace("\nquick = 1", ""), "utf-8")
    limits = load_settings(path).limits
    assert limits.db.connections_used == Limit(warn=50, fail=95, source="target file")
    assert limits.db.round_trip == TargetSettings().limits.db.round_trip


def test_the_targets_of_this_repository_are_valid() -> None:
    """Every file in targets/ can be used as it is."""
    files = list((Path(__file__).parents[2] / "targets").glob("*.toml"))
    assert files
    for file in files:
        load_settings(file)


# -- filling in what the file leaves open -------------------------------------------------------------


def state(role: str, *ports: PublishedPort, **fields: Any) -> ServiceState:
    """A running service."""
    return ServiceState(role=role, name=f"allodoc_{role}_prod", status=Status.RUNNING, ports=ports, **fields)


def completed(*states: ServiceState, environments: dict[str, dict[str, str]] | None = None, **settings: Any) -> Target:
    """A target from these states, environments and settings."""
    return complete(
        TargetSettings.model_validate(settings),
        "prod",
        "discovered",
        {given.role: given for given in states},
        environments or {},
    )


def service(target: Target, role: str) -> Any:
    """The settings of a service that the target has."""
    settings = target.services.get(role)
    assert settings is not None
    return settings


def test_a_published_port_is_where_a_service_answers() -> None:
    """Published on all interfaces means reachable at the loopback address; on one, there."""
    target = completed(
        state("postgres", PublishedPort(EVERYWHERE, 5433, 5432)),
        state("redis", PublishedPort("127.0.0.2", 6380, 6379)),
        state("backend", PublishedPort("127.0.0.1", 3100, 3000)),
    )
    postgres, redis, backend = service(target, "postgres"), service(target, "redis"), service(target, "backend")
    assert (postgres.host, postgres.port) == ("127.0.0.1", 5433)
    assert (redis.host, redis.port) == ("127.0.0.2", 6380)
    assert backend.url == "http://127.0.0.1:3100"
    assert target.roles == ("postgres", "redis", "backend")


def test_an_unpublished_service_is_reached_at_its_own_address() -> None:
    """Without a published port the address on the compose network is used."""
    target = completed(state("postgres", addresses=("172.20.0.3",)), state("backend", addresses=("172.20.0.5",)))
    postgres, backend = service(target, "postgres"), service(target, "backend")
    assert (postgres.host, postgres.port) == ("172.20.0.3", 5432)
    assert backend.url == "http://172.20.0.5:3000"


def test_the_backends_own_port_counts() -> None:
    """A backend that listens elsewhere says so in its environment."""
    target = completed(state("backend", addresses=("172.20.0.5",)), environments={"backend": {"PORT": "8080"}})
    backend = service(target, "backend")
    assert backend.url == "http://172.20.0.5:8080"
    published = completed(
        state("backend", PublishedPort("127.0.0.1", 9000, 8080)), environments={"backend": {"PORT": "8080"}}
    )
    backend = service(published, "backend")
    assert backend.url == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("ports", "url"),
    [
        ([PublishedPort(EVERYWHERE, 443, 443), PublishedPort(EVERYWHERE, 80, 80)], "https://127.0.0.1"),
        ([PublishedPort("127.0.0.1", 8443, 443)], "https://127.0.0.1:8443"),
        ([PublishedPort("127.0.0.1", 8080, 80)], "http://127.0.0.1:8080"),
    ],
    ids=["usual", "remapped", "plain"],
)
def test_the_edge_is_where_tls_is_published(ports: list[PublishedPort], url: str) -> None:
    """HTTPS if 443 is there, else HTTP; the port is named unless it is the usual one."""
    nginx = service(completed(state("nginx", *ports)), "nginx")
    assert nginx.url == url


def test_the_application_decides_which_database_is_meant() -> None:
    """What the backend is told goes before what the database was made with: can the application log in?"""
    target = completed(
        state("postgres"),
        state("backend"),
        environments={
            "postgres": {"POSTGRES_DB": "postgres", "POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": "a"},
            "backend": {"DATABASE_NAME": "allodoc", "DATABASE_USERNAME": "api", "DATABASE_PASSWORD": "b"},
        },
    )
    postgres = service(target, "postgres")
    assert (postgres.database, postgres.user) == ("allodoc", "api")
    assert target.credentials["postgres"] == Credential(role="backend", variable="DATABASE_PASSWORD")


@pytest.mark.parametrize(
    ("settings", "environments", "command", "credential"),
    [
        ({"services": {"redis": {"password_env": "MINE"}}}, {}, (), Credential(variable="MINE")),
        ({}, {"backend": {"REDIS_PASSWORD": "x"}}, (), Credential(role="backend", variable="REDIS_PASSWORD")),
        ({}, {"redis": {"REDIS_PASSWORD": "x"}}, (), Credential(role="redis", variable="REDIS_PASSWORD")),
        ({}, {}, ("redis-server", "--requirepass", "x"), Credential(role="redis", variable="--requirepass")),
        ({}, {}, ("redis-server",), None),
    ],
    ids=["file", "backend", "redis", "command line", "none"],
)
def test_where_the_password_of_redis_is(
    settings: dict[str, Any],
    environments: dict[str, dict[str, str]],
    command: tuple[str, ...],
    credential: Credential | None,
) -> None:
    """The target's own word first, then the application's, then the service's. Never the password itself."""
    target = completed(state("redis", command=command), environments=environments, **settings)
    assert target.credentials.get("redis") == credential


def test_what_the_file_says_is_not_discovered_over() -> None:
    """A key in the file wins over everything that was found."""
    target = completed(
        state("postgres", PublishedPort("127.0.0.1", 5433, 5432)),
        environments={"backend": {"DATABASE_NAME": "found"}},
        services={"postgres": {"container": "mine", "host": "db.example", "port": 6000, "database": "said"}},
    )
    postgres = service(target, "postgres")
    assert (postgres.container, postgres.host, postgres.port) == ("mine", "db.example", 6000)
    assert postgres.database == "said"


def test_origins_come_from_the_backend() -> None:
    """CORS_ORIGIN names the pages' addresses, one or several; a star names none."""
    for value, origins in (
        ("https://app.example.org/", ("https://app.example.org",)),
        ("https://a.example, https://b.example", ("https://a.example", "https://b.example")),
        ("*", ()),
        ("", ()),
    ):
        assert completed(state("backend"), environments={"backend": {"CORS_ORIGIN": value}}).origins == origins


def test_what_each_service_cannot_do_without_is_known() -> None:
    """A backend needs its DATABASE_, REDIS_ and JWT_ settings, unless the file names others."""
    backend = service(completed(state("backend")), "backend")
    assert {"DATABASE_HOST", "REDIS_HOST", "JWT_ACCESS_SECRET"} <= set(backend.required_env)
    backend = service(completed(state("backend"), services={"backend": {"required_env": ["ONLY"]}}), "backend")
    assert backend.required_env == ("ONLY",)


def test_nothing_found_and_nothing_said_is_an_empty_target() -> None:
    """Completing nothing is no error: every service is absent then."""
    target = completed()
    assert target.roles == ()
    assert all(target.services.get(role) is None for role in ROLES)
    assert target.started.tzinfo is not None
    assert abs((datetime.now(UTC) - target.started).total_seconds()) < 60
