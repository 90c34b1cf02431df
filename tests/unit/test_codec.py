"""Packets, byte for byte: what goes out against bytes worked out by hand, what comes in however it is cut."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mqtt_token_client.errors import ProtocolError
from mqtt_token_client.mqtt.codec.codec import Codec
from mqtt_token_client.mqtt.codec.decode import LARGEST_CONTROL_PACKET
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.codec.packets import (
    CONNACK,
    MAX_PACKET_SIZE,
    NAMES,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    Acknowledgement,
    Auth,
    Connack,
    Disconnect,
    Packet,
    Pingresp,
    RejectedPublish,
    Suback,
    Unsuback,
)
from mqtt_token_client.mqtt.codec.properties import MOST_PROPERTIES, pack_length, pack_properties
from mqtt_token_client.mqtt.codec.will import Will
from tests.unit import packets
from tests.unit.codecs import connected


def connect(protocol: int = 5, **more: Any) -> str:
    fields: dict[str, Any] = {"client_id": "pump", "clean": False, "keepalive": 60, "username": "u", "password": b"tok"}
    return Codec(protocol).connect(**{**fields, "will": None, "properties": {}, **more}).hex(" ")


def publish(protocol: int, payload: bytes, topic: bytes = b"t", **more: Any) -> bytes:
    fields = {"qos": 0, "retain": False, "packet_id": 0, "duplicate": False, "properties": b"", **more}
    return Codec(protocol).publish(len(topic).to_bytes(2) + topic, payload, **fields)


def receive(protocol: int, data: str) -> list[Packet]:
    return expecting(protocol).receive(bytes.fromhex(data))


class TestConnect:
    """MQTT 3.1.1 section 3.1, MQTT 5 section 3.1."""

    def test_of_3_1_1(self) -> None:
        assert connect(4) == (
            "10 18"
            " 00 04 4d 51 54 54 04 c0 00 3c"  # MQTT, level 4, user name and password, keep alive 60
            " 00 04 70 75 6d 70 00 01 75 00 03 74 6f 6b"
        )

    def test_of_5(self) -> None:
        assert connect(5, properties={"session_expiry_interval": 3600}) == (
            "10 1e 00 04 4d 51 54 54 05 c0 00 3c 05 11 00 00 0e 10 00 04 70 75 6d 70 00 01 75 00 03 74 6f 6b"
        )

    def test_of_5_without_properties_says_so(self) -> None:
        assert connect(5).startswith("10 19 00 04 4d 51 54 54 05 c0 00 3c 00 00 04")

    def test_of_3_1_1_carries_no_properties(self) -> None:
        assert connect(4, properties={"session_expiry_interval": 3600}) == connect(4)

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_clean_sets_its_flag(self, protocol: int) -> None:
        assert connect(protocol, clean=True).split()[9] == "c2"
        assert connect(protocol, clean=False).split()[9] == "c0"

    @pytest.mark.parametrize(
        ("qos", "retain", "flags"), [(0, False, "c4"), (1, False, "cc"), (2, False, "d4"), (0, True, "e4")]
    )
    def test_of_3_1_1_with_a_will(self, qos: int, retain: bool, flags: str) -> None:
        assert connect(4, will=Will("w", b"gone", qos, retain)) == (
            f"10 21 00 04 4d 51 54 54 04 {flags} 00 3c"
            " 00 04 70 75 6d 70"
            " 00 01 77 00 04 67 6f 6e 65"
            " 00 01 75 00 03 74 6f 6b"
        )

    def test_of_5_with_a_will_and_its_delay(self) -> None:
        will = Will("w", b"gone", 1, True, delay=5)
        assert connect(5, will=will, properties={"session_expiry_interval": 3600}) == (
            "10 2d 00 04 4d 51 54 54 05 ec 00 3c"
            " 05 11 00 00 0e 10"
            " 00 04 70 75 6d 70"
            " 05 18 00 00 00 05 00 01 77 00 04 67 6f 6e 65"
            " 00 01 75 00 03 74 6f 6b"
        )

    def test_of_5_with_a_will_without_delay(self) -> None:
        assert " 00 00 01 77 00 04 67 6f 6e 65 00 01 75" in connect(5, will=Will("w", b"gone"))

    def test_of_3_1_1_has_no_will_properties(self) -> None:
        plain, delayed = (Will("w", b"gone", delay=delay) for delay in (None, 5))
        assert connect(4, will=delayed) == connect(4, will=plain)

    @pytest.mark.parametrize(("seconds", "bytes_"), [(0, "00 00"), (300, "01 2c"), (65_535, "ff ff")])
    def test_keepalive(self, seconds: int, bytes_: str) -> None:
        assert connect(4, keepalive=seconds).startswith(f"10 18 00 04 4d 51 54 54 04 c0 {bytes_} 00 04")

    def test_an_empty_user_name_is_sent(self) -> None:
        assert connect(4, username="").endswith(" 70 75 6d 70 00 00 00 03 74 6f 6b")

    def test_a_user_name_is_utf_8(self) -> None:
        assert connect(4, username="é").endswith(" 00 02 c3 a9 00 03 74 6f 6b")

    def test_the_longest_password(self) -> None:
        packet = bytes.fromhex(connect(4, password=b"x" * 65_535))
        assert packet[:4] == b"\x10\x94\x80\x04"  # 65,556 bytes follow
        assert packet.endswith(b"\x00\x01u\xff\xff" + b"x" * 65_535)

    def test_a_password_may_be_any_bytes(self) -> None:
        assert connect(4, password=b"\xff\xfe").endswith(" 00 01 75 00 02 ff fe")

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_the_debug_log_names_connect_and_shows_neither_password_nor_properties(
        self, protocol: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        secret = {"authentication_method": "TOKEN", "authentication_data": b"a-secret-of-the-token"}
        connect(protocol, password=b"a-secret-of-the-password", properties=secret)
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("mqtt_token_client.mqtt", "DEBUG")
        assert record.getMessage() == "sending CONNECT: client_id pump, flags 0xc0, keepalive 60 s"
        assert "a-secret" not in caplog.text
        assert "TOKEN" not in caplog.text

    def test_the_debug_log_shows_no_properties_of_connack(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        data = b"a-secret-of-the-server"
        properties = b"\x15\x00\x01m" + b"\x16" + len(data).to_bytes(2, "big") + data  # method, data
        packet = bytes([0x20, 3 + len(properties), 0, 0, len(properties)]) + properties
        (connack,) = Codec(5).receive(packet)
        assert isinstance(connack, Connack)
        assert connack.properties["authentication_data"] == data
        assert "received CONNACK" in caplog.text
        assert "a-secret" not in caplog.text

    def test_without_the_debug_log_nothing_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="mqtt_token_client.mqtt")
        connect(5)
        assert caplog.records == []


class TestPublish:
    """MQTT 3.1.1 section 3.3, MQTT 5 section 3.3."""

    def test_of_3_1_1(self) -> None:
        assert publish(4, b"21.5", b"a/b").hex(" ") == "30 09 00 03 61 2f 62 32 31 2e 35"

    def test_of_5(self) -> None:
        assert publish(5, b"21.5", b"a/b").hex(" ") == "30 0a 00 03 61 2f 62 00 32 31 2e 35"

    def test_above_qos_0_has_an_identifier(self) -> None:
        assert publish(4, b"!", qos=1, packet_id=258).hex(" ") == "32 06 00 01 74 01 02 21"
        assert publish(5, b"!", qos=2, packet_id=258).hex(" ") == "34 07 00 01 74 01 02 00 21"

    def test_at_qos_0_has_none_even_if_one_is_given(self) -> None:
        assert publish(4, b"!", packet_id=258).hex(" ") == "30 04 00 01 74 21"

    def test_properties(self) -> None:
        packed = pack_properties({"content_type": "a/b"})
        expected = "30 0b 00 01 74 06 03 00 03 61 2f 62 21"
        assert publish(5, b"!", properties=packed).hex(" ") == expected

    def test_of_3_1_1_carries_no_properties(self) -> None:
        assert publish(4, b"!", properties=b"\x01\x00") == publish(4, b"!")

    @pytest.mark.parametrize(
        ("qos", "retain", "duplicate", "first_byte"),
        [
            (0, False, False, 0x30),
            (0, True, False, 0x31),
            (1, False, False, 0x32),
            (1, True, False, 0x33),
            (2, False, False, 0x34),
            (2, True, False, 0x35),
            (1, False, True, 0x3A),
            (1, True, True, 0x3B),
            (2, False, True, 0x3C),
            (2, True, True, 0x3D),
        ],
    )
    def test_flags(self, qos: int, retain: bool, duplicate: bool, first_byte: int) -> None:
        packet = publish(4, b"", qos=qos, retain=retain, duplicate=duplicate, packet_id=1)
        assert packet[0] == first_byte

    @pytest.mark.parametrize(
        ("remaining", "encoded"),  # MQTT 5 table 2-1 and its neighbours
        [
            (127, "7f"),
            (128, "8001"),
            (16_383, "ff7f"),
            (16_384, "808001"),
            (2_097_151, "ffff7f"),
            (2_097_152, "80808001"),
        ],
    )
    @pytest.mark.parametrize(("protocol", "before_payload"), [(4, "000174"), (5, "00017400")])
    def test_remaining_length(self, remaining: int, encoded: str, protocol: int, before_payload: str) -> None:
        payload = b"x" * (remaining - len(before_payload) // 2)
        packet = publish(protocol, payload)
        head = bytes.fromhex("30" + encoded + before_payload)
        assert packet[: len(head)] == head
        assert packet[len(head) :] == payload

    @pytest.mark.parametrize("qos", [1, 2])
    @pytest.mark.parametrize("packet_id", [1, 258, 65_535])
    def test_above_qos_0_has_an_identifier_of_two_bytes_however_large_it_is(self, qos: int, packet_id: int) -> None:
        packet = publish(4, b"x" * 200, qos=qos, packet_id=packet_id)
        assert packet == bytes((0x30 | qos << 1, 0xCD, 0x01)) + b"\0\x01t" + packet_id.to_bytes(2) + b"x" * 200

    def test_an_empty_payload(self) -> None:
        assert publish(4, b"").hex(" ") == "30 03 00 01 74"


class TestOtherPacketsThatGoOut:
    @pytest.mark.parametrize(
        ("kind", "packet"), [(PUBACK, "4002000a"), (PUBREC, "5002000a"), (PUBREL, "6202000a"), (PUBCOMP, "7002000a")]
    )
    def test_an_acknowledgement_of_success_goes_without_a_reason(self, kind: int, packet: str) -> None:
        assert Codec(5).acknowledge(kind, 10).hex() == packet
        assert Codec(4).acknowledge(kind, 10).hex() == packet

    def test_subscribe(self) -> None:
        filters = [("a/+", 1), ("é", 2)]
        assert Codec(4).subscribe(258, filters).hex(" ") == "82 0d 01 02 00 03 61 2f 2b 01 00 02 c3 a9 02"
        assert Codec(5).subscribe(258, filters).hex(" ") == "82 0e 01 02 00 00 03 61 2f 2b 01 00 02 c3 a9 02"

    @pytest.mark.parametrize("options", [0b000000, 0b000101, 0b001010, 0b010000, 0b101110])
    def test_subscribe_with_options(self, options: int) -> None:
        assert Codec(5).subscribe(258, [("a", 0), ("b", options)]).hex() == f"820b01020000016100000162{options:02x}"

    def test_subscribe_with_properties_which_3_1_1_has_not(self) -> None:
        packed = pack_properties({"subscription_identifier": 300, "user_property": ("k", "v")}, SUBSCRIBE)
        expected = "82 11 01 02 0a 0b ac 02 26 00 01 6b 00 01 76 00 01 61 01"
        assert Codec(5).subscribe(258, [("a", 1)], packed).hex(" ") == expected
        assert Codec(4).subscribe(258, [("a", 1)], packed) == Codec(4).subscribe(258, [("a", 1)])

    def test_unsubscribe(self) -> None:
        assert Codec(4).unsubscribe(258, ["a/+", "é"]).hex(" ") == "a2 0b 01 02 00 03 61 2f 2b 00 02 c3 a9"
        assert Codec(5).unsubscribe(258, ["a/+", "é"]).hex(" ") == "a2 0c 01 02 00 00 03 61 2f 2b 00 02 c3 a9"

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_disconnect(self, protocol: int) -> None:
        assert Codec(protocol).disconnect().hex() == "e000"


def test_auth() -> None:
    """MQTT 5 section 3.15: a Reason Code, and Authentication Method and Data as properties."""
    sent = Codec(5).authenticate(0x19, "M", b"xyz").hex(" ")
    assert sent == "f0 0c 19 0a 15 00 01 4d 16 00 03 78 79 7a"


def expecting(protocol: int, max_packet_size: int = MAX_PACKET_SIZE) -> Codec:
    """A codec that is connected, with three SUBSCRIBE of three filters each and three UNSUBSCRIBE not answered."""
    codec = connected(protocol, max_packet_size)
    for packet_id in (258, 259, 260):
        codec.subscribe(packet_id, [("a", 2), ("b", 2), ("c", 2)])
        codec.unsubscribe(packet_id, ["d"] if protocol == 4 else ["d", "e"])
    return codec


_TWO = [("a", "1"), ("a", "2")]
_EVERY_PACKET: list[tuple[int, str, Packet]] = [
    # AUTH
    (5, "f0 00", Auth(0)),
    (5, "f0 06 18 04 15 00 01 4d", Auth(0x18)),
    # CONNACK
    (4, "20 02 00 00", Connack(False, 0, {})),
    (4, "20 02 01 00", Connack(True, 0, {})),
    (4, "20 02 00 01", Connack(False, 0x84, {})),
    (4, "20 02 00 02", Connack(False, 0x85, {})),
    (4, "20 02 00 03", Connack(False, 0x88, {})),
    (4, "20 02 00 04", Connack(False, 0x86, {})),
    (4, "20 02 00 05", Connack(False, 0x87, {})),
    (4, "20 02 00 06", Connack(False, 0x80, {})),  # a code of no meaning is Unspecified error
    (5, "20 03 00 00 00", Connack(False, 0, {})),
    (5, "20 03 01 00 00", Connack(True, 0, {})),
    (5, "20 03 00 80 00", Connack(False, 0x80, {})),
    (5, "20 03 00 87 00", Connack(False, 0x87, {})),
    (5, "20 02 00 01", Connack(False, 0x84, {})),  # how a broker that knows 3.1.1 only answers MQTT 5
    (
        5,
        "20 0b 00 00 08 21 00 14 13 00 1e 24 01",
        Connack(False, 0, {"receive_maximum": 20, "server_keep_alive": 30, "maximum_qos": 1}),
    ),
    (5, "20 0a 00 97 07 1f 00 04 66 75 6c 6c", Connack(False, 0x97, {"reason_string": "full"})),
    # PUBLISH
    (4, "30 05 00 03 61 2f 62", Message("a/b", b"", 0, False, False, {}, 0)),
    (4, "31 06 00 03 61 2f 62 21", Message("a/b", b"!", 0, True, False, {}, 0)),
    (4, "32 08 00 03 61 2f 62 01 02 21", Message("a/b", b"!", 1, False, False, {}, 258)),
    (4, "3d 08 00 03 61 2f 62 01 02 21", Message("a/b", b"!", 2, True, True, {}, 258)),
    (5, "30 06 00 03 61 2f 62 00", Message("a/b", b"", 0, False, False, {}, 0)),
    (5, "3a 09 00 03 61 2f 62 01 02 00 21", Message("a/b", b"!", 1, False, True, {}, 258)),
    (
        5,
        "30 0d 00 01 74 06 03 00 03 61 2f 62 c3 a9 21",
        Message("t", b"\xc3\xa9!", 0, False, False, {"content_type": "a/b"}, 0),
    ),
    (
        5,
        "30 18 00 01 74 13 26 00 01 61 00 01 31 26 00 01 61 00 01 32 09 00 02 ff 00 21",
        Message("t", b"!", 0, False, False, {"user_property": _TWO, "correlation_data": b"\xff\0"}, 0),
    ),
    (5, "30 07 00 01 74 02 0b 05 21", Message("t", b"!", 0, False, False, {"subscription_identifier": [5]}, 0)),
    (5, "30 08 00 01 74 04 0b 05 0b 06", Message("t", b"", 0, False, False, {"subscription_identifier": [5, 6]}, 0)),
    # acknowledgements
    (4, "40 02 01 02", Acknowledgement(PUBACK, 258, 0)),
    (4, "50 02 01 02", Acknowledgement(PUBREC, 258, 0)),
    (4, "62 02 01 02", Acknowledgement(PUBREL, 258, 0)),
    (4, "70 02 01 02", Acknowledgement(PUBCOMP, 258, 0)),
    (5, "40 02 01 02", Acknowledgement(PUBACK, 258, 0)),
    (5, "40 03 01 02 87", Acknowledgement(PUBACK, 258, 0x87)),
    (5, "50 04 01 02 97 00", Acknowledgement(PUBREC, 258, 0x97)),
    (5, "62 03 01 02 92", Acknowledgement(PUBREL, 258, 0x92)),
    (5, "70 0b 01 02 92 07 1f 00 04 67 6f 6e 65", Acknowledgement(PUBCOMP, 258, 0x92, "gone")),
    # SUBACK and UNSUBACK
    (4, "90 05 01 02 00 02 80", Suback(258, [0, 2, 0x80])),
    (5, "90 06 01 02 00 01 02 87", Suback(258, [1, 2, 0x87])),
    (5, "90 0d 01 03 07 26 00 01 61 00 01 62 00 01 02", Suback(259, [0, 1, 2])),
    (4, "b0 02 01 02", Unsuback(258)),
    (5, "90 0d 01 04 07 1f 00 04 66 75 6c 6c 87 97 00", Suback(260, [0x87, 0x97, 0], "full")),
    (5, "b0 05 01 02 00 00 11", Unsuback(258, (0, 0x11))),
    (5, "b0 0c 01 03 07 1f 00 04 66 75 6c 6c 80 00", Unsuback(259, (0x80, 0), "full")),
    (5, "b0 03 01 04 00", Unsuback(260)),  # a broker that answers as in MQTT 3.1.1
    # PINGRESP and DISCONNECT
    (4, "d0 00", Pingresp()),
    (5, "d0 00", Pingresp()),
    (5, "e0 00", Disconnect(0)),
    (5, "e0 01 8e", Disconnect(0x8E)),
    (5, "e0 02 a0 00", Disconnect(0xA0)),
    (5, "e0 09 98 07 1f 00 04 67 6f 6e 65", Disconnect(0x98, None, "gone")),
    (5, "e0 0a 9d 08 1c 00 05 6f 74 68 65 72", Disconnect(0x9D, "other")),
    (5, "e0 0a 98 08 1f 00 05 61 0a 62 07 63", Disconnect(0x98, None, "a bc")),  # printable: on one line
    (5, "e0 06 87 04 1c 00 05 6f", Disconnect(0x87)),  # malformed behind its reason, which counts
]  # fmt: skip

_BY_PROTOCOL = {
    protocol: [(bytes.fromhex(data), packet) for five, data, packet in _EVERY_PACKET if five == protocol]
    for protocol in (4, 5)
}
_LARGE = [
    (bytes.fromhex("30 8001") + b"\x00\x01t" + b"x" * 125, Message("t", b"x" * 125, 0, False, False, {}, 0)),
    (bytes.fromhex("30 808001") + b"\x00\x01t" + b"x" * 16_381, Message("t", b"x" * 16_381, 0, False, False, {}, 0)),
]


@st.composite
def _cut_streams(draw: st.DrawFn) -> tuple[int, list[bytes], list[Packet]]:
    protocol = draw(st.sampled_from((4, 5)))
    known = _BY_PROTOCOL[protocol] + (_LARGE if protocol == 4 else [])
    each = itertools.count()  # SUBACK and UNSUBACK come once for each request

    def once(row: tuple[bytes, Packet]) -> object:
        return row[0] if isinstance(row[1], Suback | Unsuback) else next(each)

    chosen = draw(st.lists(st.sampled_from(known), max_size=12, unique_by=once))
    stream = b"".join(data for data, _ in chosen)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    return protocol, pieces, [packet for _, packet in chosen]


class TestReceive:
    @pytest.mark.parametrize(("protocol", "data", "packet"), _EVERY_PACKET)
    def test_reads(self, protocol: int, data: str, packet: Packet) -> None:
        (received,) = receive(protocol, data)
        assert received == packet
        assert getattr(received, "packet_id", 0) == getattr(packet, "packet_id", 0)

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_many_packets_in_one_chunk(self, protocol: int) -> None:
        known = _BY_PROTOCOL[protocol]
        stream = b"".join(data for data, _ in known)
        assert expecting(protocol).receive(stream) == [packet for _, packet in known]

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_byte_by_byte_each_packet_comes_with_its_last_byte(self, protocol: int) -> None:
        receiver = expecting(protocol)
        for data, packet in _BY_PROTOCOL[protocol]:
            for byte in data[:-1]:
                assert receiver.receive(bytes((byte,))) == []
            assert receiver.receive(data[-1:]) == [packet]

    @given(_cut_streams())
    def test_however_a_stream_is_cut_the_packets_are_the_same(self, cut: tuple[int, list[bytes], list[Packet]]) -> None:
        protocol, pieces, packets = cut
        receiver = expecting(protocol)
        assert [packet for piece in pieces for packet in receiver.receive(piece)] == packets

    def test_nothing_comes_of_nothing(self) -> None:
        assert expecting(5).receive(b"") == []

    def test_a_large_message_in_16_kib_pieces(self) -> None:
        payload = bytes(range(256)) * 20_480  # 5 MiB
        packet = publish(5, payload, b"big")
        receiver = expecting(5)
        received: list[Packet] = []
        for start in range(0, len(packet), 16_384):
            assert received == []
            received = receiver.receive(packet[start : start + 16_384])
        assert received == [Message("big", payload, 0, False, False, {}, 0)]

    @pytest.mark.timeout(40)
    def test_a_large_message_in_many_pieces_is_not_copied_for_each(self) -> None:
        """Half a terabyte would be moved if it were; this takes a fraction of a second."""
        packet = publish(4, bytes(32 << 20))
        receiver = expecting(4)
        received: list[Packet] = []
        for start in range(0, len(packet), 1024):
            received += receiver.receive(packet[start : start + 1024])
        assert len(received) == 1

    def test_a_packet_cut_within_its_length_comes_with_its_own_last_byte_whatever_came_before(self) -> None:
        (large, first), (small, second) = _LARGE[1], _LARGE[0]
        receiver = expecting(4)
        assert receiver.receive(large[:100]) == []
        assert receiver.receive(large[100:] + small[:2]) == [first]
        assert receiver.receive(small[2:3]) == []
        assert receiver.receive(small[3:]) == [second]

    def test_each_message_has_properties_of_its_own(self) -> None:
        first, second = receive(5, "3006000361 2f6200" * 2)
        assert isinstance(first, Message)
        assert isinstance(second, Message)
        first.properties["mine"] = 1
        assert second.properties == {}

    def test_a_partial_packet_after_a_whole_one_waits(self) -> None:
        receiver = expecting(4)
        assert receiver.receive(bytes.fromhex("d000 30 06 00 01 74")) == [Pingresp()]
        assert receiver.receive(b"ab") == []
        assert receiver.receive(b"c\xd0") == [Message("t", b"abc", 0, False, False, {}, 0)]
        assert receiver.receive(b"\x00") == [Pingresp()]


_MALFORMED = [
    # PUBLISH
    (4, "30 00"),
    (4, "30 01 00"),
    (4, "30 02 00 01"),  # topic longer than the packet
    (4, "30 06 00 05 61 62 63 64"),
    (4, "32 03 00 01 74"),  # no packet identifier
    (4, "32 04 00 01 74 00"),
    (4, "32 05 00 01 74 00 00"),  # packet identifier 0 [MQTT-2.2.1-2]
    (4, "36 05 00 01 74 00 01"),  # QoS 3 [MQTT-3.3.1-4]
    (4, "30 03 00 01 ff"),  # topic not UTF-8
    (5, "30 03 00 01 74"),  # no property length
    (5, "30 04 00 01 74 05"),  # properties longer than the packet
    (5, "30 06 00 01 74 02 63 00"),  # a property that MQTT 5 does not know
    (5, "30 08 00 01 74 04 01 00 01 00"),  # Payload Format Indicator twice
    (5, "30 06 00 01 74 02 21 00"),  # Receive Maximum in PUBLISH
    (5, "30 09 00 01 74 ff ff ff ff ff 01"),  # property length of five bytes
    # acknowledgements
    (4, "40 00"),
    (5, "40 01 01"),
    (5, "62 01 00"),
    (5, "40 04 01 02 87 05"),  # properties longer than the packet
    (5, "50 06 01 02 87 02 24 01"),  # Maximum QoS in PUBREC
    (5, "40 05 01 02 87 00 00"),  # more than its properties
    # AUTH
    (5, "f0 02 18 05"),
    (5, "f0 03 18 00 00"),
    # CONNACK, SUBACK, UNSUBACK
    (4, "20 00"),
    (4, "20 01 00"),
    (5, "20 00"),
    (5, "20 02 00 00"),  # no property length
    (5, "20 06 00 00 03 21 00 00"),  # Receive Maximum 0
    (5, "20 04 00 00 05 11"),
    (5, "20 03 00 05 00"),  # no reason code of CONNACK
    (5, "20 03 00 7f 00"),
    (5, "20 03 02 00 00"),  # flags [MQTT-3.2.2-1]
    (4, "20 02 80 00"),
    (5, "20 04 00 00 00 00"),  # more than its properties
    (4, "90 01 00"),
    (5, "90 02 00 01"),
    (4, "b0 01 00"),
    (4, "b0 00"),
    (5, "b0 01 00"),
]

_MISPLACED = [  # what a broker never sends
    (4, "10 00"),
    (4, "00 00"),
    (4, "82 00"),
    (4, "a2 00"),
    (4, "c0 00"),
    (4, "e0 00"),  # DISCONNECT of 3.1.1 goes to the broker only
    (4, "f0 00"),
]

_TOO_LONG = [(4, "30 80 80 80 80 01"), (5, "d0 ff ff ff ff")]  # Remaining Length of five bytes [MQTT-1.5.5-1]


_LARGEST = [  # protocol, first byte, the largest Remaining Length
    (4, 0x20, 2),
    (4, 0x40, 2),
    (4, 0x50, 2),
    (4, 0x62, 2),
    (4, 0x70, 2),
    (4, 0x90, 2 + 3),
    (4, 0xB0, 2),
    (4, 0xD0, 0),
    (5, 0x20, LARGEST_CONTROL_PACKET),
    (5, 0x40, LARGEST_CONTROL_PACKET),
    (5, 0x50, LARGEST_CONTROL_PACKET),
    (5, 0x62, LARGEST_CONTROL_PACKET),
    (5, 0x70, LARGEST_CONTROL_PACKET),
    (5, 0x90, LARGEST_CONTROL_PACKET + 3),
    (5, 0xB0, LARGEST_CONTROL_PACKET + 2),
    (5, 0xD0, 0),
    (5, 0xE0, LARGEST_CONTROL_PACKET),
    (5, 0xF0, LARGEST_CONTROL_PACKET),
]


class TestSizes:
    """They are checked as soon as the fixed header is there."""

    @pytest.mark.parametrize(("protocol", "first", "largest"), _LARGEST)
    def test_a_packet_of_the_largest_size_is_waited_for_and_a_larger_one_is_a_protocol_error(
        self, protocol: int, first: int, largest: int
    ) -> None:
        codec = expecting(protocol)
        if largest:
            assert codec.receive(bytes((first,)) + pack_length(largest)) == []
        codec = expecting(protocol)
        says = rf"^the broker sent {NAMES[first & 0xF0]} of \d+ bytes, which is too long$"
        with pytest.raises(ProtocolError, match=says):
            codec.receive(bytes((first,)) + pack_length(largest + 1))

    @pytest.mark.parametrize("first", [0x20, 0x40, 0x90, 0xE0, 0xF0])
    def test_no_packet_of_mqtt_5_may_be_larger_than_the_maximum_packet_size(self, first: int) -> None:
        assert expecting(5, 300).receive(bytes((first,)) + pack_length(297)) == []
        with pytest.raises(ProtocolError, match=r"of 301 bytes, which is too long$"):
            expecting(5, 300).receive(bytes((first,)) + pack_length(298))

    @pytest.mark.parametrize("protocol", [4, 5])
    @pytest.mark.parametrize("cut", [2, 50, 105])
    def test_a_message_of_the_largest_size_is_accepted_wherever_it_begins(self, protocol: int, cut: int) -> None:
        message = packets.publish(protocol == 5, "a/b", bytes(100))
        codec = expecting(protocol, len(message))
        assert len(codec.receive(message + message[:cut])) == 1
        (received,) = codec.receive(message[cut:])
        assert isinstance(received, Message)

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_no_suback_or_unsuback_may_come_if_nothing_was_asked_for(self, protocol: int) -> None:
        for packet in (packets.suback(protocol == 5, 1, [0]), packets.unsuback(protocol == 5, 1, 1)):
            with pytest.raises(ProtocolError):
                connected(protocol).receive(packet)

    @pytest.mark.parametrize("protocol", [4, 5])
    @pytest.mark.parametrize(
        "codes", [[], [0], [0, 1], [0, 1, 2, 2], [0, 1, 3], [0, 1, 0x7F]], ids=lambda codes: str(codes)
    )
    def test_a_suback_must_have_a_code_for_each_filter(self, protocol: int, codes: list[int]) -> None:
        with pytest.raises(ProtocolError, match="SUBACK"):
            expecting(protocol).receive(packets.suback(protocol == 5, 258, codes))
        assert expecting(protocol).receive(packets.suback(protocol == 5, 258, [0, 1, 0x80])) == [
            Suback(258, [0, 1, 0x80])
        ]

    @pytest.mark.parametrize("count", [1, 3])
    def test_an_unsuback_must_have_a_code_for_each_filter(self, count: int) -> None:
        with pytest.raises(ProtocolError, match=rf"malformed UNSUBACK \({count} codes for 2 filters\)$"):
            expecting(5).receive(packets.unsuback(True, 258, count))

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_a_request_is_answered_once_and_by_its_own_kind(self, protocol: int) -> None:
        answer = packets.suback(protocol == 5, 261, [0, 1, 2])
        for wrong in (answer, packets.unsuback(protocol == 5, 261, 2)):
            codec = expecting(protocol)
            codec.subscribe(261, [("a", 2), ("b", 2), ("c", 2)])
            if wrong is answer:
                assert codec.receive(answer) == [Suback(261, [0, 1, 2])]
            with pytest.raises(ProtocolError, match="packet identifier 261 is not that of a request"):
                codec.receive(wrong)

    @given(
        st.sampled_from((4, 5)),
        st.booleans(),
        st.integers(0, 255),
        st.integers(0, 268_435_455),
        st.binary(max_size=600),
        st.integers(1, 100),
    )
    def test_no_more_is_kept_than_a_packet_may_have(
        self, protocol: int, up: bool, first: int, length: int, body: bytes, piece: int
    ) -> None:
        codec = expecting(protocol, 200) if up else Codec(protocol, 200)
        data = bytes((first,)) + pack_length(length) + body
        try:
            for start in range(0, len(data), piece):
                codec.receive(data[start : start + piece])
                if first & 0xF0 == 0x30:  # of one that is skipped, only topic and identifier are kept
                    topic = int.from_bytes(body[:2])
                    assert len(codec._partial) <= max(200, 5 + 2 + topic + 2)
                else:
                    assert len(codec._partial) <= 200
        except ProtocolError:
            pass


_BIG = {  # protocol, QoS: a PUBLISH of 1,000 bytes on "a/b"
    (protocol, qos): packets.publish(protocol == 5, "a/b", bytes(991 - 2 * bool(qos) + (protocol == 4)), qos, 258)
    for protocol in (4, 5)
    for qos in (0, 1, 2)
}


class TestSkipping:
    """A PUBLISH that is larger than max_packet_size."""

    @pytest.mark.parametrize(("protocol", "qos"), _BIG)
    def test_is_reported_with_what_its_answer_needs(self, protocol: int, qos: int) -> None:
        packet = _BIG[protocol, qos]
        assert len(packet) == 1000
        assert isinstance(connected(protocol, 1000).receive(packet)[0], Message)
        rejected = RejectedPublish("a/b", qos, 258 if qos else 0, 0x95, 1000)
        assert connected(protocol, 999).receive(packet) == [rejected]

    @given(st.sampled_from(sorted(_BIG)), st.lists(st.integers(0, 1010), max_size=8))
    def test_however_it_is_cut_what_follows_is_read(self, kind: tuple[int, int], cuts: list[int]) -> None:
        protocol, qos = kind
        stream = b"\xd0\x00" + _BIG[kind] + b"\xd0\x00" + packets.publish(protocol == 5, "t", b"!")
        cuts = [0, *sorted(cuts), len(stream)]
        codec = connected(protocol, 999)
        received = [one for start, end in itertools.pairwise(cuts) for one in codec.receive(stream[start:end])]
        rejected = RejectedPublish("a/b", qos, 258 if qos else 0, 0x95, 1000)
        assert received == [Pingresp(), rejected, Pingresp(), Message("t", b"!", 0, False, False)]

    @pytest.mark.parametrize(("protocol", "qos"), _BIG)
    def test_is_reported_when_topic_and_identifier_are_there(self, protocol: int, qos: int) -> None:
        codec, packet = connected(protocol, 999), _BIG[protocol, qos]
        head = 3 + 2 + 3 + (2 if qos else 0)
        for at in range(head - 1):
            assert codec.receive(packet[at : at + 1]) == []
        assert len(codec.receive(packet[head - 1 : head])) == 1
        assert codec.receive(packet[head:]) == []
        assert codec.receive(b"\xd0\x00") == [Pingresp()]

    @pytest.mark.parametrize(("protocol", "qos"), _BIG)
    def test_does_not_delay_a_short_packet_that_begins_with_its_end(self, protocol: int, qos: int) -> None:
        codec, packet = connected(protocol, 999), _BIG[protocol, qos]
        assert len(codec.receive(packet[:20])) == 1
        assert codec.receive(packet[20:] + b"\xd0") == []
        assert codec.receive(b"\x00") == [Pingresp()]
        assert len(codec.receive(packet + b"\xd0")) == 1
        assert codec.receive(b"\x00") == [Pingresp()]

    @pytest.mark.parametrize("qos", [0, 1])
    def test_is_reported_with_a_topic_of_any_length_when_that_is_there(self, qos: int) -> None:
        topic = "a/" * 150
        packet = packets.publish(True, topic, bytes(1000), qos, 258)
        codec = connected(5, 999)
        received = [one for at in range(len(packet)) for one in codec.receive(packet[at : at + 1])]
        assert received == [RejectedPublish(topic, qos, 258 if qos else 0, 0x95, len(packet))]

    @pytest.mark.parametrize("qos", [0, 1])
    def test_is_reported_when_it_ends_with_its_topic_and_identifier(self, qos: int) -> None:
        packet = packets.publish(False, "a/" * 300, b"", qos, 258)
        codec = connected(4, 500)
        assert codec.receive(packet[:-1]) == []
        rejected = RejectedPublish("a/" * 300, qos, 258 if qos else 0, 0x95, len(packet))
        assert codec.receive(packet[-1:]) == [rejected]

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            ("36 85 07 0001 74 0001", "QoS 3"),
            ("32 85 07 0001 74 0000", "packet identifier 0"),
            ("30 85 07 ffff", "a field goes beyond the end of the packet"),
            ("32 84 07 0381", "a field goes beyond the end of the packet"),
        ],
    )
    def test_is_a_protocol_error_if_it_cannot_be_answered(self, data: str, says: str) -> None:
        codec = connected(4, 500)
        with pytest.raises(ProtocolError, match=rf"^the broker sent a malformed PUBLISH \({says}\)$"):
            _ = [codec.receive(piece) for piece in (bytes.fromhex(data), bytes(1000))]

    def test_has_a_topic_that_is_shown_as_far_as_it_is_utf_8(self) -> None:
        (rejected,) = connected(4, 500).receive(bytes.fromhex("30 85 07 0003 ff2f74"))
        assert rejected == RejectedPublish("\ufffd/t", 0, 0, 0x95, 3 + 0x385)


class TestRejected:
    """A PUBLISH that is malformed but can be answered."""

    @pytest.mark.parametrize(
        ("protocol", "data", "topic", "says", "reason"),
        [
            (4, "32 05 0001 ff 0102", "\ufffd", "'utf-8' codec can't decode", 0x81),
            (4, "34 04 0000 0102", "", "the topic is empty", 0x82),
            (5, "32 05 0001 74 0102", "t", "a length goes beyond the end of the packet", 0x81),
            (5, "34 06 0001 74 0102 05", "t", "the properties go beyond the end of the packet", 0x81),
            (5, "3a 09 0001 74 0102 03 230001", "t", "topic_alias is 1, the maximum is 0", 0x94),
        ],
    )
    def test_is_reported_with_what_its_answer_needs(
        self, protocol: int, data: str, topic: str, says: str, reason: int
    ) -> None:
        packet = bytes.fromhex(data)
        rejected, message = connected(protocol).receive(packet + bytes.fromhex("30 04 0001 74 00"))
        assert isinstance(rejected, RejectedPublish)
        answer = rejected.topic, rejected.qos, rejected.packet_id, rejected.reason, rejected.size
        assert answer == (topic, packet[0] >> 1 & 3, 258, reason, len(packet))
        assert rejected.violation.startswith(says)
        assert isinstance(message, Message)

    @pytest.mark.parametrize("qos", [0, 1, 2])
    def test_has_too_many_properties(self, qos: int) -> None:
        properties = b"\x26\0\0\0\0" * (MOST_PROPERTIES + 1)
        body = b"\0\x01t" + (b"\x01\x02" if qos else b"") + pack_length(len(properties)) + properties
        packet = bytes((0x30 | qos << 1,)) + pack_length(len(body)) + body
        assert connected(5).receive(packet) == [RejectedPublish("t", qos, 258 if qos else 0, 0x97, len(packet))]


class TestBeforeConnack:
    @pytest.mark.parametrize("protocol", [4, 5])
    @pytest.mark.parametrize("first", [0x00, 0x10, 0x30, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xB0, 0xC0, 0xD0])
    def test_only_connack_and_what_may_come_instead_are_accepted(self, protocol: int, first: int) -> None:
        says = f"^the broker sent {NAMES.get(first & 0xF0, 'a packet of type 0')} out of place$"
        with pytest.raises(ProtocolError, match=says):
            Codec(protocol).receive(bytes((first, 100)))

    def test_mqtt_5_may_have_auth_and_disconnect(self) -> None:
        codec = Codec(5)
        assert codec.receive(bytes.fromhex("f0 06 18 04 15 00 01 4d")) == [Auth(0x18)]
        assert codec.receive(bytes.fromhex("e0 01 87")) == [Disconnect(0x87)]
        with pytest.raises(ProtocolError, match="PINGRESP out of place"):
            codec.receive(b"\xd0\x00")

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_what_comes_with_connack_is_read(self, protocol: int) -> None:
        data = packets.connack(protocol == 5) + packets.publish(protocol == 5, "t", b"!")
        assert Codec(protocol).receive(data) == [Connack(False, 0, {}), Message("t", b"!", 0, False, False)]


class TestViolation:
    def test_comes_after_the_packets_before_it_and_ends_all_reading(self) -> None:
        codec = connected(4)
        assert codec.receive(bytes.fromhex("d000 30 03 0001 ff d000")) == [Pingresp()]
        assert str(codec.violation).startswith("the broker sent a malformed PUBLISH")
        with pytest.raises(ProtocolError, match=r"^the broker sent a malformed PUBLISH"):
            codec.receive(b"\xd0\x00")

    def test_without_a_packet_before_it_is_raised_at_once_and_again(self) -> None:
        codec = connected(4)
        assert codec.violation is None
        for data in (b"\x30\x00", b"\xd0\x00"):
            with pytest.raises(ProtocolError, match="malformed PUBLISH"):
                codec.receive(data)

    @pytest.mark.parametrize("first", [0x21, 0x41, 0x5F, 0x60, 0x63, 0x72, 0x91, 0xB2, 0xD8, 0xE1, 0xF4])
    def test_is_a_header_whose_flags_are_not_those_of_its_kind(self, first: int) -> None:
        says = rf"^the broker sent a malformed {NAMES[first & 0xF0]} \(flags 0x{first & 0xF:x}\)$"
        with pytest.raises(ProtocolError, match=says):
            expecting(5).receive(bytes((first, 2)))


class TestMalformed:
    @pytest.mark.parametrize(("protocol", "data"), _MALFORMED)
    def test_is_a_protocol_error(self, protocol: int, data: str) -> None:
        says = f"^the broker sent a malformed {NAMES[int(data[:2], 16) & 0xF0]} "
        with pytest.raises(ProtocolError, match=says):
            receive(protocol, data)

    @pytest.mark.parametrize(("protocol", "data"), _MISPLACED)
    def test_what_a_broker_never_sends_is_a_protocol_error(self, protocol: int, data: str) -> None:
        says = f"^the broker sent {NAMES.get(int(data[:2], 16) & 0xF0, 'a packet of type 0')} out of place$"
        with pytest.raises(ProtocolError, match=says):
            receive(protocol, data)

    @pytest.mark.parametrize(("protocol", "data"), _TOO_LONG)
    def test_a_remaining_length_of_five_bytes_is_a_protocol_error(self, protocol: int, data: str) -> None:
        with pytest.raises(ProtocolError, match="with a Remaining Length of more than four bytes"):
            receive(protocol, data)

    @pytest.mark.parametrize(("protocol", "data"), [*_MALFORMED, *_MISPLACED, *_TOO_LONG])
    def test_is_a_protocol_error_byte_by_byte(self, protocol: int, data: str) -> None:
        receiver = expecting(protocol)
        with pytest.raises(ProtocolError):
            _ = [receiver.receive(bytes((byte,))) for byte in bytes.fromhex(data)]

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            ("30 08 00 01 74 03 23 00 01 21", "topic_alias is 1, the maximum is 0"),
            ("30 07 00 00 03 23 00 01 21", "the topic is empty"),
        ],
    )
    def test_a_topic_alias_which_connect_did_not_allow_is_a_protocol_error(self, data: str, says: str) -> None:
        with pytest.raises(ProtocolError, match=rf"^the broker sent a malformed PUBLISH \({says}\)$"):
            receive(5, data)

    @given(st.sampled_from((4, 5)), st.lists(st.binary(), max_size=4))
    def test_arbitrary_bytes_yield_packets_or_a_protocol_error(self, protocol: int, pieces: list[bytes]) -> None:
        receiver = expecting(protocol)
        try:
            packets = [packet for piece in pieces for packet in receiver.receive(piece)]
        except ProtocolError:
            return
        assert all(isinstance(packet, Packet) for packet in packets)

    @given(st.sampled_from((4, 5)), st.integers(0, 255), st.binary(max_size=127))
    def test_an_arbitrary_body_yields_a_packet_or_a_protocol_error(
        self, protocol: int, command: int, body: bytes
    ) -> None:
        try:
            (packet,) = expecting(protocol).receive(bytes((command, len(body))) + body)
        except ProtocolError:
            return
        assert isinstance(packet, Packet)

    @given(st.sampled_from([row for row in _EVERY_PACKET if row[1] != "d0 00"]), st.data())
    def test_a_damaged_packet_yields_a_packet_or_a_protocol_error(
        self, known: tuple[int, str, Packet], data: st.DataObject
    ) -> None:
        protocol, packet = known[0], bytearray.fromhex(known[1])
        body = packet[2:]
        for _ in range(data.draw(st.integers(1, 3))):
            if body and data.draw(st.booleans()):
                body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
            else:
                del body[data.draw(st.integers(0, len(body))) :]
        try:
            received = expecting(protocol).receive(bytes((packet[0], len(body))) + body)
        except ProtocolError:
            return
        assert len(received) == 1


class TestTopics:
    """They are remembered, as most messages have one that came before; a broker may send any number of others."""

    def remembered(self, topics: Iterable[str]) -> int:
        codec = connected(5)
        for topic in topics:
            codec.receive(packets.publish(True, topic, b"!"))
        return len(codec._topics)

    def test_of_any_number_a_thousand_are_remembered(self) -> None:
        assert self.remembered(f"t/{number}" for number in range(1100)) == 1024

    @pytest.mark.parametrize(("length", "remembered"), [(256, 1), (257, 0)])
    def test_a_long_one_is_not_remembered(self, length: int, remembered: int) -> None:
        assert self.remembered(["t" * length]) == remembered


@pytest.mark.parametrize("protocol", [4, 5])
def test_more_pingresps_in_a_row_than_anybody_asks_for_are_not_all_looked_at(protocol: int) -> None:
    message = Message("t", b"!", 0, False, False)
    codec, flood = connected(protocol), b"\xd0\x00" * 32_768
    *some, last = codec.receive(flood + packets.publish(protocol == 5, "t", b"!"))
    assert 1024 <= len(some) < 2048
    assert (set(map(type, some)), last) == ({Pingresp}, message)
    assert codec.receive(flood[:2048]) == [Pingresp()] * 1024


def test_the_constants_are_the_first_bytes_of_the_packets() -> None:
    assert (CONNACK, SUBACK, UNSUBACK) == (0x20, 0x90, 0xB0)
