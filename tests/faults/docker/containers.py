"""Containers that do not run, or run and do not work."""

from __future__ import annotations

from collections.abc import Iterator

from tests.beds.docker import Stack
from tests.faults.docker.consequences import API_DOWN, CACHE_DOWN, DATABASE_DOWN, EDGE_GONE, PAGE_GONE
from tests.faults.fault import Exempt, fault, steps


@fault(
    root=["service.running[postgres]"],
    may=DATABASE_DOWN,
    mend=steps(0),
    discovered=True,
)
def postgres_stopped(stack: Stack) -> Iterator[None]:
    """PostgreSQL was stopped, and nobody started it again."""
    stack.stop("postgres")
    yield


@fault(root=["service.running[postgres]"], may=DATABASE_DOWN, mend=steps(0))
def postgres_killed(stack: Stack) -> Iterator[None]:
    """PostgreSQL was killed in the middle of its work: it comes back through recovery."""
    stack.kill("postgres")
    yield


@fault(
    root=["service.running[postgres]"],
    may=[*DATABASE_DOWN, "api.duration-histogram"],
    mend=Exempt("the backend goes on counting the logins that had to wait, which stays red where they are the most"),
)
def postgres_paused(stack: Stack) -> Iterator[None]:
    """PostgreSQL is frozen: it takes connections and answers nothing."""
    stack.pause("postgres")
    yield


@fault(root=["service.running[postgres]"], may=[*DATABASE_DOWN, "*[postgres]"], mend=steps(0))
def postgres_removed(stack: Stack) -> Iterator[None]:
    """PostgreSQL's container was removed; its volume is still there."""
    stack.remove("postgres")
    yield


@fault(
    root=["service.running[redis]"],
    may=CACHE_DOWN,
    mend=steps(0),
    discovered=True,
)
def redis_stopped(stack: Stack) -> Iterator[None]:
    """Redis was stopped: the backend ends, and is started again and again."""
    stack.stop("redis")
    yield


@fault(root=["service.running[redis]"], may=CACHE_DOWN, mend=steps(0))
def redis_paused(stack: Stack) -> Iterator[None]:
    """Redis is frozen: whatever needs it hangs."""
    stack.pause("redis")
    yield


@fault(root=["service.running[backend]"], may=API_DOWN, mend=steps(0), discovered=True)
def backend_stopped(stack: Stack) -> Iterator[None]:
    """The backend was stopped."""
    stack.stop("backend")
    yield


@fault(root=["service.running[backend]"], may=API_DOWN, mend=steps(0))
def backend_paused(stack: Stack) -> Iterator[None]:
    """The backend is frozen."""
    stack.pause("backend")
    yield


@fault(root=["service.running[nginx]"], may=EDGE_GONE, mend=steps(0))
def nginx_stopped(stack: Stack) -> Iterator[None]:
    """nginx was stopped: nobody reaches anything through it."""
    stack.stop("nginx")
    yield


@fault(
    root=["service.app-loads[frontend]"],
    follows=["service.app-loads[edge]"],
    may=[*PAGE_GONE, "service.log-errors[*]"],
    shows=["HTTP 403"],
    looks=["Permission denied"],
    mend=steps(0, 1),
)
def page_that_the_web_server_may_not_read(stack: Stack) -> Iterator[None]:
    """The page was copied with the rights of somebody's own file: the frontend's log says so, and nginx' does not."""
    done = stack.exec("frontend", "chmod", "600", "/usr/share/nginx/html/index.html")
    assert done.exit_code == 0, done.stderr
    yield


@fault(root=["service.running[frontend]"], may=PAGE_GONE, mend=steps(0))
def frontend_stopped(stack: Stack) -> Iterator[None]:
    """The frontend was stopped."""
    stack.stop("frontend")
    yield
