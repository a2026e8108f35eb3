"""Redis of the embedded demo: frozen, locked, full, forgetful, crowded, slow, or unable to save."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import redis

from tests.beds.embedded import Demo
from tests.beds.keys import admitted, configured, crowd, fill, forget, hold_up, info, overflow, room
from tests.beds.misbehaviour import Misbehave
from tests.faults.embedded.consequences import BACKEND_GONE, BEHIND_THE_PASSWORD, CACHE_GONE, THE_API
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]

# What the API can't do while Redis refuses or holds up its commands.
HINDERED = (*THE_API, "service.log-errors[backend]", "service.healthcheck[backend]")


@fault(
    root=["service.running[redis]"],
    follows=["cache.ping"],
    may=(*CACHE_GONE, *HINDERED),
    shows=["is paused"],
    mend=steps(0),
)
def redis_paused(demo: Demo) -> Iterator[None]:
    """Redis' processes are frozen, as a backup leaves them: whatever needs it hangs."""
    demo.pause("redis")
    yield


@fault(
    root=["cache.ping"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_PASSWORD, "service.healthcheck[redis]", "network.service-link[backend-to-redis]", *HINDERED),
    shows=["no answer within 2 s"],
    mend=steps(1),
)
def redis_frozen_behind_the_runtimes_back(demo: Demo) -> Iterator[Hand]:
    """Redis was sent SIGSTOP: it counts as running, takes connections, and says nothing."""
    pid = demo.pid("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield lambda: os.kill(pid, signal.SIGCONT)
    finally:
        os.kill(pid, signal.SIGCONT)


@fault(
    root=["cache.ping"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_PASSWORD, *HINDERED, "deploy.env-parity"),
    shows=["the application sends none"],
    mend=steps(0),
)
def backend_sends_redis_no_password(demo: Demo) -> Iterator[Hand]:
    """The backend lost REDIS_PASSWORD: Redis turns it away, and login gives 500."""
    password = demo.environment("backend")["REDIS_PASSWORD"]
    demo.unset_env("backend", "REDIS_PASSWORD")
    demo.recreate("backend")
    demo.wait_healthy("backend")
    yield lambda: demo.set_env("backend", REDIS_PASSWORD=password)


@fault(warns=["cache.ping"], shows=["lets everybody in"], mend=steps(0))
def redis_lets_everybody_in(demo: Demo) -> Iterator[Hand]:
    """Redis was started without its password, and works for everybody."""
    password = demo.environment("redis")["REDIS_PASSWORD"]
    demo.set_env("redis", REDIS_PASSWORD="")
    demo.recreate("redis")
    demo.wait_healthy()
    demo.forget_logs()
    yield lambda: demo.set_env("redis", REDIS_PASSWORD=password)


@fault(
    root=["cache.ping"],
    may=(*BEHIND_THE_PASSWORD, "service.healthcheck[backend]", *HINDERED),
    shows=["0 of 1 replicas that it wants are there"],
    looks=["min-replicas-to-write", "min_slaves_good_slaves:0"],
    mend=steps(1),
)
def redis_waits_for_a_replica(demo: Demo) -> Iterator[Hand]:
    """Redis was told to take writes only with a replica, and there is none: it answers, and stores nothing."""
    with configured(demo, min_replicas_to_write=1):
        yield demo.forget_logs


@fault(
    root=["cache.ping"],
    follows=["service.health-endpoint[direct]", "cache.memory"],
    may=(*BEHIND_THE_PASSWORD, "service.healthcheck[redis]", "host.cpu[redis]", *HINDERED),
    shows=["a script keeps Redis busy"],
    mend=steps(0),
)
def endless_script(demo: Demo) -> Iterator[None]:
    """A Lua script that never ends keeps everybody else out."""
    runaway = demo.redis()
    runaway.connection_pool.connection_kwargs["socket_timeout"] = 60

    def run_away() -> None:
        with suppress(redis.RedisError):
            runaway.eval("while true do end", 0)

    def busy() -> bool:
        try:
            return not client.ping()
        except redis.ResponseError as error:
            return "BUSY" in str(error)

    # Its seconds would stand in the slow log for ten minutes.
    with configured(demo, lua_time_limit=50, slowlog_log_slower_than=-1) as client:
        thread = threading.Thread(target=run_away, daemon=True)
        thread.start()
        try:
            demo.wait_until(busy, what="Redis to be busy")
            yield
        finally:
            with suppress(redis.RedisError):
                client.script_kill()
            thread.join(10)


@fault(
    root=["cache.ping"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_PASSWORD, *BACKEND_GONE, "service.healthcheck[redis]"),
    shows=["is loaded"],
    mend=Exempt("it ends by itself once everything is loaded; the bed loads as slowly as it can"),
)
def redis_loads_its_dump(demo: Demo) -> Iterator[None]:
    """A big Redis was restarted, and answers nobody before it has read its dump."""
    with demo.redis() as client:
        client.config_set("rdbcompression", "no")
        for number in range(200):
            client.set(f"filler:{number}", "x" * 4096, ex=600)
        client.save()
    demo.set_env("redis", EXTRA_ARGS="--key-load-delay 100000 --loading-process-events-interval-bytes 1024")
    demo.recreate("redis")
    try:
        yield
    finally:
        demo.unset_env("redis", "EXTRA_ARGS")
        demo.kill("redis")
        demo.start("redis")
        demo.wait_healthy("redis")
        with demo.redis() as client:
            forget(client)


@fault(warns=["cache.policy"], mend=steps(0))
def any_key_may_be_evicted(demo: Demo) -> Iterator[None]:
    """allkeys-lru, as the guide has it, can throw sessions away."""
    with configured(demo, maxmemory_policy="allkeys-lru"):
        yield


@fault(root=["cache.evictions"], may=("auth.token-store",), shows=["where sessions are kept"], mend=steps(0))
def sessions_are_evicted(demo: Demo) -> Iterator[None]:
    """Redis is too small, and throws sessions away: users are logged out at random."""
    with demo.redis() as client:
        least = room(client)
    with configured(demo, maxmemory=least, maxmemory_samples=10) as client:
        overflow(client, "session")
        yield


WELL_WITHOUT_REDIS = """
const http = require('node:http');
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response) {
  if (event !== 'request' || !/demo-health/.test(request.headers['user-agent'])) return emit.apply(this, arguments);
  response.writeHead(200, { 'Content-Type': 'application/json' });
  return response.end('{"status":"healthy"}');
};
"""
"""Answers the runtime's own health check, which comes each second here, without a word to Redis."""


@fault(
    root=["cache.clients"],
    follows=["service.restart-loop[backend]", "service.exit-code[backend]"],
    may=BACKEND_GONE,
    shows=["idle for 2 s"],
    looks=["timeout"],
    mend=steps(0),
)
def idle_connections_end_the_backend(demo: Demo, misbehave: Misbehave) -> Iterator[None]:
    """Redis closes what is idle for two seconds, and the backend ends with it, starts again, is healthy, and ends."""
    misbehave(WELL_WITHOUT_REDIS)
    with configured(demo, timeout=2):
        demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 3, what="the backend to loop", timeout=40)
        demo.wait_healthy("backend")
        yield


@fault(
    warns=["cache.clients"],
    shows=["idle for 20 s"],
    looks=["timeout", "20"],
    mend=steps(0),
)
def idle_connections_are_closed(demo: Demo) -> Iterator[None]:
    """Redis was told to close what is idle for twenty seconds, which the backend's connections may be."""
    with configured(demo, timeout=20):
        yield


@fault(
    root=["cache.clients"],
    follows=["cache.ping"],
    may=(*BEHIND_THE_PASSWORD, "service.healthcheck[redis]"),
    shows=["no client slot left"],
    mend=steps(1),
)
def connections_to_redis_run_out(demo: Demo) -> Iterator[Hand]:
    """Somebody opens connections to Redis and keeps them, until nobody else gets in."""
    with configured(demo, maxclients=40) as client, crowd(client, 60) as members:

        def stop_some() -> None:
            for member in members[-20:]:
                member.disconnect()
            demo.wait_until(lambda: admitted(demo), what="a place to be free")

        yield stop_some


@fault(
    root=["cache.persistence"],
    follows=["cache.ping", "service.health-endpoint[direct]"],
    may=HINDERED,
    shows=["the last save failed; Redis refuses writes"],
    mend=steps(0, 1),
)
def redis_can_not_save(demo: Demo) -> Iterator[None]:
    """Redis' data folder may not be written to, so it refuses writes: nobody can log in."""
    folder = demo.folder.service("redis") / "data"
    with configured(demo) as client:
        folder.chmod(0o500)
        try:
            client.set("session:bed", "1", ex=600)
            client.bgsave()
            demo.wait_until(lambda: info(client, "rdb_last_bgsave_status") == "err", what="the save to fail")
            yield
        finally:
            folder.chmod(0o700)
            client.bgsave()
            demo.wait_until(lambda: info(client, "rdb_last_bgsave_status") == "ok", what="the save to succeed")


@fault(root=["cache.slow-commands"], shows=["EVAL took"], mend=steps(1))
def slow_command(demo: Demo) -> Iterator[None]:
    """One script held everybody up for a sixth of a second."""
    with configured(demo, latency_monitor_threshold=100) as client:
        hold_up(client, 0.15)
        yield


@fault(
    warns=["cache.evictions"],
    shows=["lookups found their key = 50 %"],
    mend=Exempt("the application is to keep what it looks up; the counters begin anew with Redis"),
)
def lookups_that_find_nothing(demo: Demo) -> Iterator[None]:
    """Half of what is looked up is not there any more."""
    with configured(demo) as client:
        client.set("cache:bed", "1", ex=600)
        pipeline = client.pipeline(transaction=False)
        for _ in range(1100):
            pipeline.get("cache:nothing")
            pipeline.get("cache:bed")
        pipeline.execute()
        yield


@fault(warns=["cache.memory"], mend=steps(0))
def redis_without_a_limit(demo: Demo) -> Iterator[None]:
    """Neither Redis nor its runtime limits what it may grow to."""
    with configured(demo, maxmemory=0):
        yield


@fault(
    root=["cache.memory"],
    may=HINDERED,
    shows=["maxmemory in use"],
    mend=steps(1),
)
def redis_nearly_full_with_nothing_to_evict(demo: Demo) -> Iterator[None]:
    """A volatile policy does not help where no key has a time to live."""
    with demo.redis() as client:
        least = room(client)
    with configured(demo, maxmemory=least) as client:
        fill(client, 0.96, "cache", ex=None)
        yield
