"""The process that runs the services: brings them up in order, obeys its socket, publishes what it knows, goes down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.backup import back_up, stale
from demo.binaries import Binaries
from demo.capture import LogFile
from demo.children import Children
from demo.processes import Account, Identity, become_subreaper, die_with_parent, identify, kill_children
from demo.service import Refused, Service, log_path
from demo.services import all_roles
from demo.services.role import PreparationFailed
from demo.settings import Context, choose_ports, make_environments, make_folders, make_run_dir
from demo.state import CHECKOUT, SCHEMA, StateFolder, now, stamp, write_json

VERSION = "1"
PUBLISH_DELAY = 0.02
CRASHES_TOO_MANY = 3
log = logging.getLogger("demo")


class NotHealthy(Exception):
    """The stack did not come up; the message says which service, why, and what it wrote last."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What ``up`` asks for."""

    folder: StateFolder
    binaries: Binaries
    account: Account
    timeout: float
    owner_pid: int | None = None


class Supervisor:
    """One stack."""

    def __init__(self, orders: Orders, line: socket.socket) -> None:
        self._orders = orders
        self._folder = orders.folder
        self._line: socket.socket | None = line
        self._loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        self._children = Children(self._loop)
        self._publishing: asyncio.TimerHandle | None = None
        self._gone = False
        make_folders(self._folder, orders.account)
        run_dir = make_run_dir(self._folder, orders.account)
        ports = choose_ports(self._folder)
        self._context = Context(self._folder, orders.binaries, orders.account, ports, run_dir)
        make_environments(self._context)
        self.services = {
            role.name: Service(role, self._children, LogFile(log_path(self._folder.logs, role.name)), self._changed)
            for role in all_roles(self._context)
        }
        self._supervisor = _identity(os.getpid())
        self._guardian = _identity(os.getppid())

    async def run(self) -> int:
        """Up, until something says down. Returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._leave.set)
        self._watch_line()
        self._watch_owner()
        control = self._context.run_dir / "control.sock"
        server = await asyncio.start_unix_server(self._serve, path=control)
        control.chmod(0o600)
        self.publish()
        coming = asyncio.create_task(self._bring_up())
        leaving = asyncio.create_task(self._leave.wait())
        status = 0
        try:
            await asyncio.wait({coming, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                coming.result()
                self._tell({"ready": True})
                self._hang_up()
                await leaving
            else:
                coming.cancel()
        except (NotHealthy, PreparationFailed) as error:
            status = 1
            log.error("%s", error)
            self._tell({"error": str(error)})
        except Exception as error:
            status = 1
            log.exception("the supervisor failed")
            self._tell({"error": f"the supervisor failed: {error!r}, see {self._folder.supervisor_log}"})
        finally:
            server.close()
            await self._take_down()
        return status

    # --- up ---

    async def _bring_up(self) -> None:
        deadline = time.monotonic() + self._orders.timeout
        postgres, redis = self.services["postgres"], self.services["redis"]
        backend, nginx = self.services["backend"], self.services["nginx"]
        certificates = asyncio.create_task(self._prepare(nginx))
        versions = asyncio.create_task(self._find_versions())
        helpers: list[asyncio.Task[Any]] = [certificates, versions]
        try:
            await asyncio.gather(self._raise(postgres, deadline), self._raise(redis, deadline))
            await self._set_up_database(postgres)
            if stale(self._folder.backups, time.time()):
                helpers.append(asyncio.create_task(self._back_up(postgres)))
            await self._raise(backend, deadline)
            await certificates
            await nginx.start()
            await self._until_healthy(nginx, deadline)
            for helper in helpers:
                await helper
        finally:
            for helper in helpers:
                helper.cancel()
        # Something may have fallen over while the rest came up.
        for service in self.services.values():
            await self._until_healthy(service, deadline)

    async def _raise(self, service: Service, deadline: float) -> None:
        await self._prepare(service)
        await service.start()
        await self._until_healthy(service, deadline)

    async def _prepare(self, service: Service) -> None:
        self._tell({"progress": f"preparing {service.name}"})
        await service.role.prepare(service.given, service.helper)

    async def _until_healthy(self, service: Service, deadline: float) -> None:
        while not service.healthy:
            crashed = service.restart_count >= CRASHES_TOO_MANY or service.status == "exited"
            if crashed or time.monotonic() > deadline:
                raise NotHealthy(self._story(service))
            await asyncio.sleep(0.01)
        self._tell({"progress": f"{service.name} is healthy"})

    def _story(self, service: Service) -> str:
        facts = [service.status]
        if service.exit_code is not None:
            facts.append(f"last exit code {service.exit_code}, {service.restart_count} restarts")
        if service.error:
            facts.append(service.error)
        elif service.health is not None and service.health.last_output:
            facts.append(f"health check: {service.health.last_output}")
        last = "".join(f"\n    {line}" for line in service.log.tail(10))
        return (
            f"{service.name} did not become healthy ({'; '.join(facts)}). Its last lines, in {service.log.path}:{last}"
        )

    async def _set_up_database(self, postgres: Service) -> None:
        """The database, its schema and its people; again when the migrations are others than last time."""
        mark = self._folder.service("postgres") / "data" / "allodoc.set-up"
        backend_folder = self._folder.checkout / "backend"
        wanted = " ".join(sorted(path.name for path in (backend_folder / "src" / "migrations").glob("*.js")))
        if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
            return
        self._tell({"progress": "setting up the database"})
        given = postgres.given
        role = postgres.role
        user, database = given["POSTGRES_USER"], given["POSTGRES_DB"]
        connect = {**role.exec_environment(given), "PGUSER": user, "PGDATABASE": "postgres"}
        psql = str(self._context.binaries.postgres / "psql")
        flags = ["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        exists = f"SELECT 1 FROM pg_database WHERE datname = '{database}'"  # noqa: S608 - our own name
        code, output = await postgres.helper([psql, *flags, "-c", exists], connect)
        if code == 0 and "1" not in output:
            code, output = await postgres.helper([psql, *flags, "-c", f'CREATE DATABASE "{database}"'], connect)
        if code == 0:
            smoke = json.loads(self._folder.smoke_file.read_text(encoding="utf-8"))
            backend = self.services["backend"].given
            # Straight to the server, whatever the backend's own file says by now.
            reach = {
                "DATABASE_HOST": "127.0.0.1",
                "DATABASE_PORT": str(self._context.ports["postgres"]),
                "DATABASE_USERNAME": user,
                "DATABASE_PASSWORD": given.get("POSTGRES_PASSWORD", ""),
                "DATABASE_NAME": database,
                "SMOKE_EMAIL": smoke["email"],
                "SMOKE_PASSWORD": smoke["password"],
                "BCRYPT_ROUNDS": backend.get("BCRYPT_ROUNDS", "12"),
            }
            node = str(self._context.binaries.node)
            code, output = await postgres.helper([node, str(backend_folder / "src" / "setup.js")], reach)
        if code != 0:
            raise PreparationFailed(f"the database could not be set up ({code}): {output.strip()[-2000:]}")
        mark.write_text(wanted, encoding="utf-8")

    async def _back_up(self, postgres: Service) -> None:
        await back_up(self._folder, self._context.binaries, postgres)

    async def _find_versions(self) -> None:
        for service in self.services.values():
            _, output = await service.helper(service.role.version_command(), {})
            service.version = output.strip().splitlines()[0] if output.strip() else ""
        self._changed()

    # --- down ---

    async def _take_down(self) -> None:
        for names in (("nginx", "backend"), ("redis", "postgres")):
            await asyncio.gather(*(self.services[name].stop(timeout=5.0) for name in names))
        self._gone = True
        kill_children()
        if self._publishing is not None:
            self._publishing.cancel()
        self._folder.state_file.unlink(missing_ok=True)
        for service in self.services.values():
            service.log.close()
        shutil.rmtree(self._context.run_dir, ignore_errors=True)
        self._hang_up()

    # --- the one who called up, and the one we belong to ---

    def _watch_line(self) -> None:
        """Until the stack is up we belong to the ``up`` that waits for it: when that goes, so do we."""
        if self._line is None:
            return
        self._line.setblocking(False)
        self._loop.add_reader(self._line, self._line_readable)

    def _line_readable(self) -> None:
        if self._line is None:
            return
        try:
            if self._line.recv(64):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._hang_up()
        self._leave.set()

    def _tell(self, message: dict[str, object]) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.sendall((json.dumps(message) + "\n").encode())

    def _hang_up(self) -> None:
        if self._line is not None:
            self._loop.remove_reader(self._line)
            self._line.close()
            self._line = None

    def _watch_owner(self) -> None:
        if self._orders.owner_pid is None:
            return
        try:
            owner = os.pidfd_open(self._orders.owner_pid)
        except OSError:
            self._leave.set()
            return
        self._loop.add_reader(owner, self._leave.set)

    # --- what is published ---

    def _changed(self) -> None:
        if self._publishing is None and not self._gone:
            self._publishing = self._loop.call_later(PUBLISH_DELAY, self.publish)

    def publish(self) -> None:
        """Write ``state.json``."""
        if self._publishing is not None:
            self._publishing.cancel()
        self._publishing = None
        ports = self._context.ports
        document = {
            "schema": SCHEMA,
            "published_at": stamp(now()),
            "state": str(self._folder.root),
            "checkout": str(CHECKOUT),
            "control": str(self._context.run_dir / "control.sock"),
            "run_dir": str(self._context.run_dir),
            "version": VERSION,
            "supervisor": self._supervisor,
            "guardian": self._guardian,
            "urls": {
                "https": f"https://localhost:{ports['https']}",
                "http": f"http://localhost:{ports['http']}",
                "api": f"http://127.0.0.1:{ports['backend']}",
            },
            "services": {name: service.published() for name, service in self.services.items()},
        }
        write_json(self._folder.state_file, document)

    # --- control ---

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer: dict[str, object] = {"ok": True}
            try:
                async with asyncio.timeout(5):
                    request = json.loads(await reader.readline())
                await self._obey(request)
            except (Refused, ValueError, KeyError, TypeError, TimeoutError, OSError) as error:
                answer = {"ok": False, "error": str(error) or type(error).__name__}
            if not self._gone:
                self.publish()  # so that whoever asked finds the result
            writer.write((json.dumps(answer) + "\n").encode())
            await writer.drain()
        except OSError:
            log.info("the client went away")
        finally:
            writer.close()

    async def _obey(self, request: dict[str, Any]) -> None:
        operation = request["op"]
        if operation == "down":
            self._leave.set()
            return
        if operation == "ping":
            return
        role = request.get("role", "")
        if role not in self.services:
            raise Refused(f"there is no service {role}")
        service = self.services[role]
        if operation == "kill":
            await service.kill(int(request.get("signal", signal.SIGKILL)))
            return
        simple: dict[str, Callable[[], Awaitable[None]]] = {
            "start": service.start,
            "stop": service.stop,
            "restart": service.restart,
            "recreate": service.recreate,
            "pause": service.pause,
            "unpause": service.unpause,
        }
        if operation not in simple:
            raise Refused(f"there is no operation {operation}")
        await simple[operation]()


def supervise(orders: Orders, line: socket.socket, guardian: int) -> int:
    """Run a supervisor in this process until it goes down; its exit status."""
    become_subreaper()
    die_with_parent(signal.SIGTERM, guardian)

    async def main() -> int:
        return await Supervisor(orders, line).run()

    try:
        return asyncio.run(main())
    except Exception as error:
        log.exception("the supervisor could not start")
        with contextlib.suppress(OSError):
            line.sendall((json.dumps({"error": f"the supervisor could not start: {error}"}) + "\n").encode())
        return 1


def sweep_run_dir(folder: StateFolder) -> None:
    """Remove the temporary folder of the sockets that a killed supervisor left."""
    document = folder.read()
    if document is not None:
        run_dir = Path(str(document.get("run_dir", "")))
        if run_dir.name.startswith("allodoc-demo-") and run_dir.is_dir():
            shutil.rmtree(run_dir, ignore_errors=True)


def _identity(pid: int) -> dict[str, int]:
    found = identify(pid) or Identity(pid, 0)
    return {"pid": found.pid, "start_ticks": found.start_ticks}
