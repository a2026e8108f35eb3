"""The deployment chapter on the guide's own stack: an image that is gone."""

from __future__ import annotations

from demo.compose.build import TAGS
from tests.beds.docker import Stack
from tests.beds.suite import Health


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
