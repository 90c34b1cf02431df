"""The other side of the traffic: an independent client (paho-mqtt, MQTT 3.1.1) in its own process, so that its work
does not burden the process under test. traffic.py starts it and talks to it in lines of JSON.

Input: {"port", "name", "token", "session"} (whether it keeps one), then [topic, payload, qos] to publish, or null to
request the arrivals. Output: "ready", then for each null {"wills", "arrivals": [[topic, payload, when], ...]}, with
those that were not reported before.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import deque
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


def send_at_once(_client: paho.Client, _userdata: object, sock: Any) -> None:
    # paho leaves Nagle's algorithm on, which holds messages back while the other side is silent.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main() -> None:
    given = json.loads(sys.stdin.readline())
    name, wills, arrivals = given["name"], 0, deque[tuple[str, str, float]]()
    subscribed = threading.Event()

    def arrived(_client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        nonlocal wills
        if message.topic.startswith("will/"):
            wills += 1
        else:
            arrivals.append((message.topic, message.payload.decode(), time.monotonic()))

    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"peer-of-{name}",
        clean_session=not given["session"],
        reconnect_on_failure=True,
    )
    client.reconnect_delay_set(1, 1)
    client.username_pw_set("peer", given["token"])
    client.max_inflight_messages_set(1000)
    client.on_connect = lambda client, *_: client.subscribe([(f"up/{name}/#", 2), (f"will/{name}", 1)])
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = arrived
    client.on_socket_open = send_at_once
    client.connect("127.0.0.1", given["port"])
    client.loop_start()
    if not subscribed.wait(10):
        sys.exit("the peer could not subscribe")
    sys.stdout.write(json.dumps("ready") + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command = json.loads(line)
        if command is not None:
            topic, payload, qos = command
            client.publish(topic, payload, qos=qos)
        else:
            new = [arrivals.popleft() for _ in range(len(arrivals))]
            sys.stdout.write(json.dumps({"wills": wills, "arrivals": new}) + "\n")
            sys.stdout.flush()
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
