"""Fixtures that several files of the unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.device import Make, devices
from tests.unit.embedded import Connect, connecting, running_server


@pytest.fixture
def make() -> Iterator[Make]:
    """``make(protocol, ...)`` makes a :class:`~tests.unit.device.Device`."""
    with devices() as make:
        yield make


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads of the application."""
    with ThreadPoolExecutor(4, thread_name_prefix="application") as executor:
        yield executor


@pytest.fixture
def loop() -> Iterator[NetworkThread]:
    """A network thread of the test's own."""
    loop = NetworkThread()
    yield loop
    loop.stop()
    loop._thread.join(timeout=10)
    assert not loop._thread.is_alive()


@pytest.fixture(scope="module")
def server() -> Iterator[AuthorizationServer]:
    """The embedded authorization server."""
    with running_server() as server:
        yield server


@pytest.fixture
def broker(server: AuthorizationServer) -> Iterator[Broker]:
    """The embedded broker, which accepts that server's tokens."""
    with Broker(server) as broker:
        yield broker


@pytest.fixture
def connect(server: AuthorizationServer, broker: Broker) -> Iterator[Connect]:
    """``connect(client_id, ...)`` opens a connection with a valid token."""
    with connecting(server, broker) as connect:
        yield connect
