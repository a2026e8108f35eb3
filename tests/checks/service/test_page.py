"""Pages that don't load: missing bundles, foreign pages, white pages; broken for real, seen, mended."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.suite import Health as Suite

CHAPTERS = ("checks/service", "checks/db")
PAGE = "checks/service/test_page.py"
EDGE, FRONTEND = "service.app-loads[edge]", "service.app-loads[frontend]"

NGINX_WELCOME = """<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>If you see this page, the nginx web server is successfully installed and working.</p>
</body>
</html>
"""


@pytest.fixture
def page(demo: Demo, tmp_path: Path) -> Iterator[Path]:
    """The folder that the demo's nginx serves; as it was after the test."""
    configuration = (demo.folder.service("nginx") / "nginx.conf").read_text("utf-8")
    found = re.search(r"^\s*root (.+);", configuration, re.MULTILINE)
    assert found is not None
    folder = Path(found[1])
    kept = tmp_path / "page"
    shutil.copytree(folder, kept)
    try:
        yield folder
    finally:
        for file in kept.iterdir():
            shutil.copy2(file, folder / file.name)


class TestDemo:
    """On the embedded demo, where nginx serves the page."""

    def test_well(self, demo: Demo, suite: Suite) -> None:
        """The page is the application; where there is no frontend service that is said."""
        run = suite(PAGE, target=demo.target)
        run.is_calm()
        assert run.outcome(EDGE) == "pass"
        assert run.finding(FRONTEND)["message"] == "this target has no frontend service"

    def test_a_missing_bundle(self, page: Path, demo: Demo, suite: Suite) -> None:
        """A bundle that is not there is a white page for users, though the HTML comes with HTTP 200."""
        (bundle,) = page.glob("main-*.js")
        content = bundle.read_bytes()
        bundle.unlink()
        run = suite(*CHAPTERS, target=demo.target)
        run.blames(EDGE)
        assert run.finding(EDGE)["message"] == f"1 of 2 bundles can't be used: {bundle.name}: HTTP 404"
        assert run.finding(EDGE)["remedy"].endswith("#the-page-loads-its-scripts-or-styles-do-not")
        (told,) = run.do(EDGE, "look")
        assert f"{bundle.name} HTTP 404" in told
        bundle.write_bytes(content)
        bundle.chmod(0o644)
        suite(PAGE, target=demo.target).is_calm()

    def test_an_empty_bundle(self, page: Path, demo: Demo, suite: Suite) -> None:
        """A file that a full disk left empty comes with HTTP 200 and the right type, and is useless."""
        (bundle,) = page.glob("styles-*.css")
        bundle.write_bytes(b"")
        run = suite(PAGE, target=demo.target)
        run.blames(EDGE)
        assert run.finding(EDGE)["message"].endswith(f"{bundle.name}: empty")

    def test_a_stale_page(self, page: Path, demo: Demo, suite: Suite) -> None:
        """HTML of another build names bundles for which a single-page server sends the page itself."""
        index = page / "index.html"
        index.write_text(index.read_text("utf-8").replace("main-7f3b1e64.js", "main.js"), "utf-8")
        run = suite(PAGE, target=demo.target)
        run.blames(EDGE)
        assert "main.js: the page came in its place" in run.finding(EDGE)["message"]

    def test_the_web_servers_own_page(self, page: Path, demo: Demo, suite: Suite) -> None:
        """nginx's first page is HTTP 200 and HTML, and not the application."""
        (page / "index.html").write_text(NGINX_WELCOME, "utf-8")
        run = suite(*CHAPTERS, target=demo.target)
        run.blames(EDGE)
        assert run.finding(EDGE)["message"] == "the web server's own first page came, not the application"
        run.do(EDGE, "look")

    def test_a_white_page(self, page: Path, demo: Demo, suite: Suite) -> None:
        """HTML without an application root and without scripts shows nothing."""
        (page / "index.html").write_text("<!doctype html><html><body></body></html>", "utf-8")
        run = suite(PAGE, target=demo.target)
        run.blames(EDGE)
        assert run.finding(EDGE)["message"].startswith("a white page")
        run.do(EDGE, "look")

    def test_no_page(self, page: Path, demo: Demo, suite: Suite) -> None:
        """A folder without a page gives an error status."""
        (page / "index.html").unlink()
        run = suite(PAGE, target=demo.target)
        run.blames(EDGE)
        assert re.fullmatch(r"HTTP (403|404|500) for the page, expected 200", run.finding(EDGE)["message"])

    def test_nginx_is_gone(self, demo: Demo, suite: Suite) -> None:
        """Without nginx nothing loads, and nginx is the root cause."""
        demo.stop("nginx")
        run = suite(*CHAPTERS, target=demo.target)
        run.blames("service.running[nginx]")
        assert run.finding(EDGE)["message"].endswith("connection refused")


class TestDocker:
    """On the guide's own stack, where a service of its own holds the page."""

    def test_a_missing_bundle(self, stack: Stack, suite: Suite) -> None:
        """The frontend sends its page, with HTTP 200, for a bundle that is gone: seen, and mended by the remedy."""
        removed = stack.exec("frontend", "sh", "-c", "rm /usr/share/nginx/html/main-*.js")
        assert removed.exit_code == 0, removed.stderr
        run = suite(*CHAPTERS)
        run.blames(FRONTEND)
        assert run.finding(EDGE)["caused_by"] == [FRONTEND]
        assert "the page came in its place (text/html)" in run.finding(FRONTEND)["message"]
        (told,) = run.do(FRONTEND, "look")
        assert "text/html" in told
        run.do(FRONTEND)
        stack.wait_healthy(roles=["frontend", "nginx"])
        suite(PAGE).is_calm()

    def test_the_frontend_is_gone(self, stack: Stack, suite: Suite) -> None:
        """A stopped frontend explains both places."""
        stack.stop("frontend")
        run = suite(*CHAPTERS)
        run.blames("service.running[frontend]")
        # Nobody answers for the address of a container that is gone: nginx may still be waiting when we are not.
        message = run.finding(EDGE)["message"]
        assert message.startswith("HTTP 502") or message.endswith("no answer within 4 s")
