"""What follows from a message that the broker rejects because of a quota: nothing is sent for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ClassVar

from ...events import Event
from ..codec.packets import Acknowledgement
from ..transport.connection import NetworkConnection
from .delivery import Outgoing
from .outbox import Outbox


class QuotaExceeded(Event):
    """The broker rejected a message because of a quota, such as a rate of messages. No message is sent for
    ``retry_in`` seconds, and then what was rejected is sent again, before anything newer. ``reason`` is a reason code
    of MQTT 5 (0x97), and ``reason_string`` what the broker said, cut; empty if it said nothing. Reported once a pause.
    """

    log_level: ClassVar[int] = logging.WARNING
    reason: int
    retry_in: float
    reason_string: str = ""


def pause(
    outbox: Outbox,
    connection: NetworkConnection[Outgoing],
    packet: Acknowledgement,
    emit: Callable[[Event], None],
) -> None:
    """Send nothing for a while because of a rejection, if it is not so already."""
    if seconds := outbox.window.pause():
        connection.runtime.call_later(seconds, outbox.resume)
        emit(QuotaExceeded(packet.reason, seconds, packet.text))
