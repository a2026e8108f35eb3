"""Linux processes: who is who, whole trees, and children that cannot outlive their parent or keep root's rights."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that can be told from a later one with the same pid."""

    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether that very process still exists and is no zombie."""
        found = read_stat(self.pid)
        return found is not None and found.start_ticks == self.start_ticks and found.state not in "ZX"


@dataclass(frozen=True, slots=True)
class Stat:
    """What /proc/PID/stat says, as far as the demo needs it."""

    state: str
    ppid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a service runs as. ``capability`` lets it reach files below folders closed to it, if it must."""

    name: str
    uid: int
    gid: int
    capability: int | None = None

    @property
    def foreign(self) -> bool:
        """Whether children have to change their user to become it."""
        return self.uid != os.geteuid()


def read_stat(pid: int) -> Stat | None:
    """Read /proc/PID/stat; ``None`` when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in brackets may itself hold brackets and spaces
    return Stat(state=fields[0], ppid=int(fields[1]), start_ticks=int(fields[19]))


def identify(pid: int) -> Identity | None:
    """The identity of a running process."""
    found = read_stat(pid)
    return Identity(pid, found.start_ticks) if found else None


def descendants(pid: int) -> list[int]:
    """All processes below this one, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if entry.isdigit() and (found := read_stat(int(entry))) is not None and found.state not in "ZX":
            children.setdefault(found.ppid, []).append(int(entry))
    ordered: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(0), [])
        ordered += below
        waiting += below
    return ordered


def send(pid: int, number: int) -> bool:
    """Send a signal; whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it, so that nothing it forked meanwhile gets away."""
    send(pid, signal.SIGSTOP)  # first, so that it can't fork while we look
    for member in (*descendants(pid), pid):
        send(member, signal.SIGKILL)


def kill_children(known: Iterable[int] = ()) -> None:
    """SIGKILL every child of ours that is not known, with all below it: orphans that a subreaper inherited."""
    keep = set(known)
    own = os.getpid()
    for member in descendants(own):
        found = read_stat(member)
        if found is not None and found.ppid == own and member not in keep:
            kill_tree(member)


def freeze_tree(pid: int) -> None:
    """SIGSTOP a process and everything below it, until no new child turns up."""
    stopped: set[int] = set()
    while fresh := [member for member in (pid, *descendants(pid)) if member not in stopped]:
        for member in fresh:
            send(member, signal.SIGSTOP)
            stopped.add(member)


def thaw_tree(pid: int) -> None:
    """SIGCONT a process and everything below it, children first: a parent must not find them stopped."""
    for member in (*reversed(descendants(pid)), pid):
        send(member, signal.SIGCONT)


def become_subreaper() -> None:
    """Inherit the orphans of all descendants."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int, parent: int) -> None:
    """Get this signal when the parent dies. ``parent`` is who it should be: it may be gone already."""
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    account: Account,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, as that account, which is killed when we die.

    Must be called in the main thread: the kernel ties the death signal to the thread that forked.
    """
    return subprocess.Popen(
        list(command),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=_preparation(account, os.getpid()),
    )


def become(account: Account) -> None:
    """Turn this process into one of that account; nothing happens if it is one already."""
    if not account.foreign:
        return
    if account.capability is not None:
        _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(account.gid)
    os.setuid(account.uid)
    if account.capability is not None:
        _keep_only(account.capability)


def service_account(paths: Iterable[Path]) -> Account:
    """Who the services run as: ourselves, or as root an unprivileged user, because PostgreSQL refuses root.

    ``paths`` are what it must be able to read. When folders above them are closed to it (a checkout in root's home),
    it is given the one capability that reads past them, and stays unprivileged otherwise.
    """
    if os.geteuid() != 0:
        return current_account()
    for name in ("nobody", "postgres", "daemon"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            closed = next((path for path in paths if not _others_reach(path)), None)
            return Account(name, entry.pw_uid, entry.pw_gid, None if closed is None else _search_capability(closed))
    raise RuntimeError("running as root, but there is no user nobody, postgres or daemon to run PostgreSQL as")


def current_account() -> Account:
    """Who we are."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Account(name, uid, os.getegid())


def account_named(user: str) -> Account:
    """An account by its name or number."""
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        raise LookupError(f"there is no user {user}") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _preparation(account: Account, parent: int) -> Callable[[], None]:
    """What a child does between fork and exec."""

    def prepare() -> None:
        become(account)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(signal.SIGKILL, parent)  # last: changing the user clears it

    return prepare


def _keep_only(capability: int) -> None:
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    bits = 1 << capability
    data = (_CapabilityData * 2)(_CapabilityData(bits, bits, bits), _CapabilityData(0, 0, 0))
    if _libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _search_capability(closed: Path) -> int:
    held = 0
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapPrm:"):
            held = int(line.split()[1], 16)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if held >> capability & 1:
            return capability
    raise RuntimeError(f"{closed} can't be reached by the unprivileged user that the services run as")


def _others_reach(path: Path) -> bool:
    """Whether any user may read this file, or enter this folder, through every folder above it."""
    resolved = path.resolve()
    mode = resolved.stat().st_mode
    wanted = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
    return bool(mode & wanted) and all(parent.stat().st_mode & stat.S_IXOTH for parent in resolved.parents)


def _prctl(option: int, *arguments: int) -> None:
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(ctypes.c_int(option), *values) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
