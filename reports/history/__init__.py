"""What earlier runs found: kept in a database, and told to the other outputs as a :class:`Past`.

This module is all that other outputs need, and imports no database. The plugin is :mod:`reports.history.plugin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

import pytest

Key: TypeAlias = tuple[str, str]
"""What a series of numbers is called: the name of its finding and that of its measurement."""

Points: TypeAlias = tuple[tuple[datetime, float], ...]
"""Moments (aware, UTC) and values, the oldest first, this run's last."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where a measurement goes if it goes on like this.

    It grows by ``per_day`` of its unit and reaches ``limit``, the next that it was held against, in ``days``.
    """

    per_day: float
    days: float
    limit: float


@dataclass(frozen=True, slots=True)
class Past:
    """What history adds to one target's report. This run counts as the newest, save in ``runs``.

    ``runs`` is how many earlier ones are known. ``since`` tells from when on a finding has failed or warned in every
    run that looked at it, and ``streaks`` in how many. ``failed_this_month`` counts how often it began to fail since
    the first of the month (UTC). ``recovery`` is how long it took on average until it was well again.
    """

    runs: int
    trends: Mapping[Key, Points] = field(default_factory=dict)
    since: Mapping[str, datetime] = field(default_factory=dict)
    streaks: Mapping[str, int] = field(default_factory=dict)
    failed_this_month: Mapping[str, int] = field(default_factory=dict)
    flapping: frozenset[str] = frozenset()
    forecasts: Mapping[Key, Forecast] = field(default_factory=dict)
    recovery: Mapping[str, timedelta] = field(default_factory=dict)


PAST = pytest.StashKey[dict[str, Past]]()
"""In ``config.stash``, the past of each target by its name; without history there is none.

It is filled before other outputs see a report.
"""
