"""The events of a client with a journal."""

from __future__ import annotations

import logging
from typing import ClassVar

from ...errors import MqttTokenError
from ...events import Event


class Resumed(Event):
    """``count`` messages of an earlier process are in the journal, and are sent now."""

    count: int


class JournalFull(Event):
    """The journal was full, and ``count`` messages were dropped (``when_full``); each ``Delivery`` has failed. Reported
    at most every ten seconds.
    """

    log_level: ClassVar[int] = logging.WARNING
    count: int


class JournalFailed(Event):
    """The journal cannot be read or written. Messages are kept in memory until it can, and a power cut loses them; the
    next attempt is in ``retry_in`` seconds. A damaged file is renamed to ``….corrupt``, and a new one is begun.
    """

    log_level: ClassVar[int] = logging.WARNING
    error: MqttTokenError
    retry_in: float


class JournalRecovered(Event):
    """The journal at ``path`` is written again, and everything in memory is on disk."""

    path: str
