"""A device that has just booted, with a given store and clock; run by test_boots.py, prints what it observed."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from mqtt_token_client import ClientCredentials, Event, FileStore, TokenClient
from mqtt_token_client.stores import record


def main() -> None:
    task = json.load(sys.stdin)
    record.boot_id = lambda: task["boot"]  # type: ignore[attr-defined]  # the machine does not boot during a test
    source = ClientCredentials(issuer=task["issuer"], client_id=task["client_id"], client_secret=task["client_secret"])
    events: list[Event] = []
    client = TokenClient(
        task["broker"],
        source,
        client_id=task["name"],
        store=FileStore(task["store"]),
        on_event=events.append,
    )
    heard: set[int] = set()
    client.subscribe(f"{task['name']}/#", lambda message: heard.add(int(message.payload)))
    pause, sent, year = threading.Event(), 0, time.gmtime().tm_year
    with client:
        first = client.token_expires_in
        deliveries = []
        until = time.monotonic() + task["seconds"]
        while time.monotonic() < until:
            if task["clock"] and time.monotonic() > until - task["seconds"] / 2:
                Path(task["clock"]).write_text("+0\n", encoding="ascii")  # NTP has answered
            deliveries.append(client.publish(f"{task['name']}/{sent % 5}", b"%d" % sent, qos=1))
            sent += 1
            pause.wait(0.04)
        for delivery in deliveries:
            delivery.wait(10)
        settled = time.monotonic() + 10
        while time.monotonic() < settled and (len(heard) < sent or client.stats.renewals > client.stats.rotations + 1):
            pause.wait(0.01)  # the last messages are on their way back, or the connection moves onto the newest token
        rotations = client.stats.rotations
    result = {
        "year": year,
        "year at the end": time.gmtime().tm_year,
        "first": first,
        "lost": sent - len(heard),
        "rotations": rotations,
        "events": [type(event).__name__ for event in events],
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
