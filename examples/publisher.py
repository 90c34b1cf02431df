"""The smallest publisher: ten readings, one a second, over as many tokens as it takes."""

import time

from servers import servers

from mqtt_token_client import TokenClient

with (
    servers() as (broker, protocol, source),
    TokenClient(broker, source, client_id="pump-17", protocol=protocol, on_event=print) as client,
):
    for reading in range(10):
        client.publish("pump/17/temperature", str(20 + reading / 10), qos=1)
        time.sleep(1)
