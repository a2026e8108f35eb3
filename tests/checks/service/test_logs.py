"""Errors in the services' logs: made for real where that can be done, else recorded lines put into the real log."""

from __future__ import annotations

import json
import os
import signal
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.suite import Health as Suite

CHAPTERS = ("checks/service", "checks/db")
LOGS = "checks/service/test_logs.py"
BACKEND, NGINX = "service.log-errors[backend]", "service.log-errors[nginx]"
POSTGRES, REDIS = "service.log-errors[postgres]", "service.log-errors[redis]"
MANY = 12


def ask(url: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    """One request as the page makes them; its status and its JSON."""
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api/v1{path}", data, headers)  # noqa: S310 - the bed's own
    try:
        with urllib.request.urlopen(request, timeout=20, context=blind) as answered:  # noqa: S310
            return answered.status, json.load(answered)
    except urllib.error.HTTPError as error:
        return error.code, None


def record(demo: Demo, role: str, *lines: str, ago: timedelta = timedelta(seconds=1), stream: str = "stderr") -> None:
    """Put recorded lines into a service's log, as if it had written them a while ago."""
    at = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    with Path(demo.service(role)["log_files"][-1]).open("a", encoding="utf-8") as log:
        log.writelines(f"{at} {stream} {line}\n" for line in lines)


def postgres_line(text: str) -> str:
    """A line of PostgreSQL's."""
    return f"2026-11-23 14:02:50.841 UTC [77] {text}"


class TestDemo:
    """On the embedded demo."""

    def test_well(self, demo: Demo, suite: Suite) -> None:
        """A stack that has just been started and used has no errors in its logs."""
        assert ask(demo.urls["https"], "/auth/login", demo.smoke)[0] == 201
        run = suite(LOGS, target=demo.target)
        run.is_calm()
        assert not run.names("warn")
        assert run.finding("service.log-errors[frontend]")["message"] == "this target has no frontend service"

    def test_a_handler_throws(self, demo: Demo, suite: Suite) -> None:
        """One error with a stack trace warns; more than one a minute fail; a restart makes them history."""
        _, login = ask(demo.urls["api"], "/auth/login", demo.smoke)
        with demo.redis() as redis:
            try:
                # What each request with a token asks; the health check does not.
                redis.acl_setuser("default", commands=["-exists"], enabled=True)
                assert ask(demo.urls["api"], "/patients", token=login["accessToken"])[0] == 500
                run = suite(*CHAPTERS, target=demo.target)
                run.warns(BACKEND)
                (told,) = run.finding(BACKEND)["details"]
                assert told.startswith("1 × error: ")
                assert "NOPERM" in told
                assert "with a stack trace" in told
                for _ in range(MANY):
                    ask(demo.urls["api"], "/patients", token=login["accessToken"])
                run = suite(*CHAPTERS, target=demo.target)
                run.blames(BACKEND)
                (told,) = run.finding(BACKEND)["details"]
                assert told.startswith(f"{MANY + 1} × error: "), "a thousand errors of one cause are one group"
                assert run.finding(BACKEND)["measurements"][0]["value"] == pytest.approx((MANY + 1) / 10)
                run.do(BACKEND, "look")
            finally:
                redis.acl_setuser("default", commands=["+@all"], enabled=True)
        run.do(BACKEND)
        demo.wait_healthy("backend")
        again = suite(LOGS, target=demo.target)
        again.warns(BACKEND)
        assert "or the last start" in again.finding(BACKEND)["message"]

    def test_the_databases_fault(self, demo: Demo, suite: Suite) -> None:
        """What the backend and nginx log because the database is gone follows from the database."""
        demo.stop("postgres")
        for _ in range(MANY):
            ask(demo.urls["https"], "/auth/login", {"email": "erika@example.org", "password": "x"})
            ask(demo.urls["https"], "/auth/refresh", {"refreshToken": "x"})
        run = suite(*CHAPTERS, target=demo.target)
        run.blames("service.running[postgres]")
        assert "erika" not in (run.output + json.dumps(run.snapshot)).lower()

    def test_the_backends_fault(self, demo: Demo, suite: Suite) -> None:
        """nginx logs each request that finds no backend; the backend is the root cause, and its start ends it."""
        demo.stop("backend")
        for _ in range(MANY):
            assert ask(demo.urls["https"], "/live")[0] == 502
        run = suite(*CHAPTERS, target=demo.target)
        run.blames("service.running[backend]")
        assert run.outcome(NGINX) == "fail"
        assert "service.running[backend]" in run.finding(NGINX)["caused_by"]
        assert "connect() failed" in run.finding(NGINX)["details"][0]
        run.do("service.running[backend]", steps=[0])
        demo.wait_healthy("backend")
        suite(LOGS, target=demo.target).warns(NGINX)

    def test_a_backend_of_postgres_is_killed(self, demo: Demo, suite: Suite) -> None:
        """A killed server process takes all sessions with it: fatal, and told by the database's own chapter."""
        with demo.connect() as connection:
            pid = connection.info.backend_pid
            os.kill(pid, signal.SIGKILL)
            demo.wait_until(lambda: "terminated by signal 9" in demo.log_text("postgres"), what="PostgreSQL to notice")
        demo.wait_until(
            lambda: "ready to accept connections" in demo.log_text("postgres").rpartition("terminated by signal")[2],
            what="PostgreSQL to recover",
        )
        run = suite(*CHAPTERS, target=demo.target)
        run.blames("db.log-errors")
        assert run.outcome(POSTGRES) == "fail"
        assert run.finding(POSTGRES)["remedy"].endswith("#a-service-logged-an-error-that-ends-it")
        run.do(POSTGRES, "look")

    def test_clients_mistakes_are_not_fatal(self, demo: Demo, suite: Suite) -> None:
        """PostgreSQL's FATAL for a client is an error like others: a few of them warn."""
        record(
            demo,
            "postgres",
            postgres_line('FATAL:  password authentication failed for user "erika"'),
            postgres_line('FATAL:  database "mustermann" does not exist'),
            postgres_line("FATAL:  sorry, too many clients already"),
            postgres_line("FATAL:  terminating connection due to administrator command"),
            postgres_line("FATAL:  the database system is starting up"),
        )
        run = suite(LOGS, target=demo.target)
        run.warns(POSTGRES)
        assert run.finding(POSTGRES)["measurements"][0]["value"] == pytest.approx(0.3)
        assert not {"erika", "mustermann"} & set(json.dumps(run.snapshot).lower().split())

    @pytest.mark.parametrize(
        ("line", "kind"),
        [
            pytest.param('PANIC:  could not write to file "pg_wal/x": No space left on device', "a PANIC", id="panic"),
            pytest.param("ERROR:  invalid page in block 3 of relation base/5/16384", "an invalid page", id="page"),
            pytest.param(
                "WARNING:  page verification failed, calculated checksum 4711 but expected 815",
                "a failed checksum",
                id="checksum",
            ),
        ],
    )
    def test_damaged_data_cannot_wait(self, line: str, kind: str, demo: Demo, suite: Suite) -> None:
        """Recorded signs of damage fail however old they are, and call for the manager now."""
        record(demo, "postgres", postgres_line(line), ago=timedelta(minutes=8))
        run = suite(LOGS, target=demo.target)
        run.blames(POSTGRES)
        assert run.finding(POSTGRES)["message"] == f"it tells of damaged data: {kind}"
        assert run.finding(POSTGRES)["remedy"].endswith("#the-log-tells-of-damaged-data")
        assert run.snapshot["verdict"]["escalation"] == "now: call the manager"

    def test_uncaught(self, demo: Demo, suite: Suite) -> None:
        """A recorded exception that nobody caught is fatal, though it is one error only."""
        record(
            demo,
            "backend",
            "/app/dist/main.js:17",
            "    throw new Error('boom');",
            "    ^",
            "",
            "Error: boom",
            "    at Object.<anonymous> (/app/dist/main.js:17:11)",
            "",
            "Node.js v20.20.2",
        )
        run = suite(LOGS, target=demo.target)
        run.blames(BACKEND)
        assert run.finding(BACKEND)["message"].startswith("1 × fatal: Error")
        run.do(BACKEND, "look")

    def test_old_errors_are_history(self, demo: Demo, suite: Suite) -> None:
        """Recorded errors of some minutes ago, with none since, warn beside a service that is well."""
        record(demo, "redis", *("1:M 23 Nov 2026 14:02:50.123 # Can't save in background: fork: x" for _ in range(50)))
        run = suite(LOGS, target=demo.target)
        run.blames(REDIS)
        demo.forget_logs()
        old = timedelta(minutes=5)
        record(demo, "redis", *("1:M 23 Nov 2026 14:02:50.123 # Can't save in background: fork: x",) * 50, ago=old)
        run = suite(LOGS, target=demo.target)
        run.warns(REDIS)
        assert "none since 5 min" in run.finding(REDIS)["message"]

    def test_no_secret_and_no_patient(self, demo: Demo, suite: Suite) -> None:
        """Whatever an error says is masked before it is shown."""
        secret = demo.environment("backend")["JWT_ACCESS_SECRET"]
        bearer = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJlcmlrYSJ9.c2lnbmF0dXJlLWNhbmFyeQ"
        record(
            demo,
            "backend",
            "[Nest] 8  - 11/23/2026, 2:03:23 PM   ERROR [Auth] cannot verify "
            f"{bearer} with {secret} for patient Erika Mustermann, born 1970-01-01, erika.mustermann@example.org",
            f"Error: {secret}",
            "    at Erika.Mustermann (/app/x.js:1:1)",
        )
        record(
            demo,
            "postgres",
            postgres_line('ERROR:  invalid input syntax for type integer: "Mustermann"'),
            postgres_line("DETAIL:  Key (name)=(Erika Mustermann) is not present."),
            postgres_line("STATEMENT:  SELECT * FROM patients WHERE name = 'Erika Mustermann'"),
        )
        run = suite(LOGS, "-vv", target=demo.target)
        shown = run.output + "".join(file.read_text("utf-8", "replace") for file in run.folder.iterdir())
        for canary in (secret, bearer, "Mustermann", "mustermann", "Erika", "c2lnbmF0dXJl", "1970-01-01"):
            assert canary not in shown


class TestDocker:
    """On the guide's own stack."""

    def test_well(self, stack: Stack, suite: Suite) -> None:
        """Nothing fails in the logs of a stack that is well."""
        del stack
        run = suite(LOGS)
        run.is_calm()
        assert run.outcome("service.log-errors[frontend]") == "pass"
