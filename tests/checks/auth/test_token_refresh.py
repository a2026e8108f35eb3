"""Tokens that live too long, too short, or for ever."""

from __future__ import annotations

from tests.beds.embedded import Demo
from tests.beds.suite import Health

REFRESH = "checks/auth/test_token_refresh.py"


def test_lifetimes_the_wrong_way_round_are_named(demo: Demo, suite: Health) -> None:
    """Access tokens that outlive refresh tokens are a root cause."""
    demo.set_env("backend", JWT_ACCESS_EXPIRATION="7d", JWT_REFRESH_EXPIRATION="15m")
    demo.recreate("backend")
    demo.wait_healthy("backend")
    suite(REFRESH, target=demo.target).blames("auth.token-lifetimes")


def test_sessions_without_an_end_are_seen(demo: Demo, suite: Health) -> None:
    """A session in Redis that never expires warns; given an end, it is calm."""
    client = demo.redis()
    client.set("session:for-ever", "x")
    try:
        suite(REFRESH, target=demo.target).warns("auth.token-store")
        client.expire("session:for-ever", 60)
        assert suite(REFRESH, target=demo.target).outcome("auth.token-store") == "pass"
    finally:
        client.delete("session:for-ever")


def test_no_lifetime_for_refresh_tokens_is_seen(demo: Demo, suite: Health) -> None:
    """A backend that is not told how long refresh tokens live warns."""
    demo.unset_env("backend", "JWT_REFRESH_EXPIRATION")
    demo.recreate("backend")
    demo.wait_healthy("backend")
    suite(REFRESH, target=demo.target).warns("auth.refresh-config")
