"""Arguments that the blocking and the asyncio interface have in common, and their checks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

from .clock import monotonic
from .errors import ConfigurationError
from .mqtt.codec.checks import check_qos
from .mqtt.codec.packets import SUBSCRIBE
from .mqtt.codec.properties import pack_properties
from .mqtt.lifecycle.settings import check_range
from .mqtt.session.delivery import Delivery, Outgoing
from .mqtt.session.dispatch import Handler
from .mqtt.session.journal import UnopenedJournal
from .value import Value

if TYPE_CHECKING:
    from .mqtt.session.acks import ManualAcks

_MAX_INFLIGHT = 65_000  # leaves packet identifiers for SUBSCRIBE
_EXPIRY = "message_expiry_interval"
_NEEDS_MQTT_5 = "subscribe: no_local, retain_as_published, retain_handling and properties need protocol=5"


class SessionOptions(Value):
    """What an application says about its messages.

    Attributes:
        max_inflight: messages of QoS 1 and 2 that may be unacknowledged at once.
        max_queued: messages that may wait to be acknowledged.
        manual_acks: for messages of QoS 1 and 2 that the application acknowledges; None acknowledges each on arrival.
        on_message: gets the messages that no subscription has a handler for.
        journal: keeps messages and the state of the session on disk; None without one.
        reply_by: publishes the responses to messages.

    Raises:
        ConfigurationError: a value is out of its range or of a wrong type.
    """

    max_inflight: int
    max_queued: int
    manual_acks: ManualAcks | None
    on_message: Handler | None
    journal: UnopenedJournal | None
    reply_by: Callable[..., Delivery]

    def __post_init__(self) -> None:
        check_range("max_inflight", self.max_inflight, 1, _MAX_INFLIGHT)
        check_range("max_queued", self.max_queued, 1, 2**31)
        check_function("on_message", self.on_message)
        if self.journal is not None and not callable(getattr(self.journal, "open", None)):
            raise ConfigurationError(f"journal must be an open_journal(path), got {type(self.journal).__name__}")


class NoPahoNames:
    """The base of a client: a callback that is assigned, or a method of paho-mqtt that is called, raises
    AttributeError and says what to use instead. Otherwise ``client.on_message = f`` would never be called.

    In Python 3.11 the error for a method is the ordinary one: there a class with ``__getattr__`` has slow attributes,
    and publish() would take a tenth longer.
    """

    if not TYPE_CHECKING:  # a type checker reports unknown names by itself

        def __setattr__(self, name: str, value: object) -> None:
            if name.startswith("on_"):
                self._raise_missing(name)
            object.__setattr__(self, name, value)

        def _raise_missing(self, name: str) -> NoReturn:
            from .paho_names import missing_name  # seldom needed

            raise AttributeError(missing_name(type(self).__name__, name))

        if sys.version_info >= (3, 12):
            __getattr__ = _raise_missing


def check_function(name: str, value: object) -> None:
    """Check an optional callback.

    Raises:
        ConfigurationError: it cannot be called.
    """
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name} must be a function, got {type(value).__name__}")


def manual_acks(wanted: bool) -> ManualAcks | None:
    """Return the acknowledgements that an application makes itself, if it wants to."""
    if not wanted:
        return None
    from .mqtt.session.acks import ManualAcks  # few applications want to

    return ManualAcks()


def from_file(path: str | PathLike[str], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a client that a TOML file gives, with the program's own added or in their place.

    Raises:
        ConfigurationError: the file cannot be read, or an entry is wrong or missing.
    """
    from .config import read_config  # a client that needs no file loads none of it

    config = read_config(path)
    given = {"tokens": config.source, "store": config.store, **config.client, **overrides}
    for name in ("broker", "client_id"):
        if name not in given:
            raise ConfigurationError(f"{config.path}: {name} is missing")
    return given


def with_properties(message: Outgoing, properties: Mapping[str, Any], protocol: int) -> Outgoing:
    """Return the message with MQTT 5 properties.

    Raises:
        ConfigurationError: one of them is wrong, or the protocol is not MQTT 5.
    """
    if protocol != 5:
        raise ConfigurationError("publish: properties need protocol=5")
    packed = pack_properties(properties)
    fields = message.topic, message.payload, message.qos, message.retain
    if seconds := properties.get(_EXPIRY):
        packed = pack_properties({_EXPIRY: seconds, **properties})  # first, as it is replaced later
        return message.expiring(packed, monotonic() + seconds)
    return type(message)(*fields, packed)


def subscription_options(
    topic_filter: str, qos: int, no_local: bool, retain_as_published: bool, retain_handling: int, protocol: int
) -> int:
    """Return the options of SUBSCRIBE (MQTT 5 section 3.8.3.1); in MQTT 3.1.1 the QoS.

    Raises:
        ConfigurationError: one of them is wrong, or needs MQTT 5.
    """
    check_qos(qos, "subscribe")
    if not isinstance(retain_handling, int) or not 0 <= retain_handling <= 2:
        raise ConfigurationError(f"subscribe: retain_handling must be 0, 1 or 2, got {retain_handling!r}")
    options = qos | bool(no_local) << 2 | bool(retain_as_published) << 3 | retain_handling << 4
    if protocol != 5 and options != qos:
        raise ConfigurationError(_NEEDS_MQTT_5)
    if no_local and topic_filter.startswith("$share/"):  # [MQTT-3.8.3-4]
        raise ConfigurationError("subscribe: no_local cannot be used with a shared subscription")
    return options


def subscription_properties(properties: Mapping[str, Any] | None, protocol: int) -> bytes:
    """Return the packed properties of SUBSCRIBE (MQTT 5 section 3.8.2.1).

    Raises:
        ConfigurationError: one of them is wrong, or the protocol is not MQTT 5.
    """
    if properties and protocol != 5:
        raise ConfigurationError(_NEEDS_MQTT_5)
    return pack_properties(properties, SUBSCRIBE)
