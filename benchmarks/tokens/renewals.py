"""Trials of the renewal: many at once, a server in trouble, tokens that expire soon, a clock that steps."""

from __future__ import annotations

import time
from email.utils import formatdate
from uuid import uuid4

from benchmarks.tokens.bench import LIFETIME, Answer, Bench
from benchmarks.tokens.cell import EVERY, USES, Cell, count, errors_in, named, part_of
from benchmarks.tokens.server import Asked, Reply, forward, refresh_token_of
from devtools.servers.keys import RIGHTS
from devtools.servers.processes import need_library
from mqtt_token_client import DeviceFlow

WAIT = 7  # seconds that a Retry-After asks for
SHORT = 6  # seconds that tokens are valid, where they have to expire in the trial


# Many at once


def threads(bench: Bench, number: int = 8) -> Cell:
    replies = _log_in_for_real(bench)
    device = bench.device()
    uses = device.do("race", threads=number)["uses"]
    return _race(bench, uses, replies)


def processes(bench: Bench, number: int = 4) -> Cell:
    replies = _log_in_for_real(bench)
    devices = [bench.device() for _ in range(number)]
    for device in devices:
        device.begin("race", threads=1)
    uses = [use for device in devices for use in device.end()["uses"]]
    return _race(bench, uses, replies)


def _log_in_for_real(bench: Bench) -> list[Reply]:
    """Put an expired token of the real authorization server and its refresh token into the store; returns the list
    that the answers of that server are added to.
    """
    oidc = bench.lab.oidc
    bench.scopes = ["openid", "offline_access", *RIGHTS.split()]
    source = DeviceFlow(
        issuer=oidc.issuer,
        client_id=oidc.device_client_id,
        scope=bench.scopes,
        prompt=lambda login: oidc.approve(login.user_code),
    )
    token, ask, replies = source.fetch(None), forward(oidc.port), []

    def answer(asked: Asked) -> Reply | None:
        got = ask(asked)
        assert got is not None
        replies.append(got)
        return got

    bench.server.script = answer
    issued = {"access_token": token.value, "refresh_token": token.refresh_token, "token_type": "Bearer"}
    bench.take_in(issued | {"expires_in": LIFETIME}, -10)
    replies.clear()
    return replies


def _race(bench: Bench, uses: list[Answer], replies: list[Reply]) -> Cell:
    failed, requests = errors_in(uses), len(bench.server.asked)
    newest = [found for one in replies if (found := refresh_token_of(one))]
    body = f"grant_type=refresh_token&client_id=device&refresh_token={newest[-1] if newest else ''}".encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    after = forward(bench.lab.oidc.port)(Asked(time.monotonic(), headers, body))
    kept = after is not None and after.status == 200
    text = f"{count(requests, 'request')}, {count(len(failed), 'failure')}{named(failed)}, "
    text += "login kept" if kept else "**login lost**"
    data = {"requests": requests, "failures": len(failed), "errors": sorted(set(failed)), "login_kept": kept}
    return Cell(text, (len(failed), not kept, requests), data)


# The authorization server in trouble


def trouble(bench: Bench, kind: str, left: float) -> Cell:
    """A token of an hour with so many seconds left is used for ten seconds while the server is in trouble."""
    bench.adopt(left, refresh_in=1)
    time.sleep(1.2)  # now MSAL, the only one to read refresh_in, wants a new token
    device = bench.device()
    bench.server.asked.clear()
    if kind == "refused":
        bench.server.stop()
    else:
        bench.server.script = lambda _: _in_trouble(kind)
    try:
        result = device.do("use", times=USES, every=EVERY, window=True)
    finally:
        if kind == "refused":
            bench.server.start()
    failed, connects = errors_in(result["uses"]), result["connects"]
    gap = connects[1] - connects[0] if len(connects) > 1 else None
    asks_to_wait = kind in ("seconds", "date")
    kept = gap is None or gap > WAIT - 1  # counting in whole seconds is accepted
    text = f"{part_of(len(failed), len(result['uses']))}{named(failed)}; "
    if len(connects) >= len(result["uses"]):
        text += f"{count(round(len(connects) / len(result['uses'])), 'request')} for each use"
    else:
        text += count(len(connects), "request")
    if gap is not None:
        waited = "less than 1" if gap < 0.95 else f"{gap:.0f}"
        text += f", {'' if kept or not asks_to_wait else '**does not wait**: '}the second after {waited} s"
    elif connects:
        text += f", no second one in {USES * EVERY:.0f} s"
    data = {
        "uses": len(result["uses"]),
        "failures": len(failed),
        "errors": sorted(set(failed)),
        "requests": len(connects),
        "second_after": None if gap is None else round(gap),
        "reported": sorted(set(result["reported"] + result["warnings"])),
    }
    share = len(failed) / len(result["uses"]) if left > 0 else 0.0  # with an expired token no use can succeed
    return Cell(text, (share, asks_to_wait and not kept), data)


def _in_trouble(kind: str) -> Reply:
    if kind == "503":
        return Reply(503, b"busy", {"Content-Type": "text/plain"})
    # An HTTP date has no fractions of a second: rounded up.
    when = str(WAIT) if kind == "seconds" else formatdate(int(time.time()) + WAIT + 1, usegmt=True)
    return Reply(503, b"busy", {"Content-Type": "text/plain", "Retry-After": when})


# Tokens that are valid for less than the library renews in advance


def short_life(bench: Bench, life: int) -> Cell:
    bench.adopt(-10)
    bench.server.script = lambda _: bench.server.issue(life)
    result = bench.device().do("use", times=USES, every=0.2)
    return _asking(bench, result, allowed=1)


def same_again(bench: Bench) -> Cell:
    """The server returns one and the same token, with the time that it is still valid for."""
    same, end = f"at-{uuid4().hex}", time.monotonic() + 50
    bench.adopt(50, access_token=same)
    bench.server.script = lambda _: bench.server.issue(end - time.monotonic(), access_token=same)
    result = bench.device().do("use", times=USES, every=EVERY)
    return _asking(bench, result, allowed=1)  # one is necessary to learn that there is no other


def _asking(bench: Bench, result: Answer, allowed: int) -> Cell:
    failed, requests, uses = errors_in(result["uses"]), len(bench.server.asked), len(result["uses"])
    text = f"{count(requests, 'request')} in {uses} uses"
    if failed:
        text += f", {part_of(len(failed), uses)}{named(failed)}"
    data = {"requests": requests, "uses": uses, "failures": len(failed), "errors": sorted(set(failed))}
    return Cell(text, (len(failed), max(0, requests - allowed)), data)


# The clock


def clock_step(bench: Bench, step: int) -> Cell:
    """The wall clock of a program steps: forwards with most of an hour left, backwards with tokens of seconds."""
    library = need_library("libfaketimeMT.so.1", packages="libfaketime")
    now = bench.folder / "now"
    now.write_text("+0\n")
    forwards = step > 0
    bench.adopt(3000 if forwards else -10)
    bench.server.script = lambda _: bench.server.issue(LIFETIME if forwards else SHORT)
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(now),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    change = {"before": 4, "file": str(now), "to": f"{step:+d}\n"}
    result = bench.device(env=faked).do("use", times=2 * USES, every=EVERY, step=change)
    if abs(result["stepped"] - step) > 60:
        raise RuntimeError(f"the clock of the process stepped by {result['stepped']:.0f} s, not {step}")
    after = result["uses"][4:]
    failed = errors_in(after)
    expired = [use for use in after if use["token"] and use["at"] > bench.server.expires[use["token"]] + 1]
    text = f"{len(expired)} uses with an expired token"
    if not expired:
        text = "no use with an expired token"
    elif after[-len(expired) :] == expired:
        text = "after its token has expired, **every use is with that one**"
    if forwards:
        text = count(len(bench.server.asked), "needless request")
    if failed:
        text += f", {part_of(len(failed), len(after))}{named(failed)}"
    data = {"uses": len(after), "expired": len(expired), "failures": len(failed), "requests": len(bench.server.asked)}
    return Cell(text, (len(failed), len(expired), len(bench.server.asked) if forwards else 0), data)
