"""The catalogue of symptoms, read from the source of the checks without importing them; and the options that show it.

``pytest --symptoms`` lists it, ``pytest --explain db.login`` prints the remedy of one of them for a target.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from allodoc_health.finding import Severity
from allodoc_health.probe import AXES, PROBES, axes_of
from allodoc_health.remedy import Remedy, Step, load_guide, render
from allodoc_health.target import Target, TargetError, nearest


@dataclass(frozen=True, slots=True)
class Entry:
    """One symptom as its check declares it. ``arguments`` are what the check asks for, ``line`` is where it stands."""

    id: str
    title: str
    severity: Severity
    smoke: bool
    caused_by: tuple[str, ...]
    only: tuple[str, ...]
    path: Path
    line: int
    function: str
    arguments: tuple[str, ...]


def read_catalogue(folders: Iterable[Path]) -> dict[str, Entry]:
    """Every symptom below these folders by id, in the order of files and lines."""
    catalogue: dict[str, Entry] = {}
    for entry in entries(folders):
        catalogue.setdefault(entry.id, entry)
    return catalogue


def entries(folders: Iterable[Path]) -> Iterator[Entry]:
    """Every check below these folders, also two of one symptom. Files that can't be read are left to pytest."""
    for folder in folders:
        for path in sorted(folder.rglob("test_*.py")):
            with suppress(SyntaxError, UnicodeError):
                yield from _read(path)


def _read(path: Path) -> list[Entry]:
    text = path.read_text("utf-8")
    if "@symptom(" not in text:
        return []
    module = ast.parse(text, str(path))
    constants = _constants(module)
    return [
        _entry(path, node, call, constants)
        for node in module.body
        if isinstance(node, ast.FunctionDef)
        for call in node.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "symptom"
    ]


def _constants(module: ast.Module) -> dict[str, Any]:
    """What a module assigns to names at its top, as far as it needs nothing from elsewhere."""
    constants: dict[str, Any] = {}
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with suppress(NameError):
                constants[node.targets[0].id] = _value(node.value, constants)
    return constants


def _value(node: ast.expr, constants: Mapping[str, Any]) -> Any:
    # It is what pytest itself executes when it imports the same file, without what that imports.
    return eval(compile(ast.Expression(node), "<check>", "eval"), {"__builtins__": {}, **constants})  # noqa: S307


def _entry(path: Path, node: ast.FunctionDef, call: ast.Call, constants: Mapping[str, Any]) -> Entry:
    given = {keyword.arg: keyword.value for keyword in call.keywords}

    def literal(name: str, default: Any) -> Any:
        try:
            return _value(given[name], constants) if name in given else default
        except NameError:
            return default

    severity = given.get("severity")
    return Entry(
        id=str(ast.literal_eval(call.args[0] if call.args else given["id"])),
        title=(ast.get_docstring(node) or "").partition("\n")[0],
        severity=Severity[severity.attr] if isinstance(severity, ast.Attribute) else Severity.MAJOR,
        smoke=bool(literal("smoke", False)),
        caused_by=tuple(literal("caused_by", ())),
        only=tuple(literal("only", ())),
        path=path,
        line=node.lineno,
        function=node.name,
        arguments=tuple(argument.arg for argument in node.args.args),
    )


def split_name(name: str) -> tuple[str, str | None]:
    """The id and the parameter in a finding's name.

    >>> split_name("service.running[postgres]"), split_name("db.port")
    (('service.running', 'postgres'), ('db.port', None))
    """
    found = re.fullmatch(r"([^\[]+)\[(.*)\]", name)
    return (found[1], found[2]) if found else (name, None)


# -- the options ---------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that show the catalogue."""
    group = parser.getgroup("health", "AlloDoc Health")
    group.addoption("--symptoms", action="store_true", help="list every symptom that has a check, and check nothing")
    group.addoption(
        "--explain",
        action="append",
        metavar="SYMPTOM",
        help="print a symptom's remedy for the target, as in --explain db.port or 'service.running[redis]', "
        "and check nothing",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> pytest.ExitCode | None:
    """Show what was asked for in place of a test session."""
    if not config.option.symptoms and not config.option.explain:
        return None
    catalogue = read_catalogue(Path(path) for path in config.getini("check_paths"))
    lines: Iterable[tuple[str, Mapping[str, bool]]]
    if config.option.symptoms:
        lines = list(symptom_lines(catalogue))
    else:
        lines = [line for name in config.option.explain for line in _explained(config, catalogue, name)]
    from _pytest.config import create_terminal_writer

    writer = create_terminal_writer(config)
    for text, markup in lines:
        writer.line(text, **markup)
    return pytest.ExitCode.OK


Line = tuple[str, Mapping[str, bool]]
_SEVERITY_MARKUP = {
    Severity.CRITICAL: {"red": True},
    Severity.MAJOR: {"yellow": True},
    Severity.MINOR: {},
}


def symptom_lines(catalogue: Mapping[str, Entry]) -> Iterator[Line]:
    """The catalogue as lines: id, severity, title, and the remedy's place in the guide."""
    guide = load_guide()
    width = max((len(name) for name in catalogue), default=0)
    for name, entry in catalogue.items():
        smoke = " smoke" if entry.smoke else ""
        yield f"{name:<{width}}  {entry.severity.value}{smoke}", {**_SEVERITY_MARKUP[entry.severity], "bold": True}
        yield f"    {entry.title}", {}
        remedies = dict.fromkeys(remedy.anchor for key, remedy in guide.items() if key.partition("/")[0] == name)
        for anchor in remedies or ["no remedy"]:
            yield f"    {anchor}", {"light": True}
    yield f"{len(catalogue)} symptoms", {"bold": True}


def _explained(config: pytest.Config, catalogue: Mapping[str, Entry], name: str) -> Iterator[Line]:
    from allodoc_health.inspection import open_inspection
    from allodoc_health.words import vocabulary

    symptom, parameter = split_name(name)
    symptom, _, variant = symptom.partition("/")
    if symptom not in catalogue:
        raise pytest.UsageError(
            f"--explain: no symptom {symptom!r}; {nearest(symptom, catalogue)}; --symptoms lists them all"
        )
    guide = load_guide()
    known = {key: remedy for key, remedy in guide.items() if key.partition("/")[0] == symptom}
    if variant and f"{symptom}/{variant}" not in known:
        variants = [key.partition("/")[2] for key in known if "/" in key]
        raise pytest.UsageError(f"--explain: {symptom} has no variant {variant!r}; {nearest(variant, variants)}")
    entry = catalogue[symptom]
    names = config.getoption("target") or [None]
    try:
        inspection = open_inspection(
            names[0], config.rootpath / config.getini("target_path"), config.getoption("budget"), config.rootpath
        )
    except TargetError as error:
        raise pytest.UsageError(str(error)) from None
    try:
        if parameter is None:
            parameter = _example(entry, inspection.target)
        shown = f"{symptom}[{parameter}]" if parameter else symptom
        yield f"{shown}   {entry.title}   ({entry.severity.value}, for {inspection.target.name})", {"bold": True}
        words = vocabulary(inspection.target, inspection.words(), {"parameter": parameter or ""})
        chosen = [known[f"{symptom}/{variant}"]] if variant else list(dict.fromkeys(known.values()))
        for remedy in chosen:
            yield "", {}
            yield from remedy_lines(render(remedy, words, inspection.redactor.text))
        if not chosen:
            yield "the guide has no remedy for it", {}
    finally:
        inspection.close()


def _example(entry: Entry, target: Target) -> str | None:
    """A parameter to explain a symptom by when none was given: the first of each axis that its evidence has."""
    axes: dict[str, None] = {}
    for argument in entry.arguments:
        if argument in AXES:
            axes[argument] = None
        elif argument in PROBES:
            axes |= dict.fromkeys(sorted(axes_of(PROBES[argument])))
    values = []
    for axis in axes:
        fitting = [value for value in AXES[axis](target) if not entry.only or value in entry.only]
        present = [value for value in fitting if axis != "service" or value in target.roles]
        values += (present or fitting)[:1]
    return ", ".join(values) or None


def remedy_lines(remedy: Remedy) -> Iterator[Line]:
    """A whole remedy as lines: what it means, where to look, how to mend it, whom to call."""
    yield f"{remedy.title}   ({remedy.anchor})", {"bold": True}
    for paragraph in remedy.meaning.split("\n\n"):
        yield f"  {paragraph}", {}
    for word, steps in (("look (this only reads)", remedy.look), ("mend (this changes things)", remedy.mend)):
        if steps:
            yield f"  {word}", {"bold": True}
        for number, step in enumerate(steps, 1):
            yield from _step_lines(number, step)
    if remedy.usual_time:
        yield f"  usual time to resolve: {remedy.usual_time}", {}
    if remedy.escalate:
        yield f"  escalate: {remedy.escalate}", {}


def _step_lines(number: int, step: Step) -> Iterator[Line]:
    yield f"  {number}. {step.text}", {}
    if step.caution:
        yield f"     Caution: {step.caution}", {"yellow": True}
    for command in step.commands:
        for line in command.splitlines():
            yield f"       {line}", {"cyan": True}
