"""The power is cut in the middle of a write, and the next process finds what the disk may have then.

The long forms are commands: ``python -m tests.integration.power_cuts --cuts 15000 --kills 1000 --failures 1000``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.disk.layer import environment
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from tests.integration.power_cuts import cuts, failures, kills, run


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
    counts = json.loads(done.stdout)
    assert bool(counts["lost"]) == loses, counts
    assert counts["unreadable"] == counts["damaged"] == 0
    assert counts["committed"] > 60


def test_power_cuts_cost_no_stored_message_and_deliver_none_twice(
    tmp_path: Path, mosquitto: Mosquitto, keys: Keys
) -> None:
    result = run(cuts(45, seed=1), mosquitto, keys, tmp_path)  # a third of them at the first changes of a disk
    assert result.faults == []
    assert result.cuts == 45
    assert result.stored > 45


def test_kills_among_restarts_of_the_broker_cost_no_stored_message_and_deliver_none_twice(
    tmp_path: Path, mosquitto: Mosquitto, keys: Keys
) -> None:
    result = run(kills(10, seed=2), mosquitto, keys, tmp_path, restarts=True)
    assert result.faults == []
    assert result.cuts == 10
    assert result.stored > 10


def test_a_disk_that_fails_costs_no_stored_message(tmp_path: Path, mosquitto: Mosquitto, keys: Keys) -> None:
    result = run(failures(9, seed=3), mosquitto, keys, tmp_path)  # each error, once, five times and for good
    assert result.faults == []
    assert result.devices == 9
    assert result.stored > 9
