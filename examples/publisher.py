"""The smallest publisher: ten readings, one a second, over as many tokens as it takes."""

import time

from servers import token_client

with token_client(on_event=print) as client, client:  # the second one connects
    for reading in range(10):
        client.publish("pump/17/temperature", str(20 + reading / 10), qos=1)
        time.sleep(1)
