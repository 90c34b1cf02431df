"""Fixtures: devices with a journal on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mqtt_token_client.journal.disk import DiskJournal, open_journal
from tests.unit import packets
from tests.unit.device import Device, Make
from tests.unit.scripted_broker import PATIENCE, Peer

Open = Callable[..., DiskJournal]


@pytest.fixture
def make(make_in_real_time: Make) -> Make:
    """The journal's thread is a real one."""
    return make_in_real_time


@pytest.fixture
def journal(make: Make, tmp_path: Path) -> Iterator[Open]:
    """``journal(...)`` opens the journal as another process would; all are closed before the devices are."""
    opened: list[DiskJournal] = []

    def journal(**options: Any) -> DiskJournal:
        opened.append(open_journal(tmp_path / "journal", **options))
        return opened[-1]

    yield journal
    for each in opened:
        each.close()


def disconnect(device: Device, peer: Peer, pool: ThreadPoolExecutor) -> None:
    """Disconnect, and have the broker close the connection."""
    disconnecting = pool.submit(device.client.disconnect, 0)
    while peer.packet().kind != packets.DISCONNECT:  # type: ignore[union-attr]
        """What was sent before."""
    peer.close()
    disconnecting.result(PATIENCE)
