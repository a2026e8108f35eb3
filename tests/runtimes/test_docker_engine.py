"""The Docker runtime, against a real engine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from allodoc_health.runtimes import docker_engine
from allodoc_health.runtimes.docker_engine import DockerRuntime, DockerWords, EngineApi, state_of, usage_from_cgroup
from allodoc_health.runtimes.interface import (
    DeadlineExceeded,
    HealthStatus,
    RuntimeUnavailable,
    ServiceUnavailable,
    Status,
)
from tests.beds.docker import ContainerFactory, Engine, Stack, wait_until

SECOND = 1_000_000_000  # The Engine API counts nanoseconds.
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def sh(script: str) -> list[str]:
    """A shell command as a container's command."""
    return ["sh", "-c", script]


class TestStates:
    """What a container's state tells."""

    def test_running(self, container: ContainerFactory) -> None:
        """A running container has a process, its limits, its policy, and no exit code yet."""
        made = container(memory="64m", cpus=0.5, restart="on-failure", labels={"com.example.team": "ops"})
        state = made.state
        assert (state.status, state.name, state.role) == (Status.RUNNING, made.name, "service")
        assert state.running
        assert state.pid
        assert state.exit_code is None
        assert (state.memory_limit, state.cpu_limit) == (64 * 1024 * 1024, 0.5)
        assert state.restart_policy == "on-failure"
        assert state.labels is not None
        assert state.labels["com.example.team"] == "ops"
        assert state.started_at is not None
        assert abs(datetime.now(UTC) - state.started_at) < timedelta(seconds=30)

    def test_created(self, container: ContainerFactory) -> None:
        """A container that was never started is `created` and has never ended."""
        state = container(start=False).state
        assert (state.status, state.exit_code, state.started_at) == (Status.CREATED, None, None)

    def test_port_conflict(self, container: ContainerFactory) -> None:
        """A container whose port is taken stays `created`, and the engine's reason names the port."""
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            made = container(publish={3000: port}, network="bridge", start=False)
            with pytest.raises(Exception, match="address already in use"):
                made.start()
            state = made.state
        assert state.status is Status.CREATED
        assert f"127.0.0.1:{port}" in state.error
        assert [(p.host_ip, p.host_port, p.port) for p in state.ports] == [("127.0.0.1", port, 3000)]

    def test_paused(self, container: ContainerFactory) -> None:
        """A frozen container is `paused`, and runs again afterwards."""
        made = container()
        made.pause()
        paused = made.state
        made.unpause()
        assert (paused.status, made.state.status) == (Status.PAUSED, Status.RUNNING)

    @pytest.mark.parametrize(
        ("script", "code"),
        [("exit 0", 0), ("exit 1", 1), ("exit 127", 127), ("kill -SEGV $$", 139)],
        ids=["clean", "application", "command", "segfault"],
    )
    def test_exit_code(self, container: ContainerFactory, script: str, code: int) -> None:
        """A container that ended tells its exit code and when it ended."""
        state = container(sh(script)).wait_status(Status.EXITED)
        assert (state.exit_code, state.pid, state.running) == (code, None, False)
        assert state.finished_at is not None

    def test_stopped(self, container: ContainerFactory) -> None:
        """A container that was asked to end tells 143."""
        made = container()
        made.stop()
        assert (made.state.status, made.state.exit_code) == (Status.EXITED, 143)

    def test_killed(self, container: ContainerFactory) -> None:
        """A container that was killed tells 137, and that memory was not the reason."""
        made = container(init=False)
        made.kill()
        state = made.wait_status(Status.EXITED)
        assert (state.exit_code, state.oom_killed) == (137, False)

    def test_killed_for_memory(self, container: ContainerFactory) -> None:
        """A container that the kernel killed for its memory limit says so."""
        state = container(["tail", "/dev/zero"], memory="16m", init=False).wait_status(Status.EXITED, 20)
        assert (state.exit_code, state.oom_killed) == (137, True)

    def test_killed_for_memory_and_missed(self, container: ContainerFactory) -> None:
        """A kill for memory that the engine missed is found in the kernel's log, and belongs to that container only."""
        if not any(docker_engine.kernel_log()):
            pytest.skip("the kernel's log may not be read here")
        other = container(init=False)
        other.kill()
        state = container(["tail", "/dev/zero"], memory="16m", init=False).wait_status(Status.EXITED, 20)
        missed = docker_engine._with_oom_from_kernel(dataclasses.replace(state, oom_killed=False))
        assert missed.oom_killed
        assert not other.wait_status(Status.EXITED).oom_killed

    def test_restart_loop(self, container: ContainerFactory) -> None:
        """A crash loop shows as `restarting`, with a growing count and the exit code of the last run."""
        made = container(sh("exit 3"), restart="always")
        wait_until(lambda: made.state.restart_count >= 2, 15, "it was restarted twice")
        state = made.wait_status(Status.RESTARTING)
        assert state.exit_code == 3

    def test_exit_code_before_the_restart(self, container: ContainerFactory) -> None:
        """A container that runs again after a crash still tells how its last run ended."""
        made = container(sh("if [ -e /tmp/second ]; then sleep 600; fi; touch /tmp/second; exit 7"), restart="always")
        wait_until(lambda: made.state.restart_count == 1 and made.state.running, 15, "it runs again")
        assert made.state.exit_code == 7

    def test_missing(self, container: ContainerFactory) -> None:
        """A container that was removed, or never was, is `missing` under the name that it should have."""
        made = container()
        made.remove()
        state = made.state
        assert (state.status, state.name, state.id) == (Status.MISSING, made.name, "")

    @pytest.mark.parametrize(
        ("word", "status"),
        [
            ("dead", Status.DEAD),
            ("removing", Status.REMOVING),
            ("configured", Status.CREATED),
            ("stopped", Status.EXITED),
        ],
        ids=["dead", "removing", "podman-configured", "podman-stopped"],
    )
    def test_rare_words(self, word: str, status: Status) -> None:
        """States that are hard to provoke, and Podman's own words, are understood."""
        assert state_of("backend", {"Name": "/x", "State": {"Status": word}}).status is status

    def test_health_starting(self, container: ContainerFactory) -> None:
        """While the start period lasts, failing probes leave the health at `starting`."""
        check = {"test": ["CMD", "false"], "interval": SECOND // 5, "start_period": 600 * SECOND}
        state = container(healthcheck=check).wait_health(HealthStatus.STARTING)
        assert state.health is not None
        assert state.health.failing_streak == 0

    def test_health_healthy(self, container: ContainerFactory) -> None:
        """A probe that succeeds makes it `healthy`, with the probe's time."""
        state = container(healthcheck={"test": ["CMD", "true"], "interval": SECOND // 5}).wait_health(
            HealthStatus.HEALTHY
        )
        assert state.health is not None
        assert state.health.checked_at is not None

    def test_health_unhealthy(self, container: ContainerFactory) -> None:
        """Probes that fail make it `unhealthy`, with the streak and what the last one printed."""
        check = {"test": ["CMD-SHELL", "echo no database; exit 1"], "interval": SECOND // 5, "retries": 2}
        state = container(healthcheck=check).wait_health(HealthStatus.UNHEALTHY)
        assert state.health is not None
        assert state.health.last_output == "no database"
        assert state.health.failing_streak >= 2

    def test_replicas(self, container: ContainerFactory) -> None:
        """Of several containers of one compose service the worst counts, and none is lost."""
        labels = {"com.docker.compose.project": "bed-replicas", "com.docker.compose.service": "api"}
        first, second = container(labels=labels), container(sh("exit 1"), labels=labels)
        second.wait_status(Status.EXITED)
        assert first.state.name == second.name
        found = first.runtime.replicas(5)["service"]
        assert [(state.name, state.status) for state in found] == [
            (second.name, Status.EXITED),
            (first.name, Status.RUNNING),
        ]

    def test_network(self, container: ContainerFactory) -> None:
        """The networks and the addresses there are told."""
        network = container.network()
        state = container(network=network).state
        assert state.networks == (network,)
        assert len(state.addresses) == 1

    def test_neighbours(self, container: ContainerFactory) -> None:
        """Who has an address is told as long as it runs, of the networks that were asked for."""
        network = container.network()
        first, second = container(network=network), container(network=network, env={"CLINIC": "north"})
        (address,) = second.state.addresses
        found = first.runtime.neighbours({address, "192.0.2.9"}, {network}, 5)
        assert {address: second.name} == {key: value.name for key, value in found.items()}
        assert found[address].environment["CLINIC"] == "north"
        assert "north" not in repr(found)
        assert first.runtime.neighbours({address}, {"another"}, 5) == {}
        second.kill()
        second.wait_status(Status.EXITED)
        assert first.runtime.neighbours({address}, {network}, 5) == {}

    def test_environment(self, container: ContainerFactory) -> None:
        """The environment is what the container was given, also when it does not run."""
        made = container(env={"DATABASE_URL": "a=b=c", "EMPTY": ""}, start=False)
        environment = made.runtime.environment("service", 5)
        assert (environment["DATABASE_URL"], environment["EMPTY"]) == ("a=b=c", "")


class TestExecute:
    """Commands inside a container."""

    def test_streams_and_exit_code(self, container: ContainerFactory) -> None:
        """Both streams come apart, with the exit code."""
        done = container().runtime.execute("service", sh("echo out; echo err >&2; exit 5"), 5)
        assert (done.exit_code, done.stdout, done.stderr) == (5, b"out\n", b"err\n")

    def test_stdin(self, container: ContainerFactory) -> None:
        """What is sent as input arrives whole, and ends."""
        text = b"x" * 300_000
        assert container().runtime.execute("service", ["wc", "-c"], 10, stdin=text).stdout.strip() == b"300000"

    def test_stdin_that_nobody_reads(self, container: ContainerFactory) -> None:
        """A command that ends without reading its input has still ended well."""
        assert container().runtime.execute("service", ["true"], 10, stdin=b"x" * 300_000).exit_code == 0

    def test_user(self, container: ContainerFactory) -> None:
        """A command runs as the user that was asked for."""
        assert container().runtime.execute("service", ["id", "-un"], 5, user="postgres").stdout == b"postgres\n"

    def test_early_output_is_not_lost(self, container: ContainerFactory) -> None:
        """Output that comes together with the answer's head is there, every time."""
        runtime = container().runtime
        assert [runtime.execute("service", ["echo", "x"], 5).stdout for _ in range(10)] == [b"x\n"] * 10

    def test_much_output(self, container: ContainerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        """A command that prints without end is cut, and its memory is not ours."""
        monkeypatch.setattr(docker_engine, "OUTPUT_LIMIT", 1000)
        done = container().runtime.execute("service", sh("yes | head -c 5000000"), 10)
        assert (done.exit_code, len(done.stdout)) == (0, 1000)

    def test_missing_command(self, container: ContainerFactory) -> None:
        """A program that is not there is told as such."""
        done = container().runtime.execute("service", ["netstat", "-ln"], 5)
        assert done.command_missing
        assert b"netstat" in done.stderr

    def test_no_shell(self, engine: Engine, container: ContainerFactory) -> None:
        """An image without a shell can be looked at; only its missing programs are missing."""
        made = container(["/sleep", "600"], image=engine.bare)
        assert made.state.running
        assert made.runtime.execute("service", sh("true"), 5).command_missing
        assert made.runtime.execute("service", ["/sleep", "0"], 5).exit_code == 0
        assert made.runtime.usage("service", 5).memory > 0

    def test_read_only(self, container: ContainerFactory) -> None:
        """A read-only root is no obstacle."""
        runtime = container(read_only=True).runtime
        assert runtime.execute("service", ["true"], 5).exit_code == 0
        assert b"Read-only" in runtime.execute("service", ["touch", "/x"], 5).stderr

    def test_deadline(self, container: ContainerFactory) -> None:
        """A command that never ends is given up in time, and nothing of it stays; others of the container do."""
        made = container(sh("sleep 600 & sleep 600"))
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"was not over after 0\.5 s"):
            made.runtime.execute("service", sh("sleep 4321; true"), 0.5)
        assert time.monotonic() - started < 1.5
        look = sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        wait_until(lambda: b"sleep 4321" not in made.runtime.execute("service", look, 5).stdout, 5, "it is gone")
        assert made.runtime.execute("service", look, 5).stdout.count(b"sleep 600") >= 2

    def test_frozen_process(self, container: ContainerFactory) -> None:
        """A client that waits for a frozen server inside is given up in time."""
        made = container(["redis-server", "--save", ""], init=False)
        made.wait_log("Ready to accept connections")
        made.kill("STOP")
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            made.runtime.execute("service", ["redis-cli", "ping"], 0.5)
        assert time.monotonic() - started < 1.5
        made.kill("CONT")
        assert made.runtime.execute("service", ["redis-cli", "ping"], 5).stdout == b"PONG\n"

    def test_paused(self, container: ContainerFactory) -> None:
        """A paused container is not entered."""
        made = container()
        made.pause()
        with pytest.raises(ServiceUnavailable, match=f"{made.name} is paused"):
            made.runtime.execute("service", ["true"], 5)

    def test_stopped(self, container: ContainerFactory) -> None:
        """A stopped container is not entered, and uses nothing."""
        made = container(["true"])
        made.wait_status(Status.EXITED)
        with pytest.raises(ServiceUnavailable, match=f"{made.name} is exited"):
            made.runtime.execute("service", ["true"], 5)
        with pytest.raises(ServiceUnavailable, match=f"{made.name} is exited"):
            made.runtime.usage("service", 5)

    def test_restarting(self, container: ContainerFactory) -> None:
        """A container in its back-off is not entered."""
        made = container(sh("exit 1"), restart="always")
        wait_until(lambda: made.state.restart_count >= 4, 15, "the back-off is long enough to be seen")
        made.wait_status(Status.RESTARTING)
        with pytest.raises(ServiceUnavailable, match="is restarting"):
            made.runtime.execute("service", ["true"], 5)

    def test_missing_service(self, engine: Engine) -> None:
        """A missing container, and a role that the target has not, each have their sentence."""
        runtime = DockerRuntime({"redis": "bed-nobody"})
        with pytest.raises(ServiceUnavailable, match="redis: there is no container bed-nobody"):
            runtime.execute("redis", ["true"], 5)
        with pytest.raises(ServiceUnavailable, match="nginx: this target has no such service"):
            runtime.execute("nginx", ["true"], 5)


class TestLogs:
    """What containers wrote."""

    def test_both_streams_in_order(self, container: ContainerFactory) -> None:
        """Both streams are merged by time, told apart, with aware times."""
        made = container(sh("echo one; sleep 0.05; echo two >&2; sleep 0.05; printf three"))
        made.wait_status(Status.EXITED)
        chunk = made.runtime.logs("service", LONG_AGO, 10_000, 5)
        assert [line[1:] for line in chunk.lines] == [("stdout", "one"), ("stderr", "two"), ("stdout", "three")]
        assert not chunk.truncated
        assert all(datetime.now(UTC) - when < timedelta(minutes=1) for when, _, _ in chunk.lines)

    def test_window(self, container: ContainerFactory) -> None:
        """Lines from before the window are left out, and that is no truncation."""
        made = container(sh("echo old; sleep 0.3; echo new"))
        made.wait_status(Status.EXITED)
        first = made.runtime.logs("service", LONG_AGO, 10_000, 5).lines[0][0]
        chunk = made.runtime.logs("service", first + timedelta(milliseconds=100), 10_000, 5)
        assert [text for _, _, text in chunk.lines] == ["new"]
        assert not chunk.truncated

    def test_bounded(self, container: ContainerFactory) -> None:
        """Of a long log the newest bytes come, quickly, and the rest is said to be missing."""
        made = container(sh("seq -f 'line %07.0f of a log that is long' 300000"))
        made.wait_status(Status.EXITED, 30)
        started = time.monotonic()
        chunk = made.runtime.logs("service", LONG_AGO, 100_000, 5)
        assert time.monotonic() - started < 1
        assert chunk.truncated
        assert chunk.lines[-1][2].startswith("line 0300000 ")
        assert 90_000 < sum(len(text) + 1 for _, _, text in chunk.lines) <= 100_000

    def test_short_lines(self, container: ContainerFactory) -> None:
        """Many very short lines fill the limit too: the first guess of how many to ask for is corrected."""
        made = container(sh("seq 20000"))
        made.wait_status(Status.EXITED, 20)
        chunk = made.runtime.logs("service", LONG_AGO, 50_000, 5)
        assert chunk.truncated
        assert 45_000 < sum(len(text) + 1 for _, _, text in chunk.lines) <= 50_000
        assert len(made.runtime.logs("service", LONG_AGO, 500_000, 5).lines) == 20_000

    def test_little_is_read(self, container: ContainerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a log of very long lines no more is read than a few times what is kept."""
        line = "head -c 10000 /dev/zero | tr '\\0' x > /line; echo >> /line;"
        made = container(sh(f"{line} for i in $(seq 800); do cat /line; done; echo end"))
        made.wait_status(Status.EXITED, 30)
        read = []
        frames = docker_engine._frames

        def counted(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
            for stream, payload in frames(pieces):
                read.append(len(payload))
                yield stream, payload

        monkeypatch.setattr(docker_engine, "_frames", counted)
        chunk = made.runtime.logs("service", LONG_AGO, 100_000, 5)
        assert chunk.truncated
        assert chunk.lines[-1][2] == "end"
        assert 50_000 < sum(len(text) + 1 for _, _, text in chunk.lines) <= 100_000
        assert sum(read) < 600_000

    def test_long_line(self, container: ContainerFactory) -> None:
        """A line that the engine cuts in pieces is one line again; one beyond the limit is cut."""
        made = container(sh("head -c 50000 /dev/zero | tr '\\0' x; echo; echo end"))
        made.wait_status(Status.EXITED)
        lines = made.runtime.logs("service", LONG_AGO, 100_000, 5).lines
        assert [len(text) for _, _, text in lines] == [50_000, 3]
        chunk = made.runtime.logs("service", LONG_AGO, 20_000, 5)
        assert chunk.truncated
        assert chunk.lines[-1][2] == "end"

    def test_terminal(self, container: ContainerFactory) -> None:
        """A container with a terminal has one stream, without frames."""
        made = container(sh("echo one; echo two >&2"), tty=True)
        made.wait_status(Status.EXITED)
        chunk = made.runtime.logs("service", LONG_AGO, 10_000, 5)
        assert [line[1:] for line in chunk.lines] == [("stdout", "one"), ("stdout", "two")]

    def test_binary(self, container: ContainerFactory) -> None:
        """Bytes that are no text do not break anything."""
        made = container(sh("head -c 3000 /dev/urandom; echo; echo end"))
        made.wait_status(Status.EXITED)
        assert made.runtime.logs("service", LONG_AGO, 10_000, 5).lines[-1][2] == "end"

    def test_silent(self, container: ContainerFactory) -> None:
        """A container that wrote nothing has an empty log."""
        assert container().runtime.logs("service", LONG_AGO, 1000, 5).lines == ()

    def test_missing(self, engine: Engine) -> None:
        """A missing container has no log."""
        with pytest.raises(ServiceUnavailable):
            DockerRuntime({"redis": "bed-nobody"}).logs("redis", LONG_AGO, 1000, 5)


class TestUsage:
    """Memory and CPU time."""

    @pytest.fixture(params=["cgroup", "api"])
    def source(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """Where the numbers come from."""
        if request.param == "api":
            monkeypatch.setattr(EngineApi, "local", False)
        return str(request.param)

    def test_numbers(self, container: ContainerFactory, source: str) -> None:
        """A container that holds 40 MB and is throttled shows both, without the page cache."""
        script = "x=$(head -c 40000000 /dev/zero | tr '\\0' x); head -c 200000000 /dev/zero > /cache; echo ready; "
        made = container(sh(f"{script} while :; do :; done"), cpus=0.5, memory="512m")
        made.wait_log("ready", 20)
        wait_until(lambda: made.runtime.usage("service", 5).throttled_seconds, 10, "it is throttled")
        usage = made.runtime.usage("service", 5)
        assert 35e6 < usage.memory < 180e6
        assert usage.cpu_seconds > 0.05
        assert (usage.oom_kills is None) is (source == "api")

    def test_survived_oom_kill(self, container: ContainerFactory) -> None:
        """A process inside that was killed for memory is counted, though the container runs on."""
        made = container(sh("tail /dev/zero; echo killed; sleep 600"), memory="16m")
        made.wait_log("killed", 20)
        assert made.state.running
        assert made.runtime.usage("service", 5).oom_kills == 1

    def test_version_2(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The files of cgroup version 2 under systemd are read as well."""
        identity = "a" * 64
        folder = tmp_path / "system.slice" / f"docker-{identity}.scope"
        folder.mkdir(parents=True)
        (folder / "memory.current").write_text("5000\n")
        (folder / "memory.stat").write_text("anon 3000\ninactive_file 1500\n")
        (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
        (folder / "cpu.stat").write_text("usage_usec 2500000\nnr_throttled 4\nthrottled_usec 500000\n")
        (folder / "pids.current").write_text("12\n")
        (folder / "pids.max").write_text("max\n")
        line = f"0::/system.slice/docker-{identity}.scope\n"
        monkeypatch.setattr(docker_engine, "_cgroup_text", lambda pid: line)
        usage = usage_from_cgroup(4242, identity, tmp_path)
        assert usage is not None
        assert (usage.memory, usage.cpu_seconds, usage.throttled_seconds, usage.oom_kills) == (3500, 2.5, 0.5, 2)
        assert (usage.tasks, usage.tasks_limit) == (12, None)

    def test_limit_of_tasks(self, container: ContainerFactory, source: str) -> None:
        """How many processes and threads run, and how many may."""
        made = container(sh("sleep 600 & sleep 600 & wait"))
        assert made.runtime.usage("service", 5).tasks_limit is None
        subprocess.run(["docker", "update", "--pids-limit", "7", made.name], capture_output=True, check=True)
        wait_until(lambda: made.runtime.usage("service", 5).tasks == 4, 10, "it to have started its two")
        assert made.runtime.usage("service", 5).tasks_limit == 7

    def test_process_of_another_machine(self) -> None:
        """A process number that is no container's here is not believed."""
        assert usage_from_cgroup(os.getpid(), "b" * 64) is None


class TestWords:
    """The operator's commands are run as they are."""

    @pytest.fixture
    def run(self) -> Callable[[str], str]:
        """Runs a command as an operator who pastes it, without a terminal."""

        def paste(command: str) -> str:
            done = subprocess.run(
                ["bash", "-c", command],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            return done.stdout

        return paste

    def test_looking(self, container: ContainerFactory, run: Callable[[str], str]) -> None:
        """The commands that look show what they promise, and no secret."""
        made = container(sh("echo out; echo err >&2; sleep 600"), env={"JWT_SECRET": "canary-7f3"})
        made.wait_log("err")
        words = made.runtime.words
        shown = [words.ps(), words.inspect("service"), words.logs("service"), words.usage()]
        said = [run(command) for command in shown]
        assert made.name in said[0]
        assert said[1].startswith("running exit=0 oom=false restarts=0")
        assert sorted(said[2].splitlines()) == ["err", "out"]
        assert made.name in said[3]
        assert "canary-7f3" not in "".join(said)
        assert run(words.exec("service", "sh -c 'echo $0 $(id -un)' it", user="redis")) == "it redis\n"

    def test_mending(self, container: ContainerFactory, run: Callable[[str], str]) -> None:
        """The commands that mend do."""
        made = container()
        words = made.runtime.words
        run(words.stop("service"))
        assert made.state.status is Status.EXITED
        run(words.start("service"))
        assert made.state.running
        made.pause()
        run(words.unpause("service"))
        run(words.restart("service"))
        assert made.state.running

    def test_recreate(self, stack: Stack, run: Callable[[str], str]) -> None:
        """A compose service is made anew with its project's own files, even when its container is gone."""
        before = stack.states["frontend"].id
        run(stack.runtime.words.recreate("frontend"))
        after = stack.states["frontend"].id
        assert after != before
        stack.remove("frontend")
        assert stack.states["frontend"].status is Status.MISSING
        run(stack.runtime.words.recreate("frontend"))
        stack.wait_healthy()

    def test_without_compose(self) -> None:
        """What compose did not make is not promised to be recreated."""
        command = DockerWords({"redis": "my redis"}).recreate("redis")
        assert command.startswith("docker restart 'my redis'  # not made by compose")


class TestStack:
    """The guide's own stack."""

    def test_is_healthy(self, stack: Stack) -> None:
        """All five services are up, limited, restarted by policy, and only on the loopback address."""
        states = stack.states
        assert {state.health.status for state in states.values() if state.health} == {HealthStatus.HEALTHY}
        assert all(state.memory_limit and state.cpu_limit for state in states.values())
        assert {state.restart_policy for state in states.values()} == {"unless-stopped"}
        assert {port.host_ip for state in states.values() for port in state.ports} == {"127.0.0.1"}
        assert states["postgres"].ports[0].host_port == stack.ports["postgres"]

    def test_backend_is_lean(self, stack: Stack) -> None:
        """The backend runs under an init, unprivileged, on a read-only root, without the tools of the guide."""
        assert b"dumb-init" in stack.exec("backend", "cat", "/proc/1/cmdline").stdout
        assert stack.exec("backend", "id", "-u").stdout == b"1000\n"
        assert stack.exec("backend", "touch", "/app/x").exit_code == 1
        assert stack.exec("backend", "touch", "/tmp/x", "/app/logs/x").exit_code == 0
        assert all(stack.exec("backend", tool).command_missing for tool in ("curl", "psql", "ps", "netstat", "npm"))

    def test_redis_outage_and_back(self, stack: Stack) -> None:
        """Without Redis the backend crashes again and again; the bed makes both whole."""
        stack.stop("redis")
        stack.wait_until(lambda: stack.states["backend"].restart_count >= 1, 20, "the backend crashed")
        assert stack.states["redis"].status is Status.EXITED
        stack.restore()
        stack.wait_healthy(1)

    def test_changed_environment_and_back(self, stack: Stack) -> None:
        """A service can be made anew with another environment, and is as before afterwards."""
        stack.recreate("backend", env={"DATABASE_POOL_SIZE": "55", "CORS_ORIGIN": None})
        environment = stack.runtime.environment("backend", 5)
        assert environment["DATABASE_POOL_SIZE"] == "55"
        assert "CORS_ORIGIN" not in environment
        stack.restore()
        assert stack.runtime.environment("backend", 5)["DATABASE_POOL_SIZE"] == "10"

    def test_cheap(self, stack: Stack) -> None:
        """Looking at five services costs milliseconds."""
        stack.runtime.states(5)
        started = time.perf_counter()
        stack.runtime.states(5)
        assert time.perf_counter() - started < 0.25

    def test_info(self, stack: Stack) -> None:
        """The engine tells its version, its folder and its logging driver."""
        info = stack.runtime.info(5)
        assert (info.name, info.logging_driver) == ("Docker Engine", "json-file")
        assert info.version
        assert info.data_root.startswith("/")
        assert 0 < info.response_seconds < 2


@contextlib.contextmanager
def daemon(path: Path, answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A false daemon at a socket, which treats each connection and its request as ``answer`` does; its address."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def attend(connection: socket.socket, request: bytes) -> None:
            with connection, contextlib.suppress(OSError):
                answer(connection, request)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        # Somebody who only knocks says nothing.
                        if request := connection.recv(65536):
                            threading.Thread(target=attend, args=(connection.dup(), request), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"unix://{path}"
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


class TestUnavailable:
    """Each way in which the engine can be out of reach has its own sentence, in time."""

    @staticmethod
    def refusal(address: str, deadline: float = 0.5) -> str:
        """The sentence, after a check that it came in time."""
        started = time.monotonic()
        runtime = DockerRuntime({"redis": "x"}, address)
        with pytest.raises(RuntimeUnavailable) as caught:
            runtime.states(deadline)
        assert time.monotonic() - started < deadline + 0.7
        runtime.close()
        return str(caught.value)

    def test_no_socket(self, tmp_path: Path) -> None:
        """There is no socket."""
        assert self.refusal(f"unix://{tmp_path}/none") == f"no Docker daemon: there is no socket {tmp_path}/none"

    def test_nobody_listens(self, tmp_path: Path) -> None:
        """There is a socket, whose daemon is gone."""
        path = tmp_path / "gone.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        assert self.refusal(f"unix://{path}") == f"no Docker daemon: nobody listens at {path}"

    def test_no_permission(self) -> None:
        """The socket may not be opened by this user."""
        code = (
            "import os, docker, docker.context, docker.utils\n"
            "from allodoc_health.runtimes.docker_engine import DockerRuntime\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: DockerRuntime({'redis': 'x'}, 'unix:///var/run/docker.sock').states(5)\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        if os.getuid() != 0 or not Path("/var/run/docker.sock").exists():
            pytest.skip("only root can become a user without permission")
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.stdout.startswith("RuntimeUnavailable no permission to open the Docker daemon's socket"), done

    def test_silent(self, tmp_path: Path) -> None:
        """It takes the request and says nothing."""
        with daemon(tmp_path / "s", lambda *_: time.sleep(1)) as address:
            assert self.refusal(address) == "the Docker daemon gave no answer within 0.5 s"

    def test_silent_about_one_container(self, tmp_path: Path) -> None:
        """It answers all else, but not about one container: that one is to blame, and what was seen of it counts."""
        stuck = threading.Event()
        found = {"Id": "c0ffee", "Name": "/x", "Config": {"Env": ["A=b"]}, "State": {"Status": "running"}}

        def answer(connection: socket.socket, request: bytes) -> None:
            if stuck.is_set() and b"/containers/c0ffee/" in request.replace(b"/x/", b"/c0ffee/"):
                time.sleep(1)
                return
            listed = [{"Id": "c0ffee", "Names": ["/x"]}]
            body = json.dumps(listed if b"/containers/json" in request else found).encode()
            head = f"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)

        with daemon(tmp_path / "s", answer) as address:
            runtime = DockerRuntime({"redis": "x"}, address)
            fresh = DockerRuntime({"redis": "x"}, address)
            assert runtime.states(1)["redis"].running
            stuck.set()
            assert runtime.states(1)["redis"].running
            assert runtime.environment("redis", 1) == {"A": "b"}
            with pytest.raises(DeadlineExceeded, match=r"redis: .* no answer within .* about this container alone"):
                runtime.logs("redis", LONG_AGO, 1000, 0.5)
            with pytest.raises(DeadlineExceeded, match="about this container alone"):
                fresh.environment("redis", 0.5)
            runtime.close()
            fresh.close()

    def test_trickle(self, tmp_path: Path) -> None:
        """It says something now and then, and never ends: the deadline is for the whole."""
        ping = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"
        answered: list[bool] = []

        def trickle(connection: socket.socket, _request: bytes) -> None:
            if not answered:
                answered.append(True)
                connection.sendall(ping)
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            for _ in range(30):
                connection.sendall(b" ")
                time.sleep(0.1)

        with daemon(tmp_path / "s", trickle) as address:
            assert self.refusal(address) == "the Docker daemon gave no answer within 0.5 s"

    def test_something_else(self, tmp_path: Path) -> None:
        """It is no Docker Engine."""
        page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>"
        with daemon(tmp_path / "s", lambda connection, _: connection.sendall(page)) as address:
            assert "not as a Docker Engine does" in self.refusal(address)

    def test_breaks_off(self, tmp_path: Path) -> None:
        """It closes the connection without an answer."""
        with daemon(tmp_path / "s", lambda *_: None) as address:
            assert "broke off" in self.refusal(address)

    def test_nothing_is_imported_early(self) -> None:
        """Importing the runtime loads neither the SDK nor an HTTP client."""
        code = (
            "import sys, allodoc_health.runtimes.docker_engine as d; print({'docker', 'requests'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout == "set()\n"


class TestAddress:
    """Where the engine is looked for."""

    def test_docker_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """DOCKER_HOST goes first."""
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        with pytest.raises(RuntimeUnavailable, match=r"there is no socket /nowhere/docker\.sock"):
            DockerRuntime({}).info(2)

    def test_context(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The current Docker context is honoured."""
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        (tmp_path / "config.json").write_text(json.dumps({"currentContext": "other"}))
        from docker.context.config import get_context_id

        meta = tmp_path / "contexts" / "meta" / get_context_id("other")
        meta.mkdir(parents=True)
        endpoint = {"Host": "unix:///context/docker.sock", "SkipTLSVerify": False}
        (meta / "meta.json").write_text(
            json.dumps({"Name": "other", "Metadata": {}, "Endpoints": {"docker": endpoint}})
        )
        with pytest.raises(RuntimeUnavailable, match=r"there is no socket /context/docker\.sock"):
            DockerRuntime({}).info(2)

    def test_podman(self, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Where Docker has no socket, Podman's is used, and the operator's words are Podman's."""
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.setattr(docker_engine, "DOCKER_SOCKETS", ())
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        (tmp_path / "podman").mkdir()
        (tmp_path / "podman" / "podman.sock").symlink_to("/var/run/docker.sock")
        runtime = DockerRuntime({"redis": "x"})
        assert runtime.info(5).name == "Podman"
        assert runtime.words.start("redis") == "podman start x"


def test_frozen_daemon(engine: Engine, container: ContainerFactory) -> None:
    """A daemon that is stopped in its tracks costs the deadline and no more, for each question."""
    made = container()
    made.runtime.states(5)
    questions: list[Callable[[], object]] = [
        lambda: made.runtime.states(0.3),
        lambda: made.runtime.info(0.3),
        lambda: made.runtime.usage("service", 0.3),
        lambda: made.runtime.logs("service", LONG_AGO, 1000, 0.3),
        lambda: made.runtime.execute("service", ["true"], 0.3),
        lambda: DockerRuntime({"service": made.name}).states(0.3),
    ]
    with engine.frozen():
        for ask in questions:
            started = time.monotonic()
            with pytest.raises(RuntimeUnavailable, match=r"the Docker daemon gave no answer within 0\.\d+ s"):
                ask()
            assert time.monotonic() - started < 0.8
    assert made.state.running
