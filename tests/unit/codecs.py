"""Codecs as tests use them."""

from __future__ import annotations

from mqtt_token_client.mqtt.codec.codec import Codec
from mqtt_token_client.mqtt.codec.packets import MAX_PACKET_SIZE
from tests.unit import packets


def connected(protocol: int, max_packet_size: int = MAX_PACKET_SIZE) -> Codec:
    """A codec that has received CONNACK, before which it accepts little else."""
    codec = Codec(protocol, max_packet_size)
    codec.receive(packets.connack(protocol == 5))
    return codec
