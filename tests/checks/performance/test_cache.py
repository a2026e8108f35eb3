"""Each way in which Redis fails the application, made in a real one: found, traced to its root, mended."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from allodoc_health.finding import Outcome
from allodoc_health.limits import Limits
from allodoc_health.remedy import remedy_for
from checks.performance.test_cache import test_memory_has_room as memory_has_room
from checks.performance.test_cache import test_memory_is_saved as memory_is_saved
from fixtures.redis_server import COMMANDS, Persistence, RedisMemory, SavePoint
from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.keys import admitted, crowd, fill, hold_up, overflow, room
from tests.beds.recorded import finding_on
from tests.beds.relay import relaying
from tests.beds.suite import Health, Run

CACHE = "checks/performance/test_cache.py"
# The machine that the tests run on may be under load: that is none of their business.
CHAPTERS = (CACHE, "checks/service", "checks/db", "-k", "not host")
BUDGET_AND_TWO = 12.0
OURS = (
    "cache.ping",
    "cache.memory",
    "cache.policy",
    "cache.evictions",
    "cache.clients",
    "cache.persistence",
    "cache.slow-commands",
)


@dataclass(frozen=True)
class Bench:
    """A demo to break Redis in, the checks to run on it, and a client with all rights."""

    demo: Demo
    checks: tuple[str, ...]
    suite: Health
    redis: redis.Redis

    def run(self, *more: str, target: str = "") -> Run:
        """Run the bench's checks, on its own target unless another is given."""
        return self.suite(*self.checks, *more, target=target or self.demo.target)

    def cache(self, target: str = "", environment: dict[str, str] | None = None) -> Run:
        """Run this half chapter alone."""
        return self.suite(CACHE, target=target or self.demo.target, environment=environment)

    def limits(self, **changed: str) -> str:
        """The demo's target file with other limits."""
        return f"{self.demo.target}[limits.cache]\n" + "".join(f"{name} = {{{v}}}\n" for name, v in changed.items())

    def placed(self, port: int, host: str = "127.0.0.1") -> str:
        """The demo's target file with another address for Redis."""
        return f'{self.demo.target}[services.redis]\nhost = "{host}"\nport = {port}\n'

    @contextmanager
    def config(self, **changed: object) -> Iterator[None]:
        """Settings of the running Redis, put back in the end."""
        names = {name.replace("_", "-"): value for name, value in changed.items()}
        before = {name: str(self.redis.config_get(name)[name]) for name in names}
        try:
            for name, value in names.items():
                self.redis.config_set(name, str(value))
            yield
        finally:
            # Memory first: a full Redis refuses other things.
            for name, value in sorted(before.items()):
                self.redis.config_set(name, value)

    def info(self, name: str) -> object:
        """A value of INFO's."""
        return self.redis.info("everything")[name]

    def wait(self, name: str, value: object) -> None:
        """Wait until INFO has this value for a name."""
        self.demo.wait_until(lambda: self.info(name) == value, what=f"{name} to be {value}")

    def begin_save(self, lasts: int = 1) -> None:
        """Begin to save, and wait until this has taken so many seconds.

        One that Redis began of its own accord stands in its way for a moment, and ends at once: asked again, then.
        """
        refusals: list[str] = []

        def under_way() -> bool:
            try:
                self.redis.bgsave()
            except redis.ResponseError as error:
                refusals.append(str(error))
            return int(str(self.info("rdb_current_bgsave_time_sec"))) >= lasts

        try:
            self.demo.wait_until(under_way, what=f"a save to take {lasts} s")
        except AssertionError as error:
            error.add_note(f"{refusals[-3:]}, {self.redis.info('persistence')}")
            raise


@pytest.fixture
def bench(demo: Demo, suite: Health) -> Iterator[Bench]:
    """The demo with clean counters, and the checks that a broken Redis may show in."""
    yield from cleaned(demo, CHAPTERS, suite)


def cleaned(demo: Demo, checks: tuple[str, ...], suite: Health) -> Iterator[Bench]:
    """A bench whose Redis has fresh counters and no keys, before and after."""

    def forget() -> None:
        client = demo.redis()
        client.flushall()
        client.config_resetstat()
        client.slowlog_reset()
        command(client, "LATENCY", "RESET")

    forget()
    yield Bench(demo, checks, suite, demo.redis())
    with suppress(redis.RedisError):
        forget()


def command(client: redis.Redis, *words: str) -> Any:
    """What has no method of its own in redis-py, which does not type this one."""
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def fails_as(run: Run, name: str, variant: str = "") -> None:
    """Assert that a finding fails, and with the remedy that is for this way to fail."""
    assert run.outcome(name) == "fail", run.output
    remedy = remedy_for(name, variant)
    assert remedy is not None
    assert (f"{name}/{variant}" if variant else name) in remedy.symptoms, f"no remedy of its own for {variant}"
    assert run.finding(name)["remedy"] == remedy.anchor, run.output


# --- healthy ----------------------------------------------------------------------------------------------------------


def test_a_healthy_redis_passes(bench: Bench) -> None:
    """On a healthy demo each check of this half chapter passes."""
    run = bench.run()
    run.is_calm()
    assert set(OURS) <= run.names("pass"), run.output
    assert "volatile-lru" in run.finding("cache.policy")["message"]
    assert run.finding("cache.ping")["details"][0].startswith("Redis ")


def test_one_connection_with_a_name_and_harmless_commands(bench: Bench) -> None:
    """A run connects once, says who it is, and sends nothing but the commands that are documented."""
    with relaying(bench.demo.port("redis")) as relay:
        bench.cache(bench.placed(relay.port)).is_calm()
        assert relay.connections == 1
    words = re.findall(rb"\*(\d+)\r\n\$\d+\r\n([^\r]+)\r\n(?:\$\d+\r\n([^\r]+)\r\n)?", relay.sent)
    sent = {
        first.decode() if first.decode() in COMMANDS else f"{first.decode()} {second.decode()}"
        for _, first, second in words
    }
    assert sent <= COMMANDS, sent - COMMANDS
    assert {"AUTH", "CLIENT SETNAME", "PING", "INFO", "CONFIG GET", "SLOWLOG GET", "LATENCY LATEST"} <= sent
    assert b"allodoc-health" in relay.sent
    names = {client["name"] for client in bench.redis.client_list()}
    assert "allodoc-health" not in names, "the connection is still there"


def test_on_the_guides_stack_only_the_policy_warns(stack: Stack, suite: Health) -> None:
    """Discovered without configuration, every check is conclusive: allkeys-lru warns, all else passes."""
    run = suite(CACHE)
    run.warns("cache.policy")
    # A single slow answer of a busy machine is a truthful warning too.
    assert set(OURS) - {"cache.policy", "cache.slow-commands"} <= run.names("pass"), run.output
    assert run.finding("cache.policy")["message"].startswith("allkeys-lru: at 512 MiB")
    client = redis.Redis(port=stack.ports["redis"], password=stack.secrets["REDIS_PASSWORD"])
    try:
        run.do("cache.policy", "look")
        run.do("cache.policy")
        assert suite(CACHE).outcome("cache.policy") == "pass"
    finally:
        client.config_set("maxmemory-policy", "allkeys-lru")


# --- ping: the way there ----------------------------------------------------------------------------------------------


def test_frozen_behind_the_runtimes_back(bench: Bench) -> None:
    """A Redis that was sent SIGSTOP still counts as running: its silence is then the root cause itself."""
    pid = bench.demo.pid("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        run = bench.run()
        run.blames("cache.ping")
        fails_as(run, "cache.ping", "silent")
        assert run.seconds < BUDGET_AND_TWO
    finally:
        os.kill(pid, signal.SIGCONT)
    bench.demo.wait_healthy()
    bench.cache().is_calm()


@contextmanager
def full_backlog(bench: Bench) -> Iterator[int]:
    """A port of this machine whose queue of new connections is full: the kernel drops what comes."""
    del bench
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def nobody(bench: Bench) -> Iterator[int]:
    """A port on which nobody listens, and nobody else can."""
    del bench
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def mute(bench: Bench) -> Iterator[int]:
    """A server that takes connections and closes them again."""
    del bench
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=take, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def nginx(bench: Bench) -> Iterator[int]:
    """The demo's nginx, which speaks HTTP."""
    yield bench.demo.port("nginx", 80)


@pytest.mark.parametrize(
    ("place", "variant", "message"),
    [
        pytest.param(nobody, "refused", r"connection refused at 127\.0\.0\.1:\d+", id="refused"),
        pytest.param(full_backlog, "filtered", r"no answer to TCP within 2 s at 127\.0\.0\.1:\d+", id="filtered"),
        pytest.param(mute, "closed", r"the port opens, and the connection is closed without a word", id="closed"),
        pytest.param(nginx, "not-redis", r"what answers there does not speak Redis' protocol", id="not-redis"),
    ],
)
def test_wrong_address(
    bench: Bench, place: Callable[[Bench], AbstractContextManager[int]], variant: str, message: str
) -> None:
    """What answers in Redis' place, or does not, is told apart, on time."""
    with place(bench) as port:
        run = bench.cache(bench.placed(port))
    run.blames("cache.ping")
    fails_as(run, "cache.ping", variant)
    assert re.fullmatch(message, run.finding("cache.ping")["message"]), run.output
    assert run.seconds < BUDGET_AND_TWO


def test_unresolvable(bench: Bench) -> None:
    """A name that nobody knows is told from a port that is closed."""
    run = bench.cache(bench.placed(6379, "redis.invalid"))
    run.blames("cache.ping")
    fails_as(run, "cache.ping", "unresolvable")
    assert "redis.invalid does not resolve" in run.finding("cache.ping")["message"]


# --- ping: the way in -------------------------------------------------------------------------------------------------


def test_the_backend_sends_a_wrong_password(bench: Bench) -> None:
    """A password that the backend alone has wrong is the root cause of what users see, and is not shown."""
    password = bench.demo.environment("backend")["REDIS_PASSWORD"]
    bench.demo.set_env("backend", REDIS_PASSWORD="canary-of-a-password")
    bench.demo.recreate("backend")
    run = bench.run()
    run.blames("cache.ping")
    fails_as(run, "cache.ping", "wrong-password")
    assert "it is not the password that Redis was started with" in run.finding("cache.ping")["details"]
    assert run.outcome("service.health-endpoint[direct]") == "fail"
    assert "canary" not in run.output + str(run.snapshot)
    sums = run.do("cache.ping", "look")
    assert len({line.split()[0] for line in sums[:2]}) == 2
    bench.demo.set_env("backend", REDIS_PASSWORD=password)
    run.do("cache.ping", steps=[0])
    bench.demo.wait_healthy()
    bench.demo.forget_logs()
    bench.run().is_calm()


def test_a_password_from_the_environment(bench: Bench) -> None:
    """A variable that the target names is used, and one that is not set is said to be missing."""
    target = f'{bench.demo.target}[services.redis]\npassword_env = "BED_REDIS"\n'
    right = bench.demo.environment("redis")["REDIS_PASSWORD"]
    bench.cache(target, {"BED_REDIS": right}).is_calm()
    run = bench.cache(target, {"BED_REDIS": "something-else"})
    run.blames("cache.ping")
    fails_as(run, "cache.ping", "wrong-password")
    run = bench.cache(target)
    fails_as(run, "cache.ping", "no-password")
    assert "$BED_REDIS" in run.finding("cache.ping")["message"]


@contextmanager
def user(bench: Bench, *rules: str) -> Iterator[tuple[str, dict[str, str]]]:
    """An ACL user of the suite's own: the target file that names it, and the environment with its password."""
    command(bench.redis, "ACL", "SETUSER", "doctor", "reset", "on", ">doctors-password", *rules)
    target = f'{bench.demo.target}[services.redis]\nuser = "doctor"\npassword_env = "BED_REDIS"\n'
    try:
        yield target, {"BED_REDIS": "doctors-password"}
    finally:
        command(bench.redis, "ACL", "DELUSER", "doctor")


def test_a_user_with_the_rights_of_an_application(bench: Bench) -> None:
    """A user without dangerous commands is let in; what it may not see is not applicable, and says what it takes."""
    with user(bench, "~*", "+@all", "-@dangerous") as (target, environment):
        run = bench.cache(target, environment)
    run.is_calm()
    assert run.outcome("cache.ping") == "pass"
    assert run.names("not-applicable") == set(OURS) - {"cache.ping"}
    assert "its user doctor" in run.finding("cache.memory")["message"]
    assert "+info" in run.finding("cache.memory")["message"]
    assert "+slowlog|get" in run.finding("cache.slow-commands")["message"]


def test_a_user_with_no_more_than_it_takes(bench: Bench) -> None:
    """Six rules and no key are enough for every check; without CONFIG and LATENCY they are conclusive, too."""
    rules = ("+client|setname", "+ping", "+info", "+slowlog|get")
    with user(bench, *rules, "+config|get", "+latency|latest") as (target, environment):
        run = bench.cache(target, environment)
        assert run.names("pass") == set(OURS), run.output
    with user(bench, *rules) as (target, environment):
        run = bench.cache(target, environment)
        assert run.names("pass") == set(OURS), run.output


def test_an_unknown_user(bench: Bench) -> None:
    """A user that Redis does not know is told from a wrong password for everybody."""
    with user(bench, "~*", "+@all") as (target, environment):
        pass
    run = bench.cache(target, environment)
    run.blames("cache.ping")
    fails_as(run, "cache.ping", "wrong-password")
    assert run.finding("cache.ping")["message"] == "Redis refuses the application's user doctor or its password"


def test_protected_mode(bench: Bench) -> None:
    """A Redis without a password that is asked from another address says that it is protected."""
    here = [
        address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family is socket.AF_INET and not address.address.startswith("127.")
    ]
    if not here:
        pytest.skip("this machine has no address but loopback")
    password = bench.demo.environment("redis")["REDIS_PASSWORD"]
    bench.demo.set_env("redis", REDIS_PASSWORD="", EXTRA_ARGS="--bind 0.0.0.0 --protected-mode yes")
    bench.demo.recreate("redis")
    bench.demo.wait_healthy()
    target = bench.placed(bench.demo.port("redis"), here[0])
    run = bench.cache(target)
    run.blames("cache.ping")
    fails_as(run, "cache.ping", "protected-mode")
    run.do("cache.ping", "look")
    bench.demo.set_env("redis", REDIS_PASSWORD=password)
    run.do("cache.ping")
    bench.demo.wait_healthy()
    assert bench.cache(target).outcome("cache.ping") == "pass"


# --- ping: not as the application needs it ----------------------------------------------------------------------------


def test_busy_with_a_script(bench: Bench) -> None:
    """An endless script is named as what keeps everybody waiting, and the remedy ends it."""
    runaway = bench.demo.redis()
    runaway.connection_pool.connection_kwargs["socket_timeout"] = 60

    def run_away() -> None:
        with suppress(redis.RedisError):
            runaway.eval("while true do end", 0)

    with bench.config(lua_time_limit=50):
        thread = threading.Thread(target=run_away, daemon=True)
        thread.start()

        def busy() -> bool:
            try:
                return not bench.redis.ping()
            except redis.ResponseError as error:
                return "BUSY" in str(error)

        try:
            bench.demo.wait_until(busy, what="Redis to be busy")
            run = bench.run()
            run.blames("cache.ping")
            fails_as(run, "cache.ping", "busy")
            run.do("cache.ping", steps=[0])
        finally:
            with suppress(redis.RedisError):
                bench.redis.script_kill()
            thread.join(10)
    bench.demo.wait_healthy("redis")
    bench.redis.slowlog_reset()
    assert bench.cache().outcome("cache.ping") == "pass"


def test_a_read_only_copy(bench: Bench) -> None:
    """A Redis that was told to follow another one takes no writes; the remedy makes it a master again."""
    bench.redis.replicaof("127.0.0.1", 1)
    try:
        run = bench.run()
        run.blames("cache.ping")
        fails_as(run, "cache.ping", "read-only")
        assert "127.0.0.1:1" in run.finding("cache.ping")["message"]
        run.do("cache.ping", "look", steps=[0])
        run.do("cache.ping", steps=[1])
        assert bench.cache().outcome("cache.ping") == "pass"
    finally:
        bench.redis.replicaof("NO", "ONE")


def test_a_late_answer_warns(bench: Bench) -> None:
    """An answer after 80 ms warns, with the measured time."""
    with relaying(bench.demo.port("redis"), delay=0.08) as relay:
        run = bench.cache(bench.placed(relay.port))
    run.warns("cache.ping")
    measured = run.finding("cache.ping")["measurements"][0]
    assert measured["name"] == "round trip"
    assert 0.08 <= measured["value"] < 0.5
    run.do("cache.ping", "look", steps=[0, 2])


# --- persistence ------------------------------------------------------------------------------------------------------


@contextmanager
def closed_folder(bench: Bench) -> Iterator[Path]:
    """Redis' data folder, not to be written to."""
    folder = bench.demo.folder.service("redis") / "data"
    folder.chmod(0o500)
    try:
        yield folder
    finally:
        folder.chmod(0o700)
        bench.redis.bgsave()
        bench.wait("rdb_last_bgsave_status", "ok")


def test_a_failed_save_refuses_writes(bench: Bench) -> None:
    """When Redis can't save, that is the root cause of the writes that it refuses; the remedy's commands mend it."""
    with closed_folder(bench):
        bench.redis.set("session:bed", "1", ex=600)
        bench.redis.bgsave()
        bench.wait("rdb_last_bgsave_status", "err")
        run = bench.run()
        run.blames("cache.persistence")
        fails_as(run, "cache.persistence")
        assert run.finding("cache.persistence")["message"] == "the last save failed; Redis refuses writes"
        fails_as(run, "cache.ping", "misconf")
        assert run.finding("cache.ping")["caused_by"] == ["cache.persistence"]
        assert run.outcome("cache.memory") == "pass"
        run.do("cache.persistence", "look")
        run.do("cache.persistence", steps=[0, 1])
        bench.wait("rdb_last_bgsave_status", "ok")
        run = bench.cache()
        assert {run.outcome("cache.persistence"), run.outcome("cache.ping")} == {"pass"}


def test_a_save_that_takes_too_long_warns(bench: Bench) -> None:
    """A save that is under way for longer than the limit warns."""
    for number in range(50):
        bench.redis.set(f"filler:{number}", "x", ex=600)
    try:
        with bench.config(rdb_key_save_delay=1_000_000):
            bench.begin_save()
            run = bench.cache(bench.limits(save_overdue="warn = 1"))
        run.warns("cache.persistence")
        assert "a save under way for" in run.finding("cache.persistence")["message"]
    finally:
        for child in psutil.Process(bench.demo.pid("redis")).children():
            child.kill()
        bench.wait("rdb_bgsave_in_progress", 0)
        bench.redis.bgsave()
        bench.wait("rdb_last_bgsave_status", "ok")


def test_nothing_saved_on_purpose_is_no_fault(bench: Bench) -> None:
    """Without save points and append-only file nothing is expected, and what a restart costs is said."""
    with bench.config(save=""):
        run = bench.cache()
        run.is_calm()
        assert "a restart logs everybody out" in run.finding("cache.persistence")["message"]


def test_an_append_only_file_on_a_full_disk(bench: Bench) -> None:
    """When the append-only file can't be written, that is the root cause; the remedy has it written anew."""
    if int(str(bench.info("redis_version")).split(".")[0]) < 7:
        pytest.skip("this Redis keeps its append-only file open: it can't be put on a full disk meanwhile")
    folder = bench.demo.folder.service("redis") / "data" / "appendonlydir"
    with bench.config(appendonly="yes"):
        bench.wait("aof_rewrite_in_progress", 0)
        number = int(max(re.findall(r"\.(\d+)\.incr", " ".join(path.name for path in folder.iterdir()))))
        trap = folder / f"appendonly.aof.{number + 1}.incr.aof"
        trap.symlink_to("/dev/full")
        try:
            bench.redis.bgrewriteaof()
            bench.wait("aof_last_write_status", "err")
            run = bench.run()
            run.blames("cache.persistence")
            fails_as(run, "cache.persistence", "append-only")
            assert "Redis refuses writes" in run.finding("cache.persistence")["message"]
            fails_as(run, "cache.ping", "misconf")
            run.do("cache.persistence", "look", steps=[0, 2])
            run.do("cache.persistence")
            bench.wait("aof_last_write_status", "ok")
            run = bench.cache()
            assert {run.outcome("cache.persistence"), run.outcome("cache.ping")} == {"pass"}
        finally:
            trap.unlink(missing_ok=True)
            bench.wait("aof_rewrite_in_progress", 0)


def test_recorded_a_save_overdue() -> None:
    """Recorded: save points that were passed long ago warn; a user who may not see them is told the age alone."""
    now = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
    seen = Persistence(
        save_points=(SavePoint(300, 100),),
        saved_at=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
        saved_ago=7200.0,
        save_failed=False,
        saving_for=None,
        changes=5000,
        overdue=6900.0,
        append_only=False,
        append_failed=False,
        rewrite_failed=False,
        refuses_writes=False,
        folder="/data",
    )
    limits = Limits()
    overdue = finding_on(memory_is_saved, persistence=seen, limits=limits, now=now)
    assert overdue.outcome is Outcome.WARN
    assert "a save overdue for 1 h 55 min" in overdue.message
    unknown = finding_on(
        memory_is_saved, persistence=replace(seen, save_points=None, overdue=0.0), limits=limits, now=now
    )
    assert unknown.outcome is Outcome.PASS
    assert "last saved 2 h ago, 5000 changes since" in unknown.message
    grows = replace(seen, overdue=0.0, append_only=True, rewrite_failed=True)
    assert finding_on(memory_is_saved, persistence=grows, limits=limits, now=now).outcome is Outcome.WARN
    by_hand = replace(seen, overdue=0.0, save_points=(), save_failed=True)
    assert finding_on(memory_is_saved, persistence=by_hand, limits=limits, now=now).outcome is Outcome.WARN


# --- memory, policy, evictions ----------------------------------------------------------------------------------------


def test_full_without_eviction(bench: Bench) -> None:
    """A Redis that may not evict and is nearly full fails; the remedy gives it room."""
    with bench.config(maxmemory_policy="noeviction", maxmemory=room(bench.redis)):
        fill(bench.redis, 0.96, "cache")
        run = bench.run()
        run.blames("cache.memory")
        fails_as(run, "cache.memory")
        assert "maxmemory in use = 9" in run.finding("cache.memory")["message"]
        run.do("cache.memory", "look")
        run.do("cache.memory", steps=[1])
        assert bench.cache().outcome("cache.memory") == "pass"
        bench.redis.flushall()


def test_full_with_nothing_to_evict(bench: Bench) -> None:
    """A volatile policy does not help where no key has a time to live: full fails; where they have, it warns."""
    with bench.config(maxmemory_policy="volatile-lru", maxmemory=room(bench.redis)):
        bench.redis.flushall()
        fill(bench.redis, 0.96, "cache", ex=None)
        run = bench.cache()
        run.blames("cache.memory")
        fails_as(run, "cache.memory")
        bench.redis.flushall()
        fill(bench.redis, 0.9, "cache")
        run = bench.cache()
        run.warns("cache.memory")
        bench.redis.flushall()


def test_no_limit_at_all_warns(bench: Bench) -> None:
    """Neither maxmemory nor a limit of the service: truthfully a warning, and the policy is said to be idle."""
    with bench.config(maxmemory=0):
        run = bench.cache()
        run.warns("cache.memory")
        assert "never comes into play" in run.finding("cache.policy")["message"]
        run.do("cache.memory", "look", steps=[0])
        run.do("cache.memory")
        assert bench.cache().outcome("cache.memory") == "pass"


def test_recorded_memory() -> None:
    """Recorded: a container's limit stands in for maxmemory; a maxmemory above it is none; fragmentation warns."""
    mib = 2**20
    seen = RedisMemory(
        used=480 * mib,
        maximum=0,
        resident=500 * mib,
        service_limit=512 * mib,
        policy="noeviction",
        keys=5,
        expiring=5,
        fragmentation=1.04,
        wasted=20 * mib,
    )
    limits = Limits()
    assert finding_on(memory_has_room, redis_memory=seen, limits=limits).outcome is Outcome.FAIL
    roomy = replace(seen, resident=100 * mib, used=90 * mib)
    assert finding_on(memory_has_room, redis_memory=roomy, limits=limits).outcome is Outcome.PASS
    beyond = replace(roomy, maximum=1024 * mib)
    found = finding_on(memory_has_room, redis_memory=beyond, limits=limits)
    assert (found.outcome, found.variant) == (Outcome.WARN, "unbounded")
    scattered = replace(roomy, maximum=400 * mib, resident=300 * mib, fragmentation=3.3, wasted=210 * mib)
    assert finding_on(memory_has_room, redis_memory=scattered, limits=limits).outcome is Outcome.WARN
    nothing_to_evict = replace(roomy, maximum=92 * mib, policy="volatile-lru", expiring=0)
    assert finding_on(memory_has_room, redis_memory=nothing_to_evict, limits=limits).outcome is Outcome.FAIL


def test_a_policy_that_evicts_anything_warns(bench: Bench) -> None:
    """allkeys-lru can throw sessions away; the remedy sets a policy that passes, and noeviction passes, too."""
    with bench.config(maxmemory_policy="allkeys-lru"):
        run = bench.cache()
        run.warns("cache.policy")
        run.do("cache.policy", "look")
        run.do("cache.policy")
        assert bench.cache().outcome("cache.policy") == "pass"
        bench.redis.config_set("maxmemory-policy", "noeviction")
        assert bench.cache().outcome("cache.policy") == "pass"


def test_evicted_sessions(bench: Bench) -> None:
    """A Redis that throws sessions away is the root cause; with room again, what was is told and no fault."""
    with bench.config(maxmemory=room(bench.redis), maxmemory_samples=10):
        overflow(bench.redis, "session")
        run = bench.run()
        run.blames("cache.evictions")
        fails_as(run, "cache.evictions")
        assert "where sessions are kept" in run.finding("cache.evictions")["message"]
        assert "session:more" not in str(run.snapshot)
        run.do("cache.evictions", "look")
        run.do("cache.evictions")
        run = bench.cache()
        assert run.outcome("cache.evictions") == "pass", run.output
        assert any("keys evicted" in line for line in run.finding("cache.evictions")["details"])
        bench.redis.flushall()


def test_evicted_caches_warn(bench: Bench) -> None:
    """Where nothing that is left is called as a session is, evictions only warn."""
    with bench.config(maxmemory=room(bench.redis), maxmemory_samples=10):
        overflow(bench.redis, "cache:list")
        run = bench.cache()
        run.warns("cache.evictions")
        assert "no session is among" in run.finding("cache.evictions")["message"]
        bench.redis.flushall()


def test_lookups_that_find_nothing_warn(bench: Bench) -> None:
    """A low hit rate warns once there is traffic to judge by; questions for revoked tokens don't count against it."""
    for _ in range(1100):
        bench.redis.exists("blacklist:bed")
    run = bench.cache()
    assert run.outcome("cache.evictions") == "pass", run.output
    assert any("too few" in line for line in run.finding("cache.evictions")["details"])
    bench.redis.set("cache:bed", "1", ex=600)
    for _ in range(1100):
        bench.redis.get("cache:nothing")
        bench.redis.get("cache:bed")
    run = bench.cache()
    run.warns("cache.evictions")
    assert "lookups found their key = 50 %" in run.finding("cache.evictions")["message"]


# --- clients ----------------------------------------------------------------------------------------------------------


def test_connections_run_out(bench: Bench) -> None:
    """Nearly all connections taken warns; all of them taken is named as such, not as a fault of the credentials."""
    with bench.config(maxclients=40):
        with crowd(bench.redis, 32):
            run = bench.cache()
            run.warns("cache.clients")
            assert re.search(r"3\d of 40 client connections in use", run.finding("cache.clients")["message"])
            run.do("cache.clients", "look", steps=[0])
            run.do("cache.clients", steps=[0])
            assert bench.redis.config_get("maxclients")["maxclients"] == "80"
            assert bench.cache().outcome("cache.clients") == "pass"
            bench.redis.config_set("maxclients", 40)
        with crowd(bench.redis, 60) as members:
            run = bench.run()
            run.blames("cache.clients")
            fails_as(run, "cache.clients", "max-clients")
            assert run.finding("cache.ping")["blocked_by"] == "cache.clients"
            run.do("cache.clients", "look", steps=[0])
            for member in members[-4:]:
                member.disconnect()
            bench.demo.wait_until(lambda: admitted(bench.demo), what="a place to be free")
            run = bench.cache()
            run.blames("cache.clients")
            fails_as(run, "cache.clients")
        bench.demo.wait_until(lambda: admitted(bench.demo), what="a place to be free")
        run = bench.cache()
        run.warns("cache.clients")
        assert "turned away" in run.finding("cache.clients")["message"]
        run.do("cache.clients")
        assert bench.cache().outcome("cache.clients") == "pass"


# --- slow commands ----------------------------------------------------------------------------------------------------


def test_a_slow_command(bench: Bench) -> None:
    """A script of 150 ms is the root cause, by its name alone; its remedy empties the log."""
    with bench.config(latency_monitor_threshold=100):
        hold_up(bench.redis, 0.15, "session:canary-in-a-key")
        run = bench.run()
        run.blames("cache.slow-commands")
        fails_as(run, "cache.slow-commands")
        told = run.finding("cache.slow-commands")
        assert re.match(r"EVAL took \d+ ms   \(fail at 100 ms\)", told["message"]), told
        assert any(line.startswith("command: ") for line in told["details"]), told
        assert "canary" not in run.output + str(run.snapshot)
        run.do("cache.slow-commands", "look")
        run.do("cache.slow-commands")
        assert bench.cache().outcome("cache.slow-commands") == "pass"


def test_a_somewhat_slow_command_warns(bench: Bench) -> None:
    """A command of some ten milliseconds warns; KEYS is noted; our own commands are none of either."""
    with bench.config(slowlog_log_slower_than=0):
        bench.cache().is_calm()
    hold_up(bench.redis, 0.02)
    bench.redis.keys("nothing*")
    run = bench.cache(bench.limits(slow_command="warn = 0.01, fail = 5"))
    run.warns("cache.slow-commands")
    assert any(line.startswith("KEYS was called 1 times") for line in run.finding("cache.slow-commands")["details"])


def test_a_slow_log_that_is_switched_off(bench: Bench) -> None:
    """Without a slow log the question can't be answered, and that is said."""
    with bench.config(slowlog_log_slower_than=-1):
        run = bench.cache()
    assert run.outcome("cache.slow-commands") == "not-applicable"
    assert "switched off" in run.finding("cache.slow-commands")["message"]
