"""The same findings whatever version of PostgreSQL, Redis or Valkey the application runs on, healthy and broken."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.beds.embedded import Demo
from tests.beds.suite import Health, Run, run_suite
from tests.beds.versions import POSTGRES, install_postgres, install_valkey

IMPATIENT = (
    "[limits.db]\nidle_in_transaction = {warn = 0.1, fail = 0.3}\nblocked = {warn = 0.1, fail = 0.3}\n"
    "[limits.cache]\nmemory_used = {warn = 0.01, fail = 0.02}\n"
)


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, dict[str, str]]]:
    """What a demo has to be told to run on each version."""
    folder = Path(tempfile.mkdtemp(prefix="versions-", dir="/tmp"))
    folder.chmod(0o755)  # the services' own account has to read it
    try:
        postgres = install_postgres(folder, *POSTGRES)
        valkey = install_valkey(folder / "valkey")
        made = {f"PostgreSQL {major}": {"ALLODOC_DEMO_POSTGRES": str(path)} for major, path in postgres.items()}
        made["PostgreSQL 17"]["ALLODOC_DEMO_REDIS"] = str(valkey)
        yield {**made, "wheels": {}}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """What is found on the versions that the machine has, or the wheels where it has none."""
    folder = tmp_path_factory.mktemp("usual")
    demo = Demo.temporary()
    try:
        return found_on(demo, lambda *arguments, **keywords: run_suite(folder / "run", *arguments, **keywords))
    finally:
        demo.remove()


def found_on(demo: Demo, suite: Health) -> dict[str, Run]:
    """What is found on a demo that has just come up, and on the same one broken."""
    demo.up()
    healthy = suite("checks", target=demo.target)
    with broken(demo):
        return {"healthy": healthy, "broken": suite("checks", target=demo.target + IMPATIENT)}


@contextmanager
def broken(demo: Demo) -> Iterator[None]:
    """An idle transaction that holds a lock, and a Redis whose memory is nearly used up."""
    with demo.connect(autocommit=False, application_name="holder") as holder:
        holder.execute("LOCK TABLE users IN ACCESS SHARE MODE")
        client = demo.redis()
        limit = int(client.config_get("maxmemory")["maxmemory"] or 0)
        client.config_set("maxmemory", 8 * 1024 * 1024)
        try:
            demo.wait_until(
                lambda: demo.sql(
                    "SELECT 1 FROM pg_stat_activity WHERE application_name = 'holder'"
                    " AND now() - state_change > interval '0.4 s'"
                ),
                what="the transaction to be old enough",
            )
            yield
        finally:
            client.config_set("maxmemory", limit)


@pytest.mark.parametrize("version", [*(f"PostgreSQL {major}" for major in POSTGRES), "wheels"])
def test_the_findings_do_not_depend_on_the_version(
    version: str, programs: dict[str, dict[str, str]], usual: dict[str, Run], suite: Health
) -> None:
    """A healthy and a broken system are told alike, finding by finding."""
    demo = Demo.temporary(binaries="wheels" if version == "wheels" else "auto", settings=programs[version])
    try:
        found = found_on(demo, suite)
    finally:
        demo.remove()
    found["healthy"].is_calm()
    assert set(found["broken"].root_causes) == set(usual["broken"].root_causes), found["broken"].output
    for state, run in found.items():
        assert outcomes(run) == outcomes(usual[state]), run.output


def outcomes(run: Run) -> dict[str, str]:
    """The outcome of each finding by its name, without ports, which differ from demo to demo.

    What depends on how busy this machine happens to be is left out.
    """
    told = {"".join(letter for letter in name if not letter.isdigit()): run.outcome(name) for name in run.names()}
    return {name: outcome for name, outcome in told.items() if name not in ("api.nodejs", "cache.slow-commands")}
