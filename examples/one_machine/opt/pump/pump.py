"""A pump that publishes its temperature every ten seconds, until systemd stops it."""

import os
import random
import signal
import sys
import time
from contextlib import suppress

from mqtt_token_client import OutboxFull, TokenClient
from mqtt_token_client.contrib.systemd import notify_systemd

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
client = TokenClient.from_config(os.environ["MQTT_TOKEN_CONFIG"], on_event=print)
client.subscribe("pump/17/command/#", lambda message: print(message.topic, message.payload))
with client, notify_systemd(client):
    while True:
        with suppress(OutboxFull):  # after 28 hours without a connection: drop this reading, keep those before
            client.publish("pump/17/temperature", f"{random.gauss(21.5, 0.2):.1f}", qos=1)
        time.sleep(10)
