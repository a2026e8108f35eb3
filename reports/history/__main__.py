"""``python -m reports.history``: show, export and prune what was remembered."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from allodoc_health.finding import duration
from allodoc_health.target import nearest
from reports.history.location import FILE, Location, locate
from reports.history.plugin import KEPT_DAYS
from reports.history.store import HistoryError, Store
from reports.snapshot import FOLDER

TABLES = ("runs", "findings", "measurements")
FORMATS = ("csv", "parquet")
SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if all is well, 1 if the history can't be read, 2 for a wrong command line."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        location = locate(given.history, Path.cwd())
    except ValueError as error:
        parser.error(f"--history: {error}")
    if location.file is not None and not location.file.exists():
        print(f"{location.shown}: there is no history yet", file=sys.stderr)
        return 1
    try:
        status: int = given.command(given, location)
    except (HistoryError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reports.history", description=__doc__)
    parser.add_argument(
        "--history", default=f"{FOLDER}/{FILE}", metavar="URL", help="a file, or postgresql+psycopg://… (%(default)s)"
    )
    commands = parser.add_subparsers(required=True, metavar="show | export | prune")
    show = commands.add_parser("show", help="the last runs, and what failed in them")
    show.add_argument("--target", default="", metavar="NAME")
    show.add_argument("--last", type=_positive, default=SHOWN, metavar="RUNS", help="(default: %(default)s)")
    show.set_defaults(command=_show)
    export = commands.add_parser("export", help="a table as CSV or Parquet")
    export.add_argument("table", type=_one_of(TABLES), metavar=" | ".join(TABLES))
    export.add_argument("--target", default="", metavar="NAME")
    export.add_argument("--since", type=_day, metavar="YYYY-MM-DD", help="runs from that day on (UTC)")
    export.add_argument("--format", type=_one_of(FORMATS), metavar=" | ".join(FORMATS), help="(default: csv)")
    export.add_argument("--output", type=Path, metavar="FILE", help="(default: the terminal, where CSV can be shown)")
    export.set_defaults(command=_export)
    prune = commands.add_parser("prune", help="forget old runs, and give their room back")
    prune.add_argument(
        "--keep", type=_positive, default=KEPT_DAYS, metavar="DAYS", help="what is not older stays (%(default)g days)"
    )
    prune.set_defaults(command=_prune)
    return parser


def _one_of(valid: Sequence[str]) -> Any:
    def check(word: str) -> str:
        if word not in valid:
            raise argparse.ArgumentTypeError(f"{word!r}: {nearest(word, valid)}")
        return word

    return check


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0")
    return number


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: a day as 2026-11-24") from None


def _show(given: argparse.Namespace, location: Location) -> int:
    store = Store(location)
    rows = store.rows("runs", given.target)
    if given.target and not rows:
        known = {row["target"] for row in store.rows("runs")}
        print(f"no runs of {given.target!r}; {nearest(given.target, known)}", file=sys.stderr)
        return 1
    for row in rows[-int(given.last) :]:
        partly = "" if row["whole"] else f"   ({row['cut_short'] or 'some of the checks'})"
        causes = f": {', '.join(row['root_causes'])}" if row["root_causes"] else ""
        print(
            f"{row['started']:%Y-%m-%d %H:%M:%S} UTC   {row['target']:<12} {row['state']:<8} "
            f"{duration(row['seconds']):>7}{causes}{partly}"
        )
    _tell(store)
    return 0


def _export(given: argparse.Namespace, location: Location) -> int:
    suffix = given.output.suffix[1:] if given.output else ""
    form = given.format or (suffix if suffix in FORMATS else "csv")
    if form == "parquet" and given.output is None:
        print("Parquet is no text: name a file with --output", file=sys.stderr)
        return 2
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        print(
            "Parquet needs pyarrow, which is not installed: pip install pyarrow, or use --format csv", file=sys.stderr
        )
        return 1
    store = Store(location)
    rows = store.rows(given.table, given.target, given.since)
    if form == "parquet":
        _write_parquet(rows, given.output)
    elif given.output is None:
        _write_csv(rows, sys.stdout)
    else:
        with given.output.open("w", encoding="utf-8", newline="") as file:
            _write_csv(rows, file)
    _tell(store)
    return 0


def _write_csv(rows: Sequence[Mapping[str, Any]], file: Any) -> None:
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """A value as text; one that a spreadsheet would take for a formula is quoted, as it may have been observed."""
    if isinstance(value, datetime):
        return value.isoformat()
    text = json.dumps(value) if isinstance(value, list) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "\t") else text


def _write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)


def _prune(given: argparse.Namespace, location: Location) -> int:
    store = Store(location)
    count = store.prune(datetime.now(UTC) - timedelta(days=given.keep))
    print(f"{count} run{'' if count == 1 else 's'} forgotten")
    _tell(store)
    return 0


def _tell(store: Store) -> None:
    for notice in store.notices:
        print(notice, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
