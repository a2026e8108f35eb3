"""Token refresh issues: users are logged out, tokens expire, the refresh does not work."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity, duration
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.accounts import TokenSettings, TokenStore
from fixtures.authentication import Refreshing


@symptom(
    "auth.refresh",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[
        "auth.login",
        "auth.rejects-bad-password",
        "auth.jwt-secrets",
        "auth.token-claims",
        "auth.token-store",
        "cache.ping",
        "cache.memory",
        "cache.slow-commands",
        "cache.evictions",
        "db.accepts-connections",
        "db.login",
        "db.query",
        "db.connection-headroom",
        "db.blocked-sessions",
        "api.nodejs",
        "api.response-time[direct]",
        "network.service-link[nginx-to-backend]",
        "network.service-link[backend-to-postgres]",
        "network.service-link[backend-to-redis]",
    ],
)
def test_a_refresh_gives_a_working_token(refreshing: Refreshing, limits: Limits, finding: Recorder) -> None:
    """A refresh gives a new token that works, and uses the old one up."""
    refresh, profile, reuse = refreshing.refresh, refreshing.profile, refreshing.reuse
    assert refresh.status is not None, f"the refresh gets no answer: {refresh.message}"
    assert refresh.status < 500, f"HTTP {refresh.status}: the refresh breaks down"
    assert 200 <= refresh.status < 300, f"HTTP {refresh.status}: the refresh token is turned away"
    assert profile is not None, "the refresh gave no token that could be tried"
    assert profile.status is not None, f"the profile gets no answer with the new token: {profile.message}"
    assert profile.status == 200, f"HTTP {profile.status} for the profile with the new token, expected 200"
    finding.measure("refresh takes", refresh.seconds, unit="s", limit=limits.auth.response)
    if reuse is not None and reuse.status is not None and 200 <= reuse.status < 300:
        finding.warn("the refresh token works a second time: a stolen one would too", variant="reuse")


@symptom("auth.token-lifetimes", severity=Severity.MAJOR)
def test_access_tokens_live_shorter_than_refresh_tokens(token_settings: TokenSettings, finding: Recorder) -> None:
    """Both lifetimes can be read, and access tokens live shorter than refresh tokens."""
    assert not token_settings.unreadable, f"{token_settings.unreadable[0]} is no lifetime that can be read"
    access, refresh = token_settings.access, token_settings.refresh
    if access is None or refresh is None:
        finding.not_applicable("the lifetimes are not set: the application's own defaults hold")
    finding.says(f"access {duration(access)}, refresh {duration(refresh)}")
    assert access < refresh, f"access tokens live {duration(access)}, refresh tokens only {duration(refresh)}"
    if access > 86400:
        finding.warn(f"access tokens live {duration(access)}: they can't be taken back for as long", variant="long")
    if refresh > 90 * 86400:
        finding.warn(f"refresh tokens live {duration(refresh)}", variant="long")
    if access < 60:
        finding.warn(f"access tokens live only {duration(access)}: is a unit missing?", variant="short")


@symptom("auth.token-store", severity=Severity.MAJOR, caused_by=["cache.evictions", "cache.ping"])
def test_stored_tokens_expire(token_store: TokenStore, finding: Recorder) -> None:
    """The tokens and sessions in Redis expire."""
    if not token_store.tokens:
        finding.not_applicable(f"no token or session among {token_store.looked_at} keys of {token_store.keys}")
    told = ", ".join(f"{count} {kind}" for kind, count in token_store.tokens.items())
    finding.says(f"{told} among {token_store.looked_at} keys")
    finding.note(
        f"{token_store.sampled} looked at more closely, the longest lives {duration(token_store.longest or 0)}"
    )
    if token_store.never_expiring:
        finding.warn(f"{token_store.never_expiring} of {token_store.sampled} tokens and sessions never expire")


@symptom("auth.refresh-config", severity=Severity.MINOR, caused_by=["service.required-env[backend]"])
def test_refreshing_is_configured(token_settings: TokenSettings, finding: Recorder) -> None:
    """The backend is told how to sign refresh tokens and how long they live."""
    finding.says(", ".join(token_settings.refresh_settings))
    secret = any("SECRET" in name for name in token_settings.refresh_settings)
    assert secret, "no secret for refresh tokens is set (JWT_REFRESH_SECRET)"
    if token_settings.refresh is None:
        finding.warn("no lifetime for refresh tokens is set: the application's default holds", variant="default")
