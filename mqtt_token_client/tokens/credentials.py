"""CredentialsProvider: what one client's connection needs of the keeper and the profile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..clock import TimesOfDay, monotonic, synchronized_wall
from ..errors import ConfigurationError
from ..events import Event
from ..mqtt.runtime.base import Runtime
from ..profiles import Credentials, Profile
from ..sources import AsyncTokenSource, TokenSource
from ..stores import TokenStore
from ..token import Token
from .keeper import RenewalPolicy, TokenKeeper

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .turns import Turn

_OVERDUE = 60.0  # seconds after which a renewal that has not begun will not begin any more


def open_keeper(
    tokens: TokenSource | AsyncTokenSource | TokenKeeper,
    store: TokenStore | None,
    renewal: RenewalPolicy | None,
    key: str,
) -> TokenKeeper:
    """Return the keeper that was given, or a new one for a source; ``key`` names its token if the source does not.

    Raises:
        ConfigurationError: an argument is wrong, or cannot be combined with another.
    """
    if isinstance(tokens, TokenKeeper):
        if store is not None or renewal is not None:
            raise ConfigurationError("tokens: a TokenKeeper has its own store and renewal; give them to it")
        return tokens
    if not callable(getattr(tokens, "fetch", None)):
        raise ConfigurationError(
            f"tokens must be a TokenKeeper or a source with fetch(previous), got {type(tokens).__name__}"
        )
    if renewal is not None and not isinstance(renewal, RenewalPolicy):
        raise ConfigurationError(f"renewal must be a RenewalPolicy, got {type(renewal).__name__}")
    own_key = store is None or hasattr(tokens, "key")  # without a store none is needed
    return TokenKeeper(tokens, store, key=None if own_key else key, policy=renewal)


class CredentialsProvider:
    """The credentials that one client's connection asks for, and the new tokens that it moves onto.

    Args:
        keeper: holds the token; other clients may share it.
        profile: how the broker expects the token in CONNECT.
        client_id: the MQTT client identifier.
        shared: whether the keeper is the application's own.
    """

    def __init__(self, keeper: TokenKeeper, profile: Profile, client_id: str, *, shared: bool = False) -> None:
        self._keeper = keeper
        self._shared = shared
        self._profile = profile
        self._client_id = client_id
        self._user_name: str | None = None  # in the credentials that were made last
        self._runtime: Runtime | None = None
        self._urgent = False  # whether the application asked for the next rotation
        self._stop_renewing: Callable[[], None] | None = None
        self._stop_observing: Callable[[], None] = lambda: None
        self._stop_watching: Callable[[], None] = lambda: None

    @property
    def token(self) -> Token | None:
        """The current token, even if it has expired; None while there is none."""
        return self._keeper.current

    @property
    def healthy(self) -> bool:
        """Whether a token is valid, or a request for one is under way or planned."""
        token = self._keeper.current
        return (token is not None and token.expires_in > 0) or self._keeper.renewal_due > monotonic() - _OVERDUE

    def times_of_day(self) -> TimesOfDay:
        """Return what the clocks say that can be trusted: that of the authorization server, once it has said it, and
        that of this machine if NTP keeps it.
        """
        server = self._keeper.server_clock
        return TimesOfDay(server.now() if server is not None and server.from_server else None, synchronized_wall())

    def renew(self) -> Token:
        """Renew the token now. Blocks.

        Raises:
            TokenError: the token could not be renewed.
            ClientClosed: the keeper is closed.
        """
        self._urgent = True
        try:
            return self._keeper.renew()
        except BaseException:
            self._urgent = False
            raise

    def use_loop(self, loop: AbstractEventLoop) -> None:
        """Run a source whose ``fetch`` is a coroutine function on an event loop."""
        self._keeper.source_on_loop.use(loop)

    async def leave_loop(self, seconds: float) -> None:
        """Run no such source any more, unless it belongs to a keeper that others share; see
        :meth:`.SourceOnLoop.leave`.
        """
        if not self._shared:
            await self._keeper.source_on_loop.leave(seconds)

    # Called by a connection, on a worker thread

    def credentials(self, refused: Token | None) -> Credentials:
        """Make credentials of a valid token other than ``refused``. Blocks.

        Raises:
            TokenError: no such token could be obtained.
            ConfigurationError: the profile cannot make credentials of the token.
        """
        token = self._keeper.get(refused)
        if self._keeper.unsaved:
            self._keeper.renew_in_background()  # stores it, as no timer runs without a connection
        try:
            placed: object = self._profile.place(token, self._client_id)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a user's profile; its text may hold the token
            raise ConfigurationError(f"profile: place() raised {type(error).__name__}") from None
        if not isinstance(placed, Credentials):
            kind = "str" if isinstance(placed, str) else type(placed).__name__  # perhaps the token itself
            raise ConfigurationError(f"profile: place() must return Credentials, got {kind}")
        self._user_name = placed.username
        return placed

    def rejection_hint(self, token: Token) -> str:
        """Say what the broker got that rejected this token, and what to check there. It is not a secret. Called on the
        network thread, so that the profile, which is the application's, is not asked again.
        """
        from .rejection import rejection_hint  # seldom needed

        return rejection_hint(token, self._user_name, self._client_id, self._keeper.server_clock)

    def retry_in(self) -> float:
        """Seconds until it makes sense to ask again after a TokenError."""
        return max(0.0, self._keeper.renewal_due - monotonic())

    def start(self, runtime: Runtime, on_token: Callable[[Token], None], on_event: Callable[[Event], None]) -> None:
        """Report new tokens and the keeper's events, until :meth:`stop`. Called on the application's thread.

        Args:
            runtime: calls the two functions, on its thread.
            on_token: gets each new token, in the order in which they were issued, before its ``TokenRenewed``.
            on_event: gets each event of the keeper.
        """

        def notified(event: Event, token: Token | None) -> None:
            runtime.call_soon(lambda: report(event, token))

        def report(event: Event, token: Token | None) -> None:
            if self._runtime is not runtime:
                return
            if token is not None:
                on_token(token)
            on_event(event)

        self._keeper.prepare_for_exit()
        self._stop_watching = self._keeper.watch()
        self._runtime = runtime
        self._stop_observing = self._keeper.observe(notified)

    # On the runtime's thread

    def stop(self) -> None:
        """Report nothing more, and renew no token ahead of its expiry. If the token could not be stored, try again."""
        self._stop_observing()
        self._stop_watching()
        self.renew_ahead(wanted=False)
        if self._runtime is not None and self._keeper.unsaved:
            self._runtime.run_blocking(self._keeper.save_again, lambda _none, _error: None)
        self._runtime = None

    def take_turn(self, token: Token, begin: Callable[[], None]) -> Turn | None:
        """Call ``begin`` when the connection may move onto another token than ``token``, which it has.

        Returns:
            The client's turn, to be ended when the connection has moved; None if it need not wait, and ``begin`` was
            not called.
        """
        assert self._runtime is not None, "started"
        urgent, self._urgent = self._urgent, False
        return self._keeper.take_turn(self._runtime, begin, valid_for=token.expires_in, urgent=urgent)

    def renew_ahead(self, *, wanted: bool) -> None:
        """Say whether to renew the token before it expires. A client that reconnects gets the token it needs itself."""
        if wanted and self._stop_renewing is None:
            assert self._runtime is not None, "started"
            self._stop_renewing = self._keeper.renew_ahead(self._runtime)
        elif not wanted and self._stop_renewing is not None:
            self._stop_renewing()
            self._stop_renewing = None
