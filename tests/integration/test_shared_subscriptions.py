"""A shared subscription on Mosquitto: its members divide the messages, whatever their tokens do."""

from __future__ import annotations

import threading
from itertools import count

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.processes import wait_until
from mqtt_token_client import Message
from tests.integration.test_properties import Device

ROTATIONS, APART = 10, 50  # messages


def test_divides_the_messages_and_none_is_lost_or_comes_twice_while_one_member_rotates(
    keys: Keys, mosquitto: Mosquitto
) -> None:
    shares: dict[str, list[int]] = {"rotating": [], "other": []}
    members = {name: Device(keys, mosquitto.port, f"{name}-member") for name in shares}
    sender = Device(keys, mosquitto.port, "sender-to-members")
    sent, enough = 0, threading.Event()

    def send() -> None:
        nonlocal sent
        for number in count():
            if enough.wait(0.002):
                return
            sender.client.publish(f"shared/{number % 10}", b"%d" % number, qos=number % 2 + 1)
            sent += 1

    with members["rotating"].client, members["other"].client, sender.client:
        for name, member in members.items():

            def take(message: Message, share: list[int] = shares[name]) -> None:
                share.append(int(message.payload))

            member.subscribe(mosquitto, "$share/group/shared/#", handler=take, qos=2)
        sending = threading.Thread(target=send)
        sending.start()
        for _ in range(ROTATIONS):
            wait_until(lambda wanted=sent + APART: sent >= wanted, "messages")  # type: ignore[misc]
            members["rotating"].rotate()
        enough.set()
        sending.join()
        wait_until(lambda: sum(map(len, shares.values())) >= sent, "the last message")
    assert sorted(shares["rotating"] + shares["other"]) == list(range(sent))
    assert min(map(len, shares.values())) > sent / 4
    assert mosquitto.accepted("rotating-member") == ROTATIONS + 1
