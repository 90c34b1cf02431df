"""An error that nobody expects, at a moment of an attempt: it costs a connection, and another attempt follows."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mqtt_token_client import Connected, ConnectFailed, Disconnected, Rotated, RotationFailed
from mqtt_token_client.mqtt.lifecycle.connect import Connect
from mqtt_token_client.mqtt.lifecycle.reauthenticate import Reauthenticate
from mqtt_token_client.mqtt.session.limits import Limits
from mqtt_token_client.mqtt.transport.connection import NetworkConnection
from tests.unit import packets
from tests.unit.device import Device, Make, both
from tests.unit.packets import AUTH, PUBLISH
from tests.unit.scripted_broker import PATIENCE, Peer
from tests.unit.stepped_time import stepped
from tests.unit.test_core import internal_errors
from tests.unit.test_reauthentication import ByMethod

Fails = Callable[..., None]


def no_memory() -> OSError:
    return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Fails:
    """``fails(where, name, error)``: the next call of a method raises an error."""

    def next_call(where: object, name: str, error: Exception) -> None:
        real = getattr(where, name)
        errors = [error]

        def method(*arguments: Any, **options: Any) -> Any:
            if errors:
                raise errors.pop()
            return real(*arguments, **options)

        monkeypatch.setattr(where, name, method)

    return next_call


@pytest.fixture(autouse=True)
def _one_error_is_logged(make: Make) -> Iterator[None]:
    yield
    found = internal_errors()
    assert len(found) == 1, "\n".join(found)
    found.clear()  # it was expected


def serves(device: Device, peer: Peer) -> None:
    """Messages go both ways."""
    device.client.publish("t", b"from the device")
    assert peer.expect(PUBLISH).payload == b"from the device"
    assert device.client.state == "connected"


class TestInTheResultOfAWorker:
    @both
    @pytest.mark.parametrize("error", [no_memory(), MemoryError()], ids=["OSError", "MemoryError"])
    def test_makes_another_connection(self, make: Make, fails: Fails, protocol: int, error: Exception) -> None:
        device = make(protocol)
        fails(stepped().runtime, "watch", error)
        device.client.connect(timeout=0)
        device.broker.accept().expect_end()
        failed = device.event(ConnectFailed)
        assert not failed.error.permanent
        assert type(error).__name__ in str(failed.error)
        serves(device, device.answer())

    @both
    @pytest.mark.parametrize("where", ["before anything is sent", "in the middle of CONNECT"])
    def test_leaves_the_connection_up_and_rotates_later(
        self, make: Make, fails: Fails, protocol: int, where: str
    ) -> None:
        device = make(protocol)
        first = device.start()
        if where == "before anything is sent":
            fails(stepped().runtime, "watch", no_memory())
        else:
            first.expect_nothing(2.0)  # one that is quiet needs no preparation
            fails(Connect, "send", no_memory())
        device.client.rotate()
        device.broker.accept().expect_end()
        device.event(RotationFailed)
        serves(device, first)
        second = device.answer(session_present=True)
        device.event(Rotated)
        serves(device, second)
        assert not device.reported(Disconnected)

    def test_leaves_the_connection_up_and_authenticates_later(self, make: Make, fails: Fails) -> None:
        device = make(profile=ByMethod())
        first = device.start()
        fails(Reauthenticate, "start", no_memory())
        device.client.rotate()
        device.event(RotationFailed)
        first.expect(AUTH)
        first.send(packets.auth(0))
        device.event(Rotated)
        assert not device.reported(Disconnected)


class TestAfterTheBrokerAcceptedAHandover:
    """The last words of the first connection are read, or its time is over."""

    @both
    @pytest.mark.parametrize("how", ["the first ends", "the first stays open"])
    @pytest.mark.parametrize(
        ("where", "name"),
        [(Limits, "of"), (NetworkConnection, "resume_reading")],
        ids=["before the second is the current one", "after that"],
    )
    def test_makes_another_connection(
        self, make: Make, fails: Fails, protocol: int, how: str, where: object, name: str
    ) -> None:
        device = make(protocol, keepalive=0)
        first = device.start()
        second = device.rotate()
        second.connack(session_present=True)
        stepped().settle()
        fails(where, name, no_memory())
        if how == "the first ends":
            first.close()
        lost = device.event(Disconnected)
        assert how == "the first ends" or lost.cause == "an internal error"
        second.expect_end(PATIENCE)
        third = device.answer(session_present=True)
        device.event(Connected)
        serves(device, third)
