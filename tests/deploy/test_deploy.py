"""Each example in deploy/ against the parser or the schema of the tool that reads it, its options against the suite."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import crontab
import kubernetes_validate
import pytest
import yaml

import fixtures.page  # noqa: F401  # whatever probe is imported first, its module has to find those that it needs
from allodoc_health.target import TargetSettings
from fixtures.dockerfile import read_dockerfile
from tests.beds.suite import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = "1.31"
"""The oldest version that its project still maintains had this schema, too."""


def run(*command: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is one text."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def documents() -> dict[str, Any]:
    """The documents of the manifest for Kubernetes, by kind."""
    text = (DEPLOY / "kubernetes" / "cronjob.yaml").read_text("utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The systemd units, on this checkout, as a program that is not there is an error."""
    if shutil.which("systemd-analyze") is None and os.environ.get("CI", "").lower() != "true":
        pytest.skip("needs systemd-analyze")
    made = []
    for unit in ("allodoc-health.service", "allodoc-health.timer"):
        text = (DEPLOY / "systemd" / unit).read_text("utf-8")
        text = text.replace("/opt/allodoc-health/.venv/bin/python", sys.executable)
        (tmp_path / unit).write_text(text, "utf-8")
        made.append(str(tmp_path / unit))
    return made


def test_systemd_accepts_the_units(units: list[str]) -> None:
    """No unknown key, no missing program, and little that the service could do beyond its task."""
    verified = run("systemd-analyze", "verify", *units)
    assert (verified.returncode, verified.stdout) == (0, "")
    secured = run("systemd-analyze", "security", "--offline=true", "--threshold=25", units[0])
    assert secured.returncode == 0, secured.stdout


def test_cron_accepts_its_table() -> None:
    """One job, every hour; no percent sign, at which cron would cut the command off."""
    (job,) = crontab.CronTab(tabfile=str(DEPLOY / "crontab"), user=False)
    assert job.is_valid()
    assert str(job.slices) == "@hourly"
    assert "%" not in job.command
    assert run("sh", "-n", "-c", job.command).returncode == 0


@pytest.mark.parametrize("kind", ["ConfigMap", "PersistentVolumeClaim", "CronJob"])
def test_kubernetes_accepts_its_manifest(kind: str) -> None:
    """Its own schema knows every key; the target file inside is one that the suite accepts."""
    kubernetes_validate.validate(documents()[kind], KUBERNETES, strict=True)
    if kind == "ConfigMap":
        TargetSettings.model_validate(tomllib.loads(documents()[kind]["data"]["prod.toml"]))


def test_kubernetes_runs_it_without_rights() -> None:
    """No root, nothing writable but its volumes, no token of the cluster."""
    pod = documents()["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("github/health.yml", ["--builtin-schema", "vendor.github-workflows"]),
        ("gitlab/health.yml", ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
    ],
)
def test_pipelines_fit_their_schemas(file: str, arguments: list[str]) -> None:
    """The published schemas, as they come with check-jsonschema."""
    checked = run(sys.executable, "-m", "check_jsonschema", *arguments, str(DEPLOY / file))
    assert checked.returncode == 0, checked.stdout


def test_the_image_is_described_without_a_slip() -> None:
    """The suite's own look at such files finds nothing; it does not run as root, and reports are a volume."""
    text = (DEPLOY / "Containerfile").read_text("utf-8")
    described = read_dockerfile(text)
    assert (described.problems, described.warnings) == ((), ())
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert re.search(r"^VOLUME /reports$", text, re.MULTILINE)
    copied = re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE)
    assert all((ROOT / folder).is_dir() for folder in copied)
    assert {f"!{folder}" for folder in copied} <= set(
        (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").split()
    )


def commands() -> dict[str, str]:
    """The options that each example gives to pytest."""
    found = {}
    for path in sorted(path for path in DEPLOY.rglob("*") if path.is_file()):
        text = re.sub(r"\\\n", " ", path.read_text("utf-8"))
        for number, match in enumerate(re.findall(r"-m pytest ([^\n&>)]*)", text)):
            found[f"{path.relative_to(DEPLOY)} {number}"] = match
    return found


@pytest.fixture(scope="module")
def options() -> str:
    """What the suite says of its options; pytest lists one of its own under another spelling only."""
    return run(sys.executable, "-m", "pytest", "checks", "--help", "-p", "no:cacheprovider").stdout + "\n  --junitxml"


@pytest.mark.parametrize("place", commands())
def test_every_option_is_one_of_the_suite(place: str, options: str) -> None:
    """An example with a misspelt option would fail on the first morning."""
    given = [word.partition("=")[0] for word in shlex.split(commands()[place]) if word.startswith("--")]
    assert not [option for option in given if not re.search(rf"(?m)^\s+(?:-\w, )?{option}\b", options)]


@pytest.fixture
def deployed(tmp_path: Path) -> Path:
    """A place in which `docker` and the suite only say what they were asked to do."""
    for name, program in {
        "bin/docker": 'echo "docker $*"; exit "${DOCKER_EXIT:-0}"',
        "suite/.venv/bin/python": 'echo "python $*"; exit "${SUITE_EXIT:-0}"',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{program}\n", "utf-8")
        path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(("docker", "suite", "status"), [(0, 0, 0), (0, 1, 1), (1, 0, 1)])
def test_the_script_says_whether_it_went_well(deployed: Path, docker: int, suite: int, status: int) -> None:
    """Its exit status is the suite's, or 1 if there was no deployment; a failing one leaves nothing running."""
    done = run(
        str(DEPLOY / "compose" / "deploy.sh"),
        "backend",
        folder=deployed,
        PATH=f"{deployed / 'bin'}:{os.environ['PATH']}",
        SUITE=str(deployed / "suite"),
        DOCKER_EXIT=str(docker),
        SUITE_EXIT=str(suite),
    )
    assert done.returncode == status, done.stdout
    assert "docker compose up --detach --wait backend" in done.stdout
    assert ("the deployment failed" in done.stdout) == bool(docker)
