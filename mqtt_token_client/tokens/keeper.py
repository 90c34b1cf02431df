"""TokenKeeper: the current token, renewed in time, once, for all threads and processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..clock import ServerClock, monotonic
from ..errors import ConfigurationError, MqttTokenError
from ..events import Event
from ..forking import reset_after_fork, works_in_one_process
from ..sources import AsyncTokenSource, TokenSource
from ..stores import TokenStore
from ..stores.guarded import GuardedStore, NoStore
from ..token import Token
from .exit_guard import postpone_signals
from .notifier import Notifier, Observer
from .off_main_thread import off_main_thread
from .on_loop import SharedCall, SourceOnLoop
from .renewal import RenewalPolicy
from .renewal_timer import RenewalTimer
from .renewer import Renewer
from .requests import Requests
from .single_flight import SingleFlight
from .validity import is_usable

if TYPE_CHECKING:
    from ..mqtt.runtime.base import Runtime
    from .turns import Turn, Turns

__all__ = ["RenewalPolicy", "TokenKeeper"]


class TokenKeeper:
    """Holds the current token and renews it before it expires.

    Safe to use from any thread: callers at the same time share one request to the source, and so do all processes that
    share a store with a lock. A failed renewal costs nothing while the token is valid. A token of more than 65,535
    bytes counts as a failed one: MQTT has no room for it (MQTT 5 section 1.5.6).

    The main thread waits for a request on another thread, so that what a signal handler raises ends only the wait.

    Args:
        source: obtains new tokens. Its ``fetch`` may be a coroutine function, if the keeper belongs to an
            :class:`AsyncTokenClient`, or is asked by :meth:`get_async`.
        store: keeps the token across restarts; None keeps it in this object only.
        key: the name under which the store keeps it; by default the source's own ``key``.
        policy: when to renew.
        on_event: gets :class:`TokenRenewed`, :class:`RenewalFailed`, :class:`LoginRequired` and
            :class:`StoreFailed`, on the thread that renewed.

    Raises:
        ConfigurationError: an argument is wrong, or there is a store and no key.
    """

    __reduce__ = works_in_one_process

    def __init__(
        self,
        source: TokenSource | AsyncTokenSource,
        store: TokenStore | None = None,
        *,
        key: str | None = None,
        policy: RenewalPolicy | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        if not callable(getattr(source, "fetch", None)):
            raise ConfigurationError(f"source must have a method fetch(previous), got {type(source).__name__}")
        if policy is not None and not isinstance(policy, RenewalPolicy):
            raise ConfigurationError(f"policy must be a RenewalPolicy, got {type(policy).__name__}")
        if on_event is not None and not callable(on_event):
            raise ConfigurationError(f"on_event must be a function of one event, got {type(on_event).__name__}")
        self._lock = threading.Condition()  # guards what follows, and is shared with it
        self._flights = SingleFlight(self._lock)
        self._events = Notifier(self._lock, on_event)
        kept = NoStore() if store is None else _guarded(store, _key(source, key), self._events)
        self.source_on_loop = SourceOnLoop(source)
        self._shared_get = SharedCall(self.get)
        self._renewer = Renewer(self.source_on_loop, kept, policy or RenewalPolicy(), self._events, self._lock)
        clock = getattr(source, "clock", None)
        self.server_clock = clock if isinstance(clock, ServerClock) else None  # of the authorization server
        self._watch = getattr(source, "watch", None)
        self._refreshes = self.source_on_loop.uses_refresh_tokens
        self._requests = Requests(self._renewer, self._flights, self._events, self._lock)
        self._timer = RenewalTimer(lambda: self._requests.due, self.renew_when_due, self._requests.not_started)
        self._events.observe(lambda _event, _token: self._timer.reschedule())
        self._turns: Turns | None = None  # until several clients share the token
        reset_after_fork(self)

    def after_fork(self) -> None:
        """In a child: go on with the token, and without the request and the timer of the parent."""
        self._lock = threading.Condition()
        self._flights.after_fork(self._lock)
        self._events.after_fork(self._lock)
        self._renewer.after_fork(self._lock)
        self._requests.after_fork(self._lock)
        self._timer.after_fork()
        self._turns = None

    @property
    def token(self) -> Token:
        """A valid token. Blocks if it must be fetched; past the renewal time the current one is returned and a renewal
        starts in the background.

        Raises:
            TokenError: no token could be obtained; during a back-off the last error, without a request.
            ClientClosed: there is no valid token, and the keeper is closed.
        """
        token = self.get()
        self.renew_in_background()
        return token

    async def get_async(self) -> Token:
        """Like :attr:`token`, for coroutines: the event loop goes on while a token is fetched. A source whose ``fetch``
        is a coroutine function runs on this loop, any other one on a thread. If it is cancelled, the request goes on.

        Raises:
            TokenError: no token could be obtained; during a back-off the last error, without a request.
            ClientClosed: there is no valid token, and the keeper is closed.
        """
        import asyncio

        self.source_on_loop.use(asyncio.get_running_loop())
        token = self.current
        if token is None or not is_usable(token):
            self.prepare_for_exit()
            return await self._shared_get.result()
        self.renew_in_background()
        return token

    def renew_in_background(self) -> None:
        """Like :meth:`renew_when_due`, on a thread of its own; that none could be started is an event too."""
        if self._requests.due <= monotonic():
            self.prepare_for_exit()
            try:
                threading.Thread(target=self.renew_when_due, name="token-renewal", daemon=True).start()
            except RuntimeError as error:
                self._requests.not_started(error)

    @property
    def current(self) -> Token | None:
        """The current token, even if it has expired; None while there is none. Never blocks."""
        return self._renewer.token

    @property
    def renewal_due(self) -> float:
        """When the next renewal or retry begins, as a reading of :func:`~mqtt_token_client.clock.monotonic`.

        Infinite for a token that does not expire and for a closed keeper; minus infinity while there is no token and
        no request has failed. While a request is under way it is at least a second ahead: look again then.
        """
        return self._requests.renewal_due

    def get(self, refused: Token | None = None) -> Token:
        """Like :attr:`token`, but never ``refused``, a token that a broker rejected: if that is the current one, a new
        one is fetched. Past the renewal time it does not renew in the background.
        """

        def enough(token: Token) -> bool:
            return is_usable(token) and token != refused

        # Without the lock: a signal handler that interrupts this may wait for the network thread, which needs it.
        if (token := self._renewer.token) is not None and enough(token):
            return token
        self.source_on_loop.check_caller()
        self.prepare_for_exit()
        return off_main_thread(lambda: self._requests.get(enough, refused))

    def renew(self) -> Token:
        """Fetch a new token now, back-off or not; callers at the same time share the request. Blocks.

        Raises:
            TokenError: it could not be obtained. The current token stays.
            ClientClosed: the keeper is closed.
        """
        self.source_on_loop.check_caller()
        self.prepare_for_exit()
        return off_main_thread(self._requests.renew)

    def renew_when_due(self) -> None:
        """Renew if :attr:`renewal_due` has passed and no thread is renewing; store a token that could not be stored
        before. Blocks meanwhile.

        A failed renewal raises nothing; its event reports it.
        """
        if self._requests.due <= monotonic():
            self.prepare_for_exit()
            off_main_thread(self._requests.renew_when_due)

    @property
    def unsaved(self) -> bool:
        """Whether the current token could not be stored."""
        return self._renewer.unsaved

    def save_again(self) -> None:
        """Store the current token if it could not be stored before. Blocks meanwhile."""
        off_main_thread(self._requests.save_again)

    def prepare_for_exit(self) -> None:
        """Let SIGTERM wait for an answer with a new refresh token; see :func:`.exit_guard.postpone_signals`."""
        if self._refreshes:
            postpone_signals()

    def watch(self) -> Callable[[], None]:
        """Renew as soon as the source has another token, if it can notice that, as :class:`TokenFile` can.

        Returns:
            The function that ends it.
        """
        if not callable(self._watch):
            return lambda: None

        def changed() -> None:
            with suppress(MqttTokenError):  # an event reports it
                self.renew()

        end: Callable[[], None] = self._watch(changed)
        return end

    def renew_ahead(self, runtime: Runtime) -> Callable[[], None]:
        """Renew in time, with a timer on ``runtime``, or on that of another client that shares this keeper.

        For use inside the library, on the runtime's thread.

        Returns:
            The function that ends it, to be called on the runtime's thread.
        """
        return self._timer.join(runtime)

    def take_turn(self, runtime: Runtime, begin: Callable[[], None], *, valid_for: float, urgent: bool) -> Turn | None:
        """Call ``begin`` when a client on ``runtime`` may move onto a new token; the arguments are those of
        :meth:`.Turns.take`.

        For use inside the library, on the runtime's thread.

        Returns:
            The client's turn; None if no other client shares the token, and ``begin`` was not called.
        """
        clients = self._timer.members
        if clients <= 1:
            return None
        with self._lock:
            if self._turns is None:
                from .turns import Turns  # few clients share a keeper

                self._turns = Turns()
        return self._turns.take(runtime, begin, clients=clients, valid_for=valid_for, urgent=urgent)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Report each event to ``observer``, with the new token if it is a :class:`TokenRenewed`; in order.

        For use inside the library: the observer is called under the keeper's lock, so it must neither block nor use
        the keeper.

        Returns:
            The function that ends it.
        """
        return self._events.observe(observer)

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Report each event to ``listener`` too, on the thread that renewed."""
        self._events.add(listener)

    def remove_listener(self, listener: Callable[[Event], None]) -> None:
        """Report no further events to ``listener``; no error if it was not added."""
        self._events.remove(listener)

    def close(self) -> None:
        """Start no further renewals; store the token if that has failed. Does not wait for a renewal under way;
        a process that ends waits for one that uses a refresh token, for a minute at most.
        """
        off_main_thread(self._requests.close)


def _key(source: object, key: str | None) -> str:
    key = getattr(source, "key", None) if key is None else key
    if not isinstance(key, str) or not key:
        raise ConfigurationError("key must be a name for the stored token, as the source has none of its own")
    return key


def _guarded(store: TokenStore, key: str, events: Notifier) -> GuardedStore:
    if not all(callable(getattr(store, name, None)) for name in ("load", "save", "delete")):
        raise ConfigurationError(
            "store must have the methods load(key), save(key, token) and delete(key), as open_store() returns it, "
            f"got {type(store).__name__}"
        )
    return GuardedStore(store, key, events.collect)
