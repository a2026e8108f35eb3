"""Logins that fail, for real: accounts, hashes, secrets, and a backend that misbehaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from allodoc_health.finding import Outcome
from allodoc_health.limits import Limits
from checks.auth.test_users_cannot_log_in import test_the_clocks_agree as the_clocks_agree
from fixtures.accounts import ClockSkew, lifetime
from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave
from tests.beds.recorded import finding_on
from tests.beds.suite import Health

CHAPTER = "checks/auth"


def test_a_wrong_password_is_named(demo: Demo, tmp_path: Path, suite: Health) -> None:
    """With another password than the stored one, the hash that does not match is the root cause."""
    file = tmp_path / "account.json"
    file.write_text(json.dumps({"email": demo.smoke["email"], "password": "Not-the-right-one-1"}), "utf-8")
    run = suite(CHAPTER, target=f'{demo.target}[account]\nfile = "{file}"\n')
    run.blames("auth.password-hash")
    assert "Not-the-right-one-1" not in run.output


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param("JWT_REFRESH_SECRET", "short-secret-of-20-c", id="short"),
    ],
)
def test_weak_secrets_are_named(demo: Demo, suite: Health, variable: str, value: str) -> None:
    """A short, an example and a shared secret are each a root cause, and none is shown."""
    secret = value or demo.environment("backend")["JWT_ACCESS_SECRET"]
    demo.set_env("backend", **{variable: secret})
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["status"] in ("running", "restarting"), what="the backend")
    run = suite(f"{CHAPTER}/test_users_cannot_log_in.py", "-k", "auth.jwt-secrets", target=demo.target)
    run.blames("auth.jwt-secrets")
    assert secret not in run.output


def test_a_stranger_who_gets_in_is_an_emergency(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """A backend that lets an unknown address in is named, and the manager is to be called at once."""
    misbehave(
        """
        const http = require('node:http');
        const emit = http.Server.prototype.emit;
        http.Server.prototype.emit = function (event, request, response) {
          if (event === 'request' && request.url.endsWith('/auth/login')) {
            response.writeHead(201, { 'Content-Type': 'application/json' });
            return response.end('{"accessToken":"x"}');
          }
          return emit.apply(this, arguments);
        };
        """
    )
    run = suite(CHAPTER, "-k", "auth.rejects-bad-password", target=demo.target)
    run.blames("auth.rejects-bad-password")
    assert run.snapshot["verdict"]["escalation"].startswith("now")


@pytest.mark.parametrize(
    ("ahead", "outcome"),
    [
        pytest.param(0.4, Outcome.PASS, id="together"),
        pytest.param(-5.0, Outcome.WARN, id="behind"),
        pytest.param(60.0, Outcome.FAIL, id="ahead"),
    ],
)
def test_clocks_apart(ahead: float, outcome: Outcome) -> None:
    """Recorded: a clock that is seconds off warns, one that is a minute off fails."""
    skew = ClockSkew(ahead, 0.1)
    assert finding_on(the_clocks_agree, clock_skew=skew, limits=Limits()).outcome is outcome


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900.0), ("7d", 604800.0), ("1h", 3600.0), ("900", 0.9), ("soon", None), ("", None)]
)
def test_lifetimes_are_read_as_the_application_reads_them(text: str, seconds: float | None) -> None:
    """Lifetimes follow jsonwebtoken's rules."""
    assert lifetime(text) == seconds
