"""The page on tokens, generated from the results."""

from __future__ import annotations

from benchmarks.recording import Document
from benchmarks.tokens.cell import USES
from benchmarks.tokens.peers import PEERS

_INTRODUCTION = """\
The same failures for five libraries, each used as its documentation says, each in its own processes. Made on {date} \
by `python -m benchmarks.tokens` with Python {python}; every cell is the result of that run. A use is a call for a \
token, or a request that carries one; unless noted otherwise a program makes {uses} of them, half a second apart. The \
name in brackets is the exception that the program gets, or the error code if the library returns one. Requests are \
those to the token endpoint, including connections that fail. Where refresh tokens rotate, the server is a real one \
(oidc-provider, with reuse detection), otherwise a scripted one; both are reached over TLS. Seconds are rounded."""

_NOTES = """\
## How the rows are measured

- **At once**: threads share one client object, processes one stored token; all begin at the same time. Login lost: \
afterwards the server rejects the newest refresh token, because a rotated one was used twice.
- **Server failures**: the token was issued for an hour. With 50 s left, MSAL (from 5 min on), google-auth (3 min 45 \
s), Authlib (60 s) and this library (20 min) want a new one; with 1000 s left, MSAL, because the response had \
`refresh_in`, and this library. A library without requests in such a row did not try: requests-oauthlib requests a \
token after the old one has expired, and not before. The rows with an expired token show how often the server is \
asked, because no use can succeed. A use that takes long replaces those that it delays: google-auth tries three or \
four times within one. The pauses of this library are random, so that many devices do not ask together.
- **Retry-After**: MSAL reads the number, but not a date; then, and without the header, it repeats the error to its \
callers for 60 s, according to its source.
- **Same token again**: the server returns one token until shortly before it expires, as servers with a cache do. It \
takes one request to notice that; a library that does not ask before the expiry makes none.
- **Clock**: the wall clock of the process steps under libfaketime, that of the server does not.
- **Cache**: a part of the file is what a power cut leaves of a file that is written in place. Where the program \
stores the token itself, the library has nothing to measure.
- **Lock**: seconds of a renewal after the process that held the lock was killed, rounded down.
- **Secrets**: access and refresh tokens, client secret and device code, searched for in the root logger at DEBUG and \
in the repr, text and traceback of each exception: in a renewal, a truncated token response, a 503, an `invalid_grant` \
and, if there is a device flow, a login that succeeds, one that is interrupted and one that is denied.
"""


def render(document: Document) -> str:
    rows, better = document["rows"], document["another_is_better"]
    peers = list(next(iter(rows.values())))
    lines = [
        "# Tokens when something fails",
        "",
        _INTRODUCTION.format(uses=USES, **document),
        "",
        f"| | {' | '.join(peers)} |",
        f"|---|{'---|' * len(peers)}",
        *(f"| {trial} | {' | '.join(cell['text'] for cell in cells.values())} |" for trial, cells in rows.items()),
        "",
        "Rows in which another library did better than this one: " + ("; ".join(better) if better else "none") + ".",
        "",
        "## How each is used",
        "",
    ]
    for peer in peers:
        what = ", ".join(f"{name} {document[name]}" for name in PEERS[peer].packages)
        lines.append(f"- **{peer}** ({what}): {PEERS[peer].used}.")
    return "\n".join(lines) + "\n\n" + _NOTES
