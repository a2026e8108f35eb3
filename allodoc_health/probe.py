"""Probes: bounded, read-only observations, evaluated once for each target and all at the same time.

A probe is a function. Its parameters name what it needs: ``target``, ``runtime``, ``now``, ``redactor``, ``secrets``,
an axis such as ``service``, another probe, or a client. Decorating it also makes the pytest fixture through which
checks ask for its evidence::

    @probe(guard="service.running[{service}]", deadline=2.0)
    def container(service: str, containers: Containers) -> ServiceState: ...

What a probe returns is evidence: it is redacted and recorded. What a client returns is not; it is a live thing that
probes share (a connection), opened once and closed at the end of the run.
"""

from __future__ import annotations

import contextlib
import inspect
import string
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

import pytest

from allodoc_health.finding import Failed, NotApplicable, duration

_Function = TypeVar("_Function", bound=Callable[..., Any])

AXES: dict[str, Callable[[Any], Sequence[str]]] = {}
"""What checks are parametrized over: the name of a parameter, and its values for a target."""


def axis(name: str) -> Callable[[_Function], _Function]:
    """Declare an axis: a function from a target to the values that checks with a parameter of this name run over."""

    def register(function: _Function) -> _Function:
        AXES[name] = function
        return function

    return register


@dataclass(frozen=True)
class Probe:
    """How to make one observation. ``needs`` are the names of its parameters, ``optional`` those it can do without."""

    name: str
    function: Callable[..., Any]
    guard: str
    deadline: float
    needs: tuple[str, ...]
    optional: frozenset[str]
    is_client: bool
    lasts: Callable[[Any], float] = lambda target: 0.0

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes among its own parameters."""
        return tuple(name for name in self.needs if name in AXES)


GIVENS = ("target", "runtime", "now", "redactor", "secrets")
"""What a probe may ask for besides axes, probes and clients: the engine has it from the start."""

PROBES: dict[str, Probe] = {}
"""All probes and clients by name. Filled when the modules that define them are imported."""


def probe(
    *, guard: str, deadline: float = 2.0, lasts: Callable[[Any], float] = lambda target: 0.0
) -> Callable[[Callable[..., Any]], Any]:
    """Make a function a probe and return the pytest fixture of the same name.

    ``guard`` names the one check that fails when the probe does; axis values stand in it as ``{service}``.
    ``deadline`` is in seconds and counts from the moment when everything that the probe needs is there. ``lasts`` says
    for how many seconds of a target's time the probe is to look on purpose: they come before all else, and no deadline
    and no budget counts them.
    """
    return _definer(guard, deadline, is_client=False, lasts=lasts)


def client(*, guard: str, deadline: float = 2.0) -> Callable[[Callable[..., Any]], Any]:
    """Make a function (or a generator that yields once) the opener of a live client that probes share."""
    return _definer(guard, deadline, is_client=True)


def _definer(
    guard: str, deadline: float, *, is_client: bool, lasts: Callable[[Any], float] = lambda target: 0.0
) -> Callable[[Callable[..., Any]], Any]:
    def define(function: Callable[..., Any]) -> Any:
        name = function.__name__
        if name in PROBES and PROBES[name].function.__module__ != function.__module__:
            raise ValueError(f"two probes are called {name!r}")
        parameters = inspect.signature(function).parameters
        for need in parameters:
            if need not in GIVENS and need not in AXES and need not in PROBES:
                raise ValueError(
                    f"probe {name!r} needs {need!r}: no probe, client or axis of that name is defined before it"
                )
        optional = frozenset(key for key, value in parameters.items() if value.default is not value.empty)
        made = Probe(name, function, guard, deadline, tuple(parameters), optional, is_client, lasts)
        for _, word, _, _ in string.Formatter().parse(guard):
            if word is not None and word not in axes_of(made):
                raise ValueError(f"the guard of probe {name!r} names {word!r}, which is none of its axes")
        PROBES[name] = made
        return function if is_client else _fixture(made)

    return define


def axes_of(made: Probe) -> set[str]:
    """The axes of a probe: its own, and those of all that it needs."""
    axes = set(made.axes)
    for need in made.needs:
        if need in PROBES:
            axes |= axes_of(PROBES[need])
    return axes


def _fixture(made: Probe) -> Any:
    def evidence(request: pytest.FixtureRequest, observer: Observer, **_axes: str) -> Any:
        values = getattr(getattr(request.node, "callspec", None), "params", {})
        return observer.evidence(made.name, values)

    evidence.__doc__ = made.function.__doc__
    keyword = inspect.Parameter.KEYWORD_ONLY
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    evidence.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # pytest reads the axes from here
        [inspect.Parameter(name, positional) for name in ("request", "observer")]
        + [inspect.Parameter(name, keyword) for name in sorted(axes_of(made))]
    )
    return pytest.fixture(name=made.name)(evidence)


Key = tuple[str, tuple[tuple[str, str], ...]]

PATIENCE = 1.0
"""Seconds after which somebody who looks at a terminal wants to know what is being waited for."""


def key_of(name: str, values: Mapping[str, str]) -> Key:
    """Which observation a probe's name means for these axis values."""
    return name, tuple((axis, values[axis]) for axis in sorted(axes_of(PROBES[name])))


def evidence_name(key: Key) -> str:
    """How a piece of evidence is called in the snapshot: ``probe`` or ``probe[value]``."""
    name, axes = key
    return f"{name}[{', '.join(value for _, value in axes)}]" if axes else name


@dataclass(frozen=True, slots=True)
class Unobserved:
    """Why a probe gave no evidence.

    ``reason`` is ``failed`` (then ``guard`` and what follows are as in :class:`Failed`), ``not-applicable``, or
    ``defect`` if the probe itself broke down: then ``message`` is the exception's type.
    """

    reason: Literal["failed", "not-applicable", "defect"]
    message: str
    guard: str = ""
    variant: str = ""
    details: tuple[str, ...] = ()
    since: datetime | None = None

    @classmethod
    def of(cls, problem: BaseException) -> Unobserved:
        """What is told of a probe that ended so."""
        if isinstance(problem, Failed):
            return cls("failed", problem.message, problem.guard, problem.variant, problem.details, problem.since)
        if isinstance(problem, NotApplicable):
            return cls("not-applicable", str(problem))
        return cls("defect", type(problem).__name__)

    def problem(self) -> Exception:
        """The exception that tells a check the same."""
        if self.reason == "failed":
            return Failed(self.message, self.guard, self.variant, self.details, self.since)
        if self.reason == "not-applicable":
            return NotApplicable(self.message)
        return BrokenDown(f"the probe broke down when it was recorded: {self.message}")


class BrokenDown(Exception):
    """A probe broke down by a defect of its own, in the run that was recorded."""


class Observations(Protocol):
    """The evidence of one target: observed now, or recorded by an earlier run.

    ``on_wait`` is told, in the main thread, the names of the probes that keep it waiting, and an empty list when it
    waits no longer.
    """

    on_wait: Callable[[list[str]], None]

    @property
    def started(self) -> bool:
        """Whether :meth:`start` has been called."""

    def keep(self, earlier: Observations) -> None:
        """Take over what lasted on purpose from earlier observations of the same target."""

    def outlast(self, wanted: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Come to the end of those of these probes, given as name and axis values, that last on purpose."""

    def start(self, wanted: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Make ready what these probes are to tell."""

    def evidence(self, name: str, values: Mapping[str, str]) -> Any:
        """The evidence of a probe. Raises Failed, NotApplicable, or the exception of a defective probe."""

    def running(self) -> list[str]:
        """The names of the probes that are under way."""

    def collected(self) -> Mapping[str, Any]:
        """All evidence so far by name."""

    def unobserved(self) -> Mapping[str, Unobserved]:
        """The probes that gave none, by name, with the reason."""

    def timings(self) -> Mapping[str, float]:
        """How long each finished probe took, in seconds, by name."""

    def close(self) -> None:
        """Let go of whatever probes opened."""


@dataclass
class _Node:
    """One probe for one combination of axis values, on its way from unknown to known."""

    key: Key
    probe: Probe
    done: threading.Event = field(default_factory=threading.Event)
    value: Any = None
    problem: BaseException | None = None
    traceback: TracebackType | None = None
    generator: Iterator[Any] | None = None
    began: float | None = None
    ended: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def expires(self, lasts: float) -> float | None:
        return None if self.began is None else self.began + self.probe.deadline + lasts

    def guard(self) -> str:
        return self.probe.guard.format(**dict(self.key[1]))

    def failure(self, message: str) -> Failed:
        """What is told of a node that did not come to an end by itself."""
        return Failed(message, guard=self.guard(), details=(f"asked by the probe {evidence_name(self.key)}",))

    def settle(
        self, value: Any = None, problem: BaseException | None = None, generator: Iterator[Any] | None = None
    ) -> bool:
        """Take an outcome, unless there is one already: every check is to see the same. Whether it was taken."""
        with self.lock:
            if self.done.is_set():
                return False
            self.value, self.problem, self.generator = value, problem, generator
            self.traceback = problem.__traceback__ if problem else None
            self.ended = time.monotonic()
            self.done.set()
            return True

    def outcome(self) -> Any:
        """The value, or the problem raised: with the traceback that it came with, however often it is told."""
        if self.problem is not None:
            raise self.problem.with_traceback(self.traceback)
        return self.value


class Observer:
    """Evaluates the probes of one target, each at most once.

    :meth:`start` sets off all that are needed, each in a daemon thread that first waits for what it needs itself.
    :meth:`evidence` waits for one, no longer than its deadline and the budget allow. ``givens`` are the parameters that
    are no probes (``target``, ``runtime``, ``now``, …); ``seal`` is applied to whatever a probe returns.
    """

    def __init__(
        self,
        givens: Mapping[str, Any],
        budget: float,
        seal: Callable[[Any], Any] = lambda evidence: evidence,
        on_wait: Callable[[list[str]], None] = lambda names: None,
    ) -> None:
        self._givens = givens
        self._budget = budget
        self._seal = seal
        self.on_wait = on_wait
        self._nodes: dict[Key, _Node] = {}
        self._lock = threading.Lock()
        self._started: float | None = None
        self._next_telling = 0.0

    @property
    def started(self) -> bool:
        """Whether anything has been set off."""
        return self._started is not None

    def outlast(self, wanted: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Evaluate those of these probes that last on purpose, before the clock of the others starts."""
        lasting = [(name, values) for name, values in wanted if self._lasts(PROBES[name])]
        if not lasting:
            return
        self.start(lasting)
        for name, values in lasting:
            with contextlib.suppress(Exception):  # which the checks are told when they ask
                self.evidence(name, values)
        self._started = None

    def keep(self, earlier: Observations) -> None:
        """Take over what lasted on purpose from an observer of the same target: it is not looked at again."""
        if isinstance(earlier, Observer):
            kept = {key: node for key, node in earlier._nodes.items() if self._lasts(node.probe)}
            self._nodes.update(kept)

    def _lasts(self, made: Probe) -> float:
        return made.lasts(self._givens.get("target"))

    def start(self, wanted: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Set off probes, given as name and axis values, with all that they need."""
        with self._lock:
            if self._started is None:
                self._started = time.monotonic()
                self._next_telling = self._started + PATIENCE
            fresh: list[_Node] = []
            for name, values in wanted:
                self._plan(name, values, fresh)
        for node in fresh:
            threading.Thread(
                target=self._run, args=(node,), name=f"probe {evidence_name(node.key)}", daemon=True
            ).start()

    def _plan(self, name: str, values: Mapping[str, str], fresh: list[_Node]) -> None:
        key = key_of(name, values)
        if key in self._nodes:
            return
        node = self._nodes[key] = _Node(key, PROBES[name])
        for need in node.probe.needs:
            if need in PROBES:
                self._plan(need, values, fresh)
        fresh.append(node)

    def _run(self, node: _Node) -> None:
        values = dict(node.key[1])
        arguments: dict[str, Any] = {}
        absent: dict[str, str] = {}  # the guards of needs that it has to do without, and what those were blocked by
        try:
            for need in node.probe.needs:
                if need in PROBES:
                    needed = self._nodes[key_of(need, values)]
                    try:
                        arguments[need] = self._outcome(needed)
                    except (Failed, NotApplicable) as missing:
                        if need not in node.probe.optional:
                            raise
                        arguments[need] = None
                        if isinstance(missing, Failed):
                            absent[needed.guard()] = missing.guard
                elif need in values:
                    arguments[need] = values[need]
                else:
                    arguments[need] = self._givens[need]
            node.began = time.monotonic()
            value = node.probe.function(**arguments)
            generator: Iterator[Any] | None = None
            if not node.probe.is_client:
                value = self._seal(value)
            elif inspect.isgenerator(value):
                generator = value
                value = next(generator)
            if not node.settle(value, generator=generator) and generator is not None:
                _finish(generator)  # it opened when nobody waited any longer
        except Failed as failure:
            failure.guard = failure.guard or node.guard()
            failure.guard = absent.get(failure.guard, failure.guard)
            node.settle(problem=failure)
        except BaseException as problem:  # noqa: BLE001  # whatever it is, it is told in the main thread
            node.settle(problem=problem)

    def _outcome(self, node: _Node) -> Any:
        """Wait for a node within its deadline and the budget, then its value or its problem."""
        assert self._started is not None
        lasts = self._lasts(node.probe)
        budget_ends = self._started + self._budget + lasts
        in_main_thread = threading.current_thread() is threading.main_thread()
        told = False
        while not node.done.is_set():
            now = time.monotonic()
            expires = node.expires(lasts)
            if now >= budget_ends:
                late = f"no answer within the run's budget of {duration(self._budget)}"
                # What it waits for itself is to blame; that one's guard fails, and this one is blocked by it.
                hanging = self._hanging(node)
                hanging.settle(problem=hanging.failure(late))
                node.settle(problem=hanging.problem or node.failure(late))
            elif expires is not None and now >= expires:
                late = f"no answer within {duration(node.probe.deadline)}"
                node.settle(problem=node.failure(late))
            else:
                if in_main_thread and now >= self._next_telling:
                    self.on_wait(self.running())
                    self._next_telling = now + PATIENCE / 2
                    told = True
                limit = min(budget_ends, expires if expires is not None else now + 0.05)
                if in_main_thread:
                    limit = min(limit, self._next_telling)
                node.done.wait(max(limit - now, 0.001))
        if told:
            self.on_wait([])
        return node.outcome()

    def _hanging(self, node: _Node) -> _Node:
        """The node that keeps this one from coming to an end: itself, or the first of its needs that is not there."""
        for need in node.probe.needs if node.began is None else ():
            if need in PROBES and not (needed := self._nodes[key_of(need, dict(node.key[1]))]).done.is_set():
                return self._hanging(needed)
        return node

    def evidence(self, name: str, values: Mapping[str, str]) -> Any:
        """The evidence of a probe. Raises Failed, NotApplicable, or the exception of a defective probe."""
        key = key_of(name, values)
        if key not in self._nodes:
            self.start([(name, values)])
        return self._outcome(self._nodes[key])

    def running(self) -> list[str]:
        """The names of the probes that are under way."""
        return [evidence_name(node.key) for node in self._nodes.values() if node.began and not node.done.is_set()]

    def collected(self) -> dict[str, Any]:
        """All evidence so far by name."""
        return {name: node.value for name, node in self._told() if node.done.is_set() and node.problem is None}

    def unobserved(self) -> dict[str, Unobserved]:
        """The probes that gave none, by name, with the reason; one that nobody waited for to its end has none."""
        return {name: Unobserved.of(node.problem) for name, node in self._told() if node.problem is not None}

    def _told(self) -> Iterator[tuple[str, _Node]]:
        return ((evidence_name(node.key), node) for node in self._nodes.values() if not node.probe.is_client)

    def timings(self) -> dict[str, float]:
        """How long each finished probe took, in seconds, by name."""
        return {
            evidence_name(node.key): node.ended - node.began
            for node in self._nodes.values()
            if node.began is not None and node.ended is not None
        }

    def close(self, deadline: float = 1.0) -> None:
        """Close the clients, in threads, and wait for them no longer than ``deadline`` seconds altogether."""
        closers = [
            threading.Thread(target=_finish, args=(node.generator,), daemon=True)
            for node in self._nodes.values()
            if node.generator is not None and node.done.is_set()
        ]
        for closer in closers:
            closer.start()
        ends = time.monotonic() + deadline
        for closer in closers:
            closer.join(max(0.0, ends - time.monotonic()))


def _finish(generator: Iterator[Any]) -> None:
    """Let a client close itself. What goes wrong with that is no longer of any consequence."""
    with contextlib.suppress(Exception):
        next(generator, None)
