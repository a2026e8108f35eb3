"""The house: arrows point one way, checks are pure, and what they name exists."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from allodoc_health.catalogue import Entry, entries, split_name
from allodoc_health.finding import Severity
from allodoc_health.probe import AXES, PROBES, axes_of
from allodoc_health.symptom import CHAPTERS, Symptom
from allodoc_health.target import ROLES, Target
from allodoc_health.verdict import expand_causes
from fixtures.containers import WHAT_ENDS_A_SERVICE
from tests.beds.suite import ROOT

ENTRIES = list(entries([ROOT / "checks"]))
CATALOGUE = {entry.id: entry for entry in ENTRIES}
FILES = sorted((ROOT / "checks").rglob("test_*.py"))

# What a check may use: the engine, evidence, and what only computes.
PURE = {"__future__", "collections", "dataclasses", "datetime", "itertools", "math", "operator", "statistics", "typing"}
PURE |= {"allodoc_health", "fixtures", "pytest", "shlex"}
GIVEN = {"finding", "limits", "target", "now"}

for module in sorted((ROOT / "fixtures").glob("[a-z]*.py")):
    import_module(f"fixtures.{module.stem}")  # so that PROBES and AXES are whole

each_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT / "checks")) for path in FILES])


def test_arrows_point_one_way() -> None:
    """The contracts of the import linter hold: checks → fixtures → engine ← reports, and the demo stands alone."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- checks -------------------------------------------------------------------------------------------


def test_each_symptom_has_one_check() -> None:
    """Ids are a public catalogue: none stands for two things."""
    counts = Counter(entry.id for entry in ENTRIES)
    assert not [name for name, count in counts.items() if count > 1]


def test_a_title_states_the_healthy_condition_in_a_line() -> None:
    """One sentence of under 80 characters."""
    assert not [f"{e.id}: {e.title}" for e in ENTRIES if not (0 < len(e.title) < 80 and e.title.endswith("."))]


def test_a_check_stands_in_a_chapter() -> None:
    """Its folder is a chapter of the guide, by which -m selects it."""
    assert not [entry.path for entry in ENTRIES if entry.path.parent.name not in CHAPTERS]


@each_file
def test_a_check_does_nothing_but_compare(path: Path) -> None:
    """Checks import what computes; no network, no file, no process, no parsing, no clock."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "pathlib" and {alias.name for alias in node.names} <= {"PurePath", "PurePosixPath"}:
                continue
        for name in names:
            assert name.partition(".")[0] in PURE, f"{path.name}:{node.lineno} imports {name}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today"), f"{path.name}:{node.lineno} looks at the clock"
        if isinstance(node, ast.Name):
            assert node.id not in ("open", "print", "exec", "eval", "input"), f"{path.name}:{node.lineno}: {node.id}"


@each_file
def test_every_assertion_says_what_it_found(path: Path) -> None:
    """An assert without words can only be a traceback, and words have to fit into a line."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Assert):
            assert node.msg is not None, f"{path.name}:{node.lineno} asserts without a message"
        for message in _messages(node):
            assert _written(message) < 80, f"{path.name}:{message.lineno}: the message has over 80 characters"


def _messages(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.Assert) and node.msg is not None:
        yield node.msg
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("fail", "warn", "not_applicable")
        and node.args
    ):
        yield node.args[0]


def _written(message: ast.AST) -> int:
    """How many characters of a message stand in the source; what is filled in comes on top."""
    match message:
        case ast.Constant(value=str(text)):
            return len(text)
        case ast.IfExp(body=body, orelse=other):
            return max(_written(body), _written(other))
        case ast.JoinedStr(values=parts):
            return sum(_written(part) for part in parts)
        case ast.BinOp(left=left, right=right):
            return _written(left) + _written(right)
    return 0


# -- probes -------------------------------------------------------------------------------------------


def test_the_guard_of_a_probe_is_a_check() -> None:
    """When a probe fails, the check of that symptom fails with its message, so there has to be one."""
    assert not [
        f"{probe.name}: {probe.guard}" for probe in PROBES.values() if split_name(probe.guard)[0] not in CATALOGUE
    ]


def test_every_probe_has_a_deadline() -> None:
    """Nothing may hang."""
    assert not [probe.name for probe in PROBES.values() if not 0 < probe.deadline < 60]


def test_a_check_depends_on_evidence_that_is_guarded() -> None:
    """Whatever a check asks for is a probe, an axis, or what the engine gives to every check."""
    known = PROBES.keys() | AXES.keys() | GIVEN
    assert not [f"{e.id} asks for {argument}" for e in ENTRIES for argument in e.arguments if argument not in known]


def _named_guards() -> Iterator[tuple[str, str]]:
    """Guards that probes name as they fail, and where."""
    for path in sorted((ROOT / "fixtures").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Failed"):
                continue
            for keyword in node.keywords:
                if keyword.arg == "guard":
                    value = keyword.value
                    first = value.values[0] if isinstance(value, ast.JoinedStr) else value
                    if isinstance(first, ast.Constant) and first.value:
                        yield f"{path.name}:{node.lineno}", str(first.value).partition("[")[0]


def test_guards_that_are_named_exist() -> None:
    """A failure that blames another check than the probe's own blames one that there is."""
    assert not [f"{where}: {guard}" for where, guard in _named_guards() if guard not in CATALOGUE]


# -- causes -------------------------------------------------------------------------------------------


def _declared() -> dict[str, Symptom]:
    """The symptoms as the decorators made them, once their modules were imported."""
    made = {}
    for path in FILES:
        module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for function in vars(module).values():
            for mark in getattr(function, "pytestmark", []):
                if mark.name == "symptom":
                    made[mark.args[0].id] = mark.args[0]
    return made


DECLARED = _declared()


def test_the_catalogue_reads_what_the_decorators_make() -> None:
    """The catalogue, which is read without importing a check, knows the same of each symptom.

    Causes that a probe names itself, in its own module, are those that the findings carry, and only those.
    """
    assert CATALOGUE.keys() == DECLARED.keys()
    for name, entry in CATALOGUE.items():
        symptom = DECLARED[name]
        known = (entry.title, entry.severity, entry.smoke, entry.only)
        assert known == (symptom.title, symptom.severity, symptom.smoke, symptom.only), name
        assert entry.caused_by == symptom.caused_by or symptom.caused_by is WHAT_ENDS_A_SERVICE, name


def test_causes_exist() -> None:
    """A declared cause that nothing checks could never explain anything."""
    assert not [
        f"{e.id} by {c}"
        for e in DECLARED.values()
        for c in e.caused_by
        if split_name(c.rpartition(": ")[2])[0] not in CATALOGUE
    ]


def _names(entry: Entry) -> list[tuple[str, dict[str, str]]]:
    """The names under which a check's findings come, with the values of its axes."""
    axes = {argument for argument in entry.arguments if argument in AXES}
    for argument in entry.arguments:
        if argument in PROBES:
            axes |= axes_of(PROBES[argument])
    if "service" not in axes:
        return [(entry.id, {})]
    roles = entry.only or ROLES
    return [(f"{entry.id}[{role}]", {"service": role}) for role in roles]


# Causes that come into question only where the evidence says so. What ends a service, which its last exit tells, is
# left out as well; that no verdict goes round in a circle for all that, the fault catalogue sees in every snapshot.
NARROWED = {
    ("db.reachable-from-backend", "host.cpu[backend]"),  # only where the look from inside came to no end
}


def test_nothing_is_its_own_cause() -> None:
    """Followed from finding to cause to cause's cause, no chain comes back to where it began."""
    names = {name: (entry, values) for entry in ENTRIES for name, values in _names(entry)}
    graph: dict[str, set[str]] = {}
    for name, (entry, values) in names.items():
        causes = graph.setdefault(name, set())
        for cause in expand_causes(entry.caused_by, values):
            known = {cause} & names.keys() or {other for other in names if split_name(other)[0] == cause}
            causes |= {other for other in known - {name} if (name, other) not in NARROWED}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())


# -- settings -----------------------------------------------------------------------------------------


def test_severities_are_the_three_of_the_design() -> None:
    """Every check has one of them, written out."""
    assert {entry.severity for entry in ENTRIES} <= set(Severity)


def test_a_target_holds_no_secret() -> None:
    """Its model has no field that could: only names of variables that hold one."""

    def fields(schema: dict[str, object]) -> Iterator[str]:
        for name, definition in dict(schema.get("$defs", {})).items():  # type: ignore[call-overload]
            yield from (f"{name}.{field}" for field in definition.get("properties", {}))

    for field in fields(Target.model_json_schema()):
        name = field.partition(".")[2]
        assert not any(word in name for word in ("password", "secret", "token")) or name.endswith("_env"), field
