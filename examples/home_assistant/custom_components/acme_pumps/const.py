"""Where Acme's cloud is."""

DOMAIN = "acme_pumps"
ISSUER = "https://id.acme.example"
BROKER = "wss://mqtt.acme.example/mqtt"
CLIENT_ID = "home-assistant"
SCOPE = "mqtt offline_access"
PROFILE = "bearer-header"  # the token goes into the Authorization header of the WebSocket upgrade
CONNECT_TIMEOUT = 10  # seconds
