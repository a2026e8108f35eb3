"""How much a page may hold: whatever the logs held, a report has to go through a mail server and open on a phone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")

LIMIT = 950_000
"""Bytes that a page may have: under 1 MB, with a little left for whoever wraps it into a mail."""


@dataclass
class Room:
    """What one page has room for, and how often it had to leave something out.

    ``causes`` and ``warnings`` are told in full, ``rows`` is how many entries any list of findings has, ``lines`` how
    many any list of evidence has, and ``characters`` how long one text may be.
    """

    causes: int
    warnings: int
    rows: int
    lines: int
    characters: int
    left_out: int = 0

    def text(self, text: str) -> str:
        """A text, cut where there is no room for the rest of it."""
        if len(text) <= self.characters:
            return text
        self.left_out += 1
        return f"{text[: self.characters]} … ({len(text) - self.characters} more characters)"

    def some(self, items: Iterable[_Item], most: int | None = None) -> list[_Item]:
        """The first of these, as many as there is room for: ``lines``, or another number."""
        items = list(items)
        taken = list(islice(items, self.lines if most is None else most))
        self.left_out += len(items) - len(taken)
        return taken


def rooms(weight: int = 0) -> tuple[Room, ...]:
    """From ample to scarce: a page that gets too big with one is made again with the next.

    ``weight`` is how many characters there are to tell. With so many that a room can't do, it isn't even tried.
    """
    ample = Room(causes=20, warnings=50, rows=2500, lines=60, characters=2000)
    spare = Room(causes=10, warnings=20, rows=700, lines=15, characters=500)
    scarce = Room(causes=4, warnings=5, rows=200, lines=4, characters=160)
    return (ample, spare, scarce)[(weight > LIMIT) + (weight > 10 * LIMIT) :]
