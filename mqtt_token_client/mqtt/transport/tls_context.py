"""TlsContext: the TLS context for new connections, made again when its files have changed."""

from __future__ import annotations

import functools
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ...errors import ConfigurationError
from ...forking import reset_after_fork
from ...tls_files import TlsFiles
from .tls import check_context

if TYPE_CHECKING:
    from ...certificate_validity import Validity


class TlsContext:
    """A TLS context that may depend on files. Any thread may use it.

    Args:
        make: makes the context; it raises ConfigurationError if the files cannot be used.
        validity: reads from when and until when the client certificate is valid.
        paths: of the files.
        followed: whether a connection that is up is to move onto the files when they have changed.

    Attributes:
        newest: the context of the newest files that can be used; None until :meth:`look` was called.
        problem: why the files as they are now cannot be used; None if they can.
    """

    def __init__(
        self,
        make: Callable[[], ssl.SSLContext],
        validity: Callable[[], Validity | None] = lambda: None,
        paths: Iterable[str] = (),
        *,
        followed: bool = False,
    ) -> None:
        self.followed = followed
        self.newest: ssl.SSLContext | None = None
        self.problem: ConfigurationError | None = None
        self._make = make
        self._read_validity = validity
        self._validity: Validity | None = None
        self._paths = tuple(paths)
        self._states: list[tuple[int, ...]] | None = None  # of the files when they were read last
        self._lock = threading.Lock()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """In a child: another thread may have had the lock."""
        self._lock = threading.Lock()

    def look(self) -> ssl.SSLContext:
        """Return the context for a new connection, after a look at the files. Reads them if one has changed, or if they
        could not be used at the last look.

        Raises:
            ConfigurationError: the files cannot be used, and no earlier ones could.
        """
        with self._lock:
            states = [_state(path) for path in self._paths]
            if states != self._states:
                try:
                    self.newest, self.problem = self._make(), None
                    self._validity, self._states = self._read_validity(), states
                except ConfigurationError as error:
                    if self.newest is None:
                        raise
                    self._states = None  # the next look reads them again: perhaps only a descriptor or memory was short
                    if str(error) != str(self.problem):  # the same one is reported once
                        self.problem = error
            assert self.newest is not None
            return self.newest

    @property
    def expires_in(self) -> float | None:
        """The seconds until the client certificate expires, if it is in the last tenth of its validity by this device's
        clock: whatever renews certificates does so earlier. Otherwise, and if there is none, None.
        """
        if self._validity is None or time.time() < self._validity.begins:  # or the clock is wrong
            return None
        begins, ends = self._validity
        left = ends - time.time()
        return left if left < (ends - begins) / 10 else None


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
    return TlsContext(make, files.validity, (*files.paths, *filter(None, trusted)), followed=bool(files.paths))


def _state(path: str) -> tuple[int, ...]:
    """Describe a file so that another description means that it may have changed."""
    try:
        file = os.stat(path)  # noqa: PTH116 - pathlib takes a while to load
    except OSError as error:
        return (error.errno or 0,)
    return file.st_mtime_ns, file.st_ctime_ns, file.st_ino, file.st_size
