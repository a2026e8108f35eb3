"""``python -m tests.faults.replays``: every fault's snapshot told again has to tell what the run told that made it.

The catalogue's tests keep the snapshots; they are replayed many at a time, since most of a short run is its start.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.beds.suite import ROOT, Run

KEPT = ROOT / "reports" / "runs" / "faults"
TOGETHER = 25
"""So many snapshots in one run: enough to forget its start, few enough for two of them to share the cores."""

TOLD = ("findings", "verdict", "remedies", "defects", "evidence", "unobserved")
"""What a replay has to tell as the run did."""


def keep_snapshot(name: str, run: Run) -> None:
    """Keep the snapshot of a fault's run."""
    path = KEPT / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.folder / "latest.json", path)


def differences(paths: Sequence[Path]) -> Iterator[str]:
    """What replays of these snapshots tell otherwise, a line each."""
    with tempfile.TemporaryDirectory() as folder:
        # A target's name would be taken by the next snapshot of it, and made another by a number.
        command = [
            sys.executable,
            "-m",
            "pytest",
            "checks",
            "-q",
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:cacheprovider",
        ]
        command += ["--no-reports", f"--snapshot={folder}/{{target}}.json"]
        command += [f"--replay={path}" for path in paths]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        seen: Counter[str] = Counter()
        for path in paths:
            before = json.loads(path.read_text("utf-8"))
            seen[before["target"]] += 1
            number = seen[before["target"]]
            again = Path(folder, f"{before['target']}{f'-{number}' if number > 1 else ''}.json")
            if not again.exists():
                yield f"{path.stem}: not replayed: {done.stdout[-500:]}{done.stderr[-500:]}"
                return
            after = json.loads(again.read_text("utf-8"))
            for key in TOLD:
                was, now = _plain(before, key), _plain(after, key)
                if key == "findings":  # a run may have left a check out
                    now = {name: finding for name, finding in now.items() if name in was}
                if was != now:
                    yield f"{path.stem}: {key}: {_first_difference(was, now)}"


def _plain(snapshot: dict[str, Any], key: str) -> Any:
    """What is compared: node ids name the target where there are several."""
    if key == "findings":
        return {f"{one['id']}[{one['parameter']}]": {**one, "nodeid": ""} for one in snapshot[key]}
    return snapshot[key]


def _first_difference(before: Any, after: Any, where: str = "") -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            if before.get(key) != after.get(key):
                return _first_difference(before.get(key), after.get(key), f"{where}.{key}")
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            if one != other:
                return _first_difference(one, other, f"{where}[{place}]")
    return f"{where.lstrip('.')}: {str(before)[:200]} became {str(after)[:200]}"


def main() -> int:
    """Replay all that was kept. Exit status 1 if more than one in fifty tells something else, or nothing was kept."""
    paths = sorted(KEPT.rglob("*.json"))
    batches = [paths[start : start + TOGETHER] for start in range(0, len(paths), TOGETHER)]
    with ThreadPoolExecutor(2) as pool:
        found = [line for lines in pool.map(lambda batch: list(differences(batch)), batches) for line in lines]
    print(*found, f"{len(paths)} snapshots replayed, {len(found)} differences", sep="\n")
    wrong = len({line.partition(":")[0] for line in found})
    return 1 if wrong > len(paths) / 50 or not paths else 0


if __name__ == "__main__":
    raise SystemExit(main())
