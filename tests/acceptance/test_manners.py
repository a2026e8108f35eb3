"""What the suite never does to a system, seen from the system's side."""

from __future__ import annotations

import threading

import redis

from fixtures.redis_server import COMMANDS
from tests.beds.embedded import Demo
from tests.beds.suite import Health

HARMLESS = {command.split()[0] for command in COMMANDS} | {"HELLO"}


def test_redis_sees_no_keys_and_no_write(demo: Demo, suite: Health) -> None:
    """During a run, Redis' own MONITOR shows no KEYS and no command of ours that writes."""
    seen: list[tuple[str, str]] = []
    watching = threading.Event()
    done = threading.Event()

    def watch(client: redis.Redis) -> None:
        with client.monitor() as monitor:  # type: ignore[no-untyped-call]  # redis types it not
            watching.set()
            for command in monitor.listen():
                words = str(command["command"]).split()
                seen.append(
                    (f"{command['client_address']}:{command['client_port']}", words[0].upper() if words else "")
                )
                if words[:2] == ["PING", "the-end"]:
                    done.set()
                    return

    backend = {str(row["addr"]) for row in demo.redis().client_list()}
    thread = threading.Thread(target=watch, args=(demo.redis(),), daemon=True)
    thread.start()
    assert watching.wait(5)
    run = suite("checks", target=demo.target)
    demo.redis().execute_command("PING", "the-end")  # type: ignore[no-untyped-call]  # as above
    assert done.wait(5)
    run.is_calm()
    assert "KEYS" not in {command for _, command in seen}
    ours = {command for address, command in seen if address not in backend}
    assert ours <= HARMLESS, ours - HARMLESS
