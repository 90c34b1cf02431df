"""A list of brokers: connect() raises once every one of them has failed for good, and not before."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client import (
    AuthorizationServerUnavailable,
    Backoff,
    BrokerRefused,
    Connected,
    ConnectFailed,
    Disconnected,
    TokenRefused,
    TokenRefusedByBroker,
)
from mqtt_token_client.mqtt.transport import happy_eyeballs
from tests.unit.device import Device, Make, both, password
from tests.unit.packets import CONNECT, PINGREQ, PUBLISH, SUBSCRIBE, suback
from tests.unit.scripted_broker import PATIENCE, ScriptedBroker
from tests.unit.stepped_time import wait_until_readable

SLOW = Backoff(initial=60.0, maximum=60.0)
BANNED, UNAVAILABLE, NOT_AUTHORIZED = 0x8A, 0x88, 0x87


@pytest.fixture
def brokers() -> Iterator[list[ScriptedBroker]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(ScriptedBroker())) for _ in range(3)]


@pytest.fixture
def untrusted(pki: Pki) -> Iterator[ScriptedBroker]:
    """A broker whose certificate is not trusted."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.server.certificate, pki.server.key)
    with contextlib.closing(ScriptedBroker(context)) as broker:
        yield broker


def device_of(make: Make, brokers: list[ScriptedBroker], **options: object) -> Device:
    return make(broker=brokers[0], broker_url=[broker.url for broker in brokers], **{"backoff": SLOW, **options})


def reject(broker: ScriptedBroker, code: int) -> bytes | None:
    peer = broker.accept(70.0)
    presented = peer.expect(CONNECT).password
    peer.connack(code)
    return presented


def test_every_one_is_tried_at_once_before_connect_raises(
    make: Make, pool: ThreadPoolExecutor, brokers: list[ScriptedBroker]
) -> None:
    device = device_of(make, brokers)
    connecting = pool.submit(device.client.connect, 10)
    for broker in brokers:
        assert not connecting.done()
        reject(broker, BANNED)
    with pytest.raises(BrokerRefused, match="has banned this client"):
        connecting.result(10)
    assert device.source.requests == 1


def test_one_behind_others_that_failed_for_good_is_connected_to(
    make: Make, pool: ThreadPoolExecutor, brokers: list[ScriptedBroker]
) -> None:
    device = device_of(make, brokers)
    connecting = pool.submit(device.client.connect, 10)
    reject(brokers[0], BANNED)
    reject(brokers[1], NOT_AUTHORIZED)
    peer = brokers[2].accept()
    assert peer.expect(CONNECT).password == password(1)  # which no other has to be requested for
    peer.connack()
    assert connecting.result(10) is True


def test_a_certificate_that_is_not_trusted_leads_to_the_next(
    make: Make, pool: ThreadPoolExecutor, brokers: list[ScriptedBroker], untrusted: ScriptedBroker
) -> None:
    device = make(broker=brokers[0], broker_url=[untrusted.url, brokers[0].url], backoff=SLOW)
    connecting = pool.submit(device.client.connect, 10)
    with pytest.raises(ssl.SSLError):
        untrusted.accept()
    device.answer()
    assert connecting.result(10) is True
    assert device.reported(ConnectFailed)[0].error.permanent


def test_connect_does_not_raise_while_one_of_them_may_recover(
    make: Make, pool: ThreadPoolExecutor, brokers: list[ScriptedBroker]
) -> None:
    device = device_of(make, brokers[:2])
    connecting = pool.submit(device.client.connect, 200)
    reject(brokers[0], BANNED)
    reject(brokers[1], UNAVAILABLE)
    reject(brokers[0], BANNED)
    peer = brokers[1].accept(70.0)
    peer.expect(CONNECT)
    peer.connack()
    assert connecting.result(10) is True


@both
@pytest.mark.usefixtures("impatient")
def test_each_gets_the_same_token_before_another_is_requested(
    make: Make, pool: ThreadPoolExecutor, brokers: list[ScriptedBroker], protocol: int
) -> None:
    device = make(protocol, broker=brokers[0], broker_url=[broker.url for broker in brokers], backoff=SLOW)
    connecting = pool.submit(device.client.connect, 200)
    code = NOT_AUTHORIZED if protocol == 5 else 5
    assert [reject(broker, code) for broker in brokers] == [password(1)] * 3
    assert reject(brokers[0], code) == password(2)
    with pytest.raises(TokenRefusedByBroker, match="4 times in a row"):
        connecting.result(10)
    assert [event.times for event in device.reported(TokenRefused)] == [1, 2, 3, 4]


def test_a_token_that_could_not_be_obtained_is_no_brokers_failure(make: Make, brokers: list[ScriptedBroker]) -> None:
    device = device_of(make, brokers)
    device.source.next = [AuthorizationServerUnavailable("busy")]
    device.client.connect(timeout=0)
    device.event(ConnectFailed)
    assert brokers[0].accept(70.0).expect(CONNECT).password == password(2)


def test_one_that_dies_as_a_rotation_begins_has_failed_once_and_the_next_is_not_avoided(
    make: Make, brokers: list[ScriptedBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_token_client.mqtt.lifecycle.handover._SETTLE_TIME", 5.0)
    device = device_of(make, brokers[:2])
    first = device.start()
    device.client.publish("t", b"so that it is not quiet")
    first.expect(PUBLISH)
    device.client.rotate()
    second = brokers[0].accept()
    first.expect(PINGREQ)
    first.close()
    second.close()
    brokers[1].accept(70.0).expect(CONNECT)
    assert len(device.reported(ConnectFailed)) == 1


@both
@pytest.mark.parametrize("ends", [False, True], ids=["is silent", "ends the connection"])
def test_an_address_of_a_broker_that_answers_no_connect_comes_after_its_others(
    make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    broker = ScriptedBroker()
    with socket.create_server(("127.0.0.2", broker.port)) as silent:
        hosts = ("127.0.0.2", "127.0.0.1")
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, broker.port)) for host in hosts]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(happy_eyeballs, "_HEAD_START", 1000.0)
        device = make(protocol, broker=broker, broker_url=f"mqtt://localhost:{broker.port}")
        device.client.connect(timeout=0)
        if ends:
            wait_until_readable(silent, PATIENCE)
            with silent.accept()[0] as sock:
                wait_until_readable(sock, PATIENCE)
                assert sock.recv(1000)
        device.until(lambda: bool(device.reported(ConnectFailed)), 20.0)
        device.answer().close()
        device.event(Disconnected)
        device.answer()
        device.event(Connected)
        silent.setblocking(False)
        if not ends:
            silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_another_one_that_has_a_session_is_asked_for_all_filters_again(
    make: Make, brokers: list[ScriptedBroker]
) -> None:
    """Its session is another one if the brokers are no cluster."""
    device = device_of(make, brokers[:2], backoff=Backoff(initial=0.01, maximum=0.01))
    device.client.subscribe("a", qos=1)
    device.client.connect(timeout=0)
    peer = brokers[0].accept()
    for broker in (brokers[1], None):
        peer.expect(CONNECT)
        peer.connack(session_present=broker is None)
        asked = peer.expect(SUBSCRIBE)
        assert asked.filters == {"a": 1}
        peer.send(suback(True, asked.packet_id, [1]))
        device.until(lambda: device.client._core.session.subscriptions.asked == {})
        peer.close()
        device.event(Disconnected)
        if broker is not None:
            reject(brokers[0], UNAVAILABLE)
            peer = broker.accept()
    peer = brokers[1].accept()  # the same one
    peer.expect(CONNECT)
    peer.connack(session_present=True)
    peer.expect_nothing()
