"""The names of paho-mqtt that a client of this library does not have, and what to use instead."""

from __future__ import annotations

_EVENTS = "pass on_event=f to the constructor: f gets Connected, Disconnected and every other Event"
_LOOP = "connect() starts the network thread, and disconnect() stops it"
_TLS = "pass tls=TlsFiles(...) to the constructor; mqtts:// in the broker's URL turns TLS on"
_INSTEAD = {
    "on_message": "pass on_message=f to the constructor, or to subscribe(topic_filter, f): f gets one Message",
    "message_callback_add": "pass the handler to subscribe(topic_filter, handler)",
    "message_callback_remove": "call unsubscribe(topic_filter)",
    "on_event": "pass on_event=f to the constructor",
    "on_publish": "publish() returns a Delivery: use its wait() or add_done_callback()",
    "on_log": "the library logs to logging.getLogger('mqtt_token_client')",
    "enable_logger": "the library logs to logging.getLogger('mqtt_token_client')",
    "on_connect": _EVENTS + "; subscriptions are restored after every reconnect",
    "loop": _LOOP,
    "loop_forever": _LOOP,
    "loop_start": _LOOP,
    "loop_stop": _LOOP,
    "connect_async": "connect(timeout=0) does not wait",
    "connect_srv": "pass the broker's URL to the constructor",
    "reconnect": "the client reconnects by itself until disconnect()",
    "reconnect_delay_set": "pass backoff=Backoff(initial, maximum) to the constructor",
    "is_connected": "compare state with 'connected'",
    "username_pw_set": "the token is the password; pass profile= to the constructor for another user name",
    "tls_set": _TLS,
    "tls_set_context": _TLS,
    "tls_insecure_set": _TLS,
    "will_set": "pass will=Will(topic, payload) to the constructor",
    "ws_set_options": "pass a broker's URL that begins with wss:// to the constructor",
    "proxy_set": "pass proxy='http://...' or 'socks5://...' to the constructor",
    "max_inflight_messages_set": "pass max_inflight= to the constructor",
    "max_queued_messages_set": "pass max_queued= to the constructor",
    "manual_ack_set": "pass manual_ack=True to the constructor",
    "ack": "pass manual_ack=True to the constructor, and call acknowledge() of the Message",
    "user_data_set": "a handler is any callable: use functools.partial, a closure or a bound method",
}


def missing_name(owner: str, name: str) -> str:
    """Return the text of an AttributeError for a name that the class ``owner`` does not have."""
    instead = _INSTEAD.get(name) or (_EVENTS if name.startswith("on_") else "")
    return f"{owner} has no attribute {name!r}" + (f": {instead}" if instead else "")
