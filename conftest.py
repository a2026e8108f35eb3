"""The wiring: which plugins make this folder a health suite."""

import sys
from importlib import import_module

import pytest

# Probes are written with assertions, too: rewriting is asked for before the first of their modules is imported.
pytest.register_assert_rewrite("fixtures")

# In the order in which they import one another: what is imported already can't be rewritten any more.
pytest_plugins = [
    "allodoc_health.catalogue",
    "allodoc_health.plugin",
    "reports.snapshot",
    "reports.history.plugin",
    "reports.comparison",
    "reports.terminal",
    "reports.outputs",
    "reports.html",
    "reports.notify",
]


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class) -> None:
    """Make plugins of the modules of fixtures/ that checks imported so far: no run pays for probes that it lacks."""
    plugins = collector.config.pluginmanager
    for name in [name for name in sys.modules if name.startswith("fixtures.") and not plugins.has_plugin(name)]:
        plugins.register(sys.modules[name], name)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Define every probe where nothing is collected: an explanation takes a check's parameters from its evidence."""
    if config.option.explain:
        for path in sorted(config.rootpath.joinpath("fixtures").glob("[a-z]*.py")):
            import_module(f"fixtures.{path.stem}")
