"""What a state folder is made with: its folders, its ports, its secrets and the environment of each service."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.binaries import Binaries
from demo.envfile import read_env, write_env
from demo.processes import Account
from demo.state import ROLES, SOCKET_PATH_LIMIT, StateFolder, write_json

PORT_NAMES = ("postgres", "redis", "backend", "https", "http")
# Below the range from which the kernel takes the local ports of outgoing connections.
PORT_RANGE = (20000, 32000)
DATABASE = "allodoc_prod"
SMOKE_EMAIL = "smoke@allodoc.test"


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a service is started with."""

    folder: StateFolder
    binaries: Binaries
    account: Account
    ports: Mapping[str, int]
    run_dir: Path

    def socket_dir(self, role: str) -> Path:
        """A folder for a service's Unix socket, with a path short enough for one."""
        return self.run_dir / role


def make_folders(folder: StateFolder, account: Account) -> None:
    """Create what is missing. The services' own folders belong to their account; the rest is closed to it."""
    mode = 0o711 if account.foreign else 0o700
    for path in (folder.root, folder.checkout, *(folder.service(role) for role in ROLES)):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    for path in (folder.logs, folder.backups):
        path.mkdir(exist_ok=True)
        path.chmod(0o700)


def make_owned(path: Path, account: Account) -> Path:
    """A folder that belongs to the services' account alone."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    if account.foreign:
        os.chown(path, account.uid, account.gid)
    return path


def make_run_dir(folder: StateFolder, account: Account) -> Path:
    """The folder of the sockets: ``STATE/run``, or a short temporary one where that path is too long for sockets."""
    run_dir = folder.root / "run"
    if len(os.fsencode(run_dir)) > SOCKET_PATH_LIMIT - len("/postgres/"):
        run_dir = Path(tempfile.mkdtemp(prefix="allodoc-demo-", dir="/tmp"))
    run_dir.mkdir(exist_ok=True)
    run_dir.chmod(0o711 if account.foreign else 0o700)
    for stale in run_dir.glob("**/*sock*"):
        stale.unlink(missing_ok=True)
    return run_dir


def choose_ports(folder: StateFolder) -> dict[str, int]:
    """The ports of this state folder: those of the last time as far as they are free, others otherwise."""
    try:
        kept = {name: int(port) for name, port in json.loads(folder.ports_file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        kept = {}
    held: list[socket.socket] = []
    ports: dict[str, int] = {}
    try:
        for name in PORT_NAMES:
            candidates = [kept[name]] if name in kept else []
            candidates += random.sample(range(*PORT_RANGE), 200)
            for port in candidates:
                taken = _take(port)
                if taken is not None:
                    held.append(taken)
                    ports[name] = port
                    break
            else:
                raise RuntimeError(f"no free port between {PORT_RANGE[0]} and {PORT_RANGE[1]} on 127.0.0.1")
    finally:
        for taken in held:
            taken.close()
    if ports != kept:
        write_json(folder.ports_file, ports)
    _move_ports(folder, kept, ports)
    return ports


def make_environments(context: Context) -> None:
    """Write the environment files that are missing, with new secrets that fit together."""
    folder, ports = context.folder, context.ports
    postgres = read_env(folder.env_file("postgres"))
    if not postgres:
        postgres = {"POSTGRES_USER": DATABASE, "POSTGRES_PASSWORD": secrets.token_hex(16), "POSTGRES_DB": DATABASE}
        write_env(folder.env_file("postgres"), postgres, "EXTRA_ARGS may hold more arguments for the server")
    redis = read_env(folder.env_file("redis"))
    if not redis:
        redis = {"REDIS_PASSWORD": secrets.token_hex(16)}
        write_env(folder.env_file("redis"), redis, "EXTRA_ARGS may hold more arguments for the server")
    if not folder.env_file("nginx").exists():
        write_env(folder.env_file("nginx"), {"TZ": "UTC"})
    if not folder.env_file("backend").exists():
        write_env(
            folder.env_file("backend"), _backend_environment(ports, postgres, redis), "the backend's .env.production"
        )
    passwords = {
        "DATABASE_PASSWORD": postgres.get("POSTGRES_PASSWORD", ""),
        "REDIS_PASSWORD": redis.get("REDIS_PASSWORD", ""),
    }
    if not (folder.checkout / ".env").exists():
        write_env(folder.checkout / ".env", passwords, "what docker-compose.prod.yml asks for")
    if not folder.smoke_file.exists():
        write_json(folder.smoke_file, {"email": SMOKE_EMAIL, "password": secrets.token_urlsafe(18)})


def _backend_environment(
    ports: Mapping[str, int], postgres: Mapping[str, str], redis: Mapping[str, str]
) -> dict[str, str]:
    return {
        "NODE_ENV": "production",
        "HOST": "127.0.0.1",
        "PORT": str(ports["backend"]),
        "API_PREFIX": "api/v1",
        "LOG_LEVEL": "log",
        "DATABASE_HOST": "127.0.0.1",
        "DATABASE_PORT": str(ports["postgres"]),
        "DATABASE_USERNAME": postgres.get("POSTGRES_USER", DATABASE),
        "DATABASE_PASSWORD": postgres.get("POSTGRES_PASSWORD", ""),
        "DATABASE_NAME": postgres.get("POSTGRES_DB", DATABASE),
        "DATABASE_SSL": "false",
        "DATABASE_POOL_SIZE": "10",
        "DATABASE_RETRY_ATTEMPTS": "5",
        "DATABASE_RETRY_DELAY_MS": "1000",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(ports["redis"]),
        "REDIS_PASSWORD": redis.get("REDIS_PASSWORD", ""),
        "JWT_ACCESS_SECRET": secrets.token_hex(32),
        "JWT_REFRESH_SECRET": secrets.token_hex(32),
        "JWT_ACCESS_EXPIRATION": "15m",
        "JWT_REFRESH_EXPIRATION": "7d",
        "BCRYPT_ROUNDS": "12",
        "COOKIE_SECRET": secrets.token_hex(32),
        "CORS_ORIGIN": f"https://localhost:{ports['https']}",
    }


def _move_ports(folder: StateFolder, old: Mapping[str, int], new: Mapping[str, int]) -> None:
    """Let the backend's environment follow ports that had to change, unless somebody set them otherwise."""
    path = folder.env_file("backend")
    if not path.exists():
        return
    variables = read_env(path)
    moved = dict(variables)
    for name, variable in (("postgres", "DATABASE_PORT"), ("redis", "REDIS_PORT"), ("backend", "PORT")):
        if name in old and variables.get(variable) == str(old[name]):
            moved[variable] = str(new[name])
    if "https" in old and variables.get("CORS_ORIGIN") == f"https://localhost:{old['https']}":
        moved["CORS_ORIGIN"] = f"https://localhost:{new['https']}"
    if moved != variables:
        write_env(path, moved, "the backend's .env.production")


def _take(port: int) -> socket.socket | None:
    candidate = socket.socket()
    try:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT don't matter
        candidate.bind(("127.0.0.1", port))
        candidate.listen(1)  # SO_REUSEADDR lets two bind; only one can listen
    except OSError:
        candidate.close()
        return None
    return candidate
