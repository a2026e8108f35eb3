"""From the command line to targets that can be looked at: names, patterns, discovery, recordings."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from allodoc_health.inspection import Inspection, open_inspection
from allodoc_health.redaction import Redactor, new_key
from allodoc_health.target import TargetError, load_settings, nearest, target_file

OPENED_AT_ONCE = 8
"""So many targets are opened at the same time: opening one is mostly waiting for its runtime to answer."""

PATIENCE = 1.0
"""Seconds between two attempts to find a target that is only just being deployed."""


class Opener:
    """Opens the targets that a command line asks for, and opens them again where it asks to look again."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._folder = config.rootpath / config.getini("target_path")
        self._moments: dict[str, str] = getattr(config, "workerinput", {}).get("health-started", {})
        self._named: dict[str, str | None] = {}
        self.token_key: bytes = getattr(config, "workerinput", {}).get("health-token-key") or new_key()

    def open(self) -> Iterator[Inspection]:
        """Every target, in the order of the command line. Raises TargetError if one can't be used as it is written."""
        if self._config.option.replay:
            yield from self._recordings()
            return
        ends = time.monotonic() + self._config.option.wait
        names = self._names()
        with ThreadPoolExecutor(min(OPENED_AT_ONCE, len(names))) as pool:
            opened = [pool.submit(self._patiently, name, ends) for name in names]
        wrong = next((future.exception() for future in opened if future.exception()), None)
        inspections = [future.result() for future in opened if not future.exception()]
        if wrong is not None:
            for inspection in inspections:
                inspection.close()
            raise wrong
        self._named = {one.target.name: name for one, name in zip(inspections, names, strict=True)}
        yield from inspections

    def again(self, target: str) -> Inspection:
        """A target anew, as it is found now. Raises TargetError where it is not to be found."""
        return self._open(self._named[target], bring_up=False)

    def _names(self) -> list[str | None]:
        """The names that were asked for, each once, patterns as what they match; ``None`` for discovery."""
        names: list[str | None] = []
        for wanted in self._config.option.target or ():
            if not wanted.isprintable():
                raise TargetError(f"no target can be called {wanted!r}: that is not text")
            if not any(sign in wanted for sign in "*?["):
                names.append(wanted)
                continue
            known = sorted(file.stem for file in self._folder.glob("*.toml"))
            matching = fnmatch.filter(known, wanted)
            if not matching:
                raise TargetError(f"no target in {self._folder} matches {wanted!r}; {nearest(wanted, known)}")
            names.extend(matching)
        return list(dict.fromkeys(names)) or [None]

    def _patiently(self, name: str | None, ends: float) -> Inspection:
        """Open a target, waiting until ``ends`` for one that discovery doesn't find yet."""
        while True:
            try:
                return self._open(name)
            except TargetError:
                if name is not None or time.monotonic() + PATIENCE > ends:
                    raise
                time.sleep(PATIENCE)

    def _open(self, name: str | None, *, bring_up: bool = True) -> Inspection:
        moment = self._moments.get(name or "discovered")
        return open_inspection(
            name,
            self._folder,
            self._config.option.budget,
            self._config.rootpath,
            datetime.fromisoformat(moment) if moment else None,
            bring_up=bring_up,
            deploy_window=self._config.option.deploy_window,
            redactor=self._redactor(),
        )

    def _redactor(self) -> Redactor:
        """One for each target, with the key of the run: a value has the same token in all its processes."""
        return Redactor(self.token_key, mask_addresses=not self._config.option.unmask_addresses)

    def _recordings(self) -> Iterator[Inspection]:
        names = self._names()
        if len(names) > 1:
            raise TargetError("--replay takes the limits and waivers of one --target, not of several")
        today = load_settings(target_file(names[0], self._folder)) if names[0] else None
        taken: set[str] = set()
        for path in self._config.option.replay:
            file = self._config.invocation_params.dir / path
            inspection = Inspection.of_recording(file, today, self._redactor(), taken)
            taken.add(inspection.target.name)
            yield inspection
