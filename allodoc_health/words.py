"""The vocabulary of the guide's command templates: what an operator of this very target would type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, TypeVar

from allodoc_health.runtimes.interface import OperatorWords
from allodoc_health.target import (
    ROLES,
    BackendSettings,
    NginxSettings,
    PostgresSettings,
    RedisSettings,
    ServiceSettings,
    Target,
)

HERE = "127.0.0.1"
_Settings = TypeVar("_Settings", bound=ServiceSettings)


def vocabulary(target: Target, operator: OperatorWords, facts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What templates may name: actions on services, clients that log in without showing a secret, addresses, facts.

    ``facts`` are values that a finding gave (``pid``); ``fact("pid", "PID")`` falls back to its second argument.
    """
    services = target.services
    postgres, redis, backend, nginx = services.postgres, services.redis, services.backend, services.nginx
    database = (postgres and postgres.database) or "allodoc_prod"
    user = (postgres and postgres.user) or "allodoc_prod"
    known = dict(facts or {})

    def psql(sql: str, database: str = database) -> str:
        return operator.exec("postgres", f"psql -X -U {shlex.quote(user)} -d {shlex.quote(database)} -c {_sql(sql)}")

    def psql_admin(sql: str, database: str = "postgres", **values: str) -> str:
        """As the superuser that the service was set up with. ``values`` stand in double quotes on the command line, and
        in the statements as ``:'name'``. Several statements, apart by semicolons, are no single transaction.
        """
        login = f'psql -X -v ON_ERROR_STOP=1 -U "${{POSTGRES_USER:-postgres}}" -d {shlex.quote(database)}'
        # psql puts values into what it reads, not into what -c says; and several statements in one -c are one query.
        # An empty one would be taken for what was meant: an empty password, say.
        given = "".join(f' -v {name}="${{{name}:?is empty}}"' for name in values)
        script = f"echo {_sql(sql)} | {login}{given}" if values or ";" in sql else f"{login} -c {_sql(sql)}"
        return operator.exec("postgres", f"sh -c {_script(script)}", environment=values)

    def redis_cli(arguments: str) -> str:
        if "redis" not in target.credentials:
            return operator.exec("redis", f"redis-cli {arguments}")
        login = f" --user {shlex.quote(redis.user)}" if redis and redis.user else ""
        holder = target.credentials["redis"]
        if holder.variable.startswith("--"):
            # It stands on Redis' own command line and nowhere else.
            password = '$(read -rsp "Redis password: " given; printf %s "$given")'
        elif holder.role is None:
            password = f"${holder.variable}"
        else:
            password = f"$({operator.setting(holder.role, holder.variable)})"
        return operator.exec("redis", f"redis-cli{login} {arguments}", environment={"REDISCLI_AUTH": password})

    return {
        "start": operator.start,
        "stop": operator.stop,
        "restart": operator.restart,
        "unpause": operator.unpause,
        "recreate": operator.recreate,
        "ps": operator.ps,
        "inspect": operator.inspect,
        "logs": operator.logs,
        "exec": operator.exec,
        "variables": operator.variables,
        "setting": operator.setting,
        "usage": operator.usage,
        "psql": psql,
        "psql_admin": psql_admin,
        "redis_cli": redis_cli,
        "fact": lambda name, otherwise="": known.get(name, otherwise),
        "roles": target.roles or ROLES,
        # A stopped service has no address, and a command needs one: then the usual one, as the guide has it.
        "postgres": _with(postgres or PostgresSettings(), host=HERE, port=5432),
        "redis": _with(redis or RedisSettings(), host=HERE, port=6379),
        "backend": _with(backend or BackendSettings(), host=HERE, port=3000, url=f"http://{HERE}:3000"),
        "nginx": _with(
            nginx or NginxSettings(), host=HERE, address=HERE, port=443, http_port=80, url=f"https://{HERE}"
        ),
        "database": database,
        "database_user": user,
        "target": target,
    }


def _script(text: str) -> str:
    """A shell script as one word in single quotes. What it quotes itself reads better than as shlex writes it."""
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"


def _with(settings: _Settings, **usual: str | int) -> _Settings:
    """The settings, with what is usual where they say nothing."""
    return settings.model_copy(update={name: value for name, value in usual.items() if getattr(settings, name) is None})


def _sql(sql: str) -> str:
    """A statement as one shell word: in double quotes, which read well, unless the shell would look into them."""
    flat = " ".join(sql.split())
    return shlex.quote(flat) if any(char in flat for char in '"$`\\!') else f'"{flat}"'
