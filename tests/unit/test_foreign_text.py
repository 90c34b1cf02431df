"""Text of servers, publishers and proxies: wherever it is shown, it is one line of bounded length."""

from __future__ import annotations

import gc
import inspect
import logging
import tracemalloc
from typing import Any

import pytest

from mqtt_token_client import errors, events
from mqtt_token_client.logs import LONGEST_MESSAGE, LONGEST_TEXT, get_logger, printable
from mqtt_token_client.mqtt.codec.message import Message
from mqtt_token_client.mqtt.session.dispatch import Dispatcher
from mqtt_token_client.mqtt.session.packet_ids import PacketIds
from mqtt_token_client.mqtt.session.subscriptions import Subscriptions
from mqtt_token_client.token import Token

HOSTILE = "a\x1b]0;title\x07\r\nforged line\u202e\u2028\ud800\0" * 1000
OWN = {
    ("SubscriptionRefused", "topic_filter"),
    ("UnsubscriptionRefused", "topic_filter"),
    ("DeliveryRefused", "topic"),
    ("MessageExpired", "topic"),
}
EVENTS = [kind for _, kind in inspect.getmembers(events, inspect.isclass) if issubclass(kind, events.Event)]
ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.MqttTokenError)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plant/17/ü, 100 %", "plant/17/ü, 100 %"),
        ("\x1b[31mred", "[31mred"),
        ("two\r\nlines", "two  lines"),
        ("A\u202eB\u200bC\ud800D\x9bE", "ABCDE"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
    ],
    ids=ascii,
)
def test_text_from_elsewhere_loses_its_control_characters_and_what_is_too_long(text: str, shown: str) -> None:
    assert printable(text) == shown


def example(kind: type, text: str) -> Any:
    """An event or an error with this text in every field that holds text."""
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind is not parameter.VAR_POSITIONAL and parameter.kind is not parameter.VAR_KEYWORD:
            annotation = str(parameter.annotation)
            values[name] = text if "str" in annotation or "Kind" in annotation else 1.0
    return kind(**values) if values else kind(text)


@pytest.mark.parametrize("kind", EVENTS)
def test_each_event_holds_printable_text_only(kind: type[events.Event]) -> None:
    if kind is events.Event:
        return
    event = example(kind, HOSTILE)
    for name in event.__match_args__:
        value = getattr(event, name)
        if isinstance(value, str) and (kind.__name__, name) not in OWN:
            assert value.isprintable(), name
            assert len(value) <= LONGEST_TEXT, name
    assert str(event).isprintable()


@pytest.mark.parametrize("kind", EVENTS)
def test_each_event_leaves_the_text_of_the_application_as_it_is(kind: type[events.Event]) -> None:
    for name in kind._own:
        assert getattr(example(kind, HOSTILE), name) == HOSTILE


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_holds_printable_text_only(kind: type[errors.MqttTokenError]) -> None:
    error = example(kind, HOSTILE)
    assert str(error).isprintable()
    assert len(str(error)) <= LONGEST_MESSAGE
    for value in (*error.args, *vars(error).values()):
        assert not isinstance(value, str) or (value.isprintable() and len(value) <= LONGEST_MESSAGE)


def test_the_repr_of_a_token_is_printable() -> None:
    import jwt

    assert repr(Token(jwt.encode({"jti": "\x1b]0;\x07\n"}, "k" * 32))).isprintable()


def test_a_log_record_holds_printable_text_only(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("mqtt_token_client.test").warning("on %s: %s", HOSTILE, ValueError(HOSTILE))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) <= 2 * LONGEST_MESSAGE + len("on : ")


def test_a_thousand_long_topics_without_a_handler_take_little_memory() -> None:
    reported: list[events.Event] = []
    dispatcher = Dispatcher(Subscriptions(PacketIds()).routes, None, reported.append)
    tracemalloc.start()
    try:
        for number in range(1100):
            dispatcher.dispatch(Message(f"{number}/{'x' * 60_000}", b"", 0, False, False))
        gc.collect()  # what paho's matcher leaves in cycles
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(reported) == 1024
    assert taken < 2_000_000
