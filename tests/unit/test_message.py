"""The message as applications get it."""

from __future__ import annotations

from mqtt_token_client.mqtt.codec.message import Message


def test_a_message_has_no_properties_by_default_and_shares_none() -> None:
    first, second = (Message("a", b"", 0, False, False) for _ in range(2))
    first.properties["mine"] = 1
    assert second.properties == {}
