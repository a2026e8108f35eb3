"""Probes: each once, all at the same time, none longer than it may."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from allodoc_health import probe as module
from allodoc_health.finding import Failed, NotApplicable
from allodoc_health.probe import AXES, PROBES, Observer, Unobserved, axis, client, probe


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Registries of their own for the probes and the axis that a test defines."""
    probes, axes = dict(PROBES), dict(AXES)
    PROBES.clear()
    AXES.clear()
    axis("service")(lambda target: ("postgres", "redis"))
    yield
    for registered, before in ((PROBES, probes), (AXES, axes)):
        registered.clear()
        registered.update(before)  # type: ignore[arg-type]  # each gets back its own


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """Set when the test is over: what hangs in a probe waits for it."""
    event = threading.Event()
    yield event
    event.set()


def observer(budget: float = 5.0, **givens: Any) -> Observer:
    """An observer with these givens."""
    return Observer({"target": None, **givens}, budget)


def failure(observed: Observer, name: str, **values: str) -> Failed:
    """How a probe failed."""
    with pytest.raises(Failed) as caught:
        observed.evidence(name, values)
    return caught.value


# -- evaluation ------------------------------------------------------------------------------------


def test_a_probe_gets_what_its_parameters_name() -> None:
    """Givens, axes, clients and other probes arrive by the names of the parameters."""

    @client(guard="x.client")
    def link() -> str:
        return "link"

    @probe(guard="x.first")
    def first(target: str) -> str:
        return f"first of {target}"

    @probe(guard="x.second[{service}]")
    def second(first: str, link: str, service: str) -> tuple[str, str, str]:
        return first, link, service

    observed = observer(target="prod")
    assert observed.evidence("second", {"service": "redis"}) == ("first of prod", "link", "redis")


def test_each_probe_runs_once_for_each_value_of_its_axes() -> None:
    """Whoever asks, and however often, gets the one observation of the value that is theirs."""
    runs: list[str] = []

    @probe(guard="x.state[{service}]")
    def state(service: str) -> str:
        runs.append(service)
        return service

    @probe(guard="x.summary[{service}]")
    def summary(state: str) -> str:
        return state.upper()

    observed = observer()
    observed.start([("state", {"service": "postgres"}), ("summary", {"service": "postgres"})])
    for service in ("postgres", "redis", "postgres"):
        assert observed.evidence("summary", {"service": service}) == service.upper()
        assert observed.evidence("state", {"service": service}) == service
    assert sorted(runs) == ["postgres", "redis"]


def test_everything_starts_together() -> None:
    """Probes that only come to an end when all of them run at once do come to an end."""
    meeting = threading.Barrier(3, timeout=5)
    for name in ("one", "two", "three"):

        def body() -> int:
            return meeting.wait()

        body.__name__ = name
        probe(guard=f"x.{name}")(body)
    observed = observer()
    observed.start([(name, {}) for name in ("one", "two", "three")])
    assert sorted(observed.evidence(name, {}) for name in ("one", "two", "three")) == [0, 1, 2]


def test_probes_run_in_daemon_threads(ended: threading.Event) -> None:
    """A probe that hangs does not keep the process from exiting."""
    seen: list[bool] = []

    @probe(guard="x.slow", deadline=0.05)
    def slow() -> None:
        seen.append(threading.current_thread().daemon)
        ended.wait()

    failure(observer(), "slow")
    assert seen == [True]


def test_evidence_is_sealed_and_clients_are_not() -> None:
    """What probes return passes through the seal (redaction); live clients stay what they are."""

    @client(guard="x.client")
    def link() -> str:
        return "secret"

    @probe(guard="x.text")
    def text(link: str) -> str:
        return link

    observed = Observer({}, 5.0, seal=lambda evidence: evidence.replace("secret", "‹sealed›"))
    assert observed.evidence("text", {}) == "‹sealed›"
    assert observed.collected() == {"text": "‹sealed›"}


# -- deadlines and the budget ----------------------------------------------------------------------


def test_a_probe_that_is_late_fails_its_guard(ended: threading.Event) -> None:
    """After its deadline a probe has failed, with the guard and the figure in the message, and not much later."""

    @probe(guard="x.slow[{service}]", deadline=0.2)
    def slow(service: str) -> None:
        ended.wait()

    began = time.monotonic()
    late = failure(observer(), "slow", service="redis")
    assert (late.message, late.guard) == ("no answer within 200 ms", "x.slow[redis]")
    assert time.monotonic() - began < 1


def test_a_deadline_counts_from_when_everything_needed_is_there() -> None:
    """Time spent waiting for other probes is theirs."""

    @probe(guard="x.first", deadline=2.0)
    def first() -> int:
        time.sleep(0.3)
        return 1

    @probe(guard="x.second", deadline=0.2)
    def second(first: int) -> int:
        return first + 1

    assert observer().evidence("second", {}) == 2


def test_every_check_sees_the_same_outcome() -> None:
    """A probe that ends after it was given up stays given up: the next check must not see a value."""
    go_on = threading.Event()
    done = threading.Event()

    @probe(guard="x.slow", deadline=0.05)
    def slow() -> str:
        go_on.wait()
        done.set()
        return "late"

    observed = observer()
    first = failure(observed, "slow")
    go_on.set()
    assert done.wait(5)
    time.sleep(0.05)
    assert failure(observed, "slow") is first
    assert not observed.collected()
    told = Unobserved("failed", "no answer within 50 ms", "x.slow", details=("asked by the probe slow",))
    assert observed.unobserved() == {"slow": told}


def test_the_budget_ends_everything_and_blames_what_hangs(ended: threading.Event) -> None:
    """When the budget is spent, the probe that hangs fails its guard, and what waits for it is blocked by it."""

    @probe(guard="x.hanging", deadline=60)
    def hanging() -> None:
        ended.wait()

    @probe(guard="x.waiting", deadline=60)
    def waiting(hanging: None) -> None: ...

    began = time.monotonic()
    observed = observer(budget=0.3)
    observed.start([("waiting", {})])
    late = failure(observed, "waiting")
    assert (late.guard, late.message) == ("x.hanging", "no answer within the run's budget of 300 ms")
    assert failure(observed, "hanging").guard == "x.hanging"
    assert time.monotonic() - began < 1.5


def test_the_main_thread_tells_what_it_waits_for(monkeypatch: pytest.MonkeyPatch, ended: threading.Event) -> None:
    """After a while the waiting is told with the names of what runs, and its end with none."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    told: list[list[str]] = []

    @probe(guard="x.slow[{service}]", deadline=0.3)
    def slow(service: str) -> None:
        ended.wait()

    @probe(guard="x.quick")
    def quick() -> None: ...

    observed = Observer({}, 5.0, on_wait=told.append)
    observed.evidence("quick", {})
    assert told == []
    failure(observed, "slow", service="redis")
    assert told[0] == ["slow[redis]"]
    assert told[-1] == []


# -- failures --------------------------------------------------------------------------------------


def test_a_failure_reaches_all_that_need_it_under_its_own_guard() -> None:
    """However long the chain, what is at its end is blocked by the check that guards its beginning."""

    @probe(guard="x.port")
    def port() -> None:
        raise Failed("refused", details=("seen by connect()",), variant="refused")

    @probe(guard="x.login")
    def login(port: None) -> None: ...

    @probe(guard="x.query")
    def query(login: None) -> None: ...

    observed = observer()
    for name in ("query", "login", "port"):
        told = failure(observed, name)
        assert (told.guard, told.message, told.variant) == ("x.port", "refused", "refused")


def test_a_failure_may_name_another_guard() -> None:
    """A probe that learns something about another check's matter blames that check."""

    @probe(guard="x.query")
    def query() -> None:
        raise Failed("password refused", guard="x.login")

    assert failure(observer(), "query").guard == "x.login"


@pytest.mark.parametrize("problem", [Failed("refused"), NotApplicable("no such service")], ids=["failed", "absent"])
def test_an_optional_need_may_be_missing(problem: Exception) -> None:
    """A need with a default of None is None when it failed or does not apply."""

    @probe(guard="x.extra")
    def extra() -> str:
        raise problem

    @probe(guard="x.main")
    def main(extra: str | None = None) -> str:
        return f"extra is {extra}"

    assert observer().evidence("main", {}) == "extra is None"


def test_what_is_not_applicable_is_so_for_all_that_need_it() -> None:
    """The reason passes on."""

    @probe(guard="x.first")
    def first() -> None:
        raise NotApplicable("this target has no redis service")

    @probe(guard="x.second")
    def second(first: None) -> None: ...

    with pytest.raises(NotApplicable, match="no redis service"):
        observer().evidence("second", {})


def test_a_defect_is_a_defect() -> None:
    """An exception that is no finding comes through as it is, even past a need that is optional, and its traceback
    does not grow with each check that sees it.
    """

    @probe(guard="x.broken")
    def broken() -> None:
        raise KeyError("oops")

    @probe(guard="x.main")
    def main(broken: None = None) -> None: ...

    observed = observer()
    lengths = []
    for _ in range(3):
        with pytest.raises(KeyError, match="oops") as caught:
            observed.evidence("main", {})
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(lengths)) == 1
    assert observed.unobserved() == dict.fromkeys(("broken", "main"), Unobserved("defect", "KeyError"))


# -- clients ---------------------------------------------------------------------------------------


def test_a_client_is_opened_once_and_closed_at_the_end() -> None:
    """All probes share it; close() ends it; what goes wrong in ending it is of no consequence."""
    events: list[str] = []

    @client(guard="x.client")
    def link() -> Iterator[str]:
        events.append("opened")
        yield "link"
        events.append("closed")
        raise OSError("already gone")

    for name in ("one", "two"):

        def body(link: str) -> str:
            return link

        body.__name__ = name
        probe(guard=f"x.{name}")(body)
    observed = observer()
    observed.start([("one", {}), ("two", {})])
    assert observed.evidence("one", {}) == observed.evidence("two", {}) == "link"
    assert events == ["opened"]
    observed.close()
    assert events == ["opened", "closed"]


def test_a_client_that_opens_too_late_is_closed_at_once() -> None:
    """A connection that nobody waits for any longer is not left open."""
    go_on, closed = threading.Event(), threading.Event()

    @client(guard="x.client", deadline=0.05)
    def link() -> Iterator[None]:
        go_on.wait()
        yield
        closed.set()

    @probe(guard="x.main")
    def main(link: None) -> None: ...

    observed = observer()
    assert failure(observed, "main").guard == "x.client"
    go_on.set()
    assert closed.wait(5)


def test_closing_does_not_wait_for_a_client_that_hangs(ended: threading.Event) -> None:
    """The end of the run is bounded, too."""

    @client(guard="x.client")
    def link() -> Iterator[None]:
        yield
        ended.wait()

    @probe(guard="x.main")
    def main(link: None) -> None: ...

    observed = observer()
    observed.evidence("main", {})
    began = time.monotonic()
    observed.close(deadline=0.1)
    assert time.monotonic() - began < 1


# -- what is left for the snapshot -----------------------------------------------------------------


def test_what_was_observed_is_named_by_probe_and_values(ended: threading.Event) -> None:
    """Evidence, failures and absences stand under the probe's name with the values of its axes; clients do not."""

    @client(guard="x.client")
    def link() -> str:
        return "link"

    @probe(guard="x.state[{service}]")
    def state(service: str, link: str) -> str:
        if service == "redis":
            raise NotApplicable("no redis")
        return "running"

    @probe(guard="x.slow")
    def slow() -> None:
        ended.wait()

    observed = observer()
    observed.start([("state", {"service": "postgres"}), ("state", {"service": "redis"}), ("slow", {})])
    observed.evidence("state", {"service": "postgres"})
    with pytest.raises(NotApplicable):
        observed.evidence("state", {"service": "redis"})
    assert observed.collected() == {"state[postgres]": "running"}
    assert observed.unobserved() == {"state[redis]": Unobserved("not-applicable", "no redis")}
    assert "state[postgres]" in observed.timings()
    assert observed.running() == ["slow"]


# -- definitions that are wrong --------------------------------------------------------------------


def test_a_need_must_be_defined_before() -> None:
    """A name that nothing stands for is an error where it is written, not at three in the morning."""
    with pytest.raises(ValueError, match="probe 'main' needs 'nothing'"):

        @probe(guard="x.main")
        def main(nothing: int) -> None: ...


def test_a_guard_names_only_axes_of_the_probe() -> None:
    """A guard that could not be filled in is an error where it is written."""
    with pytest.raises(ValueError, match="guard of probe 'main' names 'service'"):

        @probe(guard="x.main[{service}]")
        def main() -> None: ...
