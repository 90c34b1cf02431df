"""What the broker refuses and how it ends connections: whose fault it is, and when the next attempt comes."""

from __future__ import annotations

import math
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import (
    Backoff,
    BrokerRefused,
    Connected,
    ConnectFailed,
    Disconnected,
    RenewalFailed,
    RenewalPolicy,
    Rotated,
    RotationFailed,
    Token,
    TokenRefused,
    TokenUnchanged,
)
from mqtt_token_client.clock import monotonic
from tests.unit.device import Make, both, password
from tests.unit.packets import CONNECT, PUBLISH

BOUNDS = Backoff(initial=0.01, maximum=0.04, stable_after=60.0)


@pytest.fixture
def longest_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delay is the whole of its bound, so that a test can see the bounds."""
    monkeypatch.setattr("random.uniform", lambda _, bound: bound)


def refused_token(protocol: int) -> list[int]:
    return [0x86, 0x87] if protocol == 5 else [4, 5]


def each(four: list[int], five: list[int]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("protocol", "code"),
        [pytest.param(4, code, id=f"3.1.1-{code}") for code in four]
        + [pytest.param(5, code, id=f"5-{code:02x}") for code in five],
    )


class TestTokenRefused:
    @each([4, 5], [0x86, 0x87])
    def test_by_the_second_connection_leaves_the_first_up_and_a_new_one_follows_at_once(
        self, make: Make, protocol: int, code: int
    ) -> None:
        device = make(protocol, backoff=Backoff(initial=60.0, maximum=60.0))
        first = device.start()
        second = device.rotate()
        device.client.publish("t", b"1", qos=1)
        device.client.publish("t", b"2", qos=0)
        second.expect_nothing()
        second.connack(code)
        second.expect_end()
        assert [m.payload for m in first.expect_messages(2)] == [b"1", b"2"]
        refused = device.event(TokenRefused)
        assert (refused.reason, refused.times, refused.retry_in) == (0x86 if code in (4, 0x86) else 0x87, 1, 0.0)
        third = device.broker.accept()
        assert third.expect(CONNECT).password == password(3)
        third.connack(session_present=True)
        assert device.event(Rotated).kind == "handover"
        assert third.expect(PUBLISH).dup
        assert not device.reported(Disconnected)
        assert not device.reported(RotationFailed)
        assert device.source.requests == 3

    @both
    @pytest.mark.usefixtures("longest_delays")
    def test_again_and_again_leads_to_a_growing_back_off_with_a_new_token_each_time(
        self, make: Make, protocol: int
    ) -> None:
        device = make(protocol, backoff=BOUNDS)
        first = device.start()
        device.client.rotate()
        for _ in range(6):
            device.answer(refused_token(protocol)[1])
        last = device.answer(session_present=True)
        device.event(Rotated)
        refusals = device.reported(TokenRefused)
        assert [refused.times for refused in refusals] == [1, 2, 3, 4, 5, 6]
        assert [refused.retry_in for refused in refusals] == [0.0, 0.01, 0.02, 0.04, 0.04, 0.04]
        assert device.source.requests == 8
        first.expect_end()
        last.expect_nothing()
        assert not device.reported(Disconnected)

    @both
    def test_at_the_first_connect_once_costs_one_more_token(self, make: Make, protocol: int) -> None:
        device = make(protocol, backoff=Backoff(initial=60.0, maximum=60.0))
        device.client.connect(timeout=0)
        device.answer(refused_token(protocol)[1])
        second = device.broker.accept()
        assert second.expect(CONNECT).password == password(2)
        second.connack()
        device.event(Connected)
        assert device.reported(TokenRefused)[0].retry_in == 0.0

    def test_after_a_rotation_counts_anew(self, make: Make) -> None:
        device = make(backoff=Backoff(initial=60.0, maximum=60.0))
        device.start()
        for _ in range(2):
            device.rotate().connack(0x87)
            device.answer(session_present=True)
            device.event(Rotated)
        assert [refused.times for refused in device.reported(TokenRefused)] == [1, 1]

    def test_after_one_was_accepted_for_long_enough_counts_anew(self, make: Make) -> None:
        device = make(backoff=Backoff(initial=60.0, maximum=60.0, stable_after=0.0))
        device.client.connect(timeout=0)
        device.answer(0x87)
        device.answer()
        device.event(Connected)
        device.rotate().connack(0x87)
        device.event(TokenRefused)
        device.answer(session_present=True)
        device.event(Rotated)
        assert [refused.times for refused in device.reported(TokenRefused)] == [1, 1]

    @both
    def test_that_is_all_the_source_has_is_tried_again_after_a_back_off(self, make: Make, protocol: int) -> None:
        device = make(protocol, renewal=RenewalPolicy(backoff=Backoff(initial=0.01, maximum=0.01)))
        device.source.always = Token("the one and only token", 3600.0)
        device.client.connect(timeout=0)
        device.answer(refused_token(protocol)[1])
        assert isinstance(device.event(RenewalFailed).error, TokenUnchanged)
        assert device.event(ConnectFailed).retry_in > 0.3
        second = device.broker.accept()
        assert second.expect(CONNECT).password == b"the one and only token"
        assert device.source.requests == 2  # once connected it asks for another again, in time
        second.connack()
        device.event(Connected)


class TestBrokersTrouble:
    @each([3], [0x80, 0x83, 0x88, 0x89, 0x97, 0x9F, 0xEE])
    @pytest.mark.usefixtures("longest_delays")
    def test_keeps_the_token_and_backs_off(self, make: Make, protocol: int, code: int) -> None:
        device = make(protocol, backoff=BOUNDS)
        device.client.connect(timeout=0)
        for _ in range(4):
            device.answer(code)
        peer = device.broker.accept()
        assert peer.expect(CONNECT).password == password(1)
        peer.connack()
        device.event(Connected)
        failures = device.reported(ConnectFailed)
        assert [failed.retry_in for failed in failures] == [0.01, 0.02, 0.04, 0.04]
        assert not any(failed.error.permanent for failed in failures)
        assert device.source.requests == 1


class TestOurFault:
    CODES = ([1, 2], [0x81, 0x82, 0x84, 0x85, 0x8A, 0x8C, 0x90, 0x95, 0x9A, 0x9B])

    @each(*CODES)
    def test_is_raised_by_connect_in_one_line_that_says_what_to_do(
        self, make: Make, pool: ThreadPoolExecutor, protocol: int, code: int
    ) -> None:
        device = make(protocol)
        connected = pool.submit(device.client.connect, 10)
        device.answer(code)
        with pytest.raises(BrokerRefused) as raised:
            connected.result(20)
        text = str(raised.value)
        assert raised.value.permanent
        assert raised.value.reason == {1: 0x84, 2: 0x85}.get(code, code)
        assert text.startswith(f"{device.broker.url} rejected the connection: ")
        assert "; " in text
        assert "\n" not in text
        assert device.client.state == "closed"
        device.broker.expect_no_connection(0.05)

    @each([2], [0x85])
    def test_is_reported_and_retried_slowly_later(self, make: Make, protocol: int, code: int) -> None:
        device = make(protocol, backoff=Backoff(initial=0.001, maximum=1.0))
        device.start().close()
        device.answer(code)
        failed = device.event(ConnectFailed)
        assert failed.error.permanent
        assert 0.5 <= failed.retry_in <= 1.0
        assert device.client.connect(timeout=0.1) is False, "it goes on trying"
        device.broker.expect_no_connection(0.3)
        device.answer()
        device.event(Connected)
        assert device.source.requests == 1


class TestConnectionEndedForItsToken:
    @pytest.mark.parametrize("reason", [0x87, 0x98, 0xA0])
    def test_by_disconnect_gets_one_new_token_and_a_new_connection_at_once(self, make: Make, reason: int) -> None:
        device = make(backoff=Backoff(initial=60.0, maximum=60.0))
        device.start().disconnect(reason)
        lost = device.event(Disconnected)
        assert (lost.reason, lost.retry_in) == (reason, 0.0)
        second = device.broker.accept()
        assert second.expect(CONNECT).password == password(2)
        second.connack(session_present=True)
        device.event(Connected)
        assert device.source.requests == 2

    @pytest.mark.usefixtures("longest_delays")
    def test_again_and_again_backs_off(self, make: Make) -> None:
        device = make(backoff=BOUNDS)
        device.start().disconnect(0x87)
        for _ in range(5):
            device.answer(session_present=True).disconnect(0x87)
        device.answer(session_present=True)
        device.until(lambda: len(device.reported(Connected)) == 7)
        assert [lost.retry_in for lost in device.reported(Disconnected)] == [0.0, 0.01, 0.02, 0.04, 0.04, 0.04]
        assert device.source.requests == 7

    @both
    @pytest.mark.parametrize(("life", "left"), [(100.0, 8.0), (36_000.0, 25.0)])
    def test_by_a_bare_close_shortly_before_its_end_gets_a_new_token_at_once(
        self, make: Make, protocol: int, life: float, left: float
    ) -> None:
        backoff = Backoff(initial=60.0, maximum=60.0)
        device = make(protocol, backoff=backoff, renewal=RenewalPolicy(fraction=0.9999, jitter=0.0))
        device.source.next = [Token("a token near its end", life, since=monotonic() + left - life)]
        device.start().close()
        assert device.event(Disconnected).retry_in == 0.0
        second = device.broker.accept()
        assert second.expect(CONNECT).password == password(2)

    @both
    @pytest.mark.parametrize(
        ("life", "left"), [(3600.0, 3600.0), (100.0, 12.0), (36_000.0, 40.0), (math.inf, math.inf)]
    )
    def test_is_not_what_a_bare_close_in_mid_life_means(
        self, make: Make, protocol: int, life: float, left: float
    ) -> None:
        device = make(protocol, renewal=RenewalPolicy(fraction=0.9999, jitter=0.0))
        token = Token("a token in mid-life", life, since=monotonic() + left - life if left < life else None)
        device.source.next = [token]
        device.start().close()
        device.event(Disconnected)
        assert device.broker.accept().expect(CONNECT).password == b"a token in mid-life"
        assert device.source.requests == 1

    @pytest.mark.parametrize("reason", [0x00, 0x8B, 0x8E, 0x93, 0x9C])
    def test_is_not_what_another_reason_means_even_near_its_end(self, make: Make, reason: int) -> None:
        device = make(renewal=RenewalPolicy(fraction=0.9999, jitter=0.0))
        device.source.next = [Token("a token near its end", 200.0, since=monotonic() - 185.0)]
        device.start().disconnect(reason)
        assert device.event(Disconnected).reason == reason
        assert device.broker.accept().expect(CONNECT).password == b"a token near its end"
        assert device.source.requests == 1


class TestLossInMidLife:
    @both
    def test_is_followed_by_a_random_part_of_the_first_bound(
        self, make: Make, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("random.uniform", random.Random(7).uniform)
        device = make(protocol, backoff=Backoff(initial=0.2, maximum=60.0, stable_after=0.0))
        peer = device.start()
        for _ in range(4):
            peer.close()
            peer = device.answer(session_present=True)
        device.until(lambda: len(device.reported(Connected)) == 5)
        delays = [lost.retry_in for lost in device.reported(Disconnected)]
        assert all(0.0 < delay < 0.2 for delay in delays)
        assert len(set(delays)) == 4

    @both
    @pytest.mark.usefixtures("longest_delays")
    def test_right_after_connack_each_time_makes_the_delays_grow(self, make: Make, protocol: int) -> None:
        device = make(protocol, backoff=BOUNDS)
        device.start().close()
        for _ in range(4):
            device.answer(session_present=True).close()
        device.until(lambda: len(device.reported(Disconnected)) == 5)
        assert [lost.retry_in for lost in device.reported(Disconnected)] == [0.01, 0.02, 0.04, 0.04, 0.04]
        assert device.source.requests == 1

    @pytest.mark.usefixtures("longest_delays")
    def test_after_a_stable_connection_begins_the_delays_anew(self, make: Make) -> None:
        device = make(backoff=Backoff(initial=0.01, maximum=0.04, stable_after=0.5))
        device.start().close()
        device.answer(session_present=True).close()
        stable = device.answer(session_present=True)
        device.until(lambda: len(device.reported(Connected)) == 3)
        stable.expect_nothing(0.6)
        stable.close()
        device.until(lambda: len(device.reported(Disconnected)) == 3)
        assert [lost.retry_in for lost in device.reported(Disconnected)] == [0.01, 0.02, 0.01]
