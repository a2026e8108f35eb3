"""PostgreSQL, set up as the official image does it: one superuser, named like the application."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from demo.services.role import PreparationFailed, Role, RunHelper, Verdict
from demo.settings import DATABASE, make_owned
from demo.state import write_private

SETTINGS = """
# --- the demo's own ---
listen_addresses = '127.0.0.1'
max_connections = 50
shared_buffers = 32MB
shared_preload_libraries = 'pg_stat_statements'
logging_collector = off
log_destination = 'stderr'
log_line_prefix = '%m [%p] '
log_timezone = 'UTC'
log_min_duration_statement = 1000
timezone = 'UTC'
autovacuum = on
"""


class Postgres(Role):
    """The database."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": as the official image's STOPSIGNAL

    @property
    def port(self) -> int:
        """Its TCP port on loopback."""
        return self.context.ports["postgres"]

    @property
    def data(self) -> Path:
        """PGDATA."""
        return self.folder / "data"

    def program(self, name: str) -> str:
        """One of PostgreSQL's programs."""
        return str(self.context.binaries.postgres / name)

    def command(self, env: Mapping[str, str]) -> list[str]:
        """The server; only what can't live in the configuration file is an argument, so ALTER SYSTEM works."""
        sockets = self.context.socket_dir(self.name)
        arguments = ["-D", str(self.data), "-p", str(self.port), "-k", str(sockets)]
        return [self.program("postgres"), *arguments, *self.extra_arguments(env)]

    def ports(self) -> list[tuple[int, int]]:
        """One."""
        return [(5432, self.port)]

    def version_command(self) -> list[str]:
        """Prints ``postgres (PostgreSQL) 15.10``."""
        return [self.program("postgres"), "--version"]

    def data_folders(self) -> list[tuple[Path, bool]]:
        """PGDATA."""
        return [(self.data, True)]

    def path(self) -> list[str]:
        """All client programs."""
        return [str(self.context.binaries.postgres)]

    def exec_environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Through the socket, where a local user is trusted, as in the official image."""
        return {
            **super().exec_environment(env),
            "PGHOST": str(self.context.socket_dir(self.name)),
            "PGPORT": str(self.port),
            "PGDATA": str(self.data),
        }

    async def prepare(self, env: Mapping[str, str], run: RunHelper) -> None:
        """Make the cluster, once, or again if the last attempt was cut short."""
        account = self.context.account
        make_owned(self.context.socket_dir(self.name), account)
        await self.keep_versions_apart(self.data, run)
        if (self.data / "allodoc.conf").exists():
            return
        # A folder that initdb left half made would be refused by it.
        if self.data.exists():
            await run(["rm", "-rf", str(self.data)], env)
        make_owned(self.data, account)
        password = self.folder / "initial-password"
        write_private(password, env.get("POSTGRES_PASSWORD", "") + "\n")
        if account.foreign:
            os.chown(password, account.uid, account.gid)
        arguments = ["-D", str(self.data), "-U", env.get("POSTGRES_USER", DATABASE), f"--pwfile={password}"]
        arguments += ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        # The system's zone files tell initdb nothing that SETTINGS does not, and searching them takes 0.2 s.
        try:
            code, output = await run([self.program("initdb"), *arguments], {**env, "TZ": "UTC"})
        finally:
            password.unlink(missing_ok=True)
        if code != 0:
            raise PreparationFailed(f"initdb failed ({code}): {output.strip()[-2000:]}")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write("include 'allodoc.conf'\n")
        settings = self.data / "allodoc.conf"
        write_private(settings, SETTINGS.lstrip())
        if account.foreign:
            os.chown(settings, account.uid, account.gid)

    async def check_health(self, env: Mapping[str, str], run: RunHelper) -> Verdict:
        """``pg_isready``, once the server itself says that it is ready: asking earlier writes FATAL to its log."""
        try:
            state = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[7].strip()
        except (OSError, IndexError):
            return Verdict(False, "no postmaster.pid yet")
        if state != "ready":
            return Verdict(False, f"postmaster.pid says {state}")
        database = env.get("POSTGRES_DB", DATABASE)
        arguments = ["-h", "127.0.0.1", "-p", str(self.port), "-U", env.get("POSTGRES_USER", DATABASE), "-d", database]
        code, output = await run([self.program("pg_isready"), "-t", "2", *arguments], {})
        return Verdict(code == 0, output.strip())
