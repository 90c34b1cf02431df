"""The power is cut in the middle of a write, and the next process finds what the disk may have then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.disk.layer import environment


@pytest.mark.parametrize(("synchronous", "loses"), [("FULL", False), ("NORMAL", True)])
def test_the_rig_finds_what_sqlite_loses_without_a_sync_at_each_commit(
    tmp_path: Path, *, synchronous: str, loses: bool
) -> None:
    folder = tmp_path.resolve() / "disk"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.sqlite_writer", str(folder), synchronous, "60", "1"],
        cwd=Path(__file__).parents[2],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert bool(told["lost"]) == loses, told
    assert told["unreadable"] == told["damaged"] == 0
    assert told["committed"] > 60
