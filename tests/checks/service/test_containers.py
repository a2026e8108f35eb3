"""Services that do not run, crash, run out of memory or fail their health check: broken for real, seen, mended."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from docker.errors import APIError

from allodoc_health.finding import Outcome
from allodoc_health.limits import Limits
from allodoc_health.runtimes.interface import Health, HealthStatus, ServiceState, Status
from checks.service.test_application_does_not_start import test_the_health_check_passes as the_health_check_passes
from checks.service.test_service_starts_but_crashes import (
    test_the_last_run_ended_well as the_last_run_ended_well,
)
from checks.service.test_service_starts_but_crashes import (
    test_the_service_is_not_started_again_and_again as it_is_not_started_again_and_again,
)
from checks.service.test_service_starts_but_crashes import (
    test_the_service_keeps_within_its_limits as it_keeps_within_its_limits,
)
from checks.service.test_service_starts_but_crashes import test_the_service_stays_up as the_service_stays_up
from fixtures.containers import HealthReport, life_of
from fixtures.usage import Activity
from tests.beds.docker import ContainerFactory
from tests.beds.embedded import Demo
from tests.beds.recorded import finding_on
from tests.beds.suite import Health as Suite
from tests.checks.service.targets import CHAPTERS, CONTAINERS, demo_target, redis_in, shell

SECOND = 1_000_000_000


class TestRunning:
    """service.running"""

    def test_healthy_demo_is_calm(self, demo: Demo, suite: Suite) -> None:
        """Nothing of these two chapters is red on a stack that is well."""
        run = suite(*CHAPTERS, target=demo_target(demo.state))
        run.is_calm()
        assert run.outcome("service.running[redis]") == "pass"

    @pytest.mark.parametrize("role", ["redis", "nginx"])
    def test_stopped(self, role: str, demo: Demo, suite: Suite) -> None:
        """A stopped service is the one root cause, whatever else goes red; starting it mends all."""
        demo.stop(role)
        run = suite(*CHAPTERS, target=demo_target(demo.state))
        run.blames(f"service.running[{role}]")
        run.do(f"service.running[{role}]", steps=[0])
        demo.wait_healthy(timeout=40)
        # A backend that ended for want of Redis has to last for longer than it did then, to be told well.
        demo.wait_until(
            lambda: suite(*CHAPTERS, target=demo_target(demo.state)).exit_status == 0, what="all to be well"
        )

    def test_paused_container(self, container: ContainerFactory, suite: Suite) -> None:
        """Docker's paused is told apart too, and unpausing mends it."""
        made = container()
        made.pause()
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.running[redis]")
        run.do("service.running[redis]")
        suite(*CONTAINERS, target=redis_in(made.name)).is_calm()

    def test_created(self, container: ContainerFactory, suite: Suite) -> None:
        """A container that was made and never started is told apart from one that ended; starting it mends."""
        made = container(start=False)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.running[redis]")
        assert "never started" in run.finding("service.running[redis]")["message"]
        run.do("service.running[redis]", steps=[0])
        suite(*CONTAINERS, target=redis_in(made.name)).is_calm()

    def test_unstartable(self, container: ContainerFactory, suite: Suite) -> None:
        """A command that does not exist is the root, with its code and the engine's own sentence."""
        made = container(("no-such-program",), start=False, init=False)
        with suppress(APIError):
            made.start()
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.exit-code[redis]")
        assert run.finding("service.exit-code[redis]")["message"].startswith("exit code 127")
        assert any("no-such-program" in line for line in run.finding("service.running[redis]")["details"])


class TestExitCode:
    """service.exit-code"""

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (1, "the application gave up with an error"),
            (126, "can't be executed"),
            (127, "does not exist"),
            (134, "aborted"),
            (139, "memory that is not its own"),
        ],
    )
    def test_own_end(self, code: int, words: str, container: ContainerFactory, suite: Suite) -> None:
        """What ended by itself is told by its exit code, in words, and that is the root."""
        made = container(shell(f"exit {code}"))
        made.wait_status(Status.EXITED)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.exit-code[redis]")
        assert run.finding("service.exit-code[redis]")["message"].startswith(f"exit code {code}:")
        assert words in run.finding("service.exit-code[redis]")["message"]

    @pytest.mark.parametrize(("signal", "code"), [("TERM", 143), ("KILL", 137)])
    def test_ended_from_outside(self, signal: str, code: int, container: ContainerFactory, suite: Suite) -> None:
        """What was ended from outside is simply down: its exit code follows from that, and starting it mends."""
        made = container(init=True)
        made.kill(signal)
        made.wait_status(Status.EXITED)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.running[redis]")
        assert run.finding("service.exit-code[redis]")["message"].startswith(f"exit code {code}:")
        run.do("service.running[redis]", steps=[0])
        suite(*CONTAINERS, target=redis_in(made.name)).is_calm()

    def test_ended_without_an_error(self, container: ContainerFactory, suite: Suite) -> None:
        """Exit code 0 is no fault by itself; that it does not run is."""
        made = container(shell("exit 0"))
        made.wait_status(Status.EXITED)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.running[redis]")
        assert run.outcome("service.exit-code[redis]") == "pass"

    def test_up_again(self) -> None:
        """Recorded: a service that was killed last time and is up again passes, and says so."""
        life = life_of(state(exit_code=137, finished_at=ago(hours=3)), 0, {}, NOW)
        finding = finding_on(the_last_run_ended_well, life=life)
        assert finding.outcome is Outcome.PASS
        assert finding.message.startswith("up again; the last run ended with 137: killed")


class TestRestartLoop:
    """service.restart-loop and service.stays-up"""

    def test_crash_loop(self, container: ContainerFactory, suite: Suite) -> None:
        """A container that ends again and again: the exit code is the root, the loop and the rest follow."""
        made = container(shell("echo cannot open the port >&2; exit 1"), restart="always")
        wait(lambda: made.state.restart_count >= 3)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.exit-code[redis]")
        assert {"service.restart-loop[redis]", "service.stays-up[redis]"} <= run.names("fail")

    def test_loop_without_an_error(self, container: ContainerFactory, suite: Suite) -> None:
        """A command that ends with 0 and is started again: there the loop itself is the root."""
        made = container(shell("exit 0"), restart="always")
        wait(lambda: made.state.restart_count >= 3)
        suite(*CONTAINERS, target=redis_in(made.name)).blames("service.restart-loop[redis]")

    def test_old_restarts_are_harmless(self) -> None:
        """Recorded: three restarts last week, up ever since."""
        life = life_of(state(restart_count=3, started_at=ago(days=7), exit_code=1), 3, {}, NOW)
        finding = finding_on(it_is_not_started_again_and_again, life=life, limits=Limits())
        assert finding.outcome is Outcome.PASS
        assert finding.message == "started again 3 times, and up for 7 d since"

    def test_growth_between_two_looks(self) -> None:
        """Recorded: a restart count that grows while one looks is a loop, though the service runs at that moment."""
        life = life_of(state(restart_count=1, started_at=ago(seconds=1), exit_code=1), 2, {}, NOW)
        assert life.looping
        finding = finding_on(it_is_not_started_again_and_again, life=life, limits=Limits())
        assert finding.outcome is Outcome.FAIL
        assert finding.measurements[0].value == 1

    @pytest.mark.parametrize(
        ("restarts", "made", "up", "looping"),
        [
            pytest.param(6, 25.0, 1.2, True, id="each-four-seconds"),
            pytest.param(4, 60.0, 8.0, True, id="each-dozen-seconds"),
            pytest.param(2, 9.0, 2.0, False, id="twice"),
            pytest.param(6, 40.0, 15.0, False, id="longer-up-than-before"),
            pytest.param(6, 86400.0, 2.0, False, id="long-ago"),
            pytest.param(0, 600.0, 5.0, False, id="three-times-by-hand"),
        ],
    )
    def test_well_in_between(self, restarts: int, made: float, up: float, looping: bool) -> None:
        """Recorded: who was started again by the runtime again and again is in a loop, though it is well just now."""
        well = Health(HealthStatus.HEALTHY, 0, "", NOW)
        times: dict[str, Any] = {
            "created_at": ago(seconds=made),
            "started_at": ago(seconds=up),
            "finished_at": ago(seconds=up + 0.4),
        }
        life = life_of(state(restart_count=restarts, exit_code=1, health=well, **times), restarts, {}, NOW)
        assert life.looping is looping
        finding = finding_on(it_is_not_started_again_and_again, life=life, limits=Limits())
        assert (finding.outcome is Outcome.FAIL) is looping

    def test_fresh_deploy_is_no_fault(self) -> None:
        """Recorded: a stack that was started as a whole 20 s ago passes, a single service that was warns."""
        fresh = state(started_at=ago(seconds=20))
        others = {"redis": fresh, "postgres": state("postgres", started_at=ago(seconds=32))}
        old = {**others, "postgres": state("postgres", started_at=ago(hours=5))}
        together = finding_on(the_service_stays_up, present_run=life_of(fresh, 0, others, NOW), limits=Limits())
        alone = finding_on(the_service_stays_up, present_run=life_of(fresh, 0, old, NOW), limits=Limits())
        assert together.outcome is Outcome.PASS
        assert "started together" in together.message
        assert alone.outcome is Outcome.WARN


class TestOutOfMemory:
    """service.oom-killed"""

    def test_killed(self, container: ContainerFactory, suite: Suite) -> None:
        """A container that allocates past its limit: the kernel's kill is the root of its exit code and its end."""
        made = container(shell("sleep 0.2; head -c 100m /dev/zero | tail"), memory="16m")
        made.wait_status(Status.EXITED)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.oom-killed[redis]")
        assert run.finding("service.exit-code[redis]")["message"].startswith("exit code 137")

    def test_more_memory_mends(self, container: ContainerFactory, suite: Suite) -> None:
        """With twice the memory, from the remedy's own commands, it runs."""
        made = container(
            shell("sleep 0.2; head -c 18m /dev/zero | tail -c 18m > /dev/null; exec sleep 600"), memory="16m"
        )
        wait(lambda: made.runtime.usage("service", 5).oom_kills)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.oom-killed[redis]")
        assert "has lost 1 processes" in run.finding("service.oom-killed[redis]")["message"]
        run.do("service.oom-killed[redis]", steps=[0])
        wait(lambda: made.state.running)
        time.sleep(0.6)
        suite(*CONTAINERS, target=redis_in(made.name)).is_calm()

    def test_loop_is_explained(self, container: ContainerFactory, suite: Suite) -> None:
        """A crash loop for want of memory has that as its root, at whichever moment one looks."""
        made = container(shell("sleep 0.3; head -c 100m /dev/zero | tail"), memory="16m", restart="always")
        wait(lambda: made.state.restart_count >= 2)
        suite(*CONTAINERS, target=redis_in(made.name)).blames("service.oom-killed[redis]")


class TestHealthCheck:
    """service.healthcheck"""

    def test_unhealthy(self, container: ContainerFactory, suite: Suite) -> None:
        """A health command that fails is the root, with what it said last, scrubbed."""
        made = container(healthcheck=health_command("echo connection refused by Erika Mustermann; exit 1"))
        made.wait_health(HealthStatus.UNHEALTHY)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.blames("service.healthcheck[redis]")
        assert any("connection refused" in line for line in run.finding("service.healthcheck[redis]")["details"])
        assert "Mustermann" not in run.output + str(run.snapshot)

    def test_healthy(self, container: ContainerFactory, suite: Suite) -> None:
        """One that succeeds passes."""
        made = container(healthcheck=health_command("exit 0"))
        made.wait_health(HealthStatus.HEALTHY)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        run.is_calm()
        assert run.outcome("service.healthcheck[redis]") == "pass"

    def test_none(self, container: ContainerFactory, suite: Suite) -> None:
        """A container without a health check: the question does not arise."""
        run = suite(*CONTAINERS, target=redis_in(container().name))
        assert run.outcome("service.healthcheck[redis]") == "not-applicable"

    @pytest.mark.parametrize(("seconds", "outcome"), [(20, Outcome.PASS), (200, Outcome.WARN)])
    def test_starting(self, seconds: int, outcome: Outcome) -> None:
        """Recorded: starting is fine for as long as the check's own settings allow, and warns after that."""
        health = Health(HealthStatus.STARTING, 2, "connection refused", NOW, patience=140)
        report = HealthReport("allodoc_backend_prod", health, float(seconds), 1.0, ())
        finding = finding_on(the_health_check_passes, runtime_health=report, limits=Limits())
        assert finding.outcome is outcome


class TestResourceLimits:
    """service.resource-limits"""

    @pytest.mark.parametrize(("megabytes", "outcome"), [(20, "pass"), (57, "warn"), (62, "fail")])
    def test_memory(self, megabytes: int, outcome: str, container: ContainerFactory, suite: Suite) -> None:
        """Memory is held against the limit: 85 % warns, 95 % fails."""
        script = f"dd if=/dev/zero of=/dev/shm/held bs=1M count={megabytes} 2>/dev/null; exec sleep 600"
        made = container(shell(script), memory="64m", cpus=1)
        wait(lambda: made.runtime.usage("service", 5).memory > megabytes * 1024**2)
        run = suite(*CONTAINERS, target=redis_in(made.name))
        assert run.outcome("service.resource-limits[redis]") == outcome, run.output
        assert run.finding("service.resource-limits[redis]")["measurements"][0]["name"] == "memory in use"
        if outcome == "fail":
            run.blames("service.resource-limits[redis]")
            run.do("service.resource-limits[redis]", steps=[0])
            suite(*CONTAINERS, target=redis_in(made.name)).is_calm()

    @pytest.mark.parametrize(("tasks", "outcome"), [(8, Outcome.PASS), (11, Outcome.WARN), (12, Outcome.FAIL)])
    def test_tasks(self, tasks: int, outcome: Outcome) -> None:
        """Recorded: processes and threads are held against their limit: 90 % warns, 95 % fails."""
        activity = Activity("backend", 1, 0.1, 2, 2, 0, (20,), 100, True, 0, tasks=tasks, tasks_limit=12)
        finding = finding_on(it_keeps_within_its_limits, activity=activity, limits=Limits())
        assert finding.outcome is outcome
        assert (f"{tasks} of the 12 processes and threads" in finding.message) == (outcome is not Outcome.PASS)

    def test_none_set(self, container: ContainerFactory, suite: Suite) -> None:
        """A container without limits warns."""
        run = suite(*CONTAINERS, target=redis_in(container().name))
        run.warns("service.resource-limits[redis]")
        assert "no memory and no CPU limit" in run.finding("service.resource-limits[redis]")["message"]

    def test_supervisor(self, demo: Demo, suite: Suite) -> None:
        """A supervisor sets none: there the question does not arise."""
        run = suite(*CONTAINERS, target=demo_target(demo.state))
        assert run.outcome("service.resource-limits[backend]") == "not-applicable"


NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)


def ago(**span: float) -> datetime:
    """A time before the recorded run."""
    return NOW - timedelta(**span)


def state(role: str = "redis", **changed: Any) -> ServiceState:
    """A recorded state of a service that runs."""
    known = {"status": Status.RUNNING, "started_at": ago(hours=2), **changed}
    return ServiceState(role=role, name=f"allodoc_{role}_prod", **known)


def health_command(script: str) -> dict[str, Any]:
    """A health check that comes to its verdict at once."""
    return {"test": ["CMD-SHELL", script], "interval": SECOND // 5, "timeout": 2 * SECOND, "retries": 1}


def is_unhealthy(found: ServiceState) -> bool:
    """Whether the runtime's health check of a service fails."""
    return found.health is not None and found.health.status is HealthStatus.UNHEALTHY


def wait(condition: Callable[[], object], timeout: float = 15) -> None:
    """Wait until it is so, at most so long."""
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)
