"""Many targets on one machine: the same demo behind many doors, and doors behind which nobody is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.beds.distance import REACHED, far_away
from tests.beds.embedded import Demo
from tests.beds.suite import BUSY


@contextmanager
def black_hole() -> Iterator[int]:
    """A port of loopback that takes no connection and refuses none: its queue is full, and nobody empties it."""
    with ExitStack() as kept:
        listener = kept.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(listener.getsockname()[1])
        for _ in range(4):  # the kernel keeps one more than the backlog says
            waiting = kept.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def silent_target(demo: Demo, port: int) -> str:
    """The demo's target file with every address at a black hole."""
    text = demo.target
    for role, keys in REACHED.items():
        text += f'[services.{role}]\nhost = "127.0.0.1"\n' + "".join(f"{key} = {port}\n" for key in keys)
        if role == "backend":
            text += f'url = "http://127.0.0.1:{port}"\n'
        if role == "nginx":
            text += f'url = "https://127.0.0.1:{port}"\naddress = "127.0.0.1"\n'
    return text


@contextmanager
def fleet(demo: Demo, folder: Path, count: int, silent: int = 0) -> Iterator[list[str]]:
    """Target files in a folder for so many targets, the last ones silent; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    with ExitStack() as doors:
        for number in range(1, count + 1):
            if number > count - silent:
                text = silent_target(demo, doors.enter_context(black_hole()))
            else:
                text, _ = doors.enter_context(far_away(demo, one_way=0.0))
            names.append(f"fleet-{number:02}")
            (folder / f"{names[-1]}.toml").write_text(text + BUSY, "utf-8")
        yield names
