"""How a finding fared over many runs, and where its numbers go: pure, so that it can be tested without a database.

What was blocked, waived or not applicable tells nothing of whether it was well: such looks do not count, and a run of
a few checks says nothing of the others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations, pairwise
from statistics import median

from allodoc_health.finding import Measurement, Outcome
from reports.history import Forecast, Points

FAIL, WARN, PASS = Outcome.FAIL.value, Outcome.WARN.value, Outcome.PASS.value
GONE = "gone"
"""In a history, the outcome of a finding that its check, which was run, no longer makes."""

LOOKED_AT = (PASS, WARN, FAIL, GONE)
TROUBLED = (WARN, FAIL)

# Flapping as Nagios Core detects it ("Detection and Handling of State Flapping"): of the last 21 looks, the share of
# changes among the 20 steps between them, where the newest step counts half as much again as the oldest (1.2 to 0.8).
# The limits to trip and to clear are Icinga 2's defaults for the same figure (flapping_threshold_high and _low): three
# incidents in 20 looks. Nagios' sample of 20 and 5 would trip at two, which in a month of daily runs is nothing odd.
STEPS = 20
OLDEST, NEWEST = 0.8, 1.2
TRIP, CLEAR = 30.0, 25.0

# A forecast needs numbers over some time that mostly go one way, and reaches no farther than they reach back, twice.
FEWEST_POINTS = 8
FITTED_POINTS = 30
SHORTEST_SPAN = timedelta(hours=6)
ONE_WAY = 0.8
REACH = 2.0
FARTHEST_DAYS = 90.0


@dataclass(frozen=True, slots=True)
class Change:
    """From look number ``look`` (counted from 1), made at ``moment``, the outcome was this one."""

    look: int
    moment: datetime
    outcome: str


@dataclass(frozen=True, slots=True)
class Course:
    """How one finding fared: its changes, the oldest first, and how often it was looked at."""

    changes: tuple[Change, ...] = ()
    looks: int = 0

    @property
    def outcome(self) -> str:
        """The last that was seen; empty if nobody looked yet."""
        return self.changes[-1].outcome if self.changes else ""

    def seen(self, outcome: str, moment: datetime) -> Course:
        """The course after one more look."""
        if outcome not in LOOKED_AT:
            return self
        looks = self.looks + 1
        changes = self.changes if outcome == self.outcome else (*self.changes, Change(looks, moment, outcome))
        return Course(changes, looks)

    def trouble(self) -> tuple[datetime, int] | None:
        """Since when it has failed or warned at every look, and at how many; ``None`` if it is well."""
        began = None
        for change in reversed(self.changes):
            if change.outcome not in TROUBLED:
                break
            began = change
        return None if began is None else (began.moment, self.looks - began.look + 1)

    def failures(self) -> Iterator[tuple[datetime, datetime | None]]:
        """Each stretch of failing looks: the moment of its first, and that of the first look that found it better."""
        for change, following in pairwise(self.changes):
            if change.outcome == FAIL:
                yield change.moment, following.moment
        if self.outcome == FAIL:
            yield self.changes[-1].moment, None

    def failures_since(self, moment: datetime) -> int:
        """In how many stretches it failed at or after a moment."""
        return sum(end is None or end > moment for _, end in self.failures())

    def recovery(self) -> timedelta | None:
        """How long it took on average from failing to better; a failure whose beginning is not known does not count."""
        first = self.changes[0].moment if self.changes else None
        took = [end - began for began, end in self.failures() if end is not None and began != first]
        return sum(took, timedelta()) / len(took) if took else None

    def is_flapping(self) -> bool:
        """Whether it changes so often that the next change says little: see TRIP and CLEAR."""
        flapping = False
        steps = [change.look for change in self.changes[1:]]
        for step, following in pairwise([*steps, self.looks + 1]):
            flapping = flapping or _unrest(steps, step) >= TRIP
            # Between two changes unrest only falls: if it falls far enough, it has by the look before the next one.
            flapping = flapping and _unrest(steps, following - 1) >= CLEAR
        return flapping


def _unrest(steps: Sequence[int], look: int) -> float:
    """The weighted share of changes (at these looks) among the last steps up to a look, in percent."""
    oldest = look - STEPS + 1
    recent = steps[bisect_left(steps, oldest) : bisect_left(steps, look + 1)]
    weights = (OLDEST + (NEWEST - OLDEST) * (step - oldest) / (STEPS - 1) for step in recent)
    return 100 * sum(weights) / STEPS


def forecast(points: Points, measurement: Measurement) -> Forecast | None:
    """When a measurement reaches the next limit that it was held against, if it goes on like this.

    The slope is Theil and Sen's: the median of the slopes between all pairs of points, which single outliers do not
    move. ``None`` where that says nothing: too few points, too short a time, no steady direction, away from the limit,
    past it already, or so late that it would be a guess.
    """
    ahead = [limit for limit in (measurement.warn, measurement.fail) if limit is not None]
    if measurement.worse == "above":
        limit = min((limit for limit in ahead if limit > measurement.value), default=None)
    else:
        limit = max((limit for limit in ahead if limit < measurement.value), default=None)
    span = points[-1][0] - points[0][0] if points else timedelta()
    if limit is None or len(points) < FEWEST_POINTS or span < SHORTEST_SPAN:
        return None
    day = timedelta(days=1)
    thinned = points[:: -(-len(points) // FITTED_POINTS)]
    slopes = [(value - before) / ((moment - then) / day) for (then, before), (moment, value) in _pairs(thinned)]
    towards = [slope for slope in slopes if (slope > 0) == (limit > measurement.value) and slope != 0]
    per_day = median(slopes) if slopes else 0.0
    if len(towards) < ONE_WAY * len(slopes) or per_day == 0:
        return None
    days = (limit - measurement.value) / per_day
    return Forecast(per_day, days, limit) if days <= min(FARTHEST_DAYS, REACH * (span / day)) else None


def _pairs(points: Points) -> Iterator[tuple[tuple[datetime, float], tuple[datetime, float]]]:
    return ((one, other) for one, other in combinations(points, 2) if one[0] < other[0])
