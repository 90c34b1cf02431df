"""TokenKeeper: the current token, renewed in time, once, for all threads and processes."""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ..clock import monotonic
from ..errors import (
    ClientClosed,
    ConfigurationError,
    InvalidTokenResponse,
    MqttTokenError,
    StoreLocked,
    TokenError,
    TokenRequestRefused,
    TokenUnchanged,
)
from ..events import Event, LoginRequired, RenewalFailed, TokenRenewed
from ..sources import TokenSource
from ..stores import TokenStore
from ..stores.guarded import GuardedStore
from ..stores.memory import MemoryStore
from ..token import Token
from .renewal import RenewalPolicy

__all__ = ["RenewalPolicy", "TokenKeeper"]

_log = logging.getLogger(__name__)

Observer = Callable[[Event, Token | None], None]

_APART = 1.0  # seconds, at least, between one request and the next renewal in the background
_LONGEST_EXIT = 60.0  # seconds, at most, that the process waits at its end for an answer that must not be lost
_ROUNDING = 2.0  # seconds by which the end of one and the same token may seem to move


_refreshing: set[TokenKeeper] = set()  # whose refresh token may be used up already, and its successor not stored yet


@atexit.register
def _finish_refreshing() -> None:
    """Let requests come to their end, rather than lose what a person has approved."""
    until = monotonic() + _LONGEST_EXIT
    while _refreshing and monotonic() < until:
        time.sleep(0.02)


class _Flight:
    """One look for a token, which any number of threads wait for."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.landed = False
        self.asked = False  # whether the source answered; not so if a stored token was enough, or at an interrupt
        self.result: Token | MqttTokenError = TokenError("the request for a token was interrupted")

    def outcome(self) -> Token:
        if isinstance(self.result, Token):
            return self.result
        raise _bare(self.result)


class TokenKeeper:
    """Holds the current token and renews it before it ends.

    Safe to use from any thread: callers at the same time share one request to the source, and so do all processes that
    share a store with a lock. A failed renewal costs nothing while the token lives.

    Args:
        source: makes new tokens.
        store: keeps the token across restarts; None keeps it in this object only.
        key: the name under which the store keeps it; by default the source's own ``key``.
        policy: when to renew.
        on_event: gets :class:`TokenRenewed`, :class:`RenewalFailed`, :class:`LoginRequired` and
            :class:`StoreFailed`, on the thread that renewed.

    Raises:
        ConfigurationError: an argument is wrong, or there is a store and no key.
    """

    def __init__(
        self,
        source: TokenSource,
        store: TokenStore | None = None,
        *,
        key: str | None = None,
        policy: RenewalPolicy | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        if not callable(getattr(source, "fetch", None)):
            raise ConfigurationError("source: an object with fetch(previous) is needed")
        if store is not None and not all(callable(getattr(store, name, None)) for name in ("load", "save", "delete")):
            raise ConfigurationError(
                "store: an object with load(key), save(key, token) and delete(key) is needed, such as open_store()"
            )
        key = getattr(source, "key", None) if key is None else key
        if store is not None and (not isinstance(key, str) or not key):
            raise ConfigurationError("key: a name for the stored token is needed, as the source has none of its own")
        if policy is not None and not isinstance(policy, RenewalPolicy):
            raise ConfigurationError(f"policy: a RenewalPolicy is needed, not {type(policy).__name__}")
        if on_event is not None and not callable(on_event):
            raise ConfigurationError("on_event: a function of one event is needed")
        self._source = source
        self._kept = GuardedStore(MemoryStore() if store is None else store, key or "", self._happened)
        self._policy = policy or RenewalPolicy()
        self._listeners = [] if on_event is None else [on_event]
        self._observers: list[Observer] = []
        # Guards all below. What follows _closed is changed by the thread of the one flight only.
        self._changed = threading.Condition()
        self._flight: _Flight | None = None
        self._closed = False
        self._token: Token | None = None
        self._due = -math.inf
        self._error: MqttTokenError | None = None  # of the last request; None once one has succeeded
        self._failures = 0
        self._loaded = False
        self._asked_at = -math.inf
        self._events: list[tuple[Event, Token | None]] = []  # reported once the flight has landed

    @property
    def token(self) -> Token:
        """A valid token, fetched if need be, which blocks; past the renewal time the current one is returned and a
        renewal starts in the background.

        Raises:
            TokenError: there is none, and none could be obtained; during a back-off the last error, without a request.
            ClientClosed: there is none, and the keeper is closed.
        """
        token = self.get()
        if self.renewal_due <= monotonic():
            with suppress(RuntimeError):  # no thread to be had: the next caller tries again
                threading.Thread(target=self.renew_when_due, name="token-renewal", daemon=True).start()
        return token

    @property
    def current(self) -> Token | None:
        """The token in hand, alive or not; never blocks."""
        return self._token

    @property
    def renewal_due(self) -> float:
        """When the next renewal or retry begins, as a reading of :func:`~mqtt_token_client.clock.monotonic`; infinite
        for a token without an end and for a closed keeper, and minus infinity while there is no token and nothing
        failed. While a request is under way it is ahead, by a second or more: look again then.
        """
        with self._changed:
            if self._closed:
                return math.inf
            return self._due if self._flight is None else max(self._due, monotonic() + _APART)

    def get(self, refused: Token | None = None) -> Token:
        """Like :attr:`token`, but never ``refused``, a token that a broker did not take: if that is the current one, a
        new one is fetched. Past the renewal time it does not renew in the background.
        """

        def enough() -> bool:
            return _is_alive(self._token) and self._token != refused

        with self._changed:
            while True:
                if self._token is not None and enough():
                    return self._token
                flight = self._flight
                if flight is None:
                    break
                self._wait_for(flight)
                if flight.asked and not isinstance(flight.result, Token) and not enough():
                    raise _bare(flight.result)
            if self._error is not None and monotonic() < self._due:
                raise _bare(self._error)
            flight = self._start()
        return self._fly(flight, enough, refused)

    def renew(self) -> Token:
        """Fetch a new token now, back-off or not; callers at the same time share the request.

        Raises:
            TokenError: it could not be obtained. The current token stays.
            ClientClosed: the keeper is closed.
        """
        with self._changed:
            while (flight := self._flight) is not None:
                self._wait_for(flight)
                if flight.asked:
                    return flight.outcome()
            flight = self._start()
        return self._fly(flight, lambda: False)

    def renew_when_due(self) -> None:
        """Renew if :attr:`renewal_due` has passed and nobody is at it; never raises for a failed renewal, whose event
        tells. Returns at once where there is nothing to do.
        """
        with self._changed:
            if self.renewal_due > monotonic():
                return
            flight = self._start()
        with suppress(MqttTokenError):
            self._fly(flight, lambda: _is_alive(self._token) and self._due > monotonic())

    def watch(self) -> Callable[[], None]:
        """From now on renew as soon as the source has another token, where it can tell, as :class:`TokenFile` can.

        Returns:
            The function that ends it.
        """
        watch = getattr(self._source, "watch", None)
        if not callable(watch):
            return lambda: None

        def changed() -> None:
            with suppress(MqttTokenError):  # an event tells
                self.renew()

        end: Callable[[], None] = watch(changed)
        return end

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Report each event to ``observer`` too, with the new token if it is a :class:`TokenRenewed`; in order.

        For use inside the library: the observer is called under the keeper's lock, so it must neither block nor use
        the keeper.

        Returns:
            The function that ends it.
        """
        with self._changed:
            self._observers.append(observer)

        def end() -> None:
            with self._changed, suppress(ValueError):
                self._observers.remove(observer)

        return end

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Have each event told to ``listener`` too, on the thread that renewed."""
        with self._changed:
            self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[Event], None]) -> None:
        """Tell ``listener`` no further events; no error if it was not told any."""
        with self._changed, suppress(ValueError):
            self._listeners.remove(listener)

    def close(self) -> None:
        """Start no further renewals. Does not wait for one under way; the end of the process waits for one that uses a
        refresh token, for a minute at most.
        """
        with self._changed:
            self._closed = True

    # One flight at a time

    def _start(self) -> _Flight:
        """Begin a flight; the lock is held, and there is none."""
        if self._closed:
            raise ClientClosed("the token keeper is closed")
        self._flight = _Flight()
        return self._flight

    def _wait_for(self, flight: _Flight) -> None:
        if flight.thread == threading.get_ident():
            raise TokenError("a token was asked for by the source or the listener that a request for it waits for")
        while not flight.landed:
            self._changed.wait()

    def _fly(self, flight: _Flight, enough: Callable[[], bool], refused: Token | None = None) -> Token:
        """Load the stored token if nobody has, ask the source unless that is ``enough``, and tell what happened."""
        stale = False
        try:
            if not self._loaded:
                self._loaded = True
                self._take_over(self._kept.load())
                stale = self._due <= monotonic()
            if self._token is not None and enough() and not stale:
                flight.result = self._token
            else:
                flight.result = self._look(enough, refused)
                flight.asked = True
                # A stored token that is due may have ended while the power was off, for all that a device without a
                # clock knows: a new one is better, and it is better than none.
                if stale and self._token is not None and enough():
                    flight.result = self._token
        finally:
            _refreshing.discard(self)
            with self._changed:
                happened, self._events = self._events, []
                self._flight = None
                flight.landed = True
                self._changed.notify_all()
                for event, token in happened:
                    self._notify(event, token)
        for event, _ in happened:
            self._tell(event)
        return flight.outcome()

    def _look(self, enough: Callable[[], bool], refused: Token | None) -> Token | MqttTokenError:
        """A new token: of another process, which has stored it meanwhile, or else of the source."""
        try:
            lock = self._kept.lock()
        except StoreLocked as error:
            return self._fail(_bare(error))
        with lock:
            if self._kept.shared and self._take_over(self._kept.load()) and self._token is not None:
                fresh = _is_alive(self._token) and self._token != refused and self._due > monotonic()
                if fresh or enough():
                    self._happened(_renewed(self._token), self._token)
                    return self._token
            return self._ask(refused)

    def _take_over(self, stored: Token | None) -> bool:
        """Have the stored token instead of the one in hand, if it was asked for later."""
        held = self._token
        if stored is None or (held is not None and (_is_same(stored, held) or stored.since <= held.since)):
            return False
        with self._changed:
            self._token, self._due = stored, self._policy.due(stored)
            self._error, self._failures = None, 0
        return True

    def _ask(self, refused: Token | None) -> Token | MqttTokenError:
        previous, self._asked_at = self._token, monotonic()
        if previous is not None and previous.refresh_token is not None:
            _refreshing.add(self)
        try:
            token = self._fetch(previous)
        except MqttTokenError as error:
            return self._fail(_bare(error))
        except Exception as error:  # noqa: BLE001 - a user's source, and its text may hold a secret
            return self._fail(TokenError(f"source: fetch() raised {type(error).__name__} {_place(error)}"))
        fault = _fault(token, previous, refused)
        if fault is None or token == previous:  # the same token may bring a new refresh token
            if previous is None or not _is_same(token, previous):
                self._kept.save(token)
            self._token = token
        return self._fail(fault) if fault else self._succeed(token, previous)

    def _fetch(self, previous: Token | None) -> Token:
        try:
            return self._source.fetch(previous)
        except TokenRequestRefused as error:
            if error.error != "invalid_grant" or previous is None or previous.refresh_token is None:
                raise
            refusal = _bare(error)
        # Another process may have used the refresh token, without the lock or before this one had it.
        stored = self._kept.load()
        if stored is not None and stored.refresh_token not in (None, previous.refresh_token):
            return self._source.fetch(stored)
        with self._changed:
            self._token = _without_refresh_token(previous)
        _refreshing.discard(self)
        required = LoginRequired(refusal)  # reported now, as the person may take a while
        with self._changed:
            self._notify(required)
        self._tell(required)
        return self._source.fetch(None)

    def _succeed(self, token: Token, previous: Token | None) -> Token:
        if previous is not None and token == previous and _end(token) - _end(previous) <= _ROUNDING:
            due = monotonic() + self._policy.fraction * token.expires_in
        else:
            due = self._policy.due(token)
            self._happened(_renewed(token), token)
        with self._changed:
            self._due = max(due, self._asked_at + _APART)
            self._error, self._failures = None, 0
        return token

    def _fail(self, error: MqttTokenError) -> MqttTokenError:
        now = monotonic()
        with self._changed:
            self._failures += 1
            self._due = max(now + self._policy.delay(error, self._failures), self._asked_at + _APART)
            self._error = error
        left = 0.0 if self._token is None else max(0.0, self._token.expires_in)
        self._happened(RenewalFailed(error, self._due - now, left))
        return error

    def _happened(self, event: Event, token: Token | None = None) -> None:
        self._events.append((event, token))

    def _notify(self, event: Event, token: Token | None = None) -> None:
        """Notify the observers; under the lock, so that they get the tokens in order."""
        for observer in self._observers:
            observer(event, token)

    def _tell(self, event: Event) -> None:
        # No listener may raise here: it is somebody else's.
        with self._changed:
            listeners = tuple(self._listeners)
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a user's function
                _log.exception("a listener for token events raised an exception; it is ignored")


def _is_alive(token: Token | None) -> bool:
    """Whether there is a token and it has enough life left to connect with."""
    return token is not None and token.expires_in > min(1.0, 0.02 * token.lifetime)


def _is_same(one: Token, other: Token) -> bool:
    """Whether there is nothing new in a token; the time at which a stored one was asked for may be a guess."""
    return one == other and one.refresh_token == other.refresh_token


def _end(token: Token) -> float:
    return token.since + token.lifetime


def _renewed(token: Token) -> TokenRenewed:
    jti = token.claims.get("jti")
    return TokenRenewed(token.expires_in, jti if isinstance(jti, str) else None)


def _without_refresh_token(token: Token) -> Token:
    return Token(token.value, token.lifetime, scope=token.scope, since=token.since)


def _fault(token: object, previous: Token | None, refused: Token | None) -> TokenError | None:
    """What is wrong with what a source returned, or None."""
    if not isinstance(token, Token):
        return InvalidTokenResponse(f"source: fetch() returned {type(token).__name__}, not a Token")
    if token == refused:
        return TokenUnchanged("source: fetch() returned the very token that the broker refused")
    if not _is_alive(token):
        if token == previous:
            return TokenUnchanged("source: fetch() returned the very token that has ended")
        return InvalidTokenResponse("source: fetch() returned a token that has ended already")
    return None


def _place(error: Exception) -> str:
    """Where an exception was raised, and nothing of what it says."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    return "" if frames is None else f"in {frames.tb_frame.f_code.co_filename}, line {frames.tb_lineno}"


def _bare(error: MqttTokenError) -> MqttTokenError:
    """An error to be raised again, in any thread: without the frames of the last time, which hold on to secrets."""
    return error.with_traceback(None)
