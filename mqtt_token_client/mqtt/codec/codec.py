"""The packets of one MQTT connection: bytes in, packets out, and the other way round. It opens no socket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .decode import Decoder
from .encode import Encoder
from .packets import MAX_PACKET_SIZE, SUBACK, UNSUBACK


class Codec(Encoder, Decoder):
    """Encodes and decodes the packets of one connection.

    Args:
        protocol: 5, or 4 for MQTT 3.1.1.
        max_packet_size: bytes of the largest packet to accept.
    """

    def __init__(self, protocol: int, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        Encoder.__init__(self, protocol)
        Decoder.__init__(self, protocol, max_packet_size)

    def connect(self, *, clean: bool, **fields: Any) -> bytes:
        """CONNECT, whose CONNACK must not announce a session if this one is to be ``clean``."""
        if clean:
            self.expect_new_session()
        return super().connect(clean=clean, **fields)

    def subscribe(self, packet_id: int, filters: Iterable[tuple[str, int]], properties: bytes = b"") -> bytes:
        """SUBSCRIBE, whose SUBACK is accepted from now on."""
        filters = list(filters)
        self.expect(SUBACK, packet_id, len(filters))
        return super().subscribe(packet_id, filters, properties)

    def unsubscribe(self, packet_id: int, filters: Iterable[str]) -> bytes:
        """UNSUBSCRIBE, whose UNSUBACK is accepted from now on."""
        filters = list(filters)
        self.expect(UNSUBACK, packet_id, len(filters) if self.five else 0)  # that of MQTT 3.1.1 has no codes
        return super().unsubscribe(packet_id, filters)
