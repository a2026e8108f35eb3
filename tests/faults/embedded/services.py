"""Services of the embedded demo that do not run, or run and do not answer; and the machine under them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.beds.edge import Edge
from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave, behave
from tests.faults.embedded.consequences import BACKEND_GONE, CACHE_GONE, DATABASE_GONE, THE_API
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]


# --- they do not run --------------------------------------------------------------------------------------------------


@fault(
    root=["service.running[redis]"],
    follows=["cache.ping", "service.running[backend]"],
    may=(*CACHE_GONE, *BACKEND_GONE),
    shows=["ended", "exit code 0"],
    mend=steps(0),
)
def redis_stopped(demo: Demo) -> Iterator[None]:
    """Redis was stopped, and nobody started it again."""
    demo.stop("redis")
    yield


@fault(
    root=["service.running[postgres]"],
    follows=["db.port", "service.health-endpoint[direct]"],
    may=(*DATABASE_GONE, *THE_API, "service.log-errors[backend]"),
    mend=steps(0),
)
def postgres_stopped(demo: Demo) -> Iterator[None]:
    """PostgreSQL was stopped, and nobody started it again."""
    demo.stop("postgres")
    yield


@fault(
    root=["service.running[backend]"],
    follows=["network.backend[direct]", "network.backend[edge]"],
    may=BACKEND_GONE,
    mend=steps(0),
)
def backend_stopped(demo: Demo) -> Iterator[None]:
    """The API was stopped: nginx answers 502."""
    demo.stop("backend")
    yield


@fault(
    root=["service.running[nginx]"],
    follows=["service.exit-code[nginx]", "service.app-loads[edge]", "tls.handshake[*]"],
    may=("*[edge]", "service.*[nginx]", "host.cpu[nginx]", "network.*", "tls.*", "api.*", "auth.*", "deploy.*"),
    shows=["exit code 137"],
    mend=steps(0),
)
def nginx_killed(demo: Demo) -> Iterator[None]:
    """Somebody killed nginx by hand, and it stays down."""
    demo.kill("nginx")
    yield


@fault(
    root=["service.running[backend]"],
    follows=["service.health-endpoint[direct]", "network.backend[direct]"],
    may=BACKEND_GONE,
    shows=["is paused"],
    mend=steps(0),
)
def backend_paused(demo: Demo) -> Iterator[None]:
    """The API's processes are frozen: connections are taken and never answered."""
    demo.pause("backend")
    yield


# --- they run, and are not well ---------------------------------------------------------------------------------------


@fault(
    root=["service.healthcheck[nginx]"],
    shows=["unhealthy", "HTTP 301"],
    mend=steps(0),
)
def health_check_asks_for_a_route_that_moved(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """Users are served, but the route that the health check asks nginx for is gone."""
    edge.change(("location = /nginx-health {", "location = /nginx-status {"))
    demo.wait_until(lambda: demo.service("nginx")["health"]["status"] == "unhealthy", what="nginx to be unhealthy")
    yield edge.put_back


ILL = """
const http = require('node:http');
const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response) {
  if (event === 'request' && request.url.includes('/health')) {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    return response.end('{"status":"unhealthy","services":{}}');
  }
  return emit.apply(this, arguments);
};
"""


@fault(
    root=["service.health-endpoint[direct]"],
    follows=["service.health-endpoint[edge]"],
    shows=["HTTP 200, and the body says unhealthy"],
    mend=steps(1),
)
def unhealthy_body_with_http_200(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """The API says that it is unhealthy, with HTTP 200, which every load balancer takes for well."""
    misbehave(ILL)
    yield lambda: demo.unset_env("backend", "NODE_OPTIONS")


@fault(
    root=["service.app-loads[edge]"],
    may=("tls.mixed-content[edge]",),
    shows=["main-", "HTTP 404"],
    looks=["HTTP 404"],
    mend=steps(1),
)
def bundle_of_the_page_missing(edge: Edge) -> Iterator[Hand]:
    """The page names a script that is not on disk: users see a white page, with HTTP 200."""
    folder = edge.page()
    (bundle,) = folder.glob("main-*.js")
    content = bundle.read_bytes()
    bundle.unlink()

    def back() -> None:
        bundle.write_bytes(content)
        bundle.chmod(0o644)

    yield back


# --- they end again and again -----------------------------------------------------------------------------------------


@fault(
    root=["service.required-env[backend]"],
    follows=["service.restart-loop[backend]", "service.exit-code[backend]", "network.backend[edge]"],
    may=(*BACKEND_GONE, "auth.jwt-secrets", "auth.refresh-config", "deploy.env-parity"),
    shows=["JWT_REFRESH_SECRET"],
    mend=steps(1),
)
def crash_loop_for_want_of_a_variable(demo: Demo) -> Iterator[Hand]:
    """One variable was lost from the environment file: the API ends at each start."""
    secret = demo.environment("backend")["JWT_REFRESH_SECRET"]
    demo.unset_env("backend", "JWT_REFRESH_SECRET")
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 2, what="the backend to loop")
    yield lambda: demo.set_env("backend", JWT_REFRESH_SECRET=secret)


@fault(
    root=["service.exit-code[backend]"],
    follows=["service.restart-loop[backend]"],
    may=BACKEND_GONE,
    shows=["exit code 3"],
    mend=steps(1),
)
def new_version_ends_at_its_start(demo: Demo) -> Iterator[Hand]:
    """A new build gives up at its start with a code of its own, again and again."""
    file = demo.state / "misbehaviour.js"
    file.write_text("console.error('Error: cannot find the module of yesterday'); process.exit(3);", "utf-8")
    file.chmod(0o644)
    demo.set_env("backend", NODE_OPTIONS=f"--require {file}")
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 2, what="the backend to loop")
    yield lambda: demo.unset_env("backend", "NODE_OPTIONS")


@fault(
    root=["service.restart-loop[backend]"],
    follows=["service.running[backend]", "service.stays-up[backend]"],
    may=BACKEND_GONE,
    mend=steps(1),
)
def ends_without_an_error_again_and_again(demo: Demo) -> Iterator[Hand]:
    """The API's program does nothing and ends, with code 0, and is started again each time."""
    file = demo.state / "misbehaviour.js"
    file.write_text("process.exit(0);", "utf-8")
    file.chmod(0o644)
    demo.set_env("backend", NODE_OPTIONS=f"--require {file}")
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 2, what="the backend to loop")
    yield lambda: demo.unset_env("backend", "NODE_OPTIONS")


@fault(
    root=["service.exit-code[backend]"],
    follows=["service.restart-loop[backend]"],
    may=BACKEND_GONE,
    shows=["exit code 3"],
    mend=steps(1),
)
def well_between_two_ends(demo: Demo) -> Iterator[Hand]:
    """A new build ends four seconds after each start, and is healthy until then."""
    file = demo.state / "misbehaviour.js"
    file.write_text("setTimeout(() => process.exit(3), 4000);", "utf-8")
    file.chmod(0o644)
    demo.set_env("backend", NODE_OPTIONS=f"--require {file}")
    demo.recreate("backend")
    demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 3, what="the backend to loop", timeout=30)
    demo.wait_healthy("backend")
    yield lambda: demo.unset_env("backend", "NODE_OPTIONS")


@fault(
    warns=["service.stays-up[nginx]", "service.restart-loop[nginx]"],
    mend=Exempt("time mends it: a service that stays up for ten minutes has settled"),
)
def crashed_once_and_up_again(demo: Demo) -> Iterator[None]:
    """nginx died a moment ago, and its runtime started it again: users can work."""
    demo.crash("nginx")
    demo.wait_until(lambda: demo.service("nginx")["restart_count"] >= 1, what="nginx to be started again")
    demo.wait_healthy()
    yield
    demo.restart("nginx")


# --- settings and ports -----------------------------------------------------------------------------------------------

LISTEN = (
    "import socket, sys, time\n"
    "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
    "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); print('listens', flush=True)\n"
    "time.sleep(600)"
)


@contextmanager
def stray(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process outside the stack that listens on a port."""
    with subprocess.Popen([sys.executable, "-c", LISTEN, str(port)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listens\n"
            yield process
        finally:
            process.kill()


@fault(
    root=["service.port-conflict[*]"],
    follows=["service.restart-loop[backend]", "network.backend[direct]"],
    may=BACKEND_GONE,
    shows=["held by pid", "python"],
    mend=steps(0, 1),
)
def port_taken_by_a_stray_process(demo: Demo) -> Iterator[None]:
    """A leftover process holds the API's port, so the API ends at each start."""
    port = demo.port("backend")
    demo.stop("backend")
    with stray(port):
        demo.start("backend")
        demo.wait_until(lambda: demo.service("backend")["restart_count"] >= 1, what="the backend to fail")
        yield


@fault(
    root=["service.port-conflict[*]"],
    follows=["network.backend[direct]", "network.backend[edge]"],
    may=BACKEND_GONE,
    limits="[limits.service]\nuptime = {warn = 0.01}\n",
    shows=["nobody listens"],
    mend=steps(0),
)
def listens_on_another_port_than_published(demo: Demo) -> Iterator[Hand]:
    """The API was given another port than the one that leads to it, and is well, where nobody asks it."""
    port = demo.environment("backend")["PORT"]
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        other = int(held.getsockname()[1])
    demo.set_env("backend", PORT=str(other))
    demo.recreate("backend")
    demo.wait_until(lambda: "API listens on" in demo.log_text("backend").rpartition("NestFactory")[2], what="it")
    yield lambda: demo.set_env("backend", PORT=port)


@fault(root=["service.env-file[backend]"], shows=["is missing"], mend=steps(0))
def environment_file_gone(demo: Demo) -> Iterator[Hand]:
    """The API's environment file is gone: nobody notices before its next start."""
    file = demo.folder.env_file("backend")
    kept = file.rename(file.with_name("env.aside"))
    yield lambda: kept.rename(file)


@fault(root=["service.env-file[backend]"], shows=["is no setting"], mend=steps(0))
def environment_file_with_a_broken_line(demo: Demo) -> Iterator[Hand]:
    """Somebody left a line in the API's environment file that is no setting."""
    file = demo.folder.env_file("backend")
    text = file.read_text()
    file.write_text(f"{text}JWT SECRET canary-4711\n")
    yield lambda: file.write_text(text)


@fault(warns=["service.env-file[backend]"], mend=steps(0))
def environment_file_open_to_everybody(demo: Demo) -> Iterator[None]:
    """Everybody on the machine may read the API's secrets."""
    demo.folder.env_file("backend").chmod(0o644)
    yield


@fault(
    warns=["service.required-env[backend]"],
    shows=["COOKIE_SECRET"],
    mend=steps(1),
)
def secret_left_as_in_the_example(demo: Demo) -> Iterator[Hand]:
    """A secret has still the value that the example file gives it."""
    secret = demo.environment("backend")["COOKIE_SECRET"]
    demo.set_env("backend", COOKIE_SECRET="changeme")
    demo.recreate("backend")
    demo.wait_healthy("backend")
    yield lambda: demo.set_env("backend", COOKIE_SECRET=secret)


# --- what they log ----------------------------------------------------------------------------------------------------


def record(demo: Demo, role: str, *lines: str, ago: timedelta = timedelta(seconds=1)) -> None:
    """Put lines into a service's log, as if it had written them a while ago."""
    at = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    with Path(demo.service(role)["log_files"][-1]).open("a", encoding="utf-8") as log:
        log.writelines(f"{at} stderr {line}\n" for line in lines)


@fault(
    root=["service.log-errors[backend]"],
    shows=["12 × error", "with a stack trace"],
    looks=["mail gateway"],
    mend=steps(0),
)
def handler_that_throws(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """A part of the API that no health check asks for throws again and again."""
    misbehave(
        "let n = 0; const t = setInterval(() => { console.error('Error: the mail gateway refuses us\\n'"
        " + '    at send (/app/mail.js:7:3)'); if (++n === 12) clearInterval(t); }, 30);"
    )
    demo.wait_until(lambda: demo.log_text("backend").count("mail gateway") >= 12, what="the errors")

    yield lambda: behave(demo)


# --- the machine ------------------------------------------------------------------------------------------------------


@fault(root=["host.docker"], may=("*",), shows=["no answer"], mend=Exempt("it starts the whole stack anew"))
def runtime_frozen(demo: Demo) -> Iterator[None]:
    """What runs the services is frozen itself; they work on, but nobody can tell."""
    pid = demo.document()["supervisor"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@fault(
    root=["host.memory"],
    limits="[limits.host]\nmemory_available = {warn = 100, fail = 99.9}\nload_per_core = {warn = 1000, fail = 1000}\n",
    mend=Exempt("the machine has memory: a limit that it can't meet stands in for the want of it"),
)
def memory_of_the_machine_short(demo: Demo) -> Iterator[None]:
    """Less memory is available than the limit asks for."""
    del demo
    yield


CRASH_FOLDER = Path("/tmp/allodoc-crash")


@fault(
    root=["service.core-dumps"],
    limits=f'[host]\ncrash_folder = "{CRASH_FOLDER}"\n',
    shows=["core dumps in 24 h 1"],
    mend=steps(0),
)
def process_dumped_core(demo: Demo) -> Iterator[None]:
    """A process of this machine crashed, and left its memory in the crash folder."""
    del demo
    dump = CRASH_FOLDER / f"core.{os.getpid()}"
    moved = Path("/var/tmp/core-dumps") / dump.name
    CRASH_FOLDER.mkdir(exist_ok=True)
    dump.write_bytes(b"x" * 2048)
    try:
        yield
    finally:
        shutil.rmtree(CRASH_FOLDER)
        moved.unlink(missing_ok=True)
        with suppress(OSError):
            moved.parent.rmdir()


@fault(
    root=["host.cpu[backend]"],
    may=(*THE_API, "host.load"),
    # They share this machine's processors with whatever else is tested.
    limits="[limits.host]\ncpu = {warn = 10, fail = 20}\nload_per_core = {warn = 1000, fail = 1000}\n"
    "pressure = {warn = 101, fail = 101}\n",
    mend=steps(0),
)
def backend_that_computes_without_a_pause(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """Threads of the API compute without a pause."""
    misbehave(
        "const { Worker, isMainThread } = require('node:worker_threads');"
        "if (isMainThread) setTimeout(() => { for (let n = 0; n < 4; n += 1) "
        "new Worker('for (;;) ;', { eval: true, execArgv: [], env: {} }); }, 1000);"
    )
    began = time.monotonic()
    demo.wait_until(lambda: time.monotonic() > began + 1.5, what="the threads to run")
    yield lambda: behave(demo)
