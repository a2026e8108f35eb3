"""Judges what the suite said of a fault, from the JSON snapshot alone, and adds up how often it was right."""

from __future__ import annotations

import csv
import graphlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from pydantic import TypeAdapter

from tests.beds.suite import Run
from tests.faults.fault import Exempt, Fault


@dataclass(frozen=True)
class Judgement:
    """How one fault was told. ``seconds`` is what the whole run took, ``mended`` how its remedy fared, or why not."""

    bed: str
    name: str
    expected: tuple[str, ...]
    warns: tuple[str, ...]
    named: tuple[str, ...]
    missed: tuple[str, ...]
    wrong: tuple[str, ...]
    unexplained: tuple[str, ...]
    absent: tuple[str, ...]
    calm: tuple[str, ...]
    unproven: tuple[str, ...]
    circular: tuple[str, ...]
    seconds: float
    mended: str = ""

    @property
    def flawless(self) -> bool:
        """Whether every root cause was named, no other, with the evidence for it, and nothing unrelated went red."""
        return not (
            self.missed or self.wrong or self.unexplained or self.absent or self.calm or self.unproven or self.circular
        )

    @property
    def problems(self) -> str:
        """What was wrong with it, in words; empty when nothing was."""
        told = {
            "not named": self.missed,
            "named wrongly": self.wrong,
            "unrelated and red": self.unexplained,
            "expected red": self.absent,
            "expected to warn": self.calm,
            "not shown": self.unproven,
            "explains itself": self.circular,
        }
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in told.items() if names)


def judge(fault: Fault, run: Run) -> Judgement:
    """Compare a run of the whole suite with what the fault's entry expects of it."""
    named = tuple(run.root_causes)
    red = run.names("fail", "blocked")
    allowed = (*fault.root, *fault.follows, *fault.may)
    evidence = "\n".join(
        "\n".join((finding["message"], *finding["details"]))
        for finding in (run.finding(name) for name in told(fault, run))
    )
    return Judgement(
        bed=fault.bed,
        name=fault.name,
        expected=fault.root,
        warns=fault.warns,
        named=named,
        missed=tuple(root for root in fault.root if not any(fits(name, root) for name in named)),
        wrong=tuple(name for name in named if not any(fits(name, root) for root in fault.root)),
        unexplained=tuple(sorted(name for name in red if not any(fits(name, pattern) for pattern in allowed))),
        absent=tuple(name for name in fault.follows if not any(fits(one, name) for one in red)),
        calm=tuple(name for name in fault.warns if not any(fits(one, name) for one in run.names("warn"))),
        unproven=tuple(text for text in fault.shows if text not in evidence),
        circular=circle(run),
        seconds=run.seconds,
        mended="; ".join(dict.fromkeys(mend.reason for mend in fault.mend.values() if isinstance(mend, Exempt))),
    )


def to_json(judgement: Judgement) -> str:
    """A judgement as JSON."""
    return json.dumps(asdict(judgement))


def from_json(text: str) -> Judgement:
    """The judgement that was written as this JSON."""
    return TypeAdapter(Judgement).validate_json(text)


def circle(run: Run) -> tuple[str, ...]:
    """Findings that explain one another in a circle; there must be none."""
    causes = {name: run.finding(name)["caused_by"] for name in run.names("fail")}
    try:
        graphlib.TopologicalSorter(causes).prepare()
    except graphlib.CycleError as error:
        return tuple(error.args[1])
    return ()


def told(fault: Fault, run: Run) -> dict[str, str]:
    """The findings that a run tells of a fault, root causes and warnings, and how the entry calls each."""
    found = [(name, fault.root) for name in run.root_causes]
    found += [(name, fault.warns) for name in sorted(run.names("warn"))]
    return {name: called for name, callings in found for called in callings if fits(name, called)}


def fits(name: str, pattern: str) -> bool:
    """Whether a finding's name is this one, or is one of these."""
    # The brackets of a name are no character class.
    return name == pattern or fnmatchcase(name, pattern.replace("[", "[[]"))


@dataclass(frozen=True)
class Score:
    """Recall: the part of the root causes that was named. Precision: the part of the named ones that was right."""

    expected: int
    named: int
    right: int

    @property
    def recall(self) -> float:
        """Between 0 and 1."""
        return self.right / self.expected if self.expected else 1.0

    @property
    def precision(self) -> float:
        """Between 0 and 1."""
        return self.right / self.named if self.named else 1.0


def score(judgements: Sequence[Judgement]) -> Score:
    """The figures over several faults."""
    expected = sum(len(one.expected) for one in judgements)
    right = expected - sum(len(one.missed) for one in judgements)
    # An entry's pattern may stand for several names of one cause, such as the hosts of one certificate.
    return Score(expected=expected, named=right + sum(len(one.wrong) for one in judgements), right=right)


HEADER = ("bed", "fault", "root cause", "named", "seconds", "remedy", "problems")


def rows(judgements: Sequence[Judgement]) -> list[tuple[str, ...]]:
    """The table, a row for each fault."""
    return [
        (
            one.bed,
            one.name,
            ", ".join(one.expected or [f"none ({', '.join(one.warns)} warns)"]),
            "yes" if not one.missed and not one.wrong and not one.calm else ", ".join(one.named) or "nothing",
            f"{one.seconds:.1f}",
            one.mended,
            one.problems,
        )
        for one in judgements
    ]


def as_csv(judgements: Sequence[Judgement]) -> str:
    """The table as comma-separated values, with a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows(judgements)])
    return text.getvalue()


def summary(judgements: Sequence[Judgement]) -> str:
    """The two figures in a line."""
    figures = score(judgements)
    slowest = max((one.seconds for one in judgements), default=0.0)
    return (
        f"{len(judgements)} faults: recall {figures.recall:.1%} ({figures.right} of {figures.expected} root causes "
        f"named), precision {figures.precision:.1%} ({figures.right} of {figures.named} named were right), "
        f"slowest verdict {slowest:.1f} s"
    )
