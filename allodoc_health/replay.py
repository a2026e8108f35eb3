"""``--replay``: a run told again from its snapshot, with today's checks, limits and remedies. Nothing is touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from allodoc_health.finding import NotApplicable
from allodoc_health.probe import PROBES, Observations, Unobserved, evidence_name, key_of
from allodoc_health.run import SCHEMA, digest_of
from allodoc_health.runtimes.interface import OperatorWords
from allodoc_health.target import Target, TargetError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from allodoc_health.snapshot import Snapshot


class SnapshotError(TargetError):
    """A file that can't be replayed or compared with; the text names it and says what is wrong."""


def read_snapshot(path: Path) -> Snapshot:
    """A snapshot, whole and as it was written.

    Raises SnapshotError if it can't be read, is damaged, or is of a format that this version does not know.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SnapshotError(f"{path}: can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"{path}: damaged, or no snapshot at all: {error}") from None
    form = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(form, str) or not form.startswith(SCHEMA.partition("/")[0]):
        raise SnapshotError(f"{path}: no snapshot of this suite: its schema is {form!r}, not {SCHEMA!r}")
    if form != SCHEMA:
        raise SnapshotError(f"{path}: a snapshot of the format {form}; this version reads {SCHEMA}")
    if content.get("digest") != digest_of(content):
        raise SnapshotError(f"{path}: damaged, or changed since it was written: its digest does not fit its content")
    from pydantic import ValidationError

    from allodoc_health.snapshot import Snapshot

    try:
        return Snapshot.model_validate(content)
    except ValidationError as error:
        raise SnapshotError(f"{path}: not as this version writes snapshots: {_first(error)}") from None


def recorded_words(operator: Mapping[str, Any], path: Path) -> OperatorWords:
    """How an operator of the recorded target types an action. Raises SnapshotError."""
    from pydantic import TypeAdapter, ValidationError

    kind = operator.get("kind")
    try:
        if kind == "docker":
            from allodoc_health.runtimes.docker_engine import DockerWords

            return TypeAdapter(DockerWords).validate_python(operator)
        if kind == "supervisor":
            from allodoc_health.runtimes.process_supervisor import SupervisorWords

            return TypeAdapter(SupervisorWords).validate_python(operator)
    except ValidationError as error:
        raise SnapshotError(f"{path}: the words of its operator: {_first(error)}") from None
    raise SnapshotError(f"{path}: written for a runtime {kind!r}; this version knows docker and supervisor")


@dataclass(frozen=True)
class Recording:
    """A run that can be told again: its target as it was then, and what was observed."""

    path: Path
    target: Target
    words: OperatorWords
    evidence: Mapping[str, Any]
    unobserved: Mapping[str, Unobserved]
    timings: Mapping[str, float]
    outage_since: datetime | None

    @classmethod
    def read(cls, path: Path) -> Recording:
        """The recording in a snapshot. Raises SnapshotError."""
        from pydantic import ValidationError

        snapshot = read_snapshot(path)
        try:
            target = Target.model_validate(snapshot.target_settings)
        except ValidationError as error:
            raise SnapshotError(f"{path}: its target: {_first(error)}") from None
        return cls(
            path=path,
            target=target,
            words=recorded_words(snapshot.operator, path),
            evidence=snapshot.evidence,
            unobserved=snapshot.unobserved,
            timings=snapshot.timings,
            outage_since=snapshot.verdict.outage_since,
        )


class Replay:
    """The evidence of a recording, in the types that today's checks expect."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._read: dict[str, Any] = {}
        self.started = False
        self.on_wait: Callable[[list[str]], None] = lambda names: None

    def keep(self, earlier: Observations) -> None:
        """What was recorded is all there is."""

    def outlast(self, wanted: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """What lasted is over."""

    def start(self, wanted: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Read what these probes recorded. Raises SnapshotError where a piece is not what its checks expect."""
        from pydantic import ValidationError

        self.started = True
        for probe, values in wanted:
            name = evidence_name(key_of(probe, values))
            if name in self._read or name not in self._recording.evidence:
                continue
            try:
                self._read[name] = _type_of(probe).validate_python(self._recording.evidence[name])
            except ValidationError as error:
                raise SnapshotError(
                    f"{self._recording.path}: the evidence {name!r} is not as this version's checks expect it: "
                    f"{_first(error)}; replay it with the version that made it"
                ) from None

    def evidence(self, name: str, values: Mapping[str, str]) -> Any:
        """The evidence of a probe. Raises what the probe raised then, NotApplicable where it was not asked."""
        recorded = evidence_name(key_of(name, values))
        if recorded in self._recording.unobserved:
            raise self._recording.unobserved[recorded].problem()
        if recorded not in self._recording.evidence:
            raise NotApplicable(f"its evidence was not collected: the snapshot has no {recorded}")
        if recorded not in self._read:
            self.start([(name, values)])
        return self._read[recorded]

    def running(self) -> list[str]:
        """Nothing runs."""
        return []

    def collected(self) -> Mapping[str, Any]:
        """All that was recorded, so that a snapshot of a replay can be replayed, too."""
        return self._recording.evidence

    def unobserved(self) -> Mapping[str, Unobserved]:
        """The probes that gave no evidence then."""
        return self._recording.unobserved

    def timings(self) -> Mapping[str, float]:
        """How long the probes took then, in seconds."""
        return self._recording.timings

    def close(self) -> None:
        """Nothing to let go of."""


@cache
def _type_of(probe: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(get_type_hints(PROBES[probe].function)["return"])


def _first(error: Any) -> str:
    """The first of a validation's errors in one line, without the value, which may be anything."""
    problem = error.errors(include_url=False, include_input=False)[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}{more}"
