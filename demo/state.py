"""The state folder of a demo, and the file in it that tells everybody else what runs.

``STATE/state.json`` (mode 0600, replaced atomically, removed by a clean ``down``) is the contract between the demo and
its readers, such as ``allodoc_health.runtimes.process_supervisor``. Times are RFC 3339 in UTC or null. It holds::

    schema        "allodoc-demo-state/1"
    published_at  when it was written
    state         the state folder
    checkout      the folder in which ``python -m demo`` works
    control       path of the supervisor's Unix socket: one JSON request a connection, one JSON answer, a line each;
                  {"op": "ping"} is answered {"ok": true} after this file was written anew
    run_dir       folder of the sockets (STATE/run, or a short one under the temporary folder)
    version       of the demo
    supervisor    {pid, start_ticks}; start_ticks is field 22 of /proc/PID/stat and tells a reused pid apart
    guardian      {pid, start_ticks} of the supervisor's parent, which sweeps up after it
    urls          {https, http, api}
    services      by role:
      role, name, id, image, user, command[], cwd
      labels{}        allodoc.role, allodoc.state, allodoc.checkout, allodoc.deploy-log, and, of what runs from the
                      checkout, org.opencontainers.image.revision: its commit when the service was started
      stop_signal     by name; stop_timeout: seconds until a service that was told to stop is killed
      last_stop       {at, seconds, exit_code, forced} of the last time it was told to, or null; forced: it was killed
      status          created | running | paused | restarting | exited
      pid, start_ticks
      uid, gid        who it runs as; capability: the one number it keeps of root's, or null
      health          {status, failing_streak, last_output, checked_at} or null
      exit_code       of the last end (128 + signal), null while it never ended; error: why it could not be started
      oom_killed, restart_count, restart_policy, created_at, started_at, finished_at
      ports           [{host_ip, host_port, port}], port being the conventional one (5432, 6379, 3000, 443, 80)
      mounts          [{kind, source, destination, writable}]
      log_files       oldest first; lines are ``<RFC 3339 time with nanoseconds> stdout|stderr <text>``
      env_file        what the service is given at its next start or recreation (dotenv, mode 0600)
      given_env_file  what the running one was given (dotenv, mode 0600)
      exec_env_file   what a command run inside it is given on top: PATH, where to connect, the password (0600)

Beside it: ``ROLE/`` with the env files and data of each service, ``checkout/`` (the release that backend and nginx run
from, see ``demo/release/checkout.py``), ``deploy.log``, ``logs/``, ``backups/``, ``ports.json``, ``smoke.json`` (the
account that logs in for tests), and ``supervisor.log``.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

SCHEMA = "allodoc-demo-state/1"
CHECKOUT = Path(__file__).resolve().parent.parent
DEFAULT_STATE = CHECKOUT / ".demo"
ROLES = ("postgres", "redis", "backend", "nginx")
SOCKET_PATH_LIMIT = 90  # sun_path holds 108 bytes; PostgreSQL adds its own file name to the folder


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The paths inside one state folder."""

    root: Path

    @property
    def state_file(self) -> Path:
        """The published state."""
        return self.root / "state.json"

    @property
    def ports_file(self) -> Path:
        """The ports chosen at the first start."""
        return self.root / "ports.json"

    @property
    def smoke_file(self) -> Path:
        """E-mail and password of the smoke account."""
        return self.root / "smoke.json"

    @property
    def supervisor_log(self) -> Path:
        """What the supervisor itself has to say."""
        return self.root / "supervisor.log"

    @property
    def logs(self) -> Path:
        """The captured output of the services."""
        return self.root / "logs"

    @property
    def checkout(self) -> Path:
        """The working tree of the release that backend and nginx run from."""
        return self.root / "checkout"

    @property
    def deploy_log(self) -> Path:
        """What each ``up`` wrote of itself, as a deploy script would."""
        return self.root / "deploy.log"

    @property
    def backups(self) -> Path:
        """The database dumps."""
        return self.root / "backups"

    def service(self, role: str) -> Path:
        """The folder of one service."""
        return self.root / role

    def env_file(self, role: str) -> Path:
        """What a service is given at its next start."""
        return self.root / role / "env"

    def given_env_file(self, role: str) -> Path:
        """What the running service was given."""
        return self.root / role / "env.given"

    def exec_env_file(self, role: str) -> Path:
        """What a command inside the service is given on top."""
        return self.root / role / "env.exec"

    def read(self) -> dict[str, Any] | None:
        """The published state, or ``None`` when there is none that can be understood."""
        try:
            document = json.loads(self.state_file.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            return None
        return cast("dict[str, Any]", document)


def default_state_folder() -> Path:
    """The state folder used without ``--state``: from the environment, else ``.demo`` in the checkout."""
    named = os.environ.get("ALLODOC_DEMO_STATE")
    return Path(named).absolute() if named else DEFAULT_STATE


def write_private(path: Path, content: str) -> None:
    """Replace a file by one with this content that only its owner may read; readers see the old or the new one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, document: object) -> None:
    """Like :func:`write_private`, with a document."""
    write_private(path, json.dumps(document, indent=1) + "\n")


def now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


def stamp(moment: datetime | None) -> str | None:
    """A time as the published state writes it."""
    return moment.isoformat().replace("+00:00", "Z") if moment else None
