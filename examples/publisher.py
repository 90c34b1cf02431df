"""A minimal publisher: ten readings, one per second, while the connection moves from token to token."""

import time
from contextlib import suppress

from servers import token_client

with suppress(KeyboardInterrupt), token_client(on_event=print) as client, client:  # entering the client connects it
    for number in range(10):
        reading = f"{20 + number / 10:.1f}"
        client.publish("pump/17/temperature", reading, qos=1)
        print(f"published {reading}")
        time.sleep(1)
