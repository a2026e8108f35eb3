"""Telling people: ``--notify URL`` sends what changed through Apprise, to mail, chat or a webhook.

Apprise is imported only when it is asked for. Sending happens in threads that may hang: the run waits a few seconds and
no longer. Of a URL, which holds a secret more often than not, nothing is shown but its scheme.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pytest

from allodoc_health.finding import Escalation
from allodoc_health.plugin import wants_checks
from allodoc_health.run import TargetReport
from allodoc_health.target import nearest
from allodoc_health.verdict import State
from reports.history import PAST
from reports.history.clerk import Clerk, NoAnswer, answer
from reports.history.plugin import History
from reports.message import Condition, Kind, Message, Occasion, condition_of, message, worth_telling
from reports.snapshot import WRITTEN, report_path
from reports.streams import tell

if TYPE_CHECKING:
    from apprise import NotifyBase

DEADLINE = 5.0
"""Seconds that a run waits for all its messages to be taken."""

# Within the deadline, a receiver that refuses is asked three times, one that is silent once or twice.
CONNECT_PATIENCE = 1.5
READ_PATIENCE = 3.0
RETRIES = 2
PAUSE = 0.4


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say whom to tell, and when."""
    group = parser.getgroup("health", "AlloDoc Health")
    group.addoption(
        "--notify",
        action="append",
        metavar="URL",
        help="tell somebody, by a URL of Apprise such as mailto://, slack:// or json:// (repeatable); to keep its "
        "secrets from the list of processes, put it into PYTEST_ADDOPTS or @FILE",
    )
    group.addoption(
        "--notify-on",
        metavar="change|failure|always",
        help="change (default): new trouble, higher escalation, recovery; failure: each failing run; always: each run",
    )
    group.addoption(
        "--report-url", default="", metavar="PREFIX", help="where the folder of the reports can be read, for the link"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register who tells. Refuses a URL that nobody could be told by, without repeating it."""
    if hasattr(config, "workerinput") or config.option.collectonly or not wants_checks(config):
        return
    occasion = config.getoption("notify_on") or Occasion.CHANGE.value
    if occasion not in set(Occasion):
        raise pytest.UsageError(f"--notify-on {occasion}: {nearest(occasion, [one.value for one in Occasion])}")
    urls: Sequence[str] = config.getoption("notify") or ()
    if not urls:
        if config.getoption("notify_on") or config.getoption("report_url"):
            raise pytest.UsageError("--notify-on and --report-url are for --notify, which is missing")
        return
    channels = [_channel(url, number) for number, url in enumerate(dict.fromkeys(urls), 1)]
    config.pluginmanager.register(Notifier(config, channels, Occasion(occasion)), "health-notify")


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to tell somebody. ``shown`` is what users read of it, ``key`` what the history knows it by."""

    service: NotifyBase = field(repr=False)
    shown: str
    key: str
    secrets: tuple[str, ...] = field(repr=False)

    def send(self, sent: Message) -> str:
        """Send a message, now and again a little later; why it failed, or an empty text."""
        from apprise import Apprise

        types = {Kind.RECOVERY: "success", Kind.STATE: "info"}
        try:
            one = Apprise(asset=self.service.asset)
            one.add(self.service)
            result = one.notify(
                title=sent.title, body=sent.body, notify_type=types.get(sent.kind, "failure"), body_format="text"
            )
        except Exception as error:  # noqa: BLE001  # a hundred services: whatever it is, it is told and ends no run
            return self._without_secrets(f"{type(error).__name__}: {error}")
        if result:
            return ""
        logged = [entry.message for each in result.results for attempt in each.attempts for entry in attempt.logs]
        return self._without_secrets(logged[-1]) if logged else "it was not taken"

    def _without_secrets(self, text: str) -> str:
        text = " ".join(text.split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def _channel(url: str, number: int) -> Channel:
    scheme, separator, rest = url.partition("://")
    named = separator and re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme)
    shown = f"--notify {scheme}://…" if named else "--notify"
    with warnings.catch_warnings():
        # Apprise loads what it knows of all its services, some by modules that Python will drop.
        warnings.simplefilter("ignore")
        from apprise import Apprise, AppriseAsset
        from apprise.manager_plugins import NotificationManager

        # Its own time-out would need threads that the process waits for at its end.
        asset = AppriseAsset(
            app_id="AlloDoc Health",
            default_service_retry=RETRIES,
            default_service_wait=PAUSE,
            service_timeout=0,
            async_mode=False,
        )
        service = Apprise.instantiate(url, asset=asset)
        manager: Any = NotificationManager  # which publishes no types
        known = [str(name) for name in manager().schemas() if name]
    if service is None:
        if not named:
            wrong = "this is no URL of Apprise, such as mailto:// or json://"
        else:
            wrong = "something is missing or wrong behind it" if scheme in known else _no_such(scheme, known)
        raise pytest.UsageError(f"{shown} (no. {number}): {wrong}")
    service.socket_connect_timeout, service.socket_read_timeout = CONNECT_PATIENCE, READ_PATIENCE
    # The history needs to know it again, and shall not help anybody to guess it.
    key = hashlib.pbkdf2_hmac("sha256", url.encode(), b"allodoc-health", 50_000).hex()[:16]
    parts = {part for part in re.split(r"[/:@?&=,]+", rest) if len(part) > 3}
    return Channel(service, shown, f"{scheme} {key}", tuple(sorted({url, *parts}, key=len, reverse=True)))


def _no_such(scheme: str, known: Sequence[str]) -> str:
    close = nearest(scheme, known)
    told = close if close.startswith("did you mean") else "see Apprise for the services that there are"
    return f"there is no such service; {told}"


class Notifier:
    """Tells what happened to the targets of one session."""

    def __init__(self, config: pytest.Config, channels: Sequence[Channel], occasion: Occasion) -> None:
        self._config = config
        self._channels = channels
        self._occasion = occasion
        self._reports: list[TargetReport] = []

    def pytest_health_report(self, report: TargetReport) -> None:
        """Keep the report until its page is written. One that is told again from a snapshot is no news."""
        if not report.replayed:
            self._reports.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self) -> None:
        """Send what is worth it, wait a little, and say what did not arrive."""
        deadline = time.monotonic() + DEADLINE
        history: History | None = self._config.pluginmanager.getplugin("health-history")
        if history is not None:
            history.settle()
        clerk = history.clerk if history is not None and not history.broken else None
        if clerk is None and self._occasion is Occasion.CHANGE and self._reports:
            tell(self._config, "--notify: without a history no change is known, so every failing run is told")
        sendings = []
        for report in self._reports:
            for channel in self._channels:
                try:
                    sending = self._prepare(report, channel, clerk, deadline)
                except NoAnswer as error:
                    tell(self._config, f"{channel.shown}: {report.target.name} not told: no history: {error}")
                    continue
                if sending is not None:
                    sendings.append(sending)
                    sending.start()
        for sending in sendings:
            if why := sending.outcome(deadline):
                tell(self._config, f"{sending.channel.shown}: {sending.target} not told: {why}")

    def _prepare(self, report: TargetReport, channel: Channel, clerk: Clerk | None, deadline: float) -> Sending | None:
        """The sending of what there is to tell, if anything, and if no other run tells it already."""
        target = report.target.name
        past = self._config.stash.get(PAST, {}).get(target)
        occasion, before, last = self._occasion, Condition(), 0
        history: History | None = self._config.pluginmanager.getplugin("health-history")
        if clerk is None:
            occasion = Occasion.FAILURE if occasion is Occasion.CHANGE else occasion
        elif (told := answer(clerk.ask(lambda store: store.last_told(target, channel.key)), deadline)) is not None:
            before, last = _condition(told), told.id
        now = condition_of(report, past, before, whole=history is not None and history.whole(report))
        kind = worth_telling(occasion, report, past, before, now)
        if kind is None:
            return None
        sent = message(kind, report, past, before, now, self._link(report))
        claim = None
        if clerk is not None:
            row = {
                "target": target,
                "channel": channel.key,
                "after": last,
                "moment": report.started.astimezone(UTC),
                "since": now.since,
                "state": now.state.value,
                "root_causes": list(now.root_causes),
                "escalation": now.escalation.value,
            }
            claim = answer(clerk.ask(lambda store: store.claim(**row)), deadline)
            if claim is None:
                return None
        return Sending(target, channel, sent, clerk, claim)

    def _link(self, report: TargetReport) -> str:
        """Where the report can be read: its page, or else its snapshot."""
        written = self._config.stash.get(WRITTEN, [])
        own = report_path(self._config, report, "").name
        pages = [path for path in written if path.suffix == ".html"]
        files = pages or [path for path in written if path.name.startswith(own)]
        if not files:
            return ""
        prefix: str = self._config.getoption("report_url")
        return f"{prefix.rstrip('/')}/{files[-1].name}" if prefix else str(files[-1])


def _condition(told: Any) -> Condition:
    """A condition as a history kept it. Raises ValueError."""
    return Condition(State(told.state), tuple(told.root_causes), Escalation(told.escalation), told.since)


class Sending:
    """One message on its way. ``claim``, its row among what was told, is given back if the message is not taken."""

    def __init__(self, target: str, channel: Channel, sent: Message, clerk: Clerk | None, claim: int | None) -> None:
        self.target = target
        self.channel = channel
        self._sent = sent
        self._clerk = clerk
        self._claim = claim
        self._why: str | None = None
        self._thread = threading.Thread(target=self._send, name=f"notify {target}", daemon=True)

    def start(self) -> None:
        """Send it off."""
        self._thread.start()

    def _send(self) -> None:
        self._why = self.channel.send(self._sent)

    def outcome(self, deadline: float) -> str:
        """Why it was not taken by a time of the monotonic clock; empty if it was. The next run then tries again."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        why = f"no answer within {DEADLINE:g} s" if self._why is None else self._why
        clerk, claim = self._clerk, self._claim
        if why and clerk is not None and claim is not None:
            try:
                answer(clerk.ask(lambda store: store.unclaim(claim)), deadline + 1)
            except NoAnswer as error:
                why += f"; it will not be told again: {error}"
        return why
