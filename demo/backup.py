"""Database dumps, as the real deployment's nightly job makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from demo.binaries import Binaries
from demo.services.role import PreparationFailed
from demo.settings import make_owned
from demo.state import StateFolder

if TYPE_CHECKING:
    from demo.service import Service

REFRESH_AFTER = 20 * 3600.0
KEEP = 3


def stale(folder: Path, now: float) -> bool:
    """Whether there is no dump, or none of the last 20 hours."""
    return not any(now - dump.stat().st_mtime < REFRESH_AFTER for dump in folder.glob("*.dump"))


async def back_up(folder: StateFolder, binaries: Binaries, postgres: Service) -> Path | None:
    """Dump the database in PostgreSQL's own format; ``None`` when this PostgreSQL has no pg_dump."""
    program = binaries.postgres / "pg_dump"
    if not program.exists():
        return None
    given = postgres.given
    name = f"{given['POSTGRES_DB']}_{datetime.now(UTC):%Y%m%d_%H%M%S}.dump"
    # The services' account can't write to the backups: the dump is moved there when it is whole.
    work = make_owned(folder.service("postgres") / "dump", postgres.role.context.account)
    connect = {**postgres.role.exec_environment(given), "PGUSER": given["POSTGRES_USER"]}
    code, output = await postgres.helper(
        [str(program), "-Fc", "--no-password", "-d", given["POSTGRES_DB"], "-f", str(work / name)], connect
    )
    if code != 0:
        raise PreparationFailed(f"pg_dump failed ({code}): {output.strip()[-2000:]}")
    (work / name).replace(folder.backups / name)
    for old in sorted(folder.backups.glob("*.dump"))[:-KEEP]:
        old.unlink(missing_ok=True)
    return folder.backups / name
