"""An authorization server and a broker in this process, on loopback, for the demo and for your own tests.

    with AuthorizationServer(lifetime=2) as server, Broker(server) as broker:
        source = ClientCredentials(issuer=server.issuer, client_id=server.client_id, client_secret=server.client_secret)
        with TokenClient(broker.url, source, client_id="pump-17", protocol=4) as client:
            ...

For the device flow, the server has a client without a secret, and a method that approves its login:

    source = DeviceFlow(
        issuer=server.issuer, client_id=server.device_client_id, prompt=lambda login: server.approve(login.user_code)
    )

They need the extra ``demo``. Do not expose them to a network.
"""

try:
    from .authorization_server import AuthorizationServer
    from .broker import Broker
except ImportError as error:
    raise ImportError(
        "mqtt_token_client.testing needs the \"demo\" extra: pip install 'mqtt-token-client[demo]'"
    ) from error

__all__ = ["AuthorizationServer", "Broker"]
