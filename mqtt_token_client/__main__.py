"""``python -m mqtt_token_client`` is the command ``mqtt-token``."""

from .cli import main

main()
