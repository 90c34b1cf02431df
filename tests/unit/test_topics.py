"""Topics and topic filters: those that MQTT allows, and one clear line for those that it does not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.codec.topics import check_filter, check_topic
from mqtt_token_client.mqtt.session.packet_ids import PacketIds
from mqtt_token_client.mqtt.session.subscriptions import Subscriptions

_LONGEST = "t" * 65_535


class TestTopics:
    @pytest.mark.parametrize("topic", ["a", "/", "a/b", "/a//b/", "$SYS/x", "é", " ", _LONGEST])
    def test_that_may_be_published_to_are_encoded(self, topic: str) -> None:
        assert check_topic(topic, "publish") == topic.encode()

    @pytest.mark.parametrize(
        ("topic", "says"),
        [
            ("", "publish: topic must not be empty or contain NUL"),
            ("a\0b", "publish: topic must not be empty or contain NUL"),
            (b"a", "publish: topic must be a string, got bytes"),
            (None, "publish: topic must be a string, got NoneType"),
            ("a/+/b", "publish: topic must not contain the wildcards + and #, got 'a/+/b'"),
            ("a/#", "publish: topic must not contain the wildcards + and #, got 'a/#'"),
            ("a\ud800", "publish: topic cannot be encoded in UTF-8"),
            ("é" * 32_768, "publish: topic has 65536 bytes, the maximum is 65535"),
        ],
    )
    def test_that_may_not_are_rejected_in_one_line(self, topic: Any, says: str) -> None:
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
    def test_with_a_misplaced_wildcard_are_rejected(self, topic_filter: str) -> None:
        says = (
            f"subscribe: a wildcard is misplaced in {topic_filter!r}: + must be a whole level, # the whole last level"
        )
        with pytest.raises(ConfigurationError, match=f"^{re.escape(says)}$"):
            check_filter(topic_filter, "subscribe")

    @pytest.mark.parametrize("topic_filter", ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a"])
    def test_shared_without_a_group_or_a_filter_are_rejected(self, topic_filter: str) -> None:
        says = f"subscribe: a shared subscription must be $share/group/filter, got {topic_filter!r}"
        with pytest.raises(ConfigurationError, match=f"^{re.escape(says)}$"):
            check_filter(topic_filter, "subscribe")

    @pytest.mark.parametrize("topic_filter", ["", "a\0"])
    def test_that_are_empty_or_contain_nul_are_rejected(self, topic_filter: str) -> None:
        with pytest.raises(ConfigurationError, match=r"^subscribe: topic_filter must not be empty or contain NUL$"):
            check_filter(topic_filter, "subscribe")

    @pytest.mark.parametrize("topic_filter", [b"a", None, 5])
    def test_that_are_not_strings_are_rejected(self, topic_filter: Any) -> None:
        says = f"subscribe: topic_filter must be a string, got {type(topic_filter).__name__}"
        with pytest.raises(ConfigurationError, match=f"^{says}$"):
            check_filter(topic_filter, "subscribe")

    def test_that_are_too_long_are_rejected(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^subscribe: topic_filter has 65536 bytes, the maximum is 65535"):
            check_filter(_LONGEST + "t", "subscribe")


@pytest.mark.parametrize("level", ["+", "a", ""])
def test_a_filter_of_the_most_levels_matches_and_one_more_is_refused(level: str) -> None:
    """The matcher calls itself for each level, and Python allows about a thousand calls."""
    longest = check_filter("/".join([level] * 255 + ["#"]), "subscribe")
    made = Subscriptions(PacketIds())
    made.add(longest, print, 1)
    topic = "/".join(["a" if level == "+" else level] * 300)
    assert made.routes.handlers(Message(topic, b"", 0, False, False), ()) == (print,)
    with pytest.raises(ConfigurationError, match="subscribe: topic_filter has 257 levels, the maximum is 256"):
        check_filter("+/" + longest, "subscribe")
