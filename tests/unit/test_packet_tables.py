"""What a client accepts from a broker and what it rejects, packet by packet, with the section of the standard.

The sections are those of MQTT 5; MQTT 3.1.1 has the same rules under other numbers. A row has the protocol, the packet,
and the reason code of the DISCONNECT that rejects it (section 4.13.1): 0x81 if it cannot be parsed (Malformed Packet),
0x82 if it can be and MQTT does not allow it (Protocol Error), or a code that its section names; None if it is accepted.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from mqtt_token_client import Connected, ConnectFailed, Disconnected
from mqtt_token_client.errors import ProtocolError
from mqtt_token_client.mqtt.codec.codec import Codec
from mqtt_token_client.mqtt.codec.packets import MAX_PACKET_SIZE, RejectedPublish
from tests.unit import packets
from tests.unit.codecs import connected
from tests.unit.device import Make, both
from tests.unit.packets import CONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL

BAD, WRONG, ALIAS, LARGE = 0x81, 0x82, 0x94, 0x95

Row = tuple[str, int, str, int | None]

# To a codec that is connected and has asked for SUBACK 1 (two filters) and UNSUBACK 2 (one filter).
ROWS: list[Row] = [
    # Fixed header
    ("2.1.2 reserved type", 4, "00 00", WRONG),
    ("2.1.2 reserved type", 5, "00 00", WRONG),
    ("2.1.2 from a client only", 4, "10 00", WRONG),
    ("2.1.2 from a client only", 5, "82 05 0001 00 0000", WRONG),
    ("2.1.2 from a client only", 5, "a2 05 0001 00 0000", WRONG),
    ("2.1.2 from a client only", 5, "c0 00", WRONG),
    ("2.1.2 DISCONNECT of 3.1.1 is from a client only", 4, "e0 00", WRONG),
    ("2.1.2 3.1.1 has no AUTH", 4, "f0 00", WRONG),
    ("2.1.3 flags", 4, "41 02 0001", BAD),
    ("2.1.3 flags", 5, "48 02 0001", BAD),
    ("2.1.3 flags", 5, "51 02 0001", BAD),
    ("2.1.3 flags of PUBREL are 2", 4, "60 02 0001", BAD),
    ("2.1.3 flags of PUBREL are 2", 5, "63 02 0001", BAD),
    ("2.1.3 flags", 5, "72 02 0001", BAD),
    ("2.1.3 flags", 5, "91 05 0001 00 0000", BAD),
    ("2.1.3 flags", 5, "b1 04 0002 00 00", BAD),
    ("2.1.3 flags", 4, "d1 00", BAD),
    ("2.1.3 flags", 5, "e4 00", BAD),
    ("2.1.3 flags", 5, "f2 00", BAD),
    ("1.5.5 Remaining Length of five bytes", 4, "30 80 80 80 80 01", BAD),
    ("1.5.5 Remaining Length of five bytes", 5, "40 80 80 80 80 01", BAD),
    ("1.5.5 Remaining Length that is not minimal", 4, "40 82 00 0001", BAD),
    ("1.5.5 Remaining Length that is not minimal", 5, "d0 80 80 00", BAD),
    ("3.12 PINGRESP has no body", 4, "d0 01 00", BAD),
    ("3.12 PINGRESP has no body", 5, "d0 01 00", BAD),
    ("3.13 PINGRESP", 4, "d0 00", None),
    ("3.13 PINGRESP", 5, "d0 00", None),
    # CONNACK when there is a connection
    ("3.2.2.1 flags", 4, "20 02 02 00", BAD),
    ("3.2.2.1 flags", 5, "20 03 80 00 00", BAD),
    ("3.2.2.2 reason code", 5, "20 03 00 01 00", WRONG),
    ("3.2.2.3 without properties", 5, "20 02 00 00", BAD),
    ("3.2 more than its properties", 5, "20 04 00 00 00 00", BAD),
    ("3.2 too long", 4, "20 03 00 00 00", BAD),
    # PUBLISH
    ("3.3", 4, "30 04 0001 74 21", None),
    ("3.3", 5, "30 05 0001 74 00 21", None),
    ("3.3.3 no payload", 4, "30 03 0001 74", None),
    ("3.3.3 no payload", 5, "30 04 0001 74 00", None),
    ("3.3.1.1 DUP", 4, "3a 05 0001 74 0001", None),
    ("3.3.1.1 DUP", 5, "3c 06 0001 74 0001 00", None),
    ("3.3.1.2 QoS 3", 4, "36 05 0001 74 0001", BAD),
    ("3.3.1.2 QoS 3", 5, "36 06 0001 74 0001 00", BAD),
    ("3.3.1.2 QoS 3 with DUP and RETAIN", 5, "3f 06 0001 74 0001 00", BAD),
    ("3.3.2.1 no topic", 4, "30 00", BAD),
    ("3.3.2.1 no topic", 5, "30 01 00", BAD),
    ("3.3.2.1 a topic beyond the packet", 4, "30 04 0005 7474", BAD),
    ("4.7.3 an empty topic", 4, "30 02 0000", WRONG),
    ("4.7.3 an empty topic", 5, "30 03 0000 00", WRONG),
    ("3.3.2.1 + in a topic", 4, "30 05 0003 742f2b", BAD),
    ("3.3.2.1 + in a topic", 5, "32 08 0003 742f2b 0001 00", BAD),
    ("3.3.2.1 # in a topic", 4, "30 03 0001 23", BAD),
    ("3.3.2.1 # in a topic", 5, "30 04 0001 23 00", BAD),
    ("1.5.4 not UTF-8", 4, "30 03 0001 ff", BAD),
    ("1.5.4 a surrogate", 5, "30 06 0003 eda080 00", BAD),
    ("1.5.4 an overlong form", 5, "30 05 0002 c0af 00", BAD),
    ("1.5.4 NUL", 4, "30 05 0003 740074", BAD),
    ("1.5.4 NUL", 5, "30 06 0003 740074 00", BAD),
    ("1.5.4 U+FEFF", 5, "30 07 0004 74efbbbf 00", None),
    ("1.5.4 a control character, which a client may accept", 5, "30 05 0002 7401 00", None),
    ("1.5.4 a noncharacter, which a client may accept", 5, "30 06 0003 efbfbf 00", None),
    ("2.2.1 no packet identifier", 4, "32 03 0001 74", BAD),
    ("2.2.1 half a packet identifier", 5, "34 04 0001 74 00", BAD),
    ("2.2.1 packet identifier 0", 4, "32 05 0001 74 0000", WRONG),
    ("2.2.1 packet identifier 0", 5, "34 06 0001 74 0000 00", WRONG),
    ("3.3.2.3 no properties", 5, "30 03 0001 74", BAD),
    ("3.3.2.3 properties beyond the packet", 5, "30 05 0001 74 05 01", BAD),
    ("3.3.2.3.2 Payload Format Indicator", 5, "30 06 0001 74 02 0101", None),
    ("3.3.2.3.2 Payload Format Indicator 2", 5, "30 06 0001 74 02 0102", WRONG),
    ("3.3.2.3.2 Payload Format Indicator twice", 5, "30 08 0001 74 04 01010101", WRONG),
    ("2.2.2.2 a property without its value", 5, "30 05 0001 74 01 01", BAD),
    ("3.3.2.3.3 Message Expiry Interval twice", 5, "30 0e 0001 74 0a 0200000001 0200000001", WRONG),
    ("3.3.2.3.3 half of a Message Expiry Interval", 5, "30 07 0001 74 03 020000", BAD),
    ("3.3.2.3.4 Topic Alias above Topic Alias Maximum", 5, "30 07 0001 74 03 230001", ALIAS),
    ("3.3.2.3.4 Topic Alias in place of the topic", 5, "30 06 0000 03 230001", WRONG),
    ("3.3.2.3.4 Topic Alias 0", 5, "30 07 0001 74 03 230000", WRONG),
    ("3.3.2.3.4 Topic Alias twice", 5, "30 0a 0001 74 06 230001 230001", WRONG),
    ("3.3.2.3.5 Response Topic", 5, "30 08 0001 74 04 08000172", None),
    ("3.3.2.3.5 + in a Response Topic", 5, "30 08 0001 74 04 0800012b", WRONG),
    ("3.3.2.3.5 # in a Response Topic", 5, "30 08 0001 74 04 08000123", WRONG),
    ("4.7.3 an empty Response Topic", 5, "30 07 0001 74 03 080000", WRONG),
    ("3.3.2.3.5 Response Topic twice", 5, "30 0c 0001 74 08 08000172 08000172", WRONG),
    ("3.3.2.3.6 Correlation Data twice", 5, "30 0c 0001 74 08 09000172 09000172", WRONG),
    ("3.3.2.3.7 User Property twice", 5, "30 12 0001 74 0e 26000161000162 26000161000162", None),
    ("3.3.2.3.7 User Property without a value", 5, "30 08 0001 74 04 26000161", BAD),
    ("1.5.4 NUL in a User Property", 5, "30 0b 0001 74 07 26000100000162", BAD),
    ("1.5.4 NUL in a Content Type", 5, "30 08 0001 74 04 03000100", BAD),
    ("1.5.4 U+FEFF in a Content Type", 5, "30 0a 0001 74 06 030003efbbbf", None),
    ("3.3.4 Subscription Identifiers, twice the same", 5, "30 08 0001 74 04 0b01 0b01", None),
    ("3.3.2.3.8 Subscription Identifier 0", 5, "30 06 0001 74 02 0b00", WRONG),
    ("1.5.5 Subscription Identifier that is not minimal", 5, "30 07 0001 74 03 0b8100", BAD),
    ("1.5.5 Subscription Identifier of five bytes", 5, "30 0a 0001 74 06 0b8080808001", BAD),
    ("3.3.2.3.9 Content Type twice", 5, "30 0c 0001 74 08 03000172 03000172", WRONG),
    # PUBACK, PUBREC, PUBREL, PUBCOMP
    *[
        (f"{section} {what}", protocol, f"{first} {rest}", reason)
        for section, first in (("3.4.2", "40"), ("3.5.2", "50"), ("3.6.2", "62"), ("3.7.2", "70"))
        for what, protocol, rest, reason in (
            ("", 4, "02 0001", None),
            ("without a reason code", 5, "02 0001", None),
            ("with a reason code", 5, "03 0001 00", None),
            ("with a reason code and properties", 5, "04 0001 92 00", None),
            ("with a Reason String", 5, "08 0001 92 04 1f000170", None),
            ("a reason code that MQTT does not have", 5, "03 0001 ff", WRONG),
            ("a reason code that MQTT does not have", 5, "04 0001 7f 00", WRONG),
            ("no body", 4, "00", BAD),
            ("half a packet identifier", 5, "01 00", BAD),
            ("a reason code in 3.1.1", 4, "03 0001 00", BAD),
            ("packet identifier 0 (2.2.1)", 4, "02 0000", WRONG),
            ("packet identifier 0 (2.2.1)", 5, "02 0000", WRONG),
            ("packet identifier 0 (2.2.1)", 5, "04 0000 00 00", WRONG),
            ("properties beyond the packet", 5, "04 0001 00 05", BAD),
            ("more than its properties", 5, "05 0001 00 00 00", BAD),
            ("Reason String twice", 5, "0c 0001 00 08 1f000170 1f000170", WRONG),
            ("Reason String without its value", 5, "05 0001 00 01 1f", BAD),
        )
    ],
    # SUBACK
    ("3.9.3", 4, "90 04 0001 0080", None),
    ("3.9.3", 5, "90 05 0001 00 0287", None),
    ("3.9.2.1 with a Reason String", 5, "90 09 0001 04 1f000170 0000", None),
    ("3.9.3 too few codes", 4, "90 03 0001 00", WRONG),
    ("3.9.3 too many codes", 5, "90 06 0001 00 000000", WRONG),
    ("3.9.3 no codes", 5, "90 03 0001 00", WRONG),
    ("3.9.3 QoS 3", 4, "90 04 0001 0003", WRONG),
    ("3.9.3 QoS 3", 5, "90 05 0001 00 0300", WRONG),
    ("3.9.3 a code that 3.1.1 does not have", 4, "90 04 0001 0087", WRONG),
    ("3.9 a packet identifier that nothing was asked with", 5, "90 05 0003 00 0000", WRONG),
    ("3.9.2 without properties", 5, "90 02 0001", BAD),
    ("3.9.2 no body", 4, "90 00", BAD),
    # UNSUBACK
    ("3.11", 4, "b0 02 0002", None),
    ("3.11.3", 5, "b0 04 0002 00 11", None),
    ("3.11.3 no codes, as some brokers answer; the request would be sent again forever", 5, "b0 03 0002 00", None),
    ("3.11.3 too many codes", 5, "b0 05 0002 00 0000", WRONG),
    ("3.11 a packet identifier that nothing was asked with", 4, "b0 02 0003", WRONG),
    ("3.11 a packet identifier that nothing was asked with", 5, "b0 04 0003 00 00", WRONG),
    ("3.11.2 without properties", 5, "b0 02 0002", BAD),
    ("3.11.2 no body", 5, "b0 00", BAD),
    # DISCONNECT and AUTH
    ("3.14.2.1 without a reason code", 5, "e0 00", None),
    ("3.14.2.1 a reason code", 5, "e0 01 8b", None),
    ("3.14.2.2 a Reason String", 5, "e0 06 8b 04 1f000170", None),
    ("3.15.2.1", 5, "f0 06 18 04 1500014d", None),
    ("3.15.2 properties beyond the packet", 5, "f0 02 18 05", BAD),
    ("3.15.2 more than its properties", 5, "f0 03 18 00 00", BAD),
]


def asking(protocol: int, largest: int = MAX_PACKET_SIZE) -> Codec:
    codec = connected(protocol, largest)
    codec.subscribe(1, [("a", 2), ("b", 2)])
    codec.unsubscribe(2, ["c"])
    return codec


def rejection(codec: Codec, data: bytes) -> int | None:
    """The reason code that a packet is rejected with. One that is to be answered when it comes again has it too."""
    try:
        (packet,) = codec.receive(data)
    except ProtocolError as error:
        return error.reason
    return packet.reason if isinstance(packet, RejectedPublish) else None


def test_a_packet_is_accepted_or_rejected_with_its_reason() -> None:
    assert len(ROWS) > 180
    found = [(row, rejection(asking(row[1]), bytes.fromhex(row[2]))) for row in ROWS]
    assert [(row, reason) for row, reason in found if reason != row[3]] == []


# Section 2.2.2.2: the properties by identifier, a value of each, and the packets from a broker that may carry them.
_CONNACK, _PUBLISH, _ACKS, _SUBACK, _DISCONNECT, _AUTH = (
    "CONNACK",
    "PUBLISH",
    "acknowledgements",
    "SUBACK",
    "e0",
    "AUTH",
)
_ALL = {_CONNACK, _PUBLISH, _ACKS, _SUBACK, _DISCONNECT, _AUTH}
PROPERTIES: dict[str, tuple[str, set[str]]] = {
    "01": ("01", {_PUBLISH}),  # Payload Format Indicator
    "02": ("00000001", {_PUBLISH}),  # Message Expiry Interval
    "03": ("000170", {_PUBLISH}),  # Content Type
    "08": ("000170", {_PUBLISH}),  # Response Topic
    "09": ("000170", {_PUBLISH}),  # Correlation Data
    "0b": ("01", {_PUBLISH}),  # Subscription Identifier
    "11": ("00000001", {_CONNACK, _DISCONNECT}),  # Session Expiry Interval
    "12": ("000170", {_CONNACK}),  # Assigned Client Identifier
    "13": ("0001", {_CONNACK}),  # Server Keep Alive
    "15": ("000170", {_CONNACK, _AUTH}),  # Authentication Method
    "16": ("000170", {_CONNACK, _AUTH}),  # Authentication Data
    "17": ("01", set()),  # Request Problem Information
    "18": ("00000001", set()),  # Will Delay Interval
    "19": ("01", set()),  # Request Response Information
    "1a": ("000170", {_CONNACK}),  # Response Information
    "1c": ("000170", {_CONNACK, _DISCONNECT}),  # Server Reference
    "1f": ("000170", _ALL - {_PUBLISH}),  # Reason String
    "21": ("0001", {_CONNACK}),  # Receive Maximum
    "22": ("0001", {_CONNACK}),  # Topic Alias Maximum
    "23": ("0001", set()),  # Topic Alias: of PUBLISH, with a code of its own
    "24": ("01", {_CONNACK}),  # Maximum QoS
    "25": ("01", {_CONNACK}),  # Retain Available
    "26": ("00016b000176", _ALL),  # User Property
    "27": ("00000001", {_CONNACK}),  # Maximum Packet Size
    "28": ("01", {_CONNACK}),  # Wildcard Subscription Available
    "29": ("01", {_CONNACK}),  # Subscription Identifier Available
    "2a": ("01", {_CONNACK}),  # Shared Subscription Available
}
# The first byte, and what stands before and behind the properties.
CARRIERS = [
    (_CONNACK, "20", "0000", ""),
    (_PUBLISH, "30", "000174", "21"),
    (_ACKS, "40", "000100", ""),
    (_ACKS, "50", "000100", ""),
    (_ACKS, "62", "000100", ""),
    (_ACKS, "70", "000100", ""),
    (_SUBACK, "90", "0001", "0000"),
    (_SUBACK, "b0", "0002", "00"),
    (_AUTH, "f0", "18", ""),
]
carriers = pytest.mark.parametrize(
    ("kind", "first", "before", "behind"), CARRIERS, ids=[row[1] for row in CARRIERS]
)  # fmt: skip


def carry(first: str, before: str, properties: str, behind: str) -> bytes:
    packed = bytes.fromhex(properties)
    body = bytes.fromhex(before) + bytes((len(packed),)) + packed + bytes.fromhex(behind)
    return bytes.fromhex(first) + bytes((len(body),)) + body


@carriers
def test_a_packet_may_carry_the_properties_of_section_2_2_2_2_and_no_others(
    kind: str, first: str, before: str, behind: str
) -> None:
    """An identifier that is not for this packet is rejected as a Protocol Error, as brokers do; section 2.2.2.2 would
    have it Malformed, which is what one is that no packet has.
    """
    for identifier, (value, allowed) in PROPERTIES.items():
        if (identifier, kind) == ("23", _PUBLISH):
            continue
        packet = carry(first, before, identifier + value, behind)
        assert rejection(asking(5), packet) == (None if kind in allowed else WRONG), identifier
        truncated = carry(first, before, identifier, behind)
        assert rejection(asking(5), truncated) == BAD, identifier


@carriers
def test_an_identifier_that_no_property_has_is_malformed(kind: str, first: str, before: str, behind: str) -> None:
    for identifier in range(256):
        if f"{identifier:02x}" not in PROPERTIES:
            packet = carry(first, before, f"{identifier:02x}01", behind)
            assert rejection(asking(5), packet) == BAD, (kind, identifier)


class TestConnack:
    """The answer to CONNECT: section 3.2."""

    @pytest.mark.parametrize(
        ("section", "protocol", "clean", "packet", "reason"),
        [
            ("3.2.2.1.1 no session", 4, True, "20 02 00 00", None),
            ("3.2.2.1.1 no session", 5, True, "20 03 00 00 00", None),
            ("3.2.2.1.1 the session is resumed", 4, False, "20 02 01 00", None),
            ("3.2.2.1.1 the session is resumed", 5, False, "20 03 01 00 00", None),
            ("3.2.2.1.1 a session after Clean Session", 4, True, "20 02 01 00", WRONG),
            ("3.2.2.1.1 a session after Clean Start", 5, True, "20 03 01 00 00", WRONG),
            ("3.2.2.2 the reason of a rejection counts more than its flag", 5, True, "20 03 01 87 00", None),
            ("3.2.2.3.3 Receive Maximum 0", 5, True, "20 06 00 00 03 210000", WRONG),
            ("3.2.2.3.6 Maximum Packet Size 0", 5, True, "20 08 00 00 05 2700000000", WRONG),
            ("3.2.2.3.2 Session Expiry Interval twice", 5, True, "20 0d 00 00 0a 1100000001 1100000001", WRONG),
        ],
    )
    def test_is_accepted_or_rejected_with_its_reason(
        self, section: str, protocol: int, clean: bool, packet: str, reason: int | None
    ) -> None:
        codec = Codec(protocol)
        codec.connect(
            client_id="c", clean=clean, keepalive=0, username=None, password=None, will=None, properties={}
        )  # fmt: skip
        assert rejection(codec, bytes.fromhex(packet)) == reason, section

    def test_a_session_after_clean_start_is_not_used(self, make: Make) -> None:
        device = make(session_expiry=0)
        device.client.connect(timeout=0)
        peer = device.answer(session_present=True)
        peer.expect_rejection(WRONG)
        assert "CONNECT asked for a new session" in str(device.event(ConnectFailed).error)
        assert not device.reported(Connected)


def test_a_packet_above_maximum_packet_size_is_rejected_with_a_code_of_its_own() -> None:
    """Section 3.1.2.11.4."""
    assert rejection(asking(5, 100), bytes.fromhex("40 63")) == LARGE


class TestARejection:
    @both
    def test_of_a_packet_is_told_by_disconnect_before_the_connection_is_closed(self, make: Make, protocol: int) -> None:
        """Section 4.13.1; MQTT 3.1.1 just closes (section 4.8)."""
        device = make(protocol)
        peer = device.start()
        peer.send(bytes.fromhex("30 02 0000 " if protocol == 4 else "30 03 0000 00"))
        peer.expect_rejection(WRONG)
        assert device.event(Disconnected).reason is None
        device.answer()

    def test_follows_what_answers_the_packets_before_it(self, make: Make) -> None:
        device = make()
        peer = device.start()
        peer.send(packets.publish(True, "t", b"1", 1, 7) + bytes.fromhex("40 03 0001 ff"))
        assert peer.expect(PUBACK).packet_id == 7
        peer.expect_rejection(WRONG)
        assert device.payloads == [b"1"]

    def test_of_a_second_connack_is_one_too(self, make: Make) -> None:
        device = make()
        peer = device.start()
        peer.connack()
        peer.expect_rejection(WRONG)
        assert "out of place" in device.event(Disconnected).cause

    def test_before_connack_sends_nothing(self, make: Make) -> None:
        device = make()
        device.client.connect(timeout=0)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        peer.send(bytes.fromhex("30 03 0000 00"))
        peer.expect_end()


class TestAnswers:
    """Each message is answered by the packets of its QoS: sections 4.3.2 and 4.3.3."""

    @both
    @pytest.mark.parametrize(
        ("qos", "answers"),
        [(1, [PUBREC]), (1, [PUBCOMP]), (2, [PUBACK]), (2, [PUBCOMP]), (2, [PUBREC, PUBACK])],
    )  # fmt: skip
    def test_of_another_qos_end_the_connection_and_the_message_is_sent_again(
        self, make: Make, protocol: int, qos: int, answers: list[int]
    ) -> None:
        device = make(protocol)
        peer = device.start()
        delivery = device.client.publish("t", b"1", qos=qos)
        packet_id = peer.expect(PUBLISH).packet_id
        *before, wrong = answers
        for kind in before:
            peer.acknowledge(kind, packet_id)
            peer.expect(PUBREL)
        peer.acknowledge(wrong, packet_id)
        peer.expect_rejection(WRONG)
        assert f"out of place, for a message of QoS {qos}" in device.event(Disconnected).cause
        assert not delivery.done
        again = device.answer().packet()
        assert again is not None
        assert (again.kind, again.packet_id) == (PUBREL if before else PUBLISH, packet_id)

    @both
    def test_to_an_unknown_identifier_say_so(self, make: Make, protocol: int) -> None:
        """Sections 3.6.2.1 and 3.7.2.1: Packet Identifier not found, which MQTT 3.1.1 cannot say."""
        device = make(protocol)
        peer = device.start()
        peer.acknowledge(PUBREC, 7)
        pubrel = peer.expect(PUBREL)
        peer.acknowledge(PUBREL, 8)
        pubcomp = peer.expect(PUBCOMP)
        reason = 0x92 if protocol == 5 else 0
        assert (pubrel.packet_id, pubrel.reason, pubcomp.packet_id, pubcomp.reason) == (7, reason, 8, reason)

    @both
    @pytest.mark.parametrize("kind", [PUBACK, PUBCOMP])
    def test_that_are_last_and_to_an_unknown_identifier_are_ignored(self, make: Make, protocol: int, kind: int) -> None:
        device = make(protocol)
        peer = device.start()
        peer.acknowledge(kind, 7)
        peer.publish("t", b"1", 1, 9)
        assert peer.expect(PUBACK).packet_id == 9


@given(st.sampled_from(ROWS), st.data())
def test_a_mutated_packet_gives_packets_or_a_protocol_error_with_a_reason(row: Row, data: st.DataObject) -> None:
    packet = bytearray.fromhex(row[2])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packet)))
        match data.draw(st.sampled_from(("change", "insert", "delete", "repeat"))):
            case "change" if at < len(packet):
                packet[at] = data.draw(st.integers(0, 255))
            case "insert":
                packet[at:at] = data.draw(st.binary(max_size=5))
            case "delete":
                del packet[at : at + data.draw(st.integers(1, 3))]
            case "repeat":
                packet += packet[at:]
    codec, cut = asking(row[1]), data.draw(st.integers(0, len(packet)))
    for piece in (packet[:cut], packet[cut:]):
        with contextlib.suppress(ProtocolError):  # anything else fails the test
            codec.receive(bytes(piece))
    assert codec.violation is None or codec.violation.reason in (BAD, WRONG, ALIAS, LARGE)
