"""The will: what MQTT allows, and one clear line for what it does not; how CONNECT carries its properties."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.mqtt.codec.will import Will


class TestWill:
    def test_by_default_has_qos_0_no_retain_no_delay_and_no_properties(self) -> None:
        will = Will("pump/17/gone", b"gone")
        assert (will.qos, will.retain, will.delay, will.properties) == (0, False, None, None)

    @pytest.mark.parametrize(
        "more",
        [
            {"qos": 2},
            {"retain": True},
            {"delay": 0},
            {"delay": 0xFFFFFFFF},
            {"properties": {}},
            {"properties": {"content_type": "text/plain", "message_expiry_interval": 60, "correlation_data": b"7"}},
            {"properties": {"user_property": [("k", "v"), ("k", "w")], "response_topic": "a"}},
        ],
    )
    def test_may_have(self, more: dict[str, Any]) -> None:
        Will("a", b"", **more)

    def test_whose_payload_is_a_string_carries_it_in_utf_8(self) -> None:
        assert Will("a", "é") == Will("a", "é".encode())

    def test_with_the_largest_payload(self) -> None:
        Will("a", bytes(65_535))

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"topic": ""}, "will: topic must not be empty or contain NUL"),
            ({"topic": "a/#"}, "will: topic must not contain the wildcards + and #, got 'a/#'"),
            ({"payload": [1]}, "will: payload must be bytes, a string, a number or None, got list"),
            ({"payload": bytes(65_536)}, "will: payload has 65536 bytes, the maximum is 65535"),
            ({"payload": "é" * 32_768}, "will: payload has 65536 bytes, the maximum is 65535"),
            ({"payload": "\ud800"}, "will: payload cannot be encoded in UTF-8"),
            ({"qos": 3}, "will: qos must be 0, 1 or 2, got 3"),
            ({"qos": "1"}, "will: qos must be 0, 1 or 2, got '1'"),
            ({"qos": None}, "will: qos must be 0, 1 or 2, got None"),
            ({"qos": 1.0}, "will: qos must be 0, 1 or 2, got 1.0"),
            ({"delay": -1}, "will: delay must be whole seconds from 0 to 4294967295, got -1"),
            ({"delay": 0x1_0000_0000}, "will: delay must be whole seconds from 0 to 4294967295, got 4294967296"),
            ({"delay": 1.5}, "will: delay must be whole seconds from 0 to 4294967295, got 1.5"),
            ({"delay": "5"}, "will: delay must be whole seconds from 0 to 4294967295, got '5'"),
            ({"properties": ["content_type"]}, "will: properties must be a mapping, got list"),
            ({"properties": 5}, "will: properties must be a mapping, got int"),
            (
                {"properties": {"contenttype": "a"}},
                "will: properties: 'contenttype' is not a property of MQTT 5; one is 'content_type'",
            ),
            ({"properties": {"topic_alias": 1}}, "will: properties: topic_alias is not allowed in a will"),
            (
                {"properties": {"will_delay_interval": 5}},
                "will: properties: will_delay_interval is set by the argument delay",
            ),
        ],
    )
    def test_that_mqtt_does_not_allow_is_rejected_in_one_line(self, arguments: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{re.escape(says)}$"):
            Will(**{"topic": "a", "payload": b"gone", **arguments})

    @pytest.mark.parametrize(
        ("more", "packed"),
        [
            ({}, "00"),
            ({"delay": 0}, "00"),
            ({"delay": 5}, "05 18 00 00 00 05"),
            ({"properties": {"content_type": "a"}}, "04 03 00 01 61"),
            ({"delay": 5, "properties": {"content_type": "a"}}, "09 03 00 01 61 18 00 00 00 05"),
        ],
    )
    def test_carries_its_delay_as_a_property(self, more: dict[str, Any], packed: str) -> None:
        assert Will("a", b"", **more).pack_properties().hex(" ") == packed
