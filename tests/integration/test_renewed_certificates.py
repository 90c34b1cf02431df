"""Client certificates that are renewed while a client is connected, at a Mosquitto that requires one."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.pki import Certificate, Pki
from devtools.servers.processes import wait_until
from mqtt_token_client import (
    AsyncTokenClient,
    ConnectFailed,
    Event,
    Rotated,
    RotationFailed,
    TlsFiles,
    TlsFilesFailed,
    Token,
    TokenClient,
)
from mqtt_token_client.mqtt.lifecycle import broker_tls
from tests.integration.traffic import Peer, Traffic

EXCHANGES, RATE = 40, 200


class _OneToken:
    def __init__(self, keys: Keys) -> None:
        self._token = Token(keys.token(3600), 3600)

    def fetch(self, previous: Token | None) -> Token:
        return self._token


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_tls, "_SHORTEST_LOOK", 0.02)
    monkeypatch.setattr(broker_tls, "_LONGEST_LOOK", 0.04)


@pytest.mark.parametrize("protocol", [4, 5])
def test_forty_renewed_certificates_lose_and_reorder_nothing_at_any_qos(
    mosquitto: Mosquitto, keys: Keys, pki: Pki, protocol: int, tmp_path: Path
) -> None:
    """On its way up a message of QoS 0 or 1 may be repeated: if the machine is busy, the broker resets the first
    connection before it has sent its last acknowledgements.
    """
    own = tmp_path / "own.pem"

    def replace(content: bytes) -> None:
        """In one step, so that each look finds all of it."""
        own.with_suffix(".new").write_bytes(content)
        own.with_suffix(".new").replace(own)

    def renew(renewed: Certificate) -> None:
        replace(renewed.certificate.read_bytes() + renewed.key.read_bytes())

    renew(pki.client)
    events: list[Event] = []
    name = f"renewed-{protocol}"
    client = TokenClient(
        f"mqtts://localhost:{mosquitto.client_tls_port}",
        _OneToken(keys),
        client_id=name,
        protocol=protocol,
        tls=TlsFiles(pki.ca, own),
        on_event=events.append,
    )
    with Traffic(client, Peer(mosquitto.port, name, keys.token(3600)), events) as one:
        enough = threading.Event()
        running = threading.Thread(target=one.run, args=(120, RATE, lambda number: number % 3, enough))
        running.start()
        for number in range(1, EXCHANGES + 1):
            one.wait_for_load(number * 20)
            if number % 4 == 0:  # half written first
                replace(own.read_bytes()[:300])
                wait_until(lambda wanted=number // 4: len(one.of(TlsFilesFailed)) == wanted, "the report")  # type: ignore[misc]
            renew(pki.client_certificate(f"renewed-{number}"))
            wait_until(lambda wanted=number: len(one.rotations) == wanted, "the rotation")  # type: ignore[misc]
        enough.set()
        running.join()
        one.settle()
        up, down = one.peer.arrivals, one.down
        assert (up.lost_of(one.sent), up.reordered) == (set(), 0)
        assert [number for number in up.repeated if number % 3 == 2] == [], "QoS 2"
        assert (down.lost_of(one.sent), down.duplicated, down.reordered) == (set(), 0, 0)
        assert one.losses == one.of(ConnectFailed) == one.of(RotationFailed) == []
        assert {rotation.kind for rotation in one.rotations} == {"handover"}
    assert mosquitto.accepted(name) == EXCHANGES + 1


def test_a_websocket_moves_onto_renewed_files_too(mosquitto: Mosquitto, keys: Keys, pki: Pki, tmp_path: Path) -> None:
    bundle, events = tmp_path / "ca.pem", list[Event]()
    bundle.write_bytes(pki.ca.read_bytes())
    client = TokenClient(
        f"wss://localhost:{mosquitto.wss_port}/mqtt",
        _OneToken(keys),
        client_id="renewed-wss",
        tls=TlsFiles(bundle),
        on_event=events.append,
    )
    with client:
        for number in (1, 2, 3):
            bundle.write_bytes(pki.ca.read_bytes() + b"\n" * number)
            wait_until(lambda wanted=number: client.stats.rotations == wanted, "the rotation")  # type: ignore[misc]
    assert {event.kind for event in events if isinstance(event, Rotated)} == {"handover"}
    assert mosquitto.accepted("renewed-wss") == 4


def test_a_client_on_asyncio_moves_onto_renewed_files_too(
    mosquitto: Mosquitto, keys: Keys, pki: Pki, tmp_path: Path
) -> None:
    own, events = tmp_path / "own.pem", list[Event]()
    own.write_bytes(pki.client.certificate.read_bytes() + pki.client.key.read_bytes())

    async def run() -> None:
        client = AsyncTokenClient(
            f"mqtts://localhost:{mosquitto.client_tls_port}",
            _OneToken(keys),
            client_id="renewed-aio",
            tls=TlsFiles(pki.ca, own),
            on_event=events.append,
        )
        async with client, asyncio.timeout(30):
            for number in (1, 2, 3):
                renewed = pki.client_certificate(f"aio-{number}")
                own.write_bytes(renewed.certificate.read_bytes() + renewed.key.read_bytes())
                while client.stats.rotations < number:
                    await asyncio.sleep(0.01)
                await client.publish("renewed", b"", qos=1)

    asyncio.run(run())
    assert {event.kind for event in events if isinstance(event, Rotated)} == {"handover"}
    assert mosquitto.accepted("renewed-aio") == 4
