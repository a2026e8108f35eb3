"""What goes red with what on the stack in containers, beside what the embedded demo's entries name."""

from __future__ import annotations

from tests.faults.embedded.consequences import (
    BACKEND_GONE,
    CACHE_GONE,
    DATABASE_GONE,
    INSIDE_THE_BACKEND,
    THE_API,
)

API_DOWN = (*BACKEND_GONE, "network.nginx-config")
"""A container that does not run has no name, and nginx loads no name that it can't look up."""

CACHE_DOWN = (*CACHE_GONE, *API_DOWN)
"""Without Redis the backend ends, or hangs."""

DATABASE_DOWN = (*DATABASE_GONE, *THE_API, *INSIDE_THE_BACKEND)
"""Without PostgreSQL the backend runs, and says so or hangs."""

EDGE_GONE = (
    "service.*[nginx]",
    "service.*[edge]",
    "host.cpu[nginx]",
    "api.memory-growth[nginx]",
    "api.response-time[edge]",
    "deploy.graceful-shutdown[nginx]",
    "network.backend[edge]",
    "network.cors-*",
    "network.nginx-*",
    "network.service-link[nginx-to-*]",
    "auth.login-through-nginx",
    "tls.*",
)
"""What goes red when nginx does not answer."""

PAGE_GONE = (
    "service.*[frontend]",
    "service.app-loads[edge]",
    "host.cpu[frontend]",
    "api.memory-growth[frontend]",
    "deploy.graceful-shutdown[frontend]",
    "network.nginx-*",
    "network.service-link[nginx-to-frontend]",
    "tls.mixed-content[edge]",
)
"""What goes red when the frontend does not answer."""
