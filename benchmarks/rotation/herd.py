"""Many clients that share a keeper, on a real Mosquitto: how their rotations are spread, renewal by renewal."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.pki import Pki
from mqtt_token_client import Disconnected, Event, RenewalPolicy, Rotated, Token, TokenClient, TokenKeeper, TokenRenewed

_MOST_AT_ONCE, _SPREAD = 20, 1 / 3  # the targets
_ESTABLISHED = "01"


class _Minted:
    """A source that costs no request, and counts them."""

    def __init__(self, keys: Keys, lifetime: int) -> None:
        self._keys = keys
        self._lifetime = lifetime
        self.requests = 0

    def fetch(self, previous: Token | None) -> Token:  # noqa: ARG002 - always a new one
        self.requests += 1
        return Token(self._keys.token(self._lifetime), self._lifetime)


class _Herd:
    """What happens to all clients."""

    def __init__(self) -> None:
        self.rotated: list[float] = []
        self.lost = 0
        self.renewed_at = 0.0

    def on_event(self, event: Event) -> None:
        if isinstance(event, Rotated):
            self.rotated.append(time.monotonic())
        elif isinstance(event, Disconnected):
            self.lost += 1
        elif isinstance(event, TokenRenewed) and time.monotonic() > self.renewed_at + 1.0:
            self.renewed_at = time.monotonic()


class _Connections(threading.Thread):
    """Counts the connections to a port, as the kernel sees them, every few milliseconds."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._remote = f":{port:04X}"
        self._stopped = threading.Event()
        self.most = 0

    def run(self) -> None:
        while not self._stopped.wait(0.005):
            lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
            fields = (line.split() for line in lines)
            self.most = max(self.most, sum(one[2].endswith(self._remote) and one[3] == _ESTABLISHED for one in fields))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rotation.herd", description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--lifetime", type=int, default=60, help="of each token, in seconds")
    parser.add_argument("--renewals", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name in ("keys", "pki", "mosquitto"):
            (Path(folder) / name).mkdir()
        keys = Keys(Path(folder) / "keys")
        broker = Mosquitto(keys, Pki(Path(folder) / "pki"), Path(folder) / "mosquitto")
        broker.start()
        stack.callback(broker.stop)
        return _measure(chosen, broker, keys, stack)


def _measure(chosen: argparse.Namespace, broker: Mosquitto, keys: Keys, stack: ExitStack) -> int:
    source, herd = _Minted(keys, chosen.lifetime), _Herd()
    keeper = TokenKeeper(source, policy=RenewalPolicy(jitter=0.0))
    url = f"mqtt://127.0.0.1:{broker.port}"
    clients = [
        TokenClient(url, keeper, client_id=f"herd-{number}", on_event=herd.on_event) for number in range(chosen.clients)
    ]
    for client in clients:
        client.connect(timeout=0)
        stack.callback(client.disconnect)
    _wait(lambda: all(client.state == "connected" for client in clients), chosen.lifetime)
    failures = 0
    for renewal in range(1, chosen.renewals + 1):
        herd.rotated.clear()
        requests, lost, left = source.requests, herd.lost, chosen.lifetime / 3
        counter = _Connections(broker.port)
        counter.start()
        _wait(lambda: len(herd.rotated) == chosen.clients, chosen.lifetime * 1.5)
        counter.stop()
        spread = max(herd.rotated) - min(herd.rotated)
        before_expiry = herd.renewed_at + left - max(herd.rotated)
        at_once = counter.most - chosen.clients
        print(
            f"renewal {renewal}: {source.requests - requests} request, {chosen.clients} rotations over {spread:.1f} s "
            f"of {left:.1f} s that were left, at most {at_once} at once, "
            f"the last {before_expiry:.1f} s before the old token expired, {herd.lost - lost} lost",
            flush=True,
        )
        good = source.requests - requests == 1 and spread >= _SPREAD * left and at_once <= _MOST_AT_ONCE
        failures += not (good and before_expiry > 0 and herd.lost == lost)
    return 1 if failures else 0


def _wait(happened: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            sys.exit(f"it did not happen within {timeout:g} s")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
