"""AsyncTokenClient: it connects, publishes, rotates and reports on the event loop; a cancellation leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest

from mqtt_token_client import (
    AsyncTokenClient,
    ClientClosed,
    ConfigurationError,
    Connected,
    DeliveryFailed,
    Event,
    MessagesAbandoned,
    OutboxFull,
    Rotated,
    TokenError,
    TokenRefusedByBroker,
    TokenRenewed,
)
from mqtt_token_client.aio import event_stream
from tests.unit.async_device import AsyncDevice, connected, ending, run, threads, until
from tests.unit.device import Source
from tests.unit.packets import CONNECT, DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL
from tests.unit.scripted_broker import PATIENCE, Peer
from tests.unit.stepped_time import wait_until


async def expect(peer: Peer, kind: int) -> Any:
    return await asyncio.to_thread(peer.expect, kind)


class TestConnecting:
    def test_a_block_connects_and_disconnects(self) -> None:
        async def main() -> None:
            device = AsyncDevice()
            with contextlib.closing(device.broker):

                async def use() -> None:
                    async with device.client as client:
                        assert client is device.client
                        assert client.state == "connected"
                        assert wait_until(lambda: threads() == ["mqtt-token-network"], PATIENCE), threads()

                using = asyncio.create_task(use())
                peer = await device.answer()
                await expect(peer, DISCONNECT)
                peer.close()
                await using
            assert device.client.state == "closed"
            assert [type(event) for event in device.events] == [TokenRenewed, Connected]

        run(main)

    def test_connect_returns_false_when_the_time_is_up_and_goes_on_trying(self) -> None:
        async def main() -> None:
            device = AsyncDevice()
            with contextlib.closing(device.broker):
                assert not await device.client.connect(timeout=0.01)
                peer = await device.answer()
                await device.event(Connected)
                await device.end(peer)

        run(main)

    def test_connect_raises_what_only_a_person_can_fix(self, impatient: None) -> None:
        async def main() -> None:
            device = AsyncDevice()
            with contextlib.closing(device.broker):
                connecting = asyncio.create_task(device.client.connect())
                for _ in range(2):
                    await device.answer(0x87)
                with pytest.raises(TokenRefusedByBroker, match="rejected the token 2 times in a row"):
                    await connecting
            assert device.client.state == "closed"

        run(main)

    def test_connect_during_disconnect_connects_afterwards(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                disconnecting = asyncio.create_task(device.client.disconnect())
                await asyncio.sleep(0)
                connecting = asyncio.create_task(device.client.connect())
                await expect(peer, DISCONNECT)
                peer.close()
                await disconnecting
                again = await device.answer()
                assert await connecting
                await device.end(again)

        run(main)

    def test_a_client_serves_on_one_loop_after_another(self) -> None:
        clients: list[AsyncDevice] = []

        async def main() -> None:
            device = clients[0] if clients else AsyncDevice()
            clients[:] = [device]
            peer = await device.start()
            publishing = asyncio.create_task(device.client.publish("t", b"x", qos=1))
            peer.acknowledge(PUBACK, (await expect(peer, PUBLISH)).packet_id)
            await publishing
            await device.end(peer)

        run(main)
        run(main)
        clients[0].broker.close()

    def test_a_client_that_is_connected_does_not_serve_on_a_second_loop(self) -> None:
        async def main() -> None:
            async with connected() as (device, _peer):

                def elsewhere() -> None:
                    asyncio.run(device.client.rotate())

                with pytest.raises(ConfigurationError, match="another event loop"):
                    await asyncio.to_thread(elsewhere)

        run(main)

    @pytest.mark.parametrize("timeout", [-1, "5", float("nan")])
    def test_a_timeout_that_is_not_a_number_of_seconds_is_rejected(self, timeout: Any) -> None:
        async def main() -> None:
            client = AsyncTokenClient("mqtt://localhost", Source(), client_id="device")
            for method in (client.connect, client.disconnect):
                with pytest.raises(ConfigurationError, match="timeout must be seconds"):
                    await method(timeout=timeout)

        run(main)


class TestPublish:
    def test_returns_when_the_message_is_acknowledged(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                publishing = asyncio.create_task(device.client.publish("t", "one", qos=1))
                packet = await expect(peer, PUBLISH)
                assert (packet.topic, packet.payload, packet.qos) == ("t", b"one", 1)
                assert not publishing.done()
                peer.acknowledge(PUBACK, packet.packet_id)
                await publishing
                publishing = asyncio.create_task(device.client.publish("t", "two", qos=2))
                packet = await expect(peer, PUBLISH)
                peer.acknowledge(PUBREC, packet.packet_id)
                await expect(peer, PUBREL)
                assert not publishing.done()
                peer.acknowledge(PUBCOMP, packet.packet_id)
                await publishing

        run(main)

    def test_returns_when_a_message_of_qos_0_is_written(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                await device.client.publish("t", 21.5)
                assert (await expect(peer, PUBLISH)).payload == b"21.5"

        run(main)

    def test_raises_if_the_broker_rejects_the_message(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                publishing = asyncio.create_task(device.client.publish("t", b"", qos=1))
                peer.acknowledge(PUBACK, (await expect(peer, PUBLISH)).packet_id, 0x99)
                with pytest.raises(DeliveryFailed, match="0x99"):
                    await publishing

        run(main)

    def test_raises_if_the_client_is_disconnected_before_the_acknowledgement_or_already(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                publishing = asyncio.create_task(device.client.publish("t", b"", qos=1))
                await expect(peer, PUBLISH)
                await ending(peer, device.client.disconnect(timeout=0))
                with pytest.raises(DeliveryFailed, match="was closed before"):
                    await publishing
                with pytest.raises(ClientClosed):
                    await device.client.publish("t", b"")
                assert MessagesAbandoned(1) in device.events

        run(main)

    def test_nowait_returns_a_delivery_to_await_and_raises_if_the_outbox_is_full(self) -> None:
        async def main() -> None:
            async with connected(max_queued=1) as (device, peer):
                delivery = device.client.publish_nowait("t", b"1", qos=1)
                with pytest.raises(OutboxFull):
                    device.client.publish_nowait("t", b"2", qos=1)
                peer.acknowledge(PUBACK, (await expect(peer, PUBLISH)).packet_id)
                await delivery

        run(main)

    def test_waits_for_room_in_the_order_of_the_calls(self) -> None:
        async def main() -> None:
            async with connected(max_queued=1) as (device, peer):
                publishing = [asyncio.create_task(device.client.publish("t", number, qos=1)) for number in range(5)]
                for number in range(5):
                    packet = await expect(peer, PUBLISH)
                    assert packet.payload == b"%d" % number
                    assert not any(task.done() for task in publishing[number:])
                    peer.acknowledge(PUBACK, packet.packet_id)
                await asyncio.gather(*publishing)

        run(main)

    def test_that_waits_for_room_ends_when_the_client_is_disconnected(self) -> None:
        async def main() -> None:
            async with connected(max_queued=1) as (device, peer):
                publishing = [asyncio.create_task(device.client.publish("t", number, qos=1)) for number in range(3)]
                await expect(peer, PUBLISH)
                await ending(peer, device.client.disconnect(timeout=0))
                outcomes = await asyncio.gather(*publishing, return_exceptions=True)
                assert [type(outcome) for outcome in outcomes] == [DeliveryFailed, ClientClosed, ClientClosed]

        run(main)

    def test_that_is_cancelled_while_it_waits_for_room_sends_nothing(self) -> None:
        async def main() -> None:
            async with connected(max_queued=1) as (device, peer):
                first = asyncio.create_task(device.client.publish("t", b"1", qos=1))
                packet = await expect(peer, PUBLISH)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await device.client.publish("t", b"2", qos=1)
                third = asyncio.create_task(device.client.publish("t", b"3", qos=1))
                peer.acknowledge(PUBACK, packet.packet_id)
                await first
                packet = await expect(peer, PUBLISH)
                assert packet.payload == b"3"
                peer.acknowledge(PUBACK, packet.packet_id)
                await third

        run(main)

    def test_that_is_cancelled_later_leaves_the_message_in_the_outbox(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                publishing = asyncio.create_task(device.client.publish("t", b"1", qos=1))
                packet = await expect(peer, PUBLISH)
                publishing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await publishing
                assert device.client.stats.queued == 1
                peer.acknowledge(PUBACK, packet.packet_id)
                await until(lambda: device.client.stats.delivered == 1)

        run(main)


class TestRotation:
    def test_rotate_renews_the_token_and_the_connection_moves_onto_it(self) -> None:
        async def main() -> None:
            async with connected() as (device, first):
                await device.client.rotate()
                second = await device.hand_over(first)
                await device.event(Rotated)
                assert device.source.requests == 2
                assert device.client.stats.rotations == 1
                assert device.client.token_expires_in is not None
                await device.end(second)

        run(main)

    def test_rotate_raises_if_the_token_cannot_be_renewed(self) -> None:
        async def main() -> None:
            async with connected() as (device, _peer):
                device.source.next = [TokenError("not today")]
                with pytest.raises(TokenError, match="not today"):
                    await device.client.rotate()
                assert device.client.state == "connected"

        run(main)

    def test_a_rotate_that_is_cancelled_renews_all_the_same(self) -> None:
        async def main() -> None:
            async with connected() as (device, first):
                device.source.gate.clear()
                device.source.asked.acquire()
                rotating = asyncio.create_task(device.client.rotate())
                await asyncio.to_thread(device.source.asked.acquire)
                rotating.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await rotating
                device.source.gate.set()
                second = await device.hand_over(first)
                await device.event(Rotated)
                await device.end(second)

        run(main)


class TestEvents:
    def test_are_iterated_by_any_number_of_tasks_until_the_client_is_disconnected(self) -> None:
        async def main() -> None:
            device = AsyncDevice()
            streams = [device.client.events() for _ in range(2)]

            async def collect(index: int) -> list[type[Event]]:
                return [type(event) async for event in streams[index]]

            with contextlib.closing(device.broker):
                collecting = [asyncio.create_task(collect(index)) for index in range(2)]
                peer = await device.start()
                await device.end(peer)
                assert await asyncio.gather(*collecting) == [[TokenRenewed, Connected]] * 2

        run(main)

    def test_are_kept_for_a_slow_reader_up_to_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_stream, "_KEPT", 3)

        async def main() -> None:
            async with connected() as (device, peer):
                await device.event(Connected)
                stream = device.client.events()
                for number in range(5):
                    device.client._core.report(MessagesAbandoned(number))
                await device.end(peer)
                assert [event async for event in stream] == [MessagesAbandoned(number) for number in range(2, 5)]

        run(main)

    def test_reach_others_if_on_event_raises(self) -> None:
        async def main() -> None:
            def broken(event: Event) -> None:
                raise ZeroDivisionError

            device = AsyncDevice(on_event=broken)
            stream = device.client.events()
            with contextlib.closing(device.broker):
                peer = await device.start()
                assert isinstance(await anext(stream), TokenRenewed)
                await device.end(peer)

        run(main)

    def test_are_not_for_a_coroutine_function(self) -> None:
        async def on_event(event: Event) -> None: ...

        with pytest.raises(ConfigurationError, match="on_event must be a plain function"):
            AsyncTokenClient("mqtt://localhost", Source(), client_id="device", on_event=on_event)


class TestCancellation:
    def test_of_a_block_that_is_being_entered_leaves_nothing(self) -> None:
        async def main() -> None:
            device = AsyncDevice()
            with contextlib.closing(device.broker):

                async def use() -> None:
                    async with device.client:
                        raise AssertionError("it was entered")

                using = asyncio.create_task(use())
                peer = await asyncio.to_thread(device.broker.accept)
                await expect(peer, CONNECT)
                using.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await using
            assert device.client.state == "closed"

        run(main)

    def test_of_disconnect_ends_the_time_of_the_outbox(self) -> None:
        async def main() -> None:
            async with connected() as (device, peer):
                publishing = asyncio.create_task(device.client.publish("t", b"", qos=1))
                await expect(peer, PUBLISH)
                disconnecting = asyncio.create_task(device.client.disconnect(timeout=60))
                for _ in range(3):
                    await asyncio.sleep(0)
                disconnecting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await ending(peer, disconnecting)
                assert device.client.state == "closed"
                with pytest.raises(DeliveryFailed):
                    await publishing

        run(main)

    def test_of_a_task_group_around_the_client_disconnects_it(self) -> None:
        async def main() -> None:
            device = AsyncDevice()

            async def use(entered: asyncio.Event) -> None:
                async with device.client:
                    entered.set()
                    await asyncio.sleep(60)

            async def fail(entered: asyncio.Event) -> None:
                await entered.wait()
                raise ZeroDivisionError

            async def group() -> None:
                entered = asyncio.Event()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(use(entered))
                    tasks.create_task(fail(entered))

            with contextlib.closing(device.broker):
                running = asyncio.create_task(group())
                peer = await device.answer()
                with pytest.raises(ExceptionGroup):
                    await ending(peer, running)
            assert device.client.state == "closed"

        run(main)


def test_it_has_the_methods_that_paho_does_not_have() -> None:
    client = AsyncTokenClient("mqtt://localhost", Source(), client_id="device")
    with pytest.raises(AttributeError, match="AsyncTokenClient"):
        client.loop_start()  # type: ignore[attr-defined]
    assert repr(client) == "AsyncTokenClient('mqtt://localhost:1883', client_id='device', closed)"


def test_the_constructor_reads_no_certificates_as_that_would_block_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("certificates are read")

    for name in ("load_default_certs", "load_verify_locations", "set_default_verify_paths"):
        monkeypatch.setattr(ssl.SSLContext, name, read)
    AsyncTokenClient("mqtts://localhost", Source(), client_id="device")
