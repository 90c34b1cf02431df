"""Which hosts are this machine: plain MQTT and plain HTTP are for these alone, unless they are asked for."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own: ``localhost`` and all names below it (RFC 6761 section
    6.3), 127.0.0.0/8 and ::1.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        name = host.lower().removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")
