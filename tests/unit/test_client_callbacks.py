"""What belongs to the application may fail in any way: it is reported, and the client goes on."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mqtt_token_client import (
    ConfigurationError,
    Connected,
    ConnectFailed,
    Credentials,
    Disconnected,
    Event,
    HandlerFailed,
    Message,
    MessageUnhandled,
    RenewalFailed,
    Rotated,
    RotationFailed,
    Token,
    TokenError,
    TokenKeeper,
)
from tests.unit.device import Make, Source, password
from tests.unit.packets import CONNECT, PUBACK, PUBLISH


def fail(*_: object) -> None:
    raise ValueError("the application's own trouble")


def leave(*_: object) -> None:
    sys.exit("the application wants to end")


ways = pytest.mark.parametrize("way", [fail, leave])


class TestHandlers:
    @ways
    def test_that_raise_are_reported_and_the_others_still_get_the_message(
        self, make: Make, way: Callable[..., None]
    ) -> None:
        device = make()
        others: list[Message] = []
        device.client.subscribe("a/b", way)
        device.client.subscribe("a/+", others.append)
        peer = device.start()
        peer.expect_subscribe()
        peer.expect_subscribe()
        for number in (1, 2):
            peer.publish("a/b", b"%d" % number, 1, number)
            assert peer.expect(PUBACK).packet_id == number
        reported = device.event(HandlerFailed)
        assert reported.where == "the handler of a/b"
        assert len(device.reported(HandlerFailed)) == 2
        assert [message.payload for message in others] == [b"1", b"2"]
        assert not device.reported(Disconnected)

    @ways
    def test_for_all_other_messages_are_reported_too(self, make: Make, way: Callable[..., None]) -> None:
        device = make(on_message=way)
        peer = device.start()
        peer.publish("t", b"", 1, 1)
        assert peer.expect(PUBACK).packet_id == 1
        device.event(HandlerFailed)
        assert not device.reported(Disconnected)

    def test_may_publish_subscribe_and_look_at_the_client(self, make: Make) -> None:
        device = make()
        seen: list[object] = []

        def handler(message: Message) -> None:
            delivery = device.client.publish("answer", message.payload, qos=1)
            device.client.subscribe("more")
            device.client.unsubscribe("a/#")
            seen.extend((device.client.state, device.client.stats.received))
            with pytest.raises(RuntimeError, match="add_done_callback"):
                delivery.wait()

        device.client.subscribe("a/#", handler)
        peer = device.start()
        peer.expect_subscribe()
        peer.publish("a/b", b"1")
        assert set(peer.expect_subscribe().filters) == {"more"}
        assert set(peer.expect_unsubscribe().filters) == {"a/#"}
        assert peer.expect(PUBLISH).topic == "answer"
        assert seen == ["connected", 1]
        assert not device.reported(HandlerFailed)


class TestOnEvent:
    @ways
    def test_that_raises_at_every_event_stops_nothing(
        self, make: Make, way: Callable[..., None], caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[Event] = []

        def on_event(event: Event) -> None:
            seen.append(event)
            way()

        device = make(on_event=on_event)
        device.client.subscribe("a/#")
        device.client.publish("t", b"1", qos=1)
        device.client.connect(timeout=0)
        first = device.answer(session_present=False)
        first.expect_subscribe()
        sent = first.expect(PUBLISH)
        first.acknowledge(PUBACK, sent.packet_id, 0x87)
        device.until(lambda: device.client.stats.queued == 0)
        first.publish("a/b", b"2")
        device.until(lambda: device.payloads == [b"2"])
        second = device.rotate()
        second.connack(session_present=True)
        first.expect_end()
        second.publish("a/b", b"3")
        device.until(lambda: device.payloads == [b"2", b"3"])
        second.close()
        third = device.answer(session_present=False)
        third.expect_subscribe()
        kinds = {type(event).__name__ for event in seen}
        assert kinds >= {"TokenRenewed", "Connected", "DeliveryRefused", "Rotated", "Disconnected", "SessionLost"}
        assert "on_event raised" in caplog.text


class TestDoneCallbacks:
    @ways
    def test_that_raise_keep_neither_the_others_nor_the_connection_from_going_on(
        self, make: Make, way: Callable[..., None], caplog: pytest.LogCaptureFixture
    ) -> None:
        device = make()
        peer = device.start()
        delivery = device.client.publish("t", b"1", qos=1)
        called = threading.Event()
        delivery.add_done_callback(way)
        delivery.add_done_callback(lambda _: called.set())
        peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id)
        assert called.wait(10)
        device.client.publish("t", b"2")
        assert peer.expect(PUBLISH).payload == b"2"
        assert "a done callback of a Delivery raised" in caplog.text
        assert not device.reported(Disconnected)


class TestTokenSource:
    @ways
    def test_that_raises_anything_is_asked_again_after_a_back_off(self, make: Make, way: Callable[..., None]) -> None:
        class Failing(Source):
            def fetch(self, previous: Token | None) -> Token:
                if not self.requests:
                    self.requests += 1
                    way()
                return super().fetch(previous)

        source = Failing()
        device = make(tokens=source)
        device.client.connect(timeout=0)
        failed = device.event(ConnectFailed)
        assert "application" not in str(failed.error), "the text of an exception may hold a secret"
        assert device.broker.accept().expect(CONNECT).password == password(2)
        assert source.requests == 2

    def test_that_returns_no_token_is_reported(self, make: Make) -> None:
        class Wrong:
            def fetch(self, previous: Token | None) -> Any:
                return "a string"

        device = make(tokens=Wrong())
        device.client.connect(timeout=0)
        assert "must return a Token, got str" in str(device.event(RenewalFailed).error)


class Profile:
    """Places a token as it is told to."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)

    def place(self, token: Token, client_id: str) -> Any:
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            return step
        return Credentials(client_id, token.value.encode(), token)


class TestProfile:
    @pytest.mark.parametrize(
        ("step", "message"),
        [
            (ValueError("the token is secret-secret"), "profile: place() raised ValueError"),
            (TokenError("cannot be placed"), "profile: place() raised TokenError"),
            (ConfigurationError("profile: ask for fewer claims"), "profile: ask for fewer claims"),
            ("no credentials", "profile: place() must return Credentials, got str"),
        ],
    )
    def test_that_fails_is_raised_by_connect(self, make: Make, step: object, message: str) -> None:
        device = make(profile=Profile(step))
        with pytest.raises(ConfigurationError) as raised:
            device.client.connect(timeout=10)
        assert str(raised.value).startswith(message)
        assert "secret-secret" not in str(raised.value)

    @pytest.mark.parametrize("step", [TokenError("no"), "no credentials"])
    def test_that_fails_later_leaves_the_connection_up_and_is_tried_again_slowly(
        self, make: Make, step: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.backoff.Backoff.slow_delay", lambda _: 0.3)
        credentials = Credentials("device", b"first", Token("a token of the profile"))
        device = make(profile=Profile(credentials, step))
        first = device.start()
        device.client.rotate()
        failed = device.event(RotationFailed)
        assert isinstance(failed.error, ConfigurationError)
        assert failed.retry_in == 0.3
        device.answer(session_present=True)
        device.event(Rotated)
        first.expect_end()


class TestListenersOfAKeeper:
    def test_that_raise_do_not_keep_the_client_from_hearing(self, make: Make) -> None:
        device = make(tokens=TokenKeeper(Source(), on_event=fail))
        device.start()
        device.client.rotate()
        device.answer(session_present=True)
        device.event(Rotated)


class TestSecrets:
    def test_are_in_no_event_no_repr_and_no_line_of_the_log(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        device = make()
        first = device.start()
        second = device.rotate()
        second.connack(0x87)
        third = device.answer(session_present=True)
        device.event(Rotated)
        third.disconnect(0x87)
        device.answer(session_present=True)
        device.until(lambda: len(device.reported(Connected)) == 2)
        device.source.always = ValueError(password(3).decode())
        with pytest.raises(TokenError) as raised:
            device.client.rotate()
        first.expect_end()
        settings = device.client._settings
        said = " ".join(map(repr, (device.events, device.client, settings, raised.value, vars(device.client))))
        for text in (caplog.text, said):
            assert "Connected" in text
            assert "the token of request" not in text


class TestNobody:
    """A session that was kept has messages of subscriptions that nobody has handlers for, or not yet."""

    def test_who_takes_a_message_is_an_event_once_for_each_topic(self, make: Make) -> None:
        device = make(on_message=None)
        device.client.subscribe("a", lambda _: None)
        peer = device.start(session_present=True)
        for topic in ("old/1", "a", "old/1", "old/2"):
            peer.publish(topic, b"")
        device.until(lambda: len(device.reported(MessageUnhandled)) == 2)
        peer.publish("old/1", b"")
        device.until(lambda: device.client.stats.received == 5)
        assert device.reported(MessageUnhandled) == [MessageUnhandled("old/1"), MessageUnhandled("old/2")]

    @pytest.mark.parametrize("lost", [True, False])
    def test_looks_for_trouble_in_vain_in_the_log(
        self, make: Make, caplog: pytest.LogCaptureFixture, lost: bool
    ) -> None:
        device = make()
        peer = device.start()
        caplog.clear()
        if lost:
            peer.close()
            device.event(Disconnected)
        else:
            second = device.rotate()
            second.connack(session_present=True)
            device.event(Rotated)
        assert any(record.levelno == logging.WARNING for record in caplog.records) is lost
