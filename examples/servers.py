"""Where the examples connect: your own servers, named by environment variables, or the embedded ones of the demo.

MQTT_BROKER          such as mqtts://broker.example.com
OAUTH_ISSUER         such as https://id.example.com/realms/plant
OAUTH_CLIENT_ID      the device's client at the authorization server
OAUTH_CLIENT_SECRET  its secret
"""

import os
from contextlib import contextmanager

from mqtt_token_client import ClientCredentials


@contextmanager
def servers():
    """The broker's URL, the MQTT version (5, or 4 for 3.1.1), and a source of tokens for it."""
    if "MQTT_BROKER" in os.environ:
        yield (
            os.environ["MQTT_BROKER"],
            5,
            ClientCredentials(
                issuer=os.environ["OAUTH_ISSUER"],
                client_id=os.environ["OAUTH_CLIENT_ID"],
                client_secret=os.environ["OAUTH_CLIENT_SECRET"],
            ),
        )
        return
    from mqtt_token_client.testing import AuthorizationServer, Broker

    with AuthorizationServer(lifetime=6) as server, Broker(server) as broker:
        yield (
            broker.url,
            4,
            ClientCredentials(issuer=server.issuer, client_id=server.client_id, client_secret=server.client_secret),
        )
