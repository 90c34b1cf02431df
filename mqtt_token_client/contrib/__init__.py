"""For programs that keep another MQTT client."""
