"""What changed since another run: findings, measurements beyond noise, versions and configuration.

Every report says what is different from the run before; ``--diff OLD`` compares with a snapshot of one's choice, and
prints it. With ``--replay NEW --diff OLD`` two snapshots are compared and nothing is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from allodoc_health.finding import GRAVITY, Finding, Measurement, Outcome, quantity
from allodoc_health.run import TargetReport, to_json
from allodoc_health.target import TargetError
from reports.snapshot import report_path, safe_name

if TYPE_CHECKING:
    from allodoc_health.snapshot import Snapshot, SnapshotFinding

NOISE = 0.25
"""The share by which a measurement may differ between two runs on a target that nobody touched: seen on the demo."""

LEAST = {"%": 5.0, "s": 0.05, "B": float(2**20), "": 2.0}
"""By unit, the smallest difference that is worth a line, however large its share; of other units it is 2."""

FACTS = frozenset({"version", "image", "revision", "commit", "fingerprint", "digest"})
"""The keys of evidence that say what was running and how it was set up, rather than how it did."""

SETTINGS = ("_settings", "_configuration", "environment")
"""The endings of the names of evidence that is settings from top to bottom; of a variable its length is known."""


class Kind(StrEnum):
    """What a change is of."""

    VERDICT = "verdict"
    FINDING = "finding"
    MEASUREMENT = "measurement"
    CONFIGURATION = "configuration"


class Direction(StrEnum):
    """Which way it went."""

    WORSE = "worse"
    BETTER = "better"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was. ``before`` and ``after`` are as people read them."""

    kind: Kind
    name: str
    before: str
    after: str
    direction: Direction = Direction.OTHER

    @property
    def text(self) -> str:
        """The change in a line."""
        return f"{self.name}: {self.before} → {self.after}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from a run to a later one. ``only_before`` and ``only_after`` were looked at in one of them only."""

    before: datetime
    after: datetime
    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    def of(self, kind: Kind) -> tuple[Change, ...]:
        """The changes of one kind."""
        return tuple(change for change in self.changes if change.kind is kind)


COMPARISONS = pytest.StashKey[dict[str, Comparison]]()
"""The comparison of each target by its name, where there was a run to compare with."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says what to compare with."""
    parser.getgroup("health", "AlloDoc Health").addoption(
        "--diff", metavar="OLD", help="say what changed since the run that this snapshot is of"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register what compares; a file to compare with that can't be read ends the run before it begins."""
    if hasattr(config, "workerinput"):
        return
    config.stash[COMPARISONS] = {}
    old = None
    if config.getoption("diff"):
        from allodoc_health.replay import read_snapshot

        try:
            old = read_snapshot(config.invocation_params.dir / config.getoption("diff"))
        except TargetError as error:
            raise pytest.UsageError(f"--diff: {error}") from None
    config.pluginmanager.register(Comparer(config, old), "health-comparison")


class Comparer:
    """Compares each target's report with the snapshot that was asked for, or else with the run before."""

    def __init__(self, config: pytest.Config, old: Snapshot | None) -> None:
        self.config = config
        self.old = old

    @pytest.hookimpl(tryfirst=True)
    def pytest_health_report(self, report: TargetReport) -> None:
        """Compare before the other outputs see the report: they show it."""
        old = self.old or self._run_before(report)
        if old is not None:
            self.config.stash[COMPARISONS][report.target.name] = compare(old, report)

    def _run_before(self, report: TargetReport) -> Snapshot | None:
        if report.replayed or self.config.getoption("no_reports"):
            return None
        from allodoc_health.replay import read_snapshot

        own = report_path(self.config, report, ".json")
        name = safe_name(report.target.name)
        earlier = (path for path in own.parent.glob(f"2*Z-{name}*.json") if path.name < own.name)
        for path in sorted((path for path in earlier if _is_of(path, name)), reverse=True)[:1]:
            try:
                return read_snapshot(path)
            except TargetError:
                return None  # an older version's, or half of one: there is nothing to compare with
        return None


def _is_of(path: Path, name: str) -> bool:
    """Whether a snapshot is a target's own: its name is followed by nothing but a number."""
    rest = path.stem.partition("-")[2].removeprefix(name)
    return not rest or rest.removeprefix("-").isdecimal()


def compare(old: Snapshot | TargetReport, new: TargetReport) -> Comparison:
    """What changed from a recorded run to another one."""
    before = {finding.name: finding for finding in old.findings}
    after = {finding.name: finding for finding in new.findings}
    both = [name for name in after if name in before]
    changes = [
        *_verdict(old, new),
        *(change for name in both if (change := _outcome(before[name], after[name])) is not None),
        *(change for name in both for change in _measurements(before[name], after[name])),
        *_configuration(to_json(old.evidence), to_json(new.evidence)),
    ]
    return Comparison(
        before=old.started,
        after=new.started,
        changes=tuple(changes),
        only_before=tuple(name for name in before if name not in after),
        only_after=tuple(name for name in after if name not in before),
    )


def _verdict(old: Snapshot | TargetReport, new: TargetReport) -> Iterator[Change]:
    was, now = old.verdict, new.verdict
    if (was.state, was.root_causes) != (now.state, now.root_causes):
        yield Change(
            Kind.VERDICT,
            new.target.name,
            ", ".join(was.root_causes) or was.state.value,
            ", ".join(now.root_causes) or now.state.value,
        )


def _outcome(before: SnapshotFinding | Finding, after: Finding) -> Change | None:
    if before.outcome is after.outcome:
        return None
    worse = GRAVITY.index(after.outcome) > GRAVITY.index(before.outcome)
    harmless = {before.outcome, after.outcome} <= {Outcome.PASS, Outcome.NOT_APPLICABLE}
    direction = Direction.OTHER if harmless else Direction.WORSE if worse else Direction.BETTER
    grave = after if worse else before
    said = f" ({grave.message.partition(chr(10))[0]})"
    then, now = (f"{one.outcome.value}{said if one is grave else ''}" for one in (before, after))
    return Change(Kind.FINDING, after.name, then, now, direction)


def _measurements(before: SnapshotFinding | Finding, after: Finding) -> Iterator[Change]:
    earlier = {measurement.name: measurement for measurement in before.measurements}
    for measurement in after.measurements:
        was = earlier.get(measurement.name)
        if was is None or was.unit != measurement.unit or not is_beyond_noise(was.value, measurement.value, was.unit):
            continue
        yield Change(
            Kind.MEASUREMENT,
            f"{after.name} {measurement.name}",
            quantity(was.value, was.unit),
            measurement.text,
            _direction(was.value, measurement),
        )


def is_beyond_noise(before: float, after: float, unit: str) -> bool:
    """Whether two measurements differ by more than they do on a target that nobody touched.

    >>> is_beyond_noise(100, 110, "s"), is_beyond_noise(100, 200, "s"), is_beyond_noise(0.001, 0.002, "s")
    (False, True, False)
    """
    difference = abs(after - before)
    return difference >= LEAST.get(unit, LEAST[""]) and difference > NOISE * max(abs(before), abs(after))


def _direction(before: float, after: Measurement) -> Direction:
    if after.warn is None and after.fail is None:
        return Direction.OTHER
    return Direction.WORSE if (after.value > before) == (after.worse == "above") else Direction.BETTER


def _configuration(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    was, now = dict(_facts(before)), dict(_facts(after))
    told = set()
    for name in now:
        if name not in was or was[name] == now[name] or "‹" in f"{was[name]}{now[name]}":
            continue  # a token says nothing outside its own run
        # Several pieces of evidence may hold the same: once is enough.
        key = (name.rpartition(".")[2], was[name], now[name])
        if key not in told:
            told.add(key)
            yield Change(Kind.CONFIGURATION, name, str(was[name]), str(now[name]))


def _facts(evidence: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in evidence.items():
        everything = name.partition("[")[0].endswith(SETTINGS)
        yield from _leaves(name, value, everything=everything)


def _leaves(name: str, value: Any, *, everything: bool) -> Iterator[tuple[str, Any]]:
    items: Iterable[tuple[object, Any]]
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        # By name where there is one: what is before it in the list may come and go.
        items = (
            (one.get("name", place) if isinstance(one, Mapping) else place, one) for place, one in enumerate(value)
        )
    else:
        if everything and value is not None:
            yield name, value
        return
    for key, one in items:
        if isinstance(one, Mapping | list | tuple):
            yield from _leaves(f"{name}.{key}", one, everything=everything)
        elif one is not None and (everything or key in FACTS):
            yield f"{name}.{key}", one


def comparison_lines(comparison: Comparison, most: int | None = None) -> Iterator[tuple[str, Mapping[str, bool]]]:
    """A comparison for the terminal, as lines with their colours: no more than ``most`` changes, the worse ones."""
    moment = comparison.before.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if not comparison.changes:
        yield f"nothing changed since {moment}", {"bold": True}
    else:
        yield f"changed since {moment}:", {"bold": True}
    told = [change for kind in Kind for change in comparison.of(kind)]
    if most is not None and len(told) > most:
        told.sort(key=lambda change: (change.kind is not Kind.VERDICT, list(Direction).index(change.direction)))
    for change in told[:most]:
        yield f"      {change.text}", _COLOURS[change.direction]
    if most is not None and len(told) > most:
        yield f"      … and {len(told) - most} more", {"light": True}
    for word, names in (("then", comparison.only_before), ("now", comparison.only_after)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            yield f"      looked at only {word}: {', '.join(names[:5])}{more}", {"light": True}


_COLOURS: dict[Direction, Mapping[str, bool]] = {
    Direction.WORSE: {"red": True},
    Direction.BETTER: {"green": True},
    Direction.OTHER: {},
}
