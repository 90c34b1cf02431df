"""Sessions on the embedded broker, which outlive their connections, and the take-over of one by a second connection."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from itertools import pairwise

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client.testing import Broker, sessions
from tests.unit.embedded import (
    CONNACK,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Connect,
    Connection,
    Packet,
    publish,
)


def test_a_second_connection_takes_the_session_over_and_ends_the_first(connect: Connect) -> None:
    first = connect()
    assert not first.accepted()
    first.subscribe("t")
    second = connect()
    assert second.accepted()
    assert first.ended()
    second.publish(1, b"still subscribed")
    received = {second.receive(), second.receive()}
    assert {one.kind for one in received if one} == {PUBACK, PUBLISH}


def test_a_token_that_is_refused_leaves_the_first_connection_as_it_is(broker: Broker, connect: Connect) -> None:
    first = connect()
    first.accepted()
    first.subscribe("t")
    with Connection(broker, "no token") as second:
        assert second.expect(CONNACK).body == b"\x00\x05"
        assert second.ended()
    with Connection(broker, "no token", clean=True) as second:
        assert second.ended()
    first.publish(1, b"as before")
    received = {first.receive(), first.receive()}
    assert {one.kind for one in received if one} == {PUBACK, PUBLISH}


def test_nothing_is_lost_or_doubled_by_take_overs_under_load(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that holds new messages, goes on with everything else, and moves: 15 times, 300 messages."""
    monkeypatch.setattr(sessions, "_GRACE", 0.01)  # the client does not read while it connects
    connection, arrived, unacknowledged = connect(), Counter[int](), set[int]()
    doubled_without_dup, order = 0, []
    connection.accepted()
    connection.subscribe("t")

    def handle(one: Packet | None) -> None:
        nonlocal doubled_without_dup
        if one is not None and one.kind == PUBACK:
            unacknowledged.discard(one.identifier)
        elif one is not None:
            with contextlib.suppress(OSError):
                connection.acknowledge(one.identifier)
            number = int(one.payload)
            arrived[number] += 1
            doubled_without_dup += arrived[number] > 1 and not one.duplicate
            if not one.duplicate:
                order.append(number)

    for number in range(1, 301):
        connection.publish(number, str(number).encode())
        unacknowledged.add(number)
        if number % 20 == 0:
            second = connect()
            assert second.accepted()
            while (one := connection.receive()) is not None:
                handle(one)
            assert not unacknowledged, "the first connection ended before all that arrived on it was answered"
            connection = second
        with contextlib.suppress(TimeoutError):
            while True:
                handle(connection.receive(timeout=0.002))
    deadline = time.monotonic() + 5
    while len(arrived) < 300 and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            handle(connection.receive(timeout=0.1))
    assert sorted(arrived) == list(range(1, 301))
    assert not doubled_without_dup
    assert all(earlier < later for earlier, later in pairwise(order))


def test_what_is_acknowledged_on_the_first_connection_right_after_connect_does_not_go_out_again(
    connect: Connect,
) -> None:
    first = connect()
    first.accepted()
    first.subscribe("t")
    second = connect(at_once=False)
    first.publish(1, b"to myself")
    first.expect(PUBACK)
    identifier = first.expect(PUBLISH).identifier
    second.send_connect()
    first.acknowledge(identifier)
    second.accepted()
    second.ping()


def test_all_that_arrived_on_the_first_connection_is_answered_there_before_it_ends(
    connect: Connect,
) -> None:
    first = connect()
    first.accepted()
    first.subscribe("t")
    second = connect(at_once=False)
    numbers = range(1, 501)
    first.send(b"".join(publish(number, str(number).encode()) for number in numbers))
    second.send_connect()
    answered, on_first, on_second, duplicates = [], set[bytes](), set[bytes](), set[bytes]()
    while (one := first.receive()) is not None:
        if one.kind == PUBACK:
            answered.append(one.identifier)
        else:
            on_first.add(one.payload)
    assert second.accepted()
    while len(on_first | on_second) < 500:
        one = second.expect(PUBLISH)
        on_second.add(one.payload)
        if one.duplicate:
            duplicates.add(one.payload)
    assert answered == list(numbers)
    assert duplicates <= on_first


def test_nothing_new_is_sent_on_a_connection_that_is_being_taken_over(broker: Broker, connect: Connect) -> None:
    first, other = connect(), connect("other")
    first.accepted()
    other.accepted()
    first.subscribe("t")
    first.publish(1, b"not acknowledged")  # the broker waits a moment for that
    second = connect()
    wait_until(lambda: any(one.connect and not one.session for one in list(broker._sessions.connections)), "CONNECT")
    other.publish(1, b"meanwhile")
    while (one := first.receive()) is not None:
        assert one.payload != b"meanwhile"
    assert second.accepted()
    again, new = second.expect(PUBLISH), second.expect(PUBLISH)
    assert [(one.payload, one.duplicate) for one in (again, new)] == [
        (b"not acknowledged", True),
        (b"meanwhile", False),
    ]


def test_what_was_not_acknowledged_goes_out_again_with_dup_and_its_identifier(
    connect: Connect,
) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t")
    other = connect("other")
    other.accepted()
    for number in (1, 2, 3):
        other.publish(number, b"%d" % number)
    identifiers = [connection.expect(PUBLISH).identifier for _ in range(3)]
    connection.acknowledge(identifiers[1])
    connection.ping()

    connection = connect()
    connection.accepted()
    again = [connection.expect(PUBLISH) for _ in range(2)]
    assert [(one.identifier, one.payload, one.duplicate) for one in again] == [
        (identifiers[0], b"1", True),
        (identifiers[2], b"3", True),
    ]
    for one in again:
        connection.acknowledge(one.identifier)
    connection.ping()

    connection = connect()
    connection.accepted()
    connection.ping()  # and nothing before its answer


def test_a_message_of_qos_2_arrives_once_through_a_take_over_in_each_of_its_steps(
    connect: Connect,
) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t", qos=2)
    other = connect("other")
    other.accepted()
    other.publish(1, b"once", first=0x34)
    other.expect(PUBREC)
    other.acknowledge(1, first=0x62)
    other.expect(PUBCOMP)
    identifier = connection.expect(PUBLISH).identifier

    connection = connect()
    connection.accepted()
    again = connection.expect(PUBLISH)
    assert (again.identifier, again.duplicate) == (identifier, True)
    connection.acknowledge(identifier, first=0x50)
    assert connection.expect(PUBREL).identifier == identifier

    connection = connect()
    connection.accepted()
    assert connection.expect(PUBREL).identifier == identifier
    connection.acknowledge(identifier, first=0x70)
    connection.ping()

    connection = connect()
    connection.accepted()
    connection.ping()


def test_what_waited_for_the_client_arrives_in_order_and_without_retain(connect: Connect) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t")
    connection.send(b"\xe0\x00")
    assert connection.ended()
    other = connect("other")
    other.accepted()
    for number in range(10):
        other.publish(number + 1, b"%d" % number)
        other.expect(PUBACK)

    connection = connect()
    assert connection.accepted()
    waited = [connection.expect(PUBLISH) for _ in range(10)]
    assert [(one.payload, one.retain, one.duplicate) for one in waited] == [
        (b"%d" % number, False, False) for number in range(10)
    ]
    for one in waited:
        connection.acknowledge(one.identifier)
    connection.ping()
    connection = connect()
    connection.accepted()
    connection.ping()  # and nothing before its answer


@pytest.mark.parametrize(("first", "kind"), [(0x32, PUBACK), (0x34, PUBREC)])
def test_a_message_is_acknowledged_once_it_is_among_the_messages(
    broker: Broker, connect: Connect, first: int, kind: int
) -> None:
    connection = connect()
    connection.accepted()
    with broker._new_message:  # no message can be added
        connection.send(publish(1, b"one", first=first))
        with pytest.raises(TimeoutError):
            connection.receive(timeout=0.3)
    connection.expect(kind)
    assert [message.payload for message in broker.messages("t")] == [b"one"]


def test_a_clean_session_begins_with_nothing_and_leaves_nothing(connect: Connect) -> None:
    connection = connect()
    connection.accepted()
    connection.subscribe("t")
    clean = connect(clean=True)
    assert not clean.accepted()
    assert connection.ended()
    clean.publish(1, b"to nobody")
    clean.expect(PUBACK)
    clean.subscribe("t")
    clean.send(b"\xe0\x00")
    assert clean.ended()
    connection = connect()
    assert not connection.accepted()
    connection.publish(1, b"to nobody")
    connection.expect(PUBACK)
    connection.ping()


def test_a_clean_session_that_is_up_ends_where_one_begins_that_is_kept(connect: Connect) -> None:
    clean = connect(clean=True)
    clean.accepted()
    clean.subscribe("t")
    connection = connect()
    assert not connection.accepted()
    assert clean.ended()
    connection.publish(1, b"to nobody")
    connection.expect(PUBACK)
    connection.ping()


def test_nothing_of_a_clean_session_is_kept_once_its_connection_has_ended(broker: Broker, connect: Connect) -> None:
    with connect(clean=True) as clean:
        clean.accepted()
        clean.subscribe("t")
    deadline = time.monotonic() + 5
    while broker._sessions.kept and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not broker._sessions.kept
