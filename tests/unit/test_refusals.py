"""What each refusal means, and that each has a name and an advice where a person has to act."""

from __future__ import annotations

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from mqtt_token_client.mqtt.refusals import (
    Fault,
    advice,
    connack_fault,
    disconnect_fault,
    reason_name,
    upgrade_fault,
    websocket_close,
)

_TOKEN, _BROKER, _OURS = Fault.TOKEN, Fault.BROKER, Fault.OURS


def _refusals_of(packet: int) -> list[int]:
    """The codes of a packet from 0x80 on, as MQTT 5 lists them."""
    made = ReasonCode(packet)
    return sorted(
        code for code, uses in made.names.items() if code >= 0x80 and any(packet in to for to in uses.values())
    )


_CONNACK = [
    (0x80, _BROKER),
    (0x81, _OURS),
    (0x82, _OURS),
    (0x83, _BROKER),
    (0x84, _OURS),
    (0x85, _OURS),
    (0x86, _TOKEN),
    (0x87, _TOKEN),
    (0x88, _BROKER),
    (0x89, _BROKER),
    (0x8A, _OURS),
    (0x8C, _OURS),
    (0x90, _OURS),
    (0x95, _OURS),
    (0x97, _BROKER),
    (0x99, _OURS),
    (0x9A, _OURS),
    (0x9B, _OURS),
    (0x9C, _BROKER),
    (0x9D, _BROKER),
    (0x9F, _BROKER),
    (0xEE, _BROKER),  # no code of MQTT
]


@pytest.mark.parametrize(("reason", "fault"), _CONNACK)
def test_the_fault_of_a_refused_connection(reason: int, fault: Fault) -> None:
    assert connack_fault(reason) is fault


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (0x87, _TOKEN),  # EMQX, when the token ends
        (0x98, _TOKEN),  # Mosquitto's kick
        (0xA0, _TOKEN),  # RabbitMQ
        (0x00, _BROKER),
        (0x8B, _BROKER),
        (0x8D, _BROKER),
        (0x8E, _BROKER),
        (0x93, _BROKER),
        (0xEE, _BROKER),
    ],
)
def test_the_fault_of_an_ended_connection(reason: int, fault: Fault) -> None:
    assert disconnect_fault(reason) is fault


@pytest.mark.parametrize(
    ("code", "name", "fault"),
    [  # RFC 6455 section 7.4.1 and the registry of IANA
        (1000, "Normal Closure", _BROKER),  # EMQX, when the token ends: told by how near that is
        (1001, "Going Away", _BROKER),
        (1002, "Protocol error", _BROKER),
        (1003, "Unsupported Data", _BROKER),
        (1005, "No Status Rcvd", _BROKER),
        (1007, "Invalid frame payload data", _BROKER),
        (1008, "Policy Violation", _TOKEN),
        (1009, "Message Too Big", _BROKER),
        (1011, "Internal Error", _BROKER),
        (1012, "Service Restart", _BROKER),
        (1013, "Try Again Later", _BROKER),
        (1014, "Bad Gateway", _BROKER),
        (3000, "Unauthorized", _TOKEN),
        (3003, "Forbidden", _TOKEN),
        (3008, "Timeout", _BROKER),
        (4001, "", _BROKER),  # an application's
    ],
)
def test_the_name_and_the_fault_of_a_websocket_that_was_closed(code: int, name: str, fault: Fault) -> None:
    assert websocket_close(code) == (name, fault)


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        (_TOKEN, [401, 403]),
        (_BROKER, [408, 425, 429, 500, 502, 503, 504, 599]),
        (_OURS, [200, 204, 301, 302, 400, 404, 405, 407, 426]),
    ],
)
def test_the_fault_of_a_refused_upgrade(fault: Fault, statuses: list[int]) -> None:
    assert {upgrade_fault(status) for status in statuses} == {fault}


@pytest.mark.parametrize("reason", _refusals_of(PacketTypes.CONNACK))
def test_each_code_of_connack_has_its_name(reason: int) -> None:
    assert reason_name(reason).lower() == ReasonCode(PacketTypes.CONNACK, identifier=reason).getName().lower()


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (0x00, "Normal disconnection"),
        (0x99, "Payload format invalid"),
        (0x8B, "Server shutting down"),
        (0x8D, "Keep Alive timeout"),
        (0x8E, "Session taken over"),
        (0x93, "Receive Maximum exceeded"),
        (0x96, "Message rate too high"),
        (0x98, "Administrative action"),
        (0xA0, "Maximum connect time"),
        (0x9E, "Shared Subscriptions not supported"),
        (0xEE, "reason code 0xee"),
    ],
)
def test_the_names_of_what_ends_a_connection(reason: int, name: str) -> None:
    assert reason_name(reason) == name


@pytest.mark.parametrize("reason", [reason for reason, fault in _CONNACK if fault is _OURS])
def test_what_a_person_must_mend_has_an_advice_of_its_own(reason: int) -> None:
    assert advice(reason) != advice(0xEE)


@pytest.mark.parametrize(
    ("reason", "says"),
    [(0x84, "try the other protocol"), (0x85, "client_id"), (0x8C, "profile"), (0x95, "fewer claims"), (0x9B, "qos")],
)
def test_an_advice_names_what_to_change(reason: int, says: str) -> None:
    assert says in advice(reason)


def test_without_one_the_log_of_the_broker_tells_more() -> None:
    assert advice(0xEE) == "see the broker's log"
