"""Services of the embedded demo that do not run, or run and do not answer."""

from __future__ import annotations

from collections.abc import Iterator

from tests.beds.embedded import Demo
from tests.faults.fault import fault, steps


@fault(
    root=["service.running[redis]"],
    may=["*"],
    shows=["ended", "exit code 0"],
    mend=steps(0),
)
def redis_stopped(demo: Demo) -> Iterator[None]:
    """Redis was stopped, and nobody started it again."""
    demo.stop("redis")
    yield
