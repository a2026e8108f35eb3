"""The vocabulary of the guide's command templates: what an operator of this very target would type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from allodoc_health.runtimes.interface import OperatorWords
from allodoc_health.target import ROLES, Target


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

    def redis_cli(arguments: str) -> str:
        if "redis" not in target.credentials:
            return operator.exec("redis", f"redis-cli {arguments}")
        login = f" --user {shlex.quote(redis.user)}" if redis and redis.user else ""
        holder = target.credentials["redis"]
        if holder.role in ("redis", None) or holder.variable.startswith("--"):
            return operator.exec("redis", f"redis-cli --askpass{login} {arguments}")
        password = operator.exec(holder.role, f"printenv {holder.variable}")
        return operator.exec("redis", f"redis-cli{login} {arguments}", environment={"REDISCLI_AUTH": f"$({password})"})

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
        "usage": operator.usage,
        "psql": psql,
        "redis_cli": redis_cli,
        "fact": lambda name, otherwise="": known.get(name, otherwise),
        "roles": target.roles or ROLES,
        "postgres": postgres,
        "redis": redis,
        "backend": backend,
        "nginx": nginx,
        "database": database,
        "database_user": user,
        "target": target,
    }


def _sql(sql: str) -> str:
    """A statement as one shell word: in double quotes, which read well, unless the shell would look into them."""
    flat = " ".join(sql.split())
    return shlex.quote(flat) if any(char in flat for char in '"$`\\!') else f'"{flat}"'
