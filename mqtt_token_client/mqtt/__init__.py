"""The MQTT side: connections that are driven by readiness and deadlines."""
