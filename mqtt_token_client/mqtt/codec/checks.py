"""Checks of the arguments of a message: its payload and its Quality of Service."""

from __future__ import annotations

from ...errors import ConfigurationError

LARGEST_PAYLOAD = 268_000_000  # bytes; a packet has room for 268,435,455, with its topic and properties


def check_payload(payload: object) -> bytes:
    """The payload of a message as bytes; a string is encoded in UTF-8.

    Raises:
        ConfigurationError: it is something else, or larger than ``LARGEST_PAYLOAD``.
    """
    if isinstance(payload, str):
        try:
            payload = payload.encode()
        except UnicodeEncodeError:
            raise ConfigurationError("publish: payload cannot be encoded in UTF-8") from None
    elif isinstance(payload, bytes | bytearray | memoryview):
        payload = bytes(payload)
    else:
        raise ConfigurationError(f"publish: payload must be bytes or a string, got {type(payload).__name__}")
    if len(payload) > LARGEST_PAYLOAD:
        raise ConfigurationError(f"publish: payload has {len(payload)} bytes, the maximum is {LARGEST_PAYLOAD}")
    return payload


def check_qos(qos: int, where: str) -> None:
    """Check a Quality of Service.

    Raises:
        ConfigurationError: it is not 0, 1 or 2.
    """
    if not isinstance(qos, int) or not 0 <= qos <= 2:
        raise ConfigurationError(f"{where}: qos must be 0, 1 or 2, got {qos!r}")
