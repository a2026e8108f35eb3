"""Redis, with its password on the command line as the real compose file has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from demo.services.role import Role, RunHelper, Verdict
from demo.settings import make_owned


class RedisServer(Role):
    """Sessions and caches."""

    name = "redis"

    @property
    def port(self) -> int:
        """Its TCP port on loopback."""
        return self.context.ports["redis"]

    @property
    def data(self) -> Path:
        """Where its dump is."""
        return self.folder / "data"

    def command(self, env: Mapping[str, str]) -> list[str]:
        """The server. An empty REDIS_PASSWORD starts it without one."""
        password = env.get("REDIS_PASSWORD", "")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data), "--daemonize", "no"]
        options += ["--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru"]
        # Two words each: Redis 6 takes a save point in one word for none at all.
        options += ["--save", "3600", "1", "--save", "300", "100", "--save", "60", "10000"]
        options += ["--requirepass", password] if password else []
        return [str(self.context.binaries.redis_server), *options, *self.extra_arguments(env)]

    def ports(self) -> list[tuple[int, int]]:
        """One."""
        return [(6379, self.port)]

    def version_command(self) -> list[str]:
        """Prints ``Redis server v=7.0.15 …``."""
        return [str(self.context.binaries.redis_server), "--version"]

    def data_folders(self) -> list[tuple[Path, bool]]:
        """Its dump."""
        return [(self.data, True)]

    def path(self) -> list[str]:
        """A redis-cli that knows the port comes first."""
        return [str(self.folder / "bin"), str(self.context.binaries.redis_cli.parent)]

    def exec_environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """redis-cli reads the password from its environment, so that no command has to show it."""
        given = super().exec_environment(env)
        return {**given, "REDISCLI_AUTH": env["REDIS_PASSWORD"]} if env.get("REDIS_PASSWORD") else given

    async def prepare(self, env: Mapping[str, str], run: RunHelper) -> None:
        """Its folder, and the redis-cli for commands in it."""
        del env
        await self.keep_versions_apart(self.data, run)
        make_owned(self.data, self.context.account)
        self.wrapper("redis-cli", self.context.binaries.redis_cli, ["-h", "127.0.0.1", "-p", str(self.port)])

    async def check_health(self, env: Mapping[str, str], run: RunHelper) -> Verdict:
        """``redis-cli ping``."""
        auth = {"REDISCLI_AUTH": env["REDIS_PASSWORD"]} if env.get("REDIS_PASSWORD") else {}
        arguments = ["-h", "127.0.0.1", "-p", str(self.port), "--no-auth-warning", "ping"]
        code, output = await run([str(self.context.binaries.redis_cli), *arguments], auth)
        # redis-cli exits with 0 whatever the server says.
        return Verdict(code == 0 and "PONG" in output, output.strip())
