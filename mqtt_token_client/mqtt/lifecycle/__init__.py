"""Connect, rotate, retry and close."""
