"""The supervisor's children: started, waited for, and the output of helpers collected."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from demo.processes import Account, kill_tree, spawn

OUTPUT_LIMIT = 64 * 1024


class Children:
    """Reaps every child of this process, also orphans that it inherits as a subreaper."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, Callable[[int], None]] = {}
        loop.add_signal_handler(signal.SIGCHLD, self.reap)

    @property
    def known(self) -> set[int]:
        """Children that somebody waits for; all others are orphans."""
        return set(self._waiting)

    def watch(self, process: subprocess.Popen[bytes], ended: Callable[[int], None]) -> None:
        """Call ``ended`` with the exit code (128 + signal) when the child ends."""
        self._waiting[process.pid] = ended
        process.returncode = 0  # we reap: its Popen must neither wait for it nor complain that it still runs
        self._loop.call_soon(self.reap)

    def reap(self) -> None:
        """Collect all that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            ended = self._waiting.pop(pid, None)
            if ended is not None:
                ended(code if code >= 0 else 128 - code)

    async def run(
        self, command: Sequence[str], env: Mapping[str, str], account: Account, cwd: Path, timeout: float
    ) -> tuple[int, str]:
        """Run a helper to its end; its exit code and output. Raises TimeoutError after killing it."""
        with tempfile.TemporaryFile() as output:
            process = spawn(command, env=env, cwd=cwd, account=account, stdout=output, stderr=output)
            done: asyncio.Future[int] = self._loop.create_future()
            self.watch(process, lambda code: None if done.done() else done.set_result(code))
            try:
                async with asyncio.timeout(timeout):
                    code = await done
            except BaseException:
                kill_tree(process.pid)
                raise
            output.seek(0)
            return code, output.read(OUTPUT_LIMIT).decode(errors="replace")
