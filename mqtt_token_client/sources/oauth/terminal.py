"""Shows a device login on a terminal: a QR code of the address and the code, both as text, and the time left."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from threading import Thread
from typing import TextIO

from ...logs import printable
from .device_login import LONGEST_URL, DeviceLogin

_WHITE_ON_BLACK, _PLAIN = "\x1b[97;40m", "\x1b[0m"
_CLEAR_LINE = "\x1b[K"
_SIZE = os.terminal_size((80, 24))  # of a terminal of unknown size, such as a serial line


def show_login(login: DeviceLogin) -> None:
    """Print to stderr what a person needs to approve the device.

    On a terminal, a daemon thread counts down the time left, and a QR code is shown if the library ``segno`` is
    installed (the extra ``cli``), the server sent an address with the code in it, and the terminal is wide and high
    enough to show it together with the text, which comes last. Anywhere else it is plain text, without escape codes.
    """
    stream = sys.stderr
    if stream is None:  # the process has no stderr
        return
    address, code = printable(login.verification_uri, LONGEST_URL), printable(login.user_code)
    text = f"To log in, open\n\n    {address}\n\nand enter the code\n\n    {code}\n"
    below_qr_code = f"To log in, scan this, or open\n    {address}\nand enter the code\n    {code}"
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        print(f"{text}\nThe code is valid for {_left(login)} minutes.", file=stream, flush=True)
        return
    drawn, size = _qr_code(login.verification_uri_complete, stream), _size(stream)
    lines = len(drawn) + 5 + (4 + len(address)) // size.columns  # with the time left, and the rest of a long address
    if drawn and lines <= size.lines:
        print(*drawn, below_qr_code, sep="\n", file=stream, flush=True)
    else:
        higher = f"\nA window of {lines} lines has room for a QR code.\n" if drawn else ""
        print(f"\n{text}{higher}", file=stream, flush=True)
    Thread(target=_count_down, args=(login, stream), name="login-countdown", daemon=True).start()


def _left(login: DeviceLogin) -> str:
    minutes, seconds = divmod(round(login.expires_in), 60)
    return f"{minutes}:{seconds:02}"


def _count_down(login: DeviceLogin, stream: TextIO) -> None:
    # The cursor stays at the start of the line, so that other output overwrites ours.
    with suppress(OSError, ValueError):  # the stream was closed
        while not login.ended and login.expires_in > 0:
            stream.write(f"{_CLEAR_LINE}{_left(login)} minutes left\r")
            stream.flush()
            login.wait(1)
        stream.write(_CLEAR_LINE)
        stream.flush()


def _qr_code(address: str | None, stream: TextIO) -> list[str]:
    """Return the lines of a QR code of half blocks, two modules a character, with its quiet zone; none if it cannot be
    shown.

    Light modules are printed in white on a black background. Both colours are set, as on a light terminal they would
    be swapped, which some readers do not recognize.
    """
    try:
        import segno
    except ModuleNotFoundError:
        return []
    if address is None:
        return []
    out = io.StringIO()
    try:
        segno.make(address, error="l", micro=False).terminal(out, compact=True)
        out.getvalue().encode(stream.encoding or "ascii")
    except (segno.DataOverflowError, UnicodeEncodeError):
        return []
    lines = out.getvalue().splitlines()
    return [f"{_WHITE_ON_BLACK}{line}{_PLAIN}" for line in lines if len(line) <= _size(stream).columns]


def _size(stream: TextIO) -> os.terminal_size:
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except OSError:
        return _SIZE
    return os.terminal_size((columns or _SIZE.columns, lines or _SIZE.lines))
