"""One fault: how it is made, what has to be named for it, what may go red with it, and what mends it.

An entry is a generator function on a bed, in tests/faults/embedded/ or tests/faults/docker/. Its name is the fault's,
its docstring says what happened, what stands before ``yield`` makes it so, and what stands after undoes what the bed
does not undo by itself::

    @fault(root=["service.running[redis]"], follows=["service.health-endpoint[*]"], may=["service.log-errors[*]"])
    def redis_stopped(demo: Demo) -> Iterator[None]:
        \"\"\"Redis was stopped, and nobody started it again.\"\"\"
        demo.stop("redis")
        yield

Where a remedy asks for something before its commands, such as the right line in a file, the entry yields a function
that does it, and it is called before them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

BEDS = {"embedded": "demo", "docker": "stack"}
"""The folders of entries, and the fixture of the bed that theirs are made on."""

Injection = Callable[..., Iterator[Callable[[], object] | None]]


@dataclass(frozen=True)
class Exempt:
    """Why no test runs the commands that mend a fault."""

    reason: str


@dataclass(frozen=True)
class Steps:
    """Which of a remedy's mending steps mend this fault, counted from 0: the others are for other causes of it."""

    numbers: tuple[int, ...]


def steps(*numbers: int) -> Steps:
    """The mending steps that mend this fault, counted from 0."""
    return Steps(numbers)


Mend = Steps | Exempt


@dataclass(frozen=True)
class Fault:
    """An entry of the catalogue.

    ``root`` are the names that the verdict has to give as root causes, no more and no fewer; a pattern where the name
    holds a port or a host of the bed. ``warns`` must warn: some faults are no more than that, and then there is no root
    cause. ``follows`` must be red, too, explained by them. ``may`` are patterns (``fnmatch``) of what may fail, or be
    blocked, as a consequence. ``shows`` are texts that have to stand in the evidence of a root cause or warning,
    ``looks`` texts that its look commands have to print. ``limits`` is added to the target file. ``missed`` says why
    the verdict is known to be wrong.
    """

    name: str
    title: str
    bed: str
    inject: Injection
    fixtures: tuple[str, ...]
    root: tuple[str, ...]
    warns: tuple[str, ...]
    follows: tuple[str, ...]
    may: tuple[str, ...]
    shows: tuple[str, ...]
    looks: tuple[str, ...]
    mend: Mapping[str, Mend]
    limits: str
    discovered: bool
    missed: str


FAULTS: dict[str, Fault] = {}
"""Every fault by bed and name (``embedded/redis-stopped``). Filled when the modules that define them are imported."""


def fault(
    *,
    root: Sequence[str] = (),
    warns: Sequence[str] = (),
    follows: Sequence[str] = (),
    may: Sequence[str] = (),
    shows: Sequence[str] = (),
    looks: Sequence[str] = (),
    mend: Mend | Mapping[str, Mend],
    limits: str = "",
    discovered: bool = False,
    missed: str = "",
) -> Callable[[Injection], Injection]:
    """Make a generator function an entry of the catalogue; see :class:`Fault`.

    ``mend`` is for the remedy of every root cause and warning, or by their names. ``discovered``: the suite is given
    no target file.
    """

    def define(function: Injection) -> Injection:
        fixtures = tuple(inspect.signature(function).parameters)
        bed = function.__module__.split(".")[-2]
        name = function.__name__.replace("_", "-")
        if f"{bed}/{name}" in FAULTS:
            raise ValueError(f"two faults are called {bed}/{name}")
        FAULTS[f"{bed}/{name}"] = Fault(
            name=name,
            title=inspect.getdoc(function) or "",
            bed=bed,
            inject=function,
            fixtures=fixtures,
            root=tuple(root),
            warns=tuple(warns),
            follows=tuple(follows),
            may=tuple(may),
            shows=tuple(shows),
            looks=tuple(looks),
            mend=mend if isinstance(mend, Mapping) else dict.fromkeys((*root, *warns), mend),
            limits=limits,
            discovered=discovered,
            missed=missed,
        )
        return function

    return define
