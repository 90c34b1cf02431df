"""Client certificates that are renewed while a client is connected, at a Mosquitto that requires one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.pki import Certificate, Pki
from devtools.servers.processes import wait_until
from mqtt_token_client import ConnectFailed, Event, RotationFailed, TlsFiles, TlsFilesFailed, Token, TokenClient
from mqtt_token_client.mqtt.lifecycle import broker_tls
from tests.integration.traffic import Peer, Traffic

EXCHANGES, RATE = 40, 200


class _OneToken:
    def __init__(self, keys: Keys) -> None:
        self._token = Token(keys.token(3600), 3600)

    def fetch(self, previous: Token | None) -> Token:
        return self._token


@pytest.mark.parametrize("protocol", [4, 5])
def test_forty_renewed_certificates_lose_repeat_and_reorder_nothing_at_any_qos(
    mosquitto: Mosquitto, keys: Keys, pki: Pki, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_tls, "_SHORTEST_LOOK", 0.02)
    monkeypatch.setattr(broker_tls, "_LONGEST_LOOK", 0.04)
    own = tmp_path / "own.pem"

    def renew(renewed: Certificate) -> None:
        """Replace the certificate and its key in one step, so that no look finds one of them alone."""
        own.with_suffix(".new").write_bytes(renewed.certificate.read_bytes() + renewed.key.read_bytes())
        own.with_suffix(".new").replace(own)

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
                own.write_bytes(own.read_bytes()[:300])
                wait_until(lambda wanted=number // 4: len(one.of(TlsFilesFailed)) == wanted, "the report")  # type: ignore[misc]
            renew(pki.client_certificate(f"renewed-{number}"))
            wait_until(lambda wanted=number: len(one.rotations) == wanted, "the rotation")  # type: ignore[misc]
        enough.set()
        running.join()
        one.settle()
        up, down = one.peer.arrivals, one.down
        assert (up.lost_of(one.sent), up.duplicated, up.reordered) == (set(), 0, 0)
        assert (down.lost_of(one.sent), down.duplicated, down.reordered) == (set(), 0, 0)
        assert one.losses == one.of(ConnectFailed) == one.of(RotationFailed) == []
        assert {rotation.kind for rotation in one.rotations} == {"handover"}
    assert mosquitto.accepted(name) == EXCHANGES + 1
