"""What the logs of the embedded demo tell, and what they hide: floods, secrets, herrings, two faults at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.beds.edge import Edge
from tests.beds.embedded import Demo
from tests.beds.misbehaviour import Misbehave, behave
from tests.beds.release import Release
from tests.faults.embedded.api import ask, signed_in
from tests.faults.embedded.authentication import NO_LOGIN, smoke_account
from tests.faults.embedded.deployment import deployed, stamp
from tests.faults.embedded.nginx import AUTHORITY, BEHIND_NGINX
from tests.faults.fault import Exempt, fault, steps

Hand = Callable[[], object]

LATER = "ten minutes later, which no test waits for, it is history"


def record(demo: Demo, role: str, *lines: str, ago: timedelta = timedelta(seconds=1), stream: str = "stderr") -> None:
    """Put recorded lines into a service's log, as if it had written them a while ago."""
    at = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    with Path(demo.service(role)["log_files"][-1]).open("a", encoding="utf-8") as log:
        log.writelines(f"{at} {stream} {line}\n" for line in lines)


def nest(text: str, level: str = "ERROR") -> str:
    """A line of the backend's."""
    return f"[Nest] 8  - 11/23/2026, 2:03:23 PM   {level} [Reports] {text}"


def request(client: str, path: str, status: int = 200) -> str:
    """A line of nginx's access log."""
    at = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
    return f'{client} - - [{at}] "GET {path} HTTP/1.1" {status} 31 "-" "-" rt=0.010 uct="0.000" uht="0.010" urt="0.010"'


# --- errors -----------------------------------------------------------------------------------------------------------


@fault(
    root=["service.log-errors[backend]"],
    may=["logs.flood[backend]", "logs.levels[backend]"],
    shows=["1000 × error: "],
    looks=["no route to the printer"],
    mend=steps(0),
)
def one_error_a_thousand_times(demo: Demo) -> Iterator[Hand]:
    """One thing fails a thousand times, each with a number of its own: one line with a count."""
    record(demo, "backend", *(nest(f"Error: no route to the printer, request {number}") for number in range(1000)))
    yield demo.forget_logs


@fault(
    root=["service.log-errors[backend]"],
    may=["logs.levels[backend]"],
    shows=["9 × error: ", "6 × error: ", "3 × error: "],
    mend=steps(0),
)
def three_errors_mixed(demo: Demo) -> Iterator[Hand]:
    """Three things fail in turn: three groups, the most frequent first."""
    kinds = ("connection refused", "request timeout", "out of memory")
    for number in range(9):
        record(
            demo, "backend", *(nest(f"Error: {kind} {number}") for at, kind in enumerate(kinds) if number < 9 - 3 * at)
        )
    yield demo.forget_logs


@fault(
    root=["service.log-errors[backend]"],
    shows=["fatal"],
    looks=["Unhandled rejection"],
    mend=steps(0),
)
def exception_that_nobody_caught(demo: Demo) -> Iterator[Hand]:
    """An exception that nobody caught ended the process once."""
    record(
        demo,
        "backend",
        nest("Unhandled rejection: boom"),
        "/app/dist/main.js:17",
        "    throw new Error('boom');",
        "    ^",
        "",
        "Error: boom",
        "    at Object.<anonymous> (/app/dist/main.js:17:11)",
        "",
        "Node.js v20.20.2",
    )
    yield demo.forget_logs


@fault(
    root=["logs.flood[backend]"],
    may=["service.log-errors[backend]"],
    shows=["tell of an endless loop"],
    looks=["Maximum call stack"],
    mend=steps(0),
)
def endless_recursion(demo: Demo, misbehave: Misbehave) -> Iterator[Hand]:
    """A recursion without an end: the stack overflows, again and again."""
    misbehave("setTimeout(() => console.log('RangeError: Maximum call stack size exceeded'), 300);")
    demo.wait_until(lambda: "Maximum call stack" in demo.log_text("backend"), what="the message")

    def mended() -> None:
        behave(demo)
        demo.forget_logs()

    yield mended


@fault(warns=["logs.flood[backend]"], shows=["the most frequent"], looks=["polling the queue again"], mend=steps(0))
def chatter(demo: Demo) -> Iterator[Hand]:
    """A loop writes the same line thousands of times, and nothing is wrong otherwise."""
    record(demo, "backend", *(nest("polling the queue again", "  LOG") for _ in range(2000)), stream="stdout")
    yield demo.forget_logs


@fault(root=["logs.levels[backend]"], shows=["times as often"], looks=["the scanner answers late"], mend=steps())
def warnings_become_more(demo: Demo) -> Iterator[Hand]:
    """A part that was slow now and then is slow all the time: many warnings, and no error."""
    late = nest("the scanner answers late", "   WARN")
    record(demo, "backend", *[late] * 2, ago=timedelta(minutes=55), stream="stdout")
    record(demo, "backend", *[late] * 40, stream="stdout")
    yield demo.forget_logs


@fault(
    root=["logs.volume[*]"],
    limits="[limits.logs]\nvolume = {warn = 0, fail = 0}\n",
    shows=["of the disk is log"],
    mend=Exempt("to fill a tenth of a disk is no test; here the limit is none, which nothing mends"),
)
def logs_without_measure(demo: Demo) -> Iterator[None]:
    """The logs take more of the disk than they may."""
    assert demo.log_text("backend") is not None
    yield


@fault(warns=["logs.leaked-secrets[backend]"], shows=["lines hold a"], looks=["1"], mend=steps(0))
def password_in_the_log(demo: Demo) -> Iterator[Hand]:
    """Somebody left a line in the code that logs what users type."""
    record(demo, "backend", nest("signing in with password=Canary-77-secret", "  LOG"), stream="stdout")
    yield demo.forget_logs


@fault(root=["logs.top-clients"], shows=["addresses in all"], looks=["203.0.113.7"], mend=steps(0))
def one_client_runs_wild(demo: Demo) -> Iterator[Hand]:
    """A script somewhere asks for everything, all the time."""
    record(demo, "nginx", *(request("203.0.113.7", f"/api/v1/patients/{n}") for n in range(300)), stream="stdout")
    record(demo, "nginx", *(request(f"198.51.100.{n}", "/") for n in range(5)), stream="stdout")
    yield demo.forget_logs


@fault(
    root=["api.error-rate"],
    shows=["/api/v1/reports"],
    looks=["500"],
    mend=steps(0),
)
def route_that_fails_in_silence(demo: Demo) -> Iterator[Hand]:
    """A route answers 500 and logs nothing: only nginx' log tells, with the path."""
    record(demo, "nginx", *(request("203.0.113.7", "/api/v1/reports", 500) for _ in range(15)), stream="stdout")
    record(demo, "nginx", *(request("198.51.100.9", "/") for n in range(25)), stream="stdout")
    yield demo.forget_logs


@fault(
    root=["db.sequences[patients_number_seq]"],
    follows=["logs.sql-errors"],
    may=["service.log-errors[*]", "db.log-errors", "api.error-rate"],
    shows=["2 of 2 numbers are given out", "its own MAXVALUE is 2"],
    looks=["patients_number_seq"],
    mend=steps(0),
)
def sequence_at_its_end(demo: Demo) -> Iterator[Hand]:
    """The numbers of a table's rows have run out: nothing can be added to it, and all else goes on."""
    demo.sql("CREATE SEQUENCE patients_number_seq START 2 MAXVALUE 2")
    demo.sql("SELECT nextval('patients_number_seq')")
    demo.sql("ALTER TABLE patients ADD COLUMN number int")
    demo.sql("ALTER TABLE patients ALTER COLUMN number SET DEFAULT nextval('patients_number_seq')")
    try:
        with signed_in(demo) as session:
            patient = {"firstName": "Erika", "lastName": "Mustermann", "dateOfBirth": "1964-08-12"}
            url = f"{demo.urls['https']}/api/v1/patients"
            answer = session.post(url, json=patient, timeout=10, verify=str(demo.ca_file))
            assert answer.status_code == 500, answer.text
        yield demo.forget_logs
    finally:
        demo.sql("ALTER TABLE patients DROP COLUMN number")
        demo.sql("DROP SEQUENCE patients_number_seq")


@fault(
    warns=["api.error-rate"],
    shows=["turned away by nginx' own limit"],
    looks=['zone "api"', "limit_req zone=api burst=20"],
    mend=steps(0),
)
def client_over_the_limit(demo: Demo) -> Iterator[Hand]:
    """Somebody asks faster than nginx allows, and gets 503 from nginx itself: the backend has nothing to do with it."""
    with signed_in(demo) as session:
        assert ask(demo, session, "/live", 60) == {200, 503}
    yield demo.forget_logs


# --- herrings, and several at once ------------------------------------------------------------------------------------


@fault(
    root=["network.nginx-upstream[127.0.0.1:9]"],
    follows=["network.backend[edge]"],
    may=BEHIND_NGINX,
    warns=["service.log-errors[backend]"],
    mend={"network.nginx-upstream[127.0.0.1:9]": steps(1), "service.log-errors[backend]": Exempt(LATER)},
)
def old_errors_beside_a_wrong_upstream(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """Errors of some minutes ago stand in the backend's log, and have nothing to do with what is wrong now."""
    lines = (nest(f"Error: Redis timeout {number}") for number in range(40))
    record(demo, "backend", *lines, ago=timedelta(minutes=6))
    edge.change((f"server 127.0.0.1:{demo.port('backend')};", "server 127.0.0.1:9;"))
    yield edge.put_back


@fault(
    root=["tls.expiry[localhost]", "auth.account"],
    follows=["tls.expiry[app.allodoc.test]", "auth.login"],
    may=NO_LOGIN,
    mend={"tls.expiry[localhost]": steps(0), "auth.account": steps(0)},
)
def certificate_expired_and_account_deactivated(demo: Demo, edge: Edge) -> Iterator[Hand]:
    """Two faults that have nothing to do with one another: both have to be named."""
    edge.install(*AUTHORITY.issue(begins=-300, lasts=-2), authority=AUTHORITY.pem)
    with smoke_account(demo, '"isActive" = false'):
        yield lambda: edge.install(*AUTHORITY.issue(), load=False)


@fault(
    root=["deploy.log", "network.cors-config"],
    may=["network.cors-preflight[*]"],
    mend={"deploy.log": steps(), "network.cors-config": steps(0)},
)
def failed_deployment_beside_a_wrong_origin(release: Release) -> Iterator[Hand]:
    """A deployment failed in its build, and somebody mistyped an origin the same night."""
    demo = release.demo
    right = demo.environment("backend")["CORS_ORIGIN"]
    release.write_log(f"{stamp()} Deployment started", f"{stamp()} npm ERR! code E404", f"{stamp()} Deployment failed")
    demo.set_env("backend", CORS_ORIGIN="http://localhost:4299")
    demo.recreate("backend")
    demo.wait_healthy("backend")

    def mended() -> None:
        deployed(release)
        demo.set_env("backend", CORS_ORIGIN=right)

    yield mended


@fault(
    root=["service.running[backend]"],
    follows=["api.error-rate", "deploy.upstream-errors"],
    may=("*",),
    looks=["exited"],
    mend=steps(0),
)
def users_got_502_from_a_stopped_backend(demo: Demo) -> Iterator[None]:
    """The backend was stopped, and users went on asking: one causes the other, and one is named."""
    with signed_in(demo) as session:
        demo.stop("backend")
        for _ in range(2):
            assert ask(demo, session, "/patients", 20) <= {502, 503}
    yield
    demo.forget_logs()


@fault(
    warns=["deploy.upstream-errors"],
    shows=["over by now"],
    looks=["502"],
    mend=steps(1),
)
def users_got_502_during_a_deployment(demo: Demo) -> Iterator[Hand]:
    """A deployment cut users off for a moment, and everything is well again: a warning, and no alarm."""
    with signed_in(demo) as session:
        demo.stop("backend")
        assert ask(demo, session, "/patients", 12) <= {502}
        demo.start("backend")
        demo.wait_healthy("backend")
        assert ask(demo, session, "/patients", 12) <= {200, 503}
    yield demo.forget_logs
