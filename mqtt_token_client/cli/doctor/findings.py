"""What a step of the examination saw, and which of several is the likeliest cause."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import MqttTokenError
from ...logs import printable

OK, NOTE, FAILED = "ok", "note", "failed"


_LONGEST = 1000  # characters of an error's text, which has the remedy at its end


class Finding(NamedTuple):
    """What one step saw.

    Attributes:
        step: its name.
        state: ``ok``, ``note`` (works, but worth knowing) or ``failed``.
        saw: what it saw.
        fix: what to do about it.
        explains: the later steps that fail for this reason, if one does.
        error: what failed.
    """

    step: str
    state: str
    saw: str
    fix: str = ""
    explains: tuple[str, ...] = ()
    error: MqttTokenError | None = None


def likeliest_cause(findings: list[Finding]) -> Finding | None:
    """The first step that failed, or an earlier one that explains it; None if none failed."""
    failed = next((finding for finding in findings if finding.state == FAILED), None)
    if failed is None:
        return None
    return next((finding for finding in findings if failed.step in finding.explains), failed)


def failed(step: str, error: MqttTokenError, fix: str = "") -> Finding:
    return Finding(step, FAILED, printable(str(error), _LONGEST), fix, error=error)


def duration(seconds: float) -> str:
    for unit, size in (("years", 31_557_600), ("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
