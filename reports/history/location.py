"""Where a history is kept, and how that is said without its password."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from allodoc_health.target import nearest

FILE = "history.sqlite"
POSTGRESQL = "postgresql+psycopg"
SCHEMES = ("sqlite", POSTGRESQL, "postgresql")


@dataclass(frozen=True, slots=True)
class Location:
    """A database by its ``url``, which may hold a password; ``shown`` holds none. ``file`` is SQLite's file."""

    url: str = field(repr=False)
    shown: str
    file: Path | None = None


def locate(given: str, folder: Path) -> Location:
    """The location that a path or a URL names; a relative path starts in ``folder``.

    Raises ValueError for what is no location of a history; the text holds nothing of the URL but its scheme.
    """
    if "://" not in given:
        return _file(folder / Path(given).expanduser())
    scheme, _, rest = given.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(
            f"a history is kept in SQLite or PostgreSQL, not in {scheme!r}; {nearest(scheme, SCHEMES)}; "
            "write a path, sqlite:///PATH, or postgresql+psycopg://USER@HOST/DATABASE"
        )
    if scheme == "sqlite":
        path = rest.removeprefix("/")
        if not rest.startswith("/") or not path:
            raise ValueError("a SQLite history is a file: write a path, or sqlite:///PATH")
        return _file(folder / path)
    try:
        parts = urlsplit(f"//{rest}")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        # What Python says of a port that is none may quote half a password with an unescaped @ or / in it.
        raise ValueError(
            "the history's URL can't be read; write postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with %40 for an @ and %2F for a / in the password"
        ) from None
    database = parts.path.strip("/")
    if not database:
        raise ValueError("the history's URL names no database; write postgresql+psycopg://USER@HOST/DATABASE")
    user = f"{parts.username}@" if parts.username else ""
    return Location(f"{POSTGRESQL}://{rest}", f"postgresql://{user}{parts.hostname or ''}{port}/{database}")


def _file(path: Path) -> Location:
    return Location(f"sqlite:///{path}", str(path), path)
