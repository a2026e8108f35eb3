"""A demo seen from outside: is it up, bring it up, ask its supervisor for something, take it down."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from filelock import FileLock

from demo.binaries import find_binaries
from demo.install import install
from demo.processes import Identity, kill_tree, send
from demo.release import checkout
from demo.release.log import DeployLog
from demo.state import CHECKOUT, StateFolder
from demo.supervisor import sweep_run_dir

LOCK_TIMEOUT = 120.0
DOWN_TIMEOUT = 20.0


class DemoError(Exception):
    """What was asked did not work; the message is for the operator."""


def running(folder: StateFolder) -> dict[str, Any] | None:
    """The published state if its supervisor lives, else ``None``."""
    document = folder.read()
    return document if document is not None and _identity(document["supervisor"]).alive else None


def up(
    folder: StateFolder,
    *,
    binaries: str = "auto",
    timeout: float = 60.0,
    owner_pid: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> bool:
    """Bring it up and wait until every service is healthy.

    Returns False when it was up already. When it does not become healthy it is taken down again, and
    :class:`DemoError` says which service it was, with its last lines. The same happens when the caller dies meanwhile.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.root / "up.lock", timeout=LOCK_TIMEOUT):
        if running(folder) is not None:
            return False
        clear(folder)
        if install(find_binaries(binaries)):
            progress("installed the backend's packages")
        if checkout.lay(folder):
            progress("checked out this release")
        log = DeployLog(folder.deploy_log, checkout.revision(folder.checkout))
        log.begin()

        def tell(message: str) -> None:
            log.say("INFO", message)
            progress(message)

        ours, theirs = socket.socketpair()
        orders = {"state": str(folder.root), "binaries": binaries, "timeout": timeout, "owner_pid": owner_pid}
        with ours:
            with theirs, folder.supervisor_log.open("ab") as output:
                guardian = _start_guardian(orders, theirs, output.fileno())
            try:
                problem = _follow(ours, tell, timeout + 30)
            except BaseException:
                log.fail("interrupted")
                ours.close()  # the supervisor takes everything down when this end closes
                _wait_for_end(guardian)
                raise
        if problem is not None:
            _wait_for_end(guardian)
            log.fail(problem)
            raise DemoError(problem)
        guardian.returncode = 0  # it stays; Popen must not wait for it
        log.end()
    return True


def down(folder: StateFolder) -> bool:
    """Take it down and wait until nothing of it runs. Returns False when it was not up."""
    document = folder.read()
    if document is None:
        return False
    supervisor, guardian = _identity(document["supervisor"]), _identity(document["guardian"])
    if not supervisor.alive and not guardian.alive:
        clear(folder)
        return False
    for member in (supervisor, guardian):
        if member.alive:
            send(member.pid, signal.SIGCONT)
    with contextlib.suppress(OSError, DemoError):
        ask(document, {"op": "down"}, 5)
    if not _wait_until(lambda: not supervisor.alive and not guardian.alive, DOWN_TIMEOUT):
        if supervisor.alive:
            send(supervisor.pid, signal.SIGKILL)  # the guardian sweeps up
        _wait_until(lambda: not guardian.alive, 5)
    clear(folder)
    return True


def clear(folder: StateFolder) -> None:
    """Remove what a supervisor that is gone left behind: services, should any live, and its published state."""
    document = folder.read()
    if document is not None:
        for service in document["services"].values():
            if service["pid"] is not None:
                identity = Identity(service["pid"], service["start_ticks"])
                if identity.alive:
                    kill_tree(identity.pid)
        guardian = _identity(document["guardian"])
        if not _wait_until(lambda: not guardian.alive, 5):
            kill_tree(guardian.pid)
        sweep_run_dir(folder)
    folder.state_file.unlink(missing_ok=True)


def ask(document: dict[str, Any], request: dict[str, object], timeout: float = 30.0) -> None:
    """Send one request to the supervisor. Raises :class:`DemoError` with its reason if it refuses."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(timeout)
        try:
            line.connect(document["control"])
            line.sendall((json.dumps(request) + "\n").encode())
            answer = json.loads(line.makefile("rb").readline() or b"{}")
        except (OSError, ValueError) as error:
            raise DemoError(f"the supervisor does not answer: {error}") from error
    if not answer.get("ok"):
        raise DemoError(str(answer.get("error", "the supervisor hung up")))


def _start_guardian(orders: dict[str, object], line: socket.socket, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo.guardian", json.dumps({**orders, "line": line.fileno()})],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        pass_fds=(line.fileno(),),
    )


def _follow(line: socket.socket, progress: Callable[[str], None], timeout: float) -> str | None:
    """Read what the supervisor tells until the stack is up (``None``) or has failed (why)."""
    deadline = time.monotonic() + timeout
    pending = b""
    while True:
        ready, _, _ = select.select([line], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return f"the supervisor said nothing for {timeout:g} s"
        data = line.recv(65536)
        if not data:
            return "the supervisor ended before the demo was up, see supervisor.log in the state folder"
        *messages, pending = (pending + data).split(b"\n")
        for message in map(json.loads, messages):
            if "error" in message:
                return str(message["error"])
            if "ready" in message:
                return None
            progress(str(message["progress"]))


def _wait_for_end(guardian: subprocess.Popen[bytes]) -> None:
    try:
        guardian.wait(DOWN_TIMEOUT)
    except subprocess.TimeoutExpired:
        kill_tree(guardian.pid)


def _wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _identity(document: dict[str, int]) -> Identity:
    return Identity(document["pid"], document["start_ticks"])
