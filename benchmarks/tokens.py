"""What libraries do with tokens when something fails: this one and four others, side by side on one machine."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from benchmarks.environment import peers_python, versions
from benchmarks.token_bench import Bench, Lab
from benchmarks.token_cell import USES, Cell
from benchmarks.token_peers import OURS, PEERS
from benchmarks.token_trials import TRIALS
from devtools.servers.keys import Keys
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki

AT_ONCE = 8  # trials; most of their time is waiting

Rows = dict[str, dict[str, Cell]]

_INTRODUCTION = """\
The same failures for five libraries, each used as its documentation says, in processes of its own. Made on {date} by \
`python -m benchmarks.tokens` with Python {python}; every cell is what that run showed. A use is a call for a token, \
or a request that carries one; where nothing else is said a program makes {uses} of them, half a second apart, and the \
name in brackets is the exception that it gets, or the error code where the library returns one. Requests are those to \
the token endpoint, connections that fail included. Where refresh tokens rotate the server is a real one \
(oidc-provider, with reuse detection), elsewhere a scripted one; both are reached over TLS. Seconds are rounded.\
"""

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
- **Retry-After**: MSAL reads the number. A date it does not read; then, and without the header, it repeats \
the error to its callers for 60 s, by its source.
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


def run(lab: Lab, peers: list[str], trials: list[str]) -> Rows:
    """Every trial with every library, several at once."""

    def one(trial: str, peer: str) -> Cell:
        with Bench(peer, lab) as bench:
            cell = TRIALS[trial](bench)
        print(f"{trial} | {peer} | {cell.text}", file=sys.stderr)
        return cell

    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = {trial: {peer: pool.submit(one, trial, peer) for peer in peers} for trial in trials}
        return {trial: {peer: cell.result() for peer, cell in cells.items()} for trial, cells in begun.items()}


def ahead(rows: Rows) -> list[str]:
    """The rows in which another library did better than this one."""
    better = []
    for trial, cells in rows.items():
        ours = cells[OURS].cost
        for peer, cell in cells.items():
            if ours is not None and cell.cost is not None and cell.cost < ours:
                better.append(f"{peer}: {trial}")
    return better


def report(rows: Rows, about: dict[str, str], better: list[str]) -> str:
    """The table in Markdown, and how it was made."""
    peers = list(next(iter(rows.values())))
    lines = [
        "# Tokens when something fails",
        "",
        _INTRODUCTION.format(uses=USES, **about),
        "",
        f"| | {' | '.join(peers)} |",
        f"|---|{'---|' * len(peers)}",
        *(f"| {trial} | {' | '.join(cell.text for cell in cells.values())} |" for trial, cells in rows.items()),
        "",
        "Rows in which another library did better than this one: " + ("; ".join(better) if better else "none") + ".",
        "",
        "## How each is used",
        "",
    ]
    for peer in peers:
        what = ", ".join(f"{name} {about[name]}" for name in PEERS[peer].packages)
        lines.append(f"- **{peer}** ({what}): {PEERS[peer].used}.")
    return "\n".join(lines) + "\n\n" + _NOTES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", help="only the rows whose name has this in it")
    parser.add_argument("--peer", choices=PEERS, help="only this library")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="also FILE.json, with what was measured")
    arguments = parser.parse_args()
    packages = [package for name in PEERS if name != OURS for package in PEERS[name].packages]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the servers are stopped on the way out
    others = peers_python(["requests", *packages])
    pythons = {peer: sys.executable if peer == OURS else others for peer in PEERS}
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        **versions(sys.executable, PEERS[OURS].packages),
        **versions(others, packages),
    }
    chosen = [trial for trial in TRIALS if not arguments.only or arguments.only in trial]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tls").mkdir()
        with closing(AuthorizationServer(Keys(folder), folder)) as oidc:
            lab = Lab(oidc, Pki(folder / "tls"), pythons, folder)
            rows = run(lab, [arguments.peer] if arguments.peer else list(PEERS), chosen)
    better = ahead(rows) if OURS in next(iter(rows.values())) else []
    text = report(rows, about, better)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)
        cells = {trial: {peer: asdict(cell) for peer, cell in row.items()} for trial, row in rows.items()}
        document = {**about, "rows": cells, "another_is_better": better}
        arguments.output.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
