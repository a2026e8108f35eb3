"""A hop between a client and a server: it counts connections, keeps what the client sends, and can be slow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Relay:
    """Hands bytes on from its own port to another one of loopback, each answer after ``delay`` seconds."""

    def __init__(self, to: int, delay: float = 0.0) -> None:
        self.connections = 0
        self.sent = b""
        self._to = to
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._handlers: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._handlers.append(threading.Thread(target=self._handle, args=(client,), daemon=True))
            self._handlers[-1].start()

    def _handle(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            back = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while piece := client.recv(65536):
                    self.sent += piece
                    server.sendall(piece)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(65536):
                time.sleep(self._delay)
                client.sendall(piece)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more connections, and wait until those that were taken are over."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for handler in self._handlers:
            handler.join(5)


@contextmanager
def relaying(to: int, delay: float = 0.0) -> Iterator[Relay]:
    """A relay to a port of loopback for as long as the block lasts."""
    relay = Relay(to, delay)
    try:
        yield relay
    finally:
        relay.close()
