"""Checks of the arguments of a message: its payload and its Quality of Service."""

from __future__ import annotations

from ...errors import ConfigurationError

Payload = bytes | bytearray | memoryview | str | float | None
LARGEST_PAYLOAD = 268_000_000  # bytes; a packet has room for 268,435,455, with its topic and properties


def check_payload(payload: object, where: str = "publish") -> bytes:
    """Return a payload as bytes: a string in UTF-8, a number as its text, None as an empty payload.

    Raises:
        ConfigurationError: it is something else, or larger than ``LARGEST_PAYLOAD``; ``where`` names the method.
    """
    if isinstance(payload, str | int | float):
        try:
            payload = str(payload).encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"{where}: payload cannot be encoded in UTF-8") from None
        except ValueError:  # sys.set_int_max_str_digits()
            raise ConfigurationError(f"{where}: payload is a number with too many digits") from None
    elif isinstance(payload, bytes | bytearray | memoryview):
        payload = bytes(payload)
    elif payload is None:
        payload = b""
    else:
        got = type(payload).__name__
        raise ConfigurationError(f"{where}: payload must be bytes, a string, a number or None, got {got}")
    if len(payload) > LARGEST_PAYLOAD:
        raise ConfigurationError(f"{where}: payload has {len(payload)} bytes, the maximum is {LARGEST_PAYLOAD}")
    return payload


def check_qos(qos: int, where: str) -> None:
    """Check a Quality of Service.

    Raises:
        ConfigurationError: it is not 0, 1 or 2.
    """
    if not isinstance(qos, int) or not 0 <= qos <= 2:
        raise ConfigurationError(f"{where}: qos must be 0, 1 or 2, got {qos!r}")
