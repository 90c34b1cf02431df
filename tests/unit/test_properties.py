"""MQTT 5 properties: packed from their names, read back, and rejected where MQTT 5 does not allow them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.mqtt.codec.packets import (
    AUTH,
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    WILL,
)
from mqtt_token_client.mqtt.codec.properties import (
    MOST_PROPERTIES,
    TooManyPropertiesError,
    pack_length,
    pack_properties,
    read_length,
    read_properties,
)


def read(data: bytes | str, packet: int = PUBLISH) -> dict[str, Any]:
    """Properties that are the whole of the data."""
    data = bytes.fromhex(data) if isinstance(data, str) else data
    properties, end = read_properties(packet, data, 0, len(data))
    assert end == len(data)
    return properties


class TestPacking:
    @pytest.mark.parametrize(
        ("given", "packed"),
        [
            ({"message_expiry_interval": 60}, "05 02 00 00 00 3c"),
            ({"payload_format_indicator": 1}, "02 01 01"),
            ({"correlation_data": b"\xff\x00"}, "05 09 00 02 ff 00"),
            ({"response_topic": "a"}, "04 08 00 01 61"),
            ({"user_property": ("k", "v")}, "07 26 00 01 6b 00 01 76"),
            ({"user_property": [["k", "v"], ("k", "w")]}, "0e 26 00 01 6b 00 01 76 26 00 01 6b 00 01 77"),
        ],
    )
    def test_takes_their_names_in_snake_case(self, given: dict[str, Any], packed: str) -> None:
        assert pack_properties(given).hex(" ") == packed

    @pytest.mark.parametrize("given", [{"content_type": "x" * 65_535}, {"correlation_data": bytes(65_535)}])
    def test_takes_values_of_the_largest_length(self, given: dict[str, Any]) -> None:
        assert read(pack_properties(given)) == given

    @pytest.mark.parametrize("nothing", [None, {}])
    def test_of_none_gives_nothing(self, nothing: dict[str, Any] | None) -> None:
        assert pack_properties(nothing) == b""

    @pytest.mark.parametrize(
        ("given", "names"),
        [
            ({"contenttype": "a/b"}, "'contenttype' is not a property"),
            ({"ContentType": "a/b"}, "'ContentType' is not a property"),
            ({"packetType": 1}, "'packetType' is not a property"),
            ({"will_delay_interval": 5}, "will_delay_interval"),
            ({"payload_format_indicator": 2}, "payload_format_indicator"),
            ({"message_expiry_interval": -1}, "message_expiry_interval"),
            ({"message_expiry_interval": "60"}, "message_expiry_interval"),
            ({"content_type": 5}, "content_type"),
            ({"content_type": "x" * 65_536}, "content_type"),
            (
                {"user_property": {"k": "v"}},
                "user_property must be a pair of strings, or a list of such pairs, got {'k': 'v'}",
            ),
            ({"user_property": ["ab", "cd"]}, "user_property must be a pair of strings"),
            ({"user_property": [("k", 5)]}, "user_property must be a pair of strings"),
            ({"user_property": ("k", "v", "w")}, "user_property must be a pair of strings"),
            ({"topic_alias": 1}, "topic_alias cannot be set by an application"),
            ({"subscription_identifier": 1}, "subscription_identifier cannot be set by an application"),
            ({"response_topic": "a/+"}, "response_topic must not contain the wildcards"),
            ({"response_topic": ""}, "response_topic must not be empty or contain NUL"),
            ({"response_topic": "a\0"}, "response_topic must not be empty or contain NUL"),
            ({"response_topic": "x" * 65_536}, "response_topic has 65536 bytes, the maximum is 65535"),
            ({"response_topic": b"a"}, "response_topic must be a string, got bytes"),
            ({"content_type": "a\0b"}, "content_type must not contain NUL"),
            ({"user_property": ("k", "\0")}, "user_property must not contain NUL"),
            ({"content_type": "\ud800"}, "content_type cannot be encoded in UTF-8"),
            ({"correlation_data": "text"}, "correlation_data must be bytes, got str"),
            ({5: 1}, "5 is not a property"),
        ],
    )
    def test_what_mqtt_5_does_not_allow_is_named(self, given: dict[str, Any], names: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^properties: .*{names}"):
            pack_properties(given)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"subscription_identifier": 0}, "subscription_identifier must be a whole number from 1 to 268435455, got"),
            (
                {"subscription_identifier": 268_435_456},
                "subscription_identifier must be a whole number from 1 to 268435455, got",
            ),
            ({"subscription_identifier": [1, 2]}, r"subscription_identifier must be .*, got \[1, 2\]"),
            ({"subscription_identifier": "5"}, "subscription_identifier must be .*, got '5'"),
            ({"content_type": "a/b"}, "content_type is not allowed in SUBSCRIBE"),
        ],
    )
    def test_what_mqtt_5_does_not_allow_in_subscribe_is_named(self, given: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^properties: {says}"):
            pack_properties(given, SUBSCRIBE)

    @pytest.mark.parametrize("name", ["topic_alias", "subscription_identifier", "receive_maximum"])
    def test_what_mqtt_5_does_not_allow_in_a_will_is_named(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^properties: {name} is not allowed in a will$"):
            pack_properties({name: 1}, WILL)

    @pytest.mark.parametrize("wrong", [["content_type"], 5, "content_type"])
    def test_of_anything_but_a_mapping_is_rejected(self, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"^properties must be a mapping, got {type(wrong).__name__}$"):
            pack_properties(wrong)


class TestReading:
    @pytest.mark.parametrize(
        ("packet", "data", "properties"),
        [
            (PUBLISH, "00", {}),
            (PUBLISH, "02 01 01", {"payload_format_indicator": 1}),
            (PUBLISH, "0a 09 00 02 ff 00 03 00 02 c3 a9", {"correlation_data": b"\xff\0", "content_type": "é"}),
            (PUBLISH, "06 03 00 03 ef bb bf", {"content_type": "\ufeff"}),  # [MQTT-1.5.4-3]
            (PUBLISH, "05 0b ff ff ff 7f", {"subscription_identifier": [268_435_455]}),
            (PUBLISH, "04 0b 05 0b 06", {"subscription_identifier": [5, 6]}),
            (PUBLISH, "0a 26 00 00 00 00 26 00 00 00 00", {"user_property": [("", ""), ("", "")]}),
            (SUBACK, "07 26 00 01 6b 00 01 76", {"user_property": [("k", "v")]}),
            (CONNACK, "05 27 ff ff ff ff", {"maximum_packet_size": 0xFFFF_FFFF}),
            (CONNACK, "02 24 02", {"maximum_qos": 2}),
            (CONNACK, "06 22 00 00 13 00 00", {"topic_alias_maximum": 0, "server_keep_alive": 0}),
            (DISCONNECT, "08 1c 00 05 6f 74 68 65 72", {"server_reference": "other"}),
        ],
    )
    def test_gives_them_by_name(self, packet: int, data: str, properties: dict[str, Any]) -> None:
        assert read(data, packet) == properties

    @pytest.mark.parametrize(
        ("packet", "data", "says"),
        [
            (PUBLISH, "", "a length goes beyond the end"),
            (PUBLISH, "80", "a length goes beyond the end"),
            (PUBLISH, "80 80 80 80 01", "a length has more than four bytes"),
            (PUBLISH, "05 01 01", "the properties go beyond the end"),
            (PUBLISH, "01 01", "a property goes beyond the end"),
            (PUBLISH, "03 02 00 00", "a property goes beyond the end"),
            (PUBLISH, "01 0b", "a length goes beyond the end"),
            (PUBLISH, "03 0b 80 80", "a length goes beyond the end"),
            (PUBLISH, "06 0b 80 80 80 80 01", "a length has more than four bytes"),
            (PUBLISH, "01 03", "a property goes beyond the end"),
            (PUBLISH, "02 03 00", "a property goes beyond the end"),
            (PUBLISH, "04 03 00 02 61", "a property goes beyond the end"),
            (PUBLISH, "03 26 00 00", "a property goes beyond the end"),
            (PUBLISH, "04 26 00 00 00", "a property goes beyond the end"),
            (PUBLISH, "02 63 00", "0x63 is not a property"),
            (PUBLISH, "03 81 00 00", "0x81 is not a property"),
            (PUBLISH, "03 21 00 01", "property 0x21 is not allowed there"),
            (PUBLISH, "04 01 00 01 00", "payload_format_indicator is there twice"),
            (PUBLISH, "02 01 02", "payload_format_indicator is 2"),
            (PUBLISH, "02 0b 00", "subscription_identifier is 0"),
            (PUBLISH, "03 23 00 01", "topic_alias is 1, the maximum is 0"),
            (PUBLISH, "04 03 00 01 ff", "utf-8"),
            (PUBLISH, "06 26 00 01 ff 00 00", "utf-8"),
            (PUBLISH, "06 26 00 00 00 01 ff", "utf-8"),
            (CONNACK, "03 21 00 00", "receive_maximum is 0"),
            (CONNACK, "05 27 00 00 00 00", "maximum_packet_size is 0"),
            (CONNACK, "02 25 02", "retain_available is 2"),
            (CONNACK, "02 24 03", "maximum_qos is 3"),
            (CONNACK, "08 12 00 01 61 12 00 01 61", "assigned_client_identifier is there twice"),
            (CONNACK, "02 01 01", "property 0x01 is not allowed there"),
            (PUBACK, "02 24 01", "property 0x24 is not allowed there"),
            (SUBACK, "02 0b 01", "property 0x0b is not allowed there"),
            (UNSUBACK, "03 13 00 01", "property 0x13 is not allowed there"),
            (AUTH, "04 1c 00 01 61", "property 0x1c is not allowed there"),
        ],
    )
    def test_rejects_whatever_mqtt_5_does_not_allow(self, packet: int, data: str, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            read(data, packet)

    def test_does_not_look_behind_their_end(self) -> None:
        assert read_properties(PUBLISH, bytes.fromhex("ff 02 01 01 ff"), 1, 4) == ({"payload_format_indicator": 1}, 4)
        with pytest.raises(ValueError, match="go beyond the end of the packet"):
            read_properties(PUBLISH, bytes.fromhex("ff 02 01 01 ff"), 1, 3)

    def test_of_as_many_as_are_allowed_and_not_of_one_more(self) -> None:
        def some(count: int) -> bytes:
            body = b"\x26\0\0\0\0" * count
            return pack_length(len(body)) + body

        assert read(some(MOST_PROPERTIES)) == {"user_property": [("", "")] * MOST_PROPERTIES}
        with pytest.raises(TooManyPropertiesError, match=f"^more than {MOST_PROPERTIES} properties$"):
            read(some(MOST_PROPERTIES + 1))

    @given(st.sampled_from((PUBLISH, CONNACK, SUBACK, DISCONNECT, AUTH)), st.binary(max_size=60))
    def test_of_arbitrary_bytes_gives_properties_or_a_value_error(self, packet: int, data: bytes) -> None:
        try:
            _, end = read_properties(packet, data, 0, len(data))
        except ValueError:
            return
        assert end <= len(data)


_text = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda text: "\0" not in text)  # [MQTT-1.5.4-2]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "payload_format_indicator": st.integers(0, 1),
            "message_expiry_interval": st.integers(0, 0xFFFF_FFFF),
            "content_type": _text,
            "response_topic": st.sampled_from(("a", "a/b", "é")),
            "correlation_data": st.binary(max_size=300),
            "user_property": st.lists(st.tuples(_text, _text), min_size=1, max_size=4),
        },
    )
)
def test_what_is_packed_is_read_again(properties: dict[str, Any]) -> None:
    assert read(pack_properties(properties) or b"\0") == properties


@pytest.mark.parametrize(
    ("value", "packed"),  # MQTT 5 table 1-1
    [
        (0, "00"),
        (127, "7f"),
        (128, "80 01"),
        (16_383, "ff 7f"),
        (16_384, "80 80 01"),
        (2_097_151, "ff ff 7f"),
        (2_097_152, "80 80 80 01"),
        (268_435_455, "ff ff ff 7f"),
    ],
)
def test_variable_byte_integers(value: int, packed: str) -> None:
    assert pack_length(value).hex(" ") == packed
    data = bytes.fromhex(packed)
    assert read_length(b"\xff" + data + b"\xff", 1, 1 + len(data)) == (value, 1 + len(data))
