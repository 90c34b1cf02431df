"""What the model of a disk keeps in a power cut, and what it may lose."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from devtools.disk.power_cut import SECTOR, Disk, File, Operation, Record

OLD, NEW = b"o" * SECTOR, b"n" * SECTOR


def record(
    operation: Operation, file: int = 0, offset: int = 0, name: str = "", to: str = "", data: bytes = b""
) -> Record:
    return operation, file, offset, name, to, data


CREATED = record(Operation.CREATE, 1, name="a")
WRITTEN = record(Operation.WRITE, 1, data=NEW)
SYNCED = record(Operation.SYNC, 1)
IN_FOLDER = record(Operation.DIRSYNC)


def outcomes(folder: Path, *records: Record, killed: bool = False) -> list[dict[str, bytes | None]]:
    disk = Disk(folder)
    disk.replay(list(records), killed=killed)
    chance = random.Random(1)
    return [disk.after_cut(chance) for _ in range(200)]


class TestFile:
    def after_cuts(self, file: File) -> set[bytes]:
        chance = random.Random(1)
        return {file.after_cut(chance, 0.5) for _ in range(100)}

    def test_what_was_synced_stays(self) -> None:
        file = File(OLD)
        file.write(0, NEW)
        file.sync()
        assert self.after_cuts(file) == {NEW}

    def test_each_sector_that_was_not_synced_is_old_or_new_by_itself(self) -> None:
        file = File(OLD * 2)
        file.write(0, NEW * 2)
        assert self.after_cuts(file) == {OLD * 2, OLD + NEW, NEW + OLD, NEW * 2}

    def test_a_sector_written_twice_may_hold_either_version(self) -> None:
        file = File(OLD)
        file.write(0, b"first")
        file.write(2, NEW[2:])
        assert self.after_cuts(file) == {OLD, b"first" + OLD[5:], b"fi" + NEW[2:]}

    def test_a_file_that_grew_may_have_zeros_where_nothing_was_written_yet(self) -> None:
        file = File(OLD)
        file.write(SECTOR, NEW)
        assert self.after_cuts(file) == {OLD, OLD + bytes(SECTOR), OLD + NEW}

    def test_a_file_that_was_emptied_may_still_be_full(self) -> None:
        file = File(OLD)
        file.truncate(0)
        assert self.after_cuts(file) == {OLD, bytes(SECTOR), b""}


class TestFolder:
    def test_a_new_file_is_lost_while_its_folder_is_not_synced(self, tmp_path: Path) -> None:
        found = outcomes(tmp_path, CREATED, WRITTEN, SYNCED)
        assert {} in found
        assert {"a": NEW} in found

    def test_a_new_file_stays_once_it_and_its_folder_are_synced(self, tmp_path: Path) -> None:
        assert all(found == {"a": NEW} for found in outcomes(tmp_path, CREATED, WRITTEN, SYNCED, IN_FOLDER))

    @pytest.mark.parametrize("synced", [True, False])
    def test_a_rename_that_overtakes_its_content_shows_an_empty_file(self, tmp_path: Path, *, synced: bool) -> None:
        (tmp_path / "b").write_bytes(OLD)
        sync = [SYNCED] if synced else []
        rename = record(Operation.RENAME, name="a", to="b")
        found = outcomes(tmp_path, CREATED, WRITTEN, *sync, rename, IN_FOLDER)
        assert ({"b": b""} in found) is not synced
        assert all(set(one) == {"b"} for one in found)

    def test_a_sync_in_which_the_process_was_killed_may_not_have_happened(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(OLD)
        opened = record(Operation.OPEN, 1, name="a")
        assert {"a": OLD} in outcomes(tmp_path, opened, WRITTEN, SYNCED, killed=True)
        assert {"a": OLD} not in outcomes(tmp_path, opened, WRITTEN, SYNCED)
