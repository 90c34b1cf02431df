"""TokenClient: publish and subscribe; the token is somebody else's business."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any

from . import events
from .backoff import Backoff
from .clock import monotonic
from .core import ClientCore, SessionOptions, Stats
from .errors import ClientClosed, ConfigurationError
from .mqtt.codec.checks import LARGEST_PAYLOAD, check_payload, check_qos
from .mqtt.codec.packets import MAX_PACKET_SIZE, SUBSCRIBE
from .mqtt.codec.properties import pack_properties
from .mqtt.codec.topics import check_filter, check_topic, encode_topic
from .mqtt.codec.will import Will
from .mqtt.lifecycle.settings import open_settings
from .mqtt.runtime.base import current
from .mqtt.runtime.thread import acquire_network_thread, release_network_thread
from .mqtt.session.delivery import Delivery, ExpiringMessage, Outgoing
from .mqtt.session.subscriptions import Handler
from .profiles import PlacingFunction, Profile
from .sources import TokenSource
from .stores import TokenStore
from .tokens.credentials import CredentialsProvider, open_keeper
from .tokens.keeper import RenewalPolicy, TokenKeeper

_EXPIRY = "message_expiry_interval"


class TokenClient:
    """An MQTT client whose password is a short-lived token.

    Safe to use from any thread. Handlers and ``on_event`` are called on the network thread, which all clients of a
    process share: what takes long belongs elsewhere.

    Args:
        broker: a URL, or several, of which one that failed is avoided for a minute: ``mqtts://host[:8883]``, or
            ``wss://host[:443][/path]`` (needs the ``websocket`` extra); ``mqtt://`` and ``ws://`` for loopback only,
            unless ``allow_insecure``.
        tokens: where tokens come from: a :class:`TokenSource`, or a :class:`TokenKeeper` to share with others.
        client_id: the MQTT client identifier. One client at a time may use it.
        store: keeps the token across restarts; by default it is forgotten at the end.
        profile: how the broker takes the token: ``"password"``, ``"rabbitmq"`` and so on, a :class:`Profile`, or a
            function of the token and the client id that returns :class:`Credentials`.
        protocol: 5, or 4 for MQTT 3.1.1.
        keepalive: seconds of silence after which the connection is probed; 0 never does.
        session_expiry: seconds that the broker keeps the session while the client is away. 0 keeps none: then each
            rotation begins a new one, and what comes in that moment is lost. In MQTT 3.1.1 anything else means a
            persistent session, for as long as the broker likes.
        clean_start: have the broker drop what it has kept of an earlier session of this ``client_id`` when this client
            connects first; every later connection resumes. MQTT 5 only.
        will: published by the broker if this client is lost.
        tls: the TLS context; by default the system's certificates, TLS 1.2 or newer.
        proxy: the URL of an HTTP or SOCKS proxy to the broker.
        allow_insecure: allow ``mqtt://`` to other machines, and a TLS context that does not verify.
        renewal: when tokens are renewed.
        backoff: the delays between failed attempts to connect.
        max_inflight: messages of QoS 1 and 2 that may be unacknowledged at once, at most: they are as many as keep the
            line busy, and as the broker takes.
        max_queued: messages that may wait to be acknowledged, sent or not.
        max_packet_size: bytes of the largest packet to accept, from 16 to 268,435,460. MQTT 5 tells the broker, as
            Maximum Packet Size (section 3.1.2.11.4). A larger message that arrives all the same, as MQTT 3.1.1 cannot
            prevent, is not delivered but reported as :class:`MessageRejected`.
        receive_maximum: messages of QoS 1 and 2 that the broker may send before the first of them is acknowledged,
            from 1 to 65,535 (MQTT 5 only; Receive Maximum, section 3.1.2.11.3); None leaves it at 65,535.
        manual_ack: messages of QoS 1 and 2 are acknowledged by :meth:`Message.acknowledge`, and not by their arrival.
        on_message: gets messages that no handler of a subscription takes.
        on_event: gets every :class:`Event`.

    Raises:
        ConfigurationError: an argument is not what it should be.
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
        options = SessionOptions(max_inflight, max_queued, bool(manual_ack), on_message)
        keeper = open_keeper(tokens, store, renewal, key=client_id)
        provider = CredentialsProvider(keeper, self._settings.profile, client_id)
        self._core = ClientCore(
            self._settings, provider, options, on_event, acquire_network_thread, release_network_thread
        )

    @classmethod
    def from_config(cls, path: str | PathLike[str], **arguments: Any) -> TokenClient:
        """A client as a TOML file describes it; the ``mqtt-token`` command reads the same file.

        Args:
            path: the file.
            arguments: those of the constructor that the file does not give, such as ``on_event``, or that are to count
                instead of what it gives.

        Raises:
            ConfigurationError: the file cannot be read, or an entry or argument is wrong.
        """
        from .config import read_config

        config = read_config(path)
        for name in ("broker", "client_id"):
            if name not in config.client:
                raise ConfigurationError(f"{config.path}: {name}: this entry is needed")
        broker, client = config.client["broker"], {k: v for k, v in config.client.items() if k != "broker"}
        return cls(broker, config.source, **{"store": config.store, **client, **arguments})

    # Connecting

    def connect(self, timeout: float = 30.0) -> bool:
        """Connect, and stay connected until :meth:`disconnect`.

        Args:
            timeout: seconds to wait for the first connection; 0 does not wait.

        Returns:
            Whether it is connected by now. If not, it goes on trying; ``on_event`` tells why.

        Raises:
            MqttTokenError: what retrying cannot mend: refused credentials, a certificate that is not trusted, a token
                that the broker refuses twice. The client is disconnected then. With ``timeout=0`` it is reported as an
                event and retried slowly instead.
            ClientClosed: called in a handler while ``disconnect()`` has not come to its end.
        """
        core = self._core
        while (closing := core.start()) is not None:
            if current.runtime is not None:
                raise ClientClosed("connect: disconnect() is not done yet, and a handler cannot wait for it")
            closing.wait()
        if timeout and current.runtime is None:
            core.first_result.wait(timeout)
            error = core.fatal_error
            if error is not None:
                self.disconnect(timeout=0)
                raise error
        return core.connected

    def disconnect(self, timeout: float = 5.0) -> None:
        """Give the outbox so many seconds, then DISCONNECT; the broker drops the will.

        What is not acknowledged by then fails its ``Delivery``, and :class:`MessagesAbandoned` tells how many.

        Raises:
            ConfigurationError: ``timeout`` is no number of seconds.
        """
        if not isinstance(timeout, int | float) or not timeout >= 0:
            raise ConfigurationError(f"disconnect: timeout is seconds, 0 or more, not {timeout!r}")
        closed = self._core.close(timeout)
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
        payload: bytes | bytearray | str,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> Delivery:
        """Send a message; returns at once, also while the client is offline or rotating.

        Messages go out in the order in which they were given, each QoS among them.

        Args:
            topic: where to.
            payload: what; a string is sent as UTF-8.
            qos: 0, 1 or 2.
            retain: whether the broker keeps it for later subscribers.
            properties: those of MQTT 5, by their names in snake_case, such as ``{"message_expiry_interval": 60}``. That
                counts from now on: a message that waits longer is not sent, and reported as :class:`MessageExpired`.

        Returns:
            What becomes of it.

        Raises:
            OutboxFull: ``max_queued`` messages wait already; nothing was taken.
            ClientClosed: the client has been disconnected.
            ConfigurationError: an argument is not what it should be.
        """
        encoded = encode_topic(topic) if isinstance(topic, str) else check_topic(topic, "publish")
        if not isinstance(payload, bytes) or len(payload) > LARGEST_PAYLOAD:
            payload = check_payload(payload)
        check_qos(qos, "publish")
        packed = b""
        if properties:
            if self._settings.protocol != 5:
                raise ConfigurationError("publish: properties need protocol=5")
            packed = pack_properties(properties)
        if properties and (seconds := properties.get(_EXPIRY)):
            packed = pack_properties({_EXPIRY: seconds, **properties})  # first, as it is replaced later
            message: Outgoing = ExpiringMessage(encoded, payload, qos, bool(retain), packed, monotonic() + seconds)
        else:
            message = Outgoing(encoded, payload, qos, bool(retain), packed)
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
        """Receive the messages of a topic filter, now and after every reconnect.

        What follows ``qos`` needs MQTT 5 (section 3.8).

        Args:
            topic_filter: which topics; ``+`` and ``#`` are wildcards, ``$share/group/filter`` shares them.
            handler: gets each :class:`Message`; without one, ``on_message`` does, and without that nobody, as
                :class:`MessageUnhandled` tells. Its exceptions are logged and
                reported as :class:`HandlerFailed`.
            qos: the highest QoS to receive them with.
            no_local: leave out what this client publishes itself; not for a shared subscription.
            retain_as_published: leave the retain flag of each message as its publisher set it.
            retain_handling: whether retained messages come when the subscription is made: 0 for yes, 1 only if the
                broker does not have it already, 2 for no.
            properties: by their names in snake_case: ``{"subscription_identifier": 7}``, which each message of this
                subscription then carries in its own, and ``user_property``.

        Raises:
            ConfigurationError: an argument is not what it should be. A filter that the broker refuses, or does not
                take as its CONNACK told, is reported as :class:`SubscriptionRefused`.
        """
        check_filter(topic_filter, "subscribe")
        check_qos(qos, "subscribe")
        if handler is not None and not callable(handler):
            raise ConfigurationError(f"subscribe: handler is a function, not {type(handler).__name__}")
        if not isinstance(retain_handling, int) or not 0 <= retain_handling <= 2:
            raise ConfigurationError(f"subscribe: retain_handling is 0, 1 or 2, not {retain_handling!r}")
        options = qos | bool(no_local) << 2 | bool(retain_as_published) << 3 | retain_handling << 4
        if self._settings.protocol != 5 and (options != qos or properties):
            raise ConfigurationError(
                "subscribe: no_local, retain_as_published, retain_handling and properties need protocol=5"
            )
        if no_local and topic_filter.startswith("$share/"):  # [MQTT-3.8.3-4]
            raise ConfigurationError("subscribe: no_local does not go with a shared subscription")
        packed = pack_properties(properties, SUBSCRIBE)
        identified = properties is not None and "subscription_identifier" in properties
        self._core.session.subscribe(topic_filter, handler, options, packed, identified=identified)

    def unsubscribe(self, topic_filter: str) -> None:
        """Receive the messages of a topic filter no longer."""
        check_filter(topic_filter, "unsubscribe")
        self._core.session.unsubscribe(topic_filter)

    # The token

    def rotate(self) -> None:
        """Renew the token and move the connection onto it, now. Returns once the token is renewed;
        :class:`Rotated` tells when the connection is on it. In a handler it does not wait.

        Raises:
            TokenError: the token could not be renewed; the current one and the connection stay.
        """
        self._core.renew()

    @property
    def token_expires_in(self) -> float | None:
        """Seconds that the current token lives, or None while there is none."""
        token = self._core.token
        return None if token is None else token.expires_in

    @property
    def state(self) -> str:
        """``connected``, ``rotating``, ``connecting``, ``waiting`` (for the next try) or ``closed``."""
        return self._core.state

    @property
    def stats(self) -> Stats:
        """What the client has done so far."""
        return self._core.stats

    def __repr__(self) -> str:
        return f"TokenClient({str(self._settings.brokers[0])!r}, client_id={self._settings.client_id!r}, {self.state})"
