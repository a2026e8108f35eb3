"""Measured values as pictures: beside their limits, and over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from allodoc_health.finding import Finding, Measurement, duration, quantity
from reports.history import Forecast, Key, Past, Points

NEAREST = 6
"""How many of the values that come nearest to a limit are shown at once."""

NEAR = 0.5
"""The share of a limit from which on a value is worth a look before anything is wrong."""

GRAVITY = {"fail": 0, "warn": 1, "pass": 2}


def measurement_view(measurement: Measurement) -> dict[str, Any]:
    """A measurement in words: name, value, limits, and the limits' source."""
    at = "at" if measurement.worse == "above" else "below"
    limits = [
        f"{word} {at} {quantity(bound, measurement.unit)}"
        for word, bound in (("warn", measurement.warn), ("fail", measurement.fail))
        if bound is not None
    ]
    return {
        "name": measurement.name,
        "value": measurement.text,
        "limits": ", ".join(limits),
        "source": measurement.source if limits else "",
    }


def bar(measurement: Measurement) -> dict[str, Any] | None:
    """A measured value beside its limits, in percent of the bar's length; ``None`` if there are none."""
    value, bounds = measurement.value, [b for b in (measurement.warn, measurement.fail) if b is not None]
    if not bounds or not math.isfinite(value):
        return None
    most = max(value, *bounds)
    top = 100.0 if measurement.unit == "%" and most <= 100 else most * 1.15
    if top <= 0:
        return None

    def at(number: float | None) -> float | None:
        return None if number is None else round(min(99.2, max(0.0, 100 * number / top)), 1)

    return {
        **measurement_view(measurement),
        "outcome": outcome(measurement),
        "at": at(value),
        "warn_at": at(measurement.warn),
        "fail_at": at(measurement.fail),
    }


def outcome(measurement: Measurement) -> str:
    """Which of its limits a value is beyond: ``fail``, ``warn`` or, of none, ``pass``."""

    def beyond(bound: float | None) -> bool:
        if bound is None:
            return False
        return measurement.value >= bound if measurement.worse == "above" else measurement.value <= bound

    return "fail" if beyond(measurement.fail) else "warn" if beyond(measurement.warn) else "pass"


def bars(finding: Finding) -> list[dict[str, Any]]:
    """The bars of a finding, those beyond their limits first; three at most."""
    made = [one for measurement in finding.measurements if (one := bar(measurement)) is not None]
    return sorted(made, key=lambda one: GRAVITY[one["outcome"]])[:3]


def nearness(measurement: Measurement) -> float:
    """How much of the way to its first limit a value has gone: 1 is at the limit, 0 nowhere near, or no limit.

    What is only counted or chosen, and hence has no unit, comes no nearer.
    """
    bound = measurement.warn if measurement.warn is not None else measurement.fail
    if bound is None or not measurement.unit or not math.isfinite(measurement.value):
        return 0.0
    part, whole = (measurement.value, bound) if measurement.worse == "above" else (bound, measurement.value)
    return part / whole if whole > 0 and part > 0 else 0.0


def nearest(findings: Sequence[Finding], forecasts: Mapping[Key, Forecast]) -> list[dict[str, Any]]:
    """The values that are still within their limits and come nearest to them, or soonest: what may be about to break.

    Those with a forecast stand first.
    """
    ranked = sorted(
        (
            (forecast.days if forecast else math.inf, -nearness(measurement), finding.name, measurement)
            for finding in findings
            for measurement in finding.measurements
            for forecast in [forecasts.get((finding.name, measurement.name))]
            if outcome(measurement) == "pass"
        ),
        key=lambda one: one[:3],
    )
    return [
        {**shown, "finding": name, "soon": "" if days == math.inf else f"at its limit in {duration(days * 86400)}"}
        for days, near, name, measurement in ranked[:NEAREST]
        if (-near >= NEAR or days < math.inf) and (shown := bar(measurement)) is not None
    ]


def spark(trend: Points, unit: str) -> dict[str, str] | None:
    """A trend as a line in a field of 100 by 20, and in words; ``None`` for fewer than two points."""
    points = [(moment, value) for moment, value in trend if math.isfinite(value)]
    if len(points) < 2:
        return None
    first, last = points[0][0], points[-1][0]
    span = (last - first).total_seconds() or 1.0
    low, high = min(value for _, value in points), max(value for _, value in points)
    height = (high - low) or 1.0
    line = [
        (1 + 98 * (moment - first).total_seconds() / span, 18 - 16 * (value - low) / height) for moment, value in points
    ]
    within = f"{quantity(low, unit)} to {quantity(high, unit)}" if high > low else f"always {quantity(low, unit)}"
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in line),
        "x": f"{line[-1][0]:.1f}",
        "y": f"{line[-1][1]:.1f}",
        "text": f"{len(points)} runs in {duration(span)}: {within}",
    }


def measurement_rows(findings: Sequence[Finding], past: Past) -> list[dict[str, Any]]:
    """Every measurement with its finding, its limits and its trend, what is beyond or near a limit first."""
    rows = [
        (
            nearness(measurement),
            {
                **measurement_view(measurement),
                "finding": finding.name,
                "outcome": outcome(measurement),
                "spark": spark(past.trends.get((finding.name, measurement.name), ()), measurement.unit),
            },
        )
        for finding in findings
        for measurement in finding.measurements
    ]
    return [row for _, row in sorted(rows, key=lambda one: (GRAVITY[one[1]["outcome"]], -one[0]))]
