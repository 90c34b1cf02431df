"""A sensor that runs until it is stopped: it reports, takes commands, and tells what happens to its connection.

Send it a command from another shell, if your broker has a tool for that:

    topic pump/17/command/interval, payload 0.5
"""

import json
import random
import signal
import threading

from servers import token_client

from mqtt_token_client import ConnectFailed, Disconnected, OutboxFull, RenewalFailed, Rotated, Will

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
signal.signal(signal.SIGINT, lambda *_: stop.set())
interval = 1.0


def on_command(message):
    """A handler runs on the network thread: note what is wanted and return."""
    global interval
    if message.topic.endswith("/interval"):
        interval = max(0.1, float(message.payload))
        print(f"reporting every {interval} s from now on")


def on_event(event):
    match event:
        case Rotated(kind=kind, gap=gap):
            print(f"on a new token by {kind}; the gap was {gap * 1000:.1f} ms")
        case Disconnected(cause=cause, retry_in=retry_in):
            print(f"offline ({cause}); trying again in {retry_in:.1f} s")
        case ConnectFailed(error=error) | RenewalFailed(error=error):
            print(f"{'somebody has to mend this: ' if error.permanent else ''}{error}")


with token_client(will=Will("pump/17/state", b"lost", qos=1, retain=True), on_event=on_event) as client:
    client.subscribe("pump/17/command/#", on_command)
    with client:
        client.publish("pump/17/state", "online", qos=1, retain=True)
        while not stop.wait(interval):
            reading = {"celsius": round(random.gauss(21, 0.3), 2)}
            try:
                client.publish("pump/17/temperature", json.dumps(reading), qos=1)
            except OutboxFull:
                print("offline for so long that the outbox is full; this reading is dropped")
        client.publish("pump/17/state", "offline", qos=1, retain=True)
