"""MQTT with short-lived tokens: obtained, stored, renewed, and the live connection moved onto each new one."""

__version__ = "0.1.0"
