"""A client for the command beside the device's own, and the options that its commands share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import click

from ..client import TokenClient
from ..config import Config
from ..errors import ConfigurationError, MqttTokenError, TokenError
from ..events import ConnectFailed, Event
from ..profiles import Credentials, Profile, open_profile
from ..sources.oauth.device_flow import DeviceFlow
from ..token import Token
from ..tokens.keeper import TokenKeeper
from .login import Unattended, token_key

MAX_WAIT = 31_536_000.0  # seconds; Python cannot wait for very much longer

topic_option = click.option("-t", "--topic", required=True, help="The topic.")
qos_option = click.option("-q", "--qos", type=click.IntRange(0, 2), default=1, show_default=True, help="0, 1 or 2.")
client_id_option = click.option("-i", "--client-id", help="[default: that of the file, with a random ending]")
wait_option = click.option(
    "-W",
    "--wait",
    type=click.FloatRange(0.001, MAX_WAIT),
    help="Give up after this many seconds, which begin before it connects.",
)
properties_option = click.option(
    "-P",
    "--property",
    "properties",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of MQTT 5, such as content_type=text/csv.",
)
user_properties_option = click.option(
    "-U", "--user-property", "user", multiple=True, metavar="NAME=VALUE", help="Of MQTT 5."
)


_CONNECT_SECONDS = 30.0
_NUMBERS = ("message_expiry_interval", "payload_format_indicator")  # of the properties of a message
_OF_THE_DEVICE = ("will", "clean_start", "session_expiry", "journal", "max_queued")
# MQTT 5: no message is lost while the token rotates, and the broker drops the session soon after the command. In 3.1.1
# it would keep it forever.
_SESSION = {"session_expiry": 60, "clean_start": True}


class Wait:
    """How long a command goes on.

    Args:
        seconds: from now; None has no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._ends = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """Seconds, 0 when they are over; None without a limit."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())


class _AsDevice:
    """The device's profile: the credentials are those of the device, whatever the client id is."""

    def __init__(self, profile: Profile, client_id: str) -> None:
        self._profile = profile
        self._client_id = client_id

    def place(self, token: Token, client_id: str) -> Credentials:  # noqa: ARG002 - as in Profile
        return self._profile.place(token, self._client_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._profile, name)


@contextmanager
def connected(
    config: Config,
    client_id: str | None,
    wait: Wait,
    failed: Callable[[MqttTokenError], object],
    on_event: Callable[[Event], object] = lambda _event: None,
) -> Iterator[TokenClient]:
    """A client beside the device's own: with another client id and a session of its own, but the same credentials.

    Args:
        config: the device's file.
        client_id: in place of the device's, with a random ending.
        wait: how long to wait for the first connection, at most; half a minute in any case.
        failed: called if the connection is lost, and a person has to help before there is another token.
        on_event: gets each event of the client.
    """
    for name in ("broker", "client_id"):
        if name not in config.client:
            raise ConfigurationError(f"{config.path}: {name}: this entry is missing")
    own = str(config.client["client_id"])

    def happened(event: Event) -> None:
        if isinstance(event, ConnectFailed) and event.error.permanent and isinstance(event.error, TokenError):
            failed(event.error)
        on_event(event)

    arguments = {
        **{name: value for name, value in config.client.items() if name not in _OF_THE_DEVICE},
        **(_SESSION if config.client.get("protocol", 5) == 5 else {"session_expiry": 0}),
        "client_id": client_id or f"{own}-{uuid4().hex[:8]}",
        "profile": _AsDevice(open_profile(config.client.get("profile", "password")), own),
        "on_event": happened,
    }
    source = Unattended(config.source) if isinstance(config.source, DeviceFlow) else config.source
    keeper = TokenKeeper(source, config.store, key=token_key(config))
    client = TokenClient(tokens=keeper, **arguments)
    try:
        client.connect(_CONNECT_SECONDS if wait.left is None else min(_CONNECT_SECONDS, wait.left))
        yield client
    finally:
        client.disconnect()


def _pairs(texts: Iterable[str], option: str) -> list[tuple[str, str]]:
    pairs = [tuple(text.partition("=")[::2]) for text in texts]
    if any("=" not in text for text in texts):
        raise click.UsageError(f"{option} must be NAME=VALUE")
    return pairs  # type: ignore[return-value]  # of two each


def encoded(argument: str) -> bytes:
    """The bytes of an argument as they were given, if they are not UTF-8."""
    return argument.encode(errors="surrogateescape")


def message_properties(properties: Iterable[str], user: Iterable[str]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for name, value in _pairs(properties, "--property"):
        number = name in _NUMBERS and value.isdecimal()
        found[name] = int(value) if number else encoded(value) if name == "correlation_data" else value
    if user:
        found["user_property"] = _pairs(user, "--user-property")
    return found or None
