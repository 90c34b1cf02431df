"""A damaged journal never keeps a client from starting, and nothing wrong in it is sent."""

from __future__ import annotations

from pathlib import Path

from tests.integration.damaged_journal import run


def test_a_journal_with_random_damage_is_read_or_set_aside_and_nothing_wrong_is_sent(tmp_path: Path) -> None:
    found, faults = run(tmp_path, 100, seed=1)
    assert faults == []
    assert found["set aside"] > 10
    assert found["complete"] > 10
    assert found["not written"] == 0
