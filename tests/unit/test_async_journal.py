"""AsyncTokenClient with a journal: ``await delivery.stored``."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mqtt_token_client import ConfigurationError, Delivery, DeliveryFailed, open_journal
from mqtt_token_client.journal.disk import DiskJournal
from mqtt_token_client.mqtt.session.delivery import _waiting
from mqtt_token_client.oneshot import OneShot
from tests.unit.async_device import AsyncDevice, connected, run
from tests.unit.packets import PUBACK, PUBLISH
from tests.unit.scripted_broker import PATIENCE


@contextlib.contextmanager
def device(path: Path, **options: Any) -> Iterator[tuple[AsyncDevice, DiskJournal]]:
    """A device with a journal, both of which are closed in the end."""
    journal = open_journal(path / "journal", **options)
    made = AsyncDevice(journal=journal)
    try:
        yield made, journal
    finally:
        made.broker.close()
        journal.close()


def test_stored_is_awaited_before_there_is_a_connection(tmp_path: Path) -> None:
    async def main() -> None:
        with device(tmp_path, commit_every=0) as (made, _):
            delivery = made.client.publish_nowait("t", b"x", qos=1)
            await asyncio.wait_for(delivery.stored, PATIENCE)
            assert delivery.stored
            assert not delivery.done
            await delivery.stored  # it stays so

    run(main)
    assert open_count(tmp_path) == 1


def open_count(path: Path) -> int:
    """How many messages the next process finds."""
    journal = open_journal(path / "journal")
    journal.open("device", print)
    count = journal.load(lambda: None, lambda: None).count
    journal.close()
    return count


def test_stored_is_awaited_until_the_broker_has_the_message_if_that_comes_first(tmp_path: Path) -> None:
    async def main() -> None:
        journal = open_journal(tmp_path / "journal", commit_every=3600)
        async with connected(journal=journal) as (made, peer):
            await asyncio.to_thread(flush, journal)  # what is due for the connection itself
            delivery = made.client.publish_nowait("t", b"x", qos=1)
            waiting = asyncio.ensure_future(delivery.stored)
            packet = await asyncio.to_thread(peer.expect, PUBLISH)
            assert not waiting.done()
            peer.acknowledge(PUBACK, packet.packet_id)
            await asyncio.wait_for(waiting, PATIENCE)
        journal.close()

    run(main)
    assert open_count(tmp_path) == 0


def flush(journal: DiskJournal) -> None:
    flushed = threading.Event()
    journal.flush(flushed.set)
    assert flushed.wait(PATIENCE)


def test_a_durable_message_is_stored_without_delay(tmp_path: Path) -> None:
    async def main() -> None:
        with device(tmp_path, commit_every=3600) as (made, _):
            await asyncio.wait_for(made.client.publish_nowait("t", b"x", durable=True).stored, PATIENCE)

    run(main)
    assert open_count(tmp_path) == 1


def test_a_wait_that_is_cancelled_leaves_the_message(tmp_path: Path) -> None:
    async def main() -> None:
        with device(tmp_path, commit_every=3600) as (made, journal):
            delivery = made.client.publish_nowait("t", b"x", qos=1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(delivery.stored, 0.01)
            stored = asyncio.ensure_future(delivery.stored)
            await asyncio.to_thread(journal.close)
            await asyncio.wait_for(stored, PATIENCE)

    run(main)
    assert open_count(tmp_path) == 1


def test_a_cancelled_wait_for_the_acknowledgement_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        with device(tmp_path) as (made, _):
            delivery = made.client.publish_nowait("t", b"x", qos=1)
            first = asyncio.ensure_future(acknowledged(delivery))
            second = asyncio.ensure_future(acknowledged(delivery))
            await asyncio.sleep(0)  # both wait
            first.cancel()
            await asyncio.wait([first])
            assert len(delivery._callbacks or ()) == 1
            assert delivery in _waiting.held
            second.cancel()
            await asyncio.wait([second])
            assert not delivery._callbacks
            assert delivery not in _waiting.held

    run(main)


def test_a_cancelled_wait_for_the_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        with device(tmp_path, commit_every=3600) as (made, _):
            delivery = made.client.publish_nowait("t", b"x", qos=1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(delivery.stored, 0.01)
            assert isinstance(delivery.disk, OneShot)
            assert delivery.disk._callbacks == []

    run(main)


async def acknowledged(delivery: Delivery) -> None:
    await delivery


def test_waiting_for_a_message_that_was_dropped_raises_why(tmp_path: Path) -> None:
    async def main() -> None:
        with device(tmp_path, max_queued=1, when_full="drop_newest") as (made, _):
            made.client.publish_nowait("t", b"kept", qos=1)
            dropped = made.client.publish_nowait("t", b"dropped", qos=1)
            with pytest.raises(DeliveryFailed, match="the journal was full"):
                await dropped.stored
            with pytest.raises(DeliveryFailed, match="the journal was full"):
                await asyncio.to_thread(dropped.stored.wait)

    run(main)


def test_waiting_for_a_message_that_is_not_kept_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        with device(tmp_path) as (made, _), pytest.raises(ConfigurationError, match="is not kept on disk"):
            await made.client.publish_nowait("t", b"x", qos=0).stored

    run(main)
