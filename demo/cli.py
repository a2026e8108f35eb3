"""The command line of the demo.

Exit status: 0 done (``status``: everything is healthy), 1 it did not work (``status``: something is not healthy),
2 wrong usage, 3 the demo is not up; ``exec``: that of the command, 126 when it can't be run, 127 when there is none.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from demo import control
from demo.binaries import SOURCES, BinaryMissing, find_binaries
from demo.envfile import read_env
from demo.install import InstallFailed, install
from demo.processes import Account, Identity, account_named, become, descendants, die_with_parent
from demo.state import ROLES, StateFolder, default_state_folder

SIMPLE = ("start", "stop", "restart", "recreate", "pause", "unpause")


def main(arguments: Sequence[str]) -> int:
    """Run one command; its exit status."""
    words = list(arguments)
    inner: list[str] = []
    if words[:1] == ["exec"] and "--" in words:
        cut = words.index("--")
        words, inner = words[:cut], words[cut + 1 :]
    options = _parser().parse_args(words)
    folder = StateFolder(Path(options.state).absolute() if options.state else default_state_folder())
    try:
        return _run(options, folder, inner)
    except (control.DemoError, BinaryMissing, InstallFailed, RuntimeError, PermissionError) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", metavar="DIR", help="state folder (default: .demo in the checkout)")
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(prog="python -m demo", description="A complete small AlloDoc on loopback.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, role: str | None = None) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        if role:
            command.add_argument("role", metavar="ROLE", choices=ROLES, nargs=None if role == "one" else "?")
        return command

    starting = add("up", "start everything, and return when it is healthy")
    starting.add_argument("--binaries", choices=SOURCES, default=os.environ.get("ALLODOC_DEMO_BINARIES", "auto"))
    starting.add_argument("--owner-pid", type=int, metavar="PID", help="go down when this process dies")
    starting.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="to become healthy")
    installing = add("install", "install the backend's packages")
    installing.add_argument("--binaries", choices=SOURCES, default=os.environ.get("ALLODOC_DEMO_BINARIES", "auto"))
    add("down", "stop everything")
    add("status", "say which services are healthy")
    add("ps", "list the services")
    add("stats", "show the memory and the CPU time of each service")
    for name in SIMPLE:
        command = add(name, f"{name} a service", "one")
        command.add_argument("--wait", type=float, metavar="SECONDS", help="until the service is healthy")
    killing = add("kill", "send a signal to a service's main process; one that ends it leaves it down", "one")
    killing.add_argument("--signal", default="KILL", metavar="NAME")
    add("inspect", "show what is known of a service, without secrets", "one")
    logs = add("logs", "print what a service wrote, both streams", "one")
    logs.add_argument("--since", default="10m", metavar="DURATION", help="such as 90s, 10m, 2h (default: 10m)")
    logs.add_argument("--tail", type=int, metavar="LINES")
    logs.add_argument("--timestamps", action="store_true", help="begin each line with the time of its arrival")
    inside = add("exec", "run a command in a service's environment: exec ROLE -- COMMAND …", "one")
    inside.add_argument("--user", default="", help="name or number, if not the service's own (needs root)")
    return parser


def _run(options: argparse.Namespace, folder: StateFolder, inner: list[str]) -> int:
    if options.command == "up":
        return _up(options, folder)
    if options.command == "install":
        done = install(find_binaries(options.binaries))
        print("installed the backend's packages" if done else "the backend's packages are installed")
        return 0
    if options.command == "down":
        print("the demo is down" if control.down(folder) else "the demo was not up")
        return 0
    document = control.running(folder)
    if document is None:
        if options.json:
            print(json.dumps({"up": False, "state": str(folder.root)}))
        else:
            print(f"the demo is not up (state folder {folder.root}); start it: python -m demo up", file=sys.stderr)
        return 3
    if options.command == "status":
        return _status(options, document)
    if options.command == "ps":
        _print_table(document)
        return 0
    if options.command == "stats":
        _print_usage(document)
        return 0
    service = document["services"][options.role]
    if options.command == "inspect":
        _inspect(options, service)
        return 0
    if options.command == "logs":
        return _logs(options, service)
    if options.command == "exec":
        return _exec(options, service, inner)
    request: dict[str, object] = {"op": options.command, "role": options.role}
    if options.command == "kill":
        request["signal"] = _signal_number(options.signal)
    control.ask(document, request)
    if getattr(options, "wait", None):
        return _wait(folder, options.role, options.wait)
    return 0


def _up(options: argparse.Namespace, folder: StateFolder) -> int:
    # A terminal that closes or a CI job that is cancelled ends us as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    began = time.monotonic()

    def progress(message: str) -> None:
        if not options.json:
            print(f"{time.monotonic() - began:5.1f} s  {message}", file=sys.stderr, flush=True)

    fresh = control.up(
        folder,
        binaries=options.binaries,
        timeout=options.timeout,
        owner_pid=options.owner_pid,
        progress=progress,
    )
    document = control.running(folder)
    if document is None:
        raise control.DemoError("the demo came up and went down again, see supervisor.log in the state folder")
    if options.json:
        print(json.dumps({"up": True, "already": not fresh, **_public(document)}))
    elif fresh:
        print(f"the demo is up: {document['urls']['https']}")
    else:
        print(f"the demo is up already: {document['urls']['https']}")
    return 0


def _status(options: argparse.Namespace, document: dict[str, Any]) -> int:
    if options.json:
        print(json.dumps({"up": True, **_public(document)}))
    else:
        _print_table(document)
        print(f"\n{document['urls']['https']}   state folder {document['state']}")
    services = document["services"].values()
    return 0 if all(_word(service) == "running (healthy)" for service in services) else 1


def _print_table(document: dict[str, Any]) -> None:
    row = "{:<10} {:<22} {:<8} {:<9} {:<10} {}"
    print(row.format("SERVICE", "STATUS", "PID", "RESTARTS", "UP", "PORTS"))
    for role, service in document["services"].items():
        ports = ", ".join(f"{port['host_ip']}:{port['host_port']}->{port['port']}" for port in service["ports"])
        since = _age(service["started_at"]) if service["pid"] else "-"
        print(row.format(role, _word(service), service["pid"] or "-", service["restart_count"], since, ports))


def _print_usage(document: dict[str, Any]) -> None:
    row = "{:<10} {:>10} {:>12} {:>10}"
    print(row.format("SERVICE", "PROCESSES", "MEMORY MiB", "CPU s"))
    for role, service in document["services"].items():
        members, memory, seconds = 0, 0, 0.0
        for pid in [service["pid"], *descendants(service["pid"])] if service["pid"] else []:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                memory += process.memory_full_info().pss
                times = process.cpu_times()
                seconds += times.user + times.system
                members += 1
        print(row.format(role, members, f"{memory / 2**20:.1f}", f"{seconds:.2f}"))


def _word(service: dict[str, Any]) -> str:
    if service["status"] in ("exited", "restarting") and service["exit_code"] is not None:
        return f"{service['status']} ({service['exit_code']})"
    if service["status"] == "running" and service["health"]:
        return f"running ({service['health']['status']})"
    return str(service["status"])


def _age(started: str) -> str:
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    return str(timedelta(seconds=max(0, seconds)))


def _public(document: dict[str, Any]) -> dict[str, Any]:
    """The published state without secrets."""
    services = {
        role: {**service, "command": _masked(service["command"])} for role, service in document["services"].items()
    }
    return {**document, "services": services}


def _masked(command: list[str]) -> list[str]:
    return [
        "****" if position and command[position - 1] == "--requirepass" else word
        for position, word in enumerate(command)
    ]


def _inspect(options: argparse.Namespace, service: dict[str, Any]) -> None:
    shown = {**service, "command": _masked(service["command"])}
    if options.json:
        print(json.dumps(shown))
        return
    for name, value in shown.items():
        print(f"{name:<16} {json.dumps(value) if isinstance(value, list | dict) else value}")


def _logs(options: argparse.Namespace, service: dict[str, Any]) -> int:
    since = (datetime.now(UTC) - _duration(options.since)).strftime("%Y-%m-%dT%H:%M:%S")
    lines: list[str] = []
    for name in service["log_files"]:
        with contextlib.suppress(FileNotFoundError):
            lines += Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in lines if line[:19] >= since]
    for line in lines[-options.tail :] if options.tail else lines:
        moment, stream, text = (*line.split(" ", 2), "")[:3]
        print(f"{moment} {text}" if options.timestamps else text, file=sys.stderr if stream == "stderr" else sys.stdout)
    return 0


def _exec(options: argparse.Namespace, service: dict[str, Any], inner: list[str]) -> int:
    if not inner:
        print(f"what should be run? python -m demo exec {options.role} -- COMMAND …", file=sys.stderr)
        return 2
    if service["status"] != "running" or not Identity(service["pid"], service["start_ticks"]).alive:
        print(f"{options.role} is {service['status']}, a command can only be run in a running service", file=sys.stderr)
        return 1
    given = {**read_env(Path(service["given_env_file"])), **read_env(Path(service["exec_env_file"]))}
    inherited = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TERM") if name in os.environ}
    account = Account(service["user"], service["uid"], service["gid"], service["capability"])
    env = {**inherited, "PAGER": "cat", **given}
    try:
        if options.user:
            account = account_named(options.user)
        os.chdir(service["cwd"])
        if account.foreign:
            return _exec_as(account, inner, env)
        sys.stdout.flush()
        os.execvpe(inner[0], inner, env)  # noqa: S606 - what the operator typed
    except FileNotFoundError:
        print(f"{options.role}: there is no {inner[0]}", file=sys.stderr)
        return 127
    except (OSError, LookupError, subprocess.SubprocessError) as error:
        print(f"{options.role}: {inner[0]}: {error}", file=sys.stderr)
        return 126


def _exec_as(account: Account, inner: list[str], env: dict[str, str]) -> int:
    """Run it as another user, through pipes that belong to that user: programs like nginx open /dev/stdout anew."""
    pipes = [os.pipe(), os.pipe()]
    for _, writer in pipes:
        os.fchown(writer, account.uid, account.gid)
    parent = os.getpid()

    def prepare() -> None:
        become(account)
        die_with_parent(signal.SIGKILL, parent)

    process = subprocess.Popen(inner, env=env, stdout=pipes[0][1], stderr=pipes[1][1], preexec_fn=prepare)
    relays = []
    for (reader, writer), target in zip(pipes, (1, 2), strict=True):
        os.close(writer)
        relays.append(threading.Thread(target=_relay, args=(reader, target), daemon=True))
        relays[-1].start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the command too, which decides
    code = process.wait()
    for relay in relays:
        relay.join(timeout=1.0)  # something that it left in the background may hold the pipe
    return code if code >= 0 else 128 - code


def _relay(reader: int, target: int) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(reader, 65536):
            while data:
                data = data[os.write(target, data) :]


def _wait(folder: StateFolder, role: str, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        document = control.running(folder)
        if document is None:
            break
        if _word(document["services"][role]) == "running (healthy)":
            return 0
        time.sleep(0.02)
    print(f"{role} is not healthy after {seconds:g} s", file=sys.stderr)
    return 1


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise control.DemoError(f"--since takes a duration such as 90s, 10m or 2h, not {text}")
    return timedelta(seconds=int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]])


def _signal_number(name: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return signal.Signals[name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"]
    except KeyError:
        raise control.DemoError(f"there is no signal {name}") from None
