"""How the lifecycle of a connection reaches the core."""

from __future__ import annotations

from typing import Protocol

from ...errors import MqttTokenError
from ...events import Event, RotationKind


class Observer(Protocol):
    """Gets each change of one client's connection, on the runtime's thread.

    The first four methods are changes of state. An event is a report for the application: nothing in the library
    depends on whether anyone reads it.
    """

    def up(self, broker: str, *, session_present: bool) -> None:
        """The broker accepted a connection, and none was up before."""

    def down(self, cause: str, reason: int | None, retry_in: float) -> None:
        """The connection is lost, with the reason code of MQTT 5 if the broker gave one; the next attempt begins in
        ``retry_in`` seconds.
        """

    def rotated(self, kind: RotationKind, gap: float) -> None:
        """The connection moved onto a new token; for ``gap`` seconds nothing could be sent."""

    def fatal(self, error: MqttTokenError) -> None:
        """An attempt failed while no connection is up, and only a person can fix the cause. Attempts go on, rarely."""

    def report(self, event: Event) -> None:
        """Report anything else."""
