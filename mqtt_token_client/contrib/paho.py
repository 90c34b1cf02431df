"""Tokens for an existing paho-mqtt client.

    keeper = TokenKeeper(source, store)
    attach(client, keeper)

From then on each CONNECT of the client presents a valid token, and a connection moves onto a new token before the old
one expires: the client sends what is queued and DISCONNECT, so that the broker publishes no will, and connects again.

Only :class:`~mqtt_token_client.TokenClient` does the rest. Here the client is away for some round trips at each
rotation, messages of QoS 0 that the broker sends then are lost, ``on_disconnect`` and ``on_connect`` are called at
each rotation, and without a persistent session (``clean_session=False``, or a Session Expiry Interval in MQTT 5) so are
messages of QoS 1 and 2.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

from ..clock import monotonic
from ..errors import ConfigurationError, MqttTokenError
from ..logs import get_logger
from ..profiles import Credentials, PlacingFunction, Profile, open_profile
from ..token import Token
from ..tokens.keeper import TokenKeeper

log = get_logger("mqtt_token_client.contrib.paho")

_PAUSE = 1.0  # seconds until a rotation that could not begin is tried again
_LONGEST_GOODBYE = 2.0  # seconds until the broker has closed a connection after DISCONNECT
# CONNACK: Bad user name or password, and Not authorized, in MQTT 3.1.1 (section 3.2.2.3) and 5 (section 3.2.2.2)
_TOKEN_REJECTED = frozenset((4, 5, 0x86, 0x87))


def attach(client: Client, keeper: TokenKeeper, profile: str | Profile | PlacingFunction = "password") -> None:
    """Let a paho-mqtt client present the keeper's tokens, and reconnect before they expire.

    Call it before ``connect()``, once, for a client that runs by ``loop_start()``, ``loop_forever()`` or ``loop()``;
    both versions of the callback API serve. If the broker rejects a token, the next attempt presents a new one;
    the client's own back-off (``reconnect_delay_set()``) tells when.

    While no token can be obtained, ``connect()`` raises ConnectionError, and the client's loop retries it as it retries
    any connection that fails. The callbacks ``on_pre_connect`` and ``on_connect`` of the program are kept, if they are
    set before ``connect()``.

    Args:
        client: of ``paho.mqtt.client``, any 2.x.
        keeper: obtains and renews the tokens. Close it when the client is no longer used.
        profile: how the broker expects the token, as for TokenClient; by default as the password, with an empty user
            name. Paho can send a user name and a password only.

    Raises:
        ConfigurationError: an argument is wrong.
    """
    if not isinstance(client, Client):
        raise ConfigurationError(f"client must be a paho.mqtt.client.Client, got {type(client).__name__}")
    if not isinstance(keeper, TokenKeeper):
        raise ConfigurationError(f"keeper must be a TokenKeeper, got {type(keeper).__name__}")
    _Attachment(client, keeper, open_profile(profile))


class _Attachment:
    """Everything but the renewal runs on the thread that runs the client's loop."""

    def __init__(self, client: Client, keeper: TokenKeeper, profile: Profile) -> None:
        self._client = client
        self._keeper = keeper
        self._profile = profile
        self._presented: Token | None = None  # in the CONNECT of the current connection
        self._rejected: Token | None = None
        self._rotate_at = 0.0  # not before
        self._on_pre_connect = client.on_pre_connect
        self._on_connect = client.on_connect
        self._loop_misc = client.loop_misc
        client.on_pre_connect = self._before_connect
        client.loop_misc = self._run  # type: ignore[method-assign]  # every loop calls it, at least once a second

    def _before_connect(self, client: Client, userdata: Any) -> None:
        if client.on_connect != self._connected:
            self._on_connect = client.on_connect
            client.on_connect = self._connected
        if self._on_pre_connect is not None:
            self._on_pre_connect(client, userdata)
        try:
            token = self._keeper.get(self._rejected)
            credentials = self._profile.place(token, "")
            _check(credentials)
            password = None if credentials.password is None else credentials.password.decode()
        except MqttTokenError as error:
            if self._presented is None and isinstance(error, ConfigurationError):
                raise
            raise ConnectionError(f"no token for the broker: {error}") from error  # the loop retries any OSError
        except Exception as error:  # noqa: BLE001 - a user's profile, whose text may hold the token
            raise ConnectionError(f"no token for the broker: the profile raised {type(error).__name__}") from None
        client.username_pw_set(credentials.username or "", password)
        self._presented = token

    def _connected(self, client: Client, userdata: Any, *answer: Any) -> None:
        """CONNACK has arrived. The reason is the second of the other arguments in each version of the callback API."""
        reason = getattr(answer[1], "value", answer[1])
        self._rejected = self._presented if reason in _TOKEN_REJECTED else None
        if self._on_connect is not None:
            self._on_connect(client, userdata, *answer)

    def _run(self) -> MQTTErrorCode:
        """What it raises would end the client's loop for good."""
        self._keeper.renew_in_background()
        token, now = self._keeper.current, monotonic()
        if token is not None and token != self._presented and self._rotate_at <= now and self._client.is_connected():
            self._rotate()
        return self._loop_misc()

    def _rotate(self) -> None:
        client = self._client
        log.debug("reconnecting with the new token")
        connection = client.socket()
        assert connection is not None, "connected"
        try:
            old = _duplicate(connection)
        except OSError as error:  # the process has as many files open as it may, perhaps for a moment only
            self._rotate_at = monotonic() + _PAUSE
            log.warning("could not reconnect with the new token yet: %s", error)
            return
        with old:
            client.disconnect()
            _write_all(client)
            _wait_for_end(old)
        try:
            client.reconnect()
        except OSError as error:
            log.warning("could not reconnect: %s", error)  # the loop tries again


def _check(credentials: Credentials) -> None:
    if credentials.headers or credentials.auth_method is not None:
        raise ConfigurationError("profile: a paho-mqtt client can send a user name and a password only")


def _duplicate(connection: Any) -> socket.socket:
    """A socket of its own for a connection: paho closes the other one as soon as it has written DISCONNECT, and what
    had arrived unread would then reset the connection before the broker reads that.
    """
    return socket.socket(fileno=os.dup(connection.fileno()))


def _write_all(client: Client) -> None:
    """Write what is queued; DISCONNECT is the last of it, and closes the client's socket."""
    until = monotonic() + _LONGEST_GOODBYE
    while (connection := client.socket()) is not None and monotonic() < until:
        select.select([], [connection], [], until - monotonic())
        client.loop_write()


def _wait_for_end(connection: socket.socket) -> None:
    """Let the broker read DISCONNECT and close the connection."""
    until = monotonic() + _LONGEST_GOODBYE
    try:
        connection.shutdown(socket.SHUT_WR)
        while (left := until - monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(65536):
                return
    except OSError:
        return  # it is closed, or took too long
