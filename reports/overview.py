"""Several targets at a glance: the worst first, those with the same root cause together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from allodoc_health.run import TargetReport
from allodoc_health.verdict import State

WORST_FIRST = (State.FAILING, State.UNKNOWN, State.WARNING, State.HEALTHY)


STATE_COLOURS: Mapping[State, Mapping[str, bool]] = {
    State.HEALTHY: {"green": True},
    State.WARNING: {"yellow": True},
    State.FAILING: {"red": True},
    State.UNKNOWN: {"red": True},
}


@dataclass(frozen=True, slots=True)
class Group:
    """Targets in one state, because of the same: a root cause where they fail, otherwise nothing that is named."""

    state: State
    cause: str
    targets: tuple[str, ...]


def worst_first(reports: Sequence[TargetReport]) -> list[TargetReport]:
    """The reports by their states, and among those that fail by how many root causes there are."""
    return sorted(
        reports, key=lambda report: (WORST_FIRST.index(report.verdict.state), -len(report.verdict.root_causes))
    )


def overview(reports: Sequence[TargetReport]) -> list[Group]:
    """The groups, the worst first; of those that fail the largest first. A target with two root causes is in two."""
    found: dict[tuple[State, str], list[str]] = {}
    for report in worst_first(reports):
        for cause in report.verdict.root_causes or ("",):
            found.setdefault((report.verdict.state, cause), []).append(report.target.name)
    groups = [Group(state, cause, tuple(targets)) for (state, cause), targets in found.items()]
    return sorted(groups, key=lambda group: (WORST_FIRST.index(group.state), -len(group.targets)))


def overview_lines(reports: Sequence[TargetReport]) -> Iterator[tuple[str, Mapping[str, bool]]]:
    """The groups for the terminal, as lines with their colours, the worst nearest to the end of the screen."""
    yield f"{len(reports)} targets:", {"bold": True}
    for group in reversed(overview(reports)):
        cause = f" {group.cause}" if group.cause else ""
        yield f"  {group.state.value}{cause}: {', '.join(group.targets)}", STATE_COLOURS[group.state]
