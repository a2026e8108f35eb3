"""A real nginx that logs in formats of all kinds, and nowhere: what the findings say of its requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.beds.edge import Edge
from tests.beds.edge import edge as edge
from tests.beds.embedded import Demo
from tests.beds.suite import Health, Run

CHECKS = ("checks/performance", "checks/logs")
ONLY = ("-k", "access-log-latency or error-rate or top-clients or logs.flood or log-errors")

SLOWLY = 40
FAILED = 3

ZONE = "limit_req_zone $server_name zone=slowly:1m rate=25r/s;\n"
PLACES = """
        location = /slowly { limit_req zone=slowly burst=200; try_files /index.html =404; }
        location = /fail { return 500; }
        location = /nginx-health { access_log off; return 200 "ok"; }
"""
TIMED = "access_log /dev/stdout timed;"

JSON = """
    log_format odd escape=json '{"t":"$time_iso8601","a":"$remote_addr","m":"$request_method","u":"$request_uri",'
                               '"s":$status,"took":{"all":$request_time,"api":"$upstream_response_time"},'
                               '"by":"$http_user_agent","from":"$http_referer"}';"""
PLAIN_JSON = """
    log_format odd '{"time_local":"$time_local","client":"$remote_addr","request":"$request",'
                   '"status": "$status","request_time": "$request_time","user_agent":"$http_user_agent"}';"""
TIMES_FIRST = """
    log_format odd '$request_time $upstream_response_time $status [$time_local] $host$request_uri $request_method '
                   '$remote_addr "$http_user_agent"';"""
PIPES = "log_format odd '$time_iso8601|$status|$request_time|$remote_addr|$request|$http_user_agent';"
BARE = "log_format odd '$status $request_time $request_method $uri$is_args$args';"


def _asked(demo: Demo) -> None:
    """Forty requests that nginx holds back, up to one and a half seconds, and three that it fails itself."""
    demo.forget_logs()

    def one(path: str) -> int:
        return requests.get(f"{demo.urls['https']}{path}", verify=str(demo.ca_file), timeout=10).status_code

    with ThreadPoolExecutor(SLOWLY) as pool:
        assert list(pool.map(one, ["/slowly"] * SLOWLY + ["/fail"] * FAILED)) == [200] * SLOWLY + [500] * FAILED


def _logging(edge: Edge, formats: str, log: str) -> None:
    edge.change((TIMED, f"{formats}\n    {log}\n    {ZONE}"), ("location ~* ", f"{PLACES}\n        location ~* "))


def _value(run: Run, name: str, measured: str) -> float:
    measurements = {one["name"]: one["value"] for one in run.finding(name)["measurements"]}
    return float(measurements[measured])


@pytest.mark.parametrize(
    "formats",
    [
        pytest.param(JSON, id="json-with-keys-of-its-own"),
        pytest.param(PLAIN_JSON, id="json-shape"),
        pytest.param(TIMES_FIRST, id="times-first"),
        pytest.param(PIPES, id="pipes"),
        pytest.param(BARE, id="no-client"),
    ],
)
def test_requests_are_read_in_any_format(demo: Demo, edge: Edge, suite: Health, formats: str) -> None:
    """Times, statuses and clients are found by the format's declaration, and requests are no flood of messages."""
    _logging(edge, formats, "access_log /dev/stdout odd;")
    _asked(demo)
    run = suite(*CHECKS, *ONLY, target=demo.target)
    assert 0.3 < _value(run, "api.access-log-latency", "95th percentile") < 1.9, run.output
    assert run.outcome("api.access-log-latency") == "pass"
    assert run.finding("api.error-rate")["message"].startswith(f"{FAILED} of {SLOWLY + FAILED} "), run.output
    run.blames("api.error-rate")
    assert "logs no client" in run.finding("logs.top-clients")["message"] or "$remote_addr" in formats
    assert run.outcome("logs.flood[nginx]") in ("pass", "not-applicable")


@pytest.mark.parametrize(
    ("formats", "log", "check", "reason"),
    [
        pytest.param(
            "",
            "access_log /dev/stdout combined;",
            "api.access-log-latency",
            "combined has no $request_time",
            id="untimed",
        ),
        pytest.param("", "access_log off;", "api.error-rate", "access_log is off", id="off"),
        pytest.param(
            "", "access_log syslog:server=127.0.0.1:5140 timed;", "api.error-rate", "to syslog alone", id="syslog"
        ),
        pytest.param("", "access_log /dev/null timed;", "api.error-rate", "its access log is /dev/null", id="file"),
        pytest.param(
            "log_format odd '$request_time $request';",
            "access_log /dev/stdout odd;",
            "api.error-rate",
            "odd has no $status",
            id="no-status",
        ),
    ],
)
def test_what_is_not_logged_is_said(
    demo: Demo, edge: Edge, suite: Health, formats: str, log: str, check: str, reason: str
) -> None:
    """A check that the log says nothing for is not applicable, and the reason is the configuration's."""
    _logging(edge, formats, log)
    _asked(demo)
    run = suite(*CHECKS, "checks/auth", *ONLY[:1], f"{ONLY[1]} or failure-rate", target=demo.target)
    finding = run.finding(check)
    assert (finding["outcome"], reason in finding["message"]) == ("not-applicable", True), run.output
    assert run.outcome("api.error-rate") == ("fail" if log.endswith("combined;") else "not-applicable")
    assert run.outcome("auth.failure-rate") == "not-applicable"


def test_without_a_configuration_requests_are_recognised(demo: Demo, edge: Edge, suite: Health) -> None:
    """Where nginx' configuration can't be read, its lines are told by their shape."""
    _logging(edge, "", TIMED)
    _asked(demo)
    away = edge.configuration.rename(edge.configuration.with_suffix(".away"))
    try:
        run = suite(*CHECKS, *ONLY, target=demo.target)
    finally:
        away.rename(edge.configuration)
    assert 0.3 < _value(run, "api.access-log-latency", "95th percentile") < 1.9, run.output
    assert run.finding("api.error-rate")["message"].startswith(f"{FAILED} of {SLOWLY + FAILED} "), run.output
