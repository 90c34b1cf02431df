"""The packets of one MQTT connection: bytes in, packets out, and the other way round. It opens no socket."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import ProtocolError
from .decode import Decoder
from .encode import Encoder
from .packets import MAX_PACKET_SIZE, SUBACK, UNSUBACK, Packet


class Codec(Encoder):
    """Encodes and decodes the packets of one connection.

    Args:
        protocol: 5, or 4 for MQTT 3.1.1.
        max_packet_size: bytes of the largest packet to accept.
    """

    def __init__(self, protocol: int, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        super().__init__(protocol)
        self._decoder = Decoder(protocol, max_packet_size)

    def subscribe(self, packet_id: int, filters: Iterable[tuple[str, int]], properties: bytes = b"") -> bytes:
        filters = list(filters)
        self._decoder.expect(SUBACK, packet_id, len(filters))
        return super().subscribe(packet_id, filters, properties)

    def unsubscribe(self, packet_id: int, filters: Iterable[str]) -> bytes:
        filters = list(filters)
        self._decoder.expect(UNSUBACK, packet_id, len(filters))
        return super().unsubscribe(packet_id, filters)

    def receive(self, data: bytes) -> list[Packet]:
        """The packets that are complete with this data.

        Raises:
            ProtocolError: the broker sent something that MQTT does not allow, or that is too large. If packets arrived
                before it, they are returned, and it is in ``violation``.
        """
        return self._decoder.receive(data)

    @property
    def violation(self) -> ProtocolError | None:
        """What the broker did wrong after the packets that :meth:`receive` returned last."""
        return self._decoder.violation
