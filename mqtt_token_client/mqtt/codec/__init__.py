"""Bytes to packets and back: no socket, no clock."""
