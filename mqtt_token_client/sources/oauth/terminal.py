"""How a device login is shown on a terminal: the address, the code, a QR code of both, and the time left."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from threading import Thread
from typing import TextIO

from .device_login import DeviceLogin

_WHITE_ON_BLACK, _PLAIN = "\x1b[97;40m", "\x1b[0m"
_CLEAR_LINE = "\x1b[K"
_COLUMNS = 80  # of a terminal that does not say, such as a serial line


def show_login(login: DeviceLogin) -> None:
    """Print what a person needs to approve the device to stderr.

    On a terminal the time left is counted down until the login has ended, by a daemon thread, and a QR code is shown
    if the library ``segno`` is installed (the extra ``cli``), the server gave an address with the code in it, and
    there is room. Anywhere else it is plain text, without escape codes.
    """
    stream = sys.stderr
    if stream is None:  # a process without one
        return
    address, code = _clean(login.verification_uri), _clean(login.user_code)
    text = f"To log in, open\n\n    {address}\n\nand enter the code\n\n    {code}\n"
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        print(f"{text}\nThe code is good for {_left(login)} minutes.", file=stream, flush=True)
        return
    drawn = _qr_code(login.verification_uri_complete, stream)
    print(f"\n{text}" + (f"\nor scan this:\n\n{drawn}" if drawn else ""), file=stream, flush=True)
    Thread(target=_count_down, args=(login, stream), name="login-countdown", daemon=True).start()


def _clean(text: str) -> str:
    """A text without what could steer the terminal."""
    return "".join(character for character in text if character.isprintable())


def _left(login: DeviceLogin) -> str:
    minutes, seconds = divmod(round(login.expires_in), 60)
    return f"{minutes}:{seconds:02}"


def _count_down(login: DeviceLogin, stream: TextIO) -> None:
    # The cursor waits at the start of the line, so that what others print does not hang on to ours.
    with suppress(OSError, ValueError):  # nobody sees it any longer
        while not login.ended and login.expires_in > 0:
            stream.write(f"{_CLEAR_LINE}{_left(login)} minutes left\r")
            stream.flush()
            login.wait(1)
        stream.write(_CLEAR_LINE)
        stream.flush()


def _qr_code(address: str | None, stream: TextIO) -> str:
    """A QR code in half blocks, two modules a character, with its quiet zone; empty where it cannot be shown.

    Light modules are printed, in white, and dark ones are the background, black: both named, as a reader may not take
    a code with the colours of a light terminal, where they would change places.
    """
    try:
        import segno
    except ModuleNotFoundError:
        return ""
    if address is None:
        return ""
    out = io.StringIO()
    try:
        segno.make(address, error="l", micro=False).terminal(out, compact=True)
        out.getvalue().encode(stream.encoding or "ascii")
    except (segno.DataOverflowError, UnicodeEncodeError):
        return ""
    lines = out.getvalue().splitlines()
    if len(lines[0]) > _columns(stream):
        return ""
    return "".join(f"{_WHITE_ON_BLACK}{line}{_PLAIN}\n" for line in lines)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS
