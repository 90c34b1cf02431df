"""What an application gives: topics, payloads, topic filters, and the will."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError

LARGEST_PAYLOAD = 268_000_000  # bytes; a packet holds 268,435,455 with its topic and properties


@dataclass(frozen=True, slots=True)
class Will:
    """The message that the broker publishes if this client is lost (MQTT 5 section 3.1.2.5).

    A planned rotation never fires it. With a ``delay``, and a session that is kept, the broker itself sees to that, and
    a rotation has no gap; without one the client has to end the first connection before the second one is accepted.

    Args:
        topic: where it is published.
        payload: what is published; a string as UTF-8, and then the attribute holds the bytes.
        qos: 0, 1 or 2.
        retain: whether the broker keeps it for later subscribers.
        delay: seconds that the broker waits for the client to come back (MQTT 5 only; Will Delay Interval).
        properties: the others of MQTT 5, by their names in snake_case, such as ``{"content_type": "text/plain"}``.

    Raises:
        ConfigurationError: an argument is not what it should be.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    delay: int | None = None
    properties: Mapping[str, Any] | None = None

    if TYPE_CHECKING:  # for mypy; the one that runs is made by dataclass

        def __init__(
            self,
            topic: str,
            payload: bytes | str,
            qos: int = 0,
            retain: bool = False,
            delay: int | None = None,
            properties: Mapping[str, Any] | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        check_topic(self.topic, "will")
        object.__setattr__(self, "payload", _will_payload(self.payload))
        check_qos(self.qos, "will")
        if self.delay is not None and (not isinstance(self.delay, int) or not 0 <= self.delay <= 0xFFFFFFFF):
            raise ConfigurationError(f"will: delay is whole seconds, 0 to 4294967295, not {self.delay!r}")
        try:
            encode_properties(self.properties, "WILLMESSAGE")
        except ConfigurationError as error:
            raise ConfigurationError(f"will: {error}") from None
        if self.properties and "will_delay_interval" in self.properties:
            raise ConfigurationError("will: properties: will_delay_interval is the argument delay")


def _will_payload(payload: object) -> bytes:
    if isinstance(payload, str):
        try:
            payload = payload.encode()
        except UnicodeEncodeError:
            raise ConfigurationError("will: the payload cannot be written in UTF-8") from None
    if not isinstance(payload, bytes) or len(payload) > 65_535:
        raise ConfigurationError("will: the payload is bytes or a string, of 65535 bytes at most")
    return payload


def check_topic(topic: str, where: str) -> bytes:
    """A topic name to publish to, encoded (MQTT 5 section 4.7).

    Raises:
        ConfigurationError: it is empty, too long, or has a wildcard.
    """
    encoded = _encode(topic, where, "topic")
    if b"+" in encoded or b"#" in encoded:
        raise ConfigurationError(f"{where}: a topic to publish to has no wildcard; {topic!r} has")
    return encoded


@functools.lru_cache(maxsize=1024)  # a device has few topics, and checking one takes longer than sending a message
def encode_topic(topic: str) -> bytes:
    """A topic name to publish to as it stands in PUBLISH, its length before it (MQTT 5 section 1.5.4)."""
    encoded = check_topic(topic, "publish")
    return len(encoded).to_bytes(2) + encoded


def encode_properties(properties: Mapping[str, Any] | None, packet: str = "PUBLISH") -> bytes:
    """Properties as they stand in a packet of MQTT 5; empty for none.

    Raises:
        ConfigurationError: a name or a value that MQTT 5 does not know there.
    """
    if not properties:
        return b""
    from .codec import pack_properties  # loads paho-mqtt, for those who use them

    packed: bytes = pack_properties(properties, packet).pack()
    return packed


def check_payload(payload: object) -> bytes:
    """What to publish: bytes as they are, a string in UTF-8.

    Raises:
        ConfigurationError: it is something else, or too much for MQTT.
    """
    if isinstance(payload, str):
        try:
            payload = payload.encode()
        except UnicodeEncodeError:
            raise ConfigurationError("publish: payload: it cannot be written in UTF-8") from None
    elif isinstance(payload, bytes | bytearray | memoryview):
        payload = bytes(payload)
    else:
        raise ConfigurationError(f"publish: payload is bytes or a string, not {type(payload).__name__}")
    if len(payload) > LARGEST_PAYLOAD:
        raise ConfigurationError(f"publish: the payload has {len(payload)} bytes, MQTT carries {LARGEST_PAYLOAD}")
    return payload


def check_qos(qos: int, where: str) -> None:
    """A Quality of Service.

    Raises:
        ConfigurationError: there is no such.
    """
    if not isinstance(qos, int) or not 0 <= qos <= 2:
        raise ConfigurationError(f"{where}: qos is 0, 1 or 2, not {qos!r}")


def check_filter(topic_filter: str, where: str) -> str:
    """A topic filter to subscribe to (MQTT 5 section 4.7.1).

    Raises:
        ConfigurationError: it is empty, too long, or a wildcard is misplaced.
    """
    _encode(topic_filter, where, "topic_filter")
    levels = topic_filter.split("/")
    not_last = any("#" in level for level in levels[:-1])
    if not_last or any(wildcard in level and level != wildcard for level in levels for wildcard in "+#"):
        raise ConfigurationError(
            f"{where}: in {topic_filter!r} a wildcard is misplaced: + is a whole level, # the whole last level"
        )
    if topic_filter.startswith("$share/") and (levels[1] in ("", "+") or levels[2:] in ([], [""])):
        raise ConfigurationError(f"{where}: a shared subscription is $share/group/filter, not {topic_filter!r}")
    return topic_filter


def _encode(topic: str, where: str, argument: str) -> bytes:
    if not isinstance(topic, str) or not topic or "\0" in topic:
        raise ConfigurationError(f"{where}: {argument} is a string that is not empty and has no NUL")
    try:
        encoded = topic.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{where}: {argument} cannot be written in UTF-8") from None
    if len(encoded) > 65_535:
        raise ConfigurationError(f"{where}: {argument} has {len(encoded)} bytes, at most 65535 are allowed")
    return encoded
