"""TokenClient: the blocking interface. It checks arguments and waits; everything else is the core's."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any

from . import arguments, events
from .backoff import Backoff
from .core import ClientCore, Stats
from .errors import ClientClosed
from .mqtt.codec.checks import LARGEST_PAYLOAD, Payload, check_payload, check_qos
from .mqtt.codec.packets import MAX_PACKET_SIZE
from .mqtt.codec.topics import check_filter, check_topic, encode_topic
from .mqtt.codec.will import Will
from .mqtt.lifecycle.settings import open_settings
from .mqtt.runtime.base import current
from .mqtt.runtime.thread import acquire_network_thread, release_network_thread
from .mqtt.session.delivery import Delivery, Outgoing
from .mqtt.session.subscriptions import Handler
from .oneshot import check_seconds, check_timeout
from .profiles import PlacingFunction, Profile
from .sources import TokenSource
from .stores import TokenStore
from .tokens.credentials import CredentialsProvider, open_keeper
from .tokens.keeper import RenewalPolicy, TokenKeeper


class TokenClient(arguments.NoPahoNames):
    """An MQTT client whose password is a short-lived token.

    Any thread may use it. Handlers and ``on_event`` are called on the network thread, which all clients of a process
    share: they must not block.

    Args:
        broker: a URL, or several, of which one that failed is avoided for a minute: ``mqtts://host[:8883]``, or
            ``wss://host[:443][/path]`` (needs the ``websocket`` extra); ``mqtt://`` and ``ws://`` for loopback only,
            unless ``allow_insecure``.
        tokens: where tokens come from: a :class:`TokenSource`, or a :class:`TokenKeeper` to share with others.
        client_id: the MQTT client identifier. One client at a time may use it.
        store: keeps the token across restarts; without one it is kept in memory.
        profile: how the broker expects the token: ``"password"``, ``"rabbitmq"`` and so on, a :class:`Profile`, or a
            function of the token and the client id that returns :class:`Credentials`.
        protocol: 5, or 4 for MQTT 3.1.1.
        keepalive: seconds of silence after which the connection is probed; 0 never does.
        session_expiry: seconds that the broker keeps the session while the client is away. 0 keeps none: then each
            rotation begins a new session, and messages that arrive in that moment are lost. In MQTT 3.1.1 any other
            value means a persistent session, for as long as the broker keeps it.
        clean_start: have the broker drop an earlier session of this ``client_id`` when this client connects for the
            first time; every later connection resumes the session. MQTT 5 only.
        will: published by the broker if this client is lost.
        tls: the TLS context; by default the system's certificates, TLS 1.2 or newer.
        proxy: the URL of an HTTP or SOCKS proxy to the broker.
        allow_insecure: allow ``mqtt://`` to other machines, and a TLS context that does not verify.
        renewal: when tokens are renewed.
        backoff: the delays between failed attempts to connect.
        max_inflight: messages of QoS 1 and 2 that may be unacknowledged at once, at most; fewer if the broker accepts
            fewer, or if fewer keep the network busy.
        max_queued: messages that may wait to be acknowledged, sent or not.
        max_packet_size: bytes of the largest packet to accept, from 16 to 268,435,460. With MQTT 5 the broker knows it
            as Maximum Packet Size (section 3.1.2.11.4). A larger message, which MQTT 3.1.1 cannot prevent, is not
            delivered but reported as :class:`MessageRejected`.
        receive_maximum: messages of QoS 1 and 2 that the broker may send before the first of them is acknowledged,
            from 1 to 65,535 (MQTT 5 only; Receive Maximum, section 3.1.2.11.3); None leaves it at 65,535.
        manual_ack: messages of QoS 1 and 2 are acknowledged by :meth:`Message.acknowledge`, not when they arrive.
        on_message: gets the messages that no subscription has a handler for.
        on_event: gets every :class:`Event`.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        broker: str | Sequence[str],
        tokens: TokenSource | TokenKeeper,
        *,
        client_id: str,
        store: TokenStore | None = None,
        profile: str | Profile | PlacingFunction = "password",
        protocol: int = 5,
        keepalive: int = 60,
        session_expiry: int = 3600,
        clean_start: bool = False,
        will: Will | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        allow_insecure: bool = False,
        renewal: RenewalPolicy | None = None,
        backoff: Backoff | None = None,
        max_inflight: int = 10_000,
        max_queued: int = 10_000,
        max_packet_size: int = MAX_PACKET_SIZE,
        receive_maximum: int | None = None,
        manual_ack: bool = False,
        on_message: Handler | None = None,
        on_event: Callable[[events.Event], object] | None = None,
    ) -> None:
        self._settings = open_settings(
            broker,
            client_id=client_id,
            profile=profile,
            protocol=protocol,
            keepalive=keepalive,
            session_expiry=session_expiry,
            clean_start=clean_start,
            will=will,
            tls=tls,
            proxy=proxy,
            allow_insecure=allow_insecure,
            backoff=Backoff() if backoff is None else backoff,
            max_packet_size=max_packet_size,
            receive_maximum=receive_maximum,
        )
        options = arguments.SessionOptions(max_inflight, max_queued, bool(manual_ack), on_message)
        keeper = open_keeper(tokens, store, renewal, key=client_id)
        provider = CredentialsProvider(keeper, self._settings.profile, client_id)
        self._core = ClientCore(
            self._settings, provider, options, on_event, acquire_network_thread, release_network_thread
        )

    @classmethod
    def from_config(cls, path: str | PathLike[str], **overrides: Any) -> TokenClient:
        """Make a client from a TOML file, the one that the ``mqtt-token`` command reads.

        Args:
            path: the file.
            overrides: arguments of the constructor that are added to those in the file, or replace them.

        Raises:
            ConfigurationError: the file cannot be read, or an entry or argument is wrong.
        """
        return cls(**{**arguments.from_file(path), **overrides})

    # Connecting

    def connect(self, timeout: float | None = 30.0) -> bool:
        """Connect, and stay connected until :meth:`disconnect`.

        Args:
            timeout: seconds to wait for the first connection; 0 does not wait, None waits without a limit.

        Returns:
            Whether it is connected by now. If not, it goes on trying; ``on_event`` gets the reasons.

        Raises:
            MqttTokenError: an error that retrying cannot fix: rejected credentials, a certificate that is not trusted,
                a second new token that the broker rejects. The client is then disconnected. With ``timeout=0`` this is
                an event instead, and attempts go on, rarely.
            ClientClosed: called in a handler while ``disconnect()`` is not done, or in a child that was forked since.
            ConfigurationError: ``timeout`` is not a valid number of seconds.
        """
        timeout = check_timeout(timeout, "connect")
        core = self._core
        while (closing := core.start()) is not None:
            if current.runtime is not None:
                raise ClientClosed("connect: disconnect() is not done yet, and a handler cannot wait for it")
            closing.wait()
        if timeout != 0 and current.runtime is None:
            core.first_result.wait(timeout)
            if (error := core.fatal_error) is not None:
                self.disconnect(timeout=0)
                raise error
        return core.connected

    def disconnect(self, timeout: float = 5.0) -> None:
        """Send the queued messages for at most ``timeout`` seconds, then DISCONNECT; the broker drops the will.

        The ``Delivery`` of a message that is not acknowledged by then fails; :class:`MessagesAbandoned` says how many.

        Raises:
            ConfigurationError: ``timeout`` is not a valid number of seconds.
        """
        closed = self._core.close(check_seconds(timeout, "disconnect"))
        if current.runtime is None:
            closed.wait()

    def __enter__(self) -> TokenClient:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()

    # Messages

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> Delivery:
        """Queue a message and return at once, also while offline or rotating. Those of one QoS are sent in this order.

        Args:
            topic: of the message.
            payload: of the message; a string is sent as UTF-8, a number as its text, None as an empty payload.
            qos: 0, 1 or 2.
            retain: whether the broker keeps it for later subscribers.
            properties: of MQTT 5, by their names in snake_case, such as ``{"message_expiry_interval": 60}``: a message
                that waits longer than that is not sent, and reported as :class:`MessageExpired`.

        Returns:
            The :class:`Delivery`: whether the message is acknowledged, or why it failed.

        Raises:
            OutboxFull: ``max_queued`` messages wait already; this one was not accepted.
            ClientClosed: the client is disconnected.
            ConfigurationError: an argument is wrong.
        """
        encoded = encode_topic(topic) if isinstance(topic, str) else check_topic(topic, "publish")
        if not isinstance(payload, bytes) or len(payload) > LARGEST_PAYLOAD:
            payload = check_payload(payload)
        check_qos(qos, "publish")
        message = Outgoing(encoded, payload, qos, bool(retain), b"")
        if properties:
            message = arguments.with_properties(message, properties, self._settings.protocol)
        self._core.session.publish(message)
        return message

    def subscribe(
        self,
        topic_filter: str,
        handler: Handler | None = None,
        *,
        qos: int = 1,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Receive the messages of a topic filter, now and after every reconnect. All arguments after ``qos`` need
        MQTT 5 (section 3.8).

        Args:
            topic_filter: with the wildcards ``+`` and ``#``; ``$share/group/filter`` is a shared subscription.
            handler: gets each :class:`Message`; without one, ``on_message`` does. What it raises is logged and reported
                as :class:`HandlerFailed`.
            qos: the highest QoS to receive messages with.
            no_local: leave out what this client publishes itself; not for a shared subscription.
            retain_as_published: leave the retain flag of each message as its publisher set it.
            retain_handling: whether the broker sends retained messages when it gets the subscription: 0 for yes, 1 only
                if it did not have it before, 2 for no.
            properties: by their names in snake_case: ``{"subscription_identifier": 7}``, which is then among the
                properties of each message of this subscription, and ``user_property``.

        Raises:
            ConfigurationError: an argument is wrong. If the broker rejects the filter: :class:`SubscriptionRefused`.
        """
        check_filter(topic_filter, "subscribe")
        arguments.check_function("subscribe: handler", handler)
        protocol, flags = self._settings.protocol, (no_local, retain_as_published)
        options = arguments.subscription_options(topic_filter, qos, *flags, retain_handling, protocol)
        packed = arguments.subscription_properties(properties, protocol)
        identified = properties is not None and "subscription_identifier" in properties
        self._core.session.subscribe(topic_filter, handler, options, packed, identified=identified)

    def unsubscribe(self, topic_filter: str) -> None:
        """Stop receiving the messages of a topic filter."""
        check_filter(topic_filter, "unsubscribe")
        self._core.session.unsubscribe(topic_filter)

    # The token

    def rotate(self) -> None:
        """Renew the token now, and return when that is done; then the connection is moved onto it, which
        :class:`Rotated` reports. In a handler it does not wait.

        Raises:
            TokenError: the token could not be renewed; the current one and the connection stay.
        """
        self._core.renew()

    @property
    def token_expires_in(self) -> float | None:
        """Seconds for which the current token is valid; None while there is no token."""
        token = self._core.token
        return None if token is None else token.expires_in

    @property
    def state(self) -> str:
        """``connected``, ``rotating``, ``connecting``, ``waiting`` (for the next attempt) or ``closed``."""
        return self._core.state

    @property
    def stats(self) -> Stats:
        """What the client has done so far."""
        return self._core.stats

    def __repr__(self) -> str:
        return f"TokenClient({str(self._settings.brokers[0])!r}, client_id={self._settings.client_id!r}, {self.state})"
