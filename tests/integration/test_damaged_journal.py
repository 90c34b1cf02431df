"""Neither a damaged journal nor a disk that fails keeps a client from starting, and nothing wrong is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from devtools.disk.layer import environment
from tests.integration.damaged_journal import run


def test_a_journal_with_random_damage_is_read_or_set_aside_and_nothing_wrong_is_sent(tmp_path: Path) -> None:
    found, faults = run(tmp_path, 100, seed=1)
    assert faults == []
    assert found["set aside"] > 10
    assert found["complete"] > 10
    assert found["not written"] == 0


def test_a_call_that_fails_while_a_journal_is_opened_costs_no_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.failing_disk", str(tmp_path.resolve()), "7"],
        cwd=Path(__file__).parents[2],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["faults"] == []
    assert min(result["ENOSPC"], result["EIO"], result["EROFS"]) > 2
