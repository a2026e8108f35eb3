"""Slow API responses, the guide's "cache issues": Redis away, full, forgetful, crowded, slow, or unable to save."""

from __future__ import annotations

from datetime import datetime

from allodoc_health.finding import Recorder, Severity, duration, size
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.redis_server import KeyTurnover, Persistence, RedisAnswer, RedisClients, RedisMemory, SlowCommands


@symptom(
    "cache.ping",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=[
        "service.running[redis]",
        "service.restart-loop[redis]",
        "service.oom-killed[redis]",
        "service.port-conflict",
        "cache.persistence",
    ],
)
def test_redis_answers(redis_answer: RedisAnswer, limits: Limits, finding: Recorder) -> None:
    """Redis lets the application in, answers at once, and takes writes."""
    finding.note(f"{redis_answer.server or 'Redis'} at {redis_answer.handshake.at}")
    finding.measure("round trip", redis_answer.seconds, unit="s", limit=limits.cache.round_trip)
    if redis_answer.complaint == "MISCONF":
        finding.follows_only_from("cache.persistence")
        finding.fail("Redis refuses writes, because it can't save them (MISCONF)", variant="misconf")
    elif redis_answer.master:
        finding.follows_only_from()
        finding.fact(master=redis_answer.master)
        finding.note(f"the link to its master is {redis_answer.master_link or 'unknown'}")
        finding.fail(f"Redis takes no writes: it is a copy of {redis_answer.master} (READONLY)", variant="read-only")
    elif redis_answer.replicas < redis_answer.replicas_wanted:
        finding.follows_only_from()
        there = f"{redis_answer.replicas} of {redis_answer.replicas_wanted}"
        finding.fail(
            f"Redis takes no writes: {there} replicas that it wants are there (NOREPLICAS)", variant="replicas"
        )
    if redis_answer.handshake.password_unasked:
        finding.warn("the application sends a password, and Redis lets everybody in without", variant="open")


@symptom("cache.memory", severity=Severity.MAJOR)
def test_memory_has_room(redis_memory: RedisMemory, limits: Limits, finding: Recorder) -> None:
    """Redis' data leaves room below its memory limit."""
    memory = redis_memory
    finding.fact(maximum=size(memory.maximum), doubled=2 * memory.maximum)
    finding.note(f"{memory.keys} keys, {memory.expiring} of them with a time to live; policy {memory.policy}")
    limit = limits.cache.memory_used
    if memory.maximum:
        if memory.can_evict:
            limit = limit.model_copy(update={"fail": None})
        finding.measure("maxmemory in use", memory.used, of=memory.maximum, unit="B", limit=limit)
        if memory.service_limit and memory.maximum >= memory.service_limit:
            allowed = size(memory.service_limit)
            finding.warn(f"maxmemory {size(memory.maximum)} is no limit: the service may have {allowed}", "unbounded")
    elif memory.service_limit:
        finding.note("no maxmemory is set: at the service's own limit, the kernel kills Redis")
        finding.measure("the service's memory in use", memory.resident, of=memory.service_limit, unit="B", limit=limit)
    else:
        finding.measure("memory in use", memory.used, unit="B")
        finding.warn("neither maxmemory nor a memory limit: Redis may grow without bound", variant="unbounded")
    spread = f"{size(memory.resident)} of memory for {size(memory.used)} of data"
    if limits.cache.memory_wasted.crossed(memory.wasted, limits.cache.memory_wasted.warn):
        finding.note(spread)
        finding.measure("fragmentation", memory.fragmentation, limit=limits.cache.fragmentation)
    elif memory.fragmentation >= 1:
        finding.note(f"{spread}: too little of it is lost for that to matter")
    else:
        finding.note(f"{spread}: the rest is swapped out, or was not used yet")


@symptom("cache.policy", severity=Severity.MINOR)
def test_the_policy_spares_sessions(redis_memory: RedisMemory, finding: Recorder) -> None:
    """When memory runs out, Redis does not throw away just any key."""
    policy = redis_memory.policy or "unknown"
    if not redis_memory.maximum:
        finding.says(f"no maxmemory is set, so the policy {policy} never comes into play")
    elif policy.startswith("allkeys-"):
        finding.warn(f"{policy}: at {size(redis_memory.maximum)} Redis throws away any key, also sessions and tokens")
    elif policy == "noeviction":
        finding.says("noeviction: a full Redis refuses writes and throws nothing away")
    else:
        finding.says(f"{policy}: a full Redis throws away keys with a time to live only")


@symptom("cache.evictions", severity=Severity.MAJOR)
def test_no_session_is_evicted(
    key_turnover: KeyTurnover, redis_memory: RedisMemory, limits: Limits, finding: Recorder
) -> None:
    """Keys stay until they expire, and what is looked up is mostly there."""
    turnover = key_turnover
    finding.fact(maximum=size(redis_memory.maximum), doubled=2 * redis_memory.maximum)
    since = f"in {duration(turnover.uptime)} since the start"
    finding.says(f"{turnover.evicted} keys evicted, {turnover.expired} expired {since}")
    if turnover.evicted:
        pace = f"{turnover.evicted_lately} of them during this look" if turnover.evicted_lately else "none just now"
        finding.note(f"{turnover.evicted} keys evicted {since}, {pace}")
    if turnover.evicting:
        kept = turnover.sessions
        told = f"{turnover.evicted} keys thrown away for want of memory"
        if kept is not None and kept.found:
            finding.note(f"{kept.found} of {kept.looked_at} keys looked at are called as sessions and tokens are")
            finding.fail(f"{told}, where sessions are kept")
        elif kept is not None and kept.all:
            finding.warn(f"{told}; no session is among those that are left")
        else:
            finding.warn(f"{told}; whether sessions are among them can't be told")
    lookups = turnover.hits + turnover.telling_misses
    if not limits.cache.lookups.crossed(lookups, limits.cache.lookups.warn):
        finding.note(f"{lookups} lookups of keys are too few to judge how often they succeed")
        return
    finding.note(f"{turnover.hits} lookups found a key, {turnover.misses} did not; {turnover.existence_checks} EXISTS")
    finding.measure("lookups found their key", turnover.hits, of=lookups, limit=limits.cache.hit_rate)


@symptom("cache.clients", severity=Severity.MAJOR)
def test_clients_leave_room(redis_clients: RedisClients, limits: Limits, finding: Recorder) -> None:
    """Clients hold only part of Redis' connections, and none was turned away."""
    clients, limit = redis_clients, limits.cache.clients_used
    finding.fact(maximum=clients.maximum, doubled=2 * clients.maximum)
    if clients.blocked:
        finding.note(f"{clients.blocked} of them wait for a list or stream, as workers of queues do")
    used = finding.measure("client connections in use", clients.connected, of=clients.maximum, limit=limit)
    if clients.rejected:
        told = f"{clients.rejected} connections turned away in {duration(clients.uptime)} since the start"
        if limit.crossed(used.value, limit.warn):
            finding.fail(told)
        else:
            # When that was, nobody knows: it may have been over for days.
            finding.warn(told, variant="rejected")
    if clients.patience and limits.cache.patience.crossed(clients.patience, limits.cache.patience.warn):
        say = finding.fail if clients.backend_ends else finding.warn
        say(f"Redis closes connections that are idle for {duration(clients.patience)}", variant="timeout")


@symptom("cache.persistence", severity=Severity.MAJOR, caused_by=["host.disk"])
def test_memory_is_saved(persistence: Persistence, limits: Limits, finding: Recorder, now: datetime) -> None:
    """What Redis holds is written to disk as its settings want it."""
    saved = persistence
    finding.fact(folder=saved.folder or "/data")
    last = f"last saved {duration(saved.saved_ago)} ago, {saved.changes} changes since"
    finding.note(last)
    effect = "; Redis refuses writes" if saved.refuses_writes else ""
    if saved.save_failed and saved.save_points != ():
        finding.fail(f"the last save failed{effect}")
    elif saved.save_failed:
        finding.warn("the last save that somebody asked for failed; Redis itself saves nothing")
    if saved.append_only and saved.append_failed:
        finding.fail(f"the append-only file can't be written{effect}", variant="append-only")
    elif saved.append_only and saved.rewrite_failed:
        finding.warn("the append-only file can't be rewritten, and only grows", variant="append-only")
    if saved.overdue:
        name = "a save under way for" if saved.saving_for is not None else "a save overdue for"
        finding.measure(name, saved.overdue, unit="s", limit=limits.cache.save_overdue)
    if saved.save_points == () and not saved.append_only:
        finding.says("nothing is saved, as its settings want it: a restart logs everybody out")
    else:
        finding.says(last if not saved.append_only else f"append-only file written; {last}")


@symptom("cache.slow-commands", severity=Severity.MAJOR, caused_by=["host.load", "host.swap"])
def test_commands_are_quick(slow_commands: SlowCommands, limits: Limits, finding: Recorder) -> None:
    """No command of the last ten minutes held everybody else up."""
    limit, threshold = limits.cache.slow_command, slow_commands.threshold
    if slow_commands.keys_calls:
        finding.note(
            f"KEYS was called {slow_commands.keys_calls} times since the start: it looks at every key there is"
        )
    if threshold is not None and threshold < 0 and not slow_commands.stalls:
        finding.not_applicable("the slow log is switched off (slowlog-log-slower-than or slowlog-max-len)")
    if threshold is not None and limit.warn is not None and threshold > limit.warn:
        finding.note(f"only commands of more than {duration(threshold)} are logged")
    finding.says("none is in the slow log")
    for command in slow_commands.commands[:3]:
        finding.fact(command=command.name)
        finding.measure(f"{command.name} took", command.longest, unit="s", limit=limit)
    for command in slow_commands.commands:
        finding.note(f"{command.name}: {command.count} times, the last at {command.last_at:%H:%M:%S} UTC")
    for stall in slow_commands.stalls:
        finding.measure(f"latency event {stall.event}", stall.seconds, unit="s", limit=limit)
        finding.note(f"{stall.event}: {duration(stall.seconds)}, at {stall.at:%H:%M:%S} UTC")
