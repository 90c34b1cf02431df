"""Each wrong argument gives one clear line that names it, before anything is done."""

from __future__ import annotations

import math
import re
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paho.mqtt.client
import pytest

from mqtt_token_client import (
    Backoff,
    ClientClosed,
    ConfigurationError,
    MemoryStore,
    RenewalPolicy,
    TokenClient,
    TokenKeeper,
    Will,
)
from tests.unit.device import Device, Make, Source
from tests.unit.packets import CONNECT, PUBACK, PUBLISH
from tests.unit.scripted_broker import PATIENCE

GOOD: dict[str, Any] = {"broker": "mqtts://broker.example.com", "tokens": Source(), "client_id": "device"}


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def keeper() -> TokenKeeper:
    return TokenKeeper(Source())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("broker", {"broker": ""}),
        ("broker", {"broker": None}),
        ("broker", {"broker": 8883}),
        ("broker", {"broker": []}),
        ("broker", {"broker": ["mqtts://a", 5]}),
        ("broker", {"broker": b"mqtts://a"}),
        ("broker", {"broker": "https://broker.example.com"}),
        ("broker", {"broker": "mqtt://broker.example.com"}),
        ("broker", {"broker": "mqtts://name:secret-secret@broker.example.com"}),
        ("broker", {"broker": "mqtts://broker.example.com:99999"}),
        ("tokens", {"tokens": None}),
        ("tokens", {"tokens": "a token"}),
        ("tokens", {"tokens": keeper(), "store": MemoryStore()}),
        ("tokens", {"tokens": keeper(), "renewal": RenewalPolicy()}),
        ("client_id", {"client_id": ""}),
        ("client_id", {"client_id": None}),
        ("client_id", {"client_id": "x" * 65_536}),
        ("client_id", {"client_id": "\ud800"}),
        ("store", {"store": {}}),
        ("profile", {"profile": "pass word"}),
        ("profile", {"profile": 5}),
        ("protocol", {"protocol": 3}),
        ("protocol", {"protocol": "5"}),
        ("protocol", {"protocol": None}),
        ("keepalive", {"keepalive": -1}),
        ("keepalive", {"keepalive": 65_536}),
        ("keepalive", {"keepalive": 1.5}),
        ("keepalive", {"keepalive": True}),
        ("session_expiry", {"session_expiry": -1}),
        ("session_expiry", {"session_expiry": 2**32}),
        ("session_expiry", {"session_expiry": None}),
        ("clean_start", {"clean_start": "no"}),
        ("clean_start", {"clean_start": None}),
        ("clean_start", {"clean_start": True, "protocol": 4}),
        ("will", {"will": "gone"}),
        ("will", {"will": Will("gone", b"", properties={"content_type": "a"}), "protocol": 4}),
        ("will", {"will": Will("gone", b"", delay=5), "protocol": 4}),
        ("tls", {"tls": True}),
        ("tls", {"tls": unverified()}),
        ("proxy", {"proxy": "nonsense"}),
        ("proxy", {"proxy": 5}),
        ("renewal", {"renewal": 0.5}),
        ("backoff", {"backoff": 5.0}),
        ("max_inflight", {"max_inflight": 0}),
        ("max_inflight", {"max_inflight": 65_536}),
        ("max_queued", {"max_queued": 0}),
        ("max_queued", {"max_queued": "many"}),
        ("max_packet_size", {"max_packet_size": 15}),
        ("max_packet_size", {"max_packet_size": 268_435_461}),
        ("max_packet_size", {"max_packet_size": None}),
        ("max_packet_size", {"max_packet_size": 1e6}),
        ("receive_maximum", {"receive_maximum": 0}),
        ("receive_maximum", {"receive_maximum": 65_536}),
        ("receive_maximum", {"receive_maximum": "20"}),
        ("receive_maximum", {"receive_maximum": 20, "protocol": 4}),
        ("on_message", {"on_message": "print"}),
        ("on_event", {"on_event": 5}),
    ],
)
def test_a_wrong_argument_of_the_client_is_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        TokenClient(**{**GOOD, **options})
    text = str(raised.value)
    assert text.split()[0].rstrip(":") == name
    assert "\n" not in text
    assert len(text) < 200
    assert "secret-secret" not in text


@pytest.mark.parametrize(
    "options",
    [
        {"broker": ["mqtts://one.example.com", "mqtts://two.example.com:8884"]},
        {"broker": "mqtt://broker.example.com", "allow_insecure": True},
        {"broker": "mqtt://[::1]:1883"},
        {"protocol": 4, "will": Will("gone", b"")},
        {"keepalive": 0, "session_expiry": 0},
        {"clean_start": True},
        {"clean_start": True, "session_expiry": 0, "protocol": 4},
        {"tls": unverified(), "allow_insecure": True},
        {"tokens": keeper()},
        {"max_packet_size": 16, "receive_maximum": 1},
        {"max_packet_size": 268_435_460, "receive_maximum": 65_535},
        {"store": MemoryStore()},
        {"backoff": Backoff(), "renewal": RenewalPolicy()},
    ],
)
def test_what_is_right_is_taken(options: dict[str, Any]) -> None:
    client = TokenClient(**{**GOOD, **options})
    assert client.state == "closed"
    assert client.token_expires_in is None
    assert re.fullmatch(r"TokenClient\('mqtts?://\S+:\d+', client_id='device', closed\)", repr(client))


@pytest.fixture
def device(make: Make) -> Device:
    return make()


@pytest.mark.parametrize(
    ("named", "arguments", "options"),
    [
        ("topic", ("", b""), {}),
        ("topic", (None, b""), {}),
        ("topic", ("a/+", b""), {}),
        ("topic", ("a\0b", b""), {}),
        ("payload", ("t", [21.5]), {}),
        ("payload", ("t", {"value": 21.5}), {}),
        ("payload", ("t", 10**5000), {}),
        ("payload", ("t", "\ud800"), {}),
        ("qos", ("t", b""), {"qos": 3}),
        ("qos", ("t", b""), {"qos": "1"}),
        ("qos", ("t", b""), {"qos": 1.0}),
        ("qos", ("t", b""), {"qos": None}),
        ("properties", ("t", b""), {"properties": {"no_such_property": 1}}),
        ("properties", ("t", b""), {"properties": {"message_expiry_interval": "soon"}}),
        ("properties", ("t", b""), {"properties": ["content_type"]}),
    ],
)
def test_a_wrong_argument_of_publish_is_named_and_nothing_is_sent(
    device: Device, named: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    peer = device.start()
    with pytest.raises(ConfigurationError, match=named) as raised:
        device.client.publish(*arguments, **options)
    assert "\n" not in str(raised.value)
    device.client.publish("t", b"right")
    assert peer.expect(PUBLISH).payload == b"right"
    device.until(lambda: device.client.stats.queued == 0)


@pytest.mark.parametrize(
    ("payload", "sent"),
    [
        (21.5, b"21.5"),
        (-7, b"-7"),
        (True, b"True"),  # as paho-mqtt sends it
        (None, b""),
        ("\u00e9", b"\xc3\xa9"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
    ],
)
def test_a_payload_may_be_a_number_none_text_or_bytes(device: Device, payload: Any, sent: bytes) -> None:
    peer = device.start()
    device.client.publish("t", payload)
    assert peer.expect(PUBLISH).payload == sent
    assert Will("t", payload).payload == sent


class TestTimeouts:
    @pytest.mark.parametrize("timeout", ["host", "5", True, -1, -0.5, float("nan"), [5], b"5"])
    def test_that_are_not_seconds_are_named_before_anything_is_done(self, device: Device, timeout: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^connect: timeout must be seconds, 0 or more, got "):
            device.client.connect(timeout)
        assert device.client.state == "closed"
        delivery = device.client.publish("t", b"")
        with pytest.raises(ConfigurationError, match=r"^Delivery\.wait: timeout must be seconds, 0 or more, got "):
            delivery.wait(timeout)
        delivery.finish()
        with pytest.raises(ConfigurationError, match=r"^Delivery\.wait: timeout must be seconds, 0 or more, got "):
            delivery.wait(timeout)
        assert device.source.requests == 0

    @pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 10**400])
    def test_without_a_limit_wait_for_as_long_as_it_takes(
        self, make: Make, pool: ThreadPoolExecutor, timeout: Any
    ) -> None:
        device = make()
        connected = pool.submit(device.client.connect, timeout)
        peer = device.broker.accept()
        peer.expect(CONNECT)
        assert not connected.done()
        peer.connack()
        assert connected.result(PATIENCE) is True
        delivery = device.client.publish("t", b"", qos=1)
        delivered = pool.submit(delivery.wait, timeout)
        sent = peer.expect(PUBLISH)
        assert not delivered.done()
        peer.acknowledge(PUBACK, sent.packet_id)
        delivered.result(PATIENCE)


HINTS = sys.version_info >= (3, 12)


class TestWhatPahoHas:
    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("on_message", "pass on_message=f to the constructor, or to subscribe"),
            ("on_connect", "pass on_event=f to the constructor: f gets Connected"),
            ("on_disconnect", "pass on_event=f to the constructor"),
            ("on_event", "pass on_event=f to the constructor"),
            ("on_something_new", "pass on_event=f to the constructor"),
            ("on_publish", "publish[(][)] returns a Delivery"),
        ],
    )
    def test_a_callback_that_would_never_be_called_cannot_be_assigned(
        self, device: Device, name: str, says: str
    ) -> None:
        with pytest.raises(AttributeError, match=f"TokenClient has no attribute '{name}': {says}"):
            setattr(device.client, name, print)
        with pytest.raises(AttributeError, match=says if HINTS else name):
            getattr(device.client, name)

    @pytest.mark.parametrize(
        "name",
        [
            *("connect_async", "connect_srv", "loop", "loop_forever", "loop_start", "loop_stop", "is_connected", "ack"),
            *("message_callback_add", "message_callback_remove", "reconnect", "reconnect_delay_set", "tls_set"),
            *("tls_set_context", "tls_insecure_set", "username_pw_set", "user_data_set", "will_set", "ws_set_options"),
            *("proxy_set", "enable_logger", "max_inflight_messages_set", "max_queued_messages_set", "manual_ack_set"),
        ],
    )
    def test_a_method_that_is_not_here_says_what_is(self, device: Device, name: str) -> None:
        assert hasattr(paho.mqtt.client.Client, name)
        says = f"^TokenClient has no attribute '{name}': .+" if HINTS else f"no attribute '{name}'$"
        with pytest.raises(AttributeError, match=says):
            getattr(device.client, name)

    def test_any_other_name_is_an_ordinary_missing_attribute(self, device: Device) -> None:
        with pytest.raises(AttributeError, match=r"^'?TokenClient.* has no attribute 'send_all'$"):
            device.client.send_all("t", b"")  # type: ignore[attr-defined]
        assert not hasattr(device.client, "_repr_html_")

    def test_an_application_may_keep_what_it_likes_on_a_client(self, device: Device) -> None:
        device.client.location = "pump house"  # type: ignore[attr-defined]
        assert device.client.location == "pump house"  # type: ignore[attr-defined]


def test_a_payload_that_no_packet_holds_is_named(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("client_base", "mqtt.codec.checks"):
        monkeypatch.setattr(f"mqtt_token_client.{module}.LARGEST_PAYLOAD", 3)
    device.client.publish("t", "max")
    with pytest.raises(ConfigurationError, match="payload has 4 bytes"):
        device.client.publish("t", b"four")


def test_properties_need_mqtt_5() -> None:
    client = TokenClient(**GOOD, protocol=4)
    with pytest.raises(ConfigurationError, match="properties need protocol=5"):
        client.publish("t", b"", properties={"content_type": "text/plain"})


@pytest.mark.parametrize(
    ("named", "arguments", "options"),
    [
        ("topic_filter", ("",), {}),
        ("wildcard", ("a/#/b",), {}),
        ("qos", ("a",), {"qos": 3}),
        ("qos", ("a",), {"qos": 1.0}),
        ("handler", ("a", "print"), {}),
        ("retain_handling must be 0, 1 or 2, got 3", ("a",), {"retain_handling": 3}),
        ("retain_handling must be 0, 1 or 2, got -1", ("a",), {"retain_handling": -1}),
        ("retain_handling must be 0, 1 or 2, got '1'", ("a",), {"retain_handling": "1"}),
        ("no_local cannot be used with a shared subscription", ("$share/group/a",), {"no_local": True}),
        ("properties must be a mapping, got list", ("a",), {"properties": ["user_property"]}),
        ("properties: content_type", ("a",), {"properties": {"content_type": "a/b"}}),
        ("properties: subscription_identifier", ("a",), {"properties": {"subscription_identifier": 0}}),
    ],
)
def test_a_wrong_argument_of_subscribe_is_named_and_nothing_is_sent(
    device: Device, named: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    peer = device.start()
    with pytest.raises(ConfigurationError, match=named):
        device.client.subscribe(*arguments, **options)
    with pytest.raises(ConfigurationError, match="unsubscribe"):
        device.client.unsubscribe("a/#/b")
    peer.expect_nothing(0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"no_local": True},
        {"retain_as_published": True},
        {"retain_handling": 1},
        {"properties": {"subscription_identifier": 1}},
    ],
)
def test_the_options_of_a_subscription_need_mqtt_5(options: dict[str, Any]) -> None:
    client = TokenClient(**GOOD, protocol=4)
    says = "subscribe: no_local, retain_as_published, retain_handling and properties need protocol=5"
    with pytest.raises(ConfigurationError, match=f"^{says}$"):
        client.subscribe("a", **options)


def test_a_closed_client_takes_no_message(device: Device) -> None:
    device.start().close()
    device.client.disconnect(timeout=0)
    with pytest.raises(ClientClosed, match=r"connect\(\)"):
        device.client.publish("t", b"")
