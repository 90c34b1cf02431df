"""What a child process needs after fork(): it has its parent's objects, and none of its parent's threads.

A lock that another thread held stays locked in the child, and what another thread had begun never ends there. So the
objects that share something between threads are made as new, or unusable, before the child goes on.
"""

from __future__ import annotations

import os
import weakref
from typing import NoReturn, Protocol


class Inherited(Protocol):
    """An object that a child process has from its parent."""

    def after_fork(self) -> None:
        """Replace the locks, and forget what other threads had begun. Called in the child, which has one thread."""


_inherited: weakref.WeakKeyDictionary[Inherited, None] = weakref.WeakKeyDictionary()  # in order


def reset_after_fork(owner: Inherited) -> None:
    """Call ``owner.after_fork()`` in each child that this process forks, after those that were given before."""
    _inherited[owner] = None


def works_in_one_process(owner: object) -> NoReturn:
    """The ``__reduce__`` of a class with threads or connections, which can be neither pickled nor copied."""
    raise TypeError(f"a {type(owner).__name__} can be neither pickled nor copied; make one in each process")


def _after_fork() -> None:
    for owner in tuple(_inherited):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork()
    os.register_at_fork(after_in_child=_after_fork)
