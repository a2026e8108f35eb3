"""``python -m tests.checks.causes``: the page of causes, read; and its drawings, drawn anew from its tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.beds.suite import ROOT

PAGE = ROOT / "checks" / "CAUSES.md"

_SECTION = re.compile(r"^(## .+|### .+)$", re.MULTILINE)
_DRAWING = re.compile(r"```mermaid\n(.*?)```\n\n", re.DOTALL)
_ROW = re.compile(r"^\| (`[^|]*?) \| ([^|]*?) \|(?: ([^|]*?))? ?\|$", re.MULTILINE)
_NODE = re.compile(r'^ +(\w+)\["(.+)"\]$', re.MULTILINE)
_FRAME = re.compile(r"^ +subgraph (\w+)\[.*?\]\n(.*?)^ +end$", re.MULTILINE | re.DOTALL)
_ARROWS = re.compile(r"^ +(\w+) --> (.+)$", re.MULTILINE)

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: each of the causes makes each of the symptoms red, for one reason."""

    symptoms: tuple[str, ...]
    causes: tuple[str, ...]
    reason: str

    @property
    def edges(self) -> list[Pair]:
        """Each symptom with each cause, as they are declared."""
        return [(symptom, cause) for symptom in self.symptoms for cause in self.causes]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading of a chapter, with its drawing and the rows of its table."""

    chapter: str
    title: str
    drawing: str
    rows: tuple[Row, ...]


def sections(page: str) -> Iterator[Section]:
    """The sections of the page in their order."""
    chapter = ""
    for heading, text in _parts(page):
        if heading.startswith("## "):
            chapter = heading.removeprefix("## ")
        found = _DRAWING.search(text)
        yield Section(chapter, heading.lstrip("# "), found[1] if found else "", _rows(text))


def _parts(page: str) -> Iterator[tuple[str, str]]:
    pieces = _SECTION.split(page)
    yield from zip(pieces[1::2], pieces[2::2], strict=True)


def _rows(text: str) -> tuple[Row, ...]:
    return tuple(Row(_names(one[1]), _names(one[2]), (one[3] or "").strip()) for one in _ROW.finditer(text))


def _names(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def symptom_id(cause: str) -> str:
    """A declared cause without its condition and its parameter.

    >>> symptom_id("redis: service.running[redis]")
    'service.running'
    """
    return cause.rpartition(": ")[2].partition("[")[0]


def pairs(rows: Iterable[Row]) -> set[Pair]:
    """The arrows that belong to rows, from cause to symptom; none from a symptom to itself under another parameter."""
    found = {(symptom_id(cause), symptom) for row in rows for symptom, cause in row.edges}
    return {(cause, symptom) for cause, symptom in found if cause != symptom}


def arrows(drawing: str) -> set[Pair]:
    """The arrows of a drawing, from each symptom in the box where they begin to each in the box where they end."""
    boxes = {name: label.split("<br>") for name, label in _NODE.findall(drawing)}
    for name, inside in _FRAME.findall(drawing):
        boxes[name] = [symptom for _, label in _NODE.findall(inside) for symptom in label.split("<br>")]
    return {
        (cause, symptom)
        for begin, ends in _ARROWS.findall(drawing)
        for end in ends.split(" & ")
        for cause in boxes[begin]
        for symptom in boxes[end]
    }


def draw(rows: Sequence[Row]) -> str:
    """A flowchart of rows: their symptoms, and a box for the causes of each row that are none of these symptoms.

    Symptoms that mostly go together have a frame, so that one arrow leads to all of them.
    """
    effects = dict.fromkeys(symptom for row in rows for symptom in row.symptoms)
    frames = _frames(rows)
    boxes: dict[tuple[str, ...], str] = {(effect,): _node(effect) for effect in effects}
    drawn: dict[str, dict[str, None]] = {}
    for row in rows:
        causes = dict.fromkeys(symptom_id(cause) for cause in row.causes)
        others = tuple(cause for cause in causes if cause not in effects)
        for box in [*((cause,) for cause in causes if cause in effects), *([others] if others else [])]:
            begin = boxes.setdefault(box, _node(box[0]) if len(box) == 1 else f"box{len(boxes)}")
            ends = [frames[row.symptoms]] if row.symptoms in frames and box[0] not in row.symptoms else row.symptoms
            drawn.setdefault(begin, {}).update(dict.fromkeys(_node(end) for end in ends if (end,) != box))
    lines = []
    for members, name in frames.items():
        lines += [f'  subgraph {name}[" "]', *(f'    {_node(one)}["{one}"]' for one in members), "  end"]
    framed = {member for members in frames for member in members}
    lines += [f'  {name}["{"<br>".join(box)}"]' for box, name in boxes.items() if box[0] not in framed]
    lines += [f"  {begin} --> {' & '.join(ends)}" for begin, ends in drawn.items() if ends]
    return "\n".join(["flowchart LR", *lines, ""])


def _frames(rows: Sequence[Row]) -> dict[tuple[str, ...], str]:
    """The groups of symptoms that most rows name, none of which shares a symptom with another."""
    frames: dict[tuple[str, ...], str] = {}
    counted = Counter(row.symptoms for row in rows if len(row.symptoms) > 1)
    for group, _ in counted.most_common():
        if not any(set(group) & set(other) for other in frames):
            frames[group] = f"frame{len(frames)}"
    return frames


def _node(symptom: str) -> str:
    return re.sub(r"\W", "_", symptom)


def redrawn(page: str) -> str:
    """The page with a drawing of each table, in front of it."""
    text = _SECTION.split(page)[0]
    for heading, part in _parts(page):
        bare, rows = _DRAWING.sub("", part), _rows(part)
        text += heading + (f"\n\n```mermaid\n{draw(rows)}```{bare}" if rows else bare)
    return text


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text("utf-8")), "utf-8")
