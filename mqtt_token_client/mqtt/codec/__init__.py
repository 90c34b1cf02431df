"""Bytes to packets and back: no socket, no clock, and only public names of paho-mqtt."""
