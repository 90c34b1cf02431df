"""The asyncio interface: the same core as TokenClient, on the network thread that all clients of a process share."""

# connect() would load it otherwise, and the event loop would stand still meanwhile.
from ..mqtt.lifecycle import manager  # noqa: F401
from .client import AsyncTokenClient

__all__ = ["AsyncTokenClient"]
