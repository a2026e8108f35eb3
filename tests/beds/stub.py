"""A server that answers as a test tells it to, with bytes or not at all."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Behaviour = Callable[[socket.socket, str], None]
"""What to do with a connection; the request's path comes with it."""


@contextmanager
def serving(behave: Behaviour, *, until: bytes = b"\r\n\r\n") -> Iterator[int]:
    """A TCP server on loopback whose every connection is handled by ``behave``; gives its port.

    First it reads ``until`` these bytes came: the end of a request's head, unless said otherwise; nothing if empty.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def handle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            head = b""
            while until not in head and (piece := connection.recv(4096)):
                head += piece
            words = head.decode("latin-1").split(" ", 2)
            behave(connection, words[1] if len(words) > 1 else "")

    def accept() -> None:
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        stopped.set()
        # close() alone would leave accept() waiting.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def answer(body: str | bytes = b"", status: str = "200 OK", kind: str = "application/json", *more: str) -> bytes:
    """A whole HTTP answer."""
    content = body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *more]
    return "\r\n".join([*head, "", ""]).encode() + content


def says(*arguments: str | bytes) -> Behaviour:
    """Give the same answer to everybody."""
    made = answer(*arguments)  # type: ignore[arg-type]  # as answer() has them
    return lambda connection, path: connection.sendall(made)


def trickles(head: bytes, piece: bytes, pause: float = 0.02) -> Behaviour:
    """Send ``head``, then ``piece`` again and again, with a pause before each."""

    def behave(connection: socket.socket, path: str) -> None:
        connection.sendall(head)
        while True:
            time.sleep(pause)
            connection.sendall(piece)

    return behave
