"""Log-ins, tokens and cookies on the embedded demo."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import requests

from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave, behave
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]

NO_LOGIN = ("auth.refresh", "auth.token-claims", "auth.cookies")
"""What nothing can be said of while the smoke account does not get in."""


@contextmanager
def smoke_account(demo: Demo, assignment: str) -> Iterator[Hand]:
    """The smoke account's row with something changed in it; gives what puts it back, and does so in the end."""
    columns = 'email, password, "isActive"'
    identity, *before = demo.sql(f"SELECT id, {columns} FROM users WHERE email = %s", demo.smoke["email"])[0]

    def back() -> None:
        demo.sql(f"UPDATE users SET ({columns}) = (%s, %s, %s) WHERE id = %s", *before, identity)

    demo.sql(f"UPDATE users SET {assignment} WHERE id = %s", identity)
    try:
        yield back
    finally:
        back()


def told(demo: Demo, **settings: str) -> Hand:
    """A backend with other settings; gives what writes the right ones to its environment file again."""
    right = {name: demo.environment("backend")[name] for name in settings}
    demo.set_env("backend", **settings)
    demo.recreate("backend")
    demo.wait_healthy("backend")
    return lambda: demo.set_env("backend", **right)


# --- accounts ---------------------------------------------------------------------------------------------------------


@fault(
    root=["auth.account"],
    follows=["auth.login"],
    may=NO_LOGIN,
    shows=["not active"],
    looks=["f        |"],
    mend=steps(0),
)
def account_deactivated(demo: Demo) -> Iterator[None]:
    """Somebody deactivated an account: the application says "invalid credentials", as for a wrong password."""
    with smoke_account(demo, '"isActive" = false'):
        yield


@fault(root=["auth.account"], follows=["auth.login"], may=NO_LOGIN, shows=["not in the table users"], mend=steps())
def account_gone(demo: Demo) -> Iterator[Hand]:
    """The account is called otherwise than its user thinks."""
    with smoke_account(demo, "email = 'somebody.else@allodoc.test'") as back:
        yield back


@fault(
    root=["auth.password-hash"],
    follows=["auth.login"],
    may=NO_LOGIN,
    shows=["no well-formed bcrypt"],
    looks=["20"],
    mend=steps(0),
)
def password_hash_cut_off(demo: Demo) -> Iterator[Hand]:
    """An import cut the stored hash off."""
    with smoke_account(demo, "password = left(password, 20)") as back:
        yield back


@fault(root=["auth.password-hash"], follows=["auth.login"], may=NO_LOGIN, shows=["of another password"], mend=steps())
def wrong_password(demo: Demo) -> Iterator[Hand]:
    """The suite was given an old password of its account."""
    file = demo.folder.smoke_file
    right = file.read_text("utf-8")
    file.write_text(json.dumps({**json.loads(right), "password": "Not-the-right-one-1"}), "utf-8")
    try:
        yield partial(file.write_text, right, "utf-8")
    finally:
        file.write_text(right, "utf-8")


@fault(root=["auth.failure-rate"], shows=["from 1 addresses"], looks=["401"], mend=steps(0))
def passwords_guessed(demo: Demo) -> Iterator[Hand]:
    """Somebody tries passwords, one after another."""
    with requests.Session() as session:
        for number in range(14):
            guess = {"email": "chief@allodoc.test", "password": f"Summer-{number}"}
            login = f"{demo.urls['https']}/api/v1/auth/login"
            assert session.post(login, json=guess, verify=str(demo.ca_file), timeout=10).status_code in (401, 503)
    yield demo.forget_logs  # ten minutes later, and the address refused


# --- secrets ----------------------------------------------------------------------------------------------------------


@fault(root=["auth.jwt-secrets"], may=["service.required-env[backend]"], shows=["as in the example"], mend=steps(0))
def token_secret_of_the_example(demo: Demo) -> Iterator[Hand]:
    """The secret that signs refresh tokens is the example's, which everybody knows."""
    yield told(demo, JWT_REFRESH_SECRET="changeme-changeme-changeme-changeme")


@fault(root=["auth.jwt-secrets"], shows=["JWT_REFRESH_SECRET is the same as JWT_ACCESS_SECRET"], mend=steps(0))
def one_secret_for_both_tokens(demo: Demo) -> Iterator[Hand]:
    """Both kinds of tokens are signed with one secret: each passes for the other."""
    yield told(demo, JWT_REFRESH_SECRET=demo.environment("backend")["JWT_ACCESS_SECRET"])


# --- tokens -----------------------------------------------------------------------------------------------------------

LIBRARY = "const jwt = require(process.cwd() + '/node_modules/jsonwebtoken');"


@fault(root=["auth.token-claims"], may=["auth.refresh"], shows=["never expires"], mend=steps(0))
def tokens_without_an_end(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """A new build gives out access tokens that never expire."""
    misbehave(f"{LIBRARY} const sign = jwt.sign; jwt.sign = (c, s, {{ expiresIn, ...rest }}) => sign(c, s, rest);")
    yield partial(behave, demo)


@fault(
    root=["auth.token-claims"],
    follows=["auth.refresh"],
    shows=["signed with another secret than configured"],
    mend=steps(0),
)
def tokens_signed_with_an_old_secret(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The JWT secret was changed, and one part of the application still signs with the old one: 401 everywhere."""
    old = "process.env.JWT_ACCESS_SECRET"
    misbehave(
        f"{LIBRARY} const sign = jwt.sign; jwt.sign = (c, s, o) => sign(c, s === {old} ? 'old'.repeat(12) : s, o);"
    )
    yield partial(behave, demo)


@fault(root=["auth.refresh"], shows=["HTTP 401: the refresh token is turned away"], mend=steps(0))
def refresh_tokens_not_stored(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The backend loses the refresh tokens that it should keep in Redis: users are logged out every 15 minutes."""
    misbehave(
        "const redis = require(process.cwd() + '/node_modules/@redis/client'); const create = redis.createClient;"
        "redis.createClient = (...all) => { const client = create(...all);"
        "const send = client.sendCommand.bind(client);"
        "client.sendCommand = (words) => words[0] === 'SET' && words[1].startsWith('refresh:') ? 'OK' : send(words);"
        "return client; };"
    )
    yield partial(behave, demo)


@fault(root=["auth.token-lifetimes"], looks=["7d\n15m"], mend=steps(0))
def lifetimes_the_wrong_way_round(demo: Demo) -> Iterator[Hand]:
    """Access tokens live for a week, refresh tokens for a quarter of an hour."""
    yield told(demo, JWT_ACCESS_EXPIRATION="7d", JWT_REFRESH_EXPIRATION="15m")


@fault(warns=["auth.token-store"], shows=["never expire"], looks=["expires="], mend=steps(0))
def sessions_without_an_end(demo: Demo) -> Iterator[None]:
    """A session lies in Redis without a time to live."""
    with demo.redis() as client:
        client.set("session:for-ever", "x")
        yield
        client.delete("session:for-ever")


@fault(
    root=["deploy.env-parity"],
    warns=["auth.refresh-config"],
    shows=["JWT_REFRESH_EXPIRATION"],
    looks=["JWT_REFRESH_SECRET"],
    mend={"deploy.env-parity": steps(0, 1), "auth.refresh-config": steps(0)},
)
def no_lifetime_for_refresh_tokens(demo: Demo) -> Iterator[Hand]:
    """A release brought a setting that production was not given: the default counts, silently."""
    demo.unset_env("backend", "JWT_REFRESH_EXPIRATION")
    demo.recreate("backend")
    demo.wait_healthy("backend")
    yield lambda: demo.set_env("backend", JWT_REFRESH_EXPIRATION="7d")


@fault(warns=["auth.cookies"], shows=["access_token lacks Secure"], looks=["production"], mend=steps(0))
def cookies_without_secure(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The cookies that hold the tokens may travel in the clear."""
    misbehave(
        "const http = require('node:http').ServerResponse.prototype; const write = http.writeHead;"
        "http.writeHead = function (status, headers, ...rest) { if (headers && headers['Set-Cookie'])"
        "headers = { ...headers, 'Set-Cookie': headers['Set-Cookie'].map((one) => one.replace('; Secure', '')) };"
        "return write.call(this, status, headers, ...rest); };"
    )
    yield partial(behave, demo)


@fault(
    root=["auth.rejects-bad-password"],
    may=("auth.*",),
    shows=["HTTP 201 for an address that does not exist"],
    looks=["201"],
    mend=Exempt("going back to the release before is another deployment"),
)
def anybody_gets_in(misbehave: Misbehave) -> Iterator[None]:
    """A build that takes any password went out."""
    misbehave(
        "const http = require('node:http'); const emit = http.Server.prototype.emit;"
        "http.Server.prototype.emit = function (event, request, response) {"
        "if (event !== 'request' || request.method !== 'POST' || !request.url.endsWith('/auth/login'))"
        "  return emit.apply(this, arguments);"
        "response.writeHead(201, { 'Content-Type': 'application/json' });"
        'return response.end(\'{"accessToken":"x"}\'); };'
    )
    yield


@fault(
    root=["auth.login"],
    may=NO_LOGIN,
    shows=["HTTP 500: the login breaks down"],
    looks=["secretOrPrivateKey"],
    mend=steps(0),
)
def tokens_can_not_be_signed(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """Whoever has the right password gets an error, whoever has not is turned away as ever."""
    misbehave(f"{LIBRARY} jwt.sign = () => {{ throw new Error('jwt: secretOrPrivateKey must have a value'); }};")
    yield partial(behave, demo)


@fault(root=["auth.clock-skew[backend]"], shows=["apart by"], looks=["UTC"], mend=steps())
def clock_ahead(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The backend's clock is more than a minute ahead."""
    misbehave(
        "const http = require('node:http'); const emit = http.Server.prototype.emit;"
        "http.Server.prototype.emit = function (event, request, response) { if (event === 'request')"
        "response.setHeader('Date', new Date(Date.now() + 90000).toUTCString()); return emit.apply(this, arguments); };"
    )

    def mended() -> None:
        behave(demo)
        demo.restart("backend")

    yield mended
