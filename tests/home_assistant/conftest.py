"""The real Home Assistant with the integration of examples/home_assistant, and the cloud of its vendor."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from homeassistant.core import HomeAssistant

    from mqtt_token_client.testing import AuthorizationServer, Broker

    from .home import Home

EXAMPLE = Path(__file__).parents[2] / "examples/home_assistant"
PATIENCE = 30  # seconds

if find_spec("pytest_homeassistant_custom_component") is None:
    collect_ignore_glob = ["test_*.py"]  # pytest fails if it was to run nothing else
else:
    sys.path.insert(0, str(EXAMPLE))  # the tests import from it before Home Assistant looks for custom components


@pytest.fixture(autouse=True)
def _loopback(socket_enabled: None) -> None:
    """Allow sockets, to 127.0.0.1 only: that is how Home Assistant's plugin leaves it."""


@pytest.fixture(autouse=True)
def _no_client_is_left(_loopback: None) -> Iterator[None]:
    """The client's threads end soon after it disconnected: wait, as Home Assistant's plugin fails if it finds one."""
    yield
    deadline = time.monotonic() + PATIENCE
    for thread in threading.enumerate():
        if thread.name.startswith("mqtt-token-"):
            thread.join(deadline - time.monotonic())
            assert not thread.is_alive(), thread.name


@pytest.fixture
def home(
    idp: AuthorizationServer,
    broker: Broker,  # both before Home Assistant, which then ends first
    hass: HomeAssistant,
    enable_custom_integrations: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Home:
    """Home Assistant, and a person in front of it."""
    from custom_components.acme_pumps import const

    from .home import Home

    monkeypatch.setattr(const, "ISSUER", idp.issuer)
    monkeypatch.setattr(const, "CLIENT_ID", idp.device_client_id)
    monkeypatch.setattr(const, "BROKER", broker.url)
    monkeypatch.setattr(const, "PROFILE", "password")
    return Home(hass, idp, broker)
