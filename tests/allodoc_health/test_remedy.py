"""Remedies: how a chapter is read, and that the guide's own chapters are whole."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from allodoc_health.catalogue import Entry, read_catalogue, split_name
from allodoc_health.inspection import complete
from allodoc_health.probe import AXES, PROBES, axes_of
from allodoc_health.redaction import Redactor
from allodoc_health.remedy import GuideError, Remedy, Step, load_guide, remedy_for, render
from allodoc_health.runtimes.docker_engine import DockerWords
from allodoc_health.runtimes.interface import OperatorWords
from allodoc_health.runtimes.process_supervisor import SupervisorWords
from allodoc_health.target import ROLES, Target, TargetSettings
from allodoc_health.words import vocabulary
from tests.beds.suite import ROOT

CHAPTER = """
# Database issues

Usual time to resolve: 10–30 min

## The pool is exhausted

Symptoms: `db.connection-headroom`, `db.pool-size-fits/too-big`

All slots are taken.

Nobody gets in.

### Look

1. See who holds them,
   and since when:

   ```sh
   {{ psql("SELECT 1") }}
   ```

   ```sh
   {{ logs("backend") }}
   ```

2. Think.

### Mend

1. End session {{ fact("pid", "PID") }}:

   Caution: what it did so far
   is rolled back.

   ```sh
   {{ restart("backend") }}
   ```

### Escalate

After an hour,
to the administrator.

## Another

Symptoms: `db.port`

Usual time to resolve: 1 min

Closed.

### Look

1. Look.
"""


def write(folder: Path, text: str, name: str = "database.md") -> Path:
    """Write a chapter into a folder of its own."""
    (folder / name).write_text(textwrap.dedent(text), "utf-8")
    return folder


def test_a_chapter_is_read_as_data(tmp_path: Path) -> None:
    """Every part of a section arrives: meaning, steps with their commands and cautions, times, escalation."""
    guide = load_guide(write(tmp_path, CHAPTER))
    assert guide["db.connection-headroom"] == Remedy(
        anchor="guide/database.md#the-pool-is-exhausted",
        title="The pool is exhausted",
        symptoms=("db.connection-headroom", "db.pool-size-fits/too-big"),
        meaning="All slots are taken.\n\nNobody gets in.",
        look=(
            Step("See who holds them, and since when:", "", ('{{ psql("SELECT 1") }}', '{{ logs("backend") }}')),
            Step("Think.", "", ()),
        ),
        mend=(
            Step(
                'End session {{ fact("pid", "PID") }}:',
                "what it did so far is rolled back.",
                ('{{ restart("backend") }}',),
            ),
        ),
        usual_time="10–30 min",
        escalate="After an hour, to the administrator.",
    )
    assert guide["db.port"].usual_time == "1 min"


def test_a_way_to_fail_has_its_own_remedy_or_the_general_one(tmp_path: Path) -> None:
    """A variant picks its section; one without goes to the symptom's; a symptom without has none."""
    folder = write(tmp_path, CHAPTER)
    assert remedy_for("db.pool-size-fits", "too-big", folder) is remedy_for("db.connection-headroom", folder=folder)
    assert remedy_for("db.port", "filtered", folder) is remedy_for("db.port", folder=folder)
    assert remedy_for("db.pool-size-fits", "", folder) is None


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("Symptoms: `db.port`\n", "", "#another: has no symptoms"),
        ("Closed.\n", "", "#another: has no meaning"),
        ("1. Look.\n", "", "#another: has no look"),
        ("### Look\n\n1. Look.", "### Watch\n\n1. Look.", "Another: unknown part 'Watch': Look, Mend or Escalate"),
        ("1. Look.", "Look.", "Another: text outside a numbered step under look: 'Look.'"),
        ("1. Look.", "```sh\nls\n```", "Another: commands outside a numbered step"),
        ("`db.port`", "`db.connection-headroom`", "db.connection-headroom already has a remedy"),
    ],
)
def test_a_section_that_is_not_written_as_one_is_refused(tmp_path: Path, wrong: str, right: str, told: str) -> None:
    """The error names the section and what it lacks."""
    assert wrong in CHAPTER
    with pytest.raises(GuideError) as caught:
        load_guide(write(tmp_path, CHAPTER.replace(wrong, right)))
    assert told in str(caught.value)


def test_a_symptom_has_one_remedy_in_all_chapters(tmp_path: Path) -> None:
    """Two chapters can't both have it."""
    write(tmp_path, CHAPTER)
    with pytest.raises(GuideError, match="already has a remedy"):
        load_guide(write(tmp_path, CHAPTER, name="service.md"))


def a_target(**services: dict[str, str]) -> Target:
    """A target with these services."""
    return complete(TargetSettings.model_validate({"services": services}), "prod", "test", {}, {})


def docker_words() -> DockerWords:
    """How an operator speaks to Docker."""
    return DockerWords({role: f"allodoc_{role}_prod" for role in ROLES})


def test_templates_take_the_targets_names(tmp_path: Path) -> None:
    """Commands have the real names; a fact that is missing has its stand-in."""
    words = vocabulary(a_target(postgres={"user": "api", "database": "clinic"}), docker_words())
    rendered = render(load_guide(write(tmp_path, CHAPTER))["db.connection-headroom"], words)
    assert rendered.look[0].commands == (
        'docker exec allodoc_postgres_prod psql -X -U api -d clinic -c "SELECT 1"',
        "docker logs --since 10m allodoc_backend_prod 2>&1",
    )
    assert rendered.mend[0].text == "End session PID:"


@pytest.mark.parametrize(
    ("template", "told"),
    [("{{ psqll('x') }}", "'psqll' is undefined"), ("{{ psql('x' }}", "unexpected '}'"), ("{% if %}", "Expected")],
)
def test_a_template_that_cannot_be_filled_in_names_its_section(tmp_path: Path, template: str, told: str) -> None:
    """The error names the section and the template."""
    folder = write(tmp_path, CHAPTER.replace('{{ restart("backend") }}', template))
    with pytest.raises(GuideError, match=r"guide/database.md#the-pool-is-exhausted") as caught:
        render(load_guide(folder)["db.connection-headroom"], vocabulary(a_target(), docker_words()))
    assert told in str(caught.value)


# -- the guide of this repository --------------------------------------------------------------------

CATALOGUE = read_catalogue([ROOT / "checks"])
SECTIONS = list({remedy.anchor: remedy for remedy in load_guide().values()}.values())


def test_every_symptom_has_a_remedy() -> None:
    """Whatever fails, there is something to do: in general, or for each way to fail."""
    assert not CATALOGUE.keys() - {name.partition("/")[0] for name in load_guide()}


def test_every_remedy_is_for_a_symptom() -> None:
    """A section that nothing points to is of no use."""
    assert not {name.partition("/")[0] for name in load_guide()} - CATALOGUE.keys()


def test_every_variant_is_a_way_to_fail() -> None:
    """A section for one way to fail is for one that there is."""
    said = _literals()
    assert not [name for name in load_guide() if "/" in name and name.partition("/")[2] not in said]


def test_every_remedy_tells_how_long_it_usually_takes() -> None:
    """The usual time to resolve, of the section or of its chapter."""
    assert not [remedy.anchor for remedy in SECTIONS if not remedy.usual_time]


def _literals() -> set[str]:
    """Every string that is written out in checks, fixtures and runtimes."""
    found: set[str] = set()
    for folder in ("checks", "fixtures", "allodoc_health/runtimes"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


def _parameters(entry: Entry) -> list[str]:
    """What can stand in the brackets of a symptom's name: roles for a service, else anything."""
    axes = {argument for argument in entry.arguments if argument in AXES}
    for argument in entry.arguments:
        if argument in PROBES:
            axes |= axes_of(PROBES[argument])
    if not axes:
        return ["", "patients"]
    target = a_target(**{role: {} for role in ROLES})
    return [
        value for axis in sorted(axes) for value in AXES[axis](target) if not entry.only or value in entry.only
    ] or ["443"]


def _rendered(operator: OperatorWords, target: Target) -> Iterator[tuple[str, Remedy]]:
    for name, remedy in load_guide().items():
        symptom, _ = split_name(name.partition("/")[0])
        if symptom in CATALOGUE:
            for parameter in _parameters(CATALOGUE[symptom]):
                words = vocabulary(target, operator, {"parameter": parameter})
                yield f"{name}[{parameter}]", render(remedy, words)


OPERATORS: Mapping[str, OperatorWords] = {
    "docker": docker_words(),
    "supervisor": SupervisorWords(Path("/tmp/a demo"), python="python"),
}
TARGETS = {
    "known": a_target(**{role: {"container": f"allodoc_{role}_prod"} for role in ROLES}),
    "unknown": a_target(),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_command_can_be_pasted(operator: str, target: str, tmp_path: Path) -> None:
    """Every template renders for every runtime and parameter with all facts missing, into what a shell can read."""
    script = []
    for name, remedy in _rendered(OPERATORS[operator], TARGETS[target]):
        for step in (*remedy.look, *remedy.mend):
            for text in (step.text, step.caution, *step.commands):
                assert not re.search(r"\bNone\b|Undefined", text), f"{name}: {text}"
            for command in step.commands:
                assert command.strip(), f"{name}: an empty command under {step.text!r}"
                script.append(f": {shlex.quote(name)}\n{command}\n")
    path = tmp_path / "commands.sh"
    path.write_text("\n".join(script), "utf-8")
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CHANGES = re.compile(
    r"(?:^|[\s;&|(])(?:restart|stop|start|unpause|recreate|rm|mv|kill|chmod|chown|truncate|up -d)(?:[\s(]|$)"
    r"|pg_terminate_backend|pg_cancel_backend|\b(?:ALTER|DELETE|UPDATE|DROP|INSERT|TRUNCATE|VACUUM|REINDEX|CREATE"
    r"|FLUSHALL|FLUSHDB|CONFIG SET)\b"
)


def test_looking_changes_nothing() -> None:
    """What changes things stands under Mend, where the cautions are."""
    commands = [(remedy.anchor, command) for remedy in SECTIONS for step in remedy.look for command in step.commands]
    assert commands
    assert not [f"{anchor}: {command}" for anchor, command in commands if CHANGES.search(command)]


def test_only_what_is_filled_in_is_redacted(tmp_path: Path) -> None:
    """The guide's own words stay as they are, though they look like a secret; a value that is one does not."""
    chapter = CHAPTER.replace("See who holds them", "Tell nobody the password: someone may hear")
    words = {**vocabulary(a_target(), docker_words()), "psql": lambda sql, **_: f"password={sql}"}
    rendered = render(load_guide(write(tmp_path, chapter))["db.connection-headroom"], words, Redactor().text)
    assert "the password: someone may hear" in rendered.look[0].text
    assert "SELECT" not in rendered.look[0].commands[0]
