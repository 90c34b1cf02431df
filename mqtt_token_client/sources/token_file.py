"""TokenFile: a token in a file that an agent renews, such as Kubernetes, Vault or systemd."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ..clock import monotonic, wall
from ..errors import ConfigurationError, TokenError
from ..private_files import open_regular
from ..token import Token, read_claims
from . import folder_watch

_MAX_SIZE = 1 << 20  # bytes
_TOLERANCE = 60.0  # seconds that this device's clock may be behind the issuer's
_MAX_LIFETIME = 1e9  # seconds, 31 years: a greater number comes of a clock that is not set
_BASE64URL = re.compile("[A-Za-z0-9_-]+")


class TokenFile:
    """A token source: a file with a token that another program renews.

    For Kubernetes' projected service-account tokens, the sinks of Vault's agent, credentials of systemd and the like.
    The file is read when the current token is due for renewal, and as soon as it changes if ``watchdog`` is installed
    (the extra ``watch``). White space around the token is ignored.

    A token is valid from its ``iat`` to its ``exp``, both by the issuer's clock. How much of that has passed when it is
    first read is estimated from this device's clock and the time of the file, each if it is plausible.

    Args:
        path: the file. It need not exist yet.

    Raises:
        ConfigurationError: ``path`` is not a path.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path) or not str(path):
            raise ConfigurationError(f"path must be the path of the file with the token, got {path!r}")
        self._path = Path(path).absolute()  # not resolved: Kubernetes replaces a link in it
        self._last: Token | None = None
        folder_watch.load()

    def fetch(self, previous: Token | None) -> Token:
        """Read the token in the file; if it is the same as before, the known :class:`Token` is returned.

        Raises:
            TokenError: there is no file, or it contains no complete token, or one that has expired.
        """
        value, written = self._read()
        known = next((one for one in (self._last, previous) if one is not None and one.value == value), None)
        if known is not None and known.age_known:
            return known
        lifetime, age = _life(value, written)
        if age is None and known is not None:
            return known
        if age is not None and age >= lifetime:
            raise TokenError(f"{self._path}: the token in it has expired; the program that renews it may have stopped")
        self._last = Token(value, lifetime, since=monotonic() - (age or 0.0), age_known=age is not None)
        return self._last

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed``, on a thread of its own, when the file contains another complete token.

        The folder is watched, as an agent renames a new file over the old one, and Kubernetes replaces the link
        ``..data``. Without ``watchdog``, or if the folder cannot be watched, this is logged.

        Returns:
            The function that ends it.
        """
        seen = self._value() if self._last is None else self._last.value

        def look() -> None:
            nonlocal seen
            value = self._value()
            if value is not None and value != seen:
                seen = value
                changed()

        return folder_watch.watch_folder(self._path.parent, look)

    @property
    def key(self) -> str:
        """A name for the tokens of this source, the same in every process; it depends on the path."""
        return f"token_file-{sha256(os.fsencode(self._path)).hexdigest()[:32]}"

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"

    def _value(self) -> str | None:
        try:
            return self._read()[0]
        except TokenError:
            return None

    def _read(self) -> tuple[str, float]:
        """Return the content of the file, and when it was written by this device's clock."""
        try:
            with open_regular(self._path) as file:
                content = file.read(_MAX_SIZE + 1)
                written = os.fstat(file.fileno()).st_mtime
        except OSError as error:
            raise TokenError(f"{self._path}: {error.strerror}") from None
        value = content.decode(errors="replace").strip() if len(content) <= _MAX_SIZE else ""
        problem = "it is longer than 1 MiB" if len(content) > _MAX_SIZE else _problem(value)
        if problem:
            raise TokenError(f"{self._path}: not a token: {problem}")
        return value, written


def _problem(value: str) -> str | None:
    """Say why this is not a complete token; None if it is."""
    if not value:
        return "it is empty"
    if not (value.isascii() and value.isprintable()) or " " in value:
        return "it contains characters that a token cannot have"
    parts = value.split(".")
    # Every JWT begins with {" in base64url. One with five parts is encrypted, and cannot be read here (RFC 7516).
    if value.startswith("eyJ") and len(parts) != 5:
        whole = len(parts) == 3 and all(_BASE64URL.fullmatch(part) and len(part) % 4 != 1 for part in parts)
        if not whole or not read_claims(value):
            return "it is an incomplete JWT"
    return None


def _life(value: str, written: float) -> tuple[float, float | None]:
    """Return the lifetime and the age of a token, in seconds; the age is None if it is unknown."""
    token = Token(value)
    issued, expires = token.claims.get("iat"), token.claims.get("exp")
    lifetime, now = token.lifetime, wall()
    if not math.isfinite(lifetime):
        if not isinstance(expires, int | float) or not written < expires <= written + _MAX_LIFETIME:
            return math.inf, 0.0
        issued, lifetime = written, expires - written  # without iat: it was issued about when it was written
    ages = [now - issued, now - written] if isinstance(issued, int | float) else [now - written]
    # If a clock was set between two times, or is wrong, their difference is not plausible.
    plausible = [age for age in ages if -_TOLERANCE <= age < lifetime]
    if plausible:
        return lifetime, max(0.0, *plausible)
    return lifetime, min(ages) if min(ages) >= lifetime else None
