"""Several processes: how checks spread over the workers of pytest-xdist.

All checks of one target go to one worker. What is observed there is observed once, and PostgreSQL sees one connection
of ours, however many workers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any


def target_of(nodeid: str, targets: Sequence[str], folders: Sequence[str]) -> str | None:
    """The target that a node id is about, or ``None`` if it is no check's.

    >>> target_of("checks/db/test_port.py::test_it[prod-postgres]", ["demo", "prod"], ["checks"])
    'prod'
    >>> target_of("checks/db/test_port.py::test_it[postgres]", ["prod"], ["checks"])
    'prod'
    >>> target_of("tests/test_finding.py::test_it", ["prod"], ["checks"])
    """
    path, _, rest = nodeid.partition("::")
    if not any(PurePosixPath(path).is_relative_to(folder) for folder in folders):
        return None
    if len(targets) == 1:
        return targets[0]
    parameters = rest.partition("[")[2].removesuffix("]")
    fitting = [name for name in targets if parameters == name or parameters.startswith(f"{name}-")]
    return max(fitting, key=len, default=None)


def make_scheduler(config: Any, log: Any, scope_of: Callable[[str], str | None]) -> Any:
    """A scheduler of pytest-xdist that gives all tests of one scope to one worker, and the rest where there is room."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    # Not xdist's loadgroup: that writes the group into the node ids for all to see, and no longer can with pytest 9.2.
    class TargetScheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist publishes no types
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid) or nodeid

    return TargetScheduling(config, log)
