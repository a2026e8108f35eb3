"""The API on the embedded demo: slow by itself or for others' sake, failing, blocked, silent about itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import requests

from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave, behave
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]

SLOW = """
const http = require('node:http');
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response) {
  if (event !== 'request' || !request.url.includes('%s') || /demo-health/.test(request.headers['user-agent']))
    return emit.apply(this, arguments);
  setTimeout(() => emit.apply(this, [event, request, response]), 3300);
  return true;
};
"""
"""Lets every request for a route wait, save the runtime's own."""


def signed_in(demo: Demo) -> requests.Session:
    """A session of a user, through nginx."""
    session = requests.Session()
    login = f"{demo.urls['https']}/api/v1/auth/login"
    answer = session.post(login, json=demo.smoke, timeout=15, verify=str(demo.ca_file))
    session.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
    return session


def ask(demo: Demo, session: requests.Session, path: str, count: int = 22) -> set[int]:
    """Ask for a route so many times, all at once; the statuses."""

    def one(_: int) -> int:
        return session.get(f"{demo.urls['https']}/api/v1{path}", timeout=30, verify=str(demo.ca_file)).status_code

    with ThreadPoolExecutor(count) as pool:
        return set(pool.map(one, range(count)))


@contextmanager
def slow_patients(demo: Demo) -> Iterator[None]:
    """Each query for patients takes 0.7 s."""
    demo.sql('ALTER TABLE "patients" RENAME TO "patients_kept"')
    try:
        demo.sql('CREATE VIEW "patients" AS SELECT p.* FROM "patients_kept" p, (SELECT pg_sleep(0.7)) AS slowly')
        demo.sql('GRANT SELECT ON "patients" TO PUBLIC')
        yield
    finally:
        demo.sql('DROP VIEW IF EXISTS "patients"')
        demo.sql('ALTER TABLE "patients_kept" RENAME TO "patients"')
        demo.sql("SELECT pg_stat_statements_reset()")


# --- slow -------------------------------------------------------------------------------------------------------------


@fault(
    root=["api.response-time[direct]"],
    follows=["api.response-time[edge]"],
    shows=["median of"],
    looks=["first byte"],
    mend=steps(0),
)
def api_slow_by_itself(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """A new build takes more than three seconds for an answer, and no part that it needs is slow."""
    misbehave(SLOW % "/health")
    yield partial(behave, demo)


@fault(
    root=["api.access-log-latency"],
    shows=["GET /api/v1/patients"],
    looks=["rt=3."],
    mend=steps(0),
)
def one_route_slow(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """One route alone is slow, which no health check asks for: users and nginx' log know."""
    misbehave(SLOW % "/patients")
    with signed_in(demo) as session:
        assert ask(demo, session, "/patients") <= {200, 503}

    def mended() -> None:
        behave(demo)
        demo.forget_logs()  # ten minutes later

    yield mended


@fault(
    root=["db.slow-statements"],
    follows=["api.access-log-latency"],
    may=["api.duration-histogram", "db.long-running"],
    shows=["patients"],
    limits="[limits.api]\nresponse = {warn = 0.4, fail = 0.6}\n[limits.db]\nstatement_mean = {warn = 0.3, fail = 0.5}",
    mend=Exempt("a statement is made quick in the code or by an index, which is another fault's remedy"),
)
def api_slow_because_of_a_statement(demo: Demo) -> Iterator[None]:
    """One statement is slow (here by other limits), and everybody waits for it: the API is not to blame."""
    with slow_patients(demo):
        with signed_in(demo) as session:
            for _ in range(2):
                assert ask(demo, session, "/patients?limit=1", 11) == {200}
        yield


@fault(
    warns=["api.duration-histogram"],
    shows=["GET /api/v1/patients", "since the start"],
    looks=['route="/api/v1/patients"', 'le="+Inf"'],
    limits="[limits.api]\nresponse = {warn = 0.4, fail = 0.6}",
    mend=Exempt("nothing is wrong any more: the count begins anew with the backend's next start"),
)
def api_was_slow_and_is_not(demo: Demo) -> Iterator[None]:
    """A statement was slow for a while (here by other limits) and is quick again: the backend's count remembers."""
    demo.restart("backend")
    demo.wait_healthy("backend", "nginx")
    with slow_patients(demo), signed_in(demo) as session:
        for _ in range(2):
            assert ask(demo, session, "/patients?limit=1", 11) == {200}
    demo.forget_logs()  # ten minutes later
    with signed_in(demo) as session:
        assert ask(demo, session, "/patients?limit=1", 5) == {200}
    yield


@fault(warns=["api.memory-growth[backend]"], shows=["growth"], mend=steps(0))
def memory_leak(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The backend keeps what it should let go, a megabyte each quarter of a second."""
    misbehave(
        "const kept = []; const timer = setInterval(() => { kept.push(Buffer.alloc(4 << 20, 1));"
        " if (kept.length > 250) clearInterval(timer); }, 100);"
    )
    yield partial(behave, demo)


# --- failing ----------------------------------------------------------------------------------------------------------


@fault(
    root=["logs.sql-errors"],
    follows=["api.error-rate"],
    may=["service.log-errors[backend]", "service.log-errors[postgres]", "db.log-errors"],
    shows=['relation "patients" does not exist (', "missing table or column"],
    looks=['relation "patients" does not exist', "patients_kept"],
    mend=steps(),
)
def table_lost(demo: Demo) -> Iterator[Hand]:
    """Somebody renamed a table in production: each request for it is answered 500, and the health URL is well."""

    def back() -> None:
        demo.sql('ALTER TABLE IF EXISTS "patients_kept" RENAME TO "patients"')
        demo.forget_logs()

    demo.sql('ALTER TABLE "patients" RENAME TO "patients_kept"')
    try:
        with signed_in(demo) as session:
            for _ in range(3):
                assert ask(demo, session, "/patients?limit=1", 20) <= {500, 503}
        yield back
    finally:
        back()


@fault(root=["api.metrics"], may=["api.nodejs", "api.duration-histogram"], looks=["200 text/html"], mend=steps())
def metrics_are_the_page(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The metrics' address gives the page, with HTTP 200, so that nobody notices that there are none."""
    misbehave(
        "const http = require('node:http'); const emit = http.Server.prototype.emit;"
        "http.Server.prototype.emit = function (event, request, response) {"
        "if (event !== 'request' || request.url !== '/metrics') return emit.apply(this, arguments);"
        "response.writeHead(200, { 'Content-Type': 'text/html' });"
        "return response.end('<!doctype html><app-root></app-root>'); };"
    )

    def mended() -> None:
        behave(demo)
        demo.restart("backend")

    yield mended


@fault(
    root=["service.health-endpoint[direct]"],
    follows=["service.health-endpoint[edge]"],
    may=["api.response-time[*]", "service.healthcheck[backend]", "network.backend[*]"],
    shows=["no health endpoint: 404"],
    looks=["404"],
    mend=Exempt("where a route has moved to is for the deployment's settings, or for the target file, to say"),
)
def health_route_moved(misbehave: Misbehave) -> Iterator[None]:
    """A new build has its health URL elsewhere; the application works."""
    misbehave(
        "const http = require('node:http'); const emit = http.Server.prototype.emit;"
        "http.Server.prototype.emit = function (event, request, response) {"
        "if (event === 'request' && /health|ready/.test(request.url) && !/demo/.test(request.headers['user-agent']))"
        " request.url = '/api/v1/nowhere'; return emit.apply(this, arguments); };"
    )
    yield


# --- settings of CORS -------------------------------------------------------------------------------------------------


def allowed(demo: Demo, origin: str) -> Hand:
    """A backend that allows another origin; gives what writes the right one to its environment file."""
    right = demo.environment("backend")["CORS_ORIGIN"]
    demo.set_env("backend", CORS_ORIGIN=origin)
    demo.recreate("backend")
    demo.wait_healthy("backend")
    return lambda: demo.set_env("backend", CORS_ORIGIN=right)


@fault(
    root=["network.cors-config"],
    may=["network.cors-preflight[*]"],
    shows=["http://localhost:4299", "the page is served at"],
    looks=["http://localhost:4299"],
    mend=steps(0),
)
def origin_of_another_page(demo: Demo) -> Iterator[Hand]:
    """The backend allows an origin at which no page is served: users see a page that can't log in."""
    yield allowed(demo, "http://localhost:4299")


@fault(
    root=["network.cors-preflight[*]"],
    shows=["several origins in one Access-Control-Allow-Origin"],
    looks=["http://localhost:4200,"],
    mend=steps(0),
)
def origins_in_a_list(demo: Demo) -> Iterator[Hand]:
    """CORS_ORIGIN is a list, which comes back as it is: browsers refuse every origin in it."""
    page = demo.environment("backend")["CORS_ORIGIN"]
    yield allowed(demo, f"http://localhost:4200,{page}")


@fault(
    root=["network.cors-foreign-origin"],
    may=["network.cors-preflight[*]"],
    shows=["any origin is allowed"],
    looks=["*"],
    mend=steps(0),
)
def any_origin(demo: Demo) -> Iterator[Hand]:
    """CORS_ORIGIN is *, "to make it work"."""
    yield allowed(demo, "*")
