"""Two clients with one client identifier, at a broker that does not say so (MQTT 3.1.1 has no reason code)."""

from __future__ import annotations

from mqtt_token_client import Backoff, Disconnected
from tests.unit.device import Device, Make, both

QUICK = Backoff(initial=1.0, maximum=8.0, stable_after=60.0)
HINT = "another client uses the same client_id"


def throw_out(device: Device, *, after: float = 1.0) -> str:
    """Accept a connection and end it; return what is reported."""
    peer = device.answer(session_present=True)
    peer.expect_nothing(after)
    peer.close()
    return device.event(Disconnected).cause


@both
def test_the_third_connection_in_a_row_that_ends_soon_is_reported_as_what_it_looks_like(
    make: Make, protocol: int
) -> None:
    device = make(protocol, backoff=QUICK)
    device.client.connect(timeout=0)
    assert [HINT in throw_out(device) for _ in range(5)] == [False, False, True, True, True]


def test_a_connection_that_lasted_is_not(make: Make) -> None:
    device = make(backoff=QUICK)
    device.client.connect(timeout=0)
    found = [HINT in throw_out(device, after=40.0 if number == 2 else 1.0) for number in range(5)]
    assert found == [False] * 5


def test_nor_is_one_that_the_broker_gives_a_reason_for(make: Make) -> None:
    device = make(backoff=QUICK)
    device.client.connect(timeout=0)
    for _ in range(5):
        device.answer(session_present=True).disconnect(0x8B)
        assert HINT not in device.event(Disconnected).cause
