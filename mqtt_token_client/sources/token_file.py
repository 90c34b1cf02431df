"""A token that an agent renews in a file: Kubernetes, Vault, systemd."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ..clock import monotonic
from ..errors import ConfigurationError, TokenError
from ..token import Token, read_claims
from .folder_watch import watch_folder

_LARGEST = 1 << 20  # bytes
_TOLERANCE = 60.0  # seconds that this device's clock may be behind the issuer's
_LONGEST_LIFE = 1e9  # seconds, 31 years: what is more was reckoned with a clock that is not set
_BASE64URL = re.compile("[A-Za-z0-9_-]+")


class TokenFile:
    """A token source: the token that stands in a file, which somebody else keeps fresh.

    For Kubernetes' projected service-account tokens, the sinks of Vault's agent, credentials of systemd and the like.
    The file is read when the token in hand is due for renewal, and as soon as it changes where ``watchdog`` is
    installed (the extra ``watch``). White space around the token does not count.

    A token lives from its ``iat`` to its ``exp``, both by the issuer's clock. How much of that has passed when it is
    first read, this device's clock and the time of the file only hint at: each is believed where it makes sense.

    Args:
        path: the file. It need not exist yet.

    Raises:
        ConfigurationError: this is no path.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | Path) or not str(path):
            raise ConfigurationError("path: the path of the file that holds the token is needed")
        self._path = Path(path).absolute()  # not resolved: Kubernetes moves a link
        self._last: Token | None = None

    def fetch(self, previous: Token | None) -> Token:
        """The token in the file; the one that is known already if it is the same.

        Raises:
            TokenError: there is no file, or no whole token in it, or one that has ended.
        """
        value, written = self._read()
        known = next((one for one in (self._last, previous) if one is not None and one.value == value), None)
        if known is not None and known.age_known:
            return known
        lifetime, age = _life(value, written)
        if age is None and known is not None:
            return known
        if age is not None and age >= lifetime:
            raise TokenError(f"{self._path}: the token in it has ended; whoever renews it does so no longer")
        self._last = Token(value, lifetime, since=monotonic() - (age or 0.0), age_known=age is not None)
        return self._last

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called, on a thread of its own, when another whole token stands in the file.

        What is watched is the folder: an agent renames a new file over the old one, and Kubernetes moves the link
        ``..data``. Without ``watchdog``, or where the folder cannot be watched, one line of the log says so.

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

        return watch_folder(self._path.parent, look)

    @property
    def key(self) -> str:
        """A name for the tokens of this source, the same in every process: of the path."""
        return f"token_file-{sha256(os.fsencode(self._path)).hexdigest()[:32]}"

    def __repr__(self) -> str:
        return f"TokenFile({str(self._path)!r})"

    def _value(self) -> str | None:
        try:
            return self._read()[0]
        except TokenError:
            return None

    def _read(self) -> tuple[str, float]:
        """What stands in the file, and when it was written, by this device's clock then."""
        try:
            with self._path.open("rb") as file:
                content = file.read(_LARGEST + 1)
                written = os.fstat(file.fileno()).st_mtime
        except OSError as error:
            raise TokenError(f"{self._path}: {error.strerror}") from None
        value = content.decode(errors="replace").strip() if len(content) <= _LARGEST else ""
        problem = "it is longer than 1 MiB" if len(content) > _LARGEST else _problem(value)
        if problem:
            raise TokenError(f"{self._path}: no token: {problem}")
        return value, written


def _problem(value: str) -> str | None:
    """What keeps this from being a whole token, or None."""
    if not value:
        return "it is empty"
    if not (value.isascii() and value.isprintable()) or " " in value:
        return "it holds other characters than a token has"
    parts = value.split(".")
    # {" in base64url begins every JWT. One with five parts is encrypted and not for us to read (RFC 7516).
    if value.startswith("eyJ") and len(parts) != 5:
        whole = len(parts) == 3 and all(_BASE64URL.fullmatch(part) and len(part) % 4 != 1 for part in parts)
        if not whole or not read_claims(value):
            return "it is a part of a JWT"
    return None


def _life(value: str, written: float) -> tuple[float, float | None]:
    """How long a token lives, and how long it has lived; None if nobody can tell."""
    token = Token(value)
    issued, ends = token.claims.get("iat"), token.claims.get("exp")
    lifetime, now = token.lifetime, time.time()
    if not math.isfinite(lifetime):
        if not isinstance(ends, int | float) or not written < ends <= written + _LONGEST_LIFE:
            return math.inf, 0.0
        issued, lifetime = written, ends - written  # an exp alone: it was issued when it was written, more or less
    ages = [now - issued, now - written] if isinstance(issued, int | float) else [now - written]
    # Where a clock was set between two times, or is wrong, their difference makes no sense.
    sensible = [age for age in ages if -_TOLERANCE <= age < lifetime]
    if sensible:
        return lifetime, max(0.0, *sensible)
    return lifetime, min(ages) if min(ages) >= lifetime else None
