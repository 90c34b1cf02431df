"""The asyncio interface: the same core as TokenClient, on the network thread that all clients of a process share."""

from .client import AsyncTokenClient

__all__ = ["AsyncTokenClient"]
