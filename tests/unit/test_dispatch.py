"""Which handlers get a message, and what becomes of one that has none or whose handler fails."""

from __future__ import annotations

import pytest

from mqtt_token_client.events import Event, HandlerFailed, MessageUnhandled
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.session.dispatch import Dispatcher, Handler
from mqtt_token_client.mqtt.session.packet_ids import PacketIds
from mqtt_token_client.mqtt.session.subscriptions import Subscriptions


def message(topic: str) -> Message:
    return Message(topic, b"", 0, False, False)


def dispatcher(events: list[Event], on_message: Handler | None = None, **handlers: Handler | None) -> Dispatcher:
    subscriptions = Subscriptions(PacketIds())
    for topic_filter, handler in handlers.items():
        subscriptions.add(topic_filter, handler, 1)
    return Dispatcher(subscriptions.routes, on_message, events.append)


def test_a_message_goes_to_the_handlers_of_its_topic_and_not_to_on_message() -> None:
    events: list[Event] = []
    handled: list[Message] = []
    others: list[Message] = []
    made = dispatcher(events, others.append, a=handled.append, b=others.append)
    assert made.dispatch(message("a"))
    assert handled == [message("a")]
    assert others == []
    assert events == []


def test_on_message_gets_what_has_no_handler() -> None:
    events: list[Event] = []
    got: list[Message] = []
    assert dispatcher(events, got.append, a=None).dispatch(message("a"))
    assert got == [message("a")]
    assert events == []


def test_a_topic_without_a_handler_is_reported_once() -> None:
    events: list[Event] = []
    made = dispatcher(events)
    assert [made.dispatch(message(topic)) for topic in ("a", "b", "a")] == [()] * 3
    assert events == [MessageUnhandled("a"), MessageUnhandled("b")]


def test_no_more_than_1024_topics_are_reported_and_remembered() -> None:
    events: list[Event] = []
    made = dispatcher(events)
    for number in range(2000):
        made.dispatch(message(str(number)))
    assert events == [MessageUnhandled(str(number)) for number in range(1024)]
    assert len(made._reported) == 1024


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (ValueError("of a handler"), "ValueError('of a handler')"),
        (SystemExit(3), "RuntimeError('it raised SystemExit')"),
    ],
)
def test_what_a_handler_raises_is_logged_and_reported_and_the_others_are_called(
    error: BaseException, reported: str, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    got: list[Message] = []

    def fail(_message: Message) -> None:
        raise error

    subscriptions = Subscriptions(PacketIds())
    subscriptions.add("a", fail, 1)
    subscriptions.add("#", got.append, 1)
    assert Dispatcher(subscriptions.routes, None, events.append).dispatch(message("a"))
    assert got == [message("a")]
    (event,) = events
    assert isinstance(event, HandlerFailed)
    assert (event.where, repr(event.error)) == ("the handler of a", reported)
    assert "a handler of a raised an exception" in caplog.text
