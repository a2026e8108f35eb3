"""What goes red with what on the embedded demo: patterns that the entries share."""

from __future__ import annotations

THE_API = (
    "service.health-endpoint[*]",
    "network.backend[*]",
    "network.cors-*",
    "network.nginx-upstream[*]",
    "network.service-link[nginx-to-backend]",
    "api.response-time[*]",
    "api.metrics",
    "api.nodejs",
    "api.duration-histogram",
    "api.error-rate",
    "auth.rejects-bad-password",
    "auth.login",
    "auth.login-through-nginx",
    "auth.refresh",
    "auth.cookies",
    "auth.token-claims",
    "service.log-errors[nginx]",
    "deploy.upstream-errors",
)
"""What asks the API, and is answered by nobody or with an error."""

INSIDE_THE_BACKEND = (
    "db.reachable-from-backend",
    "db.parameters-match",
    "network.service-link[backend-to-*]",
    "auth.clock-skew[backend]",
)
"""What is looked at from inside the backend, which takes a process to look from."""

BACKEND_GONE = (
    *THE_API,
    *INSIDE_THE_BACKEND,
    "service.*[backend]",
    "host.cpu[backend]",
    "api.memory-growth[backend]",
    "deploy.graceful-shutdown[backend]",
    "deploy.dependencies",
    "deploy.migrations",
)
"""What goes red when the backend does not run or does not come up."""

BEHIND_THE_LOGIN = ("db.*", "auth.account", "auth.password-hash", "auth.clock-skew[db]", "deploy.migrations")
"""What is asked of the database itself, by somebody who is logged in."""

DATABASE_GONE = (
    *BEHIND_THE_LOGIN,
    "service.*[postgres]",
    "host.cpu[postgres]",
    "network.service-link[*-to-postgres]",
    "api.memory-growth[postgres]",
    "deploy.graceful-shutdown[postgres]",
)
"""What goes red when PostgreSQL does not answer."""

BEHIND_THE_PASSWORD = ("cache.*", "auth.token-store", "auth.clock-skew[redis]")
"""What is asked of Redis itself."""

CACHE_GONE = (
    *BEHIND_THE_PASSWORD,
    "service.*[redis]",
    "host.cpu[redis]",
    "network.service-link[*-to-redis]",
    "api.memory-growth[redis]",
    "deploy.graceful-shutdown[redis]",
)
"""What goes red when Redis does not answer."""
