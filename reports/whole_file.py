"""A file that is written when all is known: whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from allodoc_health.run import TargetReport
from reports.snapshot import write_whole
from reports.streams import reason, tell


class WholeFile:
    """Writes what ``make`` says of all targets to ``path``. ``option`` is what the user calls it by."""

    def __init__(
        self, config: pytest.Config, option: str, path: Path, make: Callable[[Sequence[TargetReport]], str]
    ) -> None:
        self._config = config
        self._option = option
        self._path = path
        self._make = make
        self._reports: list[TargetReport] = []

    def pytest_health_report(self, report: TargetReport) -> None:
        """Keep what is known of one target."""
        self._reports.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Make the text and write it."""
        if not self._reports:
            return
        try:
            write_whole(self._path, self._make(self._reports))
        except Exception as error:  # noqa: BLE001  # an output that fails must not take the verdict with it
            tell(self._config, f"no {self._option}: {self._path}: {reason(error)}")
