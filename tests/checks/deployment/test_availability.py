"""deploy.availability: who is cut off while something is deployed, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from allodoc_health.finding import Outcome
from allodoc_health.limits import Limits
from checks.deployment.test_zero_downtime import test_the_deployment_cuts_nobody_off as cuts_nobody_off
from fixtures.deploy_window import PACE, DeployWindow, Sample, longest_gap, summarise
from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.recorded import finding_on
from tests.beds.suite import Health, Run

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")

NOW = datetime(2026, 11, 24, 2, 10, tzinfo=UTC)
WINDOW = 8
NAME = "deploy.availability"
CHECKS = ("checks/deployment", "checks/service", "checks/network", "-m", "smoke or deployment")


def window(failures: dict[int, str], sent: int = 200) -> DeployWindow:
    """A window of as many requests at the usual pace, in which those of these numbers failed."""
    samples = [Sample(number / PACE, failures.get(number, "")) for number in range(sent)]
    return summarise(samples, "/api/v1/health", NOW, sent / PACE)


class TestRecorded:
    """What the requests of a window come to."""

    @pytest.mark.parametrize(
        ("failures", "outcome", "said"),
        [
            ({}, Outcome.PASS, "0 of 200 requests failed = 0 %"),
            ({50: "502"}, Outcome.WARN, "1 of 200 requests failed in 40 s"),
            ({50: "502", 80: "503", 120: "no answer"}, Outcome.FAIL, "3 of 200 requests failed = 1.5 %"),
            ({199: "502"}, Outcome.FAIL, "no answer any more in the last 200 ms of 40 s"),
        ],
    )
    def test_judged(self, failures: dict[int, str], outcome: Outcome, said: str) -> None:
        """A single failure warns, more than one in a hundred fail, and so does a window that ends without an answer."""
        finding = finding_on(cuts_nobody_off, deploy_window=window(failures), limits=Limits())
        assert (finding.outcome, finding.message.partition("   (")[0]) == (outcome, said)

    def test_a_long_gap(self) -> None:
        """A second without an answer fails, however many requests there were before and after."""
        found = window(dict.fromkeys(range(1000, 1006), "502"), sent=5000)
        finding = finding_on(cuts_nobody_off, deploy_window=found, limits=Limits())
        assert finding.outcome is Outcome.FAIL
        assert finding.message.startswith("longest gap 1.2 s")

    @given(st.lists(st.sampled_from(["", "502", "no answer"]), min_size=1, max_size=60))
    def test_nothing_is_lost(self, failures: list[str]) -> None:
        """Every request is counted once, and the longest gap is no longer than the window."""
        found = window(dict(enumerate(failures)), sent=len(failures))
        assert sum(second.answered + sum(second.failed.values()) for second in found.by_second) == len(failures)
        assert found.unanswered == sum(bool(failure) for failure in failures)
        assert 0 <= found.longest_gap <= found.seconds
        assert bool(found.longest_gap) == bool(found.unanswered)

    def test_a_gap_ends_with_the_next_answer(self) -> None:
        """It counts from the first request that failed to the first that did not."""
        assert longest_gap([Sample(0, ""), Sample(1, "502"), Sample(1.2, "502"), Sample(2.5, "")], 9) == (1.5, 1, True)


def while_deploying(suite: Health, target: str, deploy: Callable[[], object], requests_seen: Callable[[], int]) -> Run:
    """The run whose window is open while ``deploy`` is carried out, which begins when requests come in."""

    def deployment() -> None:
        ends = time.monotonic() + 30
        while requests_seen() < 3 and time.monotonic() < ends:
            time.sleep(0.05)
        deploy()

    thread = threading.Thread(target=deployment)
    thread.start()
    run = suite(*CHECKS, f"--deploy-window={WINDOW}", target=target)
    thread.join()
    return run


class TestEmbedded:
    """On the embedded demo, whose nginx has a single backend."""

    def test_a_backend_that_is_away(self, demo: Demo, suite: Health) -> None:
        """The gap that is told is the one that there was, and it is the root of whatever else shows it."""
        away: list[float] = []

        def deploy() -> None:
            demo.stop("backend")
            began = time.monotonic()
            time.sleep(1.5)
            demo.start("backend")
            demo.wait_until(lambda: is_well(demo.urls["https"]), what="the backend answers")
            away.append(time.monotonic() - began)

        run = while_deploying(suite, demo.target, deploy, lambda: demo.log_text("nginx").count("allodoc-health"))
        assert NAME in run.root_causes, run.output
        seen = run.snapshot["evidence"]["deploy_window"]
        assert seen["sent"] == WINDOW * PACE
        assert seen["failed"]["502"] >= 1.5 * PACE - 2
        assert 1.3 <= seen["longest_gap"] <= away[0] + 2.5
        assert seen["gap_ended"]

    def test_nothing_is_deployed(self, demo: Demo, suite: Health) -> None:
        """Without the option nothing is sent, and the check says why it has nothing to say."""
        run = suite("checks/deployment", "-k", NAME, target=demo.target)
        assert run.outcome(NAME) == "not-applicable"
        assert "--deploy-window" in run.finding(NAME)["message"]

    def test_a_window_that_nothing_is_told_of(self, demo: Demo, suite: Health) -> None:
        """Where the check is not selected nothing is sent, and the run does not begin."""
        run = suite("checks/db", "--deploy-window=5", target=demo.target)
        assert run.exit_status == pytest.ExitCode.USAGE_ERROR
        assert "deploy.availability tells, which is not selected" in run.output


@pytest.mark.docker
class TestContainers:
    """On the guide's own stack: with a second backend nobody notices, without one everybody does."""

    def test_a_rolling_restart(self, stack: Stack, suite: Health) -> None:
        """The new backend is well before the old one is told to stop, which finishes what it has begun: 100 %."""
        configuration = stack.read("nginx", "/etc/nginx/nginx.conf")
        following = stack.follow_up("backend")

        def deploy() -> None:
            stack.put("nginx", "/etc/nginx/nginx.conf", configuration.replace(stack.names["backend"], following.name))
            assert stack.exec("nginx", "nginx", "-s", "reload").exit_code == 0
            time.sleep(1)  # as deploy scripts do: what nginx has begun goes to the old one
            stack.stop("backend")

        run = while_deploying(suite, stack.target, deploy, lambda: seen_by_nginx(stack))
        stack.start("backend")
        assert run.snapshot, run.output
        seen = run.snapshot["evidence"]["deploy_window"]
        assert (seen["sent"], seen["failed"]) == (WINDOW * PACE, {}), run.output
        assert run.outcome(NAME) == "pass"
        assert NAME not in run.root_causes

    def test_a_restart_without_grace(self, stack: Stack, suite: Health) -> None:
        """The only backend is killed and started: the gap is as long as it was away."""
        away: list[float] = []

        def deploy() -> None:
            began = time.monotonic()
            stack.kill("backend")
            stack.start("backend")
            stack.wait_until(lambda: is_well(f"https://127.0.0.1:{stack.ports['https']}"), 30, "the backend answers")
            away.append(time.monotonic() - began)

        run = while_deploying(suite, stack.target, deploy, lambda: seen_by_nginx(stack))
        seen = run.snapshot["evidence"]["deploy_window"]
        assert run.outcome(NAME) in ("warn", "fail"), run.output
        assert seen["failed"]
        assert abs(seen["longest_gap"] - away[0]) <= 2.5, (seen, away)


def is_well(edge: str) -> bool:
    """Whether the API answers through nginx."""
    try:
        answer = requests.get(f"{edge}/api/v1/health", timeout=2, verify=False)  # noqa: S501  # a certificate of the bed's own
    except requests.RequestException:
        return False
    return answer.ok


def seen_by_nginx(stack: Stack) -> int:
    """How many requests of ours the access log has."""
    return stack.client.logs(stack.names["nginx"]).count(b"?allodoc-health")
