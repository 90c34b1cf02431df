"""Messages that arrive while the program says who processes them are processed in the order of arrival."""

from __future__ import annotations

import asyncio

import pytest

from mqtt_token_client import Event, Message, MessagesDropped
from mqtt_token_client.aio import inbox as inbox_module
from mqtt_token_client.aio.acks import AckBatch
from mqtt_token_client.aio.inbox import Inbox
from mqtt_token_client.aio.inboxes import Inboxes
from mqtt_token_client.aio.messages import Messages
from mqtt_token_client.aio.own_loop import OwnLoop
from mqtt_token_client.aio.reports import Reports
from tests.unit.async_device import connected, run, until
from tests.unit.scripted_broker import PATIENCE
from tests.unit.stepped_time import wait_until
from tests.unit.test_async_messages import publish


class Arrivals:
    """The inboxes of a client whose network thread is the test: ``unclaimed`` and ``claimed`` have messages arrive,
    before and after it has made the subscription.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        own_loop = OwnLoop()
        own_loop.bind()
        acks = AckBatch(own_loop, lambda _acks: None)
        self.inboxes = Inboxes(own_loop, acks, Reports(self.events.append), lambda _filter: None, None)
        self.inboxes.connected()
        self._inbox: Inbox | None = None

    def messages(self, limit: int = 1000) -> Messages:
        return Messages(self.inboxes, "t", limit, self._subscribe)

    def _subscribe(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def unclaimed(self, *numbers: int, qos: int = 1) -> None:
        for number in numbers:
            self.inboxes.put(_message(number, qos))

    def claimed(self, *numbers: int, qos: int = 1) -> None:
        assert self._inbox is not None
        for number in numbers:
            self._inbox.put(_message(number, qos))


def _message(number: int, qos: int) -> Message:
    return Message("t", b"%d" % number, qos, retain=False, duplicate=False, packet_id=number)


async def received(messages: Messages, count: int) -> list[int]:
    stream = aiter(messages)
    return [int((await anext(stream)).payload) for _ in range(count)]


@pytest.mark.parametrize("qos", [0, 1])
class TestABacklogThatArrives:
    def test_while_the_block_is_entered_precedes_what_comes_through_the_subscription(self, qos: int) -> None:
        async def main() -> None:
            arrivals = Arrivals()
            arrivals.unclaimed(1, 2, qos=qos)
            async with arrivals.messages() as messages:
                arrivals.unclaimed(3, qos=qos)
                arrivals.claimed(4, qos=qos)
                assert await received(messages, 4) == [1, 2, 3, 4]

        run(main)

    def test_is_sorted_in_after_the_loop_has_looked_at_what_waits(self, qos: int) -> None:
        async def main() -> None:
            arrivals = Arrivals()
            arrivals.unclaimed(1, qos=qos)
            await asyncio.sleep(0.01)  # it waits for a block by now
            arrivals.unclaimed(2, qos=qos)
            async with arrivals.messages() as messages:
                arrivals.claimed(3, qos=qos)
                await asyncio.sleep(0.01)
                assert await received(messages, 3) == [1, 2, 3]

        run(main)

    def test_is_processed_by_a_handler_in_its_order(self, qos: int) -> None:
        async def main() -> None:
            arrivals, handled = Arrivals(), list[int]()
            arrivals.unclaimed(1, 2, qos=qos)
            inbox = arrivals.inboxes.handle("t", lambda message: handled.append(int(message.payload)), 1000)
            arrivals.unclaimed(3, qos=qos)
            inbox.put(_message(4, qos))
            await until(lambda: len(handled) == 4)
            assert handled == [1, 2, 3, 4]

        run(main)


@pytest.mark.parametrize("claimed", [[6], [6, 7, 8]])
def test_of_a_backlog_at_qos_0_the_newest_messages_are_kept(
    claimed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "_REPORT_AFTER", 0.01)

    async def main() -> None:
        arrivals = Arrivals()
        arrivals.unclaimed(1, 2, 3, 4, 5, qos=0)
        async with arrivals.messages(limit=3) as messages:
            arrivals.claimed(*claimed, qos=0)
            assert await received(messages, 3) == [1, 2, 3, 4, 5, *claimed][-3:]
            await until(lambda: arrivals.events == [MessagesDropped("t", 2 + len(claimed))])

    run(main)


def test_a_backlog_that_arrives_while_the_event_loop_is_blocked_is_processed_in_order() -> None:
    async def main() -> None:
        async with connected() as (device, peer):

            def arrived(number: int) -> bool:
                return wait_until(lambda: device.client.stats.received == number, PATIENCE)

            publish(peer, 1, 2)
            assert arrived(2)
            async with device.client.messages("t") as messages:
                peer.expect_subscribe()
                publish(peer, 3)
                assert arrived(3)
                assert await received(messages, 3) == [1, 2, 3]

    run(main)
