"""Where a trial takes place: a scripted server, a folder for a library's cache, and processes that use the library."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Timer
from typing import Any, Self

from benchmarks.environment import ROOT
from benchmarks.tokens.peers import PEERS, Place
from benchmarks.tokens.server import TokenServer
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki

LIMIT = 120.0  # seconds that a process may take for a trial
LIFETIME = 3600  # seconds that a token is valid where nothing else is stated

Answer = dict[str, Any]


@dataclass(frozen=True)
class Lab:
    """What all trials share; ``pythons`` has the interpreter of each library."""

    oidc: AuthorizationServer
    pki: Pki
    pythons: dict[str, str]
    folder: Path


class Device:
    """A process that uses the library; a context manager that kills it. Its standard error goes to ``errors``."""

    def __init__(self, command: list[str], first: Answer, env: dict[str, str], errors: Path) -> None:
        self._errors = errors
        with errors.open("a") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._limit = Timer(LIMIT, self._process.kill)
        self._limit.start()
        self._write(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def do(self, command: str, **arguments: Any) -> Answer:
        self.begin(command, **arguments)
        return self.end()

    def begin(self, command: str, **arguments: Any) -> None:
        self._write({"do": command, "with": arguments})

    def end(self) -> Answer:
        """The answer to the command that was begun."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.kill()
            why = self._errors.read_text()[-3000:]
            raise RuntimeError(f"the process ended, or took longer than {LIMIT:g} s: {why}")
        answer: Answer = json.loads(line)
        return answer

    def kill(self) -> None:
        """Stop it without notice, as a power cut does."""
        self._limit.cancel()
        self._process.kill()
        self._process.communicate()

    def _write(self, line: Answer) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()


class Bench:
    """One trial of one library; a context manager.

    Attributes:
        server: the authorization server.
        lacks: what the library does not offer, and why.
    """

    def __init__(self, peer: str, lab: Lab) -> None:
        self.peer = peer
        self.lab = lab
        self.lacks = PEERS[peer].lacks
        self.folder = Path(tempfile.mkdtemp(dir=lab.folder))
        self.server, self._api = TokenServer(lab.pki), TokenServer(lab.pki)
        self.scopes = ["openid", "offline_access", "mqtt"]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._api.stop()
        self.server.stop()

    def device(self, *, env: dict[str, str] | None = None, opened: bool = True, secret: str | None = None) -> Device:
        """A new process of a program that has started, unless it is not yet ``opened``."""
        place = Place(self.server.issuer, f"https://127.0.0.1:{self._api.port}/api", str(self.folder), self.scopes)
        first = {"peer": self.peer, "place": asdict(place) | {"client_secret": secret}}
        trusted = {"REQUESTS_CA_BUNDLE": str(self.lab.pki.ca), "NO_PROXY": "127.0.0.1"}
        command = [self.lab.pythons[self.peer], "-m", "benchmarks.tokens.device"]
        device = self._stack.enter_context(Device(command, first, trusted | (env or {}), self.folder / "stderr"))
        if opened and (error := device.do("open")["error"]):
            raise RuntimeError(f"{self.peer} does not open: {error}: {device.do('shown')['raised'][-2000:]}")
        return device

    def adopt(self, left: float, device: Device | None = None, **more: Any) -> None:
        """Put a token that was issued for an hour into the library's store, valid for ``left`` more seconds.

        ``more`` are further fields of the response. MSAL takes in a refresh token only, and so asks the server.
        """
        before, self.server.script = self.server.script, lambda _: self.server.issue(max(1, left), **more)
        answer = json.loads(self.server.issue(LIFETIME, **more).body)
        self.server.expires[answer["access_token"]] = time.monotonic() + left
        self.take_in(answer, left, device)
        self.server.script = before

    def take_in(self, answer: Answer, left: float, device: Device | None = None) -> None:
        """Put the token of a response into the library's store; these requests are not counted."""
        if device:
            device.do("adopt", answer=answer, left=left)
        else:
            with self.device() as first:
                first.do("adopt", answer=answer, left=left)
        self.server.asked.clear()
