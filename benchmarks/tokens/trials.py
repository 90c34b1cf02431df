"""The failures that every library is put through: the rows of the table."""

from __future__ import annotations

from functools import partial

from benchmarks.tokens.cell import Trial
from benchmarks.tokens.keeping import damaged_cache, leaks, login, rewrite, stale_lock
from benchmarks.tokens.renewals import SHORT, WAIT, clock_step, processes, same_again, short_life, threads, trouble

_DAY = 86_400
_KINDS = {
    "503": "503",
    "refused": "connection refused",
    "seconds": f"503 with Retry-After: {WAIT}",
    "date": f"503 with Retry-After: a date {WAIT} s ahead",
}
_LEFTS = {
    50: "token valid, 50 s of an hour left",
    1000: "token valid, 1000 s of an hour left",
    -10: "token expired",
}

TRIALS: dict[str, Trial] = {
    "8 threads at once, token expired, refresh tokens rotate": threads,
    "4 processes at once, token expired, refresh tokens rotate": processes,
    **{
        f"{what}; {state}": partial(trouble, kind=kind, left=left)
        for left, state in _LEFTS.items()
        for kind, what in _KINDS.items()
    },
    "tokens of 30 s": partial(short_life, life=30),
    "tokens of 5 min": partial(short_life, life=300),
    "the server returns the same token again, 50 s left": same_again,
    "wall clock steps forwards by a day": partial(clock_step, step=_DAY),
    f"wall clock steps backwards by a day, tokens of {SHORT} s": partial(clock_step, step=-_DAY),
    "half of the cache file is left": partial(damaged_cache, part=0.5),
    "the cache file is empty": partial(damaged_cache, part=0.0),
    "the cache file when the power fails during a write": rewrite,
    "lock left by a killed process: the next renewal takes": stale_lock,
    "device login with three interrupted polls": login,
    "secrets in DEBUG logs and exceptions": leaks,
}
