"""A service starts but crashes: it does not stay up, is started again and again, runs out of memory."""

from __future__ import annotations

from allodoc_health.finding import Recorder, Severity, duration, size
from allodoc_health.limits import GIB, MIB, Limits
from allodoc_health.symptom import symptom
from fixtures.containers import WHAT_ENDS_A_SERVICE, Life, OutOfMemory
from fixtures.usage import Activity


@symptom("service.stays-up", severity=Severity.MAJOR, smoke=True, caused_by=WHAT_ENDS_A_SERVICE)
def test_the_service_stays_up(present_run: Life, limits: Limits, finding: Recorder) -> None:
    """The service has been running for a while."""
    finding.follows_only_from(*present_run.stop_follows_from)
    uptime, limit = present_run.uptime or 0.0, limits.service.uptime
    if present_run.looping:
        finding.fail(f"{present_run.name} does not stay up: started again {present_run.restarts} times")
    elif present_run.with_the_stack and limit.crossed(uptime, limit.warn):
        finding.says(f"up for {duration(uptime)}: all services have just been started together")
    else:
        finding.measure("up for", uptime, unit="s", limit=limit)


@symptom("service.restart-loop", severity=Severity.CRITICAL, caused_by=WHAT_ENDS_A_SERVICE)
def test_the_service_is_not_started_again_and_again(life: Life, limits: Limits, finding: Recorder) -> None:
    """The service is not started again and again."""
    finding.follows_only_from(*life.loop_follows_from)
    finding.fact(restarts=life.restarts)
    if life.looping:
        finding.began(life.ended)
        finding.fail(f"{life.name} was started again {life.restarts} times and ends each time")
        finding.measure("restarts between two looks", life.new_restarts, limit=limits.service.new_restarts)
    elif life.restarts and life.uptime is not None:
        finding.says(f"started again {life.restarts} times, and up for {duration(life.uptime)} since")
        finding.measure("up since the last restart for", life.uptime, unit="s", limit=limits.service.since_restart)
    else:
        finding.says("not started again by its runtime" if not life.restarts else life.sentence)


@symptom("service.exit-code", severity=Severity.MAJOR, caused_by=WHAT_ENDS_A_SERVICE)
def test_the_last_run_ended_well(life: Life, finding: Recorder) -> None:
    """The service's last run ended without an error, or it is up again."""
    finding.follows_only_from(*life.exit_follows_from)
    if life.exit_code is None:
        finding.says("it has not ended since it was made")
        return
    finding.fact(code=life.exit_code)
    sentence = f"exit code {life.exit_code}: {life.meaning}"
    if life.down and life.exit_code:
        finding.began(life.ended)
        finding.fail(sentence, variant=life.remedy)
    else:
        finding.says(sentence if life.down else f"up again; the last run ended with {life.exit_code}: {life.meaning}")


@symptom("service.oom-killed", severity=Severity.CRITICAL)
def test_memory_did_not_run_out(out_of_memory: OutOfMemory, limits: Limits, finding: Recorder) -> None:
    """The kernel killed no process of the service for want of memory."""
    name, inside, recently = out_of_memory.name, out_of_memory.kills_inside, limits.service.since_oom
    finding.fact(name=name, more=f"{2 * (out_of_memory.limit or GIB) // MIB}m")
    finding.says("nothing was killed for want of memory")
    finding.note("no memory limit of its own" if not out_of_memory.limit else f"limit {size(out_of_memory.limit)}")
    if out_of_memory.ago is not None and recently.crossed(out_of_memory.ago, recently.fail):
        say = finding.warn if out_of_memory.started_by_hand else finding.fail
        say(f"{name} was killed for want of memory {duration(out_of_memory.ago)} ago")
    if inside:
        say = finding.fail if recently.crossed(out_of_memory.uptime, recently.fail) else finding.warn
        say(f"{name} has lost {inside} processes for want of memory in {duration(out_of_memory.uptime)}")


@symptom("service.resource-limits", severity=Severity.MAJOR, caused_by=["service.oom-killed[{service}]"])
def test_the_service_keeps_within_its_limits(activity: Activity, limits: Limits, finding: Recorder) -> None:
    """The service has a memory and a CPU limit, and memory and processes to spare."""
    if not activity.limitable:
        finding.not_applicable("the supervisor of these services sets no limits")
    finding.fact(name=activity.name, more=f"{2 * (activity.memory_limit or GIB) // MIB}m")
    if activity.memory_limit:
        memory, limit = activity.memory[-1], limits.service.memory_used
        finding.measure("memory in use", memory, unit="B", of=activity.memory_limit, limit=limit)
    if activity.cpu_limit:
        finding.measure("CPU in use", activity.cores, unit="cores", of=activity.cpu_limit)
    if activity.tasks_limit and activity.tasks is not None:
        finding.fact(tasks=2 * activity.tasks_limit)
        used = finding.measure("processes and threads", activity.tasks, of=activity.tasks_limit)
        told = f"{activity.tasks} of the {activity.tasks_limit} processes and threads that {activity.name} may have"
        if limits.service.tasks_used.crossed(used.value, limits.service.tasks_used.fail):
            finding.fail(told, variant="tasks")
        elif limits.service.tasks_used.crossed(used.value, limits.service.tasks_used.warn):
            finding.warn(told, variant="tasks")
    if activity.unlimited:
        finding.warn(f"{activity.name} has no {' and no '.join(activity.unlimited)} limit", variant="none")
