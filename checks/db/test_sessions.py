"""Sessions that hold connections or locks, and those that have to wait for them."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity, duration
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.postgres_deadlocks import Deadlocks
from fixtures.postgres_sessions import Sessions

SHOWN = 5
"""Sessions that a finding tells of one by one."""


@symptom("db.idle-connections", severity=Severity.MINOR)
def test_few_connections_idle(sessions: Sessions, limits: Limits, finding: Recorder) -> None:
    """Few connections have been idle for long."""
    long = limits.db.idle_age.warn or 0.0
    idle = sessions.idle_longer_than(long)
    finding.measure(
        f"connections idle for over {duration(long)}", len(idle), of=sessions.usable, limit=limits.db.idle_connections
    )
    finding.fact(seconds=f"{long:g}")
    finding.note(*(f"{session.who}: idle for {duration(session.state_age or 0)}" for session in idle[:SHOWN]))


@symptom("db.idle-in-transaction", severity=Severity.MAJOR)
def test_no_transaction_idles(sessions: Sessions, limits: Limits, finding: Recorder) -> None:
    """No session leaves a transaction open while it does nothing."""
    idle = sessions.idle_in_transaction
    if not idle:
        finding.says("no transaction idles")
        return
    for session in idle[:SHOWN]:
        open_for = duration(session.transaction_age or 0)
        finding.note(f"{session.who}: open for {open_for}, last statement {session.statement or 'not shown'}")
    oldest = idle[0]
    finding.fact(pid=oldest.pid)
    finding.measure("oldest idle transaction", oldest.state_age or 0, unit="s", limit=limits.db.idle_in_transaction)
    for blocker in sessions.blockers:
        if limits.db.idle_blocking.crossed(blocker.idle_in_the_way, limits.db.idle_blocking.fail):
            finding.fact(pid=blocker.pid)
            finding.fail(f"{blocker.short} idles in a transaction that blocks {blocker.victims}", variant="blocking")


@symptom(
    "db.blocked-sessions",
    severity=Severity.CRITICAL,
    smoke=True,
    caused_by=["db.idle-in-transaction", "db.long-running", "db.synchronous-commit"],
)
def test_nobody_waits_long_for_a_lock(sessions: Sessions, limits: Limits, finding: Recorder) -> None:
    """No session waits for long for a lock that another holds."""
    for blocker in sessions.advisory:
        # Some wait for an advisory lock on purpose: the second of two workers does nothing else.
        if limits.db.blocked.crossed(blocker.longest, limits.db.blocked.fail):
            waits = f"wait for an advisory lock for {duration(blocker.longest)}"
            finding.warn(f"{blocker.victims} {waits} behind {blocker.short}", variant="advisory")
    if not sessions.blockers:
        finding.says("no session waits for a lock")
        return
    worst = sessions.blockers[0]
    finding.fact(pid=worst.pid)
    finding.measure("longest wait for a lock", worst.longest, unit="s", limit=limits.db.blocked)
    finding.follows_only_from(*worst.explained_by)
    for blocker in sessions.blockers[:SHOWN]:
        finding.note(f"{blocker.who} blocks {blocker.victims}: it {blocker.doing}")


@symptom("db.deadlocks", severity=Severity.MAJOR)
def test_transactions_do_not_deadlock(deadlocks: Deadlocks, limits: Limits, finding: Recorder) -> None:
    """Transactions do not run into deadlocks."""
    if deadlocks.rate is None:
        finding.says(f"{deadlocks.counted} ever counted, since when is not known")
        finding.note(f"when they happened can't be told: {deadlocks.unread}")
        return
    finding.measure("deadlocks", deadlocks.rate, unit="per min", limit=limits.db.deadlock_rate)
    finding.note(deadlocks.told, f"{deadlocks.counted} in this database since its statistics began")


@symptom("db.long-running", severity=Severity.MAJOR, smoke=True, caused_by=["db.synchronous-commit"])
def test_no_statement_runs_long(sessions: Sessions, limits: Limits, finding: Recorder) -> None:
    """No statement has been running for minutes."""
    finding.note(*sessions.unseen)
    for session in sessions.maintenance[:SHOWN]:
        finding.note(f"{session.who}: at its work for {duration(session.statement_age or 0)} ({session.kind})")
    if not sessions.running:
        finding.says("no statement is running")
        return
    longest = sessions.running[0]
    finding.fact(pid=longest.pid)
    finding.follows_only_from(*(["db.synchronous-commit"] if longest.awaits_standby else []))
    finding.measure("longest statement", longest.statement_age or 0, unit="s", limit=limits.db.long_running)
    for session in sessions.running[:SHOWN]:
        finding.note(f"{session.who}: for {duration(session.statement_age or 0)}: {session.statement or 'not shown'}")
    for blocker in sessions.blockers:
        runs = "db.long-running" in blocker.explained_by
        if runs and limits.db.blocked.crossed(blocker.runs_in_the_way, limits.db.blocked.fail):
            finding.fact(pid=blocker.pid)
            finding.fail(f"{blocker.short} runs one statement that blocks {blocker.victims}")
