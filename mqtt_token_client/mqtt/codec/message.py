"""A message from the broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ..session.delivery import Delivery


def _acknowledge_elsewhere() -> None:
    raise RuntimeError("a message must be acknowledged in the process that received it; this is a copy in another one")


def cannot_reply(*_arguments: Any, **_options: Any) -> Delivery:
    raise RuntimeError("a message must be answered in the process that received it; this one was made or copied here")


class Message:
    """A message from the broker.

    ``duplicate`` is the DUP flag: it may have been delivered before. ``properties`` are those of MQTT 5, by their names
    in snake_case, such as ``content_type``; empty in MQTT 3.1.1.
    """

    # These are the session's: ``pending_ack`` is set if each handler acknowledges the message, ``reply_by`` if there is
    # a Response Topic; it publishes.

    __match_args__ = ("topic", "payload", "qos", "retain", "duplicate", "properties")
    __slots__ = (*__match_args__, "_acknowledge", "packet_id", "pending_ack", "reply_by")

    reply_by: Callable[..., Delivery]

    def __init__(  # noqa: PLR0913 - the fields of PUBLISH
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        duplicate: bool,
        properties: dict[str, Any] | None = None,
        packet_id: int = 0,
        acknowledge: Callable[[], None] | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.duplicate = duplicate
        self.properties = {} if properties is None else properties
        self.packet_id = packet_id
        self._acknowledge = acknowledge
        self.pending_ack: Any = None
        self.reply_by = cannot_reply

    def acknowledge(self) -> None:
        """With ``manual_ack=True``: acknowledge the message once it is stored or acted upon; from any thread. Until
        then the broker keeps it, and sends it again after a restart. Without ``manual_ack`` it is acknowledged already.
        """
        if self._acknowledge is not None:
            self._acknowledge()

    def reply(
        self,
        payload: bytes | bytearray | memoryview | str | float | None,
        *,
        qos: int | None = None,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> Delivery:
        """Publish the response to a request: to the Response Topic of this message, with its Correlation Data (MQTT 5
        section 4.10). Any thread may call it, a handler too; it returns at once.

        Args:
            payload: of the response, as for ``publish()``.
            qos: 0, 1 or 2; None for that of the request.
            retain: whether the broker keeps the response.
            properties: of the response, by their names in snake_case, as for ``publish()``.

        Returns:
            The :class:`Delivery` of the response.

        Raises:
            ConfigurationError: the message has no ``response_topic``, or an argument is wrong.
            OutboxFull: too many messages wait already; this one was not accepted.
            ClientClosed: the client is disconnected.
        """
        response_topic = self.properties.get("response_topic")
        if response_topic is None:
            raise ConfigurationError("reply: the message has no response_topic, so its sender expects no response")
        about = {**(properties or {})}
        if "correlation_data" in self.properties:
            about.setdefault("correlation_data", self.properties["correlation_data"])
        return self.reply_by(
            response_topic, payload, qos=self.qos if qos is None else qos, retain=retain, properties=about
        )

    def __copy__(self) -> Message:
        return self._copy(self.properties)

    def __deepcopy__(self, memo: dict[int, Any]) -> Message:
        from copy import deepcopy

        return self._copy(deepcopy(self.properties, memo))

    def _copy(self, properties: dict[str, Any]) -> Message:
        fields = self.topic, self.payload, self.qos, self.retain, self.duplicate
        copied = Message(*fields, properties, self.packet_id, self._acknowledge)
        copied.reply_by = self.reply_by
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        acknowledge = None if self._acknowledge is None else _acknowledge_elsewhere
        return Message, (*self._fields(), self.packet_id, acknowledge)

    def _fields(self) -> tuple[Any, ...]:
        return self.topic, self.payload, self.qos, self.retain, self.duplicate, self.properties

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Message) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        fields = zip(self.__match_args__, self._fields(), strict=True)
        return f"Message({', '.join(f'{name}={value!r}' for name, value in fields)})"
