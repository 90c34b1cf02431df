"""Saving: stores a keeper's token, and again after a while if that failed."""

from __future__ import annotations

import math

from ..backoff import Backoff
from ..clock import monotonic
from ..stores.guarded import GuardedStore, NoStore
from ..token import Token

_MIN_INTERVAL = 1.0  # seconds between two attempts


class Saving:
    """Which token could not be stored, and when to try again.

    Attributes:
        token: the token that could not be stored; None if the last one is stored. The current one may have less: a
            refresh token that was refused is stored with the refusal, and not used again in this process.
        due: when to try again, as a reading of :func:`~mqtt_token_client.clock.monotonic`; infinite if it is stored.
    """

    def __init__(self, store: GuardedStore | NoStore, backoff: Backoff) -> None:
        self._store = store
        self._backoff = backoff
        self._failures = 0
        self.token: Token | None = None
        self.due = math.inf

    @property
    def failed(self) -> bool:
        """Whether the current token is not stored."""
        return self.token is not None

    def save(self, token: Token) -> bool:
        """Store a token in place of the previous one; returns whether it is stored. The store reports a failure."""
        saved = self._store.save(token)
        if saved:
            self.forget()
        else:
            self._failures += 1
            self.token = token
            self.postpone()
        return saved

    def postpone(self) -> None:
        """Try again later."""
        self.due = monotonic() + max(_MIN_INTERVAL, self._backoff.delay(self._failures))

    def forget(self) -> None:
        """There is nothing to store."""
        self._failures, self.token, self.due = 0, None, math.inf
