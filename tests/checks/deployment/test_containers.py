"""The deployment chapter on the guide's own stack: discovered, calm, and its images told apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.compose.build import TAGS
from tests.beds.docker import Stack
from tests.beds.suite import Health

BACKEND = f"allodoc/backend:{TAGS['backend']}"


@pytest.fixture
def newer_image(stack: Stack) -> Iterator[str]:
    """The backend's tag moved to a newer image of the same code, and moved back afterwards."""
    old = stack.client.images(BACKEND, quiet=True)[0]
    container = stack.client.inspect_container(stack.names["backend"])
    made = stack.client.commit(container["Id"], "allodoc/bed-newer", "1", conf={"Labels": {"allodoc.newer": "1"}})
    try:
        stack.client.tag(made["Id"], "allodoc/backend", TAGS["backend"], force=True)
        yield made["Id"]
    finally:
        stack.client.tag(old, "allodoc/backend", TAGS["backend"], force=True)
        if stack.client.inspect_container(stack.names["backend"])["Image"] != old:
            stack.recreate("backend")
            stack.wait_healthy()
        stack.client.remove_image("allodoc/bed-newer:1", force=True)


def test_the_healthy_stack_is_calm(stack: Stack, suite: Health) -> None:
    """With no configuration at all the chapter is calm, and every check of it has something to say."""
    run = suite("checks/deployment")
    run.is_calm()
    assert not run.names("not-applicable", "warn") - {"deploy.upstream-errors"}, run.output


def test_a_newer_image_is_waiting(stack: Stack, newer_image: str, suite: Health) -> None:
    """A tag that names another image by now warns; made anew, the service runs it."""
    name = "deploy.image-current[backend]"
    run = suite("checks/deployment", "checks/service")
    run.warns(name)
    assert newer_image.removeprefix("sha256:")[:12] in run.finding(name)["message"]
    printed = "".join(run.do(name, "look"))
    assert newer_image in printed
    run.do(name, steps=[0])
    stack.wait_healthy()
    assert suite("checks/deployment").outcome(name) == "pass"


def test_an_image_that_is_gone(stack: Stack, suite: Health) -> None:
    """A tag that means nothing any more warns; the remedy gives the image that runs its name again."""
    name = "deploy.image-current[frontend]"
    tag = f"allodoc/frontend:{TAGS['frontend']}"
    image = stack.client.images(tag, quiet=True)[0]
    stack.client.remove_image(tag, noprune=True)
    try:
        run = suite("checks/deployment")
        run.warns(name)
        assert run.finding(name)["remedy"].endswith("#the-image-of-a-service-is-gone")
        run.do(name, steps=[0])
        assert suite("checks/deployment").outcome(name) == "pass"
    finally:
        stack.client.tag(image, "allodoc/frontend", TAGS["frontend"], force=True)
