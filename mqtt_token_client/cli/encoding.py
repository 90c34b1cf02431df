"""Output to a terminal or a pipe whose encoding does not have every character, such as ASCII."""

from __future__ import annotations

import codecs
import io
import os
import sys

from .printing import Output

_NAME = "mqtt-token"
_PLAIN = str.maketrans({"…": ".", "█": "#", "░": "-", "—": "-", "’": "'", **dict.fromkeys("▁▂▃▄▅▆▇", "=")})


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_PLAIN)
    return "".join(character if character.isascii() else "?" for character in text), error.end


def allow_any_encoding() -> None:
    """Have stdout and stderr show a similar character, or ``?``, for one that they cannot encode."""
    codecs.register_error(_NAME, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def report_full_outputs() -> None:
    """Have what cannot be written to stdout end the command with one line, and what cannot to stderr go nowhere. A
    closed stdout or stderr is one that cannot be written.
    """
    while (unused := os.open(os.devnull, os.O_RDONLY)) <= 2:
        """Take the numbers of those that are closed, which a connection would get otherwise."""
    os.close(unused)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or (isinstance(stream, io.TextIOWrapper) and stream.fileno() == number):
            output = io.BufferedWriter(Output(number, "w", closefd=False))
            coding, lines = ("utf-8", False) if stream is None else (stream.encoding, stream.line_buffering)
            setattr(sys, name, io.TextIOWrapper(output, coding, _NAME, line_buffering=lines))
