"""What each refusal means, and that each has a name and an advice where a person has to act."""

from __future__ import annotations

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from mqtt_token_client.mqtt.codec.reason_codes import (
    Action,
    action_for,
    advice,
    is_defined,
    reason_name,
)

_TOKEN, _BROKER, _OURS = Action.NEW_TOKEN, Action.RETRY, Action.GIVE_UP


def _refusals_of(packet: int) -> list[int]:
    """The codes of a packet from 0x80 on, as MQTT 5 lists them."""
    made = ReasonCode(packet, identifier=0x87)
    return sorted(
        code for code, uses in made.names.items() if code >= 0x80 and any(packet in to for to in uses.values())
    )


# Of each packet, the codes whose fault is the token's, the broker's and ours: MQTT 5 sections 3.2.2.2, 3.14.2.1,
# 3.4.2.1, 3.5.2.1 and 3.9.3.
_KINDS: dict[int, dict[Action, set[int]]] = {
    PacketTypes.CONNACK: {
        _TOKEN: {0x86, 0x87},
        _BROKER: {0x80, 0x83, 0x88, 0x89, 0x97, 0x9C, 0x9F},
        _OURS: {0x81, 0x82, 0x84, 0x85, 0x8A, 0x8C, 0x90, 0x95, 0x99, 0x9A, 0x9B, 0x9D},
    },
    PacketTypes.DISCONNECT: {
        _TOKEN: {0x87, 0x98, 0xA0},  # EMQX, Mosquitto's kick, RabbitMQ, when the token expires
        _BROKER: {0x80, 0x83, 0x89, 0x8B, 0x8D, 0x93, 0x94, 0x96, 0x97, 0x9C, 0x9F},
        _OURS: {0x81, 0x82, 0x8C, 0x8E, 0x8F, 0x90, 0x95, 0x99, 0x9A, 0x9B, 0x9D, 0x9E, 0xA1, 0xA2},
    },
    PacketTypes.PUBACK: {_TOKEN: {0x87}, _BROKER: {0x80, 0x83, 0x91, 0x97}, _OURS: {0x90, 0x99}},
    PacketTypes.PUBREC: {_TOKEN: {0x87}, _BROKER: {0x80, 0x83, 0x91, 0x97}, _OURS: {0x90, 0x99}},
    PacketTypes.SUBACK: {_TOKEN: {0x87}, _BROKER: {0x80, 0x83, 0x91, 0x97}, _OURS: {0x8F, 0x9E, 0xA1, 0xA2}},
}
_KINDS[PacketTypes.UNSUBACK] = _KINDS[PacketTypes.SUBACK]  # section 3.11.3 has some of these codes


@pytest.mark.parametrize("packet", _KINDS, ids=PacketTypes.Names.__getitem__)
def test_each_code_of_a_packet_has_its_kind(packet: int) -> None:
    every = range(0x80, 0x100)
    found = {kind: {code for code in every if action_for(packet << 4, code) is kind} for kind in Action}
    token, ours = _KINDS[packet][_TOKEN], _KINDS[packet][_OURS]
    assert found == {_TOKEN: token, _OURS: ours, _BROKER: {*every} - token - ours}  # what MQTT has not there, too


@pytest.mark.parametrize("packet", _KINDS, ids=PacketTypes.Names.__getitem__)
def test_no_code_that_mqtt_lists_is_forgotten(packet: int) -> None:
    listed = _refusals_of(packet)
    assert set(listed) <= set().union(*_KINDS[packet].values())
    named = {reason: ReasonCode(packet, identifier=reason).getName().lower() for reason in listed}
    assert {reason: reason_name(reason).lower() for reason in listed} == {
        reason: name.replace("subscription not", "subscriptions not") for reason, name in named.items()
    }


def test_the_codes_that_mqtt_has_in_any_packet_are_defined_and_no_others() -> None:
    assert {code for code in range(0x100) if is_defined(code)} == set(ReasonCode(PacketTypes.CONNACK).names)


@pytest.mark.parametrize(("reason", "name"), [(0x00, "Normal disconnection"), (0xEE, "reason code 0xee")])
def test_the_names_of_codes_that_reject_nothing_and_of_unknown_ones(reason: int, name: str) -> None:
    assert reason_name(reason) == name


def test_what_a_person_must_fix_has_advice_of_its_own() -> None:
    ours = set().union(*(kinds[_OURS] for kinds in _KINDS.values()))
    assert ours
    assert [hex(reason) for reason in sorted(ours) if advice(reason) == advice(0xEE)] == []


@pytest.mark.parametrize(
    ("reason", "says"),
    [(0x84, "try the other protocol"), (0x85, "client_id"), (0x8C, "profile"), (0x95, "fewer claims"), (0x9B, "qos")],
)
def test_an_advice_names_what_to_change(reason: int, says: str) -> None:
    assert says in advice(reason)


def test_without_one_the_log_of_the_broker_says_more() -> None:
    assert advice(0xEE) == "see the broker's log"
