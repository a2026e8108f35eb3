"""Users can't log in: credentials rejected, accounts, secrets, tokens, clocks."""

from __future__ import annotations

from allodoc_health.finding import Escalation, Recorder, Severity, duration
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.accounts import SHORTEST_SECRET, AccountRow, ClockSkew, JwtSecret, LoginAttempts
from fixtures.authentication import CookieAttributes, Step, Stranger, TokenClaims, WayIn

ENOUGH_LOGINS = 10
LOCKED = ("db.blocked-sessions", "db.idle-in-transaction", "db.long-running")
"""What waits for a lock on the users' table, and whoever holds it."""
WAYS = (
    "network.service-link[nginx-to-backend]",
    "network.service-link[backend-to-postgres]",
    "network.service-link[backend-to-redis]",
)
"""The ways of a login, each of which may end at somebody else who bears the name."""
ILL = (
    "service.running[backend]",
    "service.health-endpoint[direct]",
    "service.running[postgres]",
    "service.running[redis]",
    "db.port",
    "db.accepts-connections",
    "db.login",
    "db.query",
    "db.parameters-match",
    "db.reachable-from-backend",
    "db.connection-headroom",
    *LOCKED,
    "cache.ping",
    "cache.clients",
    "cache.memory",
    "cache.slow-commands",
    "api.nodejs",
    "api.response-time[direct]",
    "deploy.migrations",
    "db.synchronous-commit",
    "logs.sql-errors",
    *WAYS,
)


@symptom(
    "auth.login",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=["auth.account", "auth.password-hash", "auth.jwt-secrets", "auth.rejects-bad-password", *ILL],
)
def test_the_smoke_account_can_log_in(login: Step, limits: Limits, finding: Recorder) -> None:
    """A user with the right password gets in."""
    assert login.status is not None, f"the login gets no answer: {login.message}"
    assert login.status != 429, "HTTP 429: too many logins, try again later"
    assert login.status < 500, f"HTTP {login.status}: the login breaks down"
    assert 200 <= login.status < 300, f"HTTP {login.status}: the smoke account is turned away"
    assert login.has_token, f"HTTP {login.status}, but no access token came with it"
    finding.measure("login takes", login.seconds, unit="s", limit=limits.auth.response)


@symptom(
    "auth.login-through-nginx",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[
        "network.backend[edge]",
        "network.nginx-connections",
        "network.nginx-upstream",
        "network.nginx-config",
        "network.service-link[nginx-to-backend]",
        "auth.login",
    ],
)
def test_users_come_in_through_nginx(way_in: WayIn, finding: Recorder) -> None:
    """What the backend lets in comes through nginx, too: the login, and its token."""
    login, profile = way_in.login, way_in.profile
    finding.says(f"the login through nginx took {duration(login.seconds)}")
    if way_in.login_itself is not None:
        answer = login.message if login.status is None else f"HTTP {login.status}"
        finding.fail(f"{answer} for the login through nginx; the backend itself lets the account in")
    elif profile is not None and way_in.profile_itself is not None and way_in.profile_itself.status == 200:
        answer = profile.message if profile.status is None else f"HTTP {profile.status}"
        finding.fail(f"{answer} through nginx with a token that the backend itself takes", variant="token")


@symptom("auth.rejects-bad-password", severity=Severity.CRITICAL, smoke=True, caused_by=ILL)
def test_a_stranger_is_turned_away(stranger: Stranger, finding: Recorder) -> None:
    """An unknown address is turned away like a wrong password: 401, and no hint."""
    step = stranger.step
    assert step.status is not None, f"the login route gives no answer: {step.message}"
    if 200 <= step.status < 300:
        finding.escalate(Escalation.NOW, "anybody can log in")
    assert step.status in (401, 429), f"HTTP {step.status} for an address that does not exist, expected 401"
    finding.says(f"turned away with HTTP {step.status}")
    if stranger.says_unknown:
        finding.warn("the answer tells that the address does not exist", variant="hint")


@symptom("auth.failure-rate", severity=Severity.MAJOR, caused_by=["auth.login", "auth.jwt-secrets", *ILL])
def test_most_logins_succeed(login_attempts: LoginAttempts, limits: Limits, finding: Recorder) -> None:
    """Most of the logins of the last 10 minutes succeeded."""
    if login_attempts.total < ENOUGH_LOGINS:
        finding.not_applicable(f"too few logins to say: {login_attempts.total} in 10 min")
    finding.measure("logins turned away", login_attempts.failed, of=login_attempts.total, limit=limits.auth.failures)
    finding.note(f"from {login_attempts.addresses} addresses, at most {login_attempts.most_from_one} from one")


@symptom("auth.jwt-secrets", severity=Severity.CRITICAL, smoke=True, caused_by=["service.required-env[backend]"])
def test_the_token_secrets_are_secret(jwt_secrets: tuple[JwtSecret, ...], finding: Recorder) -> None:
    """The secrets that sign tokens are set, long, different, and no example."""
    finding.says(f"{len(jwt_secrets)} secrets of at least {min(secret.length for secret in jwt_secrets)} characters")
    for secret in jwt_secrets:
        if not secret.length:
            finding.fail(f"{secret.name} is not set", variant="missing")
        elif secret.placeholder:
            finding.fail(f"{secret.name} was left as in the example", variant="placeholder")
            finding.escalate(Escalation.NOW, "whoever knows the example can make tokens")
        elif secret.length < SHORTEST_SECRET:
            finding.fail(f"{secret.name} has {secret.length} characters, {SHORTEST_SECRET} are needed")
        if secret.same_as:
            finding.fail(f"{secret.name} is the same as {secret.same_as}")


@symptom(
    "auth.token-claims",
    severity=Severity.CRITICAL,
    caused_by=["auth.jwt-secrets", "auth.rejects-bad-password", "auth.clock-skew[backend]", WAYS[0]],
)
def test_tokens_are_signed_and_expire(token_claims: TokenClaims, limits: Limits, finding: Recorder) -> None:
    """The access token is signed with the backend's secret and expires."""
    if token_claims.algorithm.lower() == "none":
        finding.escalate(Escalation.NOW, "tokens without a signature are given out")
    assert token_claims.algorithm.lower() != "none", "the access token has no signature (alg none)"
    assert token_claims.signature_valid is not False, "the access token is signed with another secret than configured"
    assert token_claims.seconds is not None, "the access token never expires"
    assert token_claims.seconds > 0, "the access token has expired when it is given out"
    finding.says(f"{token_claims.algorithm}, expires after {duration(token_claims.seconds)}")


@symptom("auth.clock-skew", severity=Severity.MAJOR)
def test_the_clocks_agree(clock_skew: ClockSkew, limits: Limits, finding: Recorder) -> None:
    """The service's clock agrees with this machine's."""
    apart = max(abs(clock_skew.ahead) - clock_skew.uncertainty, 0.0)
    finding.measure("apart by", apart, unit="s", limit=limits.auth.clock_skew)
    finding.note(f"ahead by {duration(clock_skew.ahead)}, give or take {duration(clock_skew.uncertainty)}")


@symptom("auth.account", severity=Severity.MAJOR, caused_by=["deploy.migrations", "db.query", *LOCKED])
def test_the_account_exists_and_is_active(account_row: AccountRow, finding: Recorder) -> None:
    """The account exists, is active and has a role."""
    finding.fact(table=account_row.table, email=account_row.email_column, active=account_row.active_column)
    if account_row.hidden_from:
        finding.fact(sql=account_row.sql)
        rows = "the account in" if account_row.policies else "all rows of"
        told = f"row-level security hides {rows} {account_row.table} from role {account_row.hidden_from}"
        finding.fail(told, variant="row-security")
        return
    assert account_row.exists, f"the account is not in the table {account_row.table}"
    assert account_row.active is not False, "the account is not active"
    finding.says(f"found in {account_row.table}, active")
    if account_row.roles == 0:
        finding.warn("the account has no role", variant="no-role")


@symptom("auth.password-hash", severity=Severity.MAJOR, caused_by=["auth.account"])
def test_the_password_is_hashed_well(account_row: AccountRow, limits: Limits, finding: Recorder) -> None:
    """The account's password is stored as a bcrypt hash of a sane cost, and matches."""
    if not account_row.exists:
        finding.not_applicable("the account does not exist")
    assert account_row.hash_cost is not None, f"the stored hash is no well-formed bcrypt ({account_row.hash_scheme})"
    assert account_row.hash_matches, "the stored hash is that of another password"
    finding.measure("bcrypt cost", account_row.hash_cost, limit=limits.auth.hash_cost)


@symptom("auth.cookies", severity=Severity.MAJOR, caused_by=["auth.login"])
def test_cookies_are_kept_safe(login_cookies: tuple[CookieAttributes, ...], finding: Recorder) -> None:
    """The cookies that hold tokens are Secure, HttpOnly and SameSite."""
    if not login_cookies:
        finding.not_applicable("the login sets no cookie, as tokens come in the body alone")
    finding.says(f"{', '.join(cookie.name for cookie in login_cookies)} are Secure, HttpOnly and SameSite")
    for cookie in login_cookies:
        missing = [
            name
            for name, there in (
                ("Secure", cookie.secure),
                ("HttpOnly", cookie.http_only),
                ("SameSite", bool(cookie.same_site)),
            )
            if not there
        ]
        if missing:
            finding.warn(f"{cookie.name} lacks {', '.join(missing)}")
        if cookie.same_site == "none" and not cookie.secure:
            finding.fail(f"{cookie.name} is SameSite=None without Secure: browsers do not send it back")
