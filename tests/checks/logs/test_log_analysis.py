"""Logs that tell of trouble: query errors, secrets, one client, more errors than before, too much of everything."""

from __future__ import annotations

import pytest

from allodoc_health.finding import Outcome
from allodoc_health.limits import GIB, Limits
from checks.logs.test_log_analysis import test_errors_do_not_become_more as errors_do_not_become_more
from checks.logs.test_log_analysis import test_no_client_crowds_out_the_others as no_client_crowds_out
from checks.logs.test_log_analysis import test_the_log_does_not_fill_the_disk as the_log_does_not_fill
from fixtures.access_log import AccessSummary
from fixtures.log_habits import LevelRates, LogVolume
from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave
from tests.beds.recorded import finding_on
from tests.beds.suite import Health

CHAPTER = "checks/logs"


def test_query_errors_are_seen(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """Errors that the database gave to the application's queries are counted by class."""
    misbehave(
        "setTimeout(() => { for (let n = 0; n < 3; n += 1) console.error("
        '`[Nest] 8  - 11/23/2026, 2:03:2${n} PM   ERROR [Patients] QueryFailedError: relation "visits" does not exist`'
        "); }, 500);"
    )
    demo.wait_until(lambda: "QueryFailedError" in demo.log_text("backend"), what="the error")
    run = suite(CHAPTER, target=demo.target)
    assert run.outcome("logs.sql-errors") == "fail"
    assert run.finding("logs.sql-errors")["message"] == 'relation "visits" does not exist (3 × in 10 min)'
    assert "missing table or column" in run.finding("logs.sql-errors")["details"][-1]


def test_a_secret_in_the_log_is_seen_and_not_shown(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """A password in a log line warns, and stands in no output."""
    misbehave("setTimeout(() => console.log('signing in with password=Canary-77-secret'), 500);")
    demo.wait_until(lambda: "Canary-77-secret" in demo.log_text("backend"), what="the line")
    run = suite(CHAPTER, "-vv", target=demo.target)
    run.warns("logs.leaked-secrets[backend]")
    texts = [run.output, *(p.read_text("utf-8") for p in run.folder.iterdir() if p.suffix in (".html", ".json"))]
    assert not any("Canary-77-secret" in text for text in texts)


@pytest.mark.parametrize(
    ("errors", "earlier", "outcome"),
    [
        pytest.param(3, 1, Outcome.PASS, id="few"),
        pytest.param(10, 60, Outcome.PASS, id="as-before"),
        pytest.param(30, 60, Outcome.WARN, id="tripled"),
        pytest.param(300, 60, Outcome.FAIL, id="thirtyfold"),
    ],
)
def test_more_errors_than_before(errors: int, earlier: int, outcome: Outcome) -> None:
    """Recorded: errors that doubled warn, ten times as many fail, a few more are nothing."""
    rates = LevelRates(errors, 0, 10.0, earlier, 0, 60.0)
    assert finding_on(errors_do_not_become_more, level_rates=rates, limits=Limits()).outcome is outcome


def _access(share: int, *, internal: bool = False, clients: int = 5) -> AccessSummary:
    return AccessSummary(
        requests=100,
        timed=0,
        p50=None,
        p95=None,
        p99=None,
        server_errors=0,
        recent_requests=100,
        recent_server_errors=0,
        gateway_errors=0,
        slowest=(),
        failing=(),
        top_client="‹7f3a2c›",
        top_client_is_internal=internal,
        top_client_requests=share,
        clients=clients,
        unread=0,
    )


@pytest.mark.parametrize(
    ("access", "outcome"),
    [
        pytest.param(_access(30), Outcome.PASS, id="spread"),
        pytest.param(_access(60), Outcome.WARN, id="most"),
        pytest.param(_access(95), Outcome.FAIL, id="nearly-all"),
        pytest.param(_access(100, internal=True, clients=1), Outcome.NOT_APPLICABLE, id="behind-a-proxy"),
    ],
)
def test_one_client(access: AccessSummary, outcome: Outcome) -> None:
    """Recorded: one address that makes most of the requests warns, nearly all of them fails."""
    assert finding_on(no_client_crowds_out, access=access, limits=Limits()).outcome is outcome


@pytest.mark.parametrize(
    ("volume", "outcome"),
    [
        pytest.param(LogVolume(3, GIB, 100 * GIB, True), Outcome.PASS, id="rotated"),
        pytest.param(LogVolume(1, GIB, 100 * GIB, False), Outcome.WARN, id="unbounded"),
        pytest.param(LogVolume(1, 12 * GIB, 100 * GIB, True), Outcome.FAIL, id="large"),
    ],
)
def test_volume(volume: LogVolume, outcome: Outcome) -> None:
    """Recorded: a log without rotation warns, one that takes a tenth of the disk fails."""
    assert finding_on(the_log_does_not_fill, log_volume=volume, limits=Limits()).outcome is outcome
