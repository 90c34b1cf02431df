"""When a certificate is valid (RFC 5280 section 4.1.2.5). ``ssl`` shows that of a connection's other side only."""

from __future__ import annotations

import ssl
import time
from calendar import timegm
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_VERSION, _UTC_TIME = 0xA0, 0x17  # tags
_VALIDITY = 3  # after serial number, signature and issuer


class Validity(NamedTuple):
    """From when and until when a certificate is valid, in seconds since the epoch."""

    begins: float
    ends: float


def validity(pem: str) -> Validity | None:
    """Return the validity of the first certificate in a PEM file; None if that cannot be read."""
    with suppress(ValueError, IndexError, StopIteration):
        begin = pem.index(_BEGIN)
        der = ssl.PEM_cert_to_DER_cert(pem[begin : pem.index(_END, begin) + len(_END)])
        _, certificate = next(_elements(der))
        _, to_be_signed = next(_elements(certificate))
        fields = [(tag, content) for tag, content in _elements(to_be_signed) if tag != _VERSION]
        begins, ends = (_time(tag, content) for tag, content in _elements(fields[_VALIDITY][1]))
        return Validity(begins, ends)
    return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element in data in DER (ITU-T X.690 section 8.1)."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size >= 0x80:  # the number of bytes that have the size
            size, at = int.from_bytes(data[at : at + size - 0x80]), at + size - 0x80
        yield tag, data[at : at + size]
        at += size


def _time(tag: int, content: bytes) -> float:
    year = "%y" if tag == _UTC_TIME else "%Y"
    return timegm(time.strptime(content.decode(), f"{year}%m%d%H%M%SZ"))
