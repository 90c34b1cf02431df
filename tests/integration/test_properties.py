"""Properties of MQTT 5 and a clean start, on a real broker: what arrives, and what does not."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from devtools.servers.delay_proxy import DelayProxy
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.processes import wait_until
from mqtt_token_client import Connected, Event, Message, Rotated, SessionLost, Token, TokenClient, Will


class Signed:
    """Tokens that the broker takes."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def fetch(self, previous: Token | None) -> Token:
        return Token(self._keys.token(600), 600.0)


class Device:
    """A client, and what was reported to it."""

    def __init__(self, keys: Keys, port: int, client_id: str, **options: Any) -> None:
        self.events: list[Event] = []
        self.messages: queue.Queue[Message] = queue.Queue()
        options = {"on_event": self.events.append, "on_message": self.messages.put, **options}
        self.client = TokenClient(f"mqtt://127.0.0.1:{port}", Signed(keys), client_id=client_id, **options)

    def reported(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def rotate(self) -> None:
        before = len(self.reported(Rotated))
        self.client.rotate()
        wait_until(lambda: len(self.reported(Rotated)) > before, "the rotation")

    def subscribe(self, mosquitto: Mosquitto, topic_filter: str, **options: Any) -> None:
        """Subscribe, and wait until the broker has answered."""
        pattern = f"Sending SUBACK to {self.client._settings.client_id}"
        before = mosquitto.count(pattern)
        self.client.subscribe(topic_filter, **options)
        wait_until(lambda: mosquitto.count(pattern) > before, "the subscription")

    @property
    def received(self) -> list[bytes]:
        """What has arrived, in order, up to a message to itself."""
        self.client.subscribe("end", lambda message: self.messages.put(message))
        self.client.publish("end", b"the end", qos=1)
        payloads = list(iter(lambda: self.messages.get(timeout=10).payload, b"the end"))
        self.client.unsubscribe("end")
        return payloads


Make = Callable[..., Device]


@pytest.fixture
def make(keys: Keys, mosquitto: Mosquitto) -> Iterator[Make]:
    """Connected clients; ``port`` is Mosquitto's where nothing else is said."""
    with ExitStack() as stack:

        def make(client_id: str, *, port: int = mosquitto.port, **options: Any) -> Device:
            device = Device(keys, port, client_id, **options)
            stack.enter_context(device.client)
            return device

        yield make


@pytest.mark.parametrize("delay_interval", [None, 1])
def test_a_will_arrives_with_its_properties_at_a_loss_and_not_at_a_rotation(
    make: Make, mosquitto: Mosquitto, delay: Callable[..., DelayProxy], delay_interval: int | None
) -> None:
    way = delay(mosquitto.port, round_trip=0.0)
    observer = make("observer")
    observer.subscribe(mosquitto, "will/#")
    properties = {
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": b"\x00\xff",
        "user_property": [("plant", "north"), ("plant", "south")],
    }
    will = Will("will/device", b"gone", qos=1, delay=delay_interval, properties=properties)
    device = make("device", port=way.port, will=will)
    device.rotate()
    assert observer.received == []
    way.close()
    message = observer.messages.get(timeout=10)
    assert (message.topic, message.payload, message.properties) == ("will/device", b"gone", properties)


class TestSubscriptions:
    def test_messages_carry_user_properties_and_the_identifier_of_the_subscription_also_after_the_session_is_lost(
        self, make: Make, mosquitto: Mosquitto
    ) -> None:
        device = make("identifying")
        device.subscribe(mosquitto, "seven/+", properties={"subscription_identifier": 7})
        device.subscribe(mosquitto, "large/+", properties={"subscription_identifier": 268_435_455})
        for lost in (False, True):
            if lost:
                mosquitto.kill()
                mosquitto.start()
                wait_until(lambda: bool(device.reported(SessionLost)), "the next connection")
            for topic, identifier in (("seven/a", 7), ("large/b", 268_435_455)):
                device.client.publish(topic, b"", qos=1, properties={"user_property": [("k", "v"), ("k", "w")]})
                message = device.messages.get(timeout=10)
                assert message.topic == topic
                assert message.properties == {
                    "user_property": [("k", "v"), ("k", "w")],
                    "subscription_identifier": [identifier],
                }

    def test_leave_out_what_their_options_say(self, make: Make, mosquitto: Mosquitto) -> None:
        plain, device = make("plain"), make("optional")
        plain.client.publish("options/kept", b"retained", qos=1, retain=True).wait(10)
        plain.subscribe(mosquitto, "options/+")
        device.subscribe(mosquitto, "options/+", no_local=True, retain_as_published=True, retain_handling=2)
        device.client.publish("options/mine", b"the device's own", qos=1).wait(10)
        plain.client.publish("options/kept", b"newer", qos=1, retain=True).wait(10)
        message = device.messages.get(timeout=10)
        assert (message.payload, message.retain) == (b"newer", True)
        arrived = [plain.messages.get(timeout=10) for _ in range(3)]
        assert [(message.payload, message.retain) for message in arrived] == [
            (b"retained", True),
            (b"the device's own", False),
            (b"newer", False),
        ]
        plain.client.publish("options/kept", b"", qos=1, retain=True).wait(10)


class TestCleanStart:
    def leave(self, make: Make, mosquitto: Mosquitto, **options: Any) -> None:
        """Leave a session behind with a message that waits in it."""
        device = make("returning", **options)
        device.subscribe(mosquitto, "for/returning/#")
        device.client.disconnect()
        make("sender").client.publish("for/returning/now", b"waiting", qos=1).wait(10)

    def test_drops_what_waited_and_rotations_and_later_connects_keep_the_session(
        self, make: Make, mosquitto: Mosquitto
    ) -> None:
        self.leave(make, mosquitto)
        device = make("returning", clean_start=True)
        device.subscribe(mosquitto, "for/returning/#")
        device.rotate()
        device.client.publish("for/returning/now", b"new", qos=1)
        assert device.received == [b"new"]
        device.client.disconnect()
        make("sender 2").client.publish("for/returning/now", b"while away", qos=1).wait(10)
        device.client.connect()
        assert device.received == [b"while away"]
        connected = [event.session_present for event in device.events if isinstance(event, Connected)]
        assert connected == [False, True]
        assert not device.reported(SessionLost)

    def test_in_3_1_1_is_a_connection_without_a_session_before(self, make: Make, mosquitto: Mosquitto) -> None:
        self.leave(make, mosquitto, protocol=4)
        assert make("returning", protocol=4).received == [b"waiting"]
        self.leave(make, mosquitto, protocol=4)
        make("returning", protocol=4, session_expiry=0).client.disconnect()
        assert make("returning", protocol=4).received == []
