"""A backend that is slow, blocked, silent about itself, busy, or leaking: made so by a script inside it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import requests

from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave
from tests.beds.suite import Health

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


def test_a_slow_route_is_named(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """An API that takes more than three seconds is named where it is slow: directly; the edge follows."""
    misbehave(SLOW % ("/health", "allodoc-health"))
    run = suite(SLOW_API, target=demo.target)
    run.blames("api.response-time[direct]")
    assert run.outcome("api.response-time[edge]") == "fail"


def test_slow_answers_in_the_access_log_are_named(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """Requests that users waited for before the backend's own clock began are seen in nginx's log."""
    misbehave(SLOW % ("/patients", "python-requests"))
    for _ in range(3):
        assert set(_ask(demo, "/api/v1/patients", 8)) <= {401, 503}
    run = suite(SLOW_API, target=demo.target)
    run.blames("api.access-log-latency")


def test_a_blocked_event_loop_is_named(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """A loop that computes and lets nobody else run is named by the lag of the serving process."""
    misbehave(
        "const block = () => { const ends = Date.now() + 400; while (Date.now() < ends); setTimeout(block, 5); };"
        "setTimeout(block, 500);"
    )
    began = time.monotonic()
    demo.wait_until(lambda: time.monotonic() > began + 3, what="the loop to have been blocked for a while")
    limits = "[limits.api]\nevent_loop_lag = { warn = 0.03, fail = 0.05 }\n"
    run = suite(SLOW_API, "-k", "api.nodejs or api.metrics", target=demo.target + limits)
    run.blames("api.nodejs")


def test_metrics_that_are_a_page_are_named(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """The page in place of metrics is a failure; what rests on them is blocked by it."""
    misbehave(
        """
        const http = require('node:http');
        const emit = http.Server.prototype.emit;
        http.Server.prototype.emit = function (event, request, response) {
          if (event === 'request' && request.url === '/metrics') {
            response.writeHead(200, { 'Content-Type': 'text/html' });
            return response.end('<!doctype html><app-root></app-root>');
          }
          return emit.apply(this, arguments);
        };
        """
    )
    run = suite(SLOW_API, target=demo.target)
    run.blames("api.metrics")
    assert run.finding("api.nodejs")["blocked_by"] == "api.metrics"


def test_requests_that_fail_follow_from_the_backend_that_is_down(demo: Demo, suite: Health) -> None:
    """With the backend stopped, the errors that users get are a consequence, not a cause."""
    demo.stop("backend")
    try:
        assert set(_ask(demo, "/api/v1/patients", 12) + _ask(demo, "/api/v1/patients", 12)) <= {502, 503}
        run = suite("checks/service", "checks/performance", target=demo.target)
    finally:
        demo.start("backend")
        demo.wait_healthy("backend", "nginx")
    run.blames("service.running[backend]")
    assert run.outcome("api.error-rate") == "fail", run.output


def test_a_busy_service_is_named(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """A backend whose threads compute without a pause is named by its processor time."""
    misbehave(
        "const { Worker, isMainThread } = require('node:worker_threads');"
        "if (isMainThread) setTimeout(() => { for (let n = 0; n < 2; n += 1) "
        "new Worker('for (;;) ;', { eval: true, execArgv: [], env: {} }); }, 1000);"
    )
    backend = psutil.Process(demo.pid("backend"))
    demo.wait_until(lambda: backend.cpu_percent(0.2) > 50, what="the backend to be busy")
    limits = "[limits.host]\ncpu = { warn = 15, fail = 30 }\nload_per_core = { warn = 1000, fail = 1000 }\n"
    suite(HIGH_CPU, target=demo.target + limits).blames("host.cpu[backend]")


def test_a_leak_is_seen(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """Memory that grows from look to look warns."""
    misbehave(
        "const kept = []; const timer = setInterval(() => { kept.push(Buffer.alloc(4 * 1024 * 1024, 1));"
        " if (kept.length > 250) clearInterval(timer); }, 100);"
    )
    suite(SLOW_API, "-k", "api.memory-growth", target=demo.target).warns("api.memory-growth[backend]")


def test_a_flooded_log_is_seen(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """One message hundreds of times a minute warns, and one that tells of an endless recursion fails."""
    misbehave("setInterval(() => console.log('polling the queue again'), 2);")
    demo.wait_until(lambda: demo.log_text("backend").count("polling the queue") > 900, what="the flood")
    limits = "[limits.host]\ncpu = { warn = 1000, fail = 1000 }\nload_per_core = { warn = 1000, fail = 1000 }\n"
    suite(HIGH_CPU, target=demo.target + limits).warns("logs.flood[backend]")


def test_a_runaway_recursion_is_named(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """A stack that overflows is named by what the log says of it."""
    misbehave("setTimeout(() => console.error('RangeError: Maximum call stack size exceeded'), 500);")
    demo.wait_until(lambda: "Maximum call stack" in demo.log_text("backend"), what="the message")
    suite(HIGH_CPU, "-k", "logs.flood", target=demo.target).blames("logs.flood[backend]")
