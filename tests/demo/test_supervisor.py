"""Services under the supervisor: restarts, pauses, environments, logs, and commands inside them."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from demo.state import ROLES
from tests.beds.embedded import Demo

PSQL = ("psql", "-U", "allodoc_prod", "-d", "allodoc_prod")


def test_status_says_that_all_are_healthy(demo: Demo) -> None:
    """Status is 0, its JSON names all services, and no secret is in it."""
    document = json.loads(demo.must("status", "--json"))
    assert document["up"] is True
    assert tuple(document["services"]) == ROLES
    assert demo.environment("redis")["REDIS_PASSWORD"] not in json.dumps(document)
    demo.stop("nginx")
    assert demo.run("status").returncode == 1


def test_second_up_finds_it_up(demo: Demo) -> None:
    """An ``up`` of what is up says so and changes nothing."""
    before = [demo.pid(role) for role in ROLES]
    assert "up already" in demo.must("up")
    assert [demo.pid(role) for role in ROLES] == before


def test_state_is_private(demo: Demo) -> None:
    """Nobody else can read the state, the environments and the smoke account."""
    files = [demo.folder.state_file, demo.folder.smoke_file]
    files += [demo.folder.env_file(role) for role in ROLES] + [demo.folder.given_env_file(role) for role in ROLES]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}


@pytest.mark.parametrize("role", ROLES)
def test_a_crashed_service_comes_back(demo: Demo, role: str) -> None:
    """A killed main process is started again on the same port, and the end is on record."""
    port, pid = demo.port(role), demo.pid(role)
    children = psutil.Process(pid).children(recursive=True)
    before = demo.service(role)["restart_count"]
    demo.crash(role)
    demo.wait_until(lambda: demo.service(role)["restart_count"] > before, what=f"{role} to be started again")
    demo.wait_healthy()
    service = demo.service(role)
    assert service["exit_code"] == 128 + signal.SIGKILL
    assert service["finished_at"] is not None
    assert demo.port(role) == port
    assert not [child for child in children if child.is_running()]
    demo.restart(role)


def test_restarts_are_further_and_further_apart(demo: Demo) -> None:
    """The pauses of a crash loop double from 0.1 s, and a start by hand forgets them."""
    demo.set_env("nginx", EXTRA_ARGS="--no-such-option")
    demo.recreate("nginx")
    demo.wait_until(lambda: demo.service("nginx")["restart_count"] >= 4, what="four restarts")
    assert demo.service("nginx")["exit_code"] == 1
    # nginx says the same at each start.
    lines = [line for line in demo.log_text("nginx").splitlines() if "invalid option" in line]
    times = [datetime.fromisoformat(line.split(" ", 1)[0][:26] + "+00:00") for line in lines[-5:]]
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)]
    assert all(expected <= gap < expected + 0.3 for expected, gap in zip((0.1, 0.2, 0.4, 0.8), gaps, strict=True))
    demo.set_env("nginx", EXTRA_ARGS="")
    demo.recreate("nginx")
    assert demo.service("nginx")["restart_count"] == 0


def test_stopped_and_killed_services_stay_down(demo: Demo) -> None:
    """What an operator ends is not started again."""
    demo.stop("nginx")
    demo.kill("backend")
    assert (demo.service("nginx")["status"], demo.service("nginx")["exit_code"]) == ("exited", 0)
    demo.wait_status("backend", "exited")
    assert demo.service("backend")["exit_code"] == 137
    demo.start("backend")
    assert demo.service("backend")["restart_count"] == 0


@pytest.mark.parametrize("role", ROLES)
def test_pause_freezes_every_process(demo: Demo, role: str) -> None:
    """A paused service's processes are all stopped; afterwards none is, and it is healthy."""
    process = psutil.Process(demo.pid(role))
    family = [process, *process.children(recursive=True)]
    demo.pause(role)
    assert demo.service(role)["status"] == "paused"
    demo.wait_until(
        lambda: {member.status() for member in family if member.is_running()} == {psutil.STATUS_STOPPED},
        what="all to be stopped",
    )
    assert demo.run("pause", role).returncode == 1
    assert demo.run("start", role).returncode == 1
    assert demo.run("exec", role, "--", "true").returncode == 1
    demo.unpause(role)
    demo.wait_healthy()
    assert demo.pid(role) == process.pid


def test_three_bad_health_checks_are_unhealthy(demo: Demo) -> None:
    """A service that fails three checks in a row is unhealthy, and healthy again after a good one."""
    password = demo.environment("redis")["REDIS_PASSWORD"]
    with demo.redis() as client:
        client.config_set("requirepass", "another")
        demo.wait_until(lambda: demo.service("redis")["health"]["status"] == "unhealthy", what="three failures")
        assert demo.service("redis")["health"]["failing_streak"] >= 3
        assert "WRONGPASS" in demo.service("redis")["health"]["last_output"]
        client.config_set("requirepass", password)
    demo.wait_healthy("redis")


def test_recreate_takes_the_environment_file(demo: Demo) -> None:
    """A restart keeps the environment, a recreation takes the file as it is, and makes a new id."""
    demo.set_env("backend", CORS_ORIGIN="https://other.test", NODE_OPTIONS="--stack-trace-limit=7")
    identifier = demo.service("backend")["id"]
    demo.restart("backend")
    assert b"https://other.test" not in environ(demo, "backend")
    assert demo.service("backend")["id"] == identifier
    demo.recreate("backend")
    assert b"CORS_ORIGIN=https://other.test" in environ(demo, "backend")
    assert b"NODE_OPTIONS=--stack-trace-limit=7" in environ(demo, "backend")
    assert demo.service("backend")["id"] != identifier


def environ(demo: Demo, role: str) -> bytes:
    """What the kernel says a service was given."""
    return Path(f"/proc/{demo.pid(role)}/environ").read_bytes()


def test_a_taken_port_is_a_crash_loop(demo: Demo) -> None:
    """A service whose port is in use fails as the real one does, and comes up when it is free."""
    port = demo.port("backend")
    demo.stop("backend")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        demo.start("backend")
        demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 1, what="a restart")
        assert "EADDRINUSE" in demo.log_text("backend")
    demo.wait_healthy("backend")
    assert demo.port("backend") == port


def test_log_lines_have_times_and_streams(demo: Demo) -> None:
    """Every captured line begins with when and where, and both streams are there."""
    demo.recreate("nginx")
    demo.wait_healthy("nginx")
    lines = demo.log_text("nginx").splitlines()
    pattern = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ")
    assert lines
    assert all(pattern.match(line) for line in lines)
    assert "stderr" in {line.split(" ")[1] for line in lines}


@pytest.mark.parametrize(
    ("role", "command", "expected"),
    [
        pytest.param("postgres", [*PSQL, "-Atc", "SELECT 6*7"], "42", id="psql"),
        pytest.param("postgres", ["pg_isready"], "accepting connections", id="pg_isready"),
        pytest.param("redis", ["redis-cli", "ping"], "PONG", id="redis-cli"),
        pytest.param("backend", ["node", "-p", "process.env.NODE_ENV"], "production", id="node"),
        pytest.param("nginx", ["sh", "-c", "nginx -t 2>&1"], "test is successful", id="nginx"),
    ],
)  # fmt: skip
def test_exec_reaches_the_service(demo: Demo, role: str, command: list[str], expected: str) -> None:
    """A command inside a service finds its programs and needs no password."""
    assert expected in demo.must("exec", role, "--", *command)


def test_exec_tells_missing_commands(demo: Demo) -> None:
    """There being no such command is 127, and a command's own status is passed on."""
    assert demo.run("exec", "redis", "--", "no-such-command").returncode == 127
    assert demo.run("exec", "redis", "--", "sh", "-c", "exit 7").returncode == 7


def test_inspect_and_logs_show_no_password(demo: Demo) -> None:
    """Inspecting Redis masks the password of its command line."""
    shown = demo.must("inspect", "redis") + demo.must("inspect", "redis", "--json")
    assert "--requirepass" in shown
    assert demo.environment("redis")["REDIS_PASSWORD"] not in shown
    demo.restart("postgres")
    assert "database system is ready" in demo.run("logs", "postgres", "--since", "1h").stderr
    assert "postgres" in demo.must("stats")
