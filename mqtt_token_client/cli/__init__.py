"""The ``mqtt-token`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say that the extra ``cli`` is missing."""
    try:
        from .commands import mqtt_token
        from .encoding import allow_any_encoding, report_full_outputs
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        sys.exit("mqtt-token needs the \"cli\" extra: pip install 'mqtt-token-client[cli]'")
    except KeyboardInterrupt:  # Ctrl-C while it loads; later, click prints the same
        sys.exit("Aborted!")
    allow_any_encoding()
    report_full_outputs()
    mqtt_token(prog_name="mqtt-token")
