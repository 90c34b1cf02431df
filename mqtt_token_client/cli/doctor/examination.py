"""Everything that a device needs, one step after the other, each by the library's own code."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import read_config
from ...errors import MqttTokenError
from ...sources.oauth.device_flow import DeviceFlow
from ...sources.oauth.token_endpoint import TokenEndpoint
from ...tokens.keeper import TokenKeeper
from ..login import Unattended, check_client, token_key
from .authorization import examine_claims, examine_clock, examine_discovery, examine_token
from .broker import examine_broker
from .findings import OK, Finding, failed
from .machine import examine_store, examine_system


def examine(path: str, topic: str | None, timeout: float) -> Iterator[Finding]:
    """Go through everything that a device needs. What depends on a step that failed is left out.

    Args:
        path: the configuration file.
        topic: to subscribe and publish to; by default the client id and ``/doctor``.
        timeout: seconds for the broker to answer.
    """
    try:
        config = read_config(path)
        check_client(config)
    except MqttTokenError as error:
        yield failed("configuration", error)
        return
    yield Finding("configuration", OK, path)
    yield from examine_system(config)
    if not (yield from examine_store(config)):
        return
    endpoint = getattr(config.source, "endpoint", None)
    if isinstance(endpoint, TokenEndpoint) and not (yield from examine_discovery(endpoint)):
        return
    keeper = TokenKeeper(
        Unattended(config.source) if isinstance(config.source, DeviceFlow) else config.source,
        config.store,
        key=token_key(config),
    )
    token = yield from examine_token(config, keeper)
    if isinstance(endpoint, TokenEndpoint):
        yield from examine_clock(endpoint)
    if token is None:
        return
    yield from examine_claims(token, endpoint if isinstance(endpoint, TokenEndpoint) else None)
    if config.client.keys() - {"client_id"}:
        yield from examine_broker(config, keeper, topic, timeout)
