"""A program of a user of TokenClient, for type checkers: mypy (strict, with `make lint`) and pyright (strict).

CONTRIBUTING.md has the command for pyright.
"""

# pyright: strict

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from mqtt_token_client import (
    Backoff,
    ClientCredentials,
    Connected,
    Delivery,
    DeliveryFailed,
    Disconnected,
    Event,
    FileStore,
    Message,
    RenewalPolicy,
    Stats,
    Token,
    TokenClient,
    TokenKeeper,
    TokenSource,
    Will,
    open_store,
)


class OurSource:
    def fetch(self, previous: Token | None) -> Token:
        return Token("a-token", 60.0)


def on_command(message: Message) -> None:
    assert_type(message.topic, str)
    assert_type(message.payload, bytes)
    assert_type(message.qos, int)
    assert_type(message.retain, bool)


def on_event(event: Event) -> None:
    match event:
        case Connected(broker=broker):
            assert_type(broker, str)
        case Disconnected(cause, reason, retry_in):
            assert_type(cause, str)
            assert_type(reason, int | None)
            assert_type(retry_in, float)
        case _:
            print(event)  # noqa: T201


def on_done(delivery: Delivery) -> None:
    assert_type(delivery.done, bool)


def program() -> None:
    source: TokenSource = OurSource()
    keeper = TokenKeeper(source, FileStore(Path("tokens")), key="pump-17", policy=RenewalPolicy())
    assert_type(keeper.token, Token)
    client = TokenClient(
        "mqtts://broker.example.com",
        keeper,
        client_id="pump-17",
        will=Will("pump/17/state", b"lost", qos=1),
        backoff=Backoff(initial=1),
        on_message=on_command,
        on_event=on_event,
    )
    client.subscribe("pump/17/command/#", on_command, qos=1)
    with client as entered:
        assert_type(entered, TokenClient)
        delivery = client.publish("pump/17/temperature", "21.5", qos=1, properties={"message_expiry_interval": 60})
        assert_type(delivery, Delivery)
        delivery.add_done_callback(on_done)
        try:
            delivery.wait(10)
        except DeliveryFailed as error:
            assert_type(error.permanent, bool)
        client.rotate()
        assert_type(client.stats, Stats)
        assert_type(client.stats.rotations, int)
        assert_type(client.state, str)
    assert_type(client.connect(timeout=None), bool)
    client.disconnect(timeout=1)
    assert_type(TokenClient.from_config("mqtt-token.toml"), TokenClient)


def with_a_grant() -> None:
    grant = ClientCredentials(
        issuer="https://id.example.com/realms/plant", client_id="pump-17", client_secret="-", scope="mqtt"
    )
    TokenClient("mqtts://broker.example.com", grant, client_id="pump-17", store=open_store())
