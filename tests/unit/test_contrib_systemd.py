# ruff: noqa: F811 - fixtures are arguments
"""notify_systemd(): what systemd is sent, on a socket as systemd opens it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_token_client import ClientCredentials, TokenClient, TokenKeeper
from mqtt_token_client.clock import monotonic
from mqtt_token_client.contrib.systemd import notify_systemd
from mqtt_token_client.profiles import open_profile
from mqtt_token_client.testing import AuthorizationServer, Broker
from mqtt_token_client.testing.device_clock import DeviceClock
from mqtt_token_client.testing.plugin import broker, clock, idp, token_source  # noqa: F401 - as fixtures
from mqtt_token_client.tokens.credentials import CredentialsProvider


class Systemd:
    """The other end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def next(self, timeout: float = 10.0) -> list[str]:
        self._sock.settimeout(timeout)
        return self._sock.recv(4096).decode().split("\n")

    def expect(self, line: str) -> None:
        """Wait for a line, whatever comes before it."""
        while line not in self.next():
            pass


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = str(tmp_path / "notify") if request.param == "path" else f"\0mqtt-token-test-{os.getpid()}"
        sock.bind(name)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        yield Systemd(sock)


@pytest.fixture
def client(broker: Broker, token_source: ClientCredentials) -> TokenClient:
    return TokenClient(broker.url, token_source, client_id="pump-17")


def test_the_service_is_ready_when_the_broker_has_accepted_the_client(systemd: Systemd, client: TokenClient) -> None:
    with notify_systemd(client):
        with pytest.raises(TimeoutError):
            systemd.next(0.05)
        with client:
            ready = systemd.next()
            assert ready[0] == "READY=1"
            assert ready[1].startswith("STATUS=connected to mqtt://127.0.0.1")
    systemd.expect("STOPPING=1")


def test_a_client_that_is_connected_already_is_ready_at_once(systemd: Systemd, client: TokenClient) -> None:
    with client, notify_systemd(client):
        assert systemd.next()[0] == "READY=1"


def test_the_status_says_in_words_what_is_wrong(systemd: Systemd, client: TokenClient, broker: Broker) -> None:
    with client, notify_systemd(client):
        broker.disconnect(0x8B)
        while "Server shutting down" not in (status := systemd.next()[-1]):
            pass
        assert status.startswith("STATUS=")
        assert len(status) <= 207


def test_the_watchdog_hears_of_a_network_thread_that_runs(
    systemd: Systemd, client: TokenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with client, notify_systemd(client):
        for _ in range(3):
            systemd.expect("WATCHDOG=1")


def test_the_watchdog_hears_nothing_of_a_network_thread_that_hangs(
    systemd: Systemd, client: TokenClient, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    hangs, go_on = threading.Event(), threading.Event()

    def hang(_message: object) -> None:
        hangs.set()
        go_on.wait(10)

    client.subscribe("hang", hang)
    with client, notify_systemd(client):
        client.publish("hang", "", qos=1)
        assert hangs.wait(10)
        with contextlib.suppress(TimeoutError):
            while systemd.next(0.1):
                pass
        go_on.set()
        systemd.expect("WATCHDOG=1")


def test_the_watchdog_hears_of_a_client_that_connects_again_beside_another_one(
    systemd: Systemd,
    client: TokenClient,
    broker: Broker,
    token_source: ClientCredentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    with TokenClient(broker.url, token_source, client_id="keeps-the-network-thread") as other, notify_systemd(client):
        client.connect()
        systemd.expect("WATCHDOG=1")
        client.disconnect()
        runtime, timer_is_over = other._core.runtime, threading.Event()
        assert runtime is not None
        runtime.call_later(0.1, timer_is_over.set)  # that of the watchdog was due by then, and found no client
        assert timer_is_over.wait(10)
        with contextlib.suppress(TimeoutError):
            while systemd.next(0.1):
                pass
        client.connect()
        assert client._core.runtime is runtime
        for _ in range(3):
            systemd.expect("WATCHDOG=1")
        client.disconnect()


def test_the_watchdog_of_another_process_is_left_alone(
    systemd: Systemd, client: TokenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with client, notify_systemd(client):
        lines = []
        with contextlib.suppress(TimeoutError):
            while True:
                lines += systemd.next(0.1)
        assert "READY=1" in lines
        assert "WATCHDOG=1" not in lines


def test_a_client_whose_renewal_did_not_begin_is_not_healthy(
    token_source: ClientCredentials, clock: DeviceClock
) -> None:
    keeper = TokenKeeper(token_source)
    provider = CredentialsProvider(keeper, open_profile("password"), "pump-17")
    keeper.get()
    assert provider.healthy
    clock.jump(hours=3)  # and nothing renews, as no client is connected
    assert not provider.healthy


def test_a_client_whose_token_is_valid_is_healthy_even_if_its_renewal_did_not_begin(
    token_source: ClientCredentials, idp: AuthorizationServer, clock: DeviceClock
) -> None:
    idp.lifetime = 3600
    keeper = TokenKeeper(token_source)
    provider = CredentialsProvider(keeper, open_profile("password"), "pump-17")
    token = keeper.get()
    clock.jump(seconds=token.expires_in - 1)
    assert keeper.renewal_due < monotonic() - 60
    assert provider.healthy


def test_a_client_that_waits_to_ask_again_is_healthy(
    token_source: ClientCredentials, idp: AuthorizationServer, clock: DeviceClock
) -> None:
    keeper = TokenKeeper(token_source)
    provider = CredentialsProvider(keeper, open_profile("password"), "pump-17")
    keeper.get()
    clock.jump(hours=3)
    idp.fail(503)
    keeper.renew_when_due()
    assert provider.healthy


def test_without_systemd_nothing_happens(client: TokenClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with client, notify_systemd(client):
        assert client.state == "connected"
