"""How a session gets its outbox."""

from __future__ import annotations

from collections.abc import Callable

from ...events import Event
from .journal import Journal, Reporting
from .outbox import Outbox
from .packet_ids import PacketIds
from .queue import MessageQueue


def open_outbox(
    journal: Journal | None,
    packet_ids: PacketIds,
    receiving: Callable[[], Reporting],
    emit: Callable[[Event], None],
    *,
    max_queued: int,
    max_inflight: int,
) -> Outbox:
    """Return the outbox of a session. ``receiving`` returns the other half of it, which the journal records too."""
    if journal is None:
        return Outbox(packet_ids, MessageQueue(max_queued), max_inflight=max_inflight)
    from .journal_link import JournalLink  # loaded only if there is a journal
    from .recorded_outbox import RecordedOutbox

    link = JournalLink(journal, receiving, emit)
    return RecordedOutbox(packet_ids, max_inflight=max_inflight, link=link)
