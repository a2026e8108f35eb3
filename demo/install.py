"""The backend's packages: installed once, and again when what is wanted changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from demo.binaries import Binaries
from demo.services.backend import FOLDER

MARK = ".installed"
TIMEOUT = 300


class InstallFailed(Exception):
    """npm could not install the packages; the message holds what it said."""


def installed(folder: Path = FOLDER) -> bool:
    """Whether the packages that the lock file names are there."""
    mark = folder / "node_modules" / MARK
    return mark.exists() and mark.read_text(encoding="utf-8") == _wanted(folder)


def install(binaries: Binaries, folder: Path = FOLDER) -> bool:
    """Install them with ``npm ci`` unless they are there. Returns whether there was anything to do."""
    if installed(folder):
        return False
    with FileLock(folder / ".install.lock", timeout=TIMEOUT):
        if installed(folder):
            return False
        env = {**os.environ, "PATH": os.pathsep.join([str(binaries.node.parent), os.environ.get("PATH", "")])}
        command = [*binaries.npm, "ci", "--omit=dev", "--no-update-notifier", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(
                command, cwd=folder, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallFailed(f"npm ci in {folder}: {error}") from error
        if done.returncode != 0:
            shutil.rmtree(folder / "node_modules", ignore_errors=True)
            raise InstallFailed(f"npm ci in {folder} failed ({done.returncode}):\n{done.stderr.strip()[-2000:]}")
        (folder / "node_modules" / MARK).write_text(_wanted(folder), encoding="utf-8")
    return True


def _wanted(folder: Path) -> str:
    names = ("package.json", "package-lock.json")
    return hashlib.sha256(b"\0".join((folder / name).read_bytes() for name in names)).hexdigest()
