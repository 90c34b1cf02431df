"""Manual acknowledgement on Mosquitto: a message that is held over a rotation."""

from __future__ import annotations

import queue

import pytest

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.processes import wait_until
from mqtt_token_client import Message, Rotated
from tests.integration.test_properties import Device


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_of_a_message_held_over_a_handover_ends_it_and_it_is_handed_over_once(
    keys: Keys, mosquitto: Mosquitto, qos: int, protocol: int
) -> None:
    name = f"holding-{qos}-{protocol}"
    topic = f"held/{name}"
    messages: queue.Queue[Message] = queue.Queue()
    device = Device(keys, mosquitto.port, name, protocol=protocol, manual_ack=True)
    with device.client, Device(keys, mosquitto.port, f"sender-to-{name}").client as sender:
        device.subscribe(mosquitto, topic, handler=messages.put, qos=qos)
        sender.publish(topic, b"held", qos=qos)
        held = messages.get(timeout=10)
        device.rotate()
        # Mosquitto keeps it, and sends it again over the second connection.
        wait_until(lambda: mosquitto.sent(topic) == 2, "the message again")
        for _ in range(2):  # the first tells that the client has it, the second that the broker has what it answered
            device.client.publish("anything", b"", qos=1).wait(10)
        assert mosquitto.count(f"Received PUB(ACK|REC) from {name} ") == 0
        held.acknowledge()
        last = "PUBACK" if qos == 1 else "PUBCOMP"
        wait_until(lambda: mosquitto.count(f"Received {last} from {name} ") == 1, "the acknowledgement")
        device.rotate()
        device.client.disconnect()
        device.client.connect()
        sender.publish(topic, b"next", qos=qos)
        following = messages.get(timeout=10)
        following.acknowledge()
    assert (held.payload, following.payload, messages.qsize()) == (b"held", b"next", 0)
    assert mosquitto.sent(topic) == 3
    assert [event.kind for event in device.events if isinstance(event, Rotated)] == ["handover"] * 2
