"""A program of a user of AsyncTokenClient, for type checkers: mypy (strict, with `make lint`) and pyright (strict).

CONTRIBUTING.md has the command for pyright.
"""

# pyright: strict

from __future__ import annotations

from typing import assert_type

from mqtt_token_client import (
    AsyncTokenClient,
    AsyncTokenSource,
    Delivery,
    Event,
    Message,
    Rotated,
    Stats,
    Token,
    TokenKeeper,
)


class OurSource:
    async def fetch(self, previous: Token | None) -> Token:
        return Token("a-token", 60.0)


async def on_command(message: Message) -> None:
    assert_type(message.payload, bytes)


def on_status(message: Message) -> None:
    assert_type(message.topic, str)


def on_event(event: Event) -> None:
    match event:
        case Rotated(kind=_, gap=gap):
            assert_type(gap, float)
        case _:
            print(event)  # noqa: T201


async def program() -> None:
    source: AsyncTokenSource = OurSource()
    keeper = TokenKeeper(source)
    assert_type(await keeper.get_async(), Token)
    client = AsyncTokenClient(
        ["mqtts://a.example.com", "mqtts://b.example.com"],
        keeper,
        client_id="pump-17",
        on_message=on_command,
        on_event=on_event,
    )
    client.subscribe("pump/17/status", on_status)
    async with client as entered:
        assert_type(entered, AsyncTokenClient)
        assert_type(await client.publish("a", 21.5, qos=1), None)
        delivery = client.publish_nowait("a", None)
        assert_type(delivery, Delivery)
        await delivery
        async with client.messages("pump/17/command/#", qos=2, queue=10) as messages:
            async for message in messages:
                assert_type(message, Message)
        async for event in client.events():
            assert_type(event, Event)
        await client.rotate()
        assert_type(client.stats, Stats)
    assert_type(await client.connect(timeout=None), bool)
    await client.disconnect(timeout=1)
    assert_type(AsyncTokenClient.from_config("mqtt-token.toml"), AsyncTokenClient)
