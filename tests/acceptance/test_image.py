"""The image of the suite: made from deploy/Containerfile as it stands, and run as its head says."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

from demo.compose import build
from tests.beds.docker import Engine, Stack
from tests.beds.suite import ROOT

DEPLOY = ROOT / "deploy"
SOCKET = "/var/run/docker.sock"
PYTHON = ("python3", "python3-venv", "ca-certificates")
MOST_ADDED = 200e6
"""Bytes that the suite may add to an image that has Python: its libraries have 150 MB, of which pglast is 33."""

pytestmark = pytest.mark.timeout(600)


def docker(*arguments: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Docker's command line, as a person types it. It has to succeed unless it may fail."""
    command = ["docker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert fails or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def size(image: str) -> int:
    """The size of an image in bytes."""
    return int(docker("image", "inspect", "--format={{.Size}}", image).stdout)


@pytest.fixture(scope="module")
def python(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with Debian's Python, and the wheels that pip finds nowhere else: no registry is asked for either."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted.append("async-timeout")  # for redis, by Debian's Python 3.11.2 and by no later one
    digest = hashlib.sha256("\n".join([build.SUITE, *PYTHON, *wanted]).encode()).hexdigest()[:12]
    tag = f"allodoc/python:{digest}"
    if engine.client.images(tag, quiet=True):
        return tag
    folder = tmp_path_factory.mktemp("python")
    archive = folder / "python.tar"
    build.bootstrap(archive, PYTHON)
    engine.client.import_image_from_file(str(archive), repository="allodoc/python", tag="bare")
    archive.unlink()
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder / "wheels")]
    download += ["--only-binary=:all:", "--python-version=3.11"]
    subprocess.run([*download, *wanted], check=True, timeout=300)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n", "utf-8")
    recipe = "FROM allodoc/python:bare\nCOPY wheels /wheels\nCOPY pip.conf /etc/pip.conf\n"
    (folder / "Dockerfile").write_text(recipe, "utf-8")
    docker("build", f"--tag={tag}", str(folder))
    return tag


@pytest.fixture(scope="module")
def image(python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, as long as the tests of this module last."""
    context, tag = tmp_path_factory.mktemp("context"), f"allodoc-health:{uuid.uuid4().hex[:12]}"
    # The builder of Debian's Docker knows no ignore file beside a Containerfile.
    for name in exclude_paths(str(ROOT), (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").split()):
        if (ROOT / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, context / name)
    recipe = f"--file={DEPLOY / 'Containerfile'}"
    docker("build", recipe, f"--build-arg=BASE={python}", f"--tag={tag}", str(context))
    yield tag
    docker("rmi", "--force", tag)


@pytest.fixture
def volume() -> Iterator[str]:
    """A volume for reports, with nothing in it."""
    name = f"allodoc-reports-{uuid.uuid4().hex[:12]}"
    yield name
    docker("volume", "rm", "--force", name)


def run(image: str, volume: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A container of the image that may write nowhere but where its head says."""
    kept = ["--rm", "--read-only", "--tmpfs=/tmp", f"--volume={volume}:/reports", *options]
    return docker("run", *kept, image, fails=True)


def test_it_inspects_the_stack(image: str, volume: str, stack: Stack) -> None:
    """Without root and on a read-only file system: what the socket shows is discovered, and the reports are kept."""
    stack.wait_healthy()
    variables = [f"--env={name}={value}" for name, value in stack.smoke_account.items()]
    socket = [f"--volume={SOCKET}:{SOCKET}", f"--group-add={Path(SOCKET).stat().st_gid}", "--network=host"]
    done = run(image, volume, *socket, *variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\w+ (is healthy|has warnings)", done.stdout, re.MULTILINE), done.stdout
    kept = docker("run", "--rm", f"--volume={volume}:/reports", "--entrypoint=cat", image, "/reports/latest.json")
    snapshot = json.loads(kept.stdout)
    assert not snapshot["defects"]
    assert {f["id"] for f in snapshot["findings"] if f["outcome"] == "pass"} > {"db.query", "cache.ping", "auth.login"}


def test_without_the_socket(image: str, volume: str) -> None:
    """An engine that can't be reached is what it names, as on any machine whose Docker is down."""
    done = run(image, volume)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "is failing: host.docker " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_it_is_small_and_nobody(image: str, python: str) -> None:
    """It has no root, no pip, nothing of the tests, and little more than its libraries."""
    assert docker("run", "--rm", "--entrypoint=id", image, "-u").stdout.strip() == "10001"
    listed = docker("run", "--rm", "--entrypoint=ls", image, "/opt/allodoc-health", "/opt/venv/bin").stdout.split()
    assert {"checks", "guide", "conftest.py"} <= set(listed)
    assert not {"tests", "deploy", "pip", ".git"} & set(listed)
    added = size(image) - size(python)
    assert added < MOST_ADDED, f"{added / 1e6:.0f} MB"
