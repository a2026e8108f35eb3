"""A long and lossy way between the suite and the demo: each port of it reached through a line that takes its time."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from random import Random

from tests.beds.embedded import Demo

SYN_AGAIN = 1.0
"""Seconds after which a kernel asks again for a connection whose first packet was lost."""

REACHED = {"postgres": ("port",), "redis": ("port",), "backend": ("port",), "nginx": ("port", "http_port")}
CONVENTIONAL = {"port": 443, "http_port": 80}


class Line:
    """Hands bytes on from its own port to another one of loopback, as a network would that is slow and loses packets.

    ``one_way`` is what each piece takes in either direction. A piece that is lost comes when a kernel would have sent
    it again, and what follows it waits. The kernel completes a connection at once: what that would take comes on top of
    the first piece.
    """

    def __init__(self, to: int, one_way: float, loss: float, seed: int) -> None:
        self.connections = 0
        self._to = to
        self._one_way = one_way
        self._loss = loss
        self._random = Random(seed)  # noqa: S311  # losses, not secrets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ends: list[socket.socket] = [self._listener]
        self._workers: list[threading.Thread] = []
        self._work(self._accept)

    def _work(self, function: Callable[[], None]) -> None:
        self._workers.append(threading.Thread(target=function, daemon=True))
        self._workers[-1].start()

    def _late(self, again: float) -> float:
        return again if self._random.random() < self._loss else 0.0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                opened = time.monotonic() + 2 * self._one_way + self._late(SYN_AGAIN)
                server = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [client, server]
                self._carry(client, server, opened)
                self._carry(server, client, opened)

    def _carry(self, source: socket.socket, sink: socket.socket, opened: float) -> None:
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def take() -> None:
            due = opened
            piece = b"-"
            while piece:
                try:
                    piece = source.recv(65536)
                except OSError:
                    piece = b""
                # Sent again after a round trip and the 0.2 s that Linux adds at least.
                due = max(due, time.monotonic() + self._one_way) + self._late(2 * self._one_way + 0.2)
                under_way.put((due, piece))

        def give() -> None:
            piece = b"-"
            with contextlib.suppress(OSError):
                while piece:
                    due, piece = under_way.get()
                    time.sleep(max(0.0, due - time.monotonic()))
                    if piece:
                        sink.sendall(piece)
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

        self._work(take)
        self._work(give)

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for worker in self._workers:
            worker.join(5)
        for end in self._ends:
            end.close()


@contextmanager
def far_away(demo: Demo, one_way: float, loss: float = 0.0, seed: int = 0) -> Iterator[tuple[str, Mapping[str, Line]]]:
    """The demo's target file with every address at the near end of such a line, and the lines by role and port."""
    lines: dict[str, Line] = {}
    text = demo.target
    with ExitStack() as open_lines:
        for role, keys in REACHED.items():
            text += f'[services.{role}]\nhost = "127.0.0.1"\n'
            for key in keys:
                inner = CONVENTIONAL[key] if role == "nginx" else 0
                line = Line(demo.port(role, inner), one_way, loss, seed + len(lines))
                open_lines.callback(line.close)
                lines[f"{role} {key}"] = line
                text += f"{key} = {line.port}\n"
            if role == "backend":
                text += f'url = "http://127.0.0.1:{line.port}"\n'
        yield text, lines
