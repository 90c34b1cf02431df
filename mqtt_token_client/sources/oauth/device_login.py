"""DeviceLogin: the code and the address with which a person approves a device."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Any

from ...clock import monotonic

LONGEST_URL = 2000  # characters: more fit into no QR code that a phone reads


def _restored(code: str, uri: str, complete: str | None, ends: float, ended: bool) -> DeviceLogin:
    """In another process, where it does not notice when the login ends."""
    login = DeviceLogin(code, uri, complete, ends)
    if ended:
        login._over.set()  # noqa: SLF001 - its own
    return login


@dataclass(frozen=True)
class DeviceLogin:
    """What a person needs to approve a device: an address to open and a code to enter there (RFC 8628 section 3.2).

    Attributes:
        user_code: the code. Show it even if ``verification_uri_complete`` is shown (section 3.3.1).
        verification_uri: the address.
        verification_uri_complete: the address with the code in it, for a link or a QR code, or None.
        ends: when the code expires, as a reading of :func:`~mqtt_token_client.clock.monotonic`.
    """

    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str | None = field(repr=False)
    ends: float = field(repr=False)
    _over: Event = field(default_factory=Event, repr=False, compare=False)

    def __copy__(self) -> DeviceLogin:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> DeviceLogin:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        shown = (self.user_code, self.verification_uri, self.verification_uri_complete, self.ends)
        return _restored, (*shown, self.ended)

    @property
    def expires_in(self) -> float:
        """Seconds until the code expires; 0 once it has expired."""
        return max(0.0, self.ends - monotonic())

    @property
    def ended(self) -> bool:
        """Whether the login is over: it was approved or refused, or the code has expired."""
        return self._over.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait until the login is over, at most ``timeout`` seconds; returns :attr:`ended`."""
        return self._over.wait(timeout)
