"""Topics, topic filters and the will: what MQTT allows, and one clear line for what it does not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.mqtt.codec.checks import Will, check_filter, check_topic
from mqtt_token_client.mqtt.codec.message import Message

_LONGEST = "t" * 65_535


class TestTopics:
    @pytest.mark.parametrize("topic", ["a", "/", "a/b", "/a//b/", "$SYS/x", "é", " ", _LONGEST])
    def test_that_may_be_published_to_are_encoded(self, topic: str) -> None:
        assert check_topic(topic, "publish") == topic.encode()

    @pytest.mark.parametrize(
        ("topic", "says"),
        [
            ("", "publish: topic is a string that is not empty and has no NUL"),
            ("a\0b", "publish: topic is a string that is not empty and has no NUL"),
            (b"a", "publish: topic is a string that is not empty and has no NUL"),
            (None, "publish: topic is a string that is not empty and has no NUL"),
            ("a/+/b", "publish: a topic to publish to has no wildcard; 'a/+/b' has"),
            ("a/#", "publish: a topic to publish to has no wildcard; 'a/#' has"),
            ("a\ud800", "publish: topic cannot be written in UTF-8"),
            ("é" * 32_768, "publish: topic has 65536 bytes, at most 65535 are allowed"),
        ],
    )
    def test_that_may_not_are_refused_in_one_line(self, topic: Any, says: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{re.escape(says)}$"):
            check_topic(topic, "publish")


class TestFilters:
    @pytest.mark.parametrize(
        "topic_filter",
        [
            "a",
            "/",
            "#",
            "+",
            "+/+",
            "/+",
            "a/+/b/#",
            "+/a/#",
            "$SYS/#",
            "$share/group/a",
            "$share/group/#",
            "$share/group//",
            "$share/group/+/a",
            "$shared",
            "$share",
            _LONGEST,
        ],
    )
    def test_that_may_be_subscribed_to(self, topic_filter: str) -> None:
        assert check_filter(topic_filter, "subscribe") == topic_filter

    @pytest.mark.parametrize(
        "topic_filter",
        ["a#", "#a", "a/#/b", "#/a", "#/#", "a/#/#", "##", "a+", "+a", "a/b+/c", "++", "a/+#", "$share/g/a#"],
    )
    def test_with_a_misplaced_wildcard_are_refused(self, topic_filter: str) -> None:
        says = f"subscribe: in {topic_filter!r} a wildcard is misplaced: + is a whole level, # the whole last level"
        with pytest.raises(ConfigurationError, match=f"^{re.escape(says)}$"):
            check_filter(topic_filter, "subscribe")

    @pytest.mark.parametrize("topic_filter", ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a"])
    def test_shared_without_a_group_or_a_filter_are_refused(self, topic_filter: str) -> None:
        says = f"subscribe: a shared subscription is $share/group/filter, not {topic_filter!r}"
        with pytest.raises(ConfigurationError, match=f"^{re.escape(says)}$"):
            check_filter(topic_filter, "subscribe")

    @pytest.mark.parametrize("topic_filter", ["", "a\0", b"a", None, 5])
    def test_that_are_no_text_are_refused(self, topic_filter: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^subscribe: topic_filter is a string that is not empty"):
            check_filter(topic_filter, "subscribe")

    def test_that_are_too_long_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^subscribe: topic_filter has 65536 bytes, at most 65535"):
            check_filter(_LONGEST + "t", "subscribe")


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
            ({"topic": ""}, "will: topic is a string that is not empty and has no NUL"),
            ({"topic": "a/#"}, "will: a topic to publish to has no wildcard; 'a/#' has"),
            ({"payload": None}, "will: the payload is bytes or a string, of 65535 bytes at most"),
            ({"payload": bytes(65_536)}, "will: the payload is bytes or a string, of 65535 bytes at most"),
            ({"payload": "é" * 32_768}, "will: the payload is bytes or a string, of 65535 bytes at most"),
            ({"payload": "\ud800"}, "will: the payload cannot be written in UTF-8"),
            ({"qos": 3}, "will: qos is 0, 1 or 2, not 3"),
            ({"qos": "1"}, "will: qos is 0, 1 or 2, not '1'"),
            ({"qos": None}, "will: qos is 0, 1 or 2, not None"),
            ({"qos": 1.0}, "will: qos is 0, 1 or 2, not 1.0"),
            ({"delay": -1}, "will: delay is whole seconds, 0 to 4294967295, not -1"),
            ({"delay": 0x1_0000_0000}, "will: delay is whole seconds, 0 to 4294967295, not 4294967296"),
            ({"delay": 1.5}, "will: delay is whole seconds, 0 to 4294967295, not 1.5"),
            ({"delay": "5"}, "will: delay is whole seconds, 0 to 4294967295, not '5'"),
            ({"properties": ["content_type"]}, "will: properties: a mapping, not list"),
            ({"properties": 5}, "will: properties: a mapping, not int"),
            (
                {"properties": {"contenttype": "a"}},
                "will: properties: 'contenttype' is no property of MQTT 5; one is 'content_type'",
            ),
            ({"properties": {"topic_alias": 1}}, "will: properties: topic_alias does not apply to a will"),
            (
                {"properties": {"will_delay_interval": 5}},
                "will: properties: will_delay_interval is the argument delay",
            ),
        ],
    )
    def test_that_mqtt_does_not_allow_is_refused_in_one_line(self, arguments: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{re.escape(says)}$"):
            Will(**{"topic": "a", "payload": b"gone", **arguments})


def test_a_message_has_no_properties_by_default_and_shares_none() -> None:
    first, second = (Message("a", b"", 0, False, False) for _ in range(2))
    first.properties["mine"] = 1
    assert second.properties == {}
