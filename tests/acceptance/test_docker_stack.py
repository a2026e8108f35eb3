"""The whole suite on the healthy Docker stack, as an operator runs it there: without any configuration."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from tests.beds.docker import Stack
from tests.beds.suite import Health, Run

WARNS = {
    "network.dns[app.allodoc.com]": "no such name",
    "tls.trust[app.allodoc.com]": "self-signed",
    "tls.http-redirect": "no Strict-Transport-Security",
    "cache.policy": "allkeys-lru",
    "db.slow-query-log": "log_min_duration_statement is off",
}
"""What is not as it should be on the guide's own stack."""

BUSY = (
    "*.stays-up[*",
    "db.reachable-from-backend",
    "network.service-link[*",
    "api.*",
    "auth.login",
    "*.health-endpoint[*",
)
"""What may warn because the stack was started just now, or because this machine has other work to do."""

DOES_NOT_ARISE = {
    "deploy.availability": "requests are sent for as long as --deploy-window says",
    "db.backup-age": "no backup folder is known",
    "db.synchronous-commit": "commits wait for no standby",
    "db.replication": "there are no replicas and no replication slots",
    "service.env-file[frontend]": "no file gives frontend its environment here",
    "service.required-env[redis]": "redis needs no variable",
    "service.required-env[frontend]": "frontend needs no variable",
    "service.required-env[nginx]": "nginx needs no variable",
}
"""Checks whose question has no answer on this stack, and never will."""

BY_CIRCUMSTANCE = {
    "auth.failure-rate": "too few logins to say",
    "auth.token-store": "no token or session among",
    "db.cache-hit": "too little traffic",
    "logs.top-clients": "too little traffic",
    "api.access-log-latency": "too little traffic",
    "api.error-rate": "too little traffic",
    "api.duration-histogram": "no route has had",
    "db.slow-statements": "no statement was called often enough",
    "service.core-dumps": "the kernel's core_pattern is",
    "host.swap": "this machine has no swap",
    "host.disk[data]": "on the same file system as",
    "host.disk[images]": "on the same file system as",
    "host.disk[logs]": "on the same file system as",
}
"""Checks that have an answer where there is traffic, or on another machine."""


def reasons(run: Run) -> dict[str, str]:
    """Every check that is not applicable, with its reason."""
    return {name: run.finding(name)["message"] for name in run.names("not-applicable")}


def unexpected(found: dict[str, str], *expected: dict[str, str]) -> dict[str, str]:
    """What was found and is not expected with this reason."""
    known = {name: text for one in expected for name, text in one.items()}
    return {name: text for name, text in found.items() if name not in known or known[name] not in text}


@pytest.fixture
def run(stack: Stack, suite: Health) -> Run:
    """One run of everything, with the smoke account in the environment and no target file."""
    stack.wait_healthy()
    return suite("checks")


def test_every_check_is_conclusive(run: Run) -> None:
    """Each check passes, warns of what is so, or does not apply for a reason that is true; none is blocked."""
    run.is_calm()
    assert not unexpected(reasons(run), DOES_NOT_ARISE, BY_CIRCUMSTANCE), run.output
    warned = {name: run.finding(name)["message"] for name in run.names("warn")}
    odd = unexpected(warned, WARNS)
    assert not [name for name in odd if not any(fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in BUSY)], (
        odd
    )


def test_without_an_account_only_logging_in_is_left_out(
    stack: Stack, suite: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who gives no smoke account loses what asks for one, is told how to give it, and nothing else."""
    for name in stack.smoke_account:
        monkeypatch.delenv(name)
    run = suite("checks/auth")
    run.is_calm()
    left_out = {name for name, reason in reasons(run).items() if "ALLODOC_SMOKE_EMAIL" in reason}
    assert left_out == {
        "auth.login",
        "auth.login-through-nginx",
        "auth.refresh",
        "auth.token-claims",
        "auth.account",
        "auth.password-hash",
        "auth.cookies",
    }
