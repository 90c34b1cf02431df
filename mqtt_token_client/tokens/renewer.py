"""Renewer: obtains a keeper's next token, from the store if another process has renewed it, else from the source."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from ..clock import monotonic
from ..errors import MqttTokenError, StoreLocked, TokenError, TokenRequestRefused
from ..events import LoginRequired, RenewalFailed, ScopeReduced, TokenRenewed
from ..sources import TokenSource
from ..stores.guarded import GuardedStore, NoStore
from ..token import Token
from .exit_guard import ExitGuard
from .notifier import Notifier
from .renewal import RenewalPolicy
from .saving import Saving
from .single_flight import without_traceback
from .validity import is_extended, is_newer, is_same, is_usable, missing_scopes, problem, with_successor

Enough = Callable[[Token], bool]

_NEW_CODES = 3  # logins that begin at once after one that nobody approved in time

MIN_INTERVAL = 1.0  # seconds between a request and the next renewal in the background


class Renewer:
    """The current token, when the next one is due, and how it is obtained.

    Only the thread of the one flight that is under way calls the methods and changes the attributes, the latter under
    the lock, so that any thread can read them under it.

    Attributes:
        token: the current token, even if it has expired; None while there is none.
        renewal_due: when the next renewal or retry begins, as a reading of
            :func:`~mqtt_token_client.clock.monotonic`.
        error: why the last request failed; None once one has succeeded.
    """

    def __init__(
        self,
        source: TokenSource,
        store: GuardedStore | NoStore,
        policy: RenewalPolicy,
        events: Notifier,
        lock: threading.Condition,
    ) -> None:
        self._source = source
        self._refreshes = getattr(source, "uses_refresh_tokens", False)
        self._store = store
        self._policy = policy
        self._events = events
        self._lock = lock
        self._saving = Saving(store, policy.backoff)
        self._loaded = False
        self._asked_at = -math.inf
        self._failures = 0
        self._unapproved = 0  # logins in a row
        self._missing = ""  # scopes
        self.token: Token | None = None
        self.renewal_due = -math.inf
        self.error: MqttTokenError | None = None

    def after_fork(self, lock: threading.Condition) -> None:
        """In a child: the parent may have been loading the token, and may store a newer one."""
        self._lock = lock
        self._loaded = False

    @property
    def due(self) -> float:
        """When there is something to do: to renew, or to store the token again because that failed."""
        return min(self.renewal_due, self._saving.due)

    @property
    def save_due(self) -> bool:
        """Whether it is time to store the token again."""
        return self._saving.due <= monotonic()

    @property
    def unsaved(self) -> bool:
        """Whether the current token could not be stored."""
        return self._saving.failed

    def load(self) -> bool:
        """Load the stored token, unless that has been done; returns whether there is one whose renewal is due."""
        if self._loaded:
            return False
        stored = self._store.load()
        self._loaded = self._store.readable or self._store.shared  # a shared one is read for each request anyway
        return self._take_over(stored) and self.renewal_due <= monotonic()

    def save_again(self) -> None:
        """Store a token that could not be stored before, unless another process has stored a newer one."""
        token = self._saving.token
        assert token is not None, "unsaved"
        with ExitGuard(needed=token.refresh_token is not None):
            try:
                lock = self._store.lock()
            except StoreLocked:
                self._saving.postpone()
                return
            with lock:
                stored = self._store.load()
                if stored is not None and self._take_over(stored):
                    self._events.collect(_renewed(stored), stored)
                elif self._saving.save(token) and self.error is None:  # a back-off goes on
                    with self._lock:
                        self.renewal_due = min(self.renewal_due, self._policy.due(token))

    def renew(self, enough: Enough, refused: Token | None) -> Token | MqttTokenError:
        """Obtain a token other than ``refused``; the token that another process has stored since then will do if it is
        ``enough``, or is not due for renewal.
        """
        try:
            lock = self._store.lock()
        except StoreLocked as error:
            return self._failed(without_traceback(error))
        with lock:
            previous = self.token
            if self._read_again():
                token = self.token
                if token is not None and (previous is None or is_extended(token, previous)):
                    fresh = is_usable(token) and token != refused and self.renewal_due > monotonic()
                    if fresh or enough(token):
                        self._events.collect(_renewed(token), token)
                        return token
            if refused is None and monotonic() < (latest := self._wait_for_store_until()):
                unreadable = TokenError("the store cannot be read, and may have a newer refresh token")
                return self._failed(unreadable, latest)
            return self._ask(refused)

    def _read_again(self) -> bool:
        """Take over what another process has stored; returns whether it is newer. A store that cannot be read is read
        several times if a person may have to approve otherwise: the other process may have used the refresh token.
        """
        token = self.token
        if not (self._store.shared or (self._refreshes and token is None and not self._store.readable)):
            return False
        patient = self._refreshes and (token is None or token.refresh_token is not None)
        return self._take_over(self._store.load(patient=patient))

    def _wait_for_store_until(self) -> float:
        """Until when to wait for the store, minus infinity if it can be read: otherwise another process may have used
        the refresh token, and a server that sees it twice may revoke the login. A file that stays damaged is replaced
        by the next token.
        """
        token = self.token
        if self._store.readable or not (self._store.shared and self._refreshes):
            return -math.inf
        return -math.inf if token is None or token.refresh_token is None else self._policy.latest(token)

    def _take_over(self, stored: Token | None) -> bool:
        """Replace the current token by the stored one if that is newer; returns whether it is."""
        if stored is None or (self.token is not None and not is_newer(stored, self.token, saved=not self.unsaved)):
            return False
        with self._lock:
            self.token, self.renewal_due = stored, self._policy.due(stored)
            self._saving.forget()
            self.error, self._failures, self._unapproved = None, 0, 0
        return True

    def _ask(self, refused: Token | None) -> Token | MqttTokenError:
        previous, self._asked_at = self.token, monotonic()
        with ExitGuard(needed=previous is not None and previous.refresh_token is not None) as guard:
            if guard.too_late:
                return self._failed(TokenError("the process is ending, so no refresh token is used any more"))
            try:
                token = self._fetch(previous, refused, guard)
            except MqttTokenError as error:
                self._salvage()
                return self._failed(without_traceback(error))
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a user's source, whose text may hold a secret
                return self._failed(TokenError(f"source: fetch() raised {type(error).__name__} {_where(error)}"))
            wrong = problem(token, previous, refused)
            kept = with_successor(token, previous) if wrong else token
            if kept is not None:
                self._keep(kept, previous)
        return self._failed(wrong) if wrong else self._succeeded(token, previous)

    def _fetch(self, previous: Token | None, refused: Token | None, guard: ExitGuard) -> Token:
        try:
            return self._source.fetch(previous)
        except TokenRequestRefused as error:
            if previous is None or previous.refresh_token is None or not error.permanent:
                raise
            refusal, needs_login = without_traceback(error), error.needs_login
        # Another process may have used the refresh token, without the lock or before this one had it.
        stored = self._store.load(patient=True)
        if stored is not None and self._replaced(previous, stored):
            return stored if is_usable(stored) and stored != refused else self._fetch(stored, refused, guard)
        self._note(refusal, previous, needs_login=needs_login)
        # Some servers have other errors for a refresh token that has expired: they are believed the second time.
        if not (needs_login or previous.refusal):
            raise refusal
        guard.release()
        self._events.report_now(LoginRequired(refusal))  # before the source asks, as the person may take a while
        return self._source.fetch(None)

    def _replaced(self, previous: Token, stored: Token) -> bool:
        """Whether the stored refresh token is another one, and not the used predecessor of one that is not stored."""
        if stored.refresh_token in (None, previous.refresh_token):
            return False
        return not self.unsaved or is_newer(stored, previous, saved=False)

    def _note(self, refusal: MqttTokenError, previous: Token, *, needs_login: bool) -> None:
        """Store why the refresh token was rejected, with the token itself: the server may accept it at the next start.
        In this process it is not used again if the server says that a person has to log in. A store that cannot be read
        may have a newer one.
        """
        refused = previous.with_refusal(str(refusal))
        if refused.refusal != previous.refusal and (self._store.readable or not self._store.shared):
            self._saving.save(refused)
        with self._lock:
            self.token = refused.with_refresh_token(None) if needs_login else refused

    def _salvage(self) -> None:
        """Store the new refresh token of an answer that was no use otherwise: the old one is used up."""
        salvage = getattr(self._source, "salvage", None)
        token = salvage() if callable(salvage) else None
        if isinstance(token, Token):
            self._keep(token)

    def _keep(self, token: Token, previous: Token | None = None) -> None:
        """Make a token the current one, and store it, unless the store has it as ``previous``."""
        if previous is None or not is_same(token, previous):
            with ExitGuard(needed=token.refresh_token is not None):  # a person may have approved it a moment ago
                self._saving.save(token)
        with self._lock:
            self.token = token

    def _succeeded(self, token: Token, previous: Token | None) -> Token:
        if previous is None or is_extended(token, previous):
            due = self._policy.due_late(token) if self.unsaved else self._policy.due(token)
            self._events.collect(_renewed(token), token)
        else:
            due = self._policy.due_again(token)
        missing = missing_scopes(getattr(self._source, "scope", None), token)
        if missing and missing != self._missing:
            self._events.collect(ScopeReduced(missing, token.scope or ""))
        self._missing = missing
        with self._lock:
            self.renewal_due = max(due, self._asked_at + MIN_INTERVAL)
            self.error, self._failures, self._unapproved = None, 0, 0
        return token

    def not_started(self, error: MqttTokenError) -> None:
        """Back off after a renewal that could not begin, and report it; the same for storing again, silently."""
        if self.save_due:
            self._saving.postpone()
        if self.renewal_due <= monotonic():
            self._asked_at = monotonic()
            self._failed(error)

    def _failed(self, error: MqttTokenError, latest: float = math.inf) -> MqttTokenError:
        """Back off, until ``latest`` at most."""
        now = monotonic()
        expired = isinstance(error, TokenRequestRefused) and error.error == "expired_token"  # RFC 8628 section 3.5
        with self._lock:
            self._failures += 1
            self._unapproved = self._unapproved + 1 if expired else 0
            at_once = 0 < self._unapproved <= _NEW_CODES  # the person may have come too late
            delay = 0.0 if at_once else self._policy.delay(error, self._failures)
            self.renewal_due = max(min(now + delay, latest), self._asked_at + MIN_INTERVAL)
            self.error = error
        expires_in = 0.0 if self.token is None else max(0.0, self.token.expires_in)
        self._events.collect(RenewalFailed(error, self.renewal_due - now, expires_in))
        return error


def _renewed(token: Token) -> TokenRenewed:
    jti = token.claims.get("jti")
    return TokenRenewed(token.expires_in, jti if isinstance(jti, str) else None)


def _where(error: BaseException) -> str:
    """Say where an exception was raised, and nothing of its message."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    return "" if frames is None else f"in {frames.tb_frame.f_code.co_filename}, line {frames.tb_lineno}"
