"""What may stand in a log line or a message, and loggers that never raise into the library, whatever the
application's handlers and filters do.
"""

from __future__ import annotations

import logging
import sys
import threading
from contextlib import suppress
from typing import Any

LONGEST_TEXT = 200  # characters of a piece of text from a server, a publisher or a proxy
LONGEST_MESSAGE = 1000  # characters of a log argument or an error


def printable(text: str, limit: int = LONGEST_TEXT) -> str:
    """Return text from elsewhere in a form that is safe to show: on one line, without control characters (among them
    those that change the direction of text), and cut to ``limit`` characters.
    """
    if not text.isprintable():
        kept = (" " if character.isspace() else character for character in text[: 8 * limit])
        text = "".join(character for character in kept if character.isprintable())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def get_logger(name: str) -> logging.LoggerAdapter[logging.Logger]:
    """Return the logger of that name, for use inside the library."""
    return _Log(logging.getLogger(name))


class _Log(logging.LoggerAdapter[logging.Logger]):
    """Its records carry printable strings only, as filters that redact expect them: every format is ``%s``."""

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        try:
            if self.logger.isEnabledFor(level):
                self.logger.log(
                    level,
                    str(msg),
                    *(printable(str(argument), LONGEST_MESSAGE) for argument in args),
                    stacklevel=2,
                    **options,
                )
        except BaseException as error:
            # KeyboardInterrupt and SystemExit belong to the main thread; on another one they would end that only.
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise
            _report(error)


def _report(error: BaseException) -> None:
    """Print what logging raised, as ``logging.Handler.handleError`` does."""
    if logging.raiseExceptions and sys.stderr is not None:  # None in a program without a console
        with suppress(Exception):
            import traceback

            print("--- Logging error ---", file=sys.stderr)  # noqa: T201
            traceback.print_exception(error)
