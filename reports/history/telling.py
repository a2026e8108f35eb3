"""The past in words and small pictures, for the terminal and for messages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from allodoc_health.finding import Finding, Outcome, duration, quantity
from allodoc_health.run import TargetReport
from reports.history import Forecast, Past, Points

SOON = 30.0
"""Days ahead within which a limit that will be reached is worth a line of its own."""

MOST_AHEAD = 3
_BARS = "▁▂▃▄▅▆▇█"


def moment(when: datetime, now: datetime) -> str:
    """A moment as short as it is clear: with its date only if that is not today's.

    >>> now = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
    >>> moment(datetime(2026, 11, 24, 2, 10, tzinfo=UTC), now), moment(datetime(2026, 11, 21, 2, 10, tzinfo=UTC), now)
    ('02:10 UTC', '21 Nov 02:10 UTC')
    """
    when, now = when.astimezone(UTC), now.astimezone(UTC)
    if when.date() == now.date():
        return f"{when:%H:%M} UTC"
    return f"{when.day} {when:%b %H:%M} UTC" if when.year == now.year else f"{when.day} {when:%b %Y}"


def course_words(finding: Finding, past: Past, now: datetime) -> str:
    """How a finding came to this, in a line: since when, how often, whether it flaps, and where its numbers go."""
    name = finding.name
    words = []
    if name in past.since and past.streaks[name] > 1:
        words.append(f"since {moment(past.since[name], now)} ({past.streaks[name]} runs)")
    elif finding.outcome is Outcome.FAIL and past.runs:
        words.append("new")
    if past.failed_this_month.get(name, 0) > 1:
        words.append(f"{past.failed_this_month[name]} times this month")
    if name in past.flapping:
        words.append("flapping")
    if finding.outcome is Outcome.FAIL and name in past.recovery:
        words.append(f"usually well again after {duration(past.recovery[name].total_seconds())}")
    words += (ahead for _, ahead in _ahead(finding, past))
    return ", ".join(words)


def _ahead(finding: Finding, past: Past) -> Iterator[tuple[float, str]]:
    for measurement in finding.measurements:
        if (ahead := past.forecasts.get((finding.name, measurement.name))) is not None:
            yield ahead.days, forecast_words(ahead, measurement.unit)


def forecast_words(ahead: Forecast, unit: str) -> str:
    """When a limit is reached.

    >>> forecast_words(Forecast(per_day=1.5, days=12.4, limit=90.0), "%")
    'reaches 90 % in 12 days'
    """
    if ahead.limit == 100 and unit == "%":
        reached = "full"
    elif ahead.limit == 0:
        reached = "used up"
    else:
        reached = f"reaches {quantity(ahead.limit, unit)}"
    if ahead.days < 2:
        return f"{reached} in {duration(max(3600.0, ahead.days * 86400))}"
    return f"{reached} in {ahead.days:.0f} days"


def coming(report: TargetReport, past: Past) -> Iterator[str]:
    """What passes yet and will soon not, the nearest first, in a line each."""
    found = [
        (days, f"{finding.name}: {measurement.name} {measurement.text}, {forecast_words(ahead, measurement.unit)}")
        for finding in report.findings
        if finding.outcome is Outcome.PASS
        for measurement in finding.measurements
        if (ahead := past.forecasts.get((finding.name, measurement.name))) is not None and (days := ahead.days) <= SOON
    ]
    yield from (text for _, text in sorted(found)[:MOST_AHEAD])


def sparkline(points: Points, width: int = 40) -> str:
    """Numbers over time as a line of small bars; times in which nothing was measured are left blank.

    >>> start = datetime(2026, 11, 1, tzinfo=UTC)
    >>> sparkline(tuple((start + timedelta(days=day), float(day)) for day in range(8)), width=8)
    '▁▂▃▄▅▆▇█'
    """
    first, last = points[0][0], points[-1][0]
    low, high = min(value for _, value in points), max(value for _, value in points)
    cells = [" "] * (width if last > first else 1)
    for when, value in points:
        cell = int((when - first) / (last - first) * (width - 1)) if last > first else 0
        cells[cell] = _BARS[int((value - low) / (high - low) * (len(_BARS) - 1)) if high > low else 0]
    return "".join(cells)


def trend_words(finding: Finding, past: Past) -> Iterator[str]:
    """A line for each measurement of a finding that has a trend: from when, from what, to what."""
    for measurement in finding.measurements:
        points = past.trends.get((finding.name, measurement.name), ())
        if len(points) > 2:
            low, high = (quantity(some(value for _, value in points), measurement.unit) for some in (min, max))
            span = duration((points[-1][0] - points[0][0]) / timedelta(seconds=1))
            yield f"{measurement.name} {sparkline(points)} {low} to {high} in {span}"
