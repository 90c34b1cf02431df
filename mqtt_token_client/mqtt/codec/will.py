"""The Will: the message that the broker publishes for a client that is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError
from ...value import Value
from .checks import Payload, check_payload, check_qos
from .packets import WILL
from .properties import pack_properties
from .topics import check_topic

_LARGEST_PAYLOAD = 65_535  # bytes (section 3.1.3.4)


class Will(Value):
    """The message that the broker publishes if this client is lost (MQTT 5 section 3.1.2.5).

    A planned rotation never fires it. With a ``delay`` and a session that the broker keeps, the broker itself holds it
    back, and a rotation has no gap; without, the client has to end the current connection before the broker accepts
    the new one.

    Args:
        topic: the topic that it is published to.
        payload: bytes; or a string, which is encoded in UTF-8, a number, which is sent as its text, or None for an
            empty one. The attribute holds the bytes.
        qos: 0, 1 or 2.
        retain: whether the broker keeps it for later subscribers.
        delay: seconds for which the broker waits for the client to come back (MQTT 5 only; Will Delay Interval).
        properties: other properties of MQTT 5, by their names in snake_case, such as
            ``{"content_type": "text/plain"}``.

    Raises:
        ConfigurationError: MQTT does not allow one of the arguments; the message names it.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    delay: int | None = None
    properties: Mapping[str, Any] | None = None

    if TYPE_CHECKING:  # what type checkers see: not only bytes are accepted

        def __init__(
            self,
            topic: str,
            payload: Payload,
            qos: int = 0,
            retain: bool = False,
            delay: int | None = None,
            properties: Mapping[str, Any] | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        check_topic(self.topic, "will")
        payload = check_payload(self.payload, "will")
        if len(payload) > _LARGEST_PAYLOAD:
            raise ConfigurationError(f"will: payload has {len(payload)} bytes, the maximum is {_LARGEST_PAYLOAD}")
        object.__setattr__(self, "payload", payload)
        check_qos(self.qos, "will")
        if self.delay is not None and (not isinstance(self.delay, int) or not 0 <= self.delay <= 0xFFFFFFFF):
            raise ConfigurationError(f"will: delay must be whole seconds from 0 to 4294967295, got {self.delay!r}")
        if isinstance(self.properties, Mapping) and "will_delay_interval" in self.properties:
            raise ConfigurationError("will: properties: will_delay_interval is set by the argument delay")
        try:
            self.pack_properties()
        except ConfigurationError as error:
            raise ConfigurationError(f"will: {error}") from None

    def pack_properties(self) -> bytes:
        """The Will Properties as CONNECT carries them (MQTT 5 section 3.1.3.2)."""
        properties = self.properties
        if self.delay and not properties:
            properties = {"will_delay_interval": self.delay}
        elif self.delay and isinstance(properties, Mapping):
            properties = {**properties, "will_delay_interval": self.delay}
        return pack_properties(properties, WILL) or b"\0"
