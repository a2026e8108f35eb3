"""A backend that is slow, blocked, silent about itself, busy, or leaking: made so by a script inside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from allodoc_health.finding import Outcome
from allodoc_health.limits import Limits
from checks.performance.test_slow_api import test_no_route_is_slow as no_route_is_slow
from fixtures.metrics import RouteTime
from tests.beds.embedded import Demo
from tests.beds.recorded import finding_on

SLOW_API = "checks/performance/test_slow_api.py"
HIGH_CPU = "checks/performance/test_high_cpu.py"

SLOW = """
const http = require('node:http');
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response) {
  const self = this, all = arguments;
  if (event === 'request' && request.url.includes('%s') && /%s/.test(request.headers['user-agent'] || '')) {
    setTimeout(() => emit.apply(self, all), 3300);
    return true;
  }
  return emit.apply(self, all);
};
"""


def _ask(demo: Demo, path: str, count: int) -> list[int]:
    def one(_: int) -> int:
        answer = requests.get(f"{demo.urls['https']}{path}", verify=str(demo.ca_file), timeout=20)
        return answer.status_code

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize(
    ("since_the_start", "now", "outcome"),
    [
        pytest.param(3.3, 3.1, Outcome.FAIL, id="and-now"),
        pytest.param(3.3, 2.5, Outcome.WARN, id="and-a-little-now"),
        pytest.param(3.3, 0.04, Outcome.WARN, id="it-is-over"),
        pytest.param(3.3, None, Outcome.WARN, id="now-unknown"),
        pytest.param(0.3, 3.1, Outcome.PASS, id="now-alone"),
    ],
)
def test_what_is_over_does_not_fail(since_the_start: float, now: float | None, outcome: Outcome) -> None:
    """Recorded: the backend counts since its start, and fails only while nginx' log of the last minutes agrees."""
    times = (RouteTime("POST /api/v1/auth/login", since_the_start, 27, now),)
    finding = finding_on(no_route_is_slow, route_times=times, limits=Limits())
    assert finding.outcome is outcome
    assert "POST /api/v1/auth/login since the start" in finding.message
