"""pytest fixtures: an authorization server and a broker in this process, and a clock that jumps.

pytest loads them by itself if it finds the extra ``testing``:

    def test_the_pump_stops(broker, token_source):
        with TokenClient(broker.url, token_source, client_id="pump-17") as client:
            Pump(client)
            broker.publish("pump/17/command", "stop", qos=1)
            assert broker.messages("pump/17/state", count=1)[0].payload == b"stopped"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # only a test that uses a fixture loads what is behind it
    from ..sources.oauth.client_credentials import ClientCredentials
    from .authorization_server import AuthorizationServer
    from .broker import Broker
    from .device_clock import DeviceClock

_LIFETIME = 60.0  # seconds that a token is valid


@pytest.fixture
def idp() -> Iterator[AuthorizationServer]:
    """A running :class:`~mqtt_token_client.testing.AuthorizationServer`, whose tokens are valid for a minute."""
    from . import AuthorizationServer

    with AuthorizationServer(_LIFETIME) as server:
        yield server


@pytest.fixture
def broker(idp: AuthorizationServer) -> Iterator[Broker]:
    """A running :class:`~mqtt_token_client.testing.Broker` that accepts the tokens of ``idp``."""
    from . import Broker

    with Broker(idp) as broker:
        yield broker


@pytest.fixture
def token_source(idp: AuthorizationServer) -> ClientCredentials:
    """A source of the tokens of ``idp``."""
    from ..sources.oauth.client_credentials import ClientCredentials

    return ClientCredentials(issuer=idp.issuer, client_id=idp.client_id, client_secret=idp.client_secret)


@pytest.fixture
def clock() -> Iterator[DeviceClock]:
    """The :class:`~mqtt_token_client.testing.device_clock.DeviceClock` of this process."""
    from .device_clock import DeviceClock

    with DeviceClock() as clock:
        yield clock
