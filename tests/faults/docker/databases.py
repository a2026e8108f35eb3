"""Databases that run and can't be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.beds.docker import ContainerFactory, Stack
from tests.faults.docker.consequences import API_DOWN, CACHE_DOWN, DATABASE_DOWN
from tests.faults.docker.networks import QUICK_RETRIES
from tests.faults.fault import fault, steps

DATA = "/var/lib/postgresql/data"


@fault(root=["db.login"], may=[*API_DOWN, *DATABASE_DOWN], mend=steps(1))
def database_password_wrong_in_the_backend(stack: Stack) -> Iterator[Callable[[], object]]:
    """The backend was given another password than the database's."""
    stack.recreate("backend", {"DATABASE_PASSWORD": "of-last-year", **QUICK_RETRIES})
    stack.wait_until(lambda: stack.states["backend"].restart_count >= 2, 20, "the backend to loop")
    yield stack.correct


@fault(root=["cache.ping"], may=CACHE_DOWN, mend=steps(0), discovered=True)
def redis_password_wrong_in_the_backend(stack: Stack) -> Iterator[Callable[[], object]]:
    """The backend was given another password than Redis'."""
    stack.recreate("backend", {"REDIS_PASSWORD": "of-last-year"})
    yield stack.correct


@fault(root=["cache.memory"], may=CACHE_DOWN, mend=steps(1))
def redis_out_of_memory(stack: Stack) -> Iterator[None]:
    """Redis is full, and its policy throws nothing away: it refuses every write."""
    for setting in (("maxmemory", "4mb"), ("maxmemory-policy", "noeviction")):
        stack.redis("CONFIG", "SET", *setting)
    stack.redis("EVAL", "for i = 1, 200 do redis.call('SET', 'page:' .. i, string.rep('x', 20000)) end", "0")
    try:
        yield
    finally:
        for setting in (("maxmemory", "512mb"), ("maxmemory-policy", "allkeys-lru")):
            stack.redis("CONFIG", "SET", *setting)
        stack.redis("FLUSHALL")


@fault(root=["host.disk[data]"], may=DATABASE_DOWN, mend=steps(0))
def postgres_out_of_disk(stack: Stack, container: ContainerFactory) -> Iterator[Callable[[], object]]:
    """A copy that somebody forgot fills the data's file system: PostgreSQL can't write and gives up."""
    small = stack.small_volume("postgres", DATA, "160m", container)
    stack.exec("postgres", "sh", "-c", f"dd if=/dev/zero of={DATA}/copy.tmp bs=1M", user="postgres")
    stack.exec("postgres", "psql", "-U", "allodoc_prod", "-c", "CREATE TABLE more AS SELECT generate_series(1, 200000)")
    yield lambda: small.runtime.execute("service", ["rm", "/to/copy.tmp"], 10)
