"""The other side of the traffic: independent clients (paho-mqtt, MQTT 3.1.1) in a process of their own, so that their
work does not burden the process under test. All of them work on one thread, in one select loop: a thread, or a process,
for each would cost more than the messages. traffic.py starts it and talks to it in lines of JSON.

Input: {"port", "name", "token", "session"} (whether it keeps one) for another client, [name, topic, payload, qos] to
publish, or a name to request the arrivals. Output: "ready" for each client, and for each name {"wills", "arrivals":
[[topic, payload, when], ...]}, with those that were not reported before.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

RECONNECT_AFTER = 1.0  # seconds
LOOK_INTERVAL = 0.5  # seconds: a keepalive or a reconnect may be due


class Client:
    """One of the clients, subscribed to what the client under test sends, and to its will."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.name = given["name"]
        self.subscribed = False
        self._wills = 0
        self._arrivals: list[tuple[str, str, float]] = []
        self._retry_at = 0.0
        paho_client = self._paho = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"peer-of-{self.name}", clean_session=not given["session"]
        )
        paho_client.username_pw_set("peer", given["token"])
        paho_client.max_inflight_messages_set(1000)
        paho_client.on_connect = lambda client, *_: client.subscribe(
            [(f"up/{self.name}/#", 2), (f"will/{self.name}", 1)]
        )
        paho_client.on_subscribe = self._on_subscribe
        paho_client.on_message = self._on_message
        paho_client.on_socket_open = _send_at_once
        paho_client.connect("127.0.0.1", given["port"])

    @property
    def socket(self) -> Any:
        """None while it is not connected."""
        return self._paho.socket()

    @property
    def wants_to_write(self) -> bool:
        return self._paho.want_write()

    def read(self) -> None:
        self._paho.loop_read()
        if self.socket is not None and hasattr(socket, "TCP_QUICKACK"):  # as Mosquitto leaves Nagle's algorithm on
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def write(self) -> None:
        self._paho.loop_write()

    def look(self) -> None:
        """Send PINGREQ, or connect again, if it is time for that."""
        if self._paho.socket() is not None:
            self._paho.loop_misc()
            self._retry_at = time.monotonic() + RECONNECT_AFTER
        elif time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RECONNECT_AFTER
            with contextlib.suppress(OSError):
                self._paho.reconnect()

    def publish(self, topic: str, payload: str, qos: int) -> None:
        self._paho.publish(topic, payload, qos=qos)

    def report(self) -> dict[str, Any]:
        arrivals, self._arrivals = self._arrivals, []
        return {"wills": self._wills, "arrivals": arrivals}

    def close(self) -> None:
        self._paho.disconnect()

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed = True

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if message.topic.startswith("will/"):
            self._wills += 1
        else:
            self._arrivals.append((message.topic, message.payload.decode(), time.monotonic()))


def _send_at_once(_client: paho.Client, _userdata: object, sock: Any) -> None:
    # paho leaves Nagle's algorithm on, which holds messages back while the other side is silent.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Clients:
    """The clients of this process."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._looked_at = 0.0

    def turn(self, commands: int | None = None) -> bool:
        """Wait until there is something to do, and do it. Returns whether there are commands to read."""
        sockets = {one.socket: one for one in self._clients.values() if one.socket is not None}
        writing = [sock for sock, one in sockets.items() if one.wants_to_write]
        reading = [*sockets] if commands is None else [*sockets, commands]
        readable, writable, _ = select.select(reading, writing, [], LOOK_INTERVAL)
        for sock in writable:
            sockets[sock].write()
        for sock in readable:
            if sock != commands:
                sockets[sock].read()
        if time.monotonic() - self._looked_at > LOOK_INTERVAL:
            self._looked_at = time.monotonic()
            for one in self._clients.values():
                one.look()
        return commands in readable

    def run(self, command: Any) -> None:
        if isinstance(command, dict):
            one = self._clients[command["name"]] = Client(command)
            ends = time.monotonic() + 10
            while not one.subscribed:
                if time.monotonic() > ends:
                    sys.exit("the peer could not subscribe")
                self.turn()
            _answer("ready")
        elif isinstance(command, list):
            name, topic, payload, qos = command
            self._clients[name].publish(topic, payload, qos)
        else:
            _answer(self._clients[command].report())

    def close(self) -> None:
        for one in self._clients.values():
            one.close()


def _answer(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    clients, commands, unread = Clients(), sys.stdin.fileno(), b""
    while True:
        if clients.turn(commands):
            data = os.read(commands, 65_536)
            if not data:
                break
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                clients.run(json.loads(line))
    clients.close()


if __name__ == "__main__":
    main()
