"""A device with a wrong wall clock that signs assertions; run by test_client_auth.py, prints the tokens it received."""

from __future__ import annotations

import json
import sys
import time

from mqtt_token_client import ClientCredentials, PrivateKeyJWT, SignedJWT


def main() -> None:
    task = json.load(sys.stdin)
    auth = PrivateKeyJWT(task["client_key"])
    discovered = ClientCredentials(client_id=task["client_id"], client_auth=auth, issuer=task["issuer"])
    given = ClientCredentials(client_id=task["client_id"], client_auth=auth, token_endpoint=task["token_endpoint"])
    signed = SignedJWT(task["key"], "ES256", {"aud": "rabbitmq"}, 60, time_from=task["issuer"])
    result = {
        "clock": time.time(),
        "discovered": discovered.fetch(None).value,
        "given": given.fetch(None).value,
        "signed": signed.fetch(None).value,
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
