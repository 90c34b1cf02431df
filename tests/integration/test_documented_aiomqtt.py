"""The recipe of docs/asyncio.md for one's own aiomqtt client: it connects again with each new token."""

from __future__ import annotations

import re
import runpy
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.servers.processes import wait_until
from devtools.servers.secret_check import remember_secret
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.documented import blocks


@pytest.fixture
def idp() -> Iterator[AuthorizationServer]:
    with AuthorizationServer(lifetime=60) as server:
        remember_secret(server.client_secret)
        yield server


@pytest.fixture
def broker(idp: AuthorizationServer) -> Iterator[Broker]:
    with Broker(idp) as broker:
        yield broker


@pytest.fixture
def run(
    idp: AuthorizationServer, broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[], None]:
    """Run the recipe on these servers; it retries at once, and renews a token at a hundredth of its lifetime."""
    monkeypatch.setenv("PUMP_SECRET", idp.client_secret)
    (block,) = [block for block in blocks("docs/asyncio.md", "python") if "import aiomqtt" in block.code]
    code = block.code.replace("https://id.example.com/realms/plant", idp.issuer)
    code = code.replace('client_id="pump-17"', f'client_id="{idp.client_id}"')
    code = code.replace('"broker.example.com",\n                8883', f'"127.0.0.1",\n                {broker.port}')
    code = re.sub(r"\n *tls_params=.*", "", code).replace("sleep(5)", "sleep(0.05)")
    policy = 'policy=__import__("mqtt_token_client").RenewalPolicy(0.01, jitter=0.0)'
    code = code.replace("TokenKeeper(source)", f"TokenKeeper(source, {policy})")
    path = tmp_path / "program.py"
    path.write_text(code)

    def run() -> None:
        runpy.run_path(str(path), run_name="__main__")

    return run


@pytest.fixture
def after(broker: Broker) -> Iterator[Callable[[int], None]]:
    """``after(n)`` lets the program stop when it has published for the n-th time, which it does once a connection."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def stop(count: int) -> None:
        broker.messages("pump/17/temperature", count=count, timeout=20)
        while not ended.wait(0.02):
            broker.publish("pump/17/command/now", b"stop", qos=1)

    def after(count: int) -> None:
        threads.append(threading.Thread(target=stop, args=(count,)))
        threads[-1].start()

    yield after
    ended.set()
    for thread in threads:
        thread.join()


def test_it_connects_again_with_each_new_token_and_ends(
    run: Callable[[], None], after: Callable[[int], None], broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    after(3)
    run()
    assert len(broker.messages("pump/17/temperature")) >= 3
    assert "again in five seconds" not in capsys.readouterr().out
    wait_until(lambda: broker.client_ids == set(), "the broker has read DISCONNECT")


def test_a_rejected_token_is_not_presented_again(
    run: Callable[[], None],
    after: Callable[[int], None],
    idp: AuthorizationServer,
    broker: Broker,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker.reject(0x87)
    after(1)
    run()
    assert capsys.readouterr().out.count("again in five seconds") == 1
    assert len(idp._issued) >= 2
