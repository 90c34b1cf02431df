"""What engine.py relies on in paho beyond its documentation, for every paho-mqtt that the project allows.

``CONTRACT`` lists each private name that the engine uses. A name missing from it, or one that no longer is what it
says, fails here before it fails in the field.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

import mqtt_token_client
from mqtt_token_client.mqtt.codec import codec as engine

# A method with the parameters that the engine passes or takes, or None for an attribute.
CONTRACT: dict[str, list[str] | None] = {
    "_clean_start": None,
    "_connect_properties": None,
    "_easy_log": ["level", "fmt", "args"],
    "_in_packet": None,
    "_mid_generate": [],
    "_packet_handle": [],
    "_packet_queue": ["command", "packet", "mid", "qos", "info"],
    "_protocol": None,
    "_send_connect": ["keepalive"],
    "_send_disconnect": [],
    "_send_subscribe": ["dup", "topics", "properties"],
    "_send_unsubscribe": ["dup", "topics"],
}

_PACKAGE = Path(mqtt_token_client.__file__).parent
_ENGINE = Path(engine.__file__)
_OTHERS = sorted(path for path in _PACKAGE.rglob("*.py") if path != _ENGINE)


class Probe(paho.Client):
    """A paho whose packets, packet identifiers and log lines are recorded instead of used."""

    def __init__(self, protocol: int) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            "pump",
            protocol=MQTTProtocolVersion(protocol),
            clean_session=False if protocol == 4 else None,
        )
        self.probed_packets: list[bytes] = []
        self.probed_identifiers = iter((7, 8))
        self.probed_log: list[tuple[str, tuple[Any, ...]]] = []
        self.probed_callbacks: list[tuple[Any, ...]] = []
        self.on_connect = lambda _client, _data, *told: self.probed_callbacks.append(("connect", *told))
        self.on_subscribe = lambda _client, _data, *told: self.probed_callbacks.append(("subscribe", *told))
        self.on_unsubscribe = lambda _client, _data, *told: self.probed_callbacks.append(("unsubscribe", *told))

    def _packet_queue(self, command: int, packet: bytes | bytearray, mid: int, qos: int, info: Any = None) -> Any:
        self.probed_packets.append(bytes(packet))
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _mid_generate(self) -> int:
        return next(self.probed_identifiers)

    def _easy_log(self, level: Any, fmt: str, *args: Any) -> None:
        self.probed_log.append((fmt, args))

    def probe(self, command: int, body: str) -> tuple[Any, ...]:
        """Have paho read a packet as the engine does; the one callback that it led to."""
        data = bytearray.fromhex(body)
        packet = {"command": command, "packet": data, "remaining_length": len(data)}
        self._in_packet.update(packet)  # type: ignore[typeddict-item]  # the engine gives no more than these
        self._packet_handle()
        (told,) = self.probed_callbacks
        return told


def private_names_of_paho(source: str) -> set[str]:
    """Private names of paho that engine.py uses: on ``self`` in the class that is a paho client, on anything that is
    not ``self`` elsewhere.
    """
    tree = ast.parse(source)
    (client,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases and _is_paho(node.bases))
    inside = set(ast.walk(client))
    defined = {node.name for node in client.body if isinstance(node, ast.FunctionDef)}
    found = {name for name in defined if _is_private(name) and hasattr(paho.Client, name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            on_self = isinstance(node.value, ast.Name) and node.value.id == "self"
            if (node in inside and (node.attr not in defined)) or (node not in inside and not on_self):
                found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= _private_imports(node)
    return found


def touches_private_paho(source: str) -> list[str]:
    """Where a file that is not the engine could touch a private name of paho. In a file that imports paho only
    ``self`` and ``cls`` may have private names, and no class may inherit from paho.
    """
    tree = ast.parse(source)
    found: list[str] = []
    uses_paho = False
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "paho":
            uses_paho = True
            found += sorted(_private_imports(node))
        elif isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "paho" for alias in node.names):
            uses_paho = True
            found += [alias.name for alias in node.names if any(map(_is_private, alias.name.split(".")))]
    if not uses_paho:
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.append(node.attr)
        elif isinstance(node, ast.ClassDef) and _is_paho(node.bases, _bound_to_paho(tree)):
            found.append(f"class {node.name}")
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_paho(bases: list[ast.expr], names: frozenset[str] = frozenset(("paho",))) -> bool:
    roots = {node.id for base in bases for node in ast.walk(base) if isinstance(node, ast.Name)}
    return bool(roots & names)


def _bound_to_paho(tree: ast.Module) -> frozenset[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "paho":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname or "paho" for alias in node.names if alias.name.split(".")[0] == "paho"}
    return frozenset(names)


def _private_imports(node: ast.ImportFrom) -> set[str]:
    path = (node.module or "").split(".")
    if path[0] != "paho":
        return set()
    return {name for name in (*path, *(alias.name for alias in node.names)) if _is_private(name)}


class TestWhatIsUsed:
    def test_the_engine_uses_the_private_names_of_the_contract_and_no_others(self) -> None:
        assert private_names_of_paho(_ENGINE.read_text()) == set(CONTRACT)

    @pytest.mark.parametrize(
        ("line", "name"),
        [
            ("    def f(self): self._sock = 1", "_sock"),
            ("    def _handle_publish(self): pass", "_handle_publish"),
            ("def f(client): client._sock_close()", "_sock_close"),
            ("class E:\n    def f(self): self._paho._loop()", "_loop"),
            ("from paho.mqtt.client import _WebsocketWrapper", "_WebsocketWrapper"),
            ("from paho.mqtt import _packet", "_packet"),
        ],
    )
    def test_a_new_use_is_found(self, line: str, name: str) -> None:
        assert private_names_of_paho("class _Paho(paho.Client):\n    def _own(self): self._own()\n" + line) == {name}

    @pytest.mark.parametrize("path", _OTHERS, ids=[str(path.relative_to(_PACKAGE)) for path in _OTHERS])
    def test_no_other_file_touches_a_private_name(self, path: Path) -> None:
        assert touches_private_paho(path.read_text()) == []

    @pytest.mark.parametrize(
        "source",
        [
            "from paho.mqtt.client import _WebsocketWrapper",
            "from paho.mqtt._packet import decode",
            "import paho.mqtt._packet",
            "import paho.mqtt.client as mqtt\nmqtt._base62(1)",
            "from paho.mqtt.matcher import MQTTMatcher\nclass A:\n    def f(self): self._matcher._root.x()",
            "from paho.mqtt.client import Client\nclass Mine(Client): ...",
            "import paho.mqtt.client\nclass Mine(paho.mqtt.client.Client): ...",
        ],
    )
    def test_a_touch_in_another_file_is_found(self, source: str) -> None:
        assert touches_private_paho(source)

    def test_what_the_engine_adds_to_a_client_hides_nothing_of_paho(self) -> None:
        plain = paho.Client(CallbackAPIVersion.VERSION2)
        ours = engine._Paho("pump", 5, clean=False)
        added = (set(vars(ours)) - set(vars(plain))) | set(vars(engine._Paho))
        hidden = {name for name in added if hasattr(paho.Client, name) and not name.startswith("__")}
        assert hidden == {"_packet_queue", "_mid_generate", "_easy_log"}


class TestNames:
    @pytest.mark.parametrize("name", [name for name, parameters in CONTRACT.items() if parameters is None])
    def test_an_attribute_is_set_by_paho_itself(self, name: str) -> None:
        assert name in vars(paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5))

    @pytest.mark.parametrize(("name", "needed"), [(name, needed) for name, needed in CONTRACT.items() if needed])
    def test_a_method_has_the_parameters_that_are_used(self, name: str, needed: list[str]) -> None:
        parameters = list(inspect.signature(getattr(paho.Client, name)).parameters.values())[1:]
        assert [parameter.name for parameter in parameters[: len(needed)]] == needed
        assert all(more.default is not inspect.Parameter.empty for more in parameters[len(needed) :])

    @pytest.mark.parametrize("name", [name for name, needed in CONTRACT.items() if needed == []])
    def test_a_method_can_be_called_with_nothing(self, name: str) -> None:
        parameters = list(inspect.signature(getattr(paho.Client, name)).parameters.values())[1:]
        assert all(more.default is not inspect.Parameter.empty for more in parameters)

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_the_protocol_is_kept_as_an_mqtt_protocol_version(self, protocol: int) -> None:
        assert Probe(protocol)._protocol == MQTTProtocolVersion(protocol)


@pytest.mark.parametrize("protocol", [4, 5])
class TestBuilding:
    """Each packet passes whole through ``_packet_queue``, exactly once."""

    def test_connect(self, protocol: int) -> None:
        probe = Probe(protocol)
        probe._send_connect(60)
        (packet,) = probe.probed_packets
        assert (packet[0], packet[1]) == (0x10, len(packet) - 2)

    def test_disconnect(self, protocol: int) -> None:
        probe = Probe(protocol)
        probe._send_disconnect()
        assert probe.probed_packets == [b"\xe0\x00"]

    def test_subscribe_with_one_identifier_of_mid_generate(self, protocol: int) -> None:
        probe = Probe(protocol)
        probe._send_subscribe(0, [(b"a", SubscribeOptions(1) if protocol == 5 else 1)])
        properties = "00" if protocol == 5 else ""
        body = f"0007{properties}00016101"
        assert [packet.hex() for packet in probe.probed_packets] == [f"82{len(body) // 2:02x}{body}"]
        assert next(probe.probed_identifiers) == 8

    def test_subscribe_with_properties_in_mqtt_5_only(self, protocol: int) -> None:
        probe = Probe(protocol)
        properties = Properties(PacketTypes.SUBSCRIBE)
        properties.SubscriptionIdentifier = 5
        probe._send_subscribe(0, [(b"a", SubscribeOptions(1) if protocol == 5 else 1)], properties)
        body = "0007020b0500016101" if protocol == 5 else "000700016101"
        assert [packet.hex() for packet in probe.probed_packets] == [f"82{len(body) // 2:02x}{body}"]

    def test_unsubscribe_with_one_identifier_of_mid_generate(self, protocol: int) -> None:
        probe = Probe(protocol)
        probe._send_unsubscribe(0, [b"a"])
        properties = "00" if protocol == 5 else ""
        body = f"0007{properties}000161"
        assert [packet.hex() for packet in probe.probed_packets] == [f"a2{len(body) // 2:02x}{body}"]
        assert next(probe.probed_identifiers) == 8

    def test_a_password_of_bytes_goes_out_as_it_is(self, protocol: int) -> None:
        probe = Probe(protocol)
        probe.username_pw_set("pump", b"\xff\x00")  # type: ignore[arg-type]  # what the engine does
        probe._send_connect(60)
        assert probe.probed_packets[0].endswith(b"\x00\x02\xff\x00")


class TestConnectOfMqtt5:
    @pytest.mark.parametrize(("clean", "flag"), [(True, 2), (False, 0)])
    def test_takes_clean_start_from_the_attribute(self, clean: bool, flag: int) -> None:
        probe = Probe(5)
        probe._clean_start = clean
        probe._send_connect(60)
        assert probe.probed_packets[0][9] & 2 == flag

    def test_takes_its_properties_from_the_attribute(self) -> None:
        probe = Probe(5)
        probe._connect_properties = Properties(PacketTypes.CONNECT)
        probe._connect_properties.SessionExpiryInterval = 5
        probe._send_connect(60)
        assert b"\x05\x11\x00\x00\x00\x05" in probe.probed_packets[0]


class TestReading:
    """``_packet_handle`` reads what stands in ``_in_packet`` and leads to one callback."""

    def test_connack(self) -> None:
        what, flags, reason, properties = Probe(5).probe(0x20, "01 00 03 21 0005")
        assert (what, flags.session_present, reason.value, properties.ReceiveMaximum) == ("connect", True, 0, 5)

    def test_connack_of_a_broker_that_does_not_know_mqtt_5(self) -> None:
        _, _, reason, properties = Probe(5).probe(0x20, "00 01")
        assert reason.value == 0x84
        assert isinstance(properties, Properties)

    def test_connack_that_refuses(self) -> None:
        _, flags, reason, _ = Probe(5).probe(0x20, "00 87 00")
        assert (flags.session_present, reason.value) == (False, 0x87)

    @pytest.mark.parametrize(("protocol", "body"), [(4, "0007 01 80"), (5, "0007 00 01 80")])
    def test_suback(self, protocol: int, body: str) -> None:
        what, identifier, reasons, _ = Probe(protocol).probe(0x90, body)
        assert (what, identifier, [reason.value for reason in reasons]) == ("subscribe", 7, [1, 0x80])

    @pytest.mark.parametrize(("protocol", "body"), [(4, "0007"), (5, "0007 00 00")])
    def test_unsuback(self, protocol: int, body: str) -> None:
        assert Probe(protocol).probe(0xB0, body)[:2] == ("unsubscribe", 7)


class TestSecrecy:
    """The engine logs through ``_easy_log`` and cuts the last argument off where the format ends in properties."""

    def test_only_the_last_argument_of_connect_shows_its_properties(self) -> None:
        probe = Probe(5)
        properties = Properties(PacketTypes.CONNECT)
        properties.AuthenticationData = b"the-secret-token"
        probe._connect_properties = properties
        probe.username_pw_set("pump", "the-secret-password")
        probe._send_connect(60)
        ((fmt, args),) = probe.probed_log
        assert "CONNECT" in fmt
        assert fmt.endswith(" properties=%s")
        assert args[-1] is properties
        head, rest = fmt.partition(" properties")[0], args[:-1]
        assert "secret" not in head % rest

    def test_connect_of_mqtt_3_1_1_logs_no_password(self) -> None:
        probe = Probe(4)
        probe.username_pw_set("pump", "the-secret-password")
        probe._send_connect(60)
        ((fmt, args),) = probe.probed_log
        assert "secret" not in fmt % args
