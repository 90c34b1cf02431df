"""A broker that rejects a token which was just issued: its clock may be behind, or it may have no keys yet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest

from mqtt_token_client import (
    Backoff,
    Connected,
    Disconnected,
    Rotated,
    Token,
    TokenRefused,
    TokenRefusedByBroker,
)
from mqtt_token_client.clock import ServerClock, monotonic
from mqtt_token_client.mqtt.lifecycle.retry import RetryState
from mqtt_token_client.tokens.rejection import rejection_hint
from tests.unit.device import Device, Make, both, password
from tests.unit.packets import CONNECT
from tests.unit.scripted_broker import Peer
from tests.unit.stepped_time import stepped

DATE = "Sat, 28 Nov 2026 12:00:00 GMT"
NOON = 1_795_867_200  # that date, in seconds since the epoch


def signed(lifetime: float = 3600.0, since: float | None = None, **claims: Any) -> Token:
    return Token(jwt.encode(claims, "k" * 32, "HS256"), lifetime, since=since)


def rejected(device: Device, protocol: int = 5) -> bytes:
    """Reject a connection; return the token."""
    peer = device.broker.accept(70.0)
    found = peer.expect(CONNECT).password
    assert found is not None
    peer.connack(0x87 if protocol == 5 else 5)
    return found


def accepted(device: Device, token: Token) -> Peer:
    peer = device.broker.accept(70.0)
    assert peer.expect(CONNECT).password == token.value.encode()
    peer.connack(session_present=True)
    return peer


@both
@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_the_same_one_is_presented_again_after_a_growing_wait(make: Make, protocol: int, claim: str) -> None:
    device = make(protocol)
    token = signed(**{claim: NOON})
    device.source.next = [token]
    device.client.connect(timeout=0)
    for _ in range(7):
        assert rejected(device, protocol) == token.value.encode()
    accepted(device, token)
    device.event(Connected)
    assert [(event.times, event.retry_in) for event in device.reported(TokenRefused)] == [
        *((1, 2.0), (2, 4.0), (3, 8.0), (4, 16.0), (5, 32.0), (6, 60.0), (7, 60.0))
    ]
    assert device.source.requests == 1


def test_another_is_requested_when_it_would_be_renewed(make: Make) -> None:
    device = make()
    first, second = signed(lifetime=60.0, iat=NOON), signed(lifetime=60.0, iat=NOON + 40)
    device.source.next = [first, second]
    device.client.connect(timeout=0)
    for _ in range(5):  # after 0, 2, 6, 14 and 30 seconds; 62 is too late
        assert rejected(device) == first.value.encode()
    assert rejected(device) == second.value.encode()
    device.until(lambda: len(device.reported(TokenRefused)) == 6)
    assert [(event.times, event.retry_in) for event in device.reported(TokenRefused)] == [
        *((1, 2.0), (2, 4.0), (3, 8.0), (4, 16.0), (5, 0.0), (6, 2.0))
    ]


@pytest.mark.parametrize("seconds", [86_400.0, -86_400.0, 10.0])
def test_another_is_requested_at_once_if_the_clock_of_the_device_was_set(make: Make, seconds: float) -> None:
    """A device without a clock chip has signed the first one with the time of its last shutdown."""
    device = make()
    first, second = signed(iat=NOON), signed(iat=NOON + 86_400)
    device.source.next = [first, second]
    device.client.connect(timeout=0)
    for _ in range(2):
        assert rejected(device) == first.value.encode()
    device.until(lambda: len(device.reported(TokenRefused)) == 2)
    stepped().wall_offset += seconds
    assert rejected(device) == first.value.encode()
    assert rejected(device) == second.value.encode()
    accepted(device, second)
    assert [(event.times, event.retry_in) for event in device.reported(TokenRefused)] == [
        *((1, 2.0), (2, 4.0), (3, 0.0), (4, 2.0))
    ]


def test_a_clock_that_is_corrected_gradually_changes_nothing(make: Make) -> None:
    device = make()
    token = signed(iat=NOON)
    device.source.next = [token]
    device.client.connect(timeout=0)
    for _ in range(5):
        assert rejected(device) == token.value.encode()
        stepped().wall_offset += 1.0
    accepted(device, token)


def test_the_connection_that_is_up_stays_up_meanwhile(make: Make) -> None:
    device = make()
    first = device.start()
    token = signed(iat=NOON)
    device.source.next = [token]
    device.client.rotate()
    for _ in range(3):
        assert rejected(device) == token.value.encode()
    first.expect_nothing()
    accepted(device, token)
    assert device.event(Rotated).kind == "handover"
    assert not device.reported(Disconnected)


@pytest.mark.parametrize(
    "token",
    [
        Token("an-opaque-token", 3600.0),
        signed(jti="without a time"),
        signed(iat=NOON, since=monotonic() - 61.0),
    ],
    ids=["opaque", "without a time", "not young"],
)
def test_another_follows_at_once_where_the_clock_cannot_be_the_cause(make: Make, token: Token) -> None:
    device = make(backoff=Backoff(initial=60.0, maximum=60.0))
    device.source.next = [token]
    device.client.connect(timeout=0)
    assert rejected(device) == token.value.encode()
    assert device.broker.accept().expect(CONNECT).password == password(2)
    assert device.reported(TokenRefused)[0].retry_in == 0.0


def test_another_follows_at_once_where_one_as_young_was_accepted_before_and_that_one_is_presented_again(
    make: Make,
) -> None:
    """The clock is not the cause then, so that the token may have been revoked; or it has changed since then."""
    device = make(backoff=Backoff(initial=60.0, maximum=60.0))
    first, second, third = (signed(iat=NOON + 100 * number) for number in range(3))
    device.source.next = [first, second, third]
    device.client.connect(timeout=0)
    accepted(device, first)
    device.event(Connected)
    device.client.rotate()
    assert rejected(device) == second.value.encode()
    for _ in range(3):
        assert rejected(device) == third.value.encode()
    accepted(device, third)
    device.event(Rotated)
    assert [(event.times, event.retry_in) for event in device.reported(TokenRefused)] == [
        *((1, 0.0), (2, 2.0), (3, 4.0), (4, 8.0))
    ]


@pytest.mark.parametrize("kind", ["opaque", "older"])
def test_the_same_one_is_presented_again_where_what_was_accepted_says_nothing_about_the_clock(
    make: Make, kind: str
) -> None:
    device = make()
    first = Token("an-opaque-token", 3600.0) if kind == "opaque" else signed(iat=NOON, since=monotonic() - 5.0)
    token = signed(iat=NOON + 100)
    device.source.next = [first, token]
    device.client.connect(timeout=0)
    accepted(device, first)
    device.event(Connected)
    device.client.rotate()
    assert [rejected(device) for _ in range(2)] == [token.value.encode()] * 2
    accepted(device, token)


def test_another_follows_at_once_where_the_broker_has_accepted_the_token_before(make: Make) -> None:
    device = make(backoff=Backoff(initial=0.01, maximum=0.01))
    token = signed(iat=NOON)
    device.source.next = [token]
    device.client.connect(timeout=0)
    accepted(device, token).close()
    assert rejected(device) == token.value.encode()
    assert device.broker.accept().expect(CONNECT).password == password(2)


@both
def test_connect_raises_once_that_has_lasted_a_minute(make: Make, pool: ThreadPoolExecutor, protocol: int) -> None:
    device = make(protocol)
    device.source.next = [signed(iat=NOON)]
    connecting = pool.submit(device.client.connect, 100)
    for _ in range(6):
        assert not connecting.done()
        rejected(device, protocol)
    with pytest.raises(TokenRefusedByBroker, match="6 times in a row"):
        connecting.result(10)


def test_connect_succeeds_at_a_broker_that_gets_its_keys_within_a_minute(make: Make, pool: ThreadPoolExecutor) -> None:
    device = make()
    connecting = pool.submit(device.client.connect, 100)
    for _ in range(4):
        rejected(device)
    device.answer()
    assert connecting.result(10) is True
    assert [event.times for event in device.reported(TokenRefused)] == [1, 2, 3, 4]


class TestHint:
    def test_of_the_event_says_that_the_clock_may_be_behind(self, make: Make) -> None:
        device = make()
        device.source.next = [signed(iat=NOON)]
        device.client.connect(timeout=0)
        rejected(device)
        begins = "it may have rejected the token because its clock is behind: the token was issued 0 s ago"
        assert device.event(TokenRefused).hint.startswith(begins)

    @pytest.mark.parametrize(
        ("claims", "says"),
        [
            ({"iat": NOON + 3}, "iat 3.0 s ahead of the authorization server's Date"),
            ({"iat": NOON, "nbf": NOON + 30}, "nbf 30.0 s ahead of"),
            ({"iat": NOON - 2}, "iat -2.0 s ahead of"),
        ],
    )
    def test_says_by_how_much_the_token_is_ahead_of_the_servers_date(self, claims: dict[str, int], says: str) -> None:
        server, now = ServerClock(), monotonic()
        server.learn(DATE, now)
        assert says in rejection_hint(signed(since=now, **claims), "pump-17", "pump-17", server)

    def test_measures_that_when_the_token_was_issued(self) -> None:
        server, now = ServerClock(), monotonic()
        server.learn(DATE, now)
        token = signed(since=now - 20, iat=NOON - 17)
        assert "iat 3.0 s ahead of the authorization" in rejection_hint(token, "pump-17", "pump-17", server)

    def test_of_an_old_token_does_not_mention_the_clock(self) -> None:
        token = signed(iat=NOON, since=monotonic() - 100)
        assert "clock" not in rejection_hint(token, "pump-17", "pump-17", ServerClock())


def test_one_that_was_accepted_at_a_rotation_is_not_presented_again() -> None:
    retry, token = RetryState(Backoff()), signed(iat=NOON)
    retry.rotated(token)
    assert retry.after_rejection(token) == 0.0
    assert retry.rejected == token
