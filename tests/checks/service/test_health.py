"""Health endpoints that are ill, silent or gone: broken for real, seen, mended."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import urllib.request
from pathlib import Path

import pytest

from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.stub import Behaviour, answer, says, serving, trickles
from tests.beds.suite import Health as Suite

CHAPTERS = ("checks/service", "checks/db")
HEALTH = "checks/service/test_health.py"
DIRECT, EDGE = "service.health-endpoint[direct]", "service.health-endpoint[edge]"


def health_of(url: str) -> str:
    """The word that the health URL has for the API now; empty when it does not answer."""
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(f"{url}/api/v1/health", timeout=20, context=blind) as answered:  # noqa: S310
            return str(json.load(answered)["status"])
    except (OSError, ValueError):
        return ""


def nginx_configuration(demo: Demo) -> Path:
    """The file that nginx of the demo reads."""
    return demo.folder.service("nginx") / "nginx.conf"


def reload_nginx(demo: Demo) -> None:
    """Let nginx read its file anew."""
    os.kill(demo.pid("nginx"), signal.SIGHUP)


class TestDemo:
    """On the embedded demo."""

    def test_well(self, demo: Demo, suite: Suite) -> None:
        """Both ways are green, and a certificate that is not trusted here is told but does not count."""
        run = suite(HEALTH, target=demo.target)
        run.is_calm()
        assert (run.outcome(DIRECT), run.outcome(EDGE)) == ("pass", "pass")
        assert any("certificate is not trusted" in line for line in run.finding(EDGE)["details"])

    def test_unhealthy_with_http_200(self, demo: Demo, suite: Suite) -> None:
        """A body that names Redis as down is a failure of its own when Redis itself is well."""
        password = demo.environment("backend")["REDIS_PASSWORD"]
        demo.set_env("backend", REDIS_PASSWORD="not-the-password")
        demo.recreate("backend")
        demo.wait_until(lambda: health_of(demo.urls["api"]) == "unhealthy", what="the API to say that it is ill")
        run = suite(*CHAPTERS, target=demo.target)
        run.blames(DIRECT)
        assert run.finding(EDGE)["caused_by"] == [DIRECT]
        assert "HTTP 200" in run.finding(DIRECT)["message"]
        assert "redis" in run.finding(DIRECT)["message"]
        assert any("NOAUTH" in line for line in run.finding(DIRECT)["details"])
        assert run.finding(DIRECT)["remedy"].endswith("#the-api-says-that-it-is-unhealthy")
        run.do(DIRECT, "look", steps=[0, 2])
        demo.set_env("backend", REDIS_PASSWORD=password)
        run.do(DIRECT)
        demo.wait_healthy("backend")
        suite(*CHAPTERS, target=demo.target).is_calm()

    def test_frozen(self, demo: Demo, suite: Suite) -> None:
        """An API that takes the connection and says nothing fails in time, on both ways."""
        demo.pause("backend")
        run = suite(*CHAPTERS, target=demo.target)
        run.blames("service.running[backend]")
        assert run.finding(DIRECT)["message"].endswith("no answer within 5 s")
        assert run.finding(DIRECT)["remedy"].endswith("#the-apis-health-url-is-slow-or-does-not-answer-in-time")
        assert run.snapshot["seconds"] < 11

    def test_nginx_asks_in_the_wrong_place(self, demo: Demo, suite: Suite) -> None:
        """A wrong upstream breaks the way through nginx alone; a reload of the right file mends it."""
        configuration = nginx_configuration(demo)
        text = configuration.read_text("utf-8")
        try:
            configuration.write_text(
                re.sub(r"(upstream backend \{\s+server 127\.0\.0\.1:)\d+", r"\g<1>9", text), "utf-8"
            )
            reload_nginx(demo)
            demo.wait_until(lambda: not health_of(demo.urls["https"]), what="nginx to lose the API")
            demo.forget_logs()
            run = suite(*CHAPTERS, target=demo.target)
            run.blames(EDGE)
            assert run.finding(EDGE)["message"] == "HTTP 502: nginx gets no answer from the API"
            assert run.finding(EDGE)["remedy"].endswith("#nginx-gets-no-answer-from-the-api")
            run.do(EDGE, "look")
            # Its own requests brought errors into nginx's log; the next run does not take them for the users'.
            again = suite("checks/service/test_logs.py", HEALTH, target=demo.target)
            assert again.outcome("service.log-errors[nginx]") == "pass"
        finally:
            configuration.write_text(text, "utf-8")
        run.do(EDGE)
        demo.wait_until(lambda: health_of(demo.urls["https"]) == "healthy", what="nginx to find the API")
        suite(*CHAPTERS, target=demo.target).is_calm()

    def test_nginx_does_not_hand_on(self, demo: Demo, suite: Suite) -> None:
        """The page with HTTP 200 in place of the API's answer is no health."""
        configuration = nginx_configuration(demo)
        text = configuration.read_text("utf-8")
        try:
            configuration.write_text(text.replace("location /api/ {", "location /elsewhere/ {"), "utf-8")
            reload_nginx(demo)
            demo.wait_until(lambda: not health_of(demo.urls["https"]), what="nginx to forget the API")
            run = suite(*CHAPTERS, target=demo.target)
            run.blames(EDGE)
            assert run.finding(EDGE)["message"] == "the page came in place of the API's answer"
            run.do(EDGE, "look", steps=[0])
        finally:
            configuration.write_text(text, "utf-8")
        run.do(EDGE)
        demo.wait_until(lambda: health_of(demo.urls["https"]) == "healthy", what="nginx to find the API")


def at(demo: Demo, port: int) -> str:
    """A target file for the demo whose backend is said to answer at another port."""
    return f'{demo.target}\n[services.backend]\nurl = "http://127.0.0.1:{port}"\n'


TERMINUS = {
    "status": "error",
    "info": {"database": {"status": "up"}},
    "error": {"mail": {"status": "down", "message": "Erika Mustermann has no mailbox"}},
    "details": {"database": {"status": "up"}, "mail": {"status": "down", "message": "Erika Mustermann has no mailbox"}},
}


class TestAnswers:
    """Answers that the demo's own API never gives."""

    @pytest.mark.parametrize(
        ("behave", "outcome", "said", "section"),
        [
            pytest.param(
                says(json.dumps(TERMINUS), "503 Service Unavailable"),
                "fail",
                "HTTP 503, and the body says error: mail down",
                "the-api-says-that-it-is-unhealthy",
                id="terminus-503",
            ),
            pytest.param(
                says("", "503 Service Unavailable", "text/html"),
                "fail",
                "gets no answer from the API",
                "nginx-gets-no-answer-from-the-api",
                id="503-without-a-word",
            ),
            pytest.param(
                says('{"statusCode":404}', "404 Not Found"),
                "fail",
                "no health endpoint: 404 for /api/v1/health, /health",
                "there-is-no-health-answer-at-this-address",
                id="404-everywhere",
            ),
            pytest.param(
                lambda connection, path: None,
                "fail",
                "the connection was closed without an answer",
                "the-apis-health-url-cant-be-reached",
                id="reset",
            ),
            pytest.param(
                trickles(answer('{"status": "healthy"}')[:-5], b""),
                "fail",
                "the answer was not complete within 5 s",
                "the-apis-health-url-is-slow-or-does-not-answer-in-time",
                id="never-whole",
            ),
            pytest.param(says("OK", "200 OK", "text/plain"), "pass", "healthy within", "", id="plain-ok"),
            pytest.param(
                says("", "204 No Content"),
                "warn",
                "HTTP 204, but the body does not say",
                "the-health-url-does-not-say-how-the-api-is",
                id="204",
            ),
        ],
    )
    def test_each_kind(
        self, behave: Behaviour, outcome: str, said: str, section: str, demo: Demo, suite: Suite
    ) -> None:
        """Each kind of answer has its outcome, its sentence and its remedy, and shows no name that stands in it."""
        with serving(behave) as port:
            run = suite(HEALTH, "-k", "direct", target=at(demo, port))
        found = run.finding(DIRECT)
        assert found["outcome"] == outcome, run.output
        assert said in found["message"]
        assert (found["remedy"] or "").endswith(section)
        assert "Erika" not in run.output + json.dumps(run.snapshot)

    def test_slow(self, demo: Demo, suite: Suite) -> None:
        """An answer that takes its time is a warning with the time that it took."""
        slow = f"{demo.target}\n[limits.service]\nhealth_response = {{ warn = 0.0001 }}\n"
        run = suite(HEALTH, "-k", "direct", target=slow)
        run.warns(DIRECT)
        assert "warn at" in run.finding(DIRECT)["message"]


class TestDocker:
    """On the guide's own stack."""

    def test_well(self, stack: Stack, suite: Suite) -> None:
        """Discovered without a word, both ways are green."""
        del stack
        run = suite(HEALTH)
        run.is_calm()
        assert (run.outcome(DIRECT), run.outcome(EDGE)) == ("pass", "pass")

    def test_the_backend_is_gone(self, stack: Stack, suite: Suite) -> None:
        """A stopped backend explains both ways."""
        stack.stop("backend")
        run = suite(*CHAPTERS)
        run.blames("service.running[backend]")
        # Nobody answers for the address of a container that is gone: nginx may still be waiting when we are not.
        assert run.finding(EDGE)["message"].endswith(("nginx gets no answer from the API", "no answer within 5 s"))

    def test_redis_is_gone(self, stack: Stack, suite: Suite) -> None:
        """As in the demo: Redis is the root, though the backend ends and starts again and again."""
        stack.stop("redis")
        stack.wait_until(lambda: stack.states["backend"].restart_count > 0, 15, "the backend ends")
        suite(*CHAPTERS).blames("service.running[redis]")
