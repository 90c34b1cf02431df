"""Fixtures that several files of the unit tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
from joserfc.jwk import RSAKey

from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit import stepped_time
from tests.unit.device import Make, devices
from tests.unit.embedded import Connect, connecting, running_server

_Result = TypeVar("_Result")


def pytest_collection_modifyitems() -> None:
    """A busy machine makes no test of hypothesis fail. hypothesis is not loaded for a process that has none."""
    if "hypothesis" in sys.modules:
        from hypothesis import HealthCheck, settings

        settings.register_profile("busy", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("busy")


class Application(ThreadPoolExecutor):
    """An application's threads, which stepped time waits for."""

    def submit(self, function: Callable[..., _Result], /, *arguments: Any, **options: Any) -> Future[_Result]:
        task = stepped_time.task()
        if task is None:
            return super().submit(function, *arguments, **options)
        future = super().submit(task.run, function, *arguments, **options)
        future.add_done_callback(task.done)
        return future


@pytest.fixture
def make() -> Iterator[Make]:
    """``make(protocol, ...)`` makes a :class:`~tests.unit.device.Device` in stepped time."""
    with devices() as make:
        yield make


@pytest.fixture
def make_in_real_time() -> Iterator[Make]:
    """``make_in_real_time(protocol, ...)`` makes a :class:`~tests.unit.device.Device` with a real network thread."""
    with devices(real_time=True) as make:
        yield make


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads of the application."""
    executor = Application(4, thread_name_prefix="application")
    yield executor
    executor.shutdown(wait=False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second rejection of the token counts as one that does not pass by itself, though no minute has passed."""
    monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.retry._PASSING", 0.0)


@pytest.fixture
def loop() -> Iterator[NetworkThread]:
    """A network thread of the test's own."""
    loop = NetworkThread()
    yield loop
    loop.stop()
    loop._thread.join(timeout=10)
    assert not loop._thread.is_alive()


@pytest.fixture(scope="session", autouse=True)
def _three_keys() -> Iterator[None]:
    """The embedded authorization servers share three keys, in turn: to generate one takes 0.1 s."""
    generate, keys = RSAKey.generate_key, list[RSAKey]()

    def in_turn(*arguments: Any, **options: Any) -> RSAKey:
        keys.append(keys.pop(0) if len(keys) == 3 else generate(*arguments, **options))
        return keys[-1]

    with patch.object(RSAKey, "generate_key", in_turn):
        yield


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
