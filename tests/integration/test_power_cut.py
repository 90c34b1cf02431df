"""A writer that is killed at any moment leaves the old token or the new one, each time readable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

KILLS = 500


def test_a_writer_killed_at_500_random_moments_never_costs_the_token(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "interrupted_writer.py"), str(tmp_path / "store"), str(KILLS)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["old"] + counts["new"] == KILLS
    assert counts["in the middle"] > KILLS / 50, counts  # or it was not killed where it matters
    assert counts["left over"] == 0
