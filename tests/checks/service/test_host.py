"""The machine under the services: filled, dumped on and loaded for real where that can be done, else recorded."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from allodoc_health.finding import Outcome
from allodoc_health.limits import GIB, Limits
from allodoc_health.runtimes.interface import Mount, RuntimeInfo, RuntimeUnavailable, ServiceState, Status
from allodoc_health.runtimes.process_supervisor import SupervisorRuntime
from allodoc_health.target import HostSettings, Target
from checks.service.test_host import test_memory_is_available as memory_is_available
from checks.service.test_host import test_the_disk_has_room as the_disk_has_room
from checks.service.test_host import test_the_machine_does_not_live_from_swap as it_does_not_live_from_swap
from checks.service.test_host import test_the_machine_keeps_up as the_machine_keeps_up
from fixtures.machine import FileSystem, Load, Memory, Paging, Stall, mount_of, read_mounts, read_stall
from tests.beds.docker import Stack
from tests.beds.embedded import Demo
from tests.beds.recorded import finding_on
from tests.beds.suite import Health as Suite

HOST = "checks/service/test_host.py"
LIMITS = Limits()


def with_host(demo: Demo, settings: str) -> str:
    """A target file for the demo with settings of its host."""
    return f"{demo.target}\n[host]\n{settings}\n"


class TestDisk:
    """host.disk"""

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 1 MiB and 64 inodes, for root only."""
        folder = tmp_path / "disk"
        folder.mkdir()
        options = "size=1m,nr_inodes=64"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        if mounted.returncode != 0:
            reason = f"no file system can be mounted: {mounted.stderr.strip()}"
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], timeout=10, check=True)

    def test_full(self, small_disk: Path, demo: Demo, suite: Suite) -> None:
        """A full file system fails with what is left, and is green again when it is emptied."""
        target = with_host(demo, f'disks = ["{small_disk}"]')
        name = f"host.disk[{small_disk}]"
        assert suite(HOST, target=target).outcome(name) == "pass"
        (small_disk / "file").write_bytes(b"x" * 1000 * 1024)
        run = suite("checks/service", "checks/db", target=target)
        run.blames(name)
        assert "used = 98 %   (fail at 95 %)" in run.finding(name)["message"]
        assert "percent and absolute" in run.finding(name)["measurements"][0]["source"]
        run.do(name, "look")
        (small_disk / "file").unlink()
        assert suite(HOST, target=target).outcome(name) == "pass"

    def test_no_inode_left(self, small_disk: Path, demo: Demo, suite: Suite) -> None:
        """A file system that can take no more files fails, however much room it has."""
        with contextlib.suppress(OSError):
            for number in range(100):
                (small_disk / str(number)).touch()
        run = suite(HOST, target=with_host(demo, f'disks = ["{small_disk}"]'))
        run.blames(f"host.disk[{small_disk}]")
        assert "inodes used = 100 %" in run.finding(f"host.disk[{small_disk}]")["message"]

    def test_no_such_folder(self, demo: Demo, suite: Suite) -> None:
        """A folder that the target names and that is not there is told, not passed over."""
        run = suite(HOST, target=with_host(demo, 'disks = ["/no/such/folder"]'))
        run.blames("host.disk[/no/such/folder]")
        assert run.finding("host.disk[/no/such/folder]")["message"] == "/no/such/folder: No such file or directory"

    def test_places_of_the_demo(self, demo: Demo, suite: Suite) -> None:
        """Each place is measured, or said to be on a file system that is, or not to be there."""
        run = suite(HOST, target=demo.target)
        assert run.outcome("host.disk[root]") == "pass"
        assert run.finding("host.disk[images]")["message"] == "this runtime has no images"
        for place in ("data", "logs"):
            found = run.finding(f"host.disk[{place}]")
            assert found["outcome"] == "pass" or found["message"].startswith("on the same file system as")

    def test_places_of_the_stack(self, stack: Stack, suite: Suite) -> None:
        """With Docker too: the volume, the images and the logs are found by asking the engine."""
        del stack
        run = suite(HOST)
        run.is_calm()
        for place in ("data", "images", "logs"):
            found = run.finding(f"host.disk[{place}]")
            assert found["outcome"] == "pass" or found["message"].startswith("on the same file system as")

    @pytest.mark.parametrize(
        ("used", "total", "outcome"),
        [
            pytest.param(0.50, 100, Outcome.PASS, id="half"),
            pytest.param(0.91, 4000, Outcome.PASS, id="91-percent-of-4-TB"),
            pytest.param(0.97, 4000, Outcome.PASS, id="97-percent-of-4-TB"),
            pytest.param(0.91, 200, Outcome.WARN, id="91-percent-of-200-GB"),
            pytest.param(0.96, 200, Outcome.FAIL, id="96-percent-of-200-GB"),
            pytest.param(0.96, 400, Outcome.WARN, id="96-percent-of-400-GB"),
            pytest.param(0.91, 20, Outcome.WARN, id="91-percent-of-20-GB"),
            pytest.param(0.95, 20, Outcome.FAIL, id="95-percent-of-20-GB"),
            pytest.param(1.00, 4000, Outcome.FAIL, id="full"),
        ],
    )
    def test_share_and_room(self, used: float, total: int, outcome: Outcome) -> None:
        """Recorded: the share counts only where little room is left as well."""
        size = int(total * GIB)
        disk = FileSystem("/", "/", int(size * used), size - int(size * used), 1000, 10)
        assert finding_on(the_disk_has_room, file_system=disk, limits=LIMITS).outcome is outcome

    def test_mount_points(self) -> None:
        """The file system of a folder is found by the longest mount point above it, with spaces in its name too."""
        points = read_mounts(
            "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n"
            "30 22 254:16 / /var/lib/docker rw - ext4 /dev/vdb rw\n"
            "31 22 254:32 / /mnt/my\\040disk rw - xfs /dev/vdc rw\n"
        )
        assert points == {"/": "254:0", "/var/lib/docker": "254:16", "/mnt/my disk": "254:32"}
        assert mount_of("/var/lib/docker/volumes/x/_data", points) == "/var/lib/docker"
        assert mount_of("/var/lib/dockerish", points) == "/"
        assert mount_of("/mnt/my disk/a", points) == "/mnt/my disk"


class TestMemory:
    """host.memory"""

    def test_real(self, demo: Demo, suite: Suite) -> None:
        """What is measured is this machine's memory, and its limits are the target's."""
        total = psutil.virtual_memory().total / GIB
        run = suite(HOST, target=f"{demo.target}\n[limits.host]\nmemory_available = {{ warn = 100, fail = 99.9 }}\n")
        assert f"of {total:.1f} GiB memory available" in run.finding("host.memory")["message"]
        run.blames("host.memory")
        run.do("host.memory", "look", steps=[0])

    @pytest.mark.parametrize(
        ("available", "outcome"),
        [(8.0, Outcome.PASS), (2.0, Outcome.WARN), (0.5, Outcome.FAIL), (0.0, Outcome.FAIL)],
    )
    def test_recorded(self, available: float, outcome: Outcome) -> None:
        """Recorded: less than 15 % available warns, less than 5 % fails."""
        recorded = Memory(total=16 * GIB, available=int(available * GIB))
        assert finding_on(memory_is_available, memory=recorded, limits=LIMITS).outcome is outcome


class TestSwap:
    """host.swap"""

    @pytest.mark.parametrize(
        ("paging", "outcome"),
        [
            pytest.param(Paging(0, 0, 0, 0), Outcome.NOT_APPLICABLE, id="no-swap"),
            pytest.param(Paging(GIB, 0, 0, 0), Outcome.PASS, id="unused"),
            pytest.param(Paging(GIB, GIB, 0, 0), Outcome.PASS, id="full-and-still"),
            pytest.param(Paging(GIB, GIB // 2, 40, 0), Outcome.PASS, id="a-page-fault"),
            pytest.param(Paging(GIB, GIB // 2, 150, 50), Outcome.WARN, id="moving"),
            pytest.param(Paging(GIB, GIB // 2, 3000, 4000), Outcome.FAIL, id="heavily"),
        ],
    )
    def test_recorded(self, paging: Paging, outcome: Outcome) -> None:
        """Recorded: swap that is in use does no harm, pages that move do."""
        assert finding_on(it_does_not_live_from_swap, paging=paging, limits=LIMITS).outcome is outcome


CALM, BUSY = Stall(1, 2, 3), Stall(90, 80, 70)


class TestLoad:
    """host.load"""

    @pytest.mark.parametrize(
        ("load", "outcome"),
        [
            pytest.param(Load(1, 1, 1, 4, cpu=CALM), Outcome.PASS, id="calm"),
            pytest.param(Load(40, 9, 2, 4, cpu=BUSY), Outcome.PASS, id="a-peak"),
            pytest.param(Load(6, 6, 6, 4, cpu=CALM), Outcome.PASS, id="high-but-nothing-waits"),
            pytest.param(Load(6, 6, 6, 4, cpu=BUSY), Outcome.WARN, id="over-1-per-core"),
            pytest.param(Load(9, 9, 9, 4, cpu=BUSY), Outcome.FAIL, id="over-2-per-core"),
            pytest.param(Load(9, 9, 9, 4, cpu=Stall(90, 50, 70)), Outcome.WARN, id="over-2-and-waits-now-and-then"),
            pytest.param(Load(9, 9, 9, 4), Outcome.FAIL, id="no-pressure-information"),
            pytest.param(Load(1, 1, 1, 4, io=Stall(70, 65, 61)), Outcome.FAIL, id="all-wait-for-the-disk"),
            pytest.param(Load(1, 1, 1, 4, memory=Stall(25, 30, 22)), Outcome.WARN, id="all-wait-for-memory"),
        ],
    )
    def test_recorded(self, load: Load, outcome: Outcome) -> None:
        """Recorded: a load that lasts and that work waits for warns over 1 for each core and fails over 2."""
        assert finding_on(the_machine_keeps_up, machine_load=load, limits=LIMITS).outcome is outcome

    def test_busy_loops(self, demo: Demo, suite: Suite) -> None:
        """Real work beyond the machine's cores is seen in the load that is measured."""
        code = "import os\nos.nice(19)\nwhile True: pass"
        loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range((os.cpu_count() or 1) + 2)]
        try:
            ends = time.monotonic() + 12
            while os.getloadavg()[0] <= 0.5 and time.monotonic() < ends:  # the kernel counts every 5 s
                time.sleep(0.1)
            wanted = f"{demo.target}\n[limits.host]\nload_per_core = {{ warn = 0.01 }}\npressure = {{ warn = 0.001 }}\n"
            run = suite(HOST, target=wanted)
        finally:
            for loop in loops:
                loop.kill()
                loop.wait(5)
        recorded = run.snapshot["evidence"]["machine_load"]
        assert recorded["one"] > 0.5
        assert recorded["cores"] == os.cpu_count()
        assert run.outcome("host.load") in ("warn", "fail")
        run.do("host.load", "look", steps=[0] if Path("/proc/pressure/cpu").exists() else [])

    def test_pressure_file(self) -> None:
        """The kernel's file has a line for each kind; a kernel without it has none."""
        text = "some avg10=1.00 avg60=2.50 avg300=3.00 total=1\nfull avg10=0.00 avg60=0.10 avg300=0.20 total=2\n"
        assert read_stall(text, "full") == Stall(0.0, 0.1, 0.2)
        assert read_stall("", "some") is None


class TestCoreDumps:
    """service.core-dumps"""

    def test_dropped(self, tmp_path: Path, demo: Demo, suite: Suite) -> None:
        """A new file fails, an old one and kdump's own don't; moved away as the remedy says, it is green again."""
        crash = tmp_path / "crash"
        crash.mkdir()
        target = with_host(demo, f'crash_folder = "{crash}"')
        old = crash / "core.1"
        old.write_bytes(b"x")
        long_ago = (datetime.now(UTC) - timedelta(hours=25)).timestamp()
        os.utime(old, (long_ago, long_ago))
        (crash / "kexec_cmd").write_text("x")
        assert suite(HOST, target=target).outcome("service.core-dumps") == "pass"
        dump = crash / f"core.{os.getpid()}.of the test"
        dump.write_bytes(b"x" * 2048)
        run = suite("checks/service", "checks/db", target=target)
        run.blames("service.core-dumps")
        assert run.finding("service.core-dumps")["message"].startswith("core dumps in 24 h 1 ")
        assert any(f"{dump}, 2 KiB" in line for line in run.finding("service.core-dumps")["details"])
        moved = Path("/var/tmp/core-dumps") / dump.name
        try:
            run.do("service.core-dumps")
            assert moved.exists()
        finally:
            moved.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                moved.parent.rmdir()
        assert suite(HOST, target=target).outcome("service.core-dumps") == "pass"

    def test_in_a_folder_of_kdump(self, tmp_path: Path, demo: Demo, suite: Suite) -> None:
        """kdump makes a folder for each crash of the kernel."""
        (tmp_path / "202611231402").mkdir()
        (tmp_path / "202611231402" / "vmcore").write_bytes(b"x")
        suite(HOST, target=with_host(demo, f'crash_folder = "{tmp_path}"')).blames("service.core-dumps")

    def test_no_folder(self, tmp_path: Path, demo: Demo, suite: Suite) -> None:
        """Where there is no folder for dumps, that is said with what the kernel does instead."""
        found = suite(HOST, target=with_host(demo, f'crash_folder = "{tmp_path}/none"')).finding("service.core-dumps")
        pattern = Path("/proc/sys/kernel/core_pattern").read_text("utf-8").strip()
        if found["outcome"] == "not-applicable":
            assert found["message"] == f"there is no {tmp_path}/none, and the kernel's core_pattern is {pattern!r}"
        else:
            assert pattern.startswith(("|", "/")), "the kernel's own folder was looked at"


class TestElsewhere:
    """Services that run on another machine."""

    def test_nothing_is_said_of_this_machine(self, demo: Demo, suite: Suite) -> None:
        """Of a machine that this is not, nothing is measured."""
        run = suite(HOST, target=with_host(demo, "local = false"))
        assert run.names() == run.names("not-applicable")
        assert {finding["message"] for finding in run.snapshot["findings"]} == {"the services run on another machine"}


class TestPlaces:
    """How the places that need room are found, with runtimes that are recorded."""

    class Recorded(SupervisorRuntime):
        """A runtime that says what is needed here."""

        kind = "docker"

        def __init__(self, info: RuntimeInfo | None) -> None:
            self._info = info

        def info(self, deadline: float) -> RuntimeInfo:
            """What was recorded, or no answer."""
            if self._info is None:
                raise RuntimeUnavailable("the Docker daemon gave no answer within 1.5 s")
            return self._info

    POSTGRES = ServiceState(
        role="postgres",
        name="allodoc_postgres_prod",
        status=Status.RUNNING,
        mounts=(
            Mount("tmpfs", "", "/tmp", True),
            Mount("bind", "/etc/postgres", "/etc/postgresql", False),
            Mount("volume", "/srv/volumes/data/_data", "/var/lib/postgresql/data", True),
        ),
    )

    def places(
        self, info: RuntimeInfo | None, states: dict[str, ServiceState] | None
    ) -> dict[str, tuple[str, str, str]]:
        """Path, reason for none and reason for not knowing, by place."""
        from fixtures.machine import _places

        target = Target(name="recorded", origin="test", host=HostSettings(disks=("/backup",)))
        found = _places(target, self.Recorded(info), states)
        return {place.name: (place.path, place.none, place.unknown) for place in found}

    def test_docker(self) -> None:
        """The volume, the engine's folder and its logs, and the folder that the target names."""
        found = self.places(
            RuntimeInfo("Docker Engine", "27", "/srv/docker", 0.1, "json-file"), {"postgres": self.POSTGRES}
        )
        assert found == {
            "root": ("/", "", ""),
            "data": ("/srv/volumes/data/_data", "", ""),
            "images": ("/srv/docker", "", ""),
            "logs": ("/srv/docker/containers", "", ""),
            "/backup": ("/backup", "", ""),
        }

    def test_logs_elsewhere_and_data_in_the_image(self) -> None:
        """What is not where it usually is is said to be elsewhere."""
        bare = replace(self.POSTGRES, mounts=())
        found = self.places(RuntimeInfo("Docker Engine", "27", "/srv/docker", 0.1, "journald"), {"postgres": bare})
        assert found["logs"][1] == "the logging driver journald keeps the logs elsewhere"
        assert found["data"][1] == "its data is on no volume: it lives with the images"

    def test_no_answer(self) -> None:
        """A daemon that does not answer leaves root and the named folders to be measured."""
        found = self.places(None, None)
        assert found["root"] == ("/", "", "")
        assert found["/backup"] == ("/backup", "", "")
        assert found["images"][2] == "the Docker daemon gave no answer within 1.5 s"
        assert found["data"][2]
