"""What the library relies on in paho-mqtt, for every version that the project allows: public names only."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.matcher import MQTTMatcher
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import mqtt_token_client

_PACKAGE = Path(mqtt_token_client.__file__).parent
_FILES = sorted(_PACKAGE.rglob("*.py"))
_WITH_CLIENT = _PACKAGE / "contrib" / "paho.py"  # serves the client of an existing application

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _PUBREC, _PUBREL, _PUBCOMP, _SUBSCRIBE, _SUBACK = 1, 2, 3, 4, 5, 6, 7, 8, 9
_UNSUBSCRIBE, _UNSUBACK, _DISCONNECT, _AUTH, _WILL = 10, 11, 14, 15, PacketTypes.WILLMESSAGE
_ANSWERS = {_PUBACK, _PUBREC, _PUBREL, _PUBCOMP, _SUBACK, _UNSUBACK}
_BYTE, _TWO, _FOUR = "Byte", "Two Byte Integer", "Four Byte Integer"
_STRING, _BINARY = "UTF-8 Encoded String", "Binary Data"

# MQTT 5 table 2-4
_TABLE: dict[str, tuple[int, str, set[int]]] = {
    "Payload Format Indicator": (0x01, _BYTE, {_PUBLISH, _WILL}),
    "Message Expiry Interval": (0x02, _FOUR, {_PUBLISH, _WILL}),
    "Content Type": (0x03, _STRING, {_PUBLISH, _WILL}),
    "Response Topic": (0x08, _STRING, {_PUBLISH, _WILL}),
    "Correlation Data": (0x09, _BINARY, {_PUBLISH, _WILL}),
    "Subscription Identifier": (0x0B, "Variable Byte Integer", {_PUBLISH, _SUBSCRIBE}),
    "Session Expiry Interval": (0x11, _FOUR, {_CONNECT, _CONNACK, _DISCONNECT}),
    "Assigned Client Identifier": (0x12, _STRING, {_CONNACK}),
    "Server Keep Alive": (0x13, _TWO, {_CONNACK}),
    "Authentication Method": (0x15, _STRING, {_CONNECT, _CONNACK, _AUTH}),
    "Authentication Data": (0x16, _BINARY, {_CONNECT, _CONNACK, _AUTH}),
    "Request Problem Information": (0x17, _BYTE, {_CONNECT}),
    "Will Delay Interval": (0x18, _FOUR, {_WILL}),
    "Request Response Information": (0x19, _BYTE, {_CONNECT}),
    "Response Information": (0x1A, _STRING, {_CONNACK}),
    "Server Reference": (0x1C, _STRING, {_CONNACK, _DISCONNECT}),
    "Reason String": (0x1F, _STRING, {_CONNACK, _DISCONNECT, _AUTH, *_ANSWERS}),
    "Receive Maximum": (0x21, _TWO, {_CONNECT, _CONNACK}),
    "Topic Alias Maximum": (0x22, _TWO, {_CONNECT, _CONNACK}),
    "Topic Alias": (0x23, _TWO, {_PUBLISH}),
    "Maximum QoS": (0x24, _BYTE, {_CONNACK}),
    "Retain Available": (0x25, _BYTE, {_CONNACK}),
    "User Property": (
        0x26,
        "UTF-8 String Pair",
        {_CONNECT, _CONNACK, _PUBLISH, _WILL, _SUBSCRIBE, _UNSUBSCRIBE, _DISCONNECT, _AUTH, *_ANSWERS},
    ),
    "Maximum Packet Size": (0x27, _FOUR, {_CONNECT, _CONNACK}),
    "Wildcard Subscription Available": (0x28, _BYTE, {_CONNACK}),
    "Subscription Identifier Available": (0x29, _BYTE, {_CONNACK}),
    "Shared Subscription Available": (0x2A, _BYTE, {_CONNACK}),
}


def uses_more_than_public_names(source: str) -> list[str]:
    """Where a file that uses paho uses a private name, paho's client, or a class that inherits from paho."""
    tree = ast.parse(source)
    bound: set[str] = set()
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "paho":
            bound |= {alias.asname or alias.name for alias in node.names}
            path = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "paho" for alias in node.names):
            bound |= {alias.asname or "paho" for alias in node.names}
            path = [part for alias in node.names for part in alias.name.split(".")]
        else:
            continue
        found += [f"line {node.lineno}: {name}" for name in path if name == "client" or _is_private(name)]
    if not bound:
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.ClassDef):
            bases = {name.id for base in node.bases for name in ast.walk(base) if isinstance(name, ast.Name)}
            found += [f"line {node.lineno}: class {node.name}"] if bases & bound else []
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_replace"  # public, of a named tuple


def test_only_public_names_are_used_and_no_client() -> None:
    assert len(_FILES) > 100
    found = {path: uses_more_than_public_names(path.read_text()) for path in _FILES}
    found[_WITH_CLIENT] = [one for one in found[_WITH_CLIENT] if not one.endswith(": client")]
    assert {str(path.relative_to(_PACKAGE)): places for path, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import paho.mqtt.client",
        "from paho.mqtt import client",
        "from paho.mqtt.client import Client",
        "from paho.mqtt.matcher import _Node",
        "import paho.mqtt._packet",
        "import paho.mqtt.properties as properties\nproperties._read(1)",
        "from paho.mqtt.matcher import MQTTMatcher\nclass A:\n    def f(self): self._matcher._root.x()",
        "from paho.mqtt.properties import Properties\nclass Mine(Properties): ...",
        "import paho.mqtt.matcher\nclass Mine(paho.mqtt.matcher.MQTTMatcher): ...",
    ],
)
def test_any_other_use_would_be_found(source: str) -> None:
    assert uses_more_than_public_names(source)


def test_the_tables_of_properties_are_those_of_mqtt_5() -> None:
    properties = Properties(PacketTypes.CONNECT)
    assert properties.types == [_BYTE, _TWO, _FOUR, "Variable Byte Integer", _BINARY, _STRING, "UTF-8 String Pair"]
    found = {
        name: (identifier, properties.types[kind], set(packets))
        for name, identifier in properties.names.items()
        for kind, packets in [properties.properties[identifier]]
    }
    assert found == _TABLE


def test_the_matcher_finds_the_values_of_all_filters_that_a_topic_matches() -> None:
    matcher: Any = MQTTMatcher()
    for topic_filter in ("a/b", "a/+", "#", "b/#", "+/c"):
        matcher[topic_filter] = topic_filter
    assert set(matcher.iter_match("a/b")) == {"a/b", "a/+", "#"}
    assert set(matcher.iter_match("$SYS/x")) == set()
