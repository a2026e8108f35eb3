"""The beds that every test may use."""

from __future__ import annotations

import pytest

from tests.beds.docker import container as container
from tests.beds.docker import engine as engine
from tests.beds.docker import stack as stack
from tests.beds.docker import whole_stack as whole_stack
from tests.beds.embedded import demo as demo
from tests.beds.embedded import demo_bed as demo_bed
from tests.beds.misbehaviour import misbehave as misbehave
from tests.beds.pretend import pretend as pretend
from tests.beds.suite import suite as suite

DOCKER_BEDS = {"engine", "container", "stack", "whole_stack"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a Docker Engine: those tests share one, and run one after another."""
    for item in items:
        if DOCKER_BEDS & set(getattr(item, "fixturenames", ())):
            item.add_marker("docker")
