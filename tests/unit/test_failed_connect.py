"""A connect() that fails: each failure is logged once, and no next attempt is promised where there is none."""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from mqtt_token_client import BrokerRefused, ConnectFailed, RenewalFailed, TokenRefused, TokenRequestRefused
from mqtt_token_client.errors import AuthorizationServerUnavailable
from tests.unit.device import Make
from tests.unit.scripted_broker import PATIENCE

INVALID_CLIENT = TokenRequestRefused("the client is not known", error="invalid_client", status=401)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [text.partition("(")[0] for text in found]


def test_that_raises_a_rejected_token_request_promises_no_next_one(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    device = make()
    device.source.always = INVALID_CLIENT
    with pytest.raises(TokenRequestRefused):
        device.client.connect(timeout=PATIENCE)
    assert device.event(RenewalFailed).retry_in == math.inf
    assert device.event(ConnectFailed).retry_in == math.inf
    assert warnings(caplog) == ["device: RenewalFailed"]


def test_that_raises_a_rejection_by_the_broker_promises_no_next_attempt(make: Make, pool: ThreadPoolExecutor) -> None:
    device = make()
    connecting = pool.submit(device.client.connect, PATIENCE)
    device.answer(0x85)
    with pytest.raises(BrokerRefused):
        connecting.result(PATIENCE)
    assert device.event(ConnectFailed).retry_in == math.inf


@pytest.mark.usefixtures("impatient")
def test_that_raises_a_rejected_token_promises_no_next_one(make: Make, pool: ThreadPoolExecutor) -> None:
    device = make()
    connecting = pool.submit(device.client.connect, PATIENCE)
    for _ in range(2):
        device.answer(0x87)
    with pytest.raises(BrokerRefused):
        connecting.result(PATIENCE)
    assert [event.retry_in < math.inf for event in device.reported(TokenRefused)] == [True, False]


def test_that_does_not_wait_says_when_the_next_attempt_is(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    device = make()
    device.source.always = INVALID_CLIENT
    device.client.connect(timeout=0)
    assert device.event(RenewalFailed).retry_in < math.inf
    assert device.event(ConnectFailed).retry_in < math.inf
    assert warnings(caplog) == ["device: RenewalFailed"]


def test_that_goes_on_says_when_the_next_attempt_is(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    device = make()
    device.source.always = AuthorizationServerUnavailable("busy", retry_after=60.0)
    assert device.client.connect(timeout=0.1) is False
    assert device.event(RenewalFailed).retry_in < math.inf
    assert device.event(ConnectFailed).retry_in < math.inf
    assert warnings(caplog) == ["device: RenewalFailed"]


def test_that_waited_before_does_not_change_later_failures(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    device = make()
    device.source.gate.clear()
    assert device.client.connect(timeout=0.1) is False
    device.source.always = INVALID_CLIENT
    device.source.gate.set()
    assert device.event(ConnectFailed).retry_in < math.inf
