"""Telling people: real receivers, real refusals, and no secret in any line."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from reports.notify import DEADLINE
from tests.beds.pretend import Pretend, Ran

pytest_plugins = ["pytester"]

CHECKS = """
    @symptom("db.headroom", severity=Severity.CRITICAL)
    def test_headroom(finding):
        \"\"\"There is room.\"\"\"
        finding.measure("connections", float(os.environ["USED"]), unit="%", limit=Limit(warn=80, fail=95))
"""


class Receiver:
    """A web hook that keeps what it is sent, or answers with another status."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Keep the message if it is to be taken."""
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.asked += 1
                if receiver.status == 200:
                    receiver.received.append(body)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://hook:tops3cret@127.0.0.1:{self._server.server_port}/h1dden-path"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Go away."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def titles(self) -> list[str]:
        """The titles of what was received."""
        return [str(one["title"]) for one in self.received]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web hook on this machine."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def run(pretend: Pretend, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``run(97, …)`` runs the suite with so many percent in use, and looks whether any line holds a secret."""
    pretend.checks(CHECKS)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def run_with(used: int, *arguments: str) -> Ran:
        monkeypatch.setenv("USED", str(used))
        ran = pretend.run("checks", *arguments)
        shown = "\n".join(line for line in (ran.output + ran.errors).splitlines() if not line.startswith("running: "))
        for path in ran.folder.glob("[!.]*.*ml"):
            shown += path.read_text("utf-8")
        for path in ran.folder.glob("[!.]*.json"):
            shown += path.read_text("utf-8")
        assert "s3cret" not in shown
        assert "h1dden" not in shown
        return ran

    return run_with


def test_a_change_is_told_once(run: Any, receiver: Receiver) -> None:
    """Failing, still failing, well, still well: two messages, each with what its reader needs."""
    for used in (97, 98, 10, 11):
        ran = run(used, "--notify", receiver.url, "--report-url", "https://reports.example/allodoc/")
        assert ran.exit_status == (1 if used > 90 else 0)
        assert "not told" not in ran.output
    failing, recovered = receiver.received
    assert failing["title"] == "prod is failing: db.headroom"
    assert failing["type"] == "failure"
    assert "connections 97 %   (fail at 95 %)" in failing["message"]
    page = sorted(path.name for path in ran.folder.glob("2*.html"))[0]
    assert f"Report: https://reports.example/allodoc/{page}" in failing["message"]
    assert recovered["title"].startswith("prod has recovered after ")
    assert recovered["type"] == "success"


def test_what_was_not_taken_is_told_by_the_next_run(run: Any, receiver: Receiver) -> None:
    """A receiver that refuses is asked three times and named in one line; the change waits for the next run."""
    receiver.status = 503
    ran = run(97, "--notify", receiver.url)
    (line,) = [line for line in ran.lines if "not told" in line]
    assert line.startswith("--notify json://…: prod not told: ")
    assert "503" in line
    assert receiver.asked == 3
    assert ran.exit_status == 1
    assert ran.lines[-1].startswith("prod is failing: db.headroom")
    receiver.status = 200
    run(97, "--notify", receiver.url)
    run(97, "--notify", receiver.url)
    assert receiver.titles == ["prod is failing: db.headroom"]


def test_without_a_history_each_failure_is_told(run: Any, receiver: Receiver) -> None:
    """No change is known then, which is said; a healthy run tells nothing."""
    for used in (97, 97, 10):
        ran = run(used, "--notify", receiver.url, "--no-history")
        assert "without a history no change is known, so every failing run is told" in ran.output
    assert receiver.titles == ["prod is failing: db.headroom"] * 2


def test_a_receiver_that_is_silent_costs_a_few_seconds(run: Any, receiver: Receiver) -> None:
    """It takes the connection and says nothing: nobody waits longer, and another one is told all the same."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"json://127.0.0.1:{silent.getsockname()[1]}/h1dden"
        ran = run(97, "--notify", url, "--notify", receiver.url, "--notify-on", "always", "--no-reports")
    assert f"prod not told: no answer within {DEADLINE:g} s" in ran.output
    assert receiver.titles == ["prod is failing: db.headroom"]


class Mailbox:
    """Keeps mail."""

    def __init__(self) -> None:
        self.mails: list[Message] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        """Take a mail."""
        content = envelope.content
        assert isinstance(content, bytes)
        self.mails.append(message_from_bytes(content, policy=default))
        return "250 taken"


def test_mail(run: Any) -> None:
    """The same message as a mail, to a real SMTP server."""
    mailbox = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(mailbox, hostname="127.0.0.1", port=port)
    server.start()
    try:
        ran = run(97, "--notify", f"mailto://127.0.0.1:{port}?from=health@allodoc.example&to=oncall@allodoc.example")
    finally:
        server.stop()
    assert "not told" not in ran.output
    (mail,) = mailbox.mails
    assert mail["subject"] == "prod is failing: db.headroom"
    assert "oncall@allodoc.example" in mail["to"]
    assert "connections 97 %" in mail.as_string()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--notify", "jsno://hook:tops3cret@host/h1dden"], "--notify jsno://… (no. 1): there is no such service; did"),
        (["--notify", "slack://tops3cret"], "--notify slack://… (no. 1): something is missing or wrong behind it"),
        (["--notify", "tops3cret"], "--notify (no. 1): this is no URL of Apprise"),
        (["--notify", "json://host", "--notify-on", "changes"], "--notify-on changes: did you mean 'change'?"),
        (["--notify-on", "always"], "--notify-on and --report-url are for --notify, which is missing"),
    ],
)
def test_what_nobody_could_be_told_by_ends_the_run_at_once(run: Any, arguments: list[str], told: str) -> None:
    """Exit status 4 before anything is looked at; the URL is not repeated."""
    ran = run(10, *arguments)
    assert ran.exit_status == 4
    assert told in ran.errors
