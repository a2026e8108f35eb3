"""Faults that look like others, that hide behind others, or that come together, on the embedded demo."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

import psycopg
import redis

from tests.beds.edge import Edge
from tests.beds.embedded import Demo
from tests.beds.keys import configured, fill, room
from tests.beds.misbehaviour import Misbehave, behave
from tests.beds.sessions import answers, connections, data_folder, owned, table, waiting
from tests.faults.embedded.consequences import (
    BACKEND_GONE,
    BEHIND_THE_LOGIN,
    BEHIND_THE_PASSWORD,
    CACHE_GONE,
    DATABASE_GONE,
    THE_API,
)
from tests.faults.embedded.database import IMPATIENT, drop_sessions, no_recent_backup, own_role
from tests.faults.embedded.services import record
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]

HINDERED = (*THE_API, "service.log-errors[*]", "service.healthcheck[*]", "api.access-log-latency")
"""What goes red when the API runs and can't do its work."""


@contextmanager
def set_to(demo: Demo, role: str, **variables: str) -> Iterator[Hand]:
    """A service made anew with other variables, and what corrects its environment file."""
    before = {name: demo.environment(role)[name] for name in variables}
    demo.set_env(role, **variables)
    demo.recreate(role)
    yield lambda: demo.set_env(role, **before)


def looped(demo: Demo) -> None:
    """Wait until the backend has ended and was started again more than once."""
    demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 2, 30, "the backend to loop")


def overfill(client: redis.Redis) -> None:
    """Use up Redis' memory, and some more."""
    with suppress(redis.OutOfMemoryError):
        fill(client, 1.1, "cache")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) * 3 // 4)


@contextmanager
def following(demo: Demo) -> Iterator[None]:
    """A Redis that was told to follow another one that is gone."""
    with demo.redis() as client:
        client.replicaof("127.0.0.1", "1")
        demo.wait_until(lambda: client.info("replication")["role"] == "slave", what="it to follow")
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@fault(
    root=["service.running[postgres]"],
    follows=["db.accepts-connections", "service.health-endpoint[direct]"],
    may=(*DATABASE_GONE, *HINDERED),
    shows=["is paused"],
    mend=steps(0),
)
def postgres_paused(demo: Demo) -> Iterator[None]:
    """PostgreSQL is paused, not stopped: its port opens, and nobody answers."""
    demo.pause("postgres")
    yield


@fault(
    root=["db.query"],
    may=HINDERED,
    shows=["it is in recovery"],
    mend=steps(1),
)
def postgres_in_recovery(demo: Demo) -> Iterator[None]:
    """The primary came up as a standby: it can be read, and takes no writes."""
    with data_folder(demo) as folder:
        owned(folder / "standby.signal")
        demo.restart("postgres")
        demo.wait_until(lambda: answers(demo), what="the standby to answer")
        demo.wait_healthy()
        yield
        demo.wait_until(lambda: demo.sql("SELECT pg_is_in_recovery()") == [(False,)], what="the promotion")


@fault(
    root=["db.accepts-connections"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    mend=steps(1),
)
def standby_that_may_not_be_read(demo: Demo) -> Iterator[Hand]:
    """The primary came up as a standby with hot_standby off: it lets nobody in."""
    with data_folder(demo) as folder:
        owned(folder / "standby.signal")
        demo.set_env("postgres", EXTRA_ARGS="-c hot_standby=off")
        demo.recreate("postgres")
        demo.wait_until(lambda: "entering standby mode" in demo.log_text("postgres"), what="standby mode")

        def no_standby() -> None:
            (folder / "standby.signal").unlink()
            demo.unset_env("postgres", "EXTRA_ARGS")
            demo.recreate("postgres")
            demo.wait_healthy("postgres")

        yield no_standby


@fault(
    root=["db.query"],
    may=HINDERED,
    shows=["default_transaction_read_only is on"],
    looks=["command line"],
    mend=steps(3),
)
def postgres_started_read_only(demo: Demo) -> Iterator[Hand]:
    """PostgreSQL was started with default_transaction_read_only on its command line: nobody can write."""
    demo.set_env("postgres", EXTRA_ARGS="-c default_transaction_read_only=on")
    demo.recreate("postgres")
    demo.wait_healthy()
    yield lambda: demo.unset_env("postgres", "EXTRA_ARGS")


LEAK = """
setTimeout(async () => {
  const { Client } = require(process.cwd() + '/node_modules/pg');
  const env = process.env;
  for (let n = 0; n < 60; n += 1) {
    const client = new Client({ host: env.DATABASE_HOST, port: env.DATABASE_PORT, user: env.DATABASE_USERNAME,
      password: env.DATABASE_PASSWORD, database: env.DATABASE_NAME, application_name: 'allodoc-backend' });
    client.on('error', () => {});
    try { await client.connect(); } catch { break; }
    const { rows } = await client.query(
      "SELECT count(*)::int AS n FROM pg_stat_activity WHERE backend_type ~ '^client'");
    if (rows[0].n >= 47) break;
  }
  console.log('all connections taken');
}, 300);
"""


@fault(
    root=["db.connection-headroom"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=["allodoc-backend"],
    mend=steps(1),
)
def connections_leaked_by_the_backend(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The API opens connections beside its pool, and forgets them, until there are none left."""
    misbehave(LEAK)
    demo.wait_until(lambda: "all connections taken" in demo.log_text("backend"), what="the leak")
    yield lambda: behave(demo)


@fault(
    root=["db.pool-size-fits"],
    follows=["db.connection-headroom"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=["60 of 47 connections when all pools are full"],
    mend=steps(0),
)
def connections_used_up_by_a_pool_too_big(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The API's pool is bigger than what PostgreSQL allows, and it is full."""
    right = demo.environment("backend")["DATABASE_POOL_SIZE"]
    demo.set_env("backend", DATABASE_POOL_SIZE="60")
    misbehave(LEAK)
    demo.wait_until(lambda: "all connections taken" in demo.log_text("backend"), what="the pool to be full")

    def smaller() -> None:
        behave(demo)
        demo.set_env("backend", DATABASE_POOL_SIZE=right)

    yield smaller


@fault(
    root=["db.connection-headroom"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=["46 leaky"],
    looks=["leaky"],
    mend=steps(0),
)
def connections_used_up_by_somebody_else(demo: Demo) -> Iterator[Hand]:
    """A tool of somebody's holds nearly all connections, idle, under a role of its own."""
    demo.sql("CREATE ROLE clerk LOGIN PASSWORD 'clerk-clerk'")
    try:
        with connections(demo, 60, "clerk", "clerk-clerk"):
            yield lambda: drop_sessions(demo, "clerk")
    finally:
        demo.sql("DROP ROLE clerk")


@fault(
    root=["db.idle-in-transaction"],
    follows=["db.blocked-sessions"],
    may=HINDERED,
    limits=IMPATIENT,
    shows=["blocks 4 sessions"],
    mend=steps(0),
)
def lock_pile_up_behind_an_idle_transaction(demo: Demo) -> Iterator[None]:
    """A queue of sessions waits for a migration, which waits for a transaction that somebody left open."""
    with idle_blocker(demo) as behind, waiting(demo, "ALTER TABLE visits ADD COLUMN more int", *behind(3)):
        yield


@contextmanager
def idle_blocker(demo: Demo) -> Iterator[Callable[[int], list[str]]]:
    """A transaction that holds a row and idles, and statements that have to wait for it."""
    with (
        table(demo, "AS SELECT n AS id, '' AS note FROM generate_series(1, 9) AS n"),
        demo.connect(autocommit=False, application_name="holder") as holder,
    ):
        holder.execute("UPDATE visits SET note = 'x' WHERE id = 1")
        # Each a statement of its own: a mean of their times would be that of the wait.
        yield lambda count: [
            f"UPDATE visits SET note = 'y' WHERE id = 1{' AND id > 0' * (n + 1)}" for n in range(count)
        ]
        holder.close()


@fault(
    root=["db.idle-in-transaction"],
    follows=["db.connection-headroom", "db.blocked-sessions"],
    limits=IMPATIENT + "connections_used = {warn = 10, fail = 20}\n",
    mend=steps(0),
)
def crowd_behind_an_idle_transaction(demo: Demo) -> Iterator[None]:
    """Connections run out because all wait for one idle transaction: one fault, not three."""
    with idle_blocker(demo) as behind, waiting(demo, *behind(12)):
        yield


@fault(
    root=["db.login"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=["the role exists"],
    mend=steps(0),
)
def password_changed_in_the_database_alone(demo: Demo) -> Iterator[Hand]:
    """Somebody rotated the database password, and did not tell the API."""
    with own_role(demo) as role:
        demo.sql(f"ALTER ROLE {role} PASSWORD 'something-else-entirely'")
        drop_sessions(demo, role)
        # In ten minutes what the log tells of it is history.
        yield demo.forget_logs


@fault(
    root=["db.login"],
    follows=["service.restart-loop[backend]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, *BACKEND_GONE),
    mend=steps(1),
)
def wrong_password_in_the_backends_settings(demo: Demo) -> Iterator[Hand]:
    """DATABASE_PASSWORD is wrong in the API's environment: it gives up at each start."""
    with set_to(demo, "backend", DATABASE_PASSWORD="not-the-password", DATABASE_RETRY_ATTEMPTS="1") as right:
        looped(demo)
        yield right


@fault(
    root=["db.login"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    shows=['database "allodoc_prod" does not exist'],
    mend=steps(1),
)
def database_renamed(demo: Demo) -> Iterator[Hand]:
    """Somebody renamed the database to try another one in its place, and forgot."""
    given = demo.environment("postgres")
    with psycopg.connect(
        host="127.0.0.1",
        port=demo.port("postgres"),
        user=given["POSTGRES_USER"],
        password=given["POSTGRES_PASSWORD"],
        dbname="postgres",
        autocommit=True,
    ) as outside:
        rename(outside, "allodoc_prod", "allodoc_old")

        def back() -> None:
            outside.execute("ALTER DATABASE allodoc_old RENAME TO allodoc_prod")
            demo.forget_logs()

        try:
            yield back
        finally:
            with suppress(psycopg.Error):
                back()


def rename(outside: psycopg.Connection[object], old: str, new: str) -> None:
    """Rename a database, however often its clients come back meanwhile."""
    for _ in range(50):
        outside.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (old,))
        with suppress(psycopg.errors.ObjectInUse):
            outside.execute(f"ALTER DATABASE {old} RENAME TO {new}".encode())
            return
        time.sleep(0.05)
    raise AssertionError(f"{old} is still in use")


@fault(
    root=["auth.account"],
    may=(*HINDERED, "auth.*"),
    shows=["no table of users"],
    mend=Exempt("a table that was dropped comes back from a backup alone"),
)
def table_of_users_dropped(demo: Demo) -> Iterator[None]:
    """The table of users is gone: the API runs, and turns everybody away."""
    demo.sql("ALTER TABLE users RENAME TO people_of_yesterday")
    try:
        yield
    finally:
        demo.sql("ALTER TABLE people_of_yesterday RENAME TO users")


@fault(
    root=["db.query"],
    follows=["deploy.migrations", "auth.account"],
    may=(*HINDERED, "auth.*"),
    shows=["role api may read none of the", "permission denied"],
    mend=steps(0),
)
def role_without_rights(demo: Demo) -> Iterator[Hand]:
    """The application's role lost its rights on the tables: it logs in, and may read nothing."""
    with own_role(demo) as role:
        demo.sql(f"ALTER ROLE {role} NOSUPERUSER")
        drop_sessions(demo, role)
        yield demo.forget_logs


@fault(
    root=["db.parameters-match"],
    follows=["db.reachable-from-backend", "service.restart-loop[backend]"],
    may=(*BEHIND_THE_LOGIN, *HINDERED, *BACKEND_GONE),
    shows=["DATABASE_HOST is postgres.invalid"],
    mend=steps(0),
)
def name_of_the_database_wrong_in_one_service(demo: Demo) -> Iterator[Hand]:
    """DATABASE_HOST is a name that nobody knows; the database itself is well."""
    with set_to(demo, "backend", DATABASE_HOST="postgres.invalid", DATABASE_RETRY_ATTEMPTS="1") as right:
        looped(demo)
        yield right


# --- Redis ------------------------------------------------------------------------------------------------------------


@fault(
    root=["cache.memory"],
    follows=["service.health-endpoint[direct]"],
    may=(*HINDERED, "auth.*"),
    shows=["maxmemory in use"],
    mend=steps(1),
)
def redis_full_without_eviction(demo: Demo) -> Iterator[None]:
    """Redis is full, and may throw nothing away: it refuses writes, and nobody can log in."""
    with demo.redis() as client:
        least = room(client)
    with configured(demo, maxmemory_policy="noeviction", maxmemory=least) as client:
        overfill(client)
        yield


@fault(
    root=["cache.ping"],
    follows=["service.health-endpoint[direct]"],
    may=(*HINDERED, "auth.*"),
    shows=["it is a copy of 127.0.0.1:1"],
    mend=steps(1),
)
def redis_follows_another_one(demo: Demo) -> Iterator[None]:
    """Redis was told to follow another one that is gone: it can be read, and takes no writes."""
    with following(demo):
        yield


@fault(
    root=["cache.ping"],
    follows=["service.health-endpoint[direct]"],
    may=(*BEHIND_THE_PASSWORD, *HINDERED),
    shows=["it is not the password that Redis was started with"],
    mend=steps(0),
)
def redis_with_another_password(demo: Demo) -> Iterator[Hand]:
    """The API has another password than Redis: it runs, and Redis refuses it."""
    with set_to(demo, "backend", REDIS_PASSWORD="not-the-password") as right:
        demo.wait_healthy("backend")
        yield right


@fault(
    root=["cache.slow-commands"],
    may=("host.cpu[redis]", "cache.ping", *HINDERED),
    shows=["EVAL took"],
    mend=steps(1),
)
def redis_answers_slowly(demo: Demo) -> Iterator[Hand]:
    """A job runs one heavy script after another, and everybody else has to wait in between."""
    done = threading.Event()
    script = "local x = 0 for i = 1, 12000000 do x = x + i end return x"

    def flood() -> None:
        with demo.redis() as client, suppress(redis.RedisError):
            while not done.is_set():
                client.eval(script, 0)
                time.sleep(0.02)

    with configured(demo) as client:
        thread = threading.Thread(target=flood, daemon=True)
        thread.start()

        def stop() -> None:
            done.set()
            thread.join(5)

        try:
            demo.wait_until(lambda: client.slowlog_len(), what="a slow command")
            yield stop
        finally:
            stop()


@fault(
    root=["network.service-link[backend-to-redis]"],
    follows=["service.restart-loop[backend]"],
    may=(*HINDERED, *BACKEND_GONE),
    shows=["redis.invalid", "does not resolve"],
    mend=steps(1),
)
def name_of_redis_wrong_in_one_service(demo: Demo) -> Iterator[Hand]:
    """REDIS_HOST is a name that nobody knows; Redis itself is well."""
    with set_to(demo, "backend", REDIS_HOST="redis.invalid") as right:
        looped(demo)
        yield right


# --- the API ----------------------------------------------------------------------------------------------------------

BLOCK = """
const block = () => { const ends = Date.now() + 400; while (Date.now() < ends); setTimeout(block, 5); };
setTimeout(block, 500);
"""


@fault(
    root=["api.nodejs"],
    may=(*HINDERED, "auth.*", "host.cpu[backend]"),
    limits="[limits.api]\nevent_loop_lag = {warn = 0.03, fail = 0.05}\n",
    shows=["event-loop lag"],
    mend=steps(0),
)
def event_loop_blocked(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The API computes for a good part of a second at a time, and answers nobody meanwhile."""
    misbehave(BLOCK)
    began = time.monotonic()
    demo.wait_until(lambda: time.monotonic() > began + 3.0, what="the loop to have been blocked for a while")
    yield lambda: behave(demo)


# --- two at once ------------------------------------------------------------------------------------------------------


@fault(
    root=["service.running[postgres]", "service.running[redis]"],
    may=(*DATABASE_GONE, *CACHE_GONE, *BACKEND_GONE, *HINDERED),
    mend=steps(0),
)
def both_stores_down(demo: Demo) -> Iterator[None]:
    """PostgreSQL is paused and Redis is stopped: two faults, though one of them would do."""
    demo.pause("postgres")
    demo.stop("redis")
    yield


@fault(
    root=["service.required-env[backend]", "service.running[redis]"],
    may=(*CACHE_GONE, *BACKEND_GONE, "auth.*", "deploy.env-parity"),
    mend={"service.required-env[backend]": steps(1), "service.running[redis]": steps(0)},
)
def redis_stopped_and_a_variable_missing(demo: Demo) -> Iterator[Hand]:
    """The API would not start without Redis, and would not start without its secret either."""
    secret = demo.environment("backend")["JWT_ACCESS_SECRET"]
    demo.unset_env("backend", "JWT_ACCESS_SECRET")
    demo.stop("redis")
    demo.recreate("backend")
    looped(demo)
    yield lambda: demo.set_env("backend", JWT_ACCESS_SECRET=secret)


@fault(
    root=["service.app-loads[edge]", "cache.ping"],
    follows=["service.health-endpoint[direct]"],
    may=(*HINDERED, "auth.*", "tls.mixed-content[edge]"),
    mend={"service.app-loads[edge]": steps(1), "cache.ping": steps(1)},
)
def bundle_missing_and_redis_read_only(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """The page lost a script and Redis takes no writes: neither has to do with the other."""
    folder = edge.page()
    (bundle,) = folder.glob("main-*.js")
    content = bundle.read_bytes()
    bundle.unlink()

    def back() -> None:
        bundle.write_bytes(content)
        bundle.chmod(0o644)

    with following(demo):
        yield back


@fault(
    root=["db.idle-in-transaction", "cache.memory"],
    follows=["db.blocked-sessions", "service.health-endpoint[direct]"],
    may=(*HINDERED, "auth.*"),
    limits=IMPATIENT,
    mend={"db.idle-in-transaction": steps(0), "cache.memory": steps(1)},
)
def lock_pile_up_and_redis_full(demo: Demo) -> Iterator[None]:
    """A transaction was left open in the database, and Redis is full."""
    with demo.redis() as client:
        least = room(client)
    with (
        configured(demo, maxmemory_policy="noeviction", maxmemory=least) as client,
        idle_blocker(demo) as behind,
        waiting(demo, *behind(3)),
    ):
        overfill(client)
        yield


@fault(
    root=["service.running[nginx]", "db.query"],
    may=(
        "*[edge]",
        "service.*[nginx]",
        "host.cpu[nginx]",
        "network.*",
        "tls.*",
        "api.*",
        "auth.*",
        "deploy.*",
        *HINDERED,
    ),
    mend={"service.running[nginx]": steps(0), "db.query": steps(1)},
)
def nginx_stopped_and_the_database_read_only(demo: Demo) -> Iterator[None]:
    """Nobody gets in through nginx, and whoever did could not write."""
    demo.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    demo.sql("SELECT pg_reload_conf()")
    try:
        demo.wait_until(lambda: demo.sql("SHOW default_transaction_read_only") == [("on",)], what="the setting")
        demo.stop("nginx")
        yield
    finally:
        with demo.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


@fault(
    root=["db.login", "service.running[redis]"],
    may=(*BEHIND_THE_LOGIN, *CACHE_GONE, *BACKEND_GONE, *HINDERED),
    mend={"db.login": steps(1), "service.running[redis]": steps(0)},
)
def wrong_password_and_redis_stopped(demo: Demo) -> Iterator[Hand]:
    """The API's database password is wrong, and Redis is down, of which the API never gets to know."""
    demo.stop("redis")
    with set_to(demo, "backend", DATABASE_PASSWORD="not-the-password", DATABASE_RETRY_ATTEMPTS="1") as right:
        looped(demo)
        yield right


@fault(
    root=["db.backup-age", "service.running[backend]"],
    may=BACKEND_GONE,
    mend={"db.backup-age": steps(0), "service.running[backend]": steps(0)},
)
def backend_stopped_and_no_backup(demo: Demo) -> Iterator[None]:
    """The API is down, and there has been no backup for days: the second must not be lost in the noise of the first."""
    with no_recent_backup(demo):
        demo.stop("backend")
        yield


# --- one that causes another ------------------------------------------------------------------------------------------


@fault(
    root=["service.running[postgres]"],
    follows=["service.restart-loop[backend]", "service.exit-code[backend]", "network.backend[edge]"],
    may=(*DATABASE_GONE, *BACKEND_GONE),
    mend=steps(0),
)
def backend_loops_because_postgres_is_stopped(demo: Demo) -> Iterator[None]:
    """PostgreSQL was stopped, and the API restarted since: it gives up at each start, for want of the database."""
    demo.stop("postgres")
    demo.set_env("backend", DATABASE_RETRY_ATTEMPTS="1")
    demo.recreate("backend")
    looped(demo)
    yield


@fault(
    root=["service.running[redis]"],
    follows=["service.restart-loop[backend]", "api.error-rate"],
    may=(*CACHE_GONE, *BACKEND_GONE),
    mend=steps(0),
)
def users_get_502_because_redis_is_stopped(demo: Demo) -> Iterator[Hand]:
    """Redis was stopped, so the API ends, so nginx answers 502, so the log is full of errors: one fault."""
    demo.stop("redis")
    looped(demo)
    demo.run("exec", "nginx", "--", "sh", "-c", ask(demo, 60))
    # The requests that failed are history once they are out of the log.
    yield demo.forget_logs


def ask(demo: Demo, times: int) -> str:
    """A script that asks the API through nginx so many times."""
    url = f"{demo.urls['https']}/api/v1/patients"
    return f"for i in $(seq {times}); do curl -sk -o /dev/null {url}; sleep 0.05; done"


# --- red herrings -----------------------------------------------------------------------------------------------------


@fault(
    root=["service.running[redis]"],
    may=(*CACHE_GONE, *BACKEND_GONE),
    shows=["exit code 0"],
    mend=steps(0),
)
def old_errors_beside_a_stopped_redis(demo: Demo) -> Iterator[None]:
    """The logs tell of a database that was away five minutes ago; what is wrong now is Redis."""
    old = timedelta(minutes=5)
    record(demo, "backend", *("Error: connect ECONNREFUSED 127.0.0.1:5432",) * 30, ago=old)
    record(
        demo, "postgres", *("2026-11-23 14:02:50.841 UTC [77] FATAL:  sorry, too many clients already",) * 30, ago=old
    )
    demo.stop("redis")
    yield


@fault(
    root=["cache.ping"],
    follows=["service.health-endpoint[direct]"],
    may=(*HINDERED, "auth.*"),
    shows=["(READONLY)"],
    mend=steps(1),
)
def harmless_restart_beside_a_read_only_redis(demo: Demo) -> Iterator[None]:
    """nginx died once and came back; what users suffer from is a Redis that takes no writes."""
    demo.crash("nginx")
    demo.wait_until(lambda: demo.service("nginx")["restart_count"] >= 1, what="nginx to be started again")
    demo.wait_healthy()
    with following(demo):
        yield
    demo.restart("nginx")


@fault(
    root=["db.idle-in-transaction"],
    follows=["db.blocked-sessions"],
    may=HINDERED,
    limits=IMPATIENT + "idle_age = {warn = 0.2}\n",
    shows=["blocks 3 sessions"],
    mend=steps(0),
)
def idle_connections_beside_a_lock_pile_up(demo: Demo) -> Iterator[None]:
    """Many connections idle, and do no harm; the one that idles in a transaction does."""
    with ExitStack() as held:
        for _ in range(14):
            held.enter_context(demo.connect(application_name="forgotten"))
        behind = held.enter_context(idle_blocker(demo))
        held.enter_context(waiting(demo, *behind(3)))
        yield


@fault(
    root=["service.required-env[backend]"],
    follows=["service.restart-loop[backend]"],
    may=(*BACKEND_GONE, "auth.*", "deploy.env-parity"),
    shows=["JWT_ACCESS_SECRET"],
    mend=steps(1),
)
def stack_traces_of_yesterday_beside_a_missing_variable(demo: Demo) -> Iterator[Hand]:
    """The log's loudest error is an old one of Redis; what ends the API is a variable that it says once."""
    secret = demo.environment("backend")["JWT_ACCESS_SECRET"]
    demo.unset_env("backend", "JWT_ACCESS_SECRET")
    demo.recreate("backend")
    looped(demo)
    lines = ("Error: Redis connection lost: read ECONNRESET", "    at Socket.<anonymous> (/app/cache.js:22:9)")
    record(demo, "backend", *lines * 20, ago=timedelta(minutes=4))
    yield lambda: demo.set_env("backend", JWT_ACCESS_SECRET=secret)


@fault(
    root=["db.idle-in-transaction"],
    follows=["auth.account"],
    may=(*BEHIND_THE_LOGIN, *HINDERED),
    limits=IMPATIENT,
    shows=['application "holder"'],
    mend=steps(0),
)
def users_locked_by_somebody_who_went_away(demo: Demo) -> Iterator[None]:
    """A psql that was left in the middle of its work holds the table of users: nobody can log in."""
    with demo.connect(autocommit=False, application_name="holder") as holder:
        holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        yield
        holder.close()
