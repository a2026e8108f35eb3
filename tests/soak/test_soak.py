"""``make soak``: 200 healthy runs on each bed while people work on it. In CI there are 10, of the same kind.

Nothing may fail or be blocked. Warnings are counted and shown at the end: each has to be true.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
import requests

from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.suite import Health

RUNS = int(os.environ.get("SOAK_RUNS", "10"))
SEED = int(os.environ.get("SOAK_SEED", "20261123"))
PAUSE = (0.05, 0.5)
"""Seconds between two things that a user does: a small clinic in the morning, below nginx's limits."""


class Clinic:
    """People at work: one opens pages and reads, one logs in and out, an administrator looks after the database."""

    def __init__(self, edge: str, account: Mapping[str, str], chores: list[Callable[[], object]]) -> None:
        self._edge = edge
        self._account = account
        self._chores = chores
        self._chance = random.Random(SEED)  # noqa: S311  # it decides what is clicked, not what is kept secret
        self._closed = threading.Event()
        self.done: Counter[str] = Counter()

    @contextmanager
    def open(self) -> Iterator[None]:
        """While this lasts, they work. What goes wrong for them is no concern of theirs, but of the suite."""
        workers = [threading.Thread(target=self._work, args=(one,), daemon=True) for one in (self._read, self._log_in)]
        if self._chores:
            workers.append(threading.Thread(target=self._work, args=(self._tidy,), daemon=True))
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self._closed.set()
            for worker in workers:
                worker.join(30)

    def _work(self, action: Callable[[requests.Session], None]) -> None:
        with requests.Session() as session:
            session.verify = session.trust_env = (
                False  # the certificate is self-made, whatever the tester's shell trusts
            )
            while not self._closed.wait(self._chance.uniform(*PAUSE)):
                action(session)

    def _read(self, session: requests.Session) -> None:
        path = self._chance.choice(["/", "/index.html", "/api/v1/health", "/api/v1/live", "/patients/1"])
        self.done[f"GET {path} {session.get(self._edge + path, timeout=10).status_code}"] += 1

    def _log_in(self, session: requests.Session) -> None:
        answer = session.post(f"{self._edge}/api/v1/auth/login", json=dict(self._account), timeout=10)
        self.done[f"login {answer.status_code}"] += 1
        token = {"Authorization": f"Bearer {answer.json().get('accessToken', '')}"}
        for path in ("/api/v1/auth/profile", "/api/v1/patients"):
            self.done[f"GET {path} {session.get(self._edge + path, headers=token, timeout=10).status_code}"] += 1
        session.post(f"{self._edge}/api/v1/auth/logout", headers=token, json={}, timeout=10)
        self._closed.wait(2)

    def _tidy(self, session: requests.Session) -> None:
        chore = self._chance.choice(self._chores)
        chore()
        self.done[f"chore {chore.__name__}"] += 1
        self._closed.wait(3)


def soak(suite: Health, target: str, environment: Mapping[str, str], clinic: Clinic) -> None:
    """Run the suite again and again while the clinic is open, and judge all runs together."""
    false_alarms: list[str] = []
    warnings: Counter[str] = Counter()
    seconds = []
    with clinic.open():
        for number in range(RUNS):
            run = suite("checks", target=target, environment=environment)
            seconds.append(run.seconds)
            warnings.update(f"{name}: {run.finding(name)['message']}" for name in run.names("warn"))
            red = sorted(run.names("fail", "blocked"))
            if red or run.exit_status or run.snapshot.get("defects"):
                false_alarms.append(f"run {number + 1}: {', '.join(red)}\n{run.output}")
            time.sleep(0.1)
    print(f"\n{RUNS} runs, {sum(seconds) / len(seconds):.1f} s each on average; the clinic: {dict(clinic.done)}")
    for warning, count in warnings.most_common():
        print(f"  {count:>4} × warned {warning}")
    assert not false_alarms, "\n".join(false_alarms)
    assert any("login 201" in done for done in clinic.done), f"nobody could log in: {clinic.done}"


# The beds' certificates are self-made.
trusting = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@pytest.mark.timeout(60 + 20 * RUNS)
@trusting
def test_the_demo_is_called_well(demo: Demo, suite: Health) -> None:
    """A backend that was restarted a moment ago, people at work, VACUUM and a backup: nothing of it is a fault."""
    demo.restart("backend")
    demo.wait_healthy()

    def vacuum() -> None:
        demo.sql("VACUUM (ANALYZE)")

    def back_up() -> None:
        demo.must("exec", "postgres", "--", "pg_dump", "-U", "allodoc_prod", "-d", "allodoc_prod", "-f", "/dev/null")

    account = {"email": demo.smoke["email"], "password": demo.smoke["password"]}
    soak(suite, demo.target, {}, Clinic(demo.urls["https"], account, [vacuum, back_up]))


@pytest.mark.timeout(120 + 20 * RUNS)
@trusting
def test_the_stack_is_called_well(stack: Stack, suite: Health) -> None:
    """The same in containers, found without configuration."""
    stack.restart("backend")
    stack.wait_healthy()

    def vacuum() -> None:
        stack.exec("postgres", "psql", "-U", "allodoc_prod", "-d", "allodoc_prod", "-c", "VACUUM (ANALYZE)")

    def back_up() -> None:
        stack.exec("postgres", "pg_dump", "-U", "allodoc_prod", "-d", "allodoc_prod", "-f", "/dev/null")

    email, password = stack.smoke_account.values()
    edge = f"https://127.0.0.1:{stack.ports['https']}"
    clinic = Clinic(edge, {"email": email, "password": password}, [vacuum, back_up])
    soak(suite, stack.target, stack.smoke_account, clinic)
