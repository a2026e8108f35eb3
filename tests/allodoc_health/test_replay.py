"""A run that is told again: the same findings from its snapshot, and a refusal of whatever is not a whole one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allodoc_health.replay import SnapshotError, read_snapshot
from allodoc_health.run import digest_of
from allodoc_health.snapshot import json_schema
from tests.beds.pretend import Pretend
from tests.beds.suite import ROOT

pytest_plugins = ["pytester"]

PROBES = """
    from dataclasses import dataclass
    from datetime import datetime

    @dataclass(frozen=True, slots=True)
    class Certificate:
        expires: datetime
        names: tuple[str, ...]
        ratio: float

    @probe(guard="db.certificate")
    def certificate(now: datetime) -> Certificate:
        with Path("looked").open("a") as file:
            file.write("once\\n")
        return Certificate(now + timedelta(days=3), ("app", "api"), float("inf"))

    @probe(guard="db.login")
    def session(certificate: Certificate) -> str:
        raise Failed("no entry", variant="bad-password", details=("said the server",))

    @probe(guard="db.defect")
    def broken() -> str:
        raise KeyError("oops")

    @probe(guard="db.absent")
    def absent() -> str:
        raise NotApplicable("there is none here")
"""
CHECKS = """
    @symptom("db.certificate", severity=Severity.MAJOR)
    def test_certificate(certificate, now, finding):
        \"\"\"It lasts.\"\"\"
        left = (certificate.expires - now).total_seconds()
        finding.measure("left", left, unit="s", limit=Limit(warn=7 * 86400, fail=4 * 86400, worse="below"))
        finding.note(f"for {', '.join(certificate.names)}, {certificate.ratio}")

    @symptom("db.login", severity=Severity.CRITICAL, caused_by=["db.certificate"])
    def test_login(session):
        \"\"\"One can log in.\"\"\"

    @symptom("db.query", severity=Severity.MAJOR)
    def test_query(session):
        \"\"\"It answers.\"\"\"

    @symptom("db.absent", severity=Severity.MINOR)
    def test_absent(absent):
        \"\"\"It is there.\"\"\"
"""


@pytest.fixture
def recorded(pretend: Pretend) -> Pretend:
    """A suite with a run of it in ``incident.json``."""
    pretend.checks(PROBES + CHECKS)
    pretend.target("prod")
    run = pretend.run("--target=prod", "--snapshot=incident.json")
    assert run.exit_status == 1, run.output
    return pretend


def content(suite: Pretend) -> dict[str, Any]:
    """The snapshot as it was written."""
    found: dict[str, Any] = json.loads((suite.folder / "incident.json").read_text("utf-8"))
    return found


def rewritten(suite: Pretend, changed: Mapping[str, Any]) -> None:
    """Write another content with the digest that fits it."""
    text = json.dumps({**changed, "digest": digest_of(changed)})
    (suite.folder / "incident.json").write_text(text, "utf-8")


def refused(suite: Pretend, *arguments: str) -> str:
    """What is said where a snapshot is not taken: with exit status 4, and without a verdict."""
    run = suite.run("--replay=incident.json", "--no-reports", *arguments)
    assert run.exit_status == pytest.ExitCode.USAGE_ERROR, run.output
    assert "prod is" not in run.output
    return run.errors + run.output


def test_replay_tells_the_same(recorded: Pretend) -> None:
    """The same findings, verdict and remedies, from the file alone: no probe runs again."""
    before = content(recorded)
    again = recorded.run("--replay=incident.json", "--snapshot=again.json", "--no-reports")
    after = json.loads((recorded.folder / "again.json").read_text("utf-8"))
    assert again.exit_status == 1
    for key in ("target", "started", "findings", "verdict", "remedies", "evidence", "unobserved", "operator"):
        assert after[key] == before[key], key
    assert (recorded.folder / "looked").read_text() == "once\n"
    assert "replayed from" in again.output
    assert after["suite"]["replayed"].endswith("incident.json")


def test_a_replay_is_no_latest_run(recorded: Pretend) -> None:
    """Its report has a name of its own, and ``latest`` goes on leading to the last run that looked."""
    latest = (recorded.folder / "made" / "latest.html").resolve()
    replayed = recorded.run("--replay=incident.json")
    assert latest == (recorded.folder / "made" / "latest.html").resolve()
    assert len(list(replayed.folder.glob("*-prod-replayed.html"))) == 1


def test_todays_checks_and_limits(recorded: Pretend) -> None:
    """A check of today is held against the evidence of then; another probe's evidence was not collected; limits and
    waivers are those of the target that is named.
    """
    recorded.checks(
        PROBES
        + CHECKS.replace("fail=4 * 86400", "fail=2 * 86400")
        + """
    @probe(guard="db.newer")
    def newer() -> str:
        Path("touched").touch()
        return "new"

    @symptom("db.newer", severity=Severity.MINOR)
    def test_newer(newer):
        \"\"\"It is new.\"\"\"
    """
    )
    run = recorded.run("--replay=incident.json", "--snapshot=again.json", "--no-reports", "-rs")
    after = json.loads((recorded.folder / "again.json").read_text("utf-8"))
    outcomes = {finding["id"]: finding["outcome"] for finding in after["findings"]}
    assert outcomes["db.certificate"] == "warn"
    assert outcomes["db.newer"] == "not-applicable"
    assert "its evidence was not collected: the snapshot has no newer" in run.output
    assert not (recorded.folder / "touched").exists()
    recorded.target(
        "prod",
        """
        [[waivers]]
        symptom = "db.login"
        reason = "known"
        owner = "ops"
        expires = 2099-01-01T00:00:00Z
        """,
    )
    waived = recorded.run("--replay=incident.json", "--target=prod", "--no-reports")
    assert "prod is failing: db.login" in run.output
    assert "1 waived" in waived.output


def test_several_at_once(recorded: Pretend) -> None:
    """Recordings of one target are told apart by a number, in one process or in several."""
    for workers in ((), ("-n2",)):
        run = recorded.run("--replay=incident.json", "--replay=incident.json", "--no-reports", *workers)
        assert "prod is failing" in run.output
        assert "prod-2 is failing" in run.output


def test_one_file_for_several(recorded: Pretend) -> None:
    """One snapshot file for two targets is refused, since one would be lost."""
    (recorded.folder / "other.json").write_bytes((recorded.folder / "incident.json").read_bytes())
    both = ("--replay=incident.json", "--replay=other.json", "--no-reports")
    assert "put {target} into it" in recorded.run(*both, "--snapshot=one.json").errors
    recorded.run(*both, "--snapshot=made-{target}.json")
    assert len(list(recorded.folder.glob("made-*.json"))) == 2


def test_the_folder_of_a_snapshot(recorded: Pretend) -> None:
    """A snapshot that can't be written is said, and the exit status stays that of the verdict."""
    run = recorded.run("--replay=incident.json", "--no-reports", "--snapshot=looked/x.json")
    assert "no snapshot: " in run.output
    assert run.exit_status == 1


class TestRefused:
    """What is not a whole snapshot of this format is refused, by one sentence."""

    def test_missing(self, recorded: Pretend) -> None:
        """A file that is not there."""
        (recorded.folder / "incident.json").unlink()
        assert "incident.json: can't be read: No such file or directory" in refused(recorded)

    def test_cut_off(self, recorded: Pretend) -> None:
        """A file that ends too early."""
        path = recorded.folder / "incident.json"
        path.write_text(path.read_text("utf-8")[:-200], "utf-8")
        assert "incident.json: damaged, or no snapshot at all" in refused(recorded)

    def test_changed(self, recorded: Pretend) -> None:
        """A file in which a value is another than was written."""
        path = recorded.folder / "incident.json"
        path.write_text(path.read_text("utf-8").replace("no entry", "an entry"), "utf-8")
        assert "changed since it was written" in refused(recorded)

    def test_older(self, recorded: Pretend) -> None:
        """A snapshot of another format is named with the one that can be read."""
        rewritten(recorded, {**content(recorded), "schema": "allodoc-health/1"})
        assert "a snapshot of the format allodoc-health/1; this version reads allodoc-health/2" in refused(recorded)

    def test_something_else(self, recorded: Pretend) -> None:
        """JSON that is no snapshot."""
        (recorded.folder / "incident.json").write_text('{"name": "x"}', "utf-8")
        assert "no snapshot of this suite: its schema is None" in refused(recorded)

    def test_other_evidence(self, recorded: Pretend) -> None:
        """Evidence of another version is named, and nothing of the file is told."""
        found = content(recorded)
        rewritten(recorded, {**found, "evidence": {**found["evidence"], "certificate": {"names": []}}})
        assert "the evidence 'certificate' is not as this version's checks expect it" in refused(recorded)

    def test_several_targets(self, recorded: Pretend) -> None:
        """The limits of two targets at once."""
        recorded.target("staging")
        assert "one --target, not of several" in refused(recorded, "--target=prod", "--target=staging")

    @given(data=st.data())
    @settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_any_damage(self, data: st.DataObject, whole: bytes, tmp_path: Path) -> None:
        """Whichever byte is lost or another: it is refused, or nothing that it says is another."""
        place = data.draw(st.integers(0, len(whole) - 1))
        byte = data.draw(st.binary(max_size=2))
        path = tmp_path / "damaged.json"
        path.write_bytes(whole[:place] + byte + whole[place + 1 :])
        try:
            read = read_snapshot(path)
        except SnapshotError:
            return
        assert read.model_dump() == Snapshots.whole(whole, tmp_path)


class Snapshots:
    """What a snapshot says when it is whole."""

    @staticmethod
    def whole(text: bytes, folder: Path) -> dict[str, Any]:
        """Its content, read as every other."""
        path = folder / "whole.json"
        path.write_bytes(text)
        return read_snapshot(path).model_dump()


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A snapshot as it is written."""
    found = {
        "schema": "allodoc-health/2",
        "target": "prod",
        "started": "2026-11-24T00:00:00Z",
        "seconds": 1.5,
        "suite": {"version": "1", "python": "3.11", "packages": {}, "arguments": ["checks"], "replayed": None},
        "verdict": {
            "state": "healthy",
            "root_causes": [],
            "consequences": [],
            "escalation": "none",
            "escalation_reason": "",
        },
        "findings": [],
        "defects": [],
        "not_run": [],
        "cut_short": "",
        "waited": None,
        "warnings": [],
        "remedies": {},
        "timings": {"certificate": 0.5},
        "target_settings": {},
        "operator": {"kind": "docker"},
        "evidence": {"certificate": {"names": ["é", "b"]}},
        "unobserved": {},
    }
    return json.dumps({**found, "digest": digest_of(found)}, ensure_ascii=False).encode()


def test_schema_is_current() -> None:
    """The published JSON schema is that of the models; ``python -m reports.schema`` writes it."""
    published = json.loads((ROOT / "reports" / "snapshot.schema.json").read_text("utf-8"))
    assert published == json_schema()


def test_a_run_fits_its_schema(recorded: Pretend) -> None:
    """What a run writes is valid by the published schema."""
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(content(recorded), json_schema())
