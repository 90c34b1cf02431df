"""An existing paho-mqtt script, converted to tokens. The replaced paho-mqtt lines are kept as comments."""

import time
from contextlib import suppress

from servers import servers

# import paho.mqtt.client as mqtt
from mqtt_token_client import TokenClient


# def on_message(client, userdata, message):
def on_message(message):
    print(message.topic, message.payload.decode())


with suppress(KeyboardInterrupt), servers() as (broker, protocol, source):
    # client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="pump-17")
    # client.username_pw_set("pump-17", "a password that never changes")
    # client.on_message = on_message
    client = TokenClient(broker, source, client_id="pump-17", protocol=protocol, on_message=on_message)

    try:
        # client.connect("broker.example.com", 8883)
        # client.loop_start()
        client.connect()

        client.subscribe("pump/17/echo", qos=1)
        for number in range(10):
            client.publish("pump/17/echo", f"reading {number}", qos=1)
            time.sleep(1)
    finally:
        # client.disconnect()
        # client.loop_stop()
        client.disconnect()
