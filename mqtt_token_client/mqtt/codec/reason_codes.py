"""Reason codes: whether a rejection by the broker means the token, the broker or the configuration.

The codes are those of MQTT 5 (section 2.4); the return codes of 3.1.1 (section 3.2.2.3) are translated to them: 1 is
0x84, 2 is 0x85, 3 is 0x88, 4 is 0x86, 5 is 0x87. A WebSocket adds two ways to reject: the HTTP status that answers the
upgrade, and the code of its Close frame. AUTH rejects nothing: a broker that does not accept the token sends CONNACK or
DISCONNECT (section 4.12).
"""

from __future__ import annotations

from enum import Enum

from .packets import CONNACK, DISCONNECT, MALFORMED_PACKET, PROTOCOL_ERROR, PUBACK, PUBREC, SUBACK, UNSUBACK


class Action(Enum):
    """What to do about a rejection."""

    NEW_TOKEN = "get a new token"  # noqa: S105 - not a password
    RETRY = "keep the token and try again later"
    GIVE_UP = "report it to whoever configured the client"


UNSPECIFIED, IMPLEMENTATION_SPECIFIC, NOT_AUTHORIZED = 0x80, 0x83, 0x87
BAD_METHOD, TAKEN_OVER, IDENTIFIER_NOT_FOUND = 0x8C, 0x8E, 0x92
TOPIC_ALIAS_INVALID, PACKET_TOO_LARGE, QUOTA_EXCEEDED = 0x94, 0x95, 0x97
QUOTAS = frozenset((0x93, 0x96, QUOTA_EXCEEDED))  # less was announced, or is allowed, than what this client sends

_T, _B, _O, _X = Action.NEW_TOKEN, Action.RETRY, Action.GIVE_UP, None  # None: MQTT has no such code there

# In CONNACK, 0x90, 0x99, 0x9A and 0x9B are about the will (section 3.2.2.2). When the token expires, EMQX sends
# DISCONNECT with 0x87, Mosquitto with 0x98 if an administrator has the client kicked, RabbitMQ with 0xA0.
# fmt: off
_CODES: dict[int, tuple[str, Action | None, Action | None, Action | None, Action | None]] = {
    #                                          section: 3.2.2.2  3.14.2.1    3.4.2.1, 3.5.2.1  3.9.3, 3.11.3
    #                                                   CONNACK  DISCONNECT  PUBACK, PUBREC    SUBACK
    UNSPECIFIED: ("Unspecified error",                  _B,      _B,         _B,               _B),
    MALFORMED_PACKET: ("Malformed Packet",                          _O,      _O,         _X,               _X),
    PROTOCOL_ERROR: ("Protocol Error",                  _O,      _O,         _X,               _X),
    0x83: ("Implementation specific error",             _B,      _B,         _B,               _B),
    0x84: ("Unsupported Protocol Version",              _O,      _X,         _X,               _X),
    0x85: ("Client Identifier not valid",               _O,      _X,         _X,               _X),
    0x86: ("Bad User Name or Password",                 _T,      _X,         _X,               _X),
    NOT_AUTHORIZED: ("Not authorized",                  _T,      _T,         _T,               _T),
    0x88: ("Server unavailable",                        _B,      _X,         _X,               _X),
    0x89: ("Server busy",                               _B,      _B,         _X,               _X),
    0x8A: ("Banned",                                    _O,      _X,         _X,               _X),
    0x8B: ("Server shutting down",                      _X,      _B,         _X,               _X),
    BAD_METHOD: ("Bad authentication method",           _O,      _O,         _X,               _X),
    0x8D: ("Keep Alive timeout",                        _X,      _B,         _X,               _X),
    TAKEN_OVER: ("Session taken over",                  _X,      _O,         _X,               _X),
    0x8F: ("Topic Filter invalid",                      _X,      _O,         _X,               _O),
    0x90: ("Topic Name invalid",                        _O,      _O,         _O,               _X),
    0x91: ("Packet Identifier in use",                  _X,      _X,         _B,               _B),
    0x92: ("Packet Identifier not found",               _X,      _X,         _X,               _X),
    0x93: ("Receive Maximum exceeded",                  _X,      _B,         _X,               _X),
    0x94: ("Topic Alias invalid",                       _X,      _B,         _X,               _X),
    0x95: ("Packet too large",                          _O,      _O,         _X,               _X),
    0x96: ("Message rate too high",                     _X,      _B,         _X,               _X),
    0x97: ("Quota exceeded",                            _B,      _B,         _B,               _B),
    0x98: ("Administrative action",                     _X,      _T,         _X,               _X),
    0x99: ("Payload format invalid",                    _O,      _O,         _O,               _X),
    0x9A: ("Retain not supported",                      _O,      _O,         _X,               _X),
    0x9B: ("QoS not supported",                         _O,      _O,         _X,               _X),
    0x9C: ("Use another server",                        _B,      _B,         _X,               _X),
    0x9D: ("Server moved",                              _O,      _O,         _X,               _X),
    0x9E: ("Shared Subscriptions not supported",        _X,      _O,         _X,               _O),
    0x9F: ("Connection rate exceeded",                  _B,      _B,         _X,               _X),
    0xA0: ("Maximum connect time",                      _X,      _T,         _X,               _X),
    0xA1: ("Subscription Identifiers not supported",    _X,      _O,         _X,               _O),
    0xA2: ("Wildcard Subscriptions not supported",      _X,      _O,         _X,               _O),
}
# fmt: on
_OF_SUCCESS = frozenset((0x00, 0x01, 0x02, 0x04, 0x10, 0x11, 0x18, 0x19))  # section 2.4
_COLUMNS = {CONNACK: 1, DISCONNECT: 2, PUBACK: 3, PUBREC: 3, SUBACK: 4, UNSUBACK: 4}

_ADVICE = {
    0x81: "the broker cannot read what this client sends; try the other protocol version",
    PROTOCOL_ERROR: "the broker rejects what this client sends; try the other protocol version",
    0x84: "the broker does not support this version of MQTT; try the other protocol (5 or 4)",
    0x85: "choose a client_id that the broker allows",
    0x8A: "the broker has banned this client; ask whoever runs it",
    BAD_METHOD: "the broker does not support this Authentication Method; choose another profile",
    TAKEN_OVER: "another client uses this client_id; give each client its own",
    0x8F: "choose topic filters that the broker allows",
    0x90: "choose topics that the broker allows, for the will too",
    0x95: "a packet is too large for the broker; send less at once, or ask for a token with fewer claims",
    0x99: "a payload, perhaps that of the will, does not match its properties",
    0x9A: "the broker does not retain messages; set retain=False, for the will too",
    0x9B: "choose a lower qos, for the will too",
    0x9D: "set broker to the new address of the broker",
    0x9E: "the broker does not support shared subscriptions",
    0xA1: "the broker does not support subscription_identifier",
    0xA2: "the broker does not support wildcards",
}


def action_for(packet: int, reason: int) -> Action:
    """What to do about a CONNACK, DISCONNECT, PUBACK, PUBREC, SUBACK or UNSUBACK with this code. A code that MQTT does
    not have there means a retry.
    """
    known = _CODES.get(reason)
    found = known[_COLUMNS[packet]] if known else None
    return found if isinstance(found, Action) else Action.RETRY


def is_defined(reason: int) -> bool:
    """Whether MQTT 5 has this reason code, in whatever packet (section 2.4)."""
    return reason in _OF_SUCCESS or reason in _CODES


def reason_name(reason: int) -> str:
    """The name of a code, as the MQTT 5 specification writes it."""
    if not reason:
        return "Normal disconnection"
    known = _CODES.get(reason)
    return known[0] if known else f"reason code 0x{reason:02x}"


def advice(reason: int) -> str:
    """What a person can do about a rejection with ``Action.GIVE_UP``."""
    return _ADVICE.get(reason, "see the broker's log")
