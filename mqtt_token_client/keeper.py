"""TokenKeeper: the current token, renewed in time, once, for all threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .backoff import Backoff
from .events import Event
from .sources import TokenSource
from .stores import TokenStore
from .token import Token


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """When a token is renewed.

    Args:
        fraction: the part of its life after which the renewal begins.
        jitter: the part of its life by which, at most, the renewal begins earlier, at random, so that devices that
            started together do not ask together.
        backoff: the delays between failed tries.

    Raises:
        ConfigurationError: the numbers leave no life before or after the renewal.
    """

    fraction: float = 2 / 3
    jitter: float = 1 / 20
    backoff: Backoff = Backoff()


class TokenKeeper:
    """Holds the current token and renews it before it ends.

    Safe to use from any thread: callers at the same time share one request to the source. A failed renewal costs
    nothing while the token lives.

    Args:
        source: makes new tokens.
        store: keeps the token across restarts; None keeps it in this object only.
        key: the name under which the store keeps it; by default the source's own ``key``.
        policy: when to renew.
        on_event: gets :class:`TokenRenewed` and :class:`RenewalFailed`, on the thread that renewed.
    """

    def __init__(
        self,
        source: TokenSource,
        store: TokenStore | None = None,
        *,
        key: str | None = None,
        policy: RenewalPolicy | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None: ...

    @property
    def token(self) -> Token:
        """A valid token, fetched if need be, which blocks; past the renewal time the current one is returned and a
        renewal starts in the background.

        Raises:
            TokenError: there is none, and none could be obtained; during a back-off the last error, without a request.
        """
        ...

    @property
    def current(self) -> Token | None:
        """The token in hand, alive or not; never blocks."""
        ...

    @property
    def renewal_due(self) -> float:
        """When the next renewal or retry begins, as a reading of :func:`~mqtt_token_client.clock.elapsed`; infinite
        for a token without an end, and minus infinity while there is no token and nothing failed.
        """
        ...

    def get(self, refused: Token | None = None) -> Token:
        """Like :attr:`token`, but never ``refused``, a token that a broker did not take: if that is the current one, a
        new one is fetched. Past the renewal time it does not renew in the background.
        """
        ...

    def renew(self) -> Token:
        """Fetch a new token now, back-off or not; callers at the same time share the request.

        Raises:
            TokenError: it could not be obtained. The current token stays.
        """
        ...

    def renew_when_due(self) -> None:
        """Renew if :attr:`renewal_due` has passed and nobody is at it; never raises for a failed renewal, whose event
        tells. Returns at once where there is nothing to do.
        """
        ...

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Have each event told to ``listener`` too, on the thread that renewed."""
        ...

    def remove_listener(self, listener: Callable[[Event], None]) -> None: ...

    def close(self) -> None:
        """Start no further renewals. Does not wait for one under way."""
        ...
