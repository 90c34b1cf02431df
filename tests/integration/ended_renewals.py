"""Ends programs at random moments of a renewal, and reports how often a person would have to log in again; see
test_ended_renewals.py. The long form: ``python -m tests.integration.ended_renewals --runs 500 --kills 150``.

It is a separate process, with one thread and everything imported, so that a program is a fork that starts at once.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.server
import json
import mmap
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from mqtt_token_client import DeviceFlow, FileStore, MqttTokenError, Token, TokenClient, TokenKeeper
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import TokenRequestRefused

HOLD = 0.015  # seconds before and after the rotation, while the answer is on its way
LONGEST_END = 20.0  # seconds that a program may take to end
ENDINGS = ("SIGTERM", "SIGTERM and sys.exit()", "Ctrl-C")


class Server(http.server.ThreadingHTTPServer):
    """Rotates refresh tokens named ``family.number``; one that was used before is refused, and revokes nothing.

    Args:
        busy: its first byte is 1 while a refresh token is in flight.
    """

    daemon_threads = True

    def __init__(self, busy: mmap.mmap) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.busy = busy
        self.good: dict[str, int] = {}
        self.lenient = set[str]()  # families whose last predecessor is accepted once more
        self.lock = threading.Lock()

    def rotate(self, refresh_token: str) -> str | None:
        family, _, number = refresh_token.partition(".")
        with self.lock:
            good = self.good.setdefault(family, 0)
            if int(number) == good - 1 and family in self.lenient:
                self.lenient.discard(family)
            elif int(number) != good:
                return None
            elif family.startswith("lenient"):
                self.lenient.add(family)
            self.good[family] = good + 1
            return f"{family}.{good + 1}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        refresh_token = dict(urllib.parse.parse_qsl(body))["refresh_token"]
        self.server.busy[0] = 1
        time.sleep(random.uniform(0, HOLD))
        successor = self.server.rotate(refresh_token)
        time.sleep(random.uniform(0, HOLD))
        self.server.busy[0] = 0
        answer: dict[str, object] = {"error": "invalid_grant"}
        if successor is not None:
            answer = {"access_token": f"of-{successor}", "expires_in": 3600, "refresh_token": successor}
        content = json.dumps(answer).encode()
        with contextlib.suppress(OSError):  # it was killed
            self.send_response(200 if successor else 400)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Trial:
    """A device with a login of its own, whose token has expired."""

    def __init__(self, folder: Path, origin: str, family: str, broker: str) -> None:
        self.family, self.broker = family, broker
        self.store = FileStore(folder / "store")
        self.source = DeviceFlow(
            client_id=family,
            device_authorization_endpoint=f"{origin}/device",
            token_endpoint=f"{origin}/token",
            prompt=lambda _login: None,
        )
        self.store.save(self.source.key, Token("old", 10.0, refresh_token=f"{family}.0", since=monotonic() - 60))
        self.file = folder / f"{family}.toml"
        self.file.write_text(f"""
            store = "file:store"
            [source]
            type = "device_flow"
            client_id = "{family}"
            device_authorization_endpoint = "{origin}/device"
            token_endpoint = "{origin}/token"
        """)

    def keeper(self) -> None:
        """Renew on the main thread, again and again."""
        keeper = TokenKeeper(self.source, self.store)
        while True:
            keeper.renew()

    def client(self) -> None:
        """Renew on a worker thread of a client, for its first connection, and then on the main thread."""
        with contextlib.suppress(MqttTokenError), self.open_client() as client:
            while True:
                client.rotate()

    def open_client(self) -> TokenClient:
        return TokenClient(self.broker, self.source, client_id=self.family, store=self.store)

    def command(self) -> None:
        """Run ``mqtt-token token``."""
        mqtt_token(["token", "-c", str(self.file)])

    def needs_a_person(self) -> bool:
        """Start once more, as after a boot: whether the server refuses the stored refresh token."""
        stored = self.store.load(self.source.key)
        assert stored is not None, "the store is empty"
        try:
            self.source.fetch(stored)
        except TokenRequestRefused:
            return True
        return False


PROGRAMS = (Trial.keeper, Trial.client, Trial.command)


def run(trial: Trial, number: int, ending: str, ready: int) -> NoReturn:
    """Be the program."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if ending == "SIGTERM and sys.exit()":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    os.write(ready, b".")
    PROGRAMS[number % len(PROGRAMS)](trial)
    signal.pause()
    raise AssertionError


def wait_for(busy: mmap.mmap) -> None:
    deadline = time.monotonic() + 2
    while not busy[0] and time.monotonic() < deadline:
        time.sleep(0.001)


def end_of(child: int, by: int, found: collections.Counter[str]) -> int:
    """Wait for the end of a program; returns its status. Python may handle a signal that arrives just as the main
    thread begins to wait only at the next one, so it is sent again after a while, as a person would.
    """
    began = signalled = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() - signalled > 2:
            signalled = time.monotonic()
            found["signals sent again"] += 1
            os.kill(child, by)
        if time.monotonic() - began > LONGEST_END:
            found["did not end"] += 1
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def end_at_a_random_moment(
    trial: Trial, number: int, ending: str, busy: mmap.mmap, found: collections.Counter[str]
) -> None:
    reading, ready = os.pipe()
    if (child := os.fork()) == 0:
        run(trial, number, ending, ready)
    os.close(ready)
    os.read(reading, 1)
    os.close(reading)
    if random.random() < 0.8:  # else perhaps before the request
        wait_for(busy)
    time.sleep(random.uniform(0.0, 2 * HOLD))
    found["in flight"] += busy[0]
    by = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT, "SIGKILL": signal.SIGKILL}.get(ending, signal.SIGTERM)
    os.kill(child, by)
    status = end_of(child, by, found)
    if ending == "SIGTERM" and os.waitstatus_to_exitcode(status) not in (-by, 0):  # 0: the command was done
        found["another end"] += 1
        found[f"{PROGRAMS[number % len(PROGRAMS)].__name__} ended with {os.waitstatus_to_exitcode(status)}"] += 1
    busy[0] = 0
    found["runs"] += 1
    if trial.needs_a_person():
        found["need a person"] += 1
        found[f"{PROGRAMS[number % len(PROGRAMS)].__name__} by {ending}"] += 1


@contextlib.contextmanager
def serving(busy: mmap.mmap) -> Iterator[str]:
    """Run the server in another process; gives its origin."""
    owner = os.getpid()
    with Server(busy) as server:
        if (child := os.fork()) == 0:
            server.serve_forever()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            if os.getpid() == owner:  # not in a program, which ends by an exception too
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def warm_up(folder: Path, origin: str) -> None:
    """Import what a renewal imports."""
    assert not Trial(folder, origin, "first", "").needs_a_person()


def main(folder: Path, runs: int, kills: int) -> dict[str, dict[str, int]]:
    found = {"ended": collections.Counter[str](), "killed": collections.Counter[str]()}
    busy = mmap.mmap(-1, 1)
    with socket.socket() as closed, serving(busy) as origin:
        closed.bind(("127.0.0.1", 0))  # a broker that is not there
        broker = f"mqtt://127.0.0.1:{closed.getsockname()[1]}"
        warm_up(folder, origin)
        for number in range(runs):
            ending = ENDINGS[number // len(PROGRAMS) % len(ENDINGS)]
            trial = Trial(folder, origin, f"strict-{number}", broker)
            end_at_a_random_moment(trial, number, ending, busy, found["ended"])
        for number in range(kills):
            trial = Trial(folder, origin, f"lenient-{number}", broker)
            end_at_a_random_moment(trial, number, "SIGKILL", busy, found["killed"])
    return {name: dict(counts) for name, counts in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=500, help="by SIGTERM, by SIGTERM and sys.exit(), by Ctrl-C in turn"
    )
    parser.add_argument("--kills", type=int, default=150, help="by SIGKILL, at a server that accepts the predecessor")
    arguments = parser.parse_args()
    # Not TemporaryDirectory: a program would delete it as it ends.
    json.dump(main(Path(tempfile.mkdtemp()), arguments.runs, arguments.kills), sys.stdout)
