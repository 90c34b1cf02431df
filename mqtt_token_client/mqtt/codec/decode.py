"""Decoding: the packets that a broker sends, from bytes that arrive in pieces of any size.

A packet's size is checked when its fixed header has arrived, before its body is kept: against what a packet of its kind
can have, or ``max_packet_size`` for a PUBLISH. A PUBLISH that is larger is skipped as it arrives.
"""

from __future__ import annotations

from ...errors import ProtocolError
from ...logs import get_logger
from .bodies import read_connack, read_other, read_publish, read_suback, rejected_publish
from .packets import (
    AUTH,
    CONNACK,
    DISCONNECT,
    MALFORMED_PACKET,
    NAMES,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    TOO_SHORT,
    UNSUBACK,
    Acknowledgement,
    Packet,
    malformed,
    reason_of,
)
from .reason_codes import PACKET_TOO_LARGE

log = get_logger("mqtt_token_client.mqtt")

# Bytes after the fixed header of any packet but PUBLISH, beside the codes of SUBACK and UNSUBACK. Most have fewer than
# a hundred; this has room for one field of the greatest length (65,535), such as Authentication Data, and as much again
# for all others.
LARGEST_CONTROL_PACKET = 131_072

_PINGRESP_FLOOD = bytes((PINGRESP, 0)) * 2048  # in a row; the first half is skipped, as nobody awaits so many answers
_NO_MATCHING_SUBSCRIBERS = 0x10  # MQTT 5 section 3.4.2.1: that of a device whose messages nobody receives now
_ACKNOWLEDGEMENTS = frozenset((PUBACK, PUBREC, PUBREL | 2, PUBCOMP))  # as they begin
_FROM_A_BROKER = frozenset((CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP))
_FROM_A_BROKER_IN_5 = _FROM_A_BROKER | {DISCONNECT, AUTH}
_BEFORE_CONNACK = frozenset((CONNACK, DISCONNECT, AUTH))


class Decoder:
    """Decodes what one connection receives.

    Args:
        protocol: 5, or 4 for MQTT 3.1.1.
        max_packet_size: bytes of the largest PUBLISH to accept.

    Attributes:
        violation: what the broker did wrong after the packets that :meth:`receive` returned last; nothing that arrives
            after it is read.
        connected: whether CONNACK has arrived; nothing but CONNECT is sent before that.
    """

    def __init__(self, protocol: int, max_packet_size: int) -> None:
        self.violation: ProtocolError | None = None
        self.connected = False
        self._five = protocol == 5
        self._largest = max_packet_size
        self._clean = False  # CONNECT asked for a new session
        self._topics: dict[bytes, str] = {}  # of messages that have arrived
        self._expected: dict[tuple[int, int], int] = {}  # by SUBACK or UNSUBACK and packet identifier: codes in it
        self._partial = bytearray()  # of the packet that has not arrived whole
        self._needed = 2  # bytes of it, before it can be decoded further
        self._skip = 0  # bytes still to come of a PUBLISH that is too large

    def expect_new_session(self) -> None:
        """CONNECT asks for a new session, so CONNACK must not say that there is one."""
        self._clean = True

    def expect(self, kind: int, packet_id: int, codes: int) -> None:
        """Accept one SUBACK or UNSUBACK with this packet identifier and so many codes."""
        self._expected[kind, packet_id] = codes

    def receive(self, data: bytes) -> list[Packet]:
        """The packets that are complete with this data.

        Raises:
            ProtocolError: the broker sent something that MQTT does not allow, or a packet that is larger than one of
                its kind can be. If packets arrived before it, they are returned, and it is in ``violation``.
        """
        if self.violation is not None:
            raise self.violation
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            data = bytes(self._partial)
            self._partial, self._needed = bytearray(), 2
        packets: list[Packet] = []
        try:
            start = self._decode(data, packets)
        except ProtocolError as error:
            self.violation = error
            if not packets:
                raise
            return packets
        if start < len(data):
            self._partial += data[start:]
        return packets

    def _decode(self, data: bytes, packets: list[Packet]) -> int:
        """Decode what is complete; returns the position of the first packet that is not."""
        start, size, largest, connected, five = 0, len(data), self._largest, self.connected, self._five
        while size - start >= 2:
            command, length, body = data[start], data[start + 1], start + 2
            if length & 0x80:
                shift = 7
                length &= 0x7F
                while body < size:
                    length |= (data[body] & 0x7F) << shift
                    body += 1
                    if data[body - 1] < 0x80:
                        break
                    shift += 7
                    if shift > 21:
                        raise _wrong_length("more than four bytes")
                else:
                    break
                if not data[body - 1]:
                    raise _wrong_length("more bytes than it needs")
            end = body + length
            if connected and end <= size:  # nearly always
                if length == 2 and command in _ACKNOWLEDGEMENTS and (packet_id := data[body] << 8 | data[body + 1]):
                    packets.append(Acknowledgement(command & 0xF0, packet_id, 0))
                    start = end
                    continue
                if length == 3 and command == PUBACK and five and data[body + 2] == _NO_MATCHING_SUBSCRIBERS:
                    packet_id = data[body] << 8 | data[body + 1]
                    packets.append(Acknowledgement(PUBACK, packet_id, _NO_MATCHING_SUBSCRIBERS))
                    start = end
                    continue
                if command & 0xF0 == PUBLISH and end - start <= largest:
                    packets.append(read_publish(five, command, data, start, body, end, self._topics))
                    start = end
                    continue
            decoded = self._decode_other(data, start, body, end, packets)
            if decoded == start:
                break
            start, connected = decoded, self.connected
        return start

    def _decode_other(self, data: bytes, start: int, body: int, end: int, packets: list[Packet]) -> int:
        """Decode any packet; returns the position after it, or ``start`` if more of it has to arrive."""
        command = data[start]
        kind = command & 0xF0
        self._check_kind(kind)
        if data.startswith(_PINGRESP_FLOOD, start):
            return start + len(_PINGRESP_FLOOD) // 2
        if kind == PUBLISH:
            if end - start > self._largest:
                return self._skip_publish(data, start, body, end, packets)
        else:
            self._check_header(command, end - body, end - start)
        if end > len(data):
            self._needed = end - start
            return start
        packets.append(self._read(kind, data[body:end]))
        return end

    # Fixed headers

    def _check_kind(self, kind: int) -> None:
        allowed = _FROM_A_BROKER_IN_5 if self._five else _FROM_A_BROKER
        if kind not in allowed or (not self.connected and kind not in _BEFORE_CONNACK):
            raise ProtocolError(f"the broker sent {NAMES.get(kind, 'a packet of type 0')} out of place")

    def _check_header(self, command: int, length: int, size: int) -> None:
        kind, flags = command & 0xF0, command & 0x0F
        if flags != (2 if kind == PUBREL else 0):
            raise malformed(kind, f"flags 0x{flags:x}")
        over_maximum = self._five and size > self._largest  # section 3.1.2.11.4
        if length > self._largest_body(kind) or over_maximum:
            reason = PACKET_TOO_LARGE if over_maximum else MALFORMED_PACKET
            raise ProtocolError(f"the broker sent {NAMES[kind]} of {size} bytes, which is too long", reason=reason)

    def _largest_body(self, kind: int) -> int:
        if kind == PINGRESP:
            return 0
        codes = max((count for (asked, _), count in self._expected.items() if asked == kind), default=0)
        return codes + (LARGEST_CONTROL_PACKET if self._five else 2)

    def _skip_publish(self, data: bytes, start: int, body: int, end: int, packets: list[Packet]) -> int:
        """Read who a PUBLISH that is too large is to be answered to, and skip the rest of it."""
        size = len(data)
        self._needed = body + 2 - start
        if size < body + 2:
            return start
        head_end = body + 2 + (data[body] << 8 | data[body + 1]) + (2 if data[start] & 6 else 0)
        self._needed = head_end - start
        if size < head_end <= end:
            return start
        self._needed = 2
        packets.append(rejected_publish(data[start], data, start, body, end, PACKET_TOO_LARGE))
        self._skip = max(end - size, 0)
        return min(end, size)

    # The others

    def _read(self, kind: int, body: bytes) -> Packet:
        try:
            packet = self._read_body(kind, body)
        except IndexError:
            raise malformed(kind, TOO_SHORT) from None
        except ValueError as error:
            raise malformed(kind, str(error), reason_of(error)) from None
        log.debug("received %s, %s bytes", NAMES[kind], len(body))
        return packet

    def _read_body(self, kind: int, body: bytes) -> Packet:
        if kind == CONNACK:
            self.connected = True
            return read_connack(body, five=self._five, clean=self._clean)
        if kind in (SUBACK, UNSUBACK):
            return read_suback(kind, body, five=self._five, expected=self._expected)
        return read_other(kind, body)


def _wrong_length(what: str) -> ProtocolError:
    text = f"the broker sent a packet with a Remaining Length of {what}"  # [MQTT-1.5.5-1]
    return ProtocolError(text, reason=MALFORMED_PACKET)
