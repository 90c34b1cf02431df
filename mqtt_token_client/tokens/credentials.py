"""CredentialsProvider: the keeper and the profile as one client's connection needs them."""

from __future__ import annotations

from collections.abc import Callable

from ..clock import monotonic
from ..errors import ConfigurationError
from ..events import Event
from ..mqtt.runtime.base import Runtime, Timer
from ..profiles import Credentials, Profile
from ..sources import TokenSource
from ..stores import TokenStore
from ..token import Token
from .keeper import RenewalPolicy, TokenKeeper


def open_keeper(
    tokens: TokenSource | TokenKeeper, store: TokenStore | None, renewal: RenewalPolicy | None, key: str
) -> TokenKeeper:
    """The keeper that is given, or a new one for a source; ``key`` names its token if the source does not.

    Raises:
        ConfigurationError: an argument is wrong, or does not go with another.
    """
    if isinstance(tokens, TokenKeeper):
        if store is not None or renewal is not None:
            raise ConfigurationError("tokens: a TokenKeeper has its own store and renewal; give them to it")
        return tokens
    if not callable(getattr(tokens, "fetch", None)):
        raise ConfigurationError(
            f"tokens: a TokenKeeper, or a source with fetch(previous), not {type(tokens).__name__}"
        )
    if renewal is not None and not isinstance(renewal, RenewalPolicy):
        raise ConfigurationError(f"renewal: a RenewalPolicy, not {type(renewal).__name__}")
    return TokenKeeper(tokens, store, key=None if hasattr(tokens, "key") else key, policy=renewal)


class CredentialsProvider:
    """Credentials on demand, and renewals ahead of time while they are wanted.

    Args:
        keeper: holds the token; others may share it.
        profile: places it in CONNECT.
        client_id: the MQTT client identifier.
        tell: gets each event of the keeper, on the network thread.
    """

    def __init__(self, keeper: TokenKeeper, profile: Profile, client_id: str, tell: Callable[[Event], None]) -> None:
        self._keeper = keeper
        self._profile = profile
        self._client_id = client_id
        self._tell = tell
        self._runtime: Runtime | None = None
        self._ahead = False
        self._timer: Timer | None = None
        self._end_watch: Callable[[], None] = lambda: None

    @property
    def token(self) -> Token | None:
        """The token in hand, alive or not."""
        return self._keeper.current

    def renew(self) -> None:
        """Renew now. It blocks, except on the network thread.

        Raises:
            TokenError: the token could not be renewed.
        """
        runtime = self._runtime
        if runtime is not None and runtime.on_thread:
            runtime.run_blocking(self._keeper.renew, lambda _token, _error: None)
        else:
            self._keeper.renew()

    # What a connection asks for, on a worker thread

    def credentials(self, refused: Token | None) -> Credentials:
        """Credentials made of a valid token other than ``refused``; it blocks.

        Raises:
            TokenError: there is none.
            ConfigurationError: the profile cannot place it.
        """
        token = self._keeper.get(refused)
        try:
            placed: object = self._profile.place(token, self._client_id)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a user's profile; its text may hold the token
            raise ConfigurationError(f"profile: place() raised {type(error).__name__}") from None
        if not isinstance(placed, Credentials):
            raise ConfigurationError(f"profile: place() returned {type(placed).__name__}, not Credentials")
        return placed

    def retry_in(self) -> float:
        """After a TokenError: seconds until it makes sense to ask again."""
        return max(0.0, self._keeper.renewal_due - monotonic())

    # On the network thread

    def open(self, runtime: Runtime) -> None:
        """Have the keeper's events told, from now on."""
        self._runtime = runtime
        self._keeper.add_listener(self._told)
        self._end_watch = self._keeper.watch()

    def close(self) -> None:
        """No longer."""
        self._keeper.remove_listener(self._told)
        self._end_watch()
        self.renew_ahead(wanted=False)
        self._runtime = None

    def renew_ahead(self, *, wanted: bool) -> None:
        """Whether to renew before the token ends. A reconnect gets what token it needs by itself."""
        self._ahead = wanted
        self._schedule()

    def _told(self, event: Event) -> None:
        runtime = self._runtime
        if runtime is not None:
            runtime.call_soon(lambda: self._renewal_ended(event))

    def _renewal_ended(self, event: Event) -> None:
        self._tell(event)
        self._schedule()

    def _schedule(self, no_sooner_than: float = 0.0) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._keeper.renewal_due
        if self._runtime is not None and self._ahead and due < float("inf"):
            self._timer = self._runtime.call_at(max(due, monotonic() + no_sooner_than), self._renew_when_due)

    def _renew_when_due(self) -> None:
        if self._runtime is not None and self._ahead:
            # Somebody else may be renewing the same token: then this returns at once, and the keeper tells.
            self._runtime.run_blocking(self._keeper.renew_when_due, lambda _none, _error: self._schedule(1.0))
