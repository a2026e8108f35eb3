"""The outputs beside terminal, HTML and snapshot: their options, what may be combined, and who writes them.

Several may be wanted in one run. Each is made by a module of its own, which is imported only then. An output that fails
says so in one line and changes nothing else: neither the verdict nor the exit status.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from allodoc_health.plugin import wants_checks
from reports.whole_file import WholeFile

FILES = {
    "--junitxml": "xmlpath",
    "--openmetrics": "openmetrics",
    "--markdown": "markdown",
    "--json-lines": "json_lines",
}
"""The options that name a file, and under which name pytest keeps what they were given."""

OTHER_FILES = {"--html": "htmlpath", "--snapshot": "snapshot"}
"""The same for files that are written elsewhere; two outputs to one file are a mistake all the same."""

STDOUT = "-"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the outputs' options; ``--junitxml`` is pytest's own, and ``--nagios`` testinfra's."""
    group = parser.getgroup("health", "AlloDoc Health")
    group.addoption(
        "--json-lines", metavar="FILE", help="write each finding as a line of JSON as soon as it is there (-: stdout)"
    )
    group.addoption(
        "--openmetrics", metavar="FILE", help="write outcomes and measurements for node_exporter's textfile collector"
    )
    group.addoption("--markdown", metavar="FILE", help="write the report as Markdown")
    group.addoption(
        "--github",
        action="store_true",
        help="annotate the GitHub Actions run and append to its summary (by itself where $GITHUB_ACTIONS is true)",
    )
    group.addoption("--summary", action="store_true", help="print a paragraph to paste into a chat")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the outputs that are wanted."""
    option = config.option
    if not _in_charge(config) or option.collectonly:
        return
    paths = _paths(config)
    # Both would be done otherwise, by pytest and by testinfra, which know neither outcomes nor findings.
    option.xmlpath, nagios, option.nagios = None, option.nagios, False
    register = config.pluginmanager.register
    register(Destinations(paths), "health-destinations")
    if nagios:
        from reports.nagios import MonitoringPlugin

        register(MonitoringPlugin(config), "health-nagios")
    if option.json_lines:
        from reports.json_lines import JsonLines, QuietStdout

        register(JsonLines(config, paths.get("--json-lines")), "health-json-lines")
        if option.json_lines == STDOUT:
            register(QuietStdout(config), "health-quiet-stdout")
    if option.github or (os.environ.get("GITHUB_ACTIONS") == "true" and not nagios):
        from reports.github import GitHubActions

        register(GitHubActions(config), "health-github")
    if option.summary:
        from reports.summary import ChatSummary

        register(ChatSummary(), "health-summary")
    if path := paths.get("--junitxml"):
        from reports.junit import JUnitFile

        register(JUnitFile(config, path), "health-junit")
    if path := paths.get("--openmetrics"):
        from reports import openmetrics

        register(WholeFile(config, "--openmetrics", path, openmetrics.document), "health-openmetrics")
    if path := paths.get("--markdown"):
        from reports import markdown

        register(WholeFile(config, "--markdown", path, markdown.document), "health-markdown")


@pytest.hookimpl(specname="pytest_cmdline_main", tryfirst=True)
def pytest_refuse_conflicts(config: pytest.Config) -> None:
    """Raise UsageError for options that exclude one another, and for a file that is a folder or wanted twice."""
    if not _in_charge(config):
        return
    option = config.option
    speaking = {
        "--nagios": option.nagios,
        "--json-lines -": option.json_lines == STDOUT,
    }
    alone = [name for name, given in speaking.items() if given]
    others = {
        "--summary": option.summary and option.nagios,
        "--github": option.github and option.nagios,
        "--explain": option.explain,
        "--symptoms": option.symptoms,
        "--collect-only": option.collectonly,
        "--watch": option.watch is not None and option.nagios,
    }
    clashing = [*alone[1:], *(name for name, given in others.items() if given)]
    if alone and clashing:
        raise pytest.UsageError(f"{alone[0]} wants the standard output for itself and excludes {', '.join(clashing)}")
    taken: dict[Path, str] = {}
    for name, path in _paths(config, FILES | OTHER_FILES).items():
        if path.is_dir():
            raise pytest.UsageError(f"{name} must be a file, and {path} is a folder")
        other = taken.setdefault(path.resolve(), name)
        if other != name:
            raise pytest.UsageError(f"{other} and {name} would both write {path}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Answer as a monitoring plugin does where one is wanted, also if there is no run as no target can be used."""
    if not config.option.nagios or not _in_charge(config):
        return (yield)
    from reports.nagios import REPORTS, answer

    reports = config.stash.setdefault(REPORTS, [])
    try:
        ended = yield
    except pytest.UsageError as error:
        return answer((), " ".join(map(str, error.args)))
    return answer((), "the suite itself broke down") if ended == pytest.ExitCode.INTERNAL_ERROR else answer(reports)


def _in_charge(config: pytest.Config) -> bool:
    """Whether this is where the outputs are made: not in a worker of pytest-xdist, nor in a run of tests alone."""
    return not hasattr(config, "workerinput") and wants_checks(config)


def _paths(config: pytest.Config, options: Mapping[str, str] = FILES) -> dict[str, Path]:
    """The files that are to be written, by the option that asks for them."""
    return {
        name: config.invocation_params.dir / Path(os.path.expandvars(given)).expanduser()
        for name, kept in options.items()
        if (given := getattr(config.option, kept, None)) and (name, given) != ("--json-lines", STDOUT)
    }


class Destinations:
    """Tells at the start which files won't be written, so that nobody waits for them."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths

    def pytest_report_header(self) -> list[str]:
        """One line for each file that can't be written as things stand."""
        return [
            f"{name}: {path} can't be written: {obstacle}"
            for name, path in self._paths.items()
            if (obstacle := _obstacle(path))
        ]


def _obstacle(path: Path) -> str:
    """What stands in the way of writing a file, or its folder where there is none yet; empty if nothing does."""
    place = path if path.exists() and not path.is_file() else path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if place != path and not place.is_dir():
        return f"{place} is no folder"
    return "" if os.access(place, os.W_OK) else f"no right to write to {place}"
