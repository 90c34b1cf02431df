"""An authorization server and a broker in this process, on loopback, for the demo and for your own tests.

    with AuthorizationServer(lifetime=2) as server, Broker(server) as broker:
        source = ClientCredentials(issuer=server.issuer, client_id=server.client_id, client_secret=server.client_secret)
        with TokenClient(broker.url, source, client_id="pump-17") as client:
            ...

For the device flow, the server has a client without a secret, and a method that approves its login:

    source = DeviceFlow(
        issuer=server.issuer, client_id=server.device_client_id, prompt=lambda login: server.approve(login.user_code)
    )

pytest finds them as the fixtures ``idp``, ``broker``, ``token_source`` and ``clock``; see docs/testing.md.

They need the extra ``testing``. Do not expose them to a network.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .authorization_server import AuthorizationServer as AuthorizationServer
    from .broker import Broker as Broker

_MODULES = {"AuthorizationServer": "authorization_server", "Broker": "broker"}


def __getattr__(name: str) -> Any:
    # Loaded when used: pytest imports this package for its plugin in every run.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    except ImportError as error:
        raise ImportError(
            "mqtt_token_client.testing needs the \"testing\" extra: pip install 'mqtt-token-client[testing]'"
        ) from error


__all__ = ["AuthorizationServer", "Broker"]
