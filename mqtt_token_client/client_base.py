"""ClientBase: what the blocking and the asyncio interface have in common."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Self

from . import arguments, events
from .backoff import Backoff
from .forking import works_in_one_process
from .mqtt.codec.checks import LARGEST_PAYLOAD, Payload, check_payload, check_qos
from .mqtt.codec.packets import MAX_PACKET_SIZE
from .mqtt.codec.topics import check_filter, check_topic, encode_topic
from .mqtt.lifecycle.settings import open_settings
from .mqtt.session.delivery import Delivery
from .mqtt.session.dispatch import Handler
from .mqtt.session.journal import UnopenedJournal
from .mqtt.session.reports import Stats
from .profiles import PlacingFunction, Profile
from .sources import AsyncTokenSource, TokenSource
from .stores import TokenStore
from .tokens.credentials import CredentialsProvider, open_keeper
from .tokens.keeper import RenewalPolicy, TokenKeeper
from .value import hidden

if TYPE_CHECKING:
    from .core import ClientCore
    from .mqtt.codec.will import Will
    from .tls_files import TlsFiles


class ClientBase(arguments.NoPahoNames, ABC):
    """A client without the methods that wait: each interface has its own of these."""

    _core: ClientCore
    _default_receive_maximum: ClassVar[int | None] = None
    _handlers_add_up: ClassVar[bool] = False  # those of several calls of ``subscribe`` with one filter

    __reduce__ = works_in_one_process

    def __init__(
        self,
        broker: str | Sequence[str],
        tokens: TokenSource | AsyncTokenSource | TokenKeeper,
        *,
        client_id: str,
        store: TokenStore | None = None,
        profile: str | Profile | PlacingFunction = "password",
        protocol: int = 5,
        keepalive: int = 45,
        session_expiry: int = 3600,
        clean_start: bool = False,
        will: Will | None = None,
        tls: ssl.SSLContext | TlsFiles | None = None,
        proxy: str | None = None,
        allow_insecure: bool = False,
        renewal: RenewalPolicy | None = None,
        backoff: Backoff | None = None,
        max_inflight: int = 10_000,
        max_queued: int = 10_000,
        max_packet_size: int = MAX_PACKET_SIZE,
        receive_maximum: int | None = None,
        manual_ack: bool = False,
        journal: UnopenedJournal | None = None,
        on_message: Handler | None = None,
        on_event: Callable[[events.Event], object] | None = None,
    ) -> None:
        """Check the arguments; nothing connects yet.

        Args:
            broker: a URL, or several, of which one that failed is avoided for a minute: ``mqtts://host[:8883]``, or
                ``wss://host[:443][/path]`` (needs the ``websocket`` extra); ``mqtt://`` and ``ws://`` for loopback
                only, unless ``allow_insecure``.
            tokens: where tokens come from: a :class:`TokenSource`, or a :class:`TokenKeeper` to share with others.
            client_id: the MQTT client identifier. One client at a time may use it.
            store: keeps the token across restarts; without one it is kept in memory.
            profile: how the broker expects the token: ``"password"``, ``"rabbitmq"`` and so on, a :class:`Profile`, or
                a function of the token and the client id that returns :class:`Credentials`.
            protocol: 5, or 4 for MQTT 3.1.1.
            keepalive: seconds of silence after which the connection is probed; 0 never does.
            session_expiry: seconds that the broker keeps the session while the client is away. 0 keeps none: then each
                rotation begins a new session, and messages that arrive in that moment are lost; for a client that does
                not come back, prefer 60 in MQTT 5. In MQTT 3.1.1 any other value means a persistent session, for as
                long as the broker keeps it.
            clean_start: have the broker drop an earlier session of this ``client_id`` when this client connects for the
                first time; every later connection resumes the session. MQTT 5 only.
            will: published by the broker if this client is lost.
            tls: :class:`TlsFiles`, which may be renewed at any time, or an ``ssl.SSLContext``; by default the system's
                certificates. TLS 1.2 or newer.
            proxy: the URL of an HTTP or SOCKS proxy to the broker.
            allow_insecure: allow ``mqtt://`` to other machines, and a TLS context that does not verify.
            renewal: when tokens are renewed.
            backoff: the delays between failed attempts to connect.
            max_inflight: messages of QoS 1 and 2 that may be unacknowledged at once, at most; fewer if the broker
                accepts fewer, or if fewer keep the network busy.
            max_queued: messages that may wait to be acknowledged, sent or not.
            max_packet_size: bytes of the largest packet to accept, from 16 to 268,435,460. With MQTT 5 the broker knows
                it as Maximum Packet Size (section 3.1.2.11.4). A larger message, which MQTT 3.1.1 cannot prevent, is
                not delivered but reported as :class:`MessageRejected`.
            receive_maximum: messages of QoS 1 and 2 that the broker may send before the first of them is acknowledged,
                from 1 to 65,535 (MQTT 5 only; Receive Maximum, section 3.1.2.11.3); None leaves it at 65,535.
            manual_ack: messages of QoS 1 and 2 are acknowledged by :meth:`Message.acknowledge`, not when they arrive.
            journal: keeps messages and the state of the session on disk, so that they outlive this process and a power
                cut: :func:`open_journal`. Without one they are kept in memory.
            on_message: gets the messages that no subscription has a handler for.
            on_event: gets every :class:`Event`.

        Raises:
            ConfigurationError: an argument is wrong.
            JournalLocked: another process uses the journal.
        """
        proxy = hidden(proxy)  # it may hold a password
        if receive_maximum is None and protocol == 5:
            receive_maximum = self._default_receive_maximum
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
        options = arguments.SessionOptions(
            max_inflight, max_queued, arguments.manual_acks(manual_ack), on_message, journal, self._publish
        )
        keeper = open_keeper(tokens, store, renewal, key=client_id)
        provider = CredentialsProvider(keeper, self._settings.profile, client_id, shared=keeper is tokens)
        self._open(provider, options, on_event)

    @abstractmethod
    def _open(
        self,
        provider: CredentialsProvider,
        options: arguments.SessionOptions,
        on_event: Callable[[events.Event], object] | None,
    ) -> None:
        """Make the core."""

    @classmethod
    def from_config(cls, path: str | PathLike[str], **overrides: Any) -> Self:
        """Make a client from a TOML file, the one that the ``mqtt-token`` command reads.

        Args:
            path: the file.
            overrides: arguments of the constructor that are added to those in the file, or replace them.

        Raises:
            ConfigurationError: the file cannot be read, or an entry or argument is wrong.
        """
        return cls(**arguments.from_file(path, overrides))

    def _publish(
        self,
        topic: str,
        payload: Payload,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
        durable: bool = False,
        replace: bool = False,
    ) -> Delivery:
        """Queue a message and return at once, also while offline or rotating. Those of one QoS are sent in this order.

        Args:
            topic: of the message.
            payload: of the message; a string is sent as UTF-8, a number as its text, None as an empty payload.
            qos: 0, 1 or 2.
            retain: whether the broker keeps it for later subscribers.
            properties: of MQTT 5, by their names in snake_case, such as ``{"message_expiry_interval": 60}``: a message
                that waits longer than that is not sent, and reported as :class:`MessageExpired`.
            durable: have the journal write the message without delay, and at QoS 0 as well; ``Delivery.stored`` says
                when it has.
            replace: drop an older message of this topic that was published with ``replace`` and has not been sent.
                Needs a journal, too.

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
        if type(qos) is not int or not 0 <= qos <= 2:  # a call would take longer
            check_qos(qos, "publish")
        queue = self._core.session.queue
        new_message = queue.message_type  # Python 3.11 calls a class faster that was looked up before
        message = new_message(encoded, payload, qos, retain is not False and bool(retain), b"")
        if properties:
            message = arguments.with_properties(message, properties, self._settings.protocol)
        queue.put(message, durable, replace)
        return message

    def _subscription(
        self,
        topic_filter: str,
        qos: int,
        no_local: bool,
        retain_as_published: bool,
        retain_handling: int,
        properties: Mapping[str, Any] | None,
    ) -> Callable[[Handler | None], None]:
        """Check the arguments of ``subscribe``; return the function that subscribes with a handler."""
        check_filter(topic_filter, "subscribe")
        protocol, flags = self._settings.protocol, (no_local, retain_as_published)
        options = arguments.subscription_options(topic_filter, qos, *flags, retain_handling, protocol)
        packed = arguments.subscription_properties(properties, protocol)
        identified = properties is not None and "subscription_identifier" in properties

        def subscribe(handler: Handler | None) -> None:
            how = {"identified": identified, "beside": self._handlers_add_up}
            self._core.session.change(lambda wanted: wanted.add(topic_filter, handler, options, packed, **how))

        return subscribe

    def unsubscribe(self, topic_filter: str) -> None:
        """Stop receiving the messages of a topic filter."""
        check_filter(topic_filter, "unsubscribe")
        self._core.session.change(lambda wanted: wanted.remove(topic_filter))

    @property
    def token_expires_in(self) -> float | None:
        """Seconds for which the current token is valid; None while there is no token."""
        token = self._core.provider.token
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
        if "_core" not in vars(self):  # the constructor raised, and somebody looks at its frames
            return f"{type(self).__name__}()"
        name, broker = type(self).__name__, str(self._settings.brokers[0])
        return f"{name}({broker!r}, client_id={self._settings.client_id!r}, {self.state})"
