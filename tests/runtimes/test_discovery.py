"""Recognising AlloDoc among containers: offline on inspected containers, and once on the real stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from allodoc_health.discovery import ROLES, AmbiguousDiscovery, discover_containers, recognise
from allodoc_health.runtimes.docker_engine import EngineApi
from allodoc_health.runtimes.interface import RuntimeUnavailable
from tests.beds.docker import ContainerFactory, Stack

BACKEND = {
    "DATABASE_HOST": "allodoc_postgres_prod",
    "DATABASE_NAME": "allodoc_prod",
    "REDIS_HOST": "allodoc_redis_prod",
    "JWT_ACCESS_SECRET": "canary-jwt",
}


def inspected(
    name: str,
    image: str,
    *,
    command: Sequence[str] = (),
    ports: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    project: str = "",
    service: str = "",
    networks: Sequence[str] = (),
    aliases: Sequence[str] = (),
    status: str = "running",
) -> dict[str, Any]:
    """What the engine says of a container, in short."""
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": service} if project else {}
    return {
        "Id": name.encode().hex().ljust(64, "0"),
        "Name": f"/{name}",
        "State": {"Status": status},
        "Config": {
            "Image": image,
            "Cmd": list(command),
            "Env": [f"{key}={value}" for key, value in (env or {}).items()],
            "ExposedPorts": {f"{port}/tcp": {} for port in ports},
            "Labels": labels,
        },
        "NetworkSettings": {"Networks": {network: {"Aliases": list(aliases)} for network in networks}},
    }


def allodoc(
    stage: str = "prod", project: str = "allodoc", prefix: str = "allodoc", **other: Any
) -> list[dict[str, Any]]:
    """The guide's five containers."""
    common: dict[str, Any] = {"project": project, "networks": [f"{project}_default"], **other}

    def name(role: str) -> str:
        return f"{prefix}_{role}_{stage}"

    env = {**BACKEND, "DATABASE_HOST": name("postgres"), "REDIS_HOST": name("redis")}
    proxy = ["nginx", "-g", "daemon off;"]
    return [
        inspected(
            name("postgres"), "postgres:15-alpine", service="postgres", ports=[5432], command=["postgres"], **common
        ),
        inspected(name("redis"), "redis:7", service="redis", ports=[6379], command=["redis-server"], **common),
        inspected(
            name("backend"),
            f"{prefix}-backend",
            service="backend",
            ports=[3000],
            env=env,
            command=["node", "dist/main"],
            **common,
        ),
        inspected(name("frontend"), "nginx:alpine", service="frontend", ports=[80, 4200], command=proxy, **common),
        inspected(name("nginx"), "nginx:alpine", service="nginx", ports=[80, 443], command=proxy, **common),
    ]


SHOP = [
    inspected(
        "shop_postgres_1", "postgres:16", service="postgres", project="shop", ports=[5432], env={"POSTGRES_DB": "shop"}
    ),
    inspected("shop_redis_1", "redis:7", service="redis", project="shop", ports=[6379]),
    inspected("shop_web_1", "nginx", service="web", project="shop", ports=[80]),
]


def names(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """The recognised names by role."""
    return recognise(containers).names


def test_the_guides_stack() -> None:
    """Each of the guide's containers is known by its role, in a fixed order."""
    found = names(allodoc())
    assert list(found) == list(ROLES)
    assert found == {role: f"allodoc_{role}_prod" for role in ROLES}


def test_order_of_containers_does_not_matter() -> None:
    """The engine's order changes nothing."""
    assert names(allodoc()[::-1]) == names(allodoc())


def test_newest_compose_file() -> None:
    """An `api-prod` without a frontend, Valkey as the cache, and `db-prod` are recognised."""
    common: dict[str, Any] = {"project": "deploy", "networks": ["deploy_net"]}
    stack = [
        inspected("deploy-db-prod-1", "timescale/timescaledb:15", service="db-prod", ports=[5432], **common),
        inspected("deploy-cache-prod-1", "valkey/valkey:8", service="cache-prod", command=["valkey-server"], **common),
        inspected("allodoc_api_prod", "ops/app:1.2", service="api-prod", env=BACKEND, ports=[3000], **common),
        inspected("deploy-nginx-prod-1", "nginx:1.27", service="nginx-prod", ports=[80, 443], **common),
    ]
    assert names(stack) == {
        "postgres": "deploy-db-prod-1",
        "redis": "deploy-cache-prod-1",
        "backend": "allodoc_api_prod",
        "nginx": "deploy-nginx-prod-1",
    }


def test_other_prefix_without_compose() -> None:
    """Containers run by hand under another name are known by what they are and by whom the backend talks to."""
    stack = [
        {**container, "Config": {**container["Config"], "Labels": {}}}
        for container in allodoc(prefix="klinik", project="klinik")
    ]
    assert names(stack) == {role: f"klinik_{role}_prod" for role in ROLES}


def test_strangers_are_left_alone() -> None:
    """A database, a cache and a page of another project are not taken, beside AlloDoc or alone."""
    assert names([*SHOP, *allodoc()]) == {role: f"allodoc_{role}_prod" for role in ROLES}
    assert names(SHOP) == {}


def test_stranger_takes_no_vacant_role() -> None:
    """When AlloDoc's database is gone, another project's does not stand in for it."""
    found = names([*SHOP, *allodoc()[1:]])
    assert set(found) == {"redis", "backend", "frontend", "nginx"}


def test_stranger_with_the_same_settings() -> None:
    """Another application that also has DATABASE_HOST and JWT_SECRET does not make it ambiguous."""
    env = {"DATABASE_HOST": "db", "JWT_SECRET": "x"}
    other = inspected(
        "crm_api_1", "crm-api", service="api", project="crm", env=env, ports=[3000], command=["node", "main"]
    )
    assert names([other, *allodoc()])["backend"] == "allodoc_backend_prod"


def test_helpers_are_not_the_service() -> None:
    """Exporters, admin pages, workers and one-off runs do not stand in for what they help."""
    common: dict[str, Any] = {"project": "allodoc", "networks": ["allodoc_default"]}
    helpers = [
        inspected("allodoc_redis_exporter", "oliver/redis_exporter", service="redis-exporter", **common),
        inspected(
            "allodoc_worker_prod",
            "allodoc-backend",
            service="worker",
            env=BACKEND,
            command=["node", "dist/main"],
            **common,
        ),
        inspected("allodoc_pgadmin", "pgadmin4", service="pgadmin", ports=[80, 443], **common),
    ]
    oneoff = inspected("allodoc_backend_run_1", "allodoc-backend", service="backend", env=BACKEND, **common)
    oneoff["Config"]["Labels"]["com.docker.compose.oneoff"] = "True"
    found = names(
        [*helpers, oneoff, *(c for c in allodoc() if "redis" not in c["Name"] and "backend" not in c["Name"])]
    )
    assert set(found) == {"postgres", "frontend", "nginx"}


def test_the_backend_tells_which_database() -> None:
    """Of two databases in one project the one is taken that the backend is told to use."""
    common: dict[str, Any] = {
        "project": "allodoc",
        "networks": ["allodoc_default"],
        "command": ["postgres"],
        "ports": [5432],
    }
    postgres = [
        inspected("allodoc_analytics", "postgres:15", service="postgres-analytics", **common),
        inspected("allodoc_store", "postgres:15", service="postgres-main", aliases=["allodoc_postgres_prod"], **common),
    ]
    assert names([*postgres, *allodoc()[1:]])["postgres"] == "allodoc_store"


def test_database_of_another_project() -> None:
    """A database in a project of its own is found through the network that it shares with the backend."""
    database = inspected(
        "central-db",
        "postgres:15",
        service="db",
        project="infra",
        networks=["allodoc_default"],
        aliases=["allodoc_postgres_prod"],
    )
    assert names([database, *SHOP, *allodoc()[1:]])["postgres"] == "central-db"


def test_two_stacks() -> None:
    """Production and staging on one host are named, and none is chosen."""
    with pytest.raises(AmbiguousDiscovery) as caught:
        recognise([*allodoc(), *allodoc("staging", "allodoc-staging")])
    assert [stack.title for stack in caught.value.candidates] == [
        "compose project allodoc",
        "compose project allodoc-staging",
    ]
    assert "allodoc_backend_staging" in str(caught.value)


def test_two_stacks_on_one_network() -> None:
    """Two stacks that were run by hand on one network are told apart by their names."""
    both = [
        {**container, "Config": {**container["Config"], "Labels": {}}}
        for container in [*allodoc(), *allodoc("staging")]
    ]
    with pytest.raises(AmbiguousDiscovery) as caught:
        recognise(both)
    assert [len(stack.containers) for stack in caught.value.candidates] == [5, 5]


def test_production_without_backend_is_not_forgotten() -> None:
    """A whole staging does not hide a production whose backend was removed."""
    with pytest.raises(AmbiguousDiscovery):
        recognise([*(c for c in allodoc() if "backend" not in c["Name"]), *allodoc("staging", "allodoc-staging")])


def test_leftover_is_not_a_stack() -> None:
    """One forgotten database of an old AlloDoc does not make it ambiguous."""
    old = inspected("allodoc_postgres_old", "postgres:13", service="postgres", project="allodoc-old", ports=[5432])
    assert names([old, *allodoc()])["postgres"] == "allodoc_postgres_prod"


def test_stopped_containers_count() -> None:
    """In an outage everything is stopped, and is found all the same."""
    found = recognise(allodoc(status="exited"))
    assert set(found.names) == set(ROLES)
    assert "backend: allodoc_backend_prod, exited (by compose service backend, " in "\n".join(found.lines())


def test_replicas() -> None:
    """Several containers of one compose service are one role, and are all named."""
    common: dict[str, Any] = {"project": "allodoc", "networks": ["allodoc_default"], "env": BACKEND, "ports": [3000]}
    scaled = [inspected(f"allodoc_backend_{n}", "allodoc-backend", service="backend", **common) for n in (2, 1, 3)]
    found = recognise([*scaled, *(c for c in allodoc() if "backend" not in c["Name"])])
    assert found.names["backend"] == "allodoc_backend_1"
    assert found.containers["backend"].replicas == ("allodoc_backend_2", "allodoc_backend_3")


def test_a_backend_that_takes_over() -> None:
    """A second backend that somebody started beside the first, as a rolling deployment does, is no stack of its own."""
    stack = allodoc()
    env = {**BACKEND, "DATABASE_HOST": "allodoc_postgres_prod", "REDIS_HOST": "allodoc_redis_prod"}
    networks = ["allodoc_default"]
    following = inspected(
        "allodoc_backend_next",
        "allodoc-backend",
        ports=[3000],
        env=env,
        command=["node", "dist/main"],
        networks=networks,
    )
    assert names([*stack, following]) == names(stack) == names([following, *stack])


def test_missing_proxy_is_not_replaced_by_the_page() -> None:
    """Without nginx the frontend stays the frontend, though it is an nginx inside."""
    assert set(names(allodoc()[:4])) == {"postgres", "redis", "backend", "frontend"}


def test_no_name_is_enough() -> None:
    """A container whose name alone says AlloDoc is not taken."""
    assert names([inspected("allodoc_postgres_prod", "sleep"), inspected("allodoc_redis_prod", "sleep")]) == {}


def test_nothing() -> None:
    """Nothing recognised says what was looked for, and among how many."""
    found = recognise(SHOP)
    assert found.stack is None
    assert found.looked_for.startswith("looked among 3 containers, running or not, for those that several signs mark")


def test_no_secret_is_shown() -> None:
    """Neither the header's lines nor a representation hold a value of the environment."""
    found = recognise(allodoc())
    assert "canary-jwt" not in f"{found.lines()} {found!r} {found.stack}"
    assert found.environments["backend"]["JWT_ACCESS_SECRET"] == "canary-jwt"


def test_real_stack(stack: Stack, container: ContainerFactory) -> None:
    """On a real engine the guide's stack is found beside a stranger, running and stopped."""
    container(
        ["redis-server"],
        env={"POSTGRES_DB": "shop"},
        labels={"com.docker.compose.project": "shop", "com.docker.compose.service": "redis"},
    )
    found = discover_containers(EngineApi(), 5)
    assert found.names == stack.names
    assert found.environments["postgres"]["POSTGRES_DB"] == "allodoc_prod"
    stack.stop("frontend")
    assert discover_containers(EngineApi(), 5).containers["frontend"].status == "exited"


def test_no_engine() -> None:
    """Without an engine the engine's sentence comes through."""
    with pytest.raises(RuntimeUnavailable, match="there is no socket /nowhere"):
        discover_containers(EngineApi("unix:///nowhere"), 1)
