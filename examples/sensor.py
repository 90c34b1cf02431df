"""A sensor that runs until it is stopped: it reports readings, receives commands, and prints connection events.

Send it a command from another shell, with your broker's command-line client:

    topic pump/17/command/interval, payload 0.5
"""

import json
import logging
import random
import signal
import threading
from contextlib import suppress

from servers import token_client

from mqtt_token_client import (
    Connected,
    ConnectFailed,
    Disconnected,
    MessagesAbandoned,
    OutboxFull,
    RenewalFailed,
    Rotated,
    RotationFailed,
    TokenRefused,
    Will,
)

logging.getLogger("mqtt_token_client").setLevel(logging.ERROR)  # on_event() reports problems
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
signal.signal(signal.SIGINT, lambda *_: stop.set())
interval = 1.0
offline = False


def on_command(message):
    """A handler runs on the network thread: it stores the request and returns."""
    global interval
    if message.topic.endswith("/interval"):
        try:
            interval = min(max(0.1, float(message.payload)), 60.0)  # "inf" and "nan" are numbers too
        except ValueError:
            print(f"not a number of seconds: {message.payload!r}")
        else:
            print(f"reporting every {interval} s from now on")


def on_event(event):
    global offline
    match event:
        case Connected():
            print("online again" if offline else "online")
            offline = False
        case Rotated(kind=kind, gap=gap):
            print(f"using a new token by {kind}; the gap was {gap * 1000:.1f} ms")
        case Disconnected(cause=cause, retry_in=retry_in):
            offline = True
            print(f"offline ({cause}); trying again in {retry_in:.1f} s")
        case TokenRefused(reason_name=reason, retry_in=retry_in):
            print(f"the broker rejected the token ({reason}); trying again in {retry_in:.1f} s")
        case MessagesAbandoned(count=count):
            print(f"{count} messages were never delivered")
        case ConnectFailed(error=error) | RotationFailed(error=error) | RenewalFailed(error=error):
            print(f"{'needs manual intervention: ' if error.permanent else ''}{error}")


with token_client(will=Will("pump/17/state", "lost", qos=1, retain=True), on_event=on_event) as client:
    client.subscribe("pump/17/command/#", on_command)
    client.connect(timeout=0)  # do not wait, so that Ctrl-C works while there is no network
    try:
        client.publish("pump/17/state", "online", qos=1, retain=True)
        while not stop.wait(interval):
            reading = {"celsius": round(random.gauss(21, 0.3), 2)}
            try:
                client.publish("pump/17/temperature", json.dumps(reading), qos=1)
            except OutboxFull:
                print("offline for so long that the outbox is full; this reading is dropped")
        with suppress(OutboxFull):
            client.publish("pump/17/state", "offline", qos=1, retain=True)
    finally:
        client.disconnect()
