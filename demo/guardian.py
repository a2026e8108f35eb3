"""The supervisor's parent: it inherits what a killed supervisor leaves behind, and ends it.

``python -m demo.guardian ORDERS`` is started by ``up``, and inherits one end of a socket from it.
It and the supervisor watch each other: whichever is killed, the other takes everything down.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

from demo.binaries import find_binaries
from demo.processes import become_subreaper, kill_children, send, service_account
from demo.state import StateFolder
from demo.supervisor import Orders, supervise, sweep_run_dir


def main() -> int:
    """Fork the supervisor, wait for it, and leave nothing of it behind."""
    given = json.loads(sys.argv[1])
    folder = StateFolder(Path(given["state"]))
    logging.basicConfig(
        filename=folder.supervisor_log, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    line = socket.socket(fileno=given["line"])
    line.set_inheritable(False)
    try:
        binaries = find_binaries(given["binaries"])
        # What lies in the state folder is laid so that the account can read it.
        account = service_account([folder.root.parent, *binaries.paths()])
    except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits must hear of it
        line.sendall((json.dumps({"error": str(error)}) + "\n").encode())
        return 1
    orders = Orders(folder, binaries, account, float(given["timeout"]), given["owner_pid"])
    become_subreaper()
    guardian = os.getpid()
    supervisor = os.fork()
    if supervisor == 0:
        os._exit(supervise(orders, line, guardian))
    line.close()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: send(supervisor, signal.SIGTERM))
    status = 1
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, ended = os.waitpid(-1, 0)
            if pid == supervisor:
                status = os.waitstatus_to_exitcode(ended)
                break
    sweep()
    if status < 0:
        sweep_run_dir(folder)
    return abs(status)


def sweep() -> None:
    """Kill and reap whatever we inherited, until there is nothing left."""
    while True:
        kill_children()
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)  # the kernel is still taking them down


if __name__ == "__main__":
    sys.exit(main())
