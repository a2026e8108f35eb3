"""How a finding fared, and where its numbers go."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allodoc_health.finding import Measurement, Outcome
from reports.history import Points
from reports.history.course import GONE, Course, forecast
from tests.reports.history.making import NOW

LETTERS = {".": "pass", "w": "warn", "F": "fail", "B": "blocked", "v": "waived", "-": "not-applicable", "g": GONE}
HOUR = timedelta(hours=1)


def course(letters: str) -> Course:
    """The course of a finding that was looked at once an hour, from NOW on, in the letters of the terminal."""
    made = Course()
    for hour, letter in enumerate(letters):
        made = made.seen(LETTERS[letter], NOW + hour * HOUR)
    return made


@pytest.mark.parametrize(
    ("letters", "hour", "looks"),
    [
        pytest.param("..FF", 2, 2, id="since the first failure after a pass"),
        pytest.param("F.wFw", 2, 3, id="warning and failing are one stretch"),
        pytest.param("FFBvF", 0, 3, id="what is no look does not end it"),
        pytest.param("Fg-F", 3, 1, id="gone is well"),
    ],
)
def test_since_when(letters: str, hour: int, looks: int) -> None:
    """Trouble lasts since the first look after the last one that found it well."""
    assert course(letters).trouble() == (NOW + hour * HOUR, looks)


@pytest.mark.parametrize("letters", ["", ".", "F.", "Fg", "B", "-"])
def test_what_is_well_has_no_since(letters: str) -> None:
    """A finding whose last look found it well, or that nobody looked at, is in no trouble."""
    assert course(letters).trouble() is None


def test_how_often_it_failed() -> None:
    """Stretches count, not runs; one that had begun before and goes on counts as well."""
    made = course("FF.FwFB.F")
    assert [made.failures_since(NOW + hour * HOUR) for hour in (0, 1, 2, 4, 5, 8)] == [4, 4, 3, 2, 2, 1]


def test_recovery_is_the_mean_from_failing_to_better() -> None:
    """What failed from the first look on began at nobody knows when, and does not count; neither does what goes on."""
    assert course("FF.F.FFF.F").recovery() == 2 * HOUR
    assert course("FF.").recovery() is None
    assert course(".F").recovery() is None


def test_flapping_trips_late_and_clears_later() -> None:
    """Three incidents in 20 looks trip it; it stays until enough looks in a row are alike."""
    assert not course("." * 20 + "F.F.").is_flapping()
    assert course("." * 20 + "F.F.F.").is_flapping()
    assert course("." * 20 + "F.F.F." + "." * 8).is_flapping()
    assert not course("." * 20 + "F.F.F." + "." * 16).is_flapping()
    assert course("." * 20 + "F.F.F." + "." * 16 + "F.F.F.").is_flapping()


@given(st.text(".wFBv-g", max_size=60))
def test_any_course_holds_together(letters: str) -> None:
    """Its last outcome is the last look's, no change repeats the one before, and steady looks end every flapping."""
    made = course(letters)
    looks = [letter for letter in letters if letter in ".wFg"]
    assert made.looks == len(looks)
    assert made.outcome == (LETTERS[looks[-1]] if looks else "")
    assert all(one.outcome != other.outcome for one, other in zip(made.changes, made.changes[1:], strict=False))
    assert not course(letters + "." * 21).is_flapping()


def points(*values: float, every: timedelta = timedelta(days=1)) -> Points:
    """Values that were measured at even distances, the last one NOW."""
    first = NOW - every * (len(values) - 1)
    return tuple((first + every * place, value) for place, value in enumerate(values))


def test_growth_is_carried_on_to_the_next_limit() -> None:
    """Two percent a day from 70: the limit to warn at, 80, is five days away; an outlier changes nothing."""
    grown = points(56, 58, 60, 99, 64, 66, 68, 70)
    ahead = forecast(grown, Measurement("used", 70, "%", 80, 95))
    assert ahead is not None
    assert [ahead.per_day, ahead.days, ahead.limit] == pytest.approx([2, 5, 80])


def test_what_falls_reaches_a_lower_limit() -> None:
    """A certificate's days run out at one a day; past the limit to warn, the one to fail is the next."""
    left = points(*(float(days) for days in range(20, 10, -1)))
    ahead = forecast(left, Measurement("days left", 11, "d", 14, 7, worse="below"))
    assert ahead is not None
    assert [ahead.days, ahead.limit] == pytest.approx([4, 7])


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([50.0] * 10, id="no change"),
        pytest.param([60.0 + place % 2 for place in range(10)], id="to and fro"),
        pytest.param([10, 20, 30, 40, 10, 20, 30, 40, 10, 20], id="fills and is emptied"),
        pytest.param([70, 69, 68, 67, 66, 65, 64, 63], id="away from the limit"),
        pytest.param([50, 55, 60, 65], id="too few"),
        pytest.param([10 + place / 100 for place in range(10)], id="in years"),
    ],
)
def test_no_forecast_where_it_would_be_a_guess(values: list[float]) -> None:
    """Too little, or nothing that goes one way, says nothing of tomorrow."""
    assert forecast(points(*values), Measurement("used", values[-1], "%", 80, 95)) is None


def test_no_forecast_of_what_has_no_limit_ahead() -> None:
    """Without a limit, or past the last one, there is nothing to reach; minutes say nothing of days."""
    grown = points(*(float(place) for place in range(90, 100)))
    assert forecast(grown, Measurement("used", 99, "%")) is None
    assert forecast(grown, Measurement("used", 99, "%", 80, 95)) is None
    quick = points(*(float(place) for place in range(60, 70)), every=timedelta(minutes=5))
    assert forecast(quick, Measurement("used", 69, "%", 80, 95)) is None
    assert forecast((), Measurement("used", 69, "%", 80, 95)) is None


def test_outcomes_of_a_course_are_those_of_findings() -> None:
    """A new outcome of findings would have to find its place here."""
    assert {*LETTERS.values()} - {GONE} == {*map(str, Outcome)}
