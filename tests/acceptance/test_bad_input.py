"""The whole suite against what should not be there: the right finding, in time, in bounded memory, and no defect."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.beds.edge import Edge
from tests.beds.edge import edge as edge
from tests.beds.embedded import Demo
from tests.beds.stub import Behaviour, answer, says, serving, trickles
from tests.beds.suite import Health, Run

API = ("checks/service/test_health.py", "checks/performance/test_slow_api.py", "checks/auth")
HEALTH = "service.health-endpoint[direct]"
MIB = 1024 * 1024

MOST_MEMORY = 600
"""MiB that a run may take at most: it takes about 150, and a body of a gigabyte would take more than this."""

MOST_SECONDS = 25
"""Ten seconds are the run's budget; the rest is for a busy machine."""

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def bounded(run: Run) -> Run:
    """The run, which was over in time, took little memory, and met nothing that it had not expected."""
    assert not run.snapshot["defects"], run.output
    assert "Traceback" not in run.output, run.output
    assert run.seconds < MOST_SECONDS, run.output
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    assert peak < MOST_MEMORY, f"{peak:.0f} MiB"
    return run


def gigabyte(connection: socket.socket, path: str) -> None:
    """A body of a gigabyte, as it is promised."""
    connection.sendall(OK + b"Content-Length: 1073741824\r\n\r\n")
    for _ in range(1024):
        connection.sendall(b" " * MIB)


def silence(connection: socket.socket, path: str) -> None:
    """Take the request, and say nothing."""
    connection.recv(1)
    time.sleep(20)


def circle(connection: socket.socket, path: str) -> None:
    """Send from here to there and back."""
    there = "/there" if path != "/there" else "/here"
    connection.sendall(answer(b"", "302 Found", "text/plain", f"Location: {there}"))


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        pytest.param(gigabyte, "more than 64 KiB came, which is no health answer", id="gigabyte"),
        pytest.param(trickles(OK + b"Content-Length: 999\r\n\r\n", b" ", 1.0), "not complete within 5 s", id="trickle"),
        pytest.param(
            trickles(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.2), "no answer within 5 s", id="endless-headers"
        ),
        pytest.param(silence, "no answer within 5 s", id="silence"),
        pytest.param(circle, "HTTP 302, which sends to /", id="redirect-loop"),
        pytest.param(
            says(b"", "302 Found", "text/plain", "Location: https://elsewhere.invalid/"),
            "HTTP 302, which sends to https://elsewhere.invalid/",
            id="redirect-away",
        ),
        pytest.param(says(b"", "302 Found", "text/plain", "Location: http://[::1"), "HTTP 302", id="redirect-nowhere"),
        pytest.param(says("<!doctype html><app-root>", "200 OK", "text/html"), "the page came", id="page"),
        pytest.param(says("[" * 60_000), "does not say whether it is healthy", id="nest"),
        pytest.param(says(b"\x00\xff" * 1000), "does not say whether it is healthy", id="junk"),
    ],
)
def test_an_api_that_is_none(demo: Demo, suite: Health, behave: Behaviour, said: str) -> None:
    """Health, a stranger's login and metrics are asked of what answers anything: the health check says what came."""
    with serving(behave) as port:
        run = suite(*API, target=f'{demo.target}\n[services.backend]\nurl = "http://127.0.0.1:{port}"\n')
    found = bounded(run).finding(HEALTH)
    assert found["outcome"] == ("warn" if "does not say" in said else "fail"), run.output
    assert said in found["message"], run.output
    assert run.outcome("auth.rejects-bad-password") in ("fail", "blocked"), run.output
    assert run.outcome("api.metrics") in ("fail", "blocked"), run.output
    assert run.exit_status == 1


def test_metrics_that_are_too_many(demo: Demo, suite: Health) -> None:
    """Ten megabytes of metrics are not read, and numbers that are none are no measurement."""
    many = b"".join(b'a_total{n="%07d"} 1\n' % number for number in range(500_000))
    odd = (
        "nodejs_eventloop_lag_seconds NaN\nnodejs_heap_size_used_bytes +Inf\nup 1\nup 1\n"
        'http_request_duration_seconds_bucket{le="x"} 60\nhttp_request_duration_seconds_bucket{le="+Inf"} NaN\n'
    )
    for body, outcome, said in ((many, "fail", "too many metrics"), (odd, "pass", "metrics")):
        with serving(says(body, "200 OK", "text/plain")) as port:
            target = f'{demo.target}\n[services.backend]\nurl = "http://127.0.0.1:{port}"\n'
            run = bounded(suite("checks/performance/test_slow_api.py", target=target))
        assert run.outcome("api.metrics") == outcome, run.output
        assert said in run.finding("api.metrics")["message"]
        assert run.outcome("api.nodejs") == ("not-applicable" if body is odd else "blocked"), run.output


def sends(content: bytes, again: bool = False) -> Behaviour:
    """Say this to everybody, once or for ever."""

    def behave(connection: socket.socket, path: str) -> None:
        while True:
            connection.sendall(content)
            if not again:
                time.sleep(8)

    return behave


@pytest.mark.parametrize(
    ("content", "again"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", False), (b"x" * 65536, True), (b"*1\r\n" * 9999, False)],
    ids=["web", "flood", "nest"],
)
def test_a_redis_that_is_none(demo: Demo, suite: Health, content: bytes, again: bool) -> None:
    """Junk on Redis' port fails the check of its answer, and blocks the others."""
    with serving(sends(content, again), until=b"\r\n") as port:
        target = f'{demo.target}[services.redis]\nhost = "127.0.0.1"\nport = {port}\n'
        run = bounded(suite("checks/performance/test_cache.py", target=target))
    assert run.outcome("cache.ping") == "fail", run.output
    assert run.finding("cache.memory")["blocked_by"] == "cache.ping"


def test_a_postgresql_that_speaks_http(demo: Demo, suite: Health) -> None:
    """A web server on PostgreSQL's port is said to be none."""
    with serving(sends(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 9999), until=b"") as port:
        target = f'{demo.target}[services.postgres]\nhost = "127.0.0.1"\nport = {port}\n'
        run = bounded(suite("checks/db", target=target))
    run.blames("db.accepts-connections")
    assert "does not speak PostgreSQL" in run.finding("db.accepts-connections")["message"]


@pytest.fixture
def backend_log(demo: Demo) -> Iterator[Path]:
    """The file that the demo's backend is logged to, empty, and empty again afterwards."""
    demo.forget_logs()
    yield Path(demo.service("backend")["log_files"][-1])
    demo.forget_logs()


@pytest.mark.parametrize(
    "before",
    [
        b"\x00\xff\xfe\x1b[31m\r\x0c" * 5000 + b"\n",
        b"x" * 50 * MIB + b"\n",
        b"",
        b"2026-99-99T99:99:99.000000000Z stdout x\n",
    ],
    ids=["junk", "long-line", "hundred-megabytes", "no-time"],
)
def test_logs_that_are_hard_to_read(demo: Demo, suite: Health, backend_log: Path, before: bytes) -> None:
    """An error is found in a log of any kind, as long as its newest part can be read."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime())
    with backend_log.open("ab") as stream:
        if not before:
            stream.truncate(100 * MIB)
        stream.write(before + f"\n{now} stderr [Nest] 8  - 11/23/2026, 2:03:23 PM   ERROR [X] queue failed\n".encode())
    run = bounded(suite("checks/logs", "checks/service/test_logs.py", target=demo.target))
    found = run.finding("service.log-errors[backend]")
    assert found["outcome"] in ("fail", "warn"), run.output
    assert any("queue failed" in line for line in found["details"]), run.output


def test_a_page_of_a_gigabyte(demo: Demo, edge: Edge, suite: Health) -> None:
    """Of a page without an end its beginning is read."""
    index = edge.page() / "index.html"
    text = index.read_bytes()
    os.truncate(index, 1024 * MIB)
    run = bounded(suite("checks/service/test_page.py", "-k", "edge", target=demo.target))
    assert run.outcome("service.app-loads[edge]") == "pass", run.output
    index.write_bytes(b"\x00" * MIB + text)
    run = bounded(suite("checks/service/test_page.py", "-k", "edge", target=demo.target))
    assert run.outcome("service.app-loads[edge]") == "fail", run.output


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        pytest.param("include {configuration};", "network.nginx-config", id="include-loop"),
        pytest.param("include /nowhere/at/all.conf;", "network.nginx-config", id="missing-include"),
        pytest.param("\x00\x01 {{", "network.nginx-config", id="junk"),
    ],
)
def test_a_configuration_that_nginx_refuses(demo: Demo, edge: Edge, suite: Health, broken: str, check: str) -> None:
    """nginx' own objection is what is told, and what is still read of the rest does no harm."""
    text = edge.configuration.read_text("utf-8")
    broken = broken.replace("{configuration}", str(edge.configuration))
    edge.configuration.write_text(text.replace("http {", f"http {{\n    {broken}\n", 1), "utf-8")
    run = bounded(suite("checks/network", target=demo.target))
    assert run.outcome(check) == "fail", run.output
    assert check in run.root_causes


def test_certificates_that_do_not_parse(demo: Demo, edge: Edge, suite: Health) -> None:
    """A file that holds no certificate any more is told, and so is one with junk around it."""
    server = edge.tls / "server.pem"
    whole = server.read_bytes()
    for content, outcome in (
        (b"\xff\x00junk\n" + whole, "pass"),
        (whole[:300] + b"!" * 99, "warn"),
        (b"\x00" * MIB, "warn"),
    ):
        server.write_bytes(content)
        run = bounded(suite("checks/network/test_tls.py", target=demo.target))
        named = [name for name in run.names() if name.startswith("tls.served-is-installed")]
        assert {run.outcome(name) for name in named} == {outcome}, run.output
