"""TokenClient: the blocking interface. It checks arguments and waits; everything else is the core's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from . import arguments, events
from .client_base import ClientBase
from .clock import monotonic
from .errors import ClientClosed
from .mqtt.runtime.base import current
from .mqtt.runtime.thread import acquire_network_thread, release_network_thread
from .mqtt.session.dispatch import Handler
from .oneshot import check_seconds, check_timeout
from .tokens.credentials import CredentialsProvider


class TokenClient(ClientBase):
    """An MQTT client whose password is a short-lived token.

    Any thread may use it. Handlers and ``on_event`` are called on the network thread, which all clients of a process
    share: they must not block. The arguments are explained at :meth:`ClientBase.__init__`.
    """

    _handlers_add_up = True

    def _open(
        self,
        provider: CredentialsProvider,
        options: arguments.SessionOptions,
        on_event: Callable[[events.Event], object] | None,
    ) -> None:
        from .core import ClientCore  # a third of the library; not in connect(), which holds a lock

        self._connects_later = False  # once disconnect() is done, for which connect() did not wait
        self._core = ClientCore(
            self._settings, provider, options, on_event, acquire_network_thread, release_network_thread
        )

    # Connecting

    def connect(self, timeout: float | None = 30.0) -> bool:
        """Connect, and stay connected until :meth:`disconnect`.

        Args:
            timeout: seconds to wait for the first connection, and before it for the end of a ``disconnect()`` of
                another thread; 0 does not wait, None waits without a limit.

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
        if core.starting.interrupted:  # in a signal handler: the call that it interrupts goes on afterwards
            core.start()
            return False
        core.awaited = timeout > 0 and not current.in_handler
        ends = monotonic() + timeout
        try:
            while (closing := core.start()) is not None:
                if current.in_handler:
                    raise ClientClosed("connect: disconnect() is not done yet, and a handler cannot wait for it")
                if not closing.wait(ends - monotonic()):
                    self._connects_later = True
                    closing.add_callback(self._connect_now)
                    return False
            if core.awaited:
                core.first_result.wait(ends - monotonic())
                if (error := core.fatal_error) is not None:
                    self.disconnect(timeout=0)
                    raise error
        finally:
            core.awaited = False
        return core.connected

    def _connect_now(self) -> None:
        if self._connects_later:
            self._connects_later = False
            self._core.start()

    def disconnect(self, timeout: float = 5.0) -> None:
        """Send the queued messages for at most ``timeout`` seconds, then DISCONNECT; the broker drops the will.

        The ``Delivery`` of a message that is not acknowledged by then fails; :class:`MessagesAbandoned` says how many.
        In a handler it does not wait, nor in a signal handler that interrupts the beginning of ``connect()``, or
        ``publish()`` of a client with a journal.

        Raises:
            ConfigurationError: ``timeout`` is not a valid number of seconds.
        """
        seconds = check_seconds(timeout, "disconnect")
        self._connects_later = False
        closed = self._core.close(seconds)
        if not current.in_handler:
            closed.wait()

    def __enter__(self) -> TokenClient:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()

    # Messages

    publish = ClientBase._publish  # noqa: SLF001 - of this class

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
                as :class:`HandlerFailed`. A filter may have several: each call adds its handler, the same one once. If
                several filters match a message, it is called once, or in MQTT 3.1.1 once for each copy that the broker
                sends.
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
        arguments.check_function("subscribe: handler", handler)
        subscribe = self._subscription(topic_filter, qos, no_local, retain_as_published, retain_handling, properties)
        subscribe(handler)

    # The token

    def rotate(self) -> None:
        """Renew the token now, and return when that is done; then the connection is moved onto it, which
        :class:`Rotated` reports. In a handler it does not wait.

        Raises:
            TokenError: the token could not be renewed; the current one and the connection stay.
        """
        self._core.renew()
