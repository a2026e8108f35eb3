"""Environment files and the variables that services get: renamed, broken, opened, emptied, left as in the example."""

from __future__ import annotations

from pathlib import Path

from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.suite import Health as Suite
from tests.checks.service.targets import CHAPTERS, CONTAINERS, DISCOVERED, demo_target

# A placeholder that is long enough for the application to start with.
PLACEHOLDER = "your-super-secret-jwt-key-change-in-production"


class TestRequiredEnvironment:
    """service.required-env"""

    def test_empty(self, demo: Demo, suite: Suite) -> None:
        """A variable that is set to nothing is missing, even where the service still runs."""
        demo.set_env("backend", DATABASE_NAME="")
        demo.recreate("backend")
        demo.wait_healthy("backend")
        suite(*CONTAINERS, target=demo_target(demo.state)).blames("service.required-env[backend]")

    def test_default(self, demo: Demo, suite: Suite) -> None:
        """Without a port the software takes its usual one: said, but no failure here."""
        demo.unset_env("backend", "DATABASE_PORT")
        demo.recreate("backend")
        run = suite(*CONTAINERS, "-k", "required", target=demo_target(demo.state))
        run.warns("service.required-env[backend]")
        assert "DATABASE_PORT" in run.finding("service.required-env[backend]")["message"]

    def test_placeholder(self, demo: Demo, suite: Suite) -> None:
        """A secret as the example file has it warns, without being shown."""
        demo.set_env("backend", JWT_ACCESS_SECRET=PLACEHOLDER, COOKIE_SECRET="changeme")
        demo.recreate("backend")
        demo.wait_healthy("backend")
        run = suite(*CONTAINERS, target=demo_target(demo.state))
        run.warns("service.required-env[backend]")
        message = run.finding("service.required-env[backend]")["message"]
        assert message == "left as in the example: JWT_ACCESS_SECRET, COOKIE_SECRET"
        assert PLACEHOLDER not in run.output + str(run.snapshot)
        assert run.snapshot["verdict"]["escalation"] == "now: call the manager"

    def test_values_stay_inside(self, demo: Demo, suite: Suite) -> None:
        """No value of any environment is in the snapshot, only its length and a token."""
        run = suite(*CONTAINERS, target=demo_target(demo.state))
        evidence = run.snapshot["evidence"]["environment[backend]"]["variables"]["JWT_ACCESS_SECRET"]
        assert evidence["length"] == 64
        for value in demo.environment("backend").values():
            assert len(value) < 12 or value not in str(run.snapshot["evidence"]["environment[backend]"])


class TestEnvironmentFile:
    """service.env-file"""

    def test_syntax(self, demo: Demo, suite: Suite) -> None:
        """A line that is no setting fails with its number, and its text is not shown."""
        file = demo.folder.env_file("backend")
        text = file.read_text()
        file.write_text(f"{text}JWT SECRET canary-4711\n")
        try:
            run = suite(*CHAPTERS, target=demo_target(demo.state))
            printed = run.do("service.env-file[backend]", part="look", steps=[1])
        finally:
            file.write_text(text)
        run.blames("service.env-file[backend]")
        number = str(text.count("\n") + 1)
        assert f"line {number} is no setting" in run.finding("service.env-file[backend]")["message"]
        assert printed == [f"{number}\n"]
        assert "canary-4711" not in run.output + str(run.snapshot)

    def test_named_in_the_target_file(self, demo: Demo, suite: Suite, tmp_path: Path) -> None:
        """A target file may say where it is; a variable that is set twice warns."""
        file = tmp_path / "backend.env"
        file.write_text("PORT=3000\nPORT=3001\n")
        file.chmod(0o600)
        more = f'[services.backend]\nenv_file = "{file}"\n'
        run = suite(*CONTAINERS, target=demo_target(demo.state, more))
        run.warns("service.env-file[backend]")
        assert "sets PORT twice" in run.finding("service.env-file[backend]")["message"]

    def test_compose_project(self, stack: Stack, suite: Suite) -> None:
        """The .env that a compose project is filled in from is found by the containers' labels, and missed."""
        file = stack.folder / ".env"
        run = suite(*CONTAINERS, target=DISCOVERED)
        assert run.outcome("service.env-file[backend]") == "pass"
        assert run.outcome("service.env-file[frontend]") == "not-applicable"
        kept = file.rename(file.with_name("env.aside"))
        try:
            suite(*CONTAINERS, target=DISCOVERED).blames("service.env-file[backend]")
        finally:
            kept.rename(file)
