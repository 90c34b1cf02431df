"""What a broker's refusal means: the token's fault, the broker's trouble, or ours.

The codes are those of MQTT 5 (section 3.2.2.2 for CONNACK, 3.14.2.1 for DISCONNECT); the return codes of 3.1.1
(section 3.2.2.3) are translated to them: 1 is 0x84, 2 is 0x85, 3 is 0x88, 4 is 0x86, 5 is 0x87. A WebSocket has two
ways of its own to say no: the HTTP status that answers the upgrade, and the code of its Close frame.
"""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """Whose fault a refusal is, and so what to do."""

    TOKEN = "get a new token"  # noqa: S105 - no password
    BROKER = "keep the token and come back later"
    OURS = "tell whoever configured this"


NOT_AUTHORIZED = 0x87

_CONNACK: dict[int, tuple[str, Fault]] = {
    0x80: ("Unspecified error", Fault.BROKER),
    0x81: ("Malformed Packet", Fault.OURS),
    0x82: ("Protocol Error", Fault.OURS),
    0x83: ("Implementation specific error", Fault.BROKER),
    0x84: ("Unsupported Protocol Version", Fault.OURS),
    0x85: ("Client Identifier not valid", Fault.OURS),
    0x86: ("Bad User Name or Password", Fault.TOKEN),
    0x87: ("Not authorized", Fault.TOKEN),
    0x88: ("Server unavailable", Fault.BROKER),
    0x89: ("Server busy", Fault.BROKER),
    0x8A: ("Banned", Fault.OURS),
    0x8C: ("Bad authentication method", Fault.OURS),
    0x90: ("Topic Name invalid", Fault.OURS),  # of the will, as are 0x99, 0x9A and 0x9B
    0x95: ("Packet too large", Fault.OURS),
    0x97: ("Quota exceeded", Fault.BROKER),
    0x99: ("Payload format invalid", Fault.OURS),
    0x9A: ("Retain not supported", Fault.OURS),
    0x9B: ("QoS not supported", Fault.OURS),
    0x9C: ("Use another server", Fault.BROKER),
    0x9D: ("Server moved", Fault.BROKER),
    0x9F: ("Connection rate exceeded", Fault.BROKER),
}

# How brokers end a connection whose token has ended: EMQX 0x87, Mosquitto's kick 0x98, RabbitMQ 0xA0.
_TOKEN_ENDED = frozenset((0x87, 0x98, 0xA0))

# The other codes that a broker may send (MQTT 5 section 2.4): in DISCONNECT, SUBACK, UNSUBACK, PUBACK, PUBREC, AUTH.
_OTHER_NAMES = {
    0x00: "Normal disconnection",
    0x8B: "Server shutting down",
    0x8D: "Keep Alive timeout",
    0x8E: "Session taken over",
    0x8F: "Topic Filter invalid",
    0x91: "Packet Identifier in use",
    0x92: "Packet Identifier not found",
    0x93: "Receive Maximum exceeded",
    0x94: "Topic Alias invalid",
    0x96: "Message rate too high",
    0x98: "Administrative action",
    0x9E: "Shared Subscriptions not supported",
    0xA0: "Maximum connect time",
    0xA1: "Subscription Identifiers not supported",
    0xA2: "Wildcard Subscriptions not supported",
}

# RFC 6455 section 7.4.1, and the registry of IANA that it sets up. EMQX closes with 1000 when the token ends: that is
# judged as a TCP connection that closes without a word is, by how near the end of the token is.
_WEBSOCKET_CLOSE: dict[int, tuple[str, Fault]] = {
    1000: ("Normal Closure", Fault.BROKER),
    1001: ("Going Away", Fault.BROKER),
    1002: ("Protocol error", Fault.BROKER),
    1003: ("Unsupported Data", Fault.BROKER),
    1005: ("No Status Rcvd", Fault.BROKER),
    1007: ("Invalid frame payload data", Fault.BROKER),
    1008: ("Policy Violation", Fault.TOKEN),
    1009: ("Message Too Big", Fault.BROKER),
    1011: ("Internal Error", Fault.BROKER),
    1012: ("Service Restart", Fault.BROKER),
    1013: ("Try Again Later", Fault.BROKER),
    1014: ("Bad Gateway", Fault.BROKER),
    3000: ("Unauthorized", Fault.TOKEN),
    3003: ("Forbidden", Fault.TOKEN),
    3008: ("Timeout", Fault.BROKER),
}

_ADVICE = {
    0x81: "the broker cannot read what this client sends; try the other protocol version",
    0x82: "the broker objects to what this client sends; try the other protocol version",
    0x84: "the broker does not speak this version of MQTT; try the other protocol (5 or 4)",
    0x85: "choose a client_id that the broker allows",
    0x8A: "the broker has banned this client; ask who runs it",
    0x8C: "the broker does not offer this way to authenticate; choose another profile",
    0x90: "choose a will topic that the broker allows",
    0x95: "the token is too large for the broker; ask for fewer claims",
    0x99: "the will's payload is not what its properties say",
    0x9A: "the broker keeps no retained messages; set retain=False in the will",
    0x9B: "choose a lower qos for the will",
}


def connack_fault(reason: int) -> Fault:
    """Whose fault a CONNACK with this code is. A code that MQTT does not know is the broker's trouble."""
    return _CONNACK.get(reason, ("", Fault.BROKER))[1]


def disconnect_fault(reason: int) -> Fault:
    """Whose fault a DISCONNECT from the broker is."""
    return Fault.TOKEN if reason in _TOKEN_ENDED else Fault.BROKER


def websocket_close(code: int) -> tuple[str, Fault]:
    """The name of the code of a Close frame from the broker, and whose fault it is. Codes that nobody has registered,
    among them those of applications (from 4000 on), have no name and are the broker's trouble.
    """
    return _WEBSOCKET_CLOSE.get(code, ("", Fault.BROKER))


def upgrade_fault(status: int) -> Fault:
    """Whose fault it is that the upgrade to a WebSocket was answered with this HTTP status (RFC 9110 section 15,
    RFC 6585 section 4 for 429). Anything but 401, 403 and what says to come back is the answer of something else than
    a broker.
    """
    if status in (401, 403):
        return Fault.TOKEN
    return Fault.BROKER if status >= 500 or status in (408, 425, 429) else Fault.OURS


def reason_name(reason: int) -> str:
    """The name of a code, as the MQTT 5 specification writes it."""
    known = _CONNACK.get(reason)
    return known[0] if known else _OTHER_NAMES.get(reason, f"reason code 0x{reason:02x}")


def advice(reason: int) -> str:
    """What a person can do about a refusal that is ours."""
    return _ADVICE.get(reason, "see the broker's log")
