"""Each broker's CONNECT, byte for byte as its document has it, and its limits, refused before a socket is opened."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from mqtt_token_client import (
    AwsIot,
    BearerHeader,
    ClearBlade,
    ConfigurationError,
    Credentials,
    EventGrid,
    IoTOperations,
    Password,
    RabbitMQ,
    Solace,
    Token,
    TokenClient,
    Username,
)
from tests.unit import packets
from tests.unit.device import Make, Source
from tests.unit.packets import CONNECT
from tests.unit.scripted_broker import PATIENCE, Peer

ID = b"\x00\x07pump-17"
DEVICE = "projects/plant/locations/europe-west1/registries/pumps/devices/17"


class AwsIotOnAnyPort(AwsIot):
    """A test may not listen on 443."""

    def check(self, protocol: int, client_id: str, brokers: Any) -> None:
        pass


def jwt(**claims: object) -> str:
    return f"e30.{urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def field(text: str) -> bytes:
    return len(text.encode()).to_bytes(2) + text.encode()


def first_bytes(peer: Peer) -> bytes:
    """The body of the first packet, as it came; it is still there to be expected."""
    while (found := packets.split(peer._data)) is None:
        assert peer._receive(PATIENCE), "the connection ended"
    return found[1]


# MQTT 3.1.1 section 3.1: protocol name and level, flags, keep alive of 60 s; in MQTT 5, a session expiry of an hour and
# the greatest packet that the client accepts, 16 MiB (3.1.2.11.4).
# The flags are bit 7 for a user name and bit 6 for a password (3.1.2.8 and 3.1.2.9 in 3.1.1 and 5); Clean Session is 0.
# The payload is the client identifier, the user name and the password, each behind its length (3.1.3); in MQTT 5 the
# properties go before it, behind the length of them all (3.1.2.11).
FOUR, FIVE = b"\x00\x04MQTT\x04%c\x00\x2d", b"\x00\x04MQTT\x05%c\x00\x2d"
EXPIRY = b"\x11\x00\x00\x0e\x10"
SIZE = b"\x27\x01\x00\x00\x00"
SIGNED = jwt(aud="plant", iat=1_700_000_000, exp=1_700_003_600)

CASES: list[Any] = [
    pytest.param("password", 4, "t.o.k", FOUR % 0xC0 + ID + field("pump-17") + field("t.o.k"), id="password"),
    pytest.param(Password(), 5, "t.o.k", FIVE % 0xC0 + b"\x0a" + EXPIRY + SIZE + ID + field("pump-17") + field("t.o.k"),
                 id="password-5"),
    pytest.param("rabbitmq", 4, "t.o.k", FOUR % 0xC0 + ID + field("pump-17") + field("t.o.k"), id="rabbitmq-default"),
    pytest.param(RabbitMQ("plant", "pump"), 4, "t.o.k", FOUR % 0xC0 + ID + field("plant:pump") + field("t.o.k"),
                 id="rabbitmq-vhost-user"),
    pytest.param(RabbitMQ("/"), 4, "t.o.k", FOUR % 0xC0 + ID + field("/:pump-17") + field("t.o.k"), id="rabbitmq"),
    pytest.param(Username(), 4, "t.o.k", FOUR % 0xC0 + ID + field("t.o.k") + b"\x00\x00", id="ably"),
    pytest.param(Username("any"), 4, "t.o.k", FOUR % 0xC0 + ID + field("t.o.k") + field("any"), id="go-auth"),
    pytest.param(
        EventGrid(), 5, "t.o.k",
        FIVE % 0 + b"\x1f" + EXPIRY + SIZE + b"\x15\x00\x0aOAUTH2-JWT" + b"\x16\x00\x05t.o.k" + ID,
        id="event-grid-entra",
    ),
    pytest.param(
        EventGrid("CUSTOM-JWT", "pump"), 5, "t.o.k",
        FIVE % 0x80 + b"\x1f" + EXPIRY + SIZE + b"\x15\x00\x0aCUSTOM-JWT" + b"\x16\x00\x05t.o.k" + ID + field("pump"),
        id="event-grid-custom",
    ),
    pytest.param(
        IoTOperations(), 5, "t.o.k",
        FIVE % 0 + b"\x1c" + EXPIRY + SIZE + b"\x15\x00\x07K8S-SAT" + b"\x16\x00\x05t.o.k" + ID,
        id="iot-operations",
    ),
    pytest.param(
        AwsIotOnAnyPort("plant"), 4, "t.o.k",
        FOUR % 0xC0 + ID + field("?x-amz-customauthorizer-name=plant") + field("t.o.k"), id="aws-password",
    ),
    pytest.param(
        AwsIotOnAnyPort("plant@1", "token", lambda _value: "a+b/c=", "pump"), 4, "t.o.k",
        FOUR % 0x80 + ID + field("pump?x-amz-customauthorizer-name=plant%401"
                                 "&x-amz-customauthorizer-signature=a%2Bb%2Fc%3D&token=t.o.k"),
        id="aws-query",
    ),
    pytest.param(Solace("plant"), 4, "t.o.k", FOUR % 0xC0 + ID + field("pump-17") + field("OAUTH~plant~t.o.k"),
                 id="solace"),
    pytest.param(ClearBlade(), 4, SIGNED, FOUR % 0xC0 + field(DEVICE) + field("unused") + field(SIGNED),
                 id="clearblade"),
    pytest.param(lambda token, client_id: Credentials(client_id[:4], token.value.encode(), token), 4, "t.o.k",
                 FOUR % 0xC0 + ID + field("pump") + field("t.o.k"), id="a-function"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "protocol", "token", "body"), CASES)
def test_connect_is_what_the_document_says(make: Make, profile: Any, protocol: int, token: str, body: bytes) -> None:
    device = make(protocol, profile=profile, client_id=DEVICE if isinstance(profile, ClearBlade) else "pump-17")
    device.source.always = Token(token, 3600)
    device.client.connect(timeout=0)
    peer = device.broker.accept()
    assert first_bytes(peer) == body
    peer.expect(CONNECT)
    peer.connack()


@pytest.mark.parametrize(
    ("profile", "client_id", "token", "message"),
    [
        (RabbitMQ("/"), "pump-17", Token("a" * 65_490), "CONNECT has 65537 bytes, the broker accepts 65536"),
        (Solace("plant"), "pump-17", Token("a" * 65_524), "password has 65536 bytes"),
        (AwsIotOnAnyPort("plant", "token"), "pump-17", Token("a" * 6_145), "AWS IoT accepts at most 6144"),
        (ClearBlade(), DEVICE, Token("opaque"), "24 hours"),
        (ClearBlade(), DEVICE, Token(jwt(aud="plant", iat=0, exp=86_401)), "24 hours"),
        (ClearBlade(), DEVICE, Token(jwt(aud="other", iat=0, exp=3600)), "aud must be the project, 'plant'"),
    ],
)
def test_a_token_that_does_not_fit_is_refused_before_a_socket_is_opened(
    make: Make, profile: Any, client_id: str, token: Token, message: str
) -> None:
    device = make(5, profile=profile, client_id=client_id)
    device.source.always = token
    with pytest.raises(ConfigurationError, match=message) as raised:
        device.client.connect(timeout=PATIENCE)
    assert token.value[:12] not in str(raised.value)
    device.broker.expect_no_connection()


@pytest.mark.parametrize(
    ("profile", "field"),
    [(Username(), "user name"), (EventGrid(), "Authentication Data"), (IoTOperations(), "Authentication Data")],
)
def test_a_field_holds_what_mqtt_can_carry_and_no_more(profile: Any, field: str) -> None:
    profile.place(Token("a" * 65_535), "pump-17")
    with pytest.raises(ConfigurationError, match=f"{field} has 65536 bytes"):
        profile.place(Token("a" * 65_536), "pump-17")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "event-grid", "protocol": 4}, "protocol must be 5"),
        ({"profile": "iot-operations", "protocol": 4}, "protocol must be 5"),
        ({"profile": AwsIot("plant")}, "broker: .*mqtts://b.example:443"),
        ({"profile": AwsIot("plant"), "broker": "wss://b.example"}, "broker: .*mqtts://b.example:443"),
        ({"profile": "clearblade"}, "client_id must be projects/"),
        ({"profile": BearerHeader()}, "broker must be a wss:// URL"),
        ({"profile": "rabbitmq", "client_id": "aa:bb"}, "colon.*give username"),
        ({"profile": "solace"}, "'solace' must be given as an object.*'profile'"),
        ({"profile": RabbitMQ}, "must be an instance, RabbitMQ"),
    ],
)
def test_what_a_broker_would_refuse_is_reported_in_a_line_when_the_client_is_made(
    options: dict[str, Any], message: str
) -> None:
    given = {"broker": "mqtts://b.example", "tokens": Source(), "client_id": "pump-17", **options}
    with pytest.raises(ConfigurationError, match=message) as raised:
        TokenClient(**given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("profile", "arguments", "says"),
    [
        (AwsIot, {"authorizer": ""}, "authorizer must be the name of a custom authorizer, got ''"),
        (AwsIot, {"authorizer": "plant", "username": "me?x=1"}, "username must not contain a ?"),
        (AwsIot, {"authorizer": "plant", "token_key": ""}, "token_key must be the token key name of the authorizer"),
        (AwsIot, {"authorizer": "plant", "signature": str}, "signature must be a function of the token's value, and"),
        (AwsIot, {"authorizer": "plant", "token_key": "key", "signature": "s"}, "signature must be a function"),
        (BearerHeader, {"header": ""}, "header must be the name of an HTTP header, got ''"),
        (EventGrid, {"method": "JWT"}, 'method must be "OAUTH2-JWT" or "CUSTOM-JWT", got \'JWT\''),
        (RabbitMQ, {"vhost": "/", "username": "vhost:me"}, "username must not contain a colon"),
        (Solace, {"profile": "a~b"}, "profile must be the name of an OAuth profile, without ~, got 'a~b'"),
        (Username, {"password": 5}, "password must be a string, got int"),
    ],
)
def test_a_profile_names_the_argument_that_is_wrong(profile: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        profile(**arguments)
    assert says in str(raised.value)


@pytest.mark.parametrize("name", ["pump\0", "pump\ud800"])
def test_a_user_name_with_what_mqtt_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="user name contains a character that MQTT does not allow"):
        Credentials(name, b"secret", Token("secret"))


def test_a_bearer_header_is_in_the_upgrade_and_nothing_in_connect() -> None:
    placed = BearerHeader().place(Token("t.o.k"), "pump-17")
    assert (placed.username, placed.password, placed.headers) == (None, None, {"Authorization": "Bearer t.o.k"})
    with pytest.raises(ConfigurationError, match="RFC 9110"):
        BearerHeader().place(Token("t\r\nX: y"), "pump-17")


def test_a_password_without_a_user_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs a user name"):
        Credentials(None, b"secret", Token("secret"))
