"""Where the examples connect: your own servers, named by environment variables, or the embedded ones of the demo.

MQTT_BROKER          such as mqtts://broker.example.com
MQTT_PROTOCOL        5 (the default), or 4 for MQTT 3.1.1
OAUTH_ISSUER         such as https://id.example.com/realms/plant
OAUTH_CLIENT_ID      the device's client at the authorization server
OAUTH_CLIENT_SECRET  its secret

or, for the publisher and the sensor, all of these in one file, which the command mqtt-token reads too:

MQTT_TOKEN_CONFIG    such as mqtt-token.toml

Run as a script, it runs the embedded servers until Ctrl-C, for examples in other shells, and prints the variables to
set there.
"""

import argparse
import json
import os
import shlex
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from mqtt_token_client import ClientCredentials, TokenClient


@contextmanager
def servers():
    """The broker's URL, the MQTT version (5, or 4 for 3.1.1), and a token source for it."""
    if "MQTT_BROKER" in os.environ:
        yield (
            os.environ["MQTT_BROKER"],
            int(os.environ.get("MQTT_PROTOCOL", "5")),
            ClientCredentials(
                issuer=setting("OAUTH_ISSUER"),
                client_id=setting("OAUTH_CLIENT_ID"),
                client_secret=setting("OAUTH_CLIENT_SECRET"),
            ),
        )
        return
    from mqtt_token_client.testing import AuthorizationServer, Broker

    with AuthorizationServer(lifetime=6) as server, Broker(server) as broker:
        yield (
            broker.url,
            5,
            ClientCredentials(issuer=server.issuer, client_id=server.client_id, client_secret=server.client_secret),
        )


def setting(name):
    if name not in os.environ:
        sys.exit(f"{name} must be set with MQTT_BROKER; see the top of examples/servers.py")
    return os.environ[name]


@contextmanager
def token_client(**options):
    """A client that is not connected yet. The options are those of TokenClient that do not depend on the servers."""
    if "MQTT_TOKEN_CONFIG" in os.environ:
        yield TokenClient.from_config(os.environ["MQTT_TOKEN_CONFIG"], **options)
        return
    with servers() as (broker, protocol, source):
        yield TokenClient(broker, source, client_id="pump-17", protocol=protocol, **options)


def serve(arguments):
    """Run the embedded servers until Ctrl-C."""
    from mqtt_token_client.testing import AuthorizationServer, Broker

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    check_free(arguments.broker_port, "--broker-port")
    check_free(arguments.issuer_port, "--issuer-port")
    folder, state = arguments.state, None
    if folder is not None:
        folder = folder.absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder / "authorization-server.json"
    with (
        AuthorizationServer(arguments.lifetime, port=arguments.issuer_port, state=state) as server,
        Broker(server, port=arguments.broker_port) as broker,
    ):
        if folder is not None:
            config = (Path.cwd() if arguments.here else folder) / "mqtt-token.toml"
            config.write_text(toml(broker, server, folder))
            print("# A device that a person approves, once:")
            print(f"export MQTT_TOKEN_CONFIG={shlex.quote(str(config))}")
            print("# or a device that has a secret:")
        print(f"export MQTT_BROKER={broker.url} OAUTH_ISSUER={server.issuer}")
        print(f"export OAUTH_CLIENT_ID={server.client_id} OAUTH_CLIENT_SECRET={server.client_secret}", flush=True)
        stop.wait()


def check_free(port, option):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(f"port {port}: {error.strerror}; choose another port with {option}")


def toml(broker, server, folder):
    """The file that mqtt-token and TokenClient.from_config() read."""
    return f"""\
broker = "{broker.url}"
client_id = "pump-17"
store = {json.dumps(f"file:{folder / 'store'}", ensure_ascii=False)}

[source]
type = "device_flow"
issuer = "{server.issuer}"
client_id = "{server.device_client_id}"
"""


def options():
    parser = argparse.ArgumentParser(description="Run a broker and an authorization server until Ctrl-C.")
    parser.add_argument("--broker-port", type=int, default=18830, metavar="PORT", help="[%(default)s]")
    parser.add_argument("--issuer-port", type=int, default=18831, metavar="PORT", help="[%(default)s]")
    parser.add_argument("--lifetime", type=float, default=30, metavar="SECONDS", help="token lifetime [%(default)s]")
    parser.add_argument("--state", type=Path, metavar="FOLDER", help="store there what must survive a restart")
    parser.add_argument("--here", action="store_true", help="write mqtt-token.toml here instead of into FOLDER")
    arguments = parser.parse_args()
    if arguments.here and arguments.state is None:
        parser.error("--here requires --state")
    return arguments


if __name__ == "__main__":
    serve(options())
