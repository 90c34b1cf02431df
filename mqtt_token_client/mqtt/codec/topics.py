"""Topic names and topic filters (MQTT 5 section 4.7)."""

from __future__ import annotations

import functools

from ...errors import ConfigurationError
from .packets import NotAllowedError

# Of a filter: paho-mqtt's matcher calls itself for each. Brokers allow fewer (EMQX 128, AWS IoT 8).
_MOST_LEVELS = 256


def check_topic(topic: str, where: str, argument: str = "topic") -> bytes:
    """Check the topic name of a message, and encode it (MQTT 5 section 4.7).

    Args:
        topic: the topic name.
        where, argument: the method and the argument that it was given to, for the error message.

    Raises:
        ConfigurationError: it is not a string, is empty or too long, or contains NUL or a wildcard.
    """
    encoded = _encode(topic, where, argument)
    if b"+" in encoded or b"#" in encoded:
        raise ConfigurationError(f"{where}: {argument} must not contain the wildcards + and #, got {topic!r}")
    return encoded


@functools.lru_cache(maxsize=1024)  # a device has few topics, and checking one takes longer than sending a message
def encode_topic(topic: str) -> bytes:
    """A topic name as PUBLISH carries it, with its length before it (MQTT 5 section 1.5.4).

    Raises:
        ConfigurationError: as :func:`check_topic`.
    """
    encoded = check_topic(topic, "publish")
    return len(encoded).to_bytes(2) + encoded


def check_filter(topic_filter: str, where: str) -> str:
    """Check a topic filter to subscribe to (MQTT 5 section 4.7.1).

    Args:
        topic_filter: the filter, which may be that of a shared subscription (section 4.8.2).
        where: the method that it was given to, for the error message.

    Raises:
        ConfigurationError: it is not a string, is empty or too long, contains NUL, has too many levels, or a wildcard
            is misplaced.
    """
    _encode(topic_filter, where, "topic_filter")
    levels = topic_filter.split("/")
    if len(levels) > _MOST_LEVELS:
        raise ConfigurationError(f"{where}: topic_filter has {len(levels)} levels, the maximum is {_MOST_LEVELS}")
    not_last = any("#" in level for level in levels[:-1])
    if not_last or any(wildcard in level and level != wildcard for level in levels for wildcard in "+#"):
        raise ConfigurationError(
            f"{where}: a wildcard is misplaced in {topic_filter!r}: + must be a whole level, # the whole last level"
        )
    if topic_filter.startswith("$share/") and (levels[1] in ("", "+") or levels[2:] in ([], [""])):
        raise ConfigurationError(f"{where}: a shared subscription must be $share/group/filter, got {topic_filter!r}")
    return topic_filter


def without_group(topic_filter: str) -> str:
    """The filter of a shared subscription, ``$share/group/filter`` (MQTT 5 section 4.8.2); any other as it is."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


def overlap(one: str, other: str) -> bool:
    """Whether there are topics that match both filters, which are not those of shared subscriptions (section 4.7)."""
    ones, others = one.split("/"), other.split("/")
    if {ones[0], others[0]} & {"+", "#"} and "$" in (one[:1], other[:1]):  # [MQTT-4.7.2-1]
        return False
    for level, another in zip(ones, others, strict=False):
        if "#" in (level, another):
            return True
        if level != another and "+" not in (level, another):
            return False
    rest = ones[len(others) :] or others[len(ones) :]
    return rest in ([], ["#"])  # "a/#" matches "a" as well


def decode_string(encoded: bytes) -> str:
    """A UTF-8 Encoded String that the broker sent (MQTT 5 section 1.5.4).

    Raises:
        ValueError: it is not UTF-8, or contains NUL [MQTT-1.5.4-2].
    """
    if 0 in encoded:
        raise ValueError("a string contains NUL")
    return encoded.decode()


def decode_topic(encoded: bytes) -> str:
    """The topic name of a PUBLISH that the broker sent (MQTT 5 section 3.3.2.1).

    Raises:
        ValueError: it is not UTF-8, or contains NUL or a wildcard [MQTT-3.3.2-2].
        NotAllowedError: it is empty [MQTT-4.7.3-1]; an alias that could stand for it is not allowed either.
    """
    topic = decode_string(encoded)
    if not topic:
        raise NotAllowedError("the topic is empty")
    if "+" in topic or "#" in topic:
        raise ValueError("the topic contains a wildcard")
    return topic


def _encode(topic: str, where: str, argument: str) -> bytes:
    if not isinstance(topic, str):
        raise ConfigurationError(f"{where}: {argument} must be a string, got {type(topic).__name__}")
    if not topic or "\0" in topic:
        raise ConfigurationError(f"{where}: {argument} must not be empty or contain NUL")
    try:
        encoded = topic.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{where}: {argument} cannot be encoded in UTF-8") from None
    if len(encoded) > 65_535:
        raise ConfigurationError(f"{where}: {argument} has {len(encoded)} bytes, the maximum is 65535")
    return encoded
