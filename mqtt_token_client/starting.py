"""Starting: the start of a client, in the middle of which a signal handler may want it closed."""

from __future__ import annotations

import threading


class Starting:
    """Which thread starts a client, and what is to follow.

    Attributes:
        lock: held to start and to close. The runtime's thread does not wait for it, as a signal handler that interrupts
            whoever holds it may wait for the runtime's thread.
        thread: the one that starts the client; 0 while none does.
        close_after: the timeout with which a signal handler has asked to close; None if none has.
        count, closed: the number of the last start, and of the last one that close() was called for.
    """

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """In a child: no other thread is left."""
        self.lock = threading.RLock()
        self.thread = 0
        self.close_after: float | None = None
        self.count = self.closed = 0

    @property
    def interrupted(self) -> bool:
        """Whether the caller is a signal handler that interrupts the start."""
        return self.thread == threading.get_ident()
