"""Trials of what a library keeps and shows: its cache, its lock, a login over a bad connection, secrets in logs."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus
from uuid import uuid4

from benchmarks.tokens.bench import Answer, Bench
from benchmarks.tokens.cell import EVERY, Cell, not_offered
from benchmarks.tokens.server import Reply, reply


def damaged_cache(bench: Bench, part: float) -> Cell:
    """Only a part of the cache file is left: a program starts, and then a person logs in again."""
    if reason := bench.lacks.get("cache"):
        return not_offered(reason)
    bench.adopt(3000)
    with bench.device() as device:
        cache = Path(device.do("written")["path"])
    os.truncate(cache, int(cache.stat().st_size * part))
    with bench.device(opened=False) as device:
        first = device.do("open")
        if not first["error"]:
            result = device.do("use", times=1, every=EVERY)
            first = result["uses"][0] | {"reported": result["reported"], "warnings": result["warnings"]}
        login = None if first["token"] else device.do("log_in")
    with bench.device(opened=False) as device:
        second = device.do("open")
        if not second["error"]:
            second = device.do("use", times=1, every=EVERY)["uses"][0]
    reported = sorted({*first.get("reported", []), *first.get("warnings", [])} - {"login", "TokenRenewed"})
    text = "asks for a new login" if first["token"] or first["error"] == "LoginNeeded" else str(first["error"])
    if login and login["error"]:
        text += f"; a new login fails ({login['error']})"
    text += f"; says why ({', '.join(reported)})" if reported else "" if _is_error(first) else "; does not say why"
    text += "; then works" if second["token"] else f"; the next start: {second['error']} again, **permanently**"
    set_aside = [path.name for path in bench.folder.rglob("*.corrupt")]
    if set_aside:
        text += "; the file is set aside"
    data = {
        "first": first["error"],
        "login": login["error"] if login else None,
        "second": second["error"],
        "reported": reported,
        "set_aside": bool(set_aside),
    }
    noticed = bool(reported) or _is_error(first)
    return Cell(text, (not second["token"], not noticed), data)


def _is_error(first: Answer) -> bool:
    return first["error"] not in (None, "LoginNeeded")


def rewrite(bench: Bench) -> Cell:
    """A second name of the cache file shows whether a renewal writes into it or replaces it."""
    if reason := bench.lacks.get("cache"):
        return not_offered(reason)
    bench.adopt(-10)
    device = bench.device()
    cache = Path(device.do("written")["path"])
    old = bench.folder / "old"
    old.hardlink_to(cache)
    content = old.read_bytes()
    device.do("use", times=1, every=EVERY)
    if cache.read_bytes() == content:
        raise RuntimeError(f"{bench.peer} wrote nothing")
    replaced = old.read_bytes() == content
    text = "replaced as a whole: the old one or the new one" if replaced else "written in place: a part, or nothing"
    return Cell(text, (not replaced,), {"replaced": replaced})


def stale_lock(bench: Bench) -> Cell:
    """A process is killed while it holds the lock; another renews."""
    if reason := bench.lacks.get("lock"):
        return not_offered(reason)
    bench.adopt(-10)
    with bench.device() as holder:
        holder.do("hold")
    use = bench.device().do("use", times=1, every=EVERY)["uses"][0]
    seconds = int(use["took"])
    text = f"{seconds} s" + (f", {use['error']}" if use["error"] else "")
    return Cell(text, (bool(use["error"]), seconds), {"seconds": seconds, "error": use["error"]})


# Login and secrets


def login(bench: Bench, failures: int = 3) -> Cell:
    """A device login in which polls are cut off before the one that brings the token."""
    if reason := bench.lacks.get("login"):
        return not_offered(reason)
    left = [None] * failures
    bench.server.script = lambda _: left.pop() if left else bench.server.issue()
    done = bench.device().do("log_in")
    polls = len(bench.server.asked)
    text = f"ends with {done['error']} at poll {polls}" if done["error"] else f"succeeds at poll {polls}"
    return Cell(text, (bool(done["error"]),), {"error": done["error"], "polls": polls})


def leaks(bench: Bench) -> Cell:
    """Secrets in the log of everything at DEBUG, and in what is raised: its repr, text and traceback."""
    secret = f"cs-{uuid4().hex}"
    scripts: list[Callable[[], Reply]] = [
        bench.server.issue,
        lambda: Reply(200, bench.server.issue().body[:-2]),
        lambda: Reply(503, b"<html>busy</html>", {"Content-Type": "text/html"}),
        lambda: reply({"error": "invalid_grant", "error_description": "this refresh token has expired"}, 400),
    ]
    shown: list[Answer] = []
    for script in scripts:
        with bench.device(secret=secret) as device:
            bench.adopt(-10, device)
            device.do("open")
            bench.server.script = lambda asked, now=script: (  # type: ignore[misc]
                bench.server.issue() if "device_code" in asked.form else now()
            )
            device.do("use", times=1, every=EVERY)
            shown.append(device.do("shown"))
    if "login" not in bench.lacks:
        pending = reply({"error": "authorization_pending"}, 400)
        denied = reply({"error": "access_denied"}, 400)
        for answers in ([pending, None], [pending, bench.server.issue()], [denied]):
            with bench.device() as device:
                left = list(answers)
                bench.server.script = lambda _, left=left: left.pop(0) if left else bench.server.issue()  # type: ignore[misc]
                device.do("log_in")
                shown.append(device.do("shown"))
    basic = base64.b64encode(f"device:{secret}".encode()).decode()
    secrets = bench.server.secrets | {"client secret": {secret, quote_plus(secret), basic}}
    found = {
        place: sorted(kind for kind, values in secrets.items() if _stands_in(values, [one[place] for one in shown]))
        for place in ("log", "raised")
    }
    if not any(one["log"] for one in shown):
        raise RuntimeError(f"{bench.peer} logged nothing at all: was the log looked at?")
    titles = {"log": "log", "raised": "exceptions"}
    text = "; ".join(f"{titles[place]}: {', '.join(kinds)}" for place, kinds in found.items() if kinds)
    return Cell(text or "none", (sum(map(len, found.values())),), dict(found))


def _stands_in(values: set[str], texts: list[str]) -> bool:
    return any(value in text for value in values for text in texts)
