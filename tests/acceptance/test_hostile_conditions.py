"""The suite where everything is against it: killed, without room, rights or home, far away, and not alone."""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from fixtures.postgres_handshake import APPLICATION_NAME
from fixtures.redis_handshake import CLIENT_NAME
from tests.beds.distance import far_away
from tests.beds.embedded import Demo
from tests.beds.suite import BUSY, ROOT, Health, Run, run_suite

ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "8"))
SEED = 4

# What the machine's load or the demo's own statistics decide: these grow from run to run, whatever the conditions.
UNSTEADY = {
    "api.memory-growth",
    "host.pressure",
    "host.load",
    "api.nodejs",
    "api.duration-histogram",
    "auth.token-store",
    "db.cache-hit",
    "db.slow-statements",
    "service.activity",
}

Outcomes = Mapping[str, str]


def outcomes(run: Run) -> dict[str, str]:
    """The outcome of each finding that does not depend on how busy the machine and the demo are."""
    names = {name: run.outcome(name) for name in run.names()}
    return {name: outcome for name, outcome in names.items() if name.partition("[")[0] not in UNSTEADY}


@pytest.fixture(scope="module")
def plain(demo_bed: Demo, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of all checks under no conditions at all, on a system that has had some traffic: that of another run."""
    for _ in range(2):
        run = run_suite(tmp_path_factory.mktemp("plain"), "checks", target=demo_bed.target)
    run.is_calm()
    return run


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """Writes a plugin for ``-p`` and returns the environment in which it is found."""

    def write(name: str, source: str) -> dict[str, str]:
        (tmp_path / f"{name}.py").write_text(source, "utf-8")
        return {"PYTHONPATH": str(tmp_path)}

    return write


# --- killed ----------------------------------------------------------------------------------------------------------

_PR_SET_CHILD_SUBREAPER = 36


class Orphanage:
    """Whose parent was killed becomes a child of this process: nobody escapes."""

    def __init__(self) -> None:
        self._known = {child.pid for child in psutil.Process().children(recursive=True)}

    def inmates(self) -> list[str]:
        """The processes that are left, those that ended meanwhile buried."""
        alive = []
        for child in psutil.Process().children(recursive=True):
            if child.pid in self._known:
                continue
            with contextlib.suppress(psutil.Error, ChildProcessError):
                if child.status() == psutil.STATUS_ZOMBIE and child.ppid() == os.getpid():
                    os.waitpid(child.pid, os.WNOHANG)
                else:
                    alive.append(f"{child.pid} {' '.join(child.cmdline())[:100]}")
        return alive


@pytest.fixture
def orphanage() -> Iterator[Orphanage]:
    """What a killed process leaves comes here."""
    prctl = ctypes.CDLL(None).prctl
    assert prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield Orphanage()
    prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what makes the suite, in which nobody else works."""
    copy = tmp_path / "checkout"
    for name in ("allodoc_health", "checks", "demo", "fixtures", "guide", "targets"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("node_modules", "*.pyc.*"))
    shutil.copytree(ROOT / "reports", copy / "reports", ignore=shutil.ignore_patterns("runs"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy2(ROOT / name, copy)
    return copy


def _files(*folders: Path) -> set[Path]:
    """All files below, save reports, what Python and pytest keep for the next time, and pytest-xdist's own folder.

    pytest puts a lock of its own into that one, and passes over those that it finds.
    """
    found = (path for folder in folders for path in folder.rglob("*"))
    kept = {"__pycache__", ".pytest_cache", "runs", f"pytest-of-{getpass.getuser()}"}
    return {path for path in found if path.is_file() and not kept & set(path.parts)}


def _clients(demo: Demo) -> set[str]:
    with contextlib.closing(demo.redis()) as client:
        return {str(one["name"]) for one in client.client_list()}


def _are_whole(reports: Path) -> None:
    """Assert that every report that has its final name is all there."""
    for path in reports.glob("[!.]*.json"):
        assert json.loads(path.read_text("utf-8"))["verdict"], path
    for path in reports.glob("[!.]*.html"):
        assert path.read_text("utf-8").rstrip().endswith("</html>"), path


@pytest.mark.timeout(60 + 15 * ROUNDS)
def test_killed_at_any_moment(demo: Demo, orphanage: Orphanage, checkout: Path, tmp_path: Path) -> None:
    """SIGKILL leaves no session, no client, no process and no file behind, and the next run is what it always is."""
    targets, private = tmp_path / "targets", tmp_path / "private"
    targets.mkdir()
    private.mkdir()
    (targets / "bed.toml").write_text(demo.target + BUSY, "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment |= {"HOME": str(private), "TMPDIR": str(private)}
    command = [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "checks", "--target", "bed"]
    command += ["-o", f"target_path={targets}"]
    reports = checkout / "reports" / "runs"
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=checkout,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def finish() -> float:
        began = time.monotonic()
        assert start().wait(60) == 0
        _are_whole(reports)
        assert json.loads((reports / "latest.json").read_text("utf-8"))["verdict"]["state"] in ("healthy", "warning")
        return time.monotonic() - began

    length = finish()
    before = _files(checkout, private)
    chance = random.Random(SEED)  # noqa: S311  # moments, not secrets
    killed = 0
    told = ""
    for number in range(ROUNDS):
        several = ("-n", "2") if number % 4 == 3 else ()
        moment = chance.uniform(0.2, 1.0) * length
        told = f"round {number}, killed after {moment:.2f} of {length:.2f} s {several}"
        process = start(*several)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        killed += process.poll() is None
        process.kill()
        process.wait()
        demo.wait_until(lambda: not orphanage.inmates(), 10, f"every process to end: {told}, {orphanage.inmates()}")
        demo.wait_until(lambda: demo.sql(sessions, APPLICATION_NAME) == [(0,)], 10, f"our session to end: {told}")
        demo.wait_until(lambda: CLIENT_NAME not in _clients(demo), 10, f"our client of Redis to be gone: {told}")
        assert _files(checkout, private) == before, told
        _are_whole(reports)
    assert killed > ROUNDS / 2
    finish()


TORN = """
import os, pathlib, signal
place = os.environ["TORN"]
write, link = pathlib.Path.write_text, pathlib.Path.symlink_to
def write_text(self, data, *rest, **more):
    if self.name.endswith(".unfinished") and place in self.name:
        write(self, data[: len(data) // 2], *rest, **more)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, data, *rest, **more)
def symlink_to(self, *rest, **more):
    link(self, *rest, **more)
    if self.name.endswith(".link") and place in self.name:
        os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.write_text, pathlib.Path.symlink_to = write_text, symlink_to
"""


def test_killed_while_it_writes(demo: Demo, tmp_path: Path, plugin: Callable[[str, str], dict[str, str]]) -> None:
    """Half a report has a hidden name, ``latest`` leads to a whole one, and a later run clears away what is old."""
    environment = plugin("torn", TORN)
    quick = ("checks/service", "-k", "service.running")
    whole = run_suite(tmp_path / "run", *quick, target=demo.target)
    whole.is_calm()
    for place in (".json.", ".html.", ".latest.json.", ".latest.html."):
        torn = run_suite(
            tmp_path / "run", *quick, "-p", "torn", target=demo.target, environment={**environment, "TORN": place}
        )
        assert torn.exit_status == -signal.SIGKILL, torn.output
        _are_whole(torn.folder)
        assert torn.snapshot["verdict"]["state"] == "healthy"
    hidden = list(whole.folder.glob(".*"))
    assert len(hidden) == 4
    for path in hidden[1:]:
        os.utime(path, (0, 0), follow_symlinks=False)
    run_suite(tmp_path / "run", *quick, target=demo.target).is_calm()
    assert list(whole.folder.glob(".*")) == hidden[:1]
    _are_whole(whole.folder)


# --- without room, rights or home ------------------------------------------------------------------------------------


@pytest.fixture
def mounting() -> None:
    """Skips where no file systems can be mounted out of everybody's sight."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {tried.stderr.decode(errors='replace').strip()}")


def _mounted(script: str, *arguments: str) -> list[str]:
    """A command that runs another one where a shell's script, given arguments from ``$1``, has mounted things."""
    count = len(arguments)
    return ["unshare", "--mount", "sh", "-euc", f'{script}\nshift {count}\n"$@"', "sh", *arguments]


@pytest.mark.usefixtures("mounting")
def test_the_disk_is_full(demo: Demo, tmp_path: Path) -> None:
    """The verdict is told, the exit status is true, and no report is there by half."""
    folder, kept = tmp_path / "run" / "reports", tmp_path / "kept"
    folder.mkdir(parents=True)
    script = """
        mount -t tmpfs -o size=32k full "$1"
        echo '{"old": true}' >"$1/20260101T000000Z-bed.json"
        ln -s 20260101T000000Z-bed.json "$1/latest.json"
        reports=$1; kept=$2
        trap 'cp -a "$reports" "$kept"' EXIT
    """
    run = run_suite(
        tmp_path / "run",
        "checks/db",
        *("-o", f"cache_dir={folder}/cache"),
        target=demo.target,
        cache=True,
        history=True,
        environment={"TMPDIR": str(folder)},
        within=_mounted(script, str(folder), str(kept)),
    )
    assert run.exit_status == 0, run.output
    assert run.output.rstrip().splitlines()[-1].startswith(("bed is healthy", "bed has warnings")), run.output
    for said in ("no snapshot: ", "no HTML report: "):
        assert re.search(f"^{said}.*No space left on device", run.output, re.MULTILINE), run.output
    assert {path.name for path in kept.iterdir()} - {"cache", "history.sqlite"} == {
        "latest.json",
        "20260101T000000Z-bed.json",
    }
    assert json.loads((kept / "latest.json").read_text("utf-8")) == {"old": True}


@pytest.mark.usefixtures("mounting")
def test_the_checkout_is_read_only(demo: Demo, tmp_path: Path, plain: Run) -> None:
    """Everything is checked and told as ever, only the reports and --lf have no place."""
    script = 'mount --bind "$1" "$1"\nmount -o remount,bind,ro "$1"\ncd "$1"\n! touch "$1/writable" 2>/dev/null'
    run = run_suite(
        tmp_path / "run",
        *("checks", "--reports=reports/runs", "--junitxml", str(tmp_path / "junit.xml")),
        target=demo.target,
        cache=True,
        within=_mounted(script, str(ROOT)),
    )
    assert run.exit_status == 0, run.output
    assert "Read-only file system" in run.output
    assert "Traceback" not in run.output
    assert run.output.rstrip().splitlines()[-1].startswith(("bed is healthy", "bed has warnings")), run.output
    found = re.findall('name="symptom" value="(.+?)"', (tmp_path / "junit.xml").read_text("utf-8"))
    assert {name.partition("[")[0] for name in found} == {name.partition("[")[0] for name in plain.names()}


@pytest.mark.usefixtures("mounting")
def test_no_home_and_nowhere_to_write(demo: Demo, tmp_path: Path, plain: Run) -> None:
    """A run from a folder that nobody can write to, by somebody without a home or a name, finds the same."""
    (tmp_path / "nowhere").mkdir()
    script = 'mount -t tmpfs -o ro none "$1"\ncd "$1"\n! touch writable 2>/dev/null\nunset HOME USER LOGNAME TMPDIR'
    run = run_suite(
        tmp_path / "run",
        *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), str(ROOT / "checks")),
        target=demo.target,
        within=_mounted(script, str(tmp_path / "nowhere")),
    )
    run.is_calm()
    assert outcomes(run) == outcomes(plain), run.output


# --- a clock that jumps ----------------------------------------------------------------------------------------------

JUMP = """
import datetime, os, sys, time
real, class_, leap = time.time, datetime.datetime, float(os.environ["LEAP"])
class Kind(type):
    def __instancecheck__(cls, instance): return isinstance(instance, class_)
    def __getattr__(cls, name): return getattr(class_, name)
    def __call__(cls, *given, **more): return class_(*given, **more)
class Jumping(metaclass=Kind):
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler): return handler(class_)
    @staticmethod
    def now(tz=None): return class_.fromtimestamp(time.time(), tz)
def pytest_collection_finish():
    at = time.monotonic() + 0.3
    time.time = lambda: real() + (leap if time.monotonic() > at else 0.0)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("allodoc_health", "fixtures", "reports") and vars(module).get("datetime") is class_:
            module.datetime = Jumping
def pytest_unconfigure():
    assert abs(time.time() - real()) > 3000, "it did not jump"
"""


@pytest.mark.parametrize("leap", [3600.0, -3600.0], ids=["forwards", "backwards"])
def test_the_clock_jumps(
    demo: Demo, suite: Health, plain: Run, plugin: Callable[[str, str], dict[str, str]], leap: float
) -> None:
    """No deadline and no duration depends on the time of day; only who compares clocks sees that they differ."""
    environment = {**plugin("jump", JUMP), "LEAP": str(leap)}
    run = suite("checks", "-p", "jump", target=demo.target, environment=environment)
    assert "it did not jump" not in run.output
    assert run.seconds < 30
    assert not run.snapshot["defects"], run.output
    assert all(0 <= seconds < 10 for seconds in run.snapshot["timings"].values())
    found, expected = outcomes(run), outcomes(plain)
    apart = {name for name in found if found[name] != expected.get(name)}
    assert apart <= {f"auth.clock-skew[{clock}]" for clock in ("db", "redis", "backend")}, run.output


# --- far away --------------------------------------------------------------------------------------------------------


def test_a_long_and_lossy_way(demo: Demo, suite: Health) -> None:
    """200 ms to and fro, and every twentieth packet sent again, make no alarm: what is slow is said to be slow."""
    with far_away(demo, one_way=0.1, loss=0.05, seed=SEED) as (target, lines):
        run = suite("checks", target=target)
    assert not [name for name, line in lines.items() if not line.connections]
    run.is_calm()
    assert {"db.query", "cache.ping"} <= run.names("warn"), run.output
    for name in run.names("warn"):
        [first, *_] = run.finding(name)["measurements"]
        assert first["unit"] == "s", f"{name} is no matter of time\n{run.output}"
    assert run.finding("db.query")["measurements"][0]["value"] == pytest.approx(0.2, abs=0.1)


# --- not alone, and in other ways ------------------------------------------------------------------------------------

TOGETHER = """
import os, pathlib, time
def pytest_configure():
    place = pathlib.Path(os.environ["TOGETHER"])
    (place / str(os.getpid())).touch()
    ends = time.monotonic() + 20
    while len(list(place.iterdir())) < 2 and time.monotonic() < ends:
        time.sleep(0.005)
    time.sleep(1 - time.time() % 1)
"""


def test_two_runs_at_once(demo: Demo, tmp_path: Path, plain: Run, plugin: Callable[[str, str], dict[str, str]]) -> None:
    """Both find what each would alone, and write their own reports, though they began in the same second."""
    place = tmp_path / "place"
    place.mkdir()
    environment = {**plugin("together", TOGETHER), "TOGETHER": str(place)}

    def run(number: int) -> Run:
        folder = tmp_path / "runs" / str(number)
        shared = f"--reports={tmp_path / 'reports'}"
        options = ("-p", "together", shared)
        return run_suite(folder, "checks", *options, target=demo.target, environment=environment, history=True)

    (tmp_path / "reports").mkdir()
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(run, range(2)))
    for one in runs:
        assert one.exit_status == 0, one.output
    names = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert len(names) == 7, names
    first = names[0].partition("-")[0]
    assert names == [
        *(f"{first}-bed{number}.{kind}" for number in ("-2", "") for kind in ("html", "json")),
        "history.sqlite",
        "latest.html",
        "latest.json",
    ]
    _are_whole(tmp_path / "reports")
    for path in (tmp_path / "reports").glob("2*.json"):
        found = Run(0, "", json.loads(path.read_text("utf-8")), path.parent, 0.0)
        assert outcomes(found) == outcomes(plain)


SHUFFLED = """
import os, random, pytest
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    random.Random(int(os.environ["SHUFFLED"])).shuffle(items)
"""


@pytest.mark.parametrize(
    "arguments",
    ["-n 4", "-x --tb=no", "-s", "--lf", "-p shuffled", "-p shuffled -x -n 2"],
    ids=lambda arguments: arguments.replace(" ", ""),
)
def test_other_ways_to_run(
    demo: Demo, suite: Health, tmp_path: Path, plain: Run, plugin: Callable[[str, str], dict[str, str]], arguments: str
) -> None:
    """However pytest is told to go about it, the findings are the same."""
    environment = {**plugin("shuffled", SHUFFLED), "SHUFFLED": str(SEED)}
    cached = ("-o", f"cache_dir={tmp_path / 'cache'}") if "--lf" in arguments else ()
    run = suite("checks", *arguments.split(), *cached, target=demo.target, environment=environment, cache=bool(cached))
    run.is_calm()
    assert outcomes(run) == outcomes(plain), run.output
