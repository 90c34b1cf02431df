"""A message from the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _acknowledge_elsewhere() -> None:
    raise RuntimeError("a message must be acknowledged in the process that received it; this is a copy in another one")


class Message:
    """A message from the broker.

    ``duplicate`` is the DUP flag: it may have been delivered before. ``properties`` are those of MQTT 5, by their names
    in snake_case, such as ``content_type``; empty in MQTT 3.1.1.
    """

    # ``pending_ack`` is the session's: set if each handler acknowledges the message.

    __match_args__ = ("topic", "payload", "qos", "retain", "duplicate", "properties")
    __slots__ = (*__match_args__, "_acknowledge", "packet_id", "pending_ack")

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

    def acknowledge(self) -> None:
        """With ``manual_ack=True``: acknowledge the message once it is stored or acted upon; from any thread. Until
        then the broker keeps it, and sends it again after a restart. Without ``manual_ack`` it is acknowledged already.
        """
        if self._acknowledge is not None:
            self._acknowledge()

    def __copy__(self) -> Message:
        return self._copy(self.properties)

    def __deepcopy__(self, memo: dict[int, Any]) -> Message:
        from copy import deepcopy

        return self._copy(deepcopy(self.properties, memo))

    def _copy(self, properties: dict[str, Any]) -> Message:
        fields = self.topic, self.payload, self.qos, self.retain, self.duplicate
        return Message(*fields, properties, self.packet_id, self._acknowledge)

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
