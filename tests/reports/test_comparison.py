"""What changed since another run: found, worded, shown; and nothing where nothing did."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.comparison import is_beyond_noise
from tests.beds.pretend import Pretend

pytest_plugins = ["pytester"]

CHECKS = """
    from dataclasses import dataclass

    @dataclass(frozen=True, slots=True)
    class Server:
        name: str
        version: str
        secret: str
        connections: int

    @probe(guard="db.port")
    def servers() -> tuple[Server, ...]:
        return (Server("first", "15.1", "‹7f3a2b›", 5), Server("second", "{version}", "‹{secret}›", {connections}))

    @probe(guard="db.port")
    def pool_settings() -> dict[str, str]:
        return {{"pool": "{pool}"}}

    @symptom("db.connections", severity=Severity.MAJOR, smoke=True)
    def test_connections(servers, finding):
        \"\"\"There is room.\"\"\"
        limit = Limit(warn=50, fail=90)
        finding.measure("connections in use", servers[1].connections, of=100, limit=limit)

    @symptom("db.pool", severity=Severity.MINOR)
    def test_pool(pool_settings, finding):
        \"\"\"It pools.\"\"\"
        finding["{part}"].says("looked at")
"""
BEFORE = {"version": "15.1", "secret": "aaaaaa", "connections": 10, "pool": "5", "part": "one"}
AFTER = {"version": "15.2", "secret": "bbbbbb", "connections": 60, "pool": "7", "part": "two"}


@pytest.fixture
def suite(pretend: Pretend) -> Pretend:
    """A suite with a run of it in ``old.json``."""
    pretend.target("prod")
    pretend.checks(CHECKS.format(**BEFORE))
    pretend.run("--target=prod", "--no-reports", "--snapshot=old.json")
    return pretend


def test_changes_are_told(suite: Pretend) -> None:
    """Verdict, finding, measurement, version, setting, each with what it was; tokens of two runs are not compared."""
    suite.checks(CHECKS.format(**AFTER))
    run = suite.run("--target=prod", "--no-reports", "--diff=old.json")
    assert [line.strip() for line in run.lines if "→" in line] == [
        "prod: healthy → warning",
        "db.connections: pass → warn (60 of 100 connections in use = 60 %   (warn at 50 %))",
        "db.connections connections in use: 10 % → 60 %",
        "servers.second.version: 15.1 → 15.2",
        "pool_settings.pool: 5 → 7",
    ]
    assert "looked at only then: db.pool[one]" in run.output
    assert "looked at only now: db.pool[two]" in run.output
    assert run.exit_status == 0


def test_nothing_changed(suite: Pretend) -> None:
    """The same again is said to be the same, and a difference within the noise is none."""
    suite.checks(CHECKS.format(**{**BEFORE, "connections": 12}))
    run = suite.run("--target=prod", "--no-reports", "--diff=old.json")
    assert "nothing changed since" in run.output


def test_two_snapshots(suite: Pretend) -> None:
    """With a replay, two files are compared and no target is needed."""
    suite.checks(CHECKS.format(**AFTER))
    suite.run("--target=prod", "--no-reports", "--snapshot=new.json")
    (suite.folder / "targets" / "prod.toml").unlink()
    run = suite.run("--replay=new.json", "--diff=old.json", "--no-reports")
    assert "db.connections connections in use: 10 % → 60 %" in run.output


def test_a_part_of_the_suite(suite: Pretend) -> None:
    """What was not looked at this time has not changed."""
    run = suite.run("--target=prod", "--no-reports", "--diff=old.json", "-m", "smoke")
    assert "nothing changed since" in run.output
    assert "looked at only then: db.pool[one]" in run.output


def test_an_old_one_that_is_none(suite: Pretend) -> None:
    """What can't be compared with ends the run before it begins, by its name."""
    content = json.loads((suite.folder / "old.json").read_text("utf-8"))
    (suite.folder / "old.json").write_text(json.dumps({**content, "seconds": 0.1}), "utf-8")
    run = suite.run("--target=prod", "--no-reports", "--diff=old.json")
    assert run.exit_status == pytest.ExitCode.USAGE_ERROR
    assert "--diff: " in run.errors
    assert "old.json: damaged, or changed since it was written" in run.errors


@given(st.floats(allow_nan=False), st.sampled_from(["%", "s", "B", "", "1/s"]))
def test_the_same_is_no_change(value: float, unit: str) -> None:
    """A value is never beyond noise of itself, nor is any of one that is hardly another."""
    assert not is_beyond_noise(value, value, unit)
    assert not is_beyond_noise(value, value * 1.01, unit)
