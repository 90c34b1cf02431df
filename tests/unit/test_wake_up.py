"""Waking a selector: by an eventfd, and by a pipe where there is none."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from io import FileIO

import pytest

from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.mqtt.runtime.wake_up import WAKE_UP, wake_up_files
from tests.unit.network_thread import call


@pytest.fixture(params=["eventfd", "pipe"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd", raising=False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("this system has no eventfd")
    return str(request.param)


@pytest.fixture
def files(kind: str) -> Iterator[tuple[FileIO, FileIO]]:
    reader, writer = wake_up_files()
    assert (reader is writer) == (kind == "eventfd")
    with contextlib.closing(reader), contextlib.closing(writer):
        yield reader, writer


def _readable(file: FileIO) -> bool:
    return bool(select.select([file], [], [], 0)[0])


def test_the_reader_is_readable_from_a_wake_up_until_it_is_read(files: tuple[FileIO, FileIO]) -> None:
    reader, writer = files
    assert not _readable(reader)
    for _ in range(2):
        writer.write(WAKE_UP)
        assert _readable(reader)
        reader.read(len(WAKE_UP))
        assert not _readable(reader)


def test_neither_blocks(files: tuple[FileIO, FileIO]) -> None:
    reader, writer = files
    assert reader.read(len(WAKE_UP)) is None
    most = (2**64 - 2).to_bytes(8, "little") if reader is writer else bytes(1_000_000)
    writer.write(most)
    assert writer.write(WAKE_UP) is None


def test_no_child_process_inherits_them(files: tuple[FileIO, FileIO]) -> None:
    assert not any(os.get_inheritable(file.fileno()) for file in files)


@pytest.mark.usefixtures("kind")
def test_the_network_thread_is_woken_by_either() -> None:
    thread = NetworkThread()
    try:
        assert [call(thread, lambda: "woken") for _ in range(100)] == ["woken"] * 100
    finally:
        thread.stop()
        thread._thread.join(10)
    assert not thread._thread.is_alive()
    thread._asleep = True
    thread.call_soon(lambda: None)  # its files are closed
