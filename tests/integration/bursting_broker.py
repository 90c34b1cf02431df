"""The broker of the test kit in a process of its own, whose memory is not that of the client under test.

Output: a line of JSON, {"url", "issuer", "client_id", "client_secret"}. Input: the topic and the number of messages of
a burst at QoS 1, as JSON; it ends with the input.
"""

from __future__ import annotations

import json
import sys

from mqtt_token_client.testing import AuthorizationServer, Broker


def main() -> None:
    with AuthorizationServer() as server, Broker(server) as broker:
        names = ("issuer", "client_id", "client_secret")
        sys.stdout.write(json.dumps({"url": broker.url, **{name: getattr(server, name) for name in names}}) + "\n")
        sys.stdout.flush()
        for line in sys.stdin:
            topic, count = json.loads(line)
            for number in range(count):
                broker.publish(topic, b"%d" % number, qos=1)


if __name__ == "__main__":
    main()
