"""AsyncTokenClient: the asyncio interface. It waits on the event loop; everything else is the core's."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from .. import arguments, events
from ..client_base import ClientBase
from ..core import ClientCore
from ..mqtt.codec.checks import Payload
from ..mqtt.lifecycle.settings import check_range
from ..mqtt.runtime.thread import acquire_network_thread, release_network_thread
from ..mqtt.session.acks import ManualAcks
from ..mqtt.session.dispatch import Handler
from ..oneshot import check_seconds, check_timeout
from ..tokens.credentials import CredentialsProvider
from ..tokens.on_loop import in_thread
from .acks import AckBatch
from .closings import Closings
from .event_stream import Events, EventStream
from .inboxes import Inboxes
from .messages import Messages
from .own_loop import OwnLoop
from .reports import Reports
from .room import Room

_LAST_FETCH = 5.0  # seconds for a request that uses a refresh token, after the client is disconnected


class AsyncTokenClient(ClientBase):
    """An MQTT client for asyncio whose password is a short-lived token.

    Its methods are for the event loop on which it is connected. Handlers and ``on_event`` are called there, and may be
    slow or even block without harm to the connection: that works on the network thread, which all clients of a process
    share, as those of :class:`TokenClient` do.

    Messages of QoS 1 and 2 are acknowledged when they are processed: when the handler has returned, or when the loop
    over :meth:`messages` asks for the next one. ``receive_maximum``, which is 1,000 if it is not given, limits how many
    the broker sends before that. With MQTT 3.1.1 the broker has its own limit.

    The arguments are explained at :meth:`ClientBase.__init__`, with these differences: ``tokens`` may have a coroutine
    function ``fetch``, which runs on the event loop; ``on_message`` may be a coroutine function; with ``manual_ack``
    nothing but :meth:`Message.acknowledge` acknowledges a message.
    """

    _default_receive_maximum = 1000

    def _open(
        self,
        provider: CredentialsProvider,
        options: arguments.SessionOptions,
        on_event: Callable[[events.Event], object] | None,
    ) -> None:
        arguments.check_function("on_event", on_event)
        self._own_loop = OwnLoop()
        self._provider = provider
        self._closings = Closings(self._own_loop)
        self._events = Events(self._own_loop, on_event)
        acks = AckBatch(self._own_loop, lambda processed: self._core.session.acknowledge(processed))
        reports = Reports(lambda event: self._core.report(event))
        self._inboxes = Inboxes(self._own_loop, acks, reports, super().unsubscribe, options.on_message)
        changed = {"manual_acks": options.manual_acks or ManualAcks(by_handlers=True), "on_message": self._inboxes.put}
        options = arguments.SessionOptions(**(vars(options) | changed))
        self._core = ClientCore(
            self._settings, provider, options, self._events.report, acquire_network_thread, release_network_thread
        )
        when_room = self._core.session.queue.when_room  # where memory is full of QoS 0, a journal may have room
        self._rooms = [Room(functools.partial(when_room, qos=qos)) for qos in (0, 1)]

    # Connecting

    async def connect(self, timeout: float | None = 30.0) -> bool:
        """Connect, and stay connected until :meth:`disconnect`.

        If it is cancelled, the client is disconnected before the cancellation goes on; while it waits for a
        ``disconnect()``, nothing else happens.

        Args:
            timeout: seconds to wait for the first connection, and before it for the end of a ``disconnect()`` of
                another task; 0 does not wait, None waits without a limit.

        Returns:
            Whether it is connected by now. If not, it goes on trying; events report the reasons.

        Raises:
            MqttTokenError: an error that retrying cannot fix: rejected credentials, a certificate that is not trusted,
                a second new token that the broker rejects. The client is then disconnected. With ``timeout=0`` this is
                an event instead, and attempts go on, rarely.
            ClientClosed: called in a child that was forked since.
            ConfigurationError: ``timeout`` is not a valid number of seconds, or the client works on another event loop.
        """
        timeout = check_timeout(timeout, "connect")
        core, loop = self._core, self._own_loop.bind()
        ends = None if timeout == math.inf else loop.time() + timeout
        core.awaited = timeout > 0
        try:
            if self._closings.interrupted:
                await self.disconnect(timeout=0)
            if not await self._closings.wait(ends):
                self._closings.then(self._begin)
                return False
            self._begin()
            if timeout:
                await self._first_result(ends)
        finally:
            core.awaited = False
        if timeout and (error := core.fatal_error) is not None:
            await self.disconnect(timeout=0)
            raise error
        return core.connected

    def _begin(self) -> None:
        self._provider.use_loop(self._own_loop.bind())
        closing = self._core.start()
        assert closing is None
        self._inboxes.connected()

    async def _first_result(self, ends: float | None) -> None:
        try:
            async with asyncio.timeout_at(ends):
                await self._core.first_result
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            await self.disconnect(timeout=0)
            raise

    async def disconnect(self, timeout: float = 5.0) -> None:
        """Send the queued messages for at most ``timeout`` seconds, then DISCONNECT; the broker drops the will.

        The ``Delivery`` of a message that is not acknowledged by then fails; :class:`MessagesAbandoned` says how many.
        Handlers that run are cancelled. Messages that are not processed are not acknowledged: the broker sends them
        again to the next connection of this client identifier, if its session does not expire before that.

        If it is cancelled, it does not wait for the queued messages any longer, and is cancelled when it is done.

        Raises:
            ConfigurationError: ``timeout`` is not a valid number of seconds.
        """
        timeout = check_seconds(timeout, "disconnect")
        handlers = self._inboxes.stop()
        await self._closings.run(
            lambda hurried: self._close(timeout, handlers, hurried), hurry=lambda: self._core.close(0)
        )

    async def _close(self, timeout: float, handlers: list[asyncio.Task[None]], hurried: asyncio.Future[None]) -> None:
        await self._core.close(timeout)
        await self._closings.ended(handlers, hurried)
        await self._provider.leave_loop(_LAST_FETCH)
        self._inboxes.clear()
        self._events.end()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    # Messages

    publish_nowait = ClientBase._publish  # noqa: SLF001 - of this class

    async def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Publish a message, and return when the broker has acknowledged it; at QoS 0, when it is written.

        If ``max_queued`` messages wait already, it waits until there is room for this one. It also waits while the
        client is offline; use ``asyncio.timeout`` to limit that. If it is cancelled while it waits for room, the
        message is not sent. If it is cancelled later, the message stays in the outbox and is sent.

        Args:
            topic: of the message.
            payload: of the message; a string is sent as UTF-8, a number as its text, None as an empty payload.
            qos: 0, 1 or 2.
            retain: whether the broker keeps it for later subscribers.
            properties: of MQTT 5, by their names in snake_case, such as ``{"message_expiry_interval": 60}``.

        Raises:
            DeliveryFailed: the broker rejected it, it expired, or the client was disconnected before it was
                acknowledged.
            ClientClosed: the client is disconnected.
            ConfigurationError: an argument is wrong.
        """
        publish = functools.partial(self.publish_nowait, topic, payload, qos=qos, retain=retain, properties=properties)
        await (await self._rooms[bool(qos) and self._core.session.journal is not None].publish(publish))

    def messages(
        self,
        topic_filter: str,
        *,
        qos: int = 1,
        queue: int = 1000,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        properties: Mapping[str, Any] | None = None,
    ) -> Messages:
        """Receive the messages of a topic filter in a loop::

            async with client.messages("pump/17/command/#", qos=1) as messages:
                async for message in messages:
                    ...

        See :class:`Messages` for when messages are acknowledged, and for what happens when the block is left.

        Args:
            topic_filter: with the wildcards ``+`` and ``#``; ``$share/group/filter`` is a shared subscription.
            qos: the highest QoS to receive messages with.
            queue: messages of QoS 0 that may wait; of more, the oldest are dropped and :class:`MessagesDropped` reports
                how many. Those of QoS 1 and 2 are never dropped: ``receive_maximum`` limits them.
            no_local, retain_as_published, retain_handling, properties: see :meth:`subscribe`.

        Raises:
            ConfigurationError: an argument is wrong, or, when the block is entered, the filter is in use already.
        """
        check_range("messages: queue", queue, 1, 2**31)
        subscribe = self._subscription(topic_filter, qos, no_local, retain_as_published, retain_handling, properties)
        return Messages(self._inboxes, topic_filter, queue, lambda inbox: subscribe(inbox.put))

    def subscribe(
        self,
        topic_filter: str,
        handler: Handler | None = None,
        *,
        qos: int = 1,
        queue: int = 1000,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Receive the messages of a topic filter, now and after every reconnect. All arguments after ``queue`` need
        MQTT 5 (section 3.8).

        Args:
            topic_filter: with the wildcards ``+`` and ``#``; ``$share/group/filter`` is a shared subscription.
            handler: a function or coroutine function that gets each :class:`Message`, one after the other; without one,
                ``on_message`` does. What it raises is logged and reported as :class:`HandlerFailed`.
            qos: the highest QoS to receive messages with.
            queue: see :meth:`messages`.
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
        check_range("subscribe: queue", queue, 1, 2**31)
        subscribe = self._subscription(topic_filter, qos, no_local, retain_as_published, retain_handling, properties)
        self._own_loop.bind()
        if handler is None:
            self._inboxes.remove(topic_filter)
            subscribe(None)
        else:
            subscribe(self._inboxes.handle(topic_filter, handler, queue).put)

    def unsubscribe(self, topic_filter: str) -> None:
        """Stop receiving the messages of a topic filter. Those that wait are acknowledged and dropped."""
        super().unsubscribe(topic_filter)
        self._own_loop.bind()
        self._inboxes.remove(topic_filter)

    def events(self) -> EventStream:
        """Return an asynchronous iterator of every :class:`Event` from now on. It ends when the client is
        disconnected.
        """
        return self._events.stream()

    # The token

    async def rotate(self) -> None:
        """Renew the token now, and return when that is done; then the connection is moved onto it, which
        :class:`Rotated` reports. If it is cancelled, the renewal goes on.

        Raises:
            TokenError: the token could not be renewed; the current one and the connection stay.
        """
        self._provider.use_loop(self._own_loop.bind())
        await in_thread(self._core.renew)
