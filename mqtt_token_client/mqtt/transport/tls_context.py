"""TlsContext: the TLS context for new connections, made anew when its files have changed."""

from __future__ import annotations

import functools
import os
import ssl
import threading
from collections.abc import Callable, Iterable

from ...errors import ConfigurationError
from ...forking import reset_after_fork
from ...tls_files import TlsFiles
from .tls import check_context


class TlsContext:
    """A TLS context that may depend on files. Any thread may use it.

    Args:
        make: makes the context; it raises ConfigurationError if the files cannot be used.
        paths: of the files.
        followed: whether a connection that is up is to move onto the files when they have changed.

    Attributes:
        newest: the context of the newest files that can be used; None until :meth:`look` was called.
        problem: why the files as they are now cannot be used; None if they can.
    """

    def __init__(
        self, make: Callable[[], ssl.SSLContext], paths: Iterable[str] = (), *, followed: bool = False
    ) -> None:
        self.followed = followed
        self.newest: ssl.SSLContext | None = None
        self.problem: ConfigurationError | None = None
        self._make = make
        self._paths = tuple(paths)
        self._states: list[tuple[int, ...]] | None = None  # of the files when they were read last
        self._lock = threading.Lock()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """In a child: another thread may have had the lock."""
        self._lock = threading.Lock()

    def look(self) -> ssl.SSLContext:
        """Return the context for a new connection, after a look at the files. Reads those that have changed.

        Raises:
            ConfigurationError: the files cannot be used, and no earlier ones could.
        """
        with self._lock:
            states = [_state(path) for path in self._paths]
            if states != self._states:
                try:
                    self.newest, self.problem = self._make(), None
                except ConfigurationError as error:
                    if self.newest is None:
                        raise
                    self.problem = error
                self._states = states
            assert self.newest is not None
            return self.newest


def open_tls(tls: ssl.SSLContext | TlsFiles | None, alpn: tuple[str, ...], *, allow_insecure: bool) -> TlsContext:
    """Return the TLS context that an argument stands for; None stands for the system's certificates.

    Args:
        tls: the argument.
        alpn: protocols to offer (RFC 7301), unless the argument is a context, which has its own.
        allow_insecure: whether a context may leave the broker unverified.

    Raises:
        ConfigurationError: it is something else, or verifies too little, or its files cannot be used.
    """
    if tls is None:
        return _by_files(TlsFiles(), alpn)
    if isinstance(tls, TlsFiles):
        context = _by_files(tls, alpn)
        context.look()
        return context
    checked = check_context(tls, allow_insecure=allow_insecure)
    return TlsContext(lambda: checked)


@functools.cache
def _by_files(files: TlsFiles, alpn: tuple[str, ...]) -> TlsContext:
    """Return one for all clients: reading the system's certificates takes tens of milliseconds."""

    def make() -> ssl.SSLContext:
        context = check_context(files.context())
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    system = ssl.get_default_verify_paths()
    trusted = (system.cafile, system.capath) if files.ca_bundle is None else ()
    return TlsContext(make, (*files.paths, *filter(None, trusted)), followed=bool(files.paths))


def _state(path: str) -> tuple[int, ...]:
    """Describe a file so that another description means that it may have changed."""
    try:
        file = os.stat(path)  # noqa: PTH116 - pathlib takes a while to load
    except OSError as error:
        return (error.errno or 0,)
    return file.st_mtime_ns, file.st_ctime_ns, file.st_ino, file.st_size
