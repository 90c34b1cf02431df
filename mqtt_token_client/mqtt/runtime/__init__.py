"""What drives the core: the Runtime protocol, the shared network thread, and the adapter to asyncio."""
