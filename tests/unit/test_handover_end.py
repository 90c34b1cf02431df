"""What a handover leaves behind when it is over: nothing that acts later, and nothing unread."""

from __future__ import annotations

import selectors
import socket
import time

import pytest

from mqtt_token_client import Connected, ConnectFailed, Disconnected, Rotated, RotationFailed
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import ProtocolError
from tests.unit import packets
from tests.unit.device import Make, both
from tests.unit.packets import PINGREQ, PUBLISH
from tests.unit.stepped_time import stepped
from tests.unit.test_core import manager_of

_LONG = 40.0  # seconds: longer than any deadline of a handover


@both
def test_what_the_broker_sent_before_it_accepted_is_read_although_another_callback_then_takes_long(
    make: Make, protocol: int
) -> None:
    device = make(protocol)
    device.client.subscribe("t")
    current = device.start()
    current.expect_subscribe()
    new = device.rotate()
    ours, theirs = socket.socketpair()
    runtime = stepped().runtime

    def just_before_connack_is_read(_: int) -> None:
        theirs.recv(1)
        current._sock.send(packets.publish(current.five, "t", b"sent before"))
        runtime.call_soon(lambda: time.sleep(_LONG))  # in the same turn of the loop, before its timers

    runtime.call_soon(lambda: runtime.watch(theirs, selectors.EVENT_READ, just_before_connack_is_read))
    stepped().settle()
    ours.send(b"x")
    new._sock.send(packets.connack(new.five, session_present=True) + packets.publish(new.five, "t", b"sent after"))
    device.until(lambda: bool(device.reported(Rotated)))
    device.until(lambda: len(device.messages) == 2, timeout=1.0)
    assert device.payloads == [b"sent before", b"sent after"]
    runtime.call_soon(lambda: runtime.watch(theirs, 0, just_before_connack_is_read))
    stepped().settle()
    ours.close()
    theirs.close()


@both
def test_a_broker_that_leaves_the_first_connection_open_is_waited_for_half_a_second_and_hardly_the_next_time(
    make: Make, protocol: int
) -> None:
    device = make(protocol)
    device.start()
    waits = []
    for _ in range(2):
        new = device.rotate()
        new.connack(session_present=True)
        accepted = monotonic()
        device.event(Rotated)
        waits.append(monotonic() - accepted)
    assert 0.4 < waits[0] < 0.6
    assert waits[1] < 0.1


@both
def test_the_end_of_the_first_connection_in_the_turn_of_the_deadline_leaves_the_second_open(
    make: Make, protocol: int
) -> None:
    device = make(protocol)
    first = device.start()
    old = manager_of(device)._current
    assert old is not None
    second = device.rotate()
    second.connack(session_present=True)
    stepped().settle()

    def read_the_end() -> None:
        first.close()
        time.sleep(_LONG)  # the deadline passes
        old.connection.read()  # as for what TLS has decoded already

    stepped().runtime.call_soon(read_the_end)
    device.event(Rotated)
    second.expect_nothing(_LONG)
    assert not device.reported(Disconnected)
    assert device.client.state == "connected"


@both
def test_a_failed_one_is_reported_once_and_its_deadline_passes_unnoticed(make: Make, protocol: int) -> None:
    device = make(protocol)
    current = device.start()
    device.rotate().close()
    device.event(RotationFailed)
    device.answer()
    device.event(Rotated)
    current.close()
    time.sleep(_LONG)
    assert len(device.reported(RotationFailed)) == len(device.reported(Rotated)) == 1
    assert device.client.state == "connected"


@both
def test_a_connection_that_is_lost_before_connack_leaves_in_doubt_whether_the_session_is_new(
    make: Make, protocol: int
) -> None:
    """The broker may have begun a new session: the identifier of a known message may be that of a new one."""
    device = make(protocol)
    device.client.subscribe("t", qos=2)
    current = device.start()
    current.expect_subscribe()
    current.publish("t", b"of the old session", 2, 7)
    current.expect(packets.PUBREC)
    device.rotate().close()
    device.event(RotationFailed)
    new = device.answer()
    device.event(Rotated)
    new.expect_subscribe()
    new.publish("t", b"of the new session", 2, 7)
    new.expect(packets.PUBREC)
    assert device.payloads == [b"of the old session", b"of the new session"]


@pytest.mark.parametrize("answers", [0, 1], ids=["settling", "holding"])
@both
def test_one_whose_connection_is_lost_sends_no_connect_later(
    make: Make, protocol: int, answers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_SETTLE_TIME", "_HEAD_START", "_HEAD_START_NEAR"):
        monkeypatch.setattr(f"mqtt_token_client.mqtt.lifecycle.handover.{name}", 5.0)
    device = make(protocol)
    current = device.start()
    device.client.publish("t", b"so that it is not quiet")
    current.expect(PUBLISH)
    device.client.rotate()
    new = device.broker.accept()
    for _ in range(answers):
        current.expect(PINGREQ)
        current.send(packets.PINGRESP_PACKET)
    current.expect(PINGREQ)
    current.close()
    device.event(Disconnected)
    new.expect(packets.CONNECT)
    new.connack(session_present=True)
    device.event(Connected)
    time.sleep(_LONG)
    assert not device.reported(RotationFailed)
    assert device.client.state == "connected"


def test_auth_without_an_authentication_method_in_connect_ends_the_attempt(make: Make) -> None:
    device = make(5)
    device.client.connect(timeout=0)
    peer = device.broker.accept()
    peer.expect(packets.CONNECT)
    peer.send(packets.auth(0x18))
    failed = device.event(ConnectFailed)
    assert isinstance(failed.error, ProtocolError)
    assert "CONNECT named no Authentication Method" in str(failed.error)
    peer.expect_end()
