"""A device whose wall clock steps while it publishes to itself; run by test_clock_steps.py, prints what it observed."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from mqtt_token_client import ClientCredentials, Connected, Event, Rotated, TokenClient, TokenRenewed


def main() -> None:
    task = json.load(sys.stdin)
    source = ClientCredentials(issuer=task["issuer"], client_id=task["client_id"], client_secret=task["client_secret"])
    heard: set[int] = set()
    events: list[Event] = []
    client = TokenClient(task["broker"], source, client_id=task["name"], on_event=events.append)
    client.subscribe(f"{task['name']}/#", lambda message: heard.add(int(message.payload)))
    pause = threading.Event()
    steps_at = 25 * task["seconds"] // 2  # in the middle of a token's lifetime and of the run
    difference = 0.0
    with client:
        deliveries = []
        for number in range(25 * task["seconds"]):
            if number == steps_at:
                before = time.time() - time.monotonic()
                Path(task["clock"]).write_text(task["step"] + "\n", encoding="ascii")
                difference = time.time() - time.monotonic() - before
            deliveries.append(client.publish(f"{task['name']}/{number % 5}", b"%d" % number, qos=1))
            pause.wait(0.04)
        for delivery in deliveries:
            delivery.wait(10)
        settled = time.monotonic() + 10
        while time.monotonic() < settled and (
            len(heard) < len(deliveries) or client.stats.renewals > client.stats.rotations + 1
        ):
            pause.wait(0.01)  # the last messages are on their way back, or the connection moves onto the newest token
    wanted = (Connected, Rotated, TokenRenewed)
    result = {
        "lost": len(deliveries) - len(heard),
        "rotations": client.stats.rotations,
        "stepped": difference,
        "unwanted": [repr(event) for event in events if not isinstance(event, wanted)],
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
