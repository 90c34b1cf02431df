"""messages(): what has been processed is acknowledged, so the broker sends no more than Receive Maximum before that."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from mqtt_token_client import AsyncTokenClient, ConfigurationError, Message, MessagesDropped, MessageUnhandled
from mqtt_token_client.aio import inbox, inboxes, unclaimed
from tests.unit.async_device import AsyncDevice, connected, ending, run, until, waiting
from tests.unit.device import Source
from tests.unit.packets import CONNECT, DISCONNECT, PUBACK, PUBLISH, PUBREC, UNSUBSCRIBE, Packet
from tests.unit.scripted_broker import PATIENCE, Peer


async def expect(peer: Peer, kind: int) -> Packet:
    return await asyncio.to_thread(peer.expect, kind)


async def expect_nothing(peer: Peer) -> None:
    await asyncio.to_thread(peer.expect_nothing, 0.02)


async def subscribed(peer: Peer) -> None:
    await asyncio.to_thread(peer.expect_subscribe)


def publish(peer: Peer, *identifiers: int, qos: int = 1, topic: str = "t") -> None:
    for identifier in identifiers:
        peer.publish(topic, b"%d" % identifier, qos, identifier if qos else 0)


class TestAcknowledgement:
    @pytest.mark.parametrize(("qos", "kind"), [(1, PUBACK), (2, PUBREC)])
    @pytest.mark.parametrize("protocol", [4, 5])
    def test_goes_out_when_the_loop_asks_for_the_next_message(self, protocol: int, qos: int, kind: int) -> None:
        async def main() -> None:
            async with connected(protocol) as (device, peer), device.client.messages("t", qos=qos) as messages:
                await subscribed(peer)
                publish(peer, 1, 2, qos=qos)
                stream = aiter(messages)
                assert (await anext(stream)).payload == b"1"
                await expect_nothing(peer)
                assert (await anext(stream)).payload == b"2"
                assert (await expect(peer, kind)).packet_id == 1
                await expect_nothing(peer)
                waiting = asyncio.ensure_future(anext(stream))
                assert (await expect(peer, kind)).packet_id == 2
                publish(peer, 3, qos=qos)
                assert (await waiting).payload == b"3"

        run(main)

    def test_of_a_message_of_two_blocks_goes_out_when_both_have_processed_it(self) -> None:
        async def main() -> None:
            async with (
                connected() as (device, peer),
                device.client.messages("t") as one,
                device.client.messages("#") as two,
            ):
                device.client.publish_nowait("the last", b"")
                while (await asyncio.to_thread(peer.packet)).kind != PUBLISH:  # type: ignore[union-attr]
                    """SUBSCRIBE, once or twice."""
                publish(peer, 1)
                first, second = aiter(one), aiter(two)
                assert await anext(first) == await anext(second)
                next_one = asyncio.ensure_future(anext(first))
                await expect_nothing(peer)
                next_two = asyncio.ensure_future(anext(second))
                assert (await expect(peer, PUBACK)).packet_id == 1
                next_one.cancel()
                next_two.cancel()
                await asyncio.wait([next_one, next_two])

        run(main)

    def test_of_a_message_of_one_task_does_not_depend_on_the_other_tasks_of_the_block(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer), device.client.messages("t") as messages:
                await subscribed(peer)
                publish(peer, 1, 2)
                slow, fast = aiter(messages), aiter(messages)
                assert [(await anext(stream)).payload for stream in (slow, fast)] == [b"1", b"2"]
                publish(peer, 3)
                assert (await anext(fast)).payload == b"3"
                await expect_nothing(peer)  # in the order of arrival (MQTT 5 section 4.6)
                waiting = asyncio.ensure_future(anext(slow))
                assert [(await expect(peer, PUBACK)).packet_id for _ in range(2)] == [1, 2]
                waiting.cancel()
                await asyncio.wait([waiting])

        run(main)

    def test_is_left_to_the_application_with_manual_ack(self) -> None:
        async def main() -> None:
            async with connected(manual_ack=True) as (device, peer), device.client.messages("t") as messages:
                await subscribed(peer)
                publish(peer, 1, 2)
                stream = aiter(messages)
                first = await anext(stream)
                await anext(stream)
                await expect_nothing(peer)
                first.acknowledge()
                assert (await expect(peer, PUBACK)).packet_id == 1

        run(main)

    def test_is_announced_as_a_receive_maximum_of_a_thousand(self) -> None:
        async def main() -> None:
            device = AsyncDevice()
            with contextlib.closing(device.broker):
                connecting = asyncio.create_task(device.client.connect())
                peer = await asyncio.to_thread(device.broker.accept)
                assert (await expect(peer, CONNECT)).properties[0x21] == 1000
                peer.connack()
                await connecting
                await device.end(peer)

        run(main)


class TestAtQoS0:
    def test_the_oldest_are_dropped_beyond_the_bound_and_an_event_counts_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inbox, "_REPORT_AFTER", 0.01)

        async def main() -> None:
            async with connected() as (device, peer), device.client.messages("t", queue=3) as messages:
                await subscribed(peer)
                publish(peer, 1, qos=1)
                publish(peer, *range(2, 12), qos=0)
                publish(peer, 12, qos=1)
                await until(lambda: device.client.stats.received == 12 and waiting(device, "t") == 5)
                stream = aiter(messages)
                assert [int((await anext(stream)).payload) for _ in range(5)] == [1, 9, 10, 11, 12]
                assert await device.event(MessagesDropped) == MessagesDropped("t", 7)

        run(main)

    def test_nothing_of_qos_1_is_dropped(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer), device.client.messages("t", queue=1) as messages:
                await subscribed(peer)
                publish(peer, *range(1, 200))
                await until(lambda: device.client.stats.received == 199)
                stream = aiter(messages)
                assert [int((await anext(stream)).payload) for _ in range(1, 200)] == list(range(1, 200))

        run(main)


async def fail(device: AsyncDevice, peer: Peer, *identifiers: int) -> None:
    """Receive messages, and raise at the first of them."""
    with contextlib.suppress(ZeroDivisionError):
        async with device.client.messages("t") as messages:
            await subscribed(peer)
            publish(peer, *identifiers)
            async for message in messages:
                assert message.payload == b"%d" % identifiers[0]
                raise ZeroDivisionError


class TestLeavingTheBlock:
    def test_unsubscribes_and_acknowledges_what_waits(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                async with device.client.messages("t") as messages:
                    await subscribed(peer)
                    publish(peer, 1, 2)
                    await until(lambda: waiting(device, "t") == 2)
                    async for message in messages:
                        assert message.payload == b"1"
                        break
                packets = [await asyncio.to_thread(peer.packet) for _ in range(3)]
                assert {packet.kind for packet in packets if packet} == {PUBACK, UNSUBSCRIBE}
                assert await device.event(MessagesDropped) == MessagesDropped("t", 1)
                publish(peer, 3)  # sent before UNSUBSCRIBE arrived there
                assert (await expect(peer, PUBACK)).packet_id == 3

        run(main)

    def test_while_a_message_is_put_into_it_acknowledges_that_one_as_well(self) -> None:
        entered, left = threading.Event(), threading.Event()

        class Numbers:
            def __next__(self) -> int:
                entered.set()
                assert left.wait(PATIENCE)
                return 0

        async def main() -> None:
            async with connected() as (device, peer):
                async with device.client.messages("t"):
                    await subscribed(peer)
                    device.client._inboxes._inboxes["t"]._numbers = Numbers()  # type: ignore[assignment]
                    publish(peer, 1)
                    await until(entered.is_set)
                left.set()
                packets = [await asyncio.to_thread(peer.packet) for _ in range(2)]
                assert {packet.kind for packet in packets if packet} == {PUBACK, UNSUBSCRIBE}

        run(main)

    def test_by_an_exception_after_unsubscribe_acknowledges_what_was_processed(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                with contextlib.suppress(ZeroDivisionError):
                    async with device.client.messages("t") as messages:
                        await subscribed(peer)
                        publish(peer, 1)
                        assert (await anext(aiter(messages))).payload == b"1"
                        device.client.unsubscribe("t")
                        await expect(peer, UNSUBSCRIBE)
                        raise ZeroDivisionError
                assert (await expect(peer, PUBACK)).packet_id == 1

        run(main)

    def test_by_an_exception_keeps_the_messages_for_the_next_block(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                await fail(device, peer, 1, 2)
                publish(peer, 3)
                await expect_nothing(peer)
                async with device.client.messages("t") as messages:
                    await subscribed(peer)
                    stream = aiter(messages)
                    assert [(await anext(stream)).payload for _ in range(3)] == [b"1", b"2", b"3"]
                    assert [(await expect(peer, PUBACK)).packet_id for _ in range(2)] == [1, 2]

        run(main)

    def test_by_an_exception_unsubscribes_if_nobody_comes_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inboxes, "KEPT_SECONDS", 0.02)

        async def main() -> None:
            async with connected() as (device, peer):
                await fail(device, peer, 1)
                packets = [await asyncio.to_thread(peer.packet) for _ in range(2)]
                assert {packet.kind for packet in packets if packet} == {PUBACK, UNSUBSCRIBE}
                assert await device.event(MessagesDropped) == MessagesDropped("t", 1)

        run(main)

    def test_by_an_exception_that_ends_the_client_leaves_all_to_the_next_connection(self) -> None:
        async def main() -> None:
            device = AsyncDevice()

            async def use(entered: asyncio.Event) -> None:
                async with device.client as client, client.messages("t") as messages:
                    entered.set()
                    async for _message in messages:
                        raise ZeroDivisionError

            with contextlib.closing(device.broker):
                entered = asyncio.Event()
                using = asyncio.create_task(use(entered))
                peer = await device.answer()
                await entered.wait()
                await subscribed(peer)
                publish(peer, 1, 2)
                packet = await expect(peer, DISCONNECT)  # and neither PUBACK nor UNSUBSCRIBE before it
                assert packet.reason == 0
                peer.close()
                with pytest.raises(ZeroDivisionError):
                    await using
                peer = await device.start(session_present=True)
                async with device.client.messages("t") as messages:
                    peer.publish("t", b"1", 1, 1, dup=True)
                    assert (await anext(aiter(messages))).payload == b"1"
                    await device.end(peer)

        run(main)


class TestBeforeAnybodyIsThere:
    def test_messages_wait_for_the_block_that_subscribes_to_them(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                publish(peer, 1, 2)
                peer.publish("other", b"3", 1, 3)
                await until(lambda: device.client.stats.received == 3)
                await expect_nothing(peer)
                async with device.client.messages("$share/group/+") as messages:
                    stream = aiter(messages)
                    assert [(await anext(stream)).payload for _ in range(3)] == [b"1", b"2", b"3"]

        run(main)

    def test_messages_that_nobody_wants_are_acknowledged_and_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unclaimed, "KEPT_SECONDS", 0.02)

        async def main() -> None:
            async with connected() as (device, peer):
                publish(peer, 1, 2)
                assert [(await expect(peer, PUBACK)).packet_id for _ in range(2)] == [1, 2]
                assert await device.event(MessageUnhandled) == MessageUnhandled("t")
                assert [type(event) for event in device.events].count(MessageUnhandled) == 1

        run(main)


class TestTheIteration:
    def test_ends_when_the_client_is_disconnected(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer), device.client.messages("t") as messages:
                await subscribed(peer)

                async def collect() -> list[Message]:
                    return [message async for message in messages]

                collecting = [asyncio.create_task(collect()) for _ in range(2)]
                await asyncio.sleep(0)
                await device.end(peer)
                assert await asyncio.gather(*collecting) == [[], []]

        run(main)

    def test_lets_other_tasks_run_while_there_are_messages(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer), device.client.messages("t") as messages:
                await subscribed(peer)
                publish(peer, *range(1, 301))
                await until(lambda: waiting(device, "t") == 300)
                turns = 0

                async def count() -> None:
                    nonlocal turns
                    while True:
                        turns += 1
                        await asyncio.sleep(0)

                counting = asyncio.create_task(count())
                async for message in messages:
                    if message.payload == b"300":
                        break
                assert turns >= 3
                counting.cancel()
                await asyncio.wait([counting])

        run(main)

    def test_needs_the_block(self) -> None:
        async def main() -> None:
            client = AsyncTokenClient("mqtt://localhost", Source(), client_id="device")
            with pytest.raises(RuntimeError, match="async with"):
                aiter(client.messages("t"))

        run(main)

    def test_of_a_filter_belongs_to_one_block_or_handler(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer), device.client.messages("t"):
                await subscribed(peer)
                with pytest.raises(ConfigurationError, match="in use by another"):
                    async with device.client.messages("t"):
                        raise AssertionError
                with pytest.raises(ConfigurationError, match="processes these messages already"):
                    device.client.subscribe("t", lambda _message: None)

        run(main)

    @pytest.mark.parametrize(("name", "value"), [("qos", 3), ("queue", 0), ("retain_handling", 7)])
    def test_with_a_wrong_argument_is_rejected_at_once(self, name: str, value: int) -> None:
        client = AsyncTokenClient("mqtt://localhost", Source(), client_id="device")
        with pytest.raises(ConfigurationError, match=name):
            client.messages("t", **{name: value})  # type: ignore[arg-type]


def test_a_message_held_over_a_rotation_is_acknowledged_on_the_new_connection() -> None:
    async def main() -> None:
        async with connected() as (device, first), device.client.messages("t") as messages:
            await subscribed(first)
            publish(first, 1, 2)
            stream = aiter(messages)
            await anext(stream)
            await device.client.rotate()
            second = await device.hand_over(first)
            for identifier in (1, 2):
                second.publish("t", b"%d" % identifier, 1, identifier, dup=True)
            await until(lambda: device.client.stats.duplicates == 2)
            assert (await anext(stream)).payload == b"2"
            assert (await expect(second, PUBACK)).packet_id == 1
            publishing = asyncio.create_task(device.client.publish("up", b"", qos=1))
            second.acknowledge(PUBACK, (await expect(second, PUBLISH)).packet_id)
            await publishing
            await ending(second, device.client.disconnect())

    run(main)
