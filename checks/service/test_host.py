"""Memory and resource issues: the machine under the services, and what it dropped."""

from __future__ import annotations

from datetime import datetime

from allodoc_health.finding import Recorder, Severity, duration, size
from allodoc_health.limits import Limits
from allodoc_health.symptom import symptom
from fixtures.machine import CoreDumps, FileSystem, Load, Memory, Paging

SHOWN = 5


@symptom("service.core-dumps", severity=Severity.MAJOR, caused_by=["host.memory"])
def test_nothing_dumped_core(core_dumps: CoreDumps, limits: Limits, now: datetime, finding: Recorder) -> None:
    """No process of this machine dumped core in the last 24 hours."""
    finding.fact(folder=core_dumps.recent[0].path.rpartition("/")[0] if core_dumps.recent else core_dumps.folders[0])
    for dump in core_dumps.recent[:SHOWN]:
        finding.note(f"{dump.path}, {size(dump.size)}, {duration((now - dump.at).total_seconds())} ago")
        finding.fact(path=dump.path)
    finding.measure("core dumps in 24 h", len(core_dumps.recent), limit=limits.service.core_dumps)


@symptom("host.memory", severity=Severity.MAJOR, smoke=True)
def test_memory_is_available(memory: Memory, limits: Limits, finding: Recorder) -> None:
    """Programs can still have a good part of the machine's memory."""
    limit = limits.host.memory_available
    finding.measure("memory available", memory.available, of=memory.total, unit="B", limit=limit)


@symptom("host.swap", severity=Severity.MAJOR, caused_by=["host.memory"])
def test_the_machine_does_not_live_from_swap(paging: Paging, limits: Limits, finding: Recorder) -> None:
    """No pages move between memory and swap."""
    if not paging.total:
        finding.not_applicable("this machine has no swap")
    finding.measure("swap in use", paging.used, of=paging.total, unit="B")
    if paging.used:
        finding.measure("swapping", paging.pages, unit="pages/s", limit=limits.host.swap_pages)
        finding.note(f"{paging.pages_in:.0f} pages/s in, {paging.pages_out:.0f} pages/s out")


@symptom("host.disk", severity=Severity.CRITICAL, smoke=True)
def test_the_disk_has_room(file_system: FileSystem, limits: Limits, finding: Recorder) -> None:
    """There is room left, for bytes and for files, where something of AlloDoc lives."""
    finding.fact(path=file_system.path, mounted_at=file_system.mounted_at)
    used = limits.host.disk_used.only_if(limits.host.disk_free, file_system.available)
    finding.measure("used", file_system.used, of=file_system.usable, unit="B", limit=used)
    finding.note(f"{file_system.path} on {file_system.mounted_at}: {size(file_system.available)} free")
    if file_system.inodes:
        limit = limits.host.inodes_used
        finding.measure("inodes used", file_system.inodes_used, of=file_system.inodes, limit=limit)


@symptom("host.load", severity=Severity.MINOR, caused_by=["host.memory", "host.swap"])
def test_the_machine_keeps_up(machine_load: Load, limits: Limits, finding: Recorder) -> None:
    """The machine keeps up: nothing waits long for the CPU, for memory or for I/O."""
    averages = (machine_load.one, machine_load.five, machine_load.fifteen)
    finding.note(f"load {', '.join(f'{average:.2f}' for average in averages)} on {machine_load.cores} cores")
    limit = limits.host.load_per_core
    if machine_load.cpu is not None:
        # A load that nobody has to wait for is only a number.
        limit = limit.only_if(limits.host.pressure, machine_load.cpu.lasting)
        finding.note(f"some work waited for the CPU in {machine_load.cpu.avg60:.0f} % of the last minute")
    finding.measure("load per core for 15 min", machine_load.lasting_per_core, limit=limit)
    if machine_load.memory is not None:
        finding.measure("all work waits for memory", machine_load.memory.lasting, unit="%", limit=limits.host.pressure)
    if machine_load.io is not None:
        finding.measure("all work waits for I/O", machine_load.io.lasting, unit="%", limit=limits.host.pressure)
