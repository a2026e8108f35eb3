"""Looking again: until a target is well, or for as long as somebody watches; told once, as it is in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import pytest

from allodoc_health.looks import JITTER, LONGEST_PAUSE, Record, pauses
from tests.beds.docker import wait_until
from tests.beds.pretend import GONE, Pretend

pytest_plugins = ["pytester"]

CHECKS = """
    def looked(name):
        with Path(name).open("a") as file:
            file.write("look\\n")
        return len(Path(name).read_text().splitlines())

    @probe(guard="db.port")
    def door() -> int:
        number = looked("door")
        if not Path("open").exists() and number not in OPEN_AT:
            raise Failed("closed")
        return number

    @probe(guard="db.query")
    def room() -> int:
        number = looked("room")
        if Path("crowded").exists():
            time.sleep(1.5)
        return number

    @symptom("db.port", severity=Severity.CRITICAL)
    def test_port(door):
        \"\"\"It is open.\"\"\"

    @symptom("db.login", severity=Severity.CRITICAL)
    def test_login(door, finding):
        \"\"\"One can log in.\"\"\"
        finding.measure("room", 5, limit=Limit(warn=WARN_AT))

    @symptom("db.query", severity=Severity.MAJOR)
    def test_query(room):
        \"\"\"It answers.\"\"\"
"""


@pytest.fixture
def suite(pretend: Pretend) -> Callable[..., Pretend]:
    """A suite with a door that is closed until there is a file ``open``, but open at the looks of these numbers."""

    def make(open_at: tuple[int, ...] = (), warn_at: int = 9) -> Pretend:
        pretend.checks(f"    OPEN_AT = {open_at}\n    WARN_AT = {warn_at}\n" + CHECKS)
        pretend.target("prod")
        return pretend

    return make


def looks(suite: Pretend, name: str) -> int:
    """How often a probe has looked."""
    path = suite.folder / name
    return len(path.read_text().splitlines()) if path.exists() else 0


@contextmanager
def opened_after(suite: Pretend, number: int) -> Iterator[None]:
    """Have somebody open the door as soon as it has been looked at so often."""

    def somebody() -> None:
        wait_until(lambda: looks(suite, "door") >= number, 30, "another look")
        (suite.folder / "open").touch()

    thread = threading.Thread(target=somebody)
    thread.start()
    yield
    thread.join()


class TestWait:
    """--wait"""

    def test_until_green(self, suite: Callable[..., Pretend]) -> None:
        """What becomes green in time is green in the end; only what was not is looked at in between."""
        made = suite()
        with opened_after(made, 3):
            run = made.run("--target=prod", "--wait=30")
        assert run.exit_status == 0, run.output
        assert run.outcomes == {"db.port": "pass", "db.login": "pass", "db.query": "pass"}
        assert "waiting for db.port" in run.output
        waited = run.snapshot["waited"]
        assert set(waited["green_after"]) == {"db.port", "db.login"}
        assert waited["flapped"] == []
        assert waited["looks"] == looks(made, "door") >= 5
        assert looks(made, "room") == 2  # at first, and with everything in the end
        assert "2 became green, the last after" in run.output

    def test_green_at_once(self, suite: Callable[..., Pretend]) -> None:
        """A target that is well is looked at once."""
        made = suite(open_at=(1,))
        run = made.run("--target=prod", "--wait=30")
        assert run.exit_status == 0
        assert looks(made, "door") == looks(made, "room") == 1
        assert run.snapshot["waited"]["looks"] == 1

    def test_never_green(self, suite: Callable[..., Pretend]) -> None:
        """What does not become green in time fails, after a last look at everything."""
        made = suite()
        run = made.run("--target=prod", "--wait=2")
        assert run.exit_status == 1
        assert run.outcomes == {"db.port": "fail", "db.login": "blocked", "db.query": "pass"}
        assert "not all is green" in run.output
        assert looks(made, "room") == 2

    def test_to_and_fro(self, suite: Callable[..., Pretend]) -> None:
        """What was green and is not any more is waited for, too, and named in the end."""
        made = suite(open_at=(2,))
        with opened_after(made, 4):
            run = made.run("--target=prod", "--wait=30")
        assert run.exit_status == 0
        assert run.snapshot["waited"]["flapped"] == ["db.port", "db.login"]
        assert "to and fro: db.port, db.login" in run.output

    def test_strict(self, suite: Callable[..., Pretend]) -> None:
        """With --strict a warning is waited for as a failure is; without it is not."""
        assert suite(open_at=(1,), warn_at=1).run("--target=prod", "--wait=5").exit_status == 0
        made = suite(open_at=(1, 2, 3, 4, 5, 6), warn_at=1)
        strict = made.run("--target=prod", "--wait=1", "-o", "strict=true")
        assert strict.exit_status == 1
        assert "not all is green" in strict.output

    def test_a_stack_that_is_not_there_yet(self, suite: Callable[..., Pretend]) -> None:
        """What discovery does not find at first is waited for, too."""
        made = suite(open_at=(1,))
        (made.folder / GONE).touch()
        threading.Timer(3, (made.folder / GONE).unlink).start()
        run = made.run("--wait=30")
        assert run.exit_status == 0, run.output + run.errors
        assert run.outcomes["db.port"] == "pass"

    def test_a_stack_that_goes_away(self, suite: Callable[..., Pretend]) -> None:
        """What is found no more while it is waited for is said to be gone, with exit status 4 in the end."""
        made = suite()

        def take_away() -> None:
            wait_until(lambda: looks(made, "door"), 30, "a look")
            (made.folder / GONE).touch()

        thread = threading.Thread(target=take_away)
        thread.start()
        run = made.run("--wait=3")
        thread.join()
        assert run.exit_status == pytest.ExitCode.USAGE_ERROR
        assert "waiting for no AlloDoc found" in run.output
        assert "no AlloDoc found" in run.errors

    def test_a_stack_that_is_never_there(self, suite: Callable[..., Pretend]) -> None:
        """Without --wait nothing is waited for."""
        made = suite()
        (made.folder / GONE).touch()
        run = made.run()
        assert run.exit_status == pytest.ExitCode.USAGE_ERROR
        assert "no AlloDoc found" in run.errors

    def test_reports_are_made_once(self, suite: Callable[..., Pretend]) -> None:
        """JUnit and pytest's own counts know of one run of each check."""
        made = suite()
        with opened_after(made, 3):
            run = made.run("--target=prod", "--wait=30", "--junitxml=all.xml")
        assert "3 passed" in run.output
        assert (made.folder / "all.xml").read_text().count("<testcase") == 3


class TestWatch:
    """--watch"""

    def watching(self, made: Pretend, *arguments: str) -> subprocess.Popen[str]:
        """A run that watches, once it has looked."""
        command = [sys.executable, "-m", "pytest", "--target=prod", "--watch=1", "--reports=made", *arguments]
        running = subprocess.Popen(
            command, cwd=made.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
        )
        wait_until(lambda: looks(made, "door") >= 1, 20, "another look")
        return running

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_until_interrupted(self, suite: Callable[..., Pretend], number: signal.Signals) -> None:
        """Each turn is told with what changed; what interrupts it ends it with the report of its last look."""
        made = suite()
        running = self.watching(made)
        wait_until(lambda: looks(made, "door") >= 2, 20, "another look")
        (made.folder / "open").touch()
        opened = looks(made, "door")
        wait_until(lambda: looks(made, "door") >= opened + 3, 20, "another look")
        running.send_signal(number)
        output, _ = running.communicate(timeout=20)
        assert running.returncode == 0, output
        assert "prod is failing: db.port" in output
        assert "db.port: fail (closed) → pass" in output
        assert output.rstrip().splitlines()[-1].startswith("prod is healthy")
        latest = json.loads((made.folder / "made" / "latest.json").read_text("utf-8"))
        assert latest["verdict"]["state"] == "healthy"
        assert looks(made, "room") == looks(made, "door")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted_within_a_look(self, suite: Callable[..., Pretend], number: signal.Signals) -> None:
        """The look comes to its end, and is what is told: half of one would be a disaster that isn't."""
        made = suite()
        (made.folder / "open").touch()
        running = self.watching(made)
        (made.folder / "crowded").touch()
        entered = looks(made, "room")
        wait_until(lambda: looks(made, "room") > entered, 20, "another look")
        running.send_signal(number)
        output, _ = running.communicate(timeout=20)
        assert running.returncode == 0, output
        assert output.rstrip().splitlines()[-1].startswith("prod is healthy   (3 passed")
        assert looks(made, "room") == entered + 1, "nothing is looked at once more"

    def test_ends_as_it_is(self, suite: Callable[..., Pretend]) -> None:
        """The exit status is that of the last look."""
        made = suite()
        running = self.watching(made, "--no-reports")
        wait_until(lambda: looks(made, "door") >= 2, 20, "another look")
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=20)
        assert running.returncode == 1, output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--wait=5", "--watch=5"), "choose one"),
        (("--wait=-1",), "--wait takes seconds"),
        (("--budget=0",), "a number of seconds above 0"),
        (("--watch=0.2",), "--watch at least 1 of them"),
        (("--deploy-window=-5",), "--deploy-window takes seconds"),
        (("--deploy-window=5", "--watch=5"), "choose one"),
        (("--watch=5", "-n2"), "leave out -n"),
        (("--deploy-window=5", "-n2"), "leave out -n"),
        (("--wait=5", "--replay=x.json"), "leave one of them out"),
    ],
)
def test_what_makes_no_sense(suite: Callable[..., Pretend], arguments: tuple[str, ...], said: str) -> None:
    """Options that contradict one another, or themselves, end the run before it begins."""
    run = suite().run("--target=prod", *arguments)
    assert run.exit_status == pytest.ExitCode.USAGE_ERROR
    assert said in run.errors


def test_pauses_grow() -> None:
    """The pauses between looks grow to a limit and are never quite the same."""
    one, other = (list(islice(pauses(), 30)) for _ in range(2))
    assert one != other
    assert max(one) <= LONGEST_PAUSE * (1 + JITTER)
    assert sum(one[-5:]) > 2 * sum(one[:5])


def test_the_record_of_a_wait() -> None:
    """What turned green has its moment, what did so twice is named, and what always was is not mentioned."""
    record = Record()
    for seconds, states in [(1, "rgr"), (2, "ggr"), (3, "rgr"), (4, "ggr")]:
        record.note(float(seconds), {name: state == "g" for name, state in zip("abc", states, strict=True)})
    waited = record.waited(4.0, 10.0, 4)
    assert waited.green_after == {"a": 4.0}
    assert waited.flapped == ("a",)
