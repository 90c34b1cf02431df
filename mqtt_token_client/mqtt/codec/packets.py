"""What a connection can read from the broker, as values, and how packets begin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .message import Message

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x20, 0x30, 0x40, 0x50, 0x60, 0x70
SUBACK, UNSUBACK, PINGRESP, DISCONNECT, AUTH = 0x90, 0xB0, 0xD0, 0xE0, 0xF0
CONTINUE_AUTHENTICATION, RE_AUTHENTICATE = 0x18, 0x19  # MQTT 5 section 3.15.2.1

PINGREQ_PACKET = b"\xc0\x00"


class Connack(NamedTuple):
    session_present: bool
    reason: int  # MQTT 5; return codes of 3.1.1 are translated
    properties: dict[str, Any]


class Acknowledgement(NamedTuple):
    kind: int  # PUBACK, PUBREC, PUBREL or PUBCOMP
    packet_id: int
    reason: int


# The constructor of a NamedTuple takes twice as long.
acknowledgement: Callable[[tuple[int, int, int]], Acknowledgement] = partial(tuple.__new__, Acknowledgement)


class Suback(NamedTuple):
    packet_id: int
    reasons: list[int]


class Unsuback(NamedTuple):
    packet_id: int


class Pingresp(NamedTuple):
    pass


class Disconnect(NamedTuple):
    reason: int
    server: str | None = None  # that the broker names instead (MQTT 5 section 3.14.2.2.5)


class Auth(NamedTuple):
    reason: int  # 0 at the end of an exchange


Packet = Connack | Message | Acknowledgement | Suback | Unsuback | Pingresp | Disconnect | Auth
