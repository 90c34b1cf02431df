"""How fast messages come and go on a broker with its default settings, which hold small packets back (RFC 896)."""

from __future__ import annotations

import threading
import time

import pytest

from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from mqtt_token_client import Message, TokenClient
from tests.integration.traffic import source, trusting

HOPS = 100
DELAYED_ACK = 0.04  # seconds, of Linux


@pytest.mark.parametrize("way", ["mqtt", "mqtts", "ws", "wss"])
def test_an_answer_does_not_wait_for_a_delayed_acknowledgement(
    oidc: AuthorizationServer, mosquitto: Mosquitto, pki: Pki, way: str
) -> None:
    """A message that a handler publishes comes back at QoS 1: PUBACK and PUBLISH stand in each other's way."""
    port = {"mqtt": mosquitto.port, "mqtts": mosquitto.tls_port, "ws": mosquitto.ws_port, "wss": mosquitto.wss_port}
    over = threading.Event()

    def answer(message: Message) -> None:
        hop = int(message.payload) + 1
        if hop == HOPS:
            over.set()
        else:
            client.publish("ball", str(hop), qos=1)

    client = TokenClient(
        f"{way}://localhost:{port[way]}{'/mqtt' if way.startswith('ws') else ''}",
        source(oidc),
        client_id=f"ball-{way}",
        tls=trusting(pki.ca),
    )
    client.subscribe("ball", answer, qos=1)
    with client:
        client.publish("ball", "0", qos=1).wait(10)
        began = time.monotonic()
        assert over.wait(30)
        assert time.monotonic() - began < HOPS * DELAYED_ACK / 4
