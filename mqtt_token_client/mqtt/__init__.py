"""The MQTT side: a connection that is driven by readiness and deadlines, over paho-mqtt as its engine."""
