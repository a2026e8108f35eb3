"""Remedies: the sections of ``guide/*.md``, read as data and filled in with a target's real names.

A chapter is readable on its own. Its sections look like this::

    # Database issues

    Usual time to resolve: 10–30 min

    ## Connection pool exhaustion

    Symptoms: `db.connection-headroom`, `db.pool-size-fits`

    What it means, in a paragraph or two.

    ### Look

    1. See who holds them:

       ```sh
       {{ psql("SELECT …") }}
       ```

    ### Mend

    1. End the sessions that idle in a transaction:

       Caution: what they did so far is rolled back.

       ```sh
       {{ psql("…") }}
       ```

    ### Escalate

    When …

A symptom that ends in ``/variant`` picks the section for one way to fail: `` `db.login/bad-password` ``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "guide"


class GuideError(Exception):
    """A chapter of the guide is not written as remedies are; the text names file and section."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: why, a caution if one is due, and the commands, each a line or several to paste."""

    text: str
    caution: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a failing check prints. ``look`` only reads, ``mend`` changes things."""

    anchor: str
    title: str
    symptoms: tuple[str, ...]
    meaning: str
    look: tuple[Step, ...]
    mend: tuple[Step, ...]
    usual_time: str
    escalate: str


def slug(title: str) -> str:
    """The anchor of a heading, as Markdown viewers make it.

    >>> slug("Port 5432 can't be reached")
    'port-5432-cant-be-reached'
    """
    return re.sub(r"[^\w]+", "-", re.sub(r"['’]", "", title.lower())).strip("-")


def load_guide(folder: Path | None = None) -> Mapping[str, Remedy]:
    """All remedies of the guide by symptom (``id`` or ``id/variant``), their commands still templates.

    Raises GuideError for a section without symptoms, without anything to look at, or with a symptom that another has.
    """
    return _by_symptom(_texts(folder or FOLDER))


def remedy_for(symptom: str, variant: str = "", folder: Path | None = None) -> Remedy | None:
    """The remedy for one way to fail, or the symptom's general one; ``None`` if the guide has neither.

    Only chapters that mention the symptom are read: parsing the whole guide takes longer than a check does.
    """
    mentioning = {path: text for path, text in _texts(folder or FOLDER).items() if f"`{symptom}" in text}
    guide = _by_symptom(mentioning)
    return guide.get(f"{symptom}/{variant}") or guide.get(symptom)


@cache
def _texts(folder: Path) -> Mapping[Path, str]:
    texts: dict[Path, str] = {}
    for path in sorted(folder.glob("*.md")):
        try:
            texts[path] = path.read_text("utf-8-sig")
        except (OSError, UnicodeError) as error:
            raise GuideError(f"{path.name}: can't be read: {error}") from error
    return texts


def _by_symptom(chapters: Mapping[Path, str]) -> Mapping[str, Remedy]:
    remedies: dict[str, Remedy] = {}
    for path, text in chapters.items():
        for remedy in _read_chapter(path, text):
            for name in remedy.symptoms:
                if name in remedies:
                    raise GuideError(f"{remedy.anchor}: {name} already has a remedy: {remedies[name].anchor}")
                remedies[name] = remedy
    return remedies


@cache
def _read_chapter(path: Path, text: str) -> list[Remedy]:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt().parse(text)
    usual_time = ""
    remedies: list[Remedy] = []
    section: dict[str, Any] = {}
    part = "meaning"
    step: dict[str, Any] | None = None

    def close() -> None:
        if section:
            remedies.append(_finish(path, section, usual_time))

    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.type == "heading_open":
            title = tokens[index + 1].content
            if token.tag == "h2":
                close()
                section = {"title": title, "meaning": [], "symptoms": (), "look": [], "mend": [], "escalate": []}
                part, step = "meaning", None
            elif token.tag == "h3":
                part, step = title.lower(), None
                if part not in ("look", "mend", "escalate"):
                    raise GuideError(
                        f"{path.name}: {section.get('title')}: unknown part {title!r}: Look, Mend or Escalate"
                    )
            index += 3
            continue
        if token.type == "list_item_open" and section and part in ("look", "mend"):
            step = {"text": [], "caution": "", "commands": []}
            section[part].append(step)
        elif token.type == "inline":
            text = " ".join(token.content.split())
            if text.startswith("Usual time to resolve:"):
                value = text.partition(":")[2].strip()
                if section:
                    section["usual_time"] = value
                else:
                    usual_time = value
            elif section and text.startswith("Symptoms:"):
                section["symptoms"] = tuple(re.findall(r"`([^`]+)`", text))
            elif section and part in ("look", "mend"):
                if step is None:
                    raise GuideError(
                        f"{path.name}: {section['title']}: text outside a numbered step under {part}: {text!r}"
                    )
                if text.startswith("Caution:"):
                    step["caution"] = text.partition(":")[2].strip()
                else:
                    step["text"].append(text)
            elif section:
                section[part].append(text)
        elif token.type == "fence" and section:
            if step is None:
                raise GuideError(f"{path.name}: {section['title']}: commands outside a numbered step")
            step["commands"].append(token.content.rstrip("\n"))
        index += 1
    close()
    return remedies


def _finish(path: Path, section: dict[str, Any], usual_time: str) -> Remedy:
    anchor = f"guide/{path.name}#{slug(section['title'])}"
    for name in ("symptoms", "meaning", "look"):
        if not section[name]:
            raise GuideError(f"{anchor}: has no {name}")

    def steps(name: str) -> tuple[Step, ...]:
        return tuple(Step(" ".join(s["text"]), s["caution"], tuple(s["commands"])) for s in section[name])

    return Remedy(
        anchor=anchor,
        title=section["title"],
        symptoms=section["symptoms"],
        meaning="\n\n".join(section["meaning"]),
        look=steps("look"),
        mend=steps("mend"),
        usual_time=section.get("usual_time", usual_time),
        escalate=" ".join(section["escalate"]),
    )


def render(remedy: Remedy, words: Mapping[str, Any], seal: Callable[[str], str] = str) -> Remedy:
    """The remedy with its templates filled in. ``words`` are the names that templates may use.

    ``seal`` redacts what is filled in. The guide's own words have no secret, though they may look like one
    (``password: someone``). Raises GuideError for a template that doesn't compile or names what does not exist.
    """
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # shell commands, not HTML: each output escapes for itself
        finalize=lambda word: seal(word) if isinstance(word, str) else word,
    )

    def fill(text: str) -> str:
        if "{{" not in text and "{%" not in text:
            return text
        try:
            return environment.from_string(text).render(words)
        except jinja2.TemplateError as error:
            raise GuideError(f"{remedy.anchor}: {error} in {text!r}") from error

    def steps(given: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(Step(fill(s.text), fill(s.caution), tuple(fill(c) for c in s.commands)) for s in given)

    return Remedy(
        anchor=remedy.anchor,
        title=remedy.title,
        symptoms=remedy.symptoms,
        meaning=fill(remedy.meaning),
        look=steps(remedy.look),
        mend=steps(remedy.mend),
        usual_time=remedy.usual_time,
        escalate=fill(remedy.escalate),
    )
