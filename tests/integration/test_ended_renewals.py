"""A program that is ended at a random moment of a renewal never needs a person to log in again.

The long form on 2026-11-28, Python 3.11.7 on two busy cores: of 500 programs ended by SIGTERM or Ctrl-C, 143 of them
while a refresh token was in flight, none needed a person; of 150 killed, 58 of them in flight, at a server that accepts
the predecessor once more, none either. With requests made on the main thread, as before, 8 of 36 did.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUNS, KILLS = 27, 9  # each of three programs by each of three ways; see ended_renewals.py for the long form


def test_a_program_ended_at_a_random_moment_of_a_renewal_does_not_lose_the_refresh_token(tmp_path: Path) -> None:
    program = (
        "import json, pathlib, sys; from tests.integration import ended_renewals; "
        f"print(json.dumps(ended_renewals.main(pathlib.Path(sys.argv[1]), {RUNS}, {KILLS})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ended"].pop("runs") == RUNS
    assert found["killed"].pop("runs") == KILLS
    assert found["ended"].pop("in flight") > 0, "or it was not ended where it matters"
    found["ended"].pop("signals sent again", None)
    found["killed"].pop("in flight", None)
    assert found == {"ended": {}, "killed": {}}
