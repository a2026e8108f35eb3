"""No secret and no patient's datum leaves the process, by whatever way it came into the evidence."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psycopg
import pytest

from tests.beds.embedded import Demo
from tests.beds.suite import Health

PATIENT = "Wilhelmina Quastenberg"
PASSWORD = "Canary-pw-7dK2!x"
JWT_SECRET = "canary-jwt-secret-0123456789abcdefghij"
BEARER = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
MAIL = "wilhelmina.quastenberg@praxis.example"
CANARIES = (PATIENT, "Quastenberg", PASSWORD, JWT_SECRET, BEARER, MAIL)


def outputs(folder: Path) -> list[str]:
    """The arguments that ask for every output which can be had together."""
    files = {"--json-lines": "x.jsonl", "--openmetrics": "x.prom", "--markdown": "x.md", "--junitxml": "x.xml"}
    return [*(f"{option}={folder / name}" for option, name in files.items()), "--github", "--summary"]


@pytest.fixture
def planted(demo: Demo) -> Demo:
    """A demo with canaries in its environment, its logs, its running and its past statements."""
    demo.set_env(
        "backend",
        JWT_ACCESS_SECRET=JWT_SECRET,
        SMTP_PASSWORD=PASSWORD,
        PAYMENT_API_KEY=BEARER,
        SUPPORT_URL=f"https://support:{PASSWORD}@mail.example/inbox",
    )
    demo.recreate("backend")
    demo.wait_healthy("backend")
    with contextlib.suppress(psycopg.Error):
        demo.sql(f"SELECT no_such_column FROM patients WHERE email = '{MAIL}' AND name = '{PATIENT}'")
    with contextlib.suppress(psycopg.Error):
        demo.sql(f"DO $$ BEGIN RAISE EXCEPTION 'patient {PATIENT} has token {BEARER} and password={PASSWORD}'; END $$")
    return demo


def test_canaries_stay_inside(planted: Demo, suite: Health, tmp_path: Path) -> None:
    """Canaries in environment, logs and statements occur in no output: not on the terminal at -vv nor in any file."""
    stop = threading.Event()

    def query() -> None:
        with contextlib.suppress(psycopg.Error), planted.connect() as connection:
            connection.execute(f"SELECT pg_sleep(20) /* {MAIL} */ WHERE '{PATIENT}' <> '{PASSWORD}'")
        stop.set()

    thread = threading.Thread(target=query, daemon=True)
    thread.start()
    planted.wait_until(
        lambda: planted.sql("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(20)%%'"), what="the query"
    )
    limits = "[limits.db]\nlong_running = {warn = 0.01, fail = 0.02}\n"
    try:
        run = suite("checks", "-vv", *outputs(tmp_path), target=planted.target + limits)
        plugin = suite("checks", "--nagios", target=planted.target + limits)
    finally:
        planted.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(20)%%'")
        stop.wait(5)
    assert run.outcome("db.long-running") == "fail", run.output
    texts = {"terminal": run.output, "nagios": plugin.output} | {
        path.name: path.read_bytes().decode(errors="replace")
        for folder in (run.folder, tmp_path)
        for path in folder.iterdir()
        if path.is_file()
    }
    assert {path.suffix for path in map(Path, texts)} >= {".html", ".json", ".jsonl", ".prom", ".md", ".xml"}, (
        texts.keys()
    )
    for name, text in texts.items():
        for canary in CANARIES:
            assert canary not in text, f"{canary!r} is in {name}: …{text[max(0, text.find(canary) - 200) :][:400]}…"


def test_generated_passwords_stay_inside(demo: Demo, suite: Health) -> None:
    """The demo's own passwords and secrets, and those of every service's environment, occur in no output."""
    run = suite("checks", "-vv", target=demo.target)
    texts = [run.output, *(p.read_text("utf-8") for p in run.folder.iterdir() if p.suffix in (".html", ".json"))]
    secrets = {
        value
        for role in ("postgres", "redis", "backend", "nginx")
        for name, value in demo.environment(role).items()
        if ("PASSWORD" in name or "SECRET" in name) and len(value) >= 8
    }
    assert secrets
    for secret in secrets:
        assert not any(secret in text for text in texts)
