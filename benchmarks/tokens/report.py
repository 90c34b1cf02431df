"""The page on tokens, generated from the results."""

from __future__ import annotations

from benchmarks.recording import Document
from benchmarks.tokens.cell import USES
from benchmarks.tokens.peers import PEERS

_INTRODUCTION = """\
The same failures for five libraries, each used as its documentation says, in processes of its own. Made on {date} by \
`python -m benchmarks.tokens` with Python {python}; every cell is what that run showed. A use is a call for a token, \
or a request that carries one; where nothing else is said a program makes {uses} of them, half a second apart, and the \
name in brackets is the exception that it gets, or the error code where the library returns one. Requests are those to \
the token endpoint, connections that fail included. Where refresh tokens rotate the server is a real one \
(oidc-provider, with reuse detection), elsewhere a scripted one; both are reached over TLS. Seconds are rounded."""

_NOTES = """\
## How the rows come about

- **At once**: threads share one client object and processes one stored token; all begin at the same time. Login lost: \
afterwards the server no longer takes the newest refresh token, as a rotated one was used twice.
- **Trouble**: the token was issued for an hour. With 50 s left MSAL (from 5 min on), google-auth (3 min 45 s), \
Authlib (60 s) and this library (20 min) want a new one; with 1000 s left MSAL, as the response had `refresh_in`, and \
this library. Who has no requests in such a row did not try: requests-oauthlib asks once a token has ended, and not \
before. The rows with an ended token show how often the server is asked, as no use can succeed. A use that takes long \
leaves out those that it delays: google-auth tries three or four times within one. The pauses of this library are \
random, so that many devices do not ask together.
- **Retry-After**: MSAL reads the number. A date it does not read; then, and without the header, it repeats the error \
to its callers for 60 s, by its source.
- **Same token again**: the server hands out one token until shortly before its end, as those do that cache. One \
request is what it takes to learn of it; none is made by who does not ask before the end.
- **Clock**: the wall clock of the process steps under libfaketime, the server's does not.
- **Cache**: a part of the file is what a power cut leaves of one that is written in place. Where the program stores \
the token itself, there is nothing of the library to measure.
- **Lock**: seconds of a renewal after the process that held the lock was killed, rounded down.
- **Secrets**: access and refresh tokens, client secret and device code, looked for in the root logger at DEBUG and in \
the repr, text and traceback of what is raised: in a renewal, a truncated token response, a 503, an `invalid_grant` \
and, where there is a device flow, a login that succeeds, one that is cut off and one that is denied.
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
