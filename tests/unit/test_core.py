"""The core: events decide nothing, state changes on one thread, and an impossible state costs a connection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import (
    Connected,
    Disconnected,
    Event,
    RenewalPolicy,
    Token,
    TokenClient,
    TokenRefusedByBroker,
    events,
)
from mqtt_token_client.core import ClientCore
from mqtt_token_client.mqtt.lifecycle.connect import Connect
from mqtt_token_client.mqtt.lifecycle.current import CurrentConnection
from mqtt_token_client.mqtt.lifecycle.manager import ConnectionManager
from mqtt_token_client.mqtt.runtime.base import Runtime
from mqtt_token_client.oneshot import OneShot
from mqtt_token_client.phase import Phase
from tests.unit import packets
from tests.unit.device import Device, InternalErrors, Make, end, password
from tests.unit.packets import CONNECT, PUBACK, PUBLISH
from tests.unit.scripted_broker import PATIENCE
from tests.unit.stepped_time import wait_until


def manager_of(device: Device) -> ConnectionManager:
    manager = device.client._core._manager
    assert manager is not None
    return manager


def internal_errors() -> list[str]:
    """Those that the fixture of devices has recorded."""
    (found,) = [one.found for one in logging.getLogger("mqtt_token_client").handlers if isinstance(one, InternalErrors)]
    return found


class TestWithEveryEventDropped:
    """All that a client does is the same."""

    @pytest.fixture(autouse=True)
    def _drop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dropped: list[Event] = []
        monkeypatch.setattr(ClientCore, "report", lambda _core, event: self.dropped.append(event))

    def test_connect_returns_and_the_token_rotates_and_disconnect_ends(
        self, make: Make, pool: ThreadPoolExecutor
    ) -> None:
        device = make()
        connecting = pool.submit(device.client.connect, PATIENCE)
        first = device.answer(session_present=False)
        assert connecting.result(PATIENCE)
        second = device.rotate()
        second.connack(session_present=True)
        first.close()
        delivery = device.client.publish("t", b"after the rotation", qos=1)
        message = second.expect(PUBLISH)
        second.acknowledge(PUBACK, message.packet_id)
        delivery.wait(PATIENCE)
        assert (device.client.state, device.client.stats.rotations) == ("connected", 1)
        end(second, pool.submit(device.client.disconnect))
        assert device.client.state == "closed"
        assert device.events == []
        assert {type(event).__name__ for event in self.dropped} >= {"Connected", "Rotated"}

    def test_the_token_is_renewed_ahead_of_time_and_the_connection_moves_onto_it(self, make: Make) -> None:
        device = make(renewal=RenewalPolicy(jitter=0.0))
        device.source.next = [Token("a-short-token", 0.6)]
        device.client.connect(timeout=0)
        device.answer(session_present=False)
        assert device.broker.accept().expect(CONNECT).password == password(2)

    def test_no_token_is_renewed_ahead_of_time_while_the_connection_is_lost(self, make: Make) -> None:
        device = make()
        provider = device.client._core.provider
        device.client.connect(timeout=0)
        first = device.answer(session_present=False)
        assert wait_until(lambda: provider._stop_renewing is not None, PATIENCE)
        device.broker.close()
        first.close()
        assert wait_until(lambda: device.client.state == "waiting", PATIENCE)
        assert provider._stop_renewing is None

    def test_a_lost_connection_is_made_again(self, make: Make) -> None:
        device = make()
        device.client.connect(timeout=0)
        device.answer(session_present=False).close()
        device.answer(session_present=True)
        assert wait_until(lambda: device.client.state == "connected", PATIENCE)
        assert device.client.stats.connects == 2

    @pytest.mark.usefixtures("impatient")
    def test_connect_raises_what_only_a_person_can_fix(self, make: Make, pool: ThreadPoolExecutor) -> None:
        device = make()
        connecting = pool.submit(device.client.connect, PATIENCE)
        for _ in range(2):
            device.answer(0x87)
        with pytest.raises(TokenRefusedByBroker, match="check that it expects these"):
            connecting.result(PATIENCE)
        assert device.client.state == "closed"


class TestAnotherThread:
    """State changes on the runtime's thread only: whoever calls from another one fails before anything changes."""

    def test_cannot_rotate(self, make: Make) -> None:
        device = make()
        device.start()
        with pytest.raises(AssertionError, match="thread"):
            manager_of(device).rotate(Token("another", 60.0))

    def test_cannot_begin_an_attempt(self, make: Make) -> None:
        device = make()
        device.start()
        with pytest.raises(AssertionError, match="thread"):
            manager_of(device).begin()

    def test_cannot_close(self, make: Make) -> None:
        device = make()
        device.start()
        with pytest.raises(AssertionError, match="thread"):
            manager_of(device).close(1.0, lambda: None)

    def test_cannot_report_a_change(self, make: Make) -> None:
        device = make()
        device.start()
        with pytest.raises(AssertionError, match="thread"):
            device.client._core.down("nothing happened", None, 0.0)
        assert device.client._core.connected


def test_an_impossible_state_ends_the_connection_with_a_logged_error_and_another_is_made(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impossible(*_: object) -> None:
        raise AssertionError("this cannot be")

    device = make()
    peer = device.start()
    with monkeypatch.context() as patched:
        patched.setattr(CurrentConnection, "_rare_packet_arrived", impossible)
        peer.send(packets.PINGRESP_PACKET)
        assert device.event(Disconnected).cause == "an internal error"
    (logged,) = internal_errors()
    assert "this cannot be" in logged
    internal_errors().clear()  # it was expected
    device.answer()
    device.event(Connected)


def test_connect_is_sent_once(make: Make) -> None:
    device = make()
    device.start()
    device.rotate()
    connect = getattr(manager_of(device).attempt, "connect", None)
    assert isinstance(connect, Connect)
    with pytest.raises(AssertionError):
        connect.send()


def test_a_connect_at_the_very_end_of_a_disconnect_leaves_nobody_waiting_and_has_signals_of_its_own(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = make()
    core = device.client._core
    device.client.connect(timeout=0)
    device.broker.accept().expect(CONNECT)
    first_result = core.first_result

    def connect_before() -> None:
        another = threading.Thread(target=device.client.connect, args=(0,))
        another.start()
        another.join()
        OneShot.set(first_result)

    monkeypatch.setattr(first_result, "set", connect_before)
    closed = core.close(0)
    peer = device.broker.accept()
    assert first_result.is_set
    assert closed.is_set
    assert not core.first_result.is_set
    assert not core._closed.is_set
    peer.expect(CONNECT)
    peer.connack()
    device.event(Connected)
    assert core.first_result.is_set


Handler = Callable[[TokenClient], object]


class TestASignalHandlerInTheMiddleOfAStart:
    @pytest.fixture
    def start(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], Phase]:
        """Starts a client, with a handler in the middle; returns how far it has come."""

        def start(handler: Handler) -> Phase:
            client = make().client
            core = client._core
            acquire = core._acquire

            def interrupted() -> Runtime:
                handler(client)
                return acquire()

            monkeypatch.setattr(core, "_acquire", interrupted)
            client.connect(timeout=0)
            return core.phase

        return start

    def test_has_it_closed_and_does_not_wait(self, start: Callable[[Handler], Phase]) -> None:
        assert start(lambda client: client.disconnect()) is Phase.CLOSING

    def test_has_it_go_on(self, start: Callable[[Handler], Phase]) -> None:
        def reconnect(client: TokenClient) -> None:
            client.disconnect()
            assert not client.connect(timeout=50)

        assert start(reconnect) is Phase.CONNECTING


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (events.Connected("mqtt://b", True), "INFO"),
        (events.Rotated("handover", 0.0), "INFO"),
        (events.Disconnected("it ended", None, 0.0), "WARNING"),
        (events.MessageUnhandled("t"), "WARNING"),
    ],
)
def test_an_event_is_logged_at_its_own_level(
    make: Make, caplog: pytest.LogCaptureFixture, event: Event, level: str
) -> None:
    make().client._core.report(event)
    assert [record.levelname for record in caplog.records if str(event) in record.getMessage()] == [level]


class TestOneShot:
    def test_calls_a_callback_that_came_before_and_one_that_came_after(self) -> None:
        called: list[str] = []
        shot = OneShot()
        shot.add_callback(lambda: called.append("before"))
        assert not shot.wait(0)
        shot.set()
        shot.add_callback(lambda: called.append("after"))
        shot.set()
        assert called == ["before", "after"]

    def test_wakes_a_thread_that_waits(self) -> None:
        shot = OneShot()
        waiting = threading.Thread(target=shot.wait)
        waiting.start()
        shot.set()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
