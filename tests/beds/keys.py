"""What tests do to the demo's Redis: other settings, too many keys, too many clients; undone when their block ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from tests.beds.embedded import Demo


@contextmanager
def configured(demo: Demo, **changed: object) -> Iterator[redis.Redis]:
    """A client of the running Redis, with other settings; they are put back, keys and counters are forgotten."""
    client = demo.redis()
    names = {name.replace("_", "-"): value for name, value in changed.items()}
    before = {name: str(client.config_get(name)[name]) for name in names}
    forget(client)
    try:
        for name, value in names.items():
            client.config_set(name, str(value))
        yield client
    finally:
        # Memory first: a full Redis refuses other things.
        for name, value in sorted(before.items()):
            client.config_set(name, value)
        forget(client)


def forget(client: redis.Redis) -> None:
    """Forget all keys, counters, slow commands and stalls."""
    client.flushall()
    client.config_resetstat()
    client.slowlog_reset()
    client.execute_command("LATENCY RESET")  # type: ignore[no-untyped-call]  # redis-py has no method for it


def info(client: redis.Redis, name: str) -> object:
    """A value of INFO's."""
    return client.info("everything")[name]


def fill(client: redis.Redis, share: float, name: str, *, ex: int | None = 600) -> None:
    """Store keys until so much of maxmemory is used."""
    number = 0
    while int(str(info(client, "used_memory"))) < share * int(str(info(client, "maxmemory"))):
        pipeline = client.pipeline(transaction=False)
        for _ in range(20):
            pipeline.set(f"{name}:{number}", os.urandom(512), ex=ex)
            number += 1
        pipeline.execute()


def room(client: redis.Redis, megabytes: int = 2) -> int:
    """A maxmemory that leaves so much room above what is used now."""
    return int(str(info(client, "used_memory"))) + megabytes * 2**20


def overflow(client: redis.Redis, name: str) -> None:
    """Fill the memory, and go on until Redis has thrown keys away."""
    fill(client, 0.9, name)
    number = 0
    while not info(client, "evicted_keys"):
        for _ in range(50):
            client.set(f"{name}:more:{number}", os.urandom(2048), ex=600)
            number += 1


@contextmanager
def crowd(client: redis.Redis, count: int) -> Iterator[list[Any]]:
    """So many open connections; those that are turned away are left out."""
    template = client.connection_pool.connection_kwargs
    given = {name: template[name] for name in ("host", "port", "password", "socket_timeout")}
    members: list[Any] = []
    try:
        for _ in range(count):
            member: Any = redis.Connection(**given)  # type: ignore[no-untyped-call]
            with suppress(redis.RedisError):
                member.connect()
                members.append(member)
        yield members
    finally:
        for member in members:
            member.disconnect()


def admitted(demo: Demo) -> bool:
    """Whether Redis lets a new client in."""
    try:
        with demo.redis() as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def hold_up(client: redis.Redis, seconds: float, *keys: str) -> None:
    """Keep Redis busy with one script for at least so long: what the slow log then holds is that script's one call."""
    turns = 200_000
    took = 0.0
    while took < seconds:
        client.slowlog_reset()
        client.eval(f"local x = 0 for i = 1, {turns} do x = x + i end return x", len(keys), *keys)
        entries = client.slowlog_get(1)
        took = entries[0]["duration"] / 1e6 if entries else 0.0
        turns *= 2
