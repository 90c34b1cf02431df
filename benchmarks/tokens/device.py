"""A process that uses one library: commands come on stdin and answers go to stdout, a line of JSON each."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.tokens.peers import PEERS, Peer, Place, Returned

Answer = dict[str, Any]


class Device:
    """Carries out the commands; each is a method.

    Args:
        peer: the name of the library.
        place: what it is given.
    """

    def __init__(self, peer: str, place: Place) -> None:
        self._make = PEERS[peer]
        self._place = place
        self._port = int(place.issuer.split(":")[2].split("/")[0])
        self._connects: list[float] = []
        self._log = io.StringIO()
        self._warnings: list[str] = []
        handler = logging.StreamHandler(self._log)
        warnings = logging.Handler(logging.WARNING)
        warnings.emit = lambda record: self._warnings.append(record.name)  # type: ignore[method-assign]
        logging.basicConfig(level=logging.DEBUG, handlers=[handler, warnings])
        sys.addaudithook(self._connecting)
        self._texts: list[str] = []
        self._peer: Peer

    def open(self) -> Answer:
        """Start, as a program does."""
        return self._attempt(self._open)

    def adopt(self, answer: Answer, left: float) -> Answer:
        self._peer.adopt(answer, left)
        return {}

    def use(self, times: int, every: float, window: bool = False, step: Answer | None = None) -> Answer:
        """Use a token ``times`` times, ``every`` seconds apart.

        Args:
            window: those that come too late, as one before took its time, are left out.
            step: {"before": number of the use, "file": what libfaketime reads, "to": what to write there}.
        """
        began, uses = time.monotonic(), []
        self._connects.clear()
        stepped = 0.0
        for number in range(times):
            late = time.monotonic() - began - number * every
            if window and late > every / 2:
                continue
            threading.Event().wait(max(0.0, -late))  # not sleep(), which libfaketime disturbs
            if step and number == step["before"]:
                before = time.time() - time.monotonic()
                Path(step["file"]).write_text(step["to"])
                stepped = time.time() - time.monotonic() - before
            uses.append(self._attempt(self._token))
        return {"uses": uses, "connects": self._connects, "stepped": stepped} | self._reported()

    def race(self, threads: int) -> Answer:
        """Use a token in several threads at once."""
        start = threading.Barrier(threads)
        uses: list[Answer] = []

        def run() -> None:
            start.wait()
            uses.append(self._attempt(self._token))

        runners = [threading.Thread(target=run) for _ in range(threads)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        return {"uses": uses}

    def log_in(self) -> Answer:
        return self._attempt(lambda: self._peer.log_in()) | self._reported()

    def hold(self) -> Answer:
        """Take the lock and keep it until the process ends."""
        self._held = self._peer.lock()
        self._held.__enter__()
        return {}

    def written(self) -> Answer:
        """The cache file."""
        return {"path": str(self._peer.cache)}

    def shown(self) -> Answer:
        """All that was logged and raised."""
        return {"log": self._log.getvalue(), "raised": "\n".join(self._texts)}

    def _open(self) -> str:
        self._peer = self._make(self._place)
        return ""

    def _token(self) -> str:
        return self._peer.token()

    def _attempt(self, function: Callable[[], str]) -> Answer:
        began, token, error = time.monotonic(), None, None
        try:
            token = function()
        except Exception as raised:  # noqa: BLE001 - whatever a library raises is its result
            error = raised.code if isinstance(raised, Returned) else type(raised).__name__
            self._texts += [repr(raised), str(raised), "".join(traceback.format_exception(raised))]
        return {"at": time.monotonic(), "took": time.monotonic() - began, "token": token, "error": error}

    def _reported(self) -> Answer:
        return {"reported": self._peer.reported, "warnings": self._warnings}

    def _connecting(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and arguments[1][1:2] == (self._port,):
            self._connects.append(time.monotonic())


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not mix with the answers
    first = json.loads(sys.stdin.readline())
    device = Device(first["peer"], Place(**first["place"]))
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(device, command["do"])(**command["with"])
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
