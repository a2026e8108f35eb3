"""Logins that fail, for real: accounts, hashes, secrets, and a backend that misbehaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from allodoc_health.finding import Outcome
from allodoc_health.limits import Limits
from checks.auth.test_users_cannot_log_in import test_the_clocks_agree as the_clocks_agree
from fixtures.accounts import ClockSkew, lifetime
from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave
from tests.beds.recorded import finding_on
from tests.beds.suite import Health

CHAPTER = "checks/auth"


@pytest.fixture
def smoke_row(demo: Demo) -> Iterator[Callable[[str], None]]:
    """Changes the smoke account's row; afterwards it is as it was."""
    email = demo.smoke["email"]
    before = demo.sql('SELECT id, email, password, "isActive" FROM users WHERE email = %s', email)[0]

    def change(assignment: str) -> None:
        demo.sql(f"UPDATE users SET {assignment} WHERE id = '{before[0]}'")

    yield change
    demo.sql('UPDATE users SET email = %s, password = %s, "isActive" = %s WHERE id = %s', *before[1:], before[0])


def test_a_deactivated_account_is_named(demo: Demo, smoke_row: Callable[[str], None], suite: Health) -> None:
    """A deactivated account is the root cause of the login that fails; activated again, all is well."""
    smoke_row('"isActive" = false')
    run = suite(CHAPTER, target=demo.target)
    run.blames("auth.account")
    assert run.outcome("auth.login") == "fail"
    smoke_row('"isActive" = true')
    suite(CHAPTER, target=demo.target).is_calm()


def test_a_missing_account_is_named(demo: Demo, smoke_row: Callable[[str], None], suite: Health) -> None:
    """An account that is not in the table is the root cause."""
    smoke_row("email = 'somebody.else@allodoc.test'")
    suite(CHAPTER, target=demo.target).blames("auth.account")


def test_a_damaged_hash_is_named(demo: Demo, smoke_row: Callable[[str], None], suite: Health) -> None:
    """A hash that is no bcrypt hash is the root cause."""
    smoke_row("password = left(password, 20)")
    suite(CHAPTER, target=demo.target).blames("auth.password-hash")


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
        pytest.param("JWT_REFRESH_SECRET", "changeme-changeme-changeme-changeme", id="placeholder"),
        pytest.param("JWT_REFRESH_SECRET", "", id="equal"),
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


def test_tokens_that_never_expire_are_named(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """A backend that gives out tokens without an end is named by its tokens."""
    misbehave(
        """
        const jwt = require(process.cwd() + '/node_modules/jsonwebtoken');
        const sign = jwt.sign;
        jwt.sign = (claims, secret, { expiresIn, ...rest }) => sign(claims, secret, rest);
        """
    )
    suite(CHAPTER, target=demo.target).blames("auth.token-claims")


def test_a_refresh_that_fails_is_named(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """A refresh that is turned away although the login works is the root cause."""
    misbehave(
        """
        const jwt = require(process.cwd() + '/node_modules/jsonwebtoken');
        const verify = jwt.verify;
        jwt.verify = (token, secret) => {
          if (secret === process.env.JWT_REFRESH_SECRET) throw new Error('no');
          return verify(token, secret);
        };
        """
    )
    suite(CHAPTER, target=demo.target).blames("auth.refresh")


def test_bare_cookies_are_seen(demo: Demo, misbehave: Misbehave, suite: Health) -> None:
    """Cookies without HttpOnly warn."""
    misbehave(
        """
        const http = require('node:http');
        const strip = (value) => (Array.isArray(value) ? value.map((one) => one.replace(/; HttpOnly/i, '')) : value);
        const write = http.ServerResponse.prototype.writeHead;
        http.ServerResponse.prototype.writeHead = function (status, headers, ...rest) {
          if (headers && headers['Set-Cookie']) headers = { ...headers, 'Set-Cookie': strip(headers['Set-Cookie']) };
          return write.call(this, status, headers, ...rest);
        };
        const set = http.ServerResponse.prototype.setHeader;
        http.ServerResponse.prototype.setHeader = function (name, value) {
          return set.call(this, name, name.toLowerCase() === 'set-cookie' ? strip(value) : value);
        };
        """
    )
    suite(CHAPTER, target=demo.target).warns("auth.cookies")


def test_failed_logins_are_counted(demo: Demo, suite: Health) -> None:
    """A dozen wrong passwords through nginx are seen as a failure rate, and nothing else is red."""
    for number in range(14):
        body = {"email": f"somebody-{number}@allodoc.test", "password": "wrong-password"}
        answer = requests.post(
            f"{demo.urls['https']}/api/v1/auth/login", json=body, verify=str(demo.ca_file), timeout=10
        )
        assert answer.status_code == 401
    suite(CHAPTER, target=demo.target).blames("auth.failure-rate")


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
