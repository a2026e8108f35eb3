"""A walk over the guide: its commands, filled in for the stack in containers and pasted there one after the other.

Faults paste what mends them. Here all else is pasted that may be pasted anywhere, so that the guide has no command that
nobody has run. Commands that read alike once they are filled in are pasted once.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest

from allodoc_health.inspection import open_inspection
from allodoc_health.remedy import load_guide, render
from allodoc_health.words import vocabulary
from tests.beds.docker import COMPOSE_FILE, PROJECT, ContainerFactory, Stack, free_ports
from tests.beds.suite import ROOT, note_executed, paste
from tests.faults.docker.networks import SITE, certificate
from tests.faults.remedies import exemption, exemptions

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

Facts = Mapping[str, Mapping[str, object]]
"""What a finding tells the commands of its remedy, by the remedy's anchor."""

ELSEWHERE = (
    "guide/database.md#postgresql-is-recovering look 1",
    "guide/database.md#postgresql-is-in-recovery mend",
    "guide/database.md#replay-on-the-standby-is-paused mend",
    "guide/deployment.md#migrations-are-pending",
    "guide/deployment.md#the-database-is-ahead-of-the-code",
    "guide/network.md#a-services-name-leads-to-another-as-well mend 0",
    "guide/performance.md#a-script-keeps-redis-busy mend 0",
    "guide/service.md#a-process-dumped-core",
    "guide/service.md#the-disk-fills-up mend 0",
)
"""Commands that need a fault to make sense: its entry in the catalogue pastes them, or a test below."""

LIFE = re.compile(r"docker (start|stop|restart|unpause) |up -d|SHUTDOWN")
"""What takes a service away, or brings it back: pasted last, so that it does not end what others are pasted into."""

REDIS_ERROR = re.compile(r"^(\(error\) )?(ERR|NOAUTH|WRONGPASS|NOPERM|MISCONF|OOM)\b", re.MULTILINE)
"""What redis-cli prints where it ends with status 0 all the same."""

DATA = "/var/lib/postgresql/data"
TABLE = "CREATE TABLE walk (id serial, patient int); CREATE INDEX walk_index ON walk (patient)"
UNDO = (
    "ALTER SYSTEM RESET ALL",
    "ALTER ROLE allodoc_prod RESET ALL",
    "DROP TABLE IF EXISTS walk",
)


def filled_in(
    stack: Stack, part: str, facts: Facts, folder: Path, elsewhere: tuple[str, ...] = ELSEWHERE
) -> dict[str, list[str]]:
    """The guide's commands as they read for this stack, with the keys of each."""
    folder.mkdir(exist_ok=True)
    (folder / "bed.toml").write_text(stack.target)
    inspection = open_inspection("bed", folder, 30, ROOT)
    inspection.close()
    assert stack.states  # from which the operator's words know how compose made them
    without = exemptions()
    found: dict[str, list[str]] = {}
    for remedy in {remedy.anchor: remedy for remedy in load_guide().values()}.values():
        given = {"parameter": "backend", **facts.get(remedy.anchor, {})}
        words = vocabulary(inspection.target, stack.runtime.words, {name: str(value) for name, value in given.items()})
        for number, step in enumerate(getattr(render(remedy, words), part)):
            for place, command in enumerate(step.commands):
                key = f"{remedy.anchor} {part} {number} {place}"
                if not exemption(key, without) and not key.startswith(elsewhere):
                    found.setdefault(command, []).append(key)
    return found


def pasted(command: str, keys: Sequence[str]) -> str:
    """Paste a command and note that it works. Returns what went wrong, if anything."""
    try:
        printed = paste(command)
    except AssertionError as problem:
        return f"{', '.join(keys)}:\n{problem}"
    if "redis-cli" in command and REDIS_ERROR.search(printed):
        return f"{', '.join(keys)}:\n{command}\nprinted:\n{printed}"
    for key in keys:
        note_executed(key)
    return ""


@pytest.fixture
def facts(stack: Stack, container: ContainerFactory, tmp_path: Path) -> Iterator[Facts]:
    """What the findings would say: addresses of the stack, and things made for the commands that change them."""
    (port,) = free_ports(1)
    container(publish={80: port}, network="bridge")
    api = {"address": f"127.0.0.1:{stack.ports['backend']}", "url": f"http://127.0.0.1:{stack.ports['backend']}"}
    site = {"address": f"127.0.0.1:{stack.ports['https']}", "url": f"https://{SITE}/", "host": SITE}
    health = {**api, "url": f"{api['url']}/api/v1/health"}
    login = {"address": site["address"], "url": f"https://{SITE}/api/v1/auth/login", "origin": f"https://{SITE}"}
    settings = {"path": stack.folder / ".env"}
    checkout = {"path": stack.folder, "folder": stack.folder, "commit": "HEAD"}
    table = {"table": "walk", "name": "walk", "columns": "id", "index": "walk_index"}
    numbers = {"sequence": "walk_id_seq", "table": "walk", "column": "id"}
    image = stack.client.inspect_container(stack.names["backend"])
    images = {"container": stack.names["backend"], "id": image["Image"], "image": image["Config"]["Image"]}
    limits = {"name": stack.names["backend"], "more": "1g"}
    config = f"docker-compose -f {COMPOSE_FILE} --project-directory {stack.folder} -p {PROJECT} config -q"
    with ExitStack() as undo:
        session = {"pid": undo.enter_context(sleeping_session(stack))}
        process = subprocess.Popen(["sleep", "600"])
        undo.callback(process.wait)
        undo.callback(process.kill)
        yield {
            "guide/authentication.md#the-account-is-missing-or-inactive": {"table": "users"},
            "guide/database.md#postgresql-answers-slowly": session,
            "guide/database.md#a-transaction-idles": session,
            "guide/database.md#sessions-wait-for-a-lock": session,
            "guide/database.md#sessions-wait-for-an-advisory-lock": session,
            "guide/database.md#a-statement-runs-for-long": session,
            "guide/database.md#postgresql-is-short-of-processor-time": session,
            "guide/database.md#the-backend-cant-reach-the-database": {"host": stack.names["postgres"], "port": 5432},
            "guide/database.md#the-backend-does-not-find-the-databases-name": {"host": stack.names["postgres"]},
            "guide/database.md#statements-are-slow": {"queryid": 0},
            "guide/database.md#a-table-lacks-an-index": table,
            "guide/database.md#an-index-is-invalid": table,
            "guide/database.md#the-planners-statistics-are-old": table,
            "guide/database.md#dead-rows-pile-up": table,
            "guide/database.md#there-is-no-fresh-backup": {"folder": tmp_path},
            "guide/database.md#a-replica-or-its-slot-is-left-behind": {"slot": "walk"},
            "guide/database.md#a-table-does-not-survive-a-crash": table,
            "guide/database.md#a-sequence-runs-out-of-numbers": numbers,
            "guide/database.md#a-changed-setting-waits-for-the-next-start": {"setting": "shared_buffers"},
            "guide/deployment.md#the-last-deployment-did-not-go-through": {"path": stack.folder / "deploy.log"},
            "guide/deployment.md#something-else-runs-than-what-was-released": checkout,
            "guide/deployment.md#another-commit-is-on-disk-than-expected": checkout,
            "guide/deployment.md#files-were-changed-on-the-server": checkout,
            "guide/deployment.md#the-compose-file-is-not-valid": {**checkout, "command": config, "name": ".gitignore"},
            "guide/deployment.md#a-variable-of-the-compose-file-has-no-value": {**checkout, "path": COMPOSE_FILE},
            "guide/deployment.md#a-newer-image-is-waiting": images,
            "guide/deployment.md#the-image-of-a-service-is-gone": images,
            "guide/deployment.md#a-service-is-not-started-again": images,
            "guide/deployment.md#the-dockerfile-does-not-build": {
                "path": stack.folder / "backend" / "Dockerfile",
                "folder": stack.folder / "backend",
                "name": "Dockerfile",
            },
            "guide/deployment.md#the-production-environment-lacks-variables": {
                "example": stack.folder / ".env",
                "file": stack.folder / ".env",
            },
            "guide/deployment.md#the-production-environment-is-untidy": {
                "example": stack.folder / ".env",
                "file": stack.folder / ".env",
            },
            "guide/logs.md#a-sequence-has-come-to-its-end": {"thing": "walk_id_seq"},
            "guide/network.md#the-backend-does-not-answer": health,
            "guide/network.md#requests-are-lost-before-nginx": site,
            "guide/network.md#nginx-asks-an-address-that-is-no-more": {"host": stack.names["backend"]},
            "guide/network.md#nginx-cant-resolve-an-upstream": {"host": stack.names["backend"]},
            "guide/network.md#the-pages-origin-is-not-allowed": login,
            "guide/network.md#a-preflight-allows-too-little": login,
            "guide/network.md#the-preflight-gets-no-answer": login,
            "guide/network.md#no-tls-handshake": site,
            "guide/network.md#the-certificate-is-trusted-by-nobody": site,
            "guide/network.md#the-chain-is-incomplete": site,
            "guide/network.md#the-certificate-is-for-another-name": site,
            "guide/network.md#the-certificate-runs-out": site,
            "guide/network.md#the-certificate-is-not-valid-yet": site,
            "guide/network.md#port-80-does-not-lead-to-https": {
                "address": f"127.0.0.1:{stack.ports['http']}",
                "url": f"http://{SITE}/",
            },
            "guide/performance.md#redis-is-full": {"doubled": 1 << 30},
            "guide/performance.md#redis-throws-keys-away": {"doubled": 1 << 30},
            "guide/performance.md#the-api-answers-slowly": health,
            "guide/service.md#the-port-is-taken": {"parameter": stack.ports["backend"], "pid": process.pid},
            "guide/service.md#the-port-is-taken-by-another-container": {"parameter": port},
            "guide/service.md#nobody-listens-on-the-port": {"parameter": stack.ports["backend"]},
            "guide/service.md#an-environment-file-is-missing-or-broken": settings,
            "guide/service.md#an-environment-file-is-open-to-everybody": settings,
            "guide/service.md#a-service-ran-out-of-memory": limits,
            "guide/service.md#a-service-comes-close-to-its-limits": limits,
            "guide/service.md#a-service-may-start-no-more-processes": limits,
            "guide/service.md#the-apis-health-url-is-slow-or-does-not-answer-in-time": health,
            "guide/service.md#the-api-says-that-it-is-unhealthy": health,
            "guide/service.md#there-is-no-health-answer-at-this-address": health,
            "guide/service.md#the-health-url-does-not-say-how-the-api-is": health,
            "guide/service.md#the-page-is-not-the-application": site,
            "guide/service.md#the-page-loads-its-scripts-or-styles-do-not": site,
            "guide/service.md#the-page-cant-be-reached": site,
            "guide/service.md#the-disk-fills-up": {"path": tmp_path, "mounted_at": tmp_path},
        }


def sql(stack: Stack, *statements: str) -> list[tuple[object, ...]]:
    """Run statements as the server's administrator, each by itself; the rows of the last one."""
    with connect(stack) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def connect(stack: Stack) -> psycopg.Connection[tuple[object, ...]]:
    """A session of the role that the server was set up with."""
    return psycopg.connect(
        host="127.0.0.1",
        port=stack.ports["postgres"],
        user="allodoc_prod",
        dbname="allodoc_prod",
        password=stack.secrets["DATABASE_PASSWORD"],
        connect_timeout=5,
        autocommit=True,
    )


@contextmanager
def sleeping_session(stack: Stack) -> Iterator[int]:
    """The process id of a session that runs a long statement in a transaction: to be cancelled, and ended."""
    session = connect(stack)
    session.execute("BEGIN")

    def sleep() -> None:
        with suppress(psycopg.Error):
            session.execute("SELECT pg_sleep(600)")

    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    pid = session.info.backend_pid
    try:
        yield pid
    finally:
        # A server that works does not notice that its client has left.
        sql(stack, f"SELECT pg_terminate_backend({pid})")
        thread.join(10)
        session.close()


def test_each_command_that_looks_works(stack: Stack, facts: Facts, tmp_path: Path) -> None:
    """Whatever is well: each command that looks ends with status 0 there, too."""
    sql(stack, TABLE, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    try:
        commands = filled_in(stack, "look", facts, tmp_path / "targets")
        with ThreadPoolExecutor(2) as pool:
            problems = [problem for problem in pool.map(pasted, commands, commands.values()) if problem]
    finally:
        sql(stack, "DROP TABLE walk")
    assert not problems, "\n\n".join(problems)


@contextmanager
def changed(stack: Stack) -> Iterator[None]:
    """The stack with what the mending commands change; undone afterwards."""
    keep, put_back = (f"cd {DATA} && cp -p {names}" for names in ("pg_hba.conf kept.conf", "kept.conf pg_hba.conf"))
    crt, key = certificate()
    sql(stack, TABLE, "SELECT pg_create_physical_replication_slot('walk')")
    in_postgres(stack, keep)
    for name, text in (("server.crt", crt), ("server.key", key)):
        in_postgres(stack, f"umask 077 && cat >{name} <<'END'\n{text}END")
    try:
        yield
    finally:
        settle(stack)
        sql(stack, *UNDO)
        in_postgres(stack, f"{put_back} && rm kept.conf server.crt server.key")
        for role in ("redis", "postgres"):
            stack.restart(role)
        settle(stack)


def in_postgres(stack: Stack, script: str) -> None:
    """Run a shell script in PostgreSQL's data folder, as the account that owns it."""
    done = stack.exec("postgres", "sh", "-ec", f"cd {DATA}; {script}", user="postgres")
    assert done.exit_code == 0, done.stderr


def settle(stack: Stack) -> None:
    """Wait until both stores answer; what was stopped is started again."""
    for role, state in stack.states.items():
        if not state.running:
            stack.start(role)
    for role, command in (("postgres", ["pg_isready", "-q"]), ("redis", ["redis-cli", "ping"])):
        stack.wait_until(partial(_succeeds, stack, role, command), 20, f"{role} to answer")


def _succeeds(stack: Stack, role: str, command: Sequence[str]) -> bool:
    return stack.exec(role, *command).exit_code == 0


def arrange(stack: Stack, command: str) -> None:
    """Make it so that a command has something to do: what it starts is stopped, what it lets go on is paused."""
    if "SHUTDOWN" in command:
        return  # it stops by itself what it starts
    for action, role in re.findall(r"^docker (start|unpause) allodoc_(\w+)_prod", command, re.MULTILINE):
        (stack.stop if action == "start" else stack.pause)(role)


def undone(stack: Stack, command: str) -> str:
    """What a command that brings services back has left undone; empty for nothing."""
    awaited = re.findall(r"docker (?:start|unpause|restart) allodoc_(\w+)_prod|--force-recreate (\w+)", command)
    states = stack.states
    down = [role for pair in awaited for role in pair if role and not states[role].running]
    return f"{command}\nleft {', '.join(down)} down" if down else ""


def test_each_command_that_mends_works(stack: Stack, facts: Facts, tmp_path: Path) -> None:
    """Each command that mends ends with status 0; what it starts runs, and what it ends is gone."""
    problems: list[str] = []
    with changed(stack):
        commands = filled_in(stack, "mend", facts, tmp_path / "targets")
        for command in sorted(commands, key=lambda text: bool(LIFE.search(text))):
            arrange(stack, command)
            problems += filter(None, (pasted(command, commands[command]), undone(stack, command)))
            if LIFE.search(command):
                settle(stack)
        ended = facts["guide/database.md#a-transaction-idles"]["pid"]
        assert (ended,) not in sql(stack, "SELECT pid FROM pg_stat_activity")
    assert not problems, "\n\n".join(problems)


def test_a_standby_by_mistake(stack: Stack, tmp_path: Path) -> None:
    """What is said of a standby is pasted into one: its replay is let go on, and it is made the primary again."""
    in_postgres(stack, "touch standby.signal")
    stack.restart("postgres")
    settle(stack)
    sql(stack, "SELECT pg_wal_replay_pause()")
    guide = load_guide()
    problems = []
    for part in ("look", "mend"):
        commands = filled_in(stack, part, {}, tmp_path / "targets", elsewhere=())
        for symptom in ("db.accepts-connections/recovering", "db.replication/paused", "db.query/in-recovery"):
            for command, keys in commands.items():
                if mine := [key for key in keys if key.startswith(f"{guide[symptom].anchor} ")]:
                    problems.append(pasted(command, mine))
    assert not any(problems), "\n\n".join(filter(None, problems))
    assert sql(stack, "SELECT pg_is_in_recovery()") == [(False,)]
