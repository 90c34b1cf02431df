"""An AsyncTokenClient at a scripted broker, which worker threads play, on an event loop in debug mode."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from mqtt_token_client import AsyncTokenClient, Event
from tests.unit.device import QUICK, Source, password
from tests.unit.packets import CONNECT, DISCONNECT, PINGREQ, PINGRESP_PACKET
from tests.unit.scripted_broker import PATIENCE, Peer, ScriptedBroker
from tests.unit.stepped_time import wait_until

_Result = TypeVar("_Result")
_Event = TypeVar("_Event", bound=Event)


def run(main: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run a coroutine function on a loop of its own. It must leave no task, no thread of the library, and nothing that
    the loop reports.
    """

    async def checked() -> _Result:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        async with asyncio.timeout(3 * PATIENCE):
            result = await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set()
        assert reported == []
        return result

    result = asyncio.run(checked(), debug=True)
    assert wait_until(lambda: not threads(), PATIENCE), threads()
    return result


def threads() -> list[str]:
    """The library's threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("mqtt-token", "token-renewal"))]


class AsyncDevice:
    """A client, its source, its broker, and its events.

    Args:
        options: of the client.
    """

    def __init__(self, protocol: int = 5, **options: Any) -> None:
        self.broker = ScriptedBroker()
        self.source = Source()
        self.events: list[Event] = []
        self._news = asyncio.Event()
        options = {"tokens": self.source, "client_id": "device", "backoff": QUICK, "on_event": self._report, **options}
        self.client = AsyncTokenClient(self.broker.url, protocol=protocol, **options)

    def _report(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def event(self, kind: type[_Event]) -> _Event:
        """Wait for the first event of a kind."""
        while True:
            for event in self.events:
                if isinstance(event, kind):
                    return event
            self._news.clear()
            async with asyncio.timeout(PATIENCE):
                await self._news.wait()

    async def answer(self, code: int = 0, *, session_present: bool = False) -> Peer:
        """Accept a connection and answer CONNECT."""
        peer = await asyncio.to_thread(self.broker.accept)
        await asyncio.to_thread(peer.expect, CONNECT)
        peer.connack(code, session_present=session_present)
        return peer

    async def start(self, *, session_present: bool = False) -> Peer:
        """Connect; return the broker's side."""
        connecting = asyncio.create_task(self.client.connect())
        peer = await self.answer(session_present=session_present)
        assert await connecting
        return peer

    async def hand_over(self, first: Peer) -> Peer:
        """Accept the second connection of a handover, and close the first one, which was in use just before."""
        second = await asyncio.to_thread(self.broker.accept)
        for _ in range(2):
            await asyncio.to_thread(first.expect, PINGREQ)
            first.send(PINGRESP_PACKET)
        connect = await asyncio.to_thread(second.expect, CONNECT)
        assert connect.password == password(self.source.requests)
        second.connack(session_present=True)
        first.close()
        return second

    async def end(self, peer: Peer) -> None:
        """Disconnect, as a broker does that closes the connection after DISCONNECT."""
        await ending(peer, self.client.disconnect())


async def ending(peer: Peer, disconnecting: Awaitable[_Result]) -> _Result:
    """Await something that disconnects a client, and close the connection after DISCONNECT."""
    task = asyncio.ensure_future(disconnecting)
    await asyncio.to_thread(close_after_disconnect, peer)
    return await task


def close_after_disconnect(peer: Peer) -> None:
    while (packet := peer.packet()) is not None and packet.kind != DISCONNECT:
        pass
    peer.close()


@contextlib.asynccontextmanager
async def connected(protocol: int = 5, **options: Any) -> AsyncIterator[tuple[AsyncDevice, Peer]]:
    """A device that is connected, and the broker's side. It is disconnected at the end if it is still connected."""
    device = AsyncDevice(protocol, **options)
    with contextlib.closing(device.broker):
        try:
            peer = await device.start()
            yield device, peer
            if device.client.state != "closed":
                await device.end(peer)
        finally:  # after a failure, which is reported instead of those of the tests after it
            device.broker.close()
            await device.client.disconnect(timeout=0)


def waiting(device: AsyncDevice, topic_filter: str) -> int:
    """How many messages wait to be processed."""
    inbox = device.client._inboxes._inboxes[topic_filter]
    return len(inbox._others) + len(inbox._at_qos_0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true that happens on this loop or another thread."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)
