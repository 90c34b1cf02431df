"""An open connection to the broker: TCP, TLS, WebSocket, proxy, keepalive."""
