"""What drives the core: the Runtime protocol and the shared network thread."""
