"""What waits to be written to a connection."""

from __future__ import annotations

import socket

HIGH_WATER = 65_536  # bytes waiting beyond which nothing is taken from the outbox
_MOST_ANSWERS = 2**20  # bytes; two answers to each packet identifier take less


class Unsent(bytearray):
    """Bytes that wait for the operating system to take them."""

    _answers = 0  # bytes of answers that came behind HIGH_WATER others
    _first = 0  # where these begin, in all that is sent

    def piles_up(self, before: int, sent: int) -> bool:
        """Whether the broker has not read the answers to what it sent: it may send that much only after them.

        Args:
            before: how many bytes waited before packets of the broker were answered.
            sent: how many have been sent, since the beginning.
        """
        if before < HIGH_WATER or sent >= self._first:
            self._answers, self._first = 0, sent + before
        if before >= HIGH_WATER:
            self._answers += max(0, len(self) - before)
        return self._answers > _MOST_ANSWERS


def has_control_frame(sock: socket.socket, ended: bool) -> bool:
    """Whether a WebSocket has a control frame to send, such as the answer to a ping, which waits for no packet."""
    return not ended and getattr(sock, "unsent", False)
