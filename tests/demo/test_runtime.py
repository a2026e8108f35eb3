"""The demo as the suite's runtime sees it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from allodoc_health.runtimes.interface import (
    DeadlineExceeded,
    HealthStatus,
    Runtime,
    RuntimeUnavailable,
    ServiceUnavailable,
    Status,
)
from allodoc_health.runtimes.process_supervisor import SupervisorRuntime, SupervisorWords
from demo.state import ROLES
from tests.beds.embedded import CHECKOUT, Demo


@pytest.fixture
def runtime(demo: Demo) -> Runtime:
    """The runtime of the demo."""
    return SupervisorRuntime(demo.state)


def test_states_of_a_healthy_demo(demo: Demo, runtime: Runtime) -> None:
    """Every service is running and healthy, with its real port under the conventional one."""
    states = runtime.states(2)
    assert {role: state.status for role, state in states.items()} == dict.fromkeys(ROLES, Status.RUNNING)
    assert {state.health.status for state in states.values() if state.health} == {HealthStatus.HEALTHY}
    assert {port.port: port.host_port for port in states["nginx"].ports} == {
        443: demo.port("nginx", 443),
        80: demo.port("nginx", 80),
    }
    assert states["postgres"].started_at is not None
    assert states["postgres"].mounts[0].source == str(demo.state / "postgres" / "data")
    assert SupervisorRuntime(demo.state, ["frontend"]).states(2)["frontend"].status is Status.MISSING
    assert runtime.info(2).data_root == str(demo.state)


def test_states_of_what_is_broken(demo: Demo, runtime: Runtime) -> None:
    """Stopped, paused and crashing services are told apart."""
    demo.stop("nginx")
    demo.set_env("backend", JWT_ACCESS_SECRET="")
    demo.recreate("backend")
    demo.pause("redis")
    demo.wait_until(lambda: runtime.states(2)["backend"].restart_count >= 2, what="a crash loop")
    states = runtime.states(2)
    assert states["nginx"].status is Status.EXITED
    assert states["nginx"].exit_code == 0
    assert states["redis"].status is Status.PAUSED
    assert states["backend"].exit_code == 1


def test_a_killed_process_is_not_running(demo: Demo, runtime: Runtime) -> None:
    """The moment after a kill, its pid is not shown as running."""
    pid = demo.pid("redis")
    redis = psutil.Process(pid)
    redis.kill()
    demo.wait_until(lambda: not redis.is_running() or redis.status() == psutil.STATUS_ZOMBIE, what="it to die")
    assert runtime.states(2)["redis"].pid != pid


def test_environment_is_what_the_service_was_given(demo: Demo, runtime: Runtime) -> None:
    """An edited file counts only after a recreation."""
    demo.set_env("backend", LOG_LEVEL="debug", ODD='it\'s a \\ "test" # $HOME')
    assert runtime.environment("backend", 2)["LOG_LEVEL"] == "log"
    demo.recreate("backend")
    assert runtime.environment("backend", 2)["LOG_LEVEL"] == "debug"
    assert runtime.environment("backend", 2)["ODD"] == 'it\'s a \\ "test" # $HOME'
    given = Path(f"/proc/{demo.pid('backend')}/environ").read_bytes().split(b"\0")
    assert b'ODD=it\'s a \\ "test" # $HOME' in given


def test_usage_is_plausible(demo: Demo, runtime: Runtime) -> None:
    """Node uses tens of megabytes; what does not run can't be measured."""
    usage = runtime.usage("backend", 2)
    assert 20 * 2**20 < usage.memory < 500 * 2**20
    assert usage.cpu_seconds > 0
    demo.stop("nginx")
    with pytest.raises(ServiceUnavailable):
        runtime.usage("nginx", 2)


def test_logs_are_bounded_and_ordered(demo: Demo, runtime: Runtime) -> None:
    """Both streams in order, only since then, only so many bytes, and truncation is told."""
    before = datetime.now(UTC)
    demo.run("exec", "backend", "--", "true")
    for _ in range(20):
        demo.sql("SELECT 1")
    demo.sql("DO $$ BEGIN FOR n IN 1..200 LOOP RAISE WARNING 'line %', n; END LOOP; END $$")
    demo.wait_until(lambda: "line 200" in demo.log_text("postgres"), what="the lines to arrive")
    whole = runtime.logs("postgres", before, 1_000_000, 2)
    assert not whole.truncated
    assert all(moment >= before for moment, _, _ in whole.lines)
    assert [moment for moment, _, _ in whole.lines] == sorted(moment for moment, _, _ in whole.lines)
    assert sum("WARNING:  line" in text for _, stream, text in whole.lines if stream == "stderr") == 200
    short = runtime.logs("postgres", before, 1000, 2)
    assert short.truncated
    assert 0 < sum(len(text) for _, _, text in short.lines) <= 1000
    assert short.lines[-1] == whole.lines[-1]
    assert runtime.logs("postgres", datetime.now(UTC) + timedelta(hours=1), 1000, 2).lines == ()


@pytest.mark.parametrize(
    ("role", "command", "expected"),
    [
        pytest.param("postgres", ["psql", "-U", "allodoc_prod", "-Atc", "SELECT 6*7"], b"42", id="psql"),
        pytest.param("redis", ["redis-cli", "ping"], b"PONG", id="redis-cli"),
        pytest.param("nginx", ["sh", "-c", "nginx -t 2>&1"], b"successful", id="nginx"),
        pytest.param("backend", ["node", "-p", "process.getuid() === Number(process.argv[1])"], b"true", id="node"),
    ],
)
def test_execute_inside(demo: Demo, runtime: Runtime, role: str, command: list[str], expected: bytes) -> None:
    """Commands reach the service they are run in, as its user."""
    if role == "backend":
        command = [*command, str(psutil.Process(demo.pid(role)).uids().effective)]
    done = runtime.execute(role, command, 5)
    assert (done.exit_code, done.stderr) == (0, b"")
    assert expected in done.stdout


def test_execute_passes_input_and_status(runtime: Runtime) -> None:
    """Standard input, exit codes, signals and missing commands."""
    assert runtime.execute("redis", ["cat"], 5, stdin=b"given" * 50000).stdout == b"given" * 50000
    assert runtime.execute("redis", ["sh", "-c", "echo bad >&2; exit 3"], 5).exit_code == 3
    assert runtime.execute("redis", ["sh", "-c", "kill -9 $$"], 5).exit_code == 137
    assert runtime.execute("redis", ["no-such-command"], 5).command_missing


def test_execute_ends_at_its_deadline(demo: Demo, runtime: Runtime) -> None:
    """A command that does not end is killed with its children, on time."""
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        runtime.execute("redis", ["sh", "-c", "sleep 987 & setsid sleep 987 & wait"], 0.3)
    assert time.monotonic() - began < 1.5
    assert not [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "987"]]
    demo.pause("redis")
    with pytest.raises(ServiceUnavailable):
        runtime.execute("redis", ["true"], 1)


def test_no_demo_is_no_runtime(tmp_path: Path) -> None:
    """Without a demo the runtime is unavailable, in a sentence."""
    with pytest.raises(RuntimeUnavailable, match="not up"):
        SupervisorRuntime(tmp_path).states(1)


def test_a_frozen_supervisor_is_no_runtime(demo: Demo, runtime: Runtime) -> None:
    """A supervisor that does not answer is noticed within the deadline."""
    supervisor = demo.document()["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(RuntimeUnavailable, match=r"no answer within 0\.3 s"):
            runtime.states(0.3)
        assert time.monotonic() - began < 1
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert runtime.states(2)["redis"].running


def test_a_stale_state_is_no_runtime(demo: Demo, tmp_path: Path) -> None:
    """A state file whose supervisor is another process by now is not believed."""
    document = demo.folder.state_file.read_text(encoding="utf-8")
    pid = demo.document()["supervisor"]["pid"]
    (tmp_path / "state.json").write_text(document.replace(f'"pid": {pid},', f'"pid": {os.getpid()},'), encoding="utf-8")
    with pytest.raises(RuntimeUnavailable, match="is gone"):
        SupervisorRuntime(tmp_path).info(1)


def test_words_work_in_a_shell(demo: Demo) -> None:
    """What a remedy prints does what it says when it is pasted in the checkout."""
    words = SupervisorWords(demo.state, python=shlex.quote(sys.executable))

    def paste(command: str) -> str:
        done = subprocess.run(["sh", "-c", command], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    paste(words.stop("nginx"))
    assert demo.service("nginx")["status"] == "exited"
    paste(words.start("nginx"))
    paste(words.restart("redis"))
    paste(words.recreate("backend"))
    demo.wait_healthy()
    demo.pause("nginx")
    paste(words.unpause("nginx"))
    assert "redis" in paste(words.ps())
    assert "MEMORY" in paste(words.usage())
    assert "restart_count" in paste(words.inspect("redis"))
    paste(words.restart("postgres"))
    assert "ready to accept connections" in paste(words.logs("postgres", "1h"))
    sql = shlex.quote("SELECT 'it''s ' || 6*7")
    assert "it's 42" in paste(words.exec("postgres", f"psql -U allodoc_prod -d allodoc_prod -c {sql}"))


def test_words_leave_out_the_default_state() -> None:
    """The usual state folder needs no option."""
    assert SupervisorWords(CHECKOUT / ".demo", python="python").start("redis") == "python -m demo start redis"
