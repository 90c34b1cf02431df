"""DeviceLogin: what a person needs to approve a device."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

from ...clock import monotonic


@dataclass(frozen=True)
class DeviceLogin:
    """What a person needs to approve a device: an address to open and a code to enter there (RFC 8628 section 3.2).

    Attributes:
        user_code: the code. It is shown even where ``verification_uri_complete`` is (section 3.3.1).
        verification_uri: the address.
        verification_uri_complete: the address with the code in it, for a link or a QR code, or None.
        ends: when the code ends, as a reading of :func:`~mqtt_token_client.clock.monotonic`.
    """

    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str | None = field(repr=False)
    ends: float = field(repr=False)
    _over: Event = field(default_factory=Event, repr=False, compare=False)

    @property
    def expires_in(self) -> float:
        """Seconds left to approve, now; 0 once there are none."""
        return max(0.0, self.ends - monotonic())

    @property
    def ended(self) -> bool:
        """Whether nobody waits for the approval any longer: it was given or refused, or its time is over."""
        return self._over.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait until the login has ended, ``timeout`` seconds at most; returns :attr:`ended`."""
        return self._over.wait(timeout)
