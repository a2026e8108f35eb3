"""What is special about each service: how it is prepared, started, stopped, asked for its health and entered."""

from __future__ import annotations

from demo.services.backend import Backend
from demo.services.nginx import Nginx
from demo.services.postgres import Postgres
from demo.services.redis_server import RedisServer
from demo.services.role import Role
from demo.settings import Context


def all_roles(context: Context) -> list[Role]:
    """The services in the order in which they start."""
    return [Postgres(context), RedisServer(context), Backend(context), Nginx(context)]
