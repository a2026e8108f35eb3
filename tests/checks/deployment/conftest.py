"""What the tests of this chapter share: a release to break, and what an operator sees who looks."""

from __future__ import annotations

import subprocess

from tests.beds.release import Release as Release
from tests.beds.release import release as release
from tests.beds.suite import ROOT, Run


def look(run: Run, name: str) -> str:
    """Run everything that a finding's remedy says to look at; what it printed."""
    said = []
    for step in run.snapshot["remedies"][name]["look"]:
        for command in step["commands"]:
            done = subprocess.run(
                ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
            )
            assert done.returncode in (0, 1), f"{command}\n{done.stdout}{done.stderr}"
            said.append(done.stdout + done.stderr)
    return "".join(said)
