"""How a broker wants a token in CONNECT: a file a way."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..token import Token
from .aws_iot import AwsIot
from .bearer_header import BearerHeader
from .credentials import Credentials, Profile, check_profile
from .enhanced import EventGrid, IoTOperations
from .password import ClearBlade, Password, RabbitMQ, Solace, Username

__all__ = [
    "PROFILES",
    "AwsIot",
    "BearerHeader",
    "ClearBlade",
    "Credentials",
    "EventGrid",
    "IoTOperations",
    "Password",
    "PlacingFunction",
    "Profile",
    "RabbitMQ",
    "Solace",
    "Username",
    "check_profile",
    "open_profile",
]

PlacingFunction = Callable[[Token, str], Credentials]

PROFILES: dict[str, Callable[..., Profile]] = {
    "password": Password,
    "rabbitmq": RabbitMQ,
    "username": Username,
    "event-grid": EventGrid,
    "iot-operations": IoTOperations,
    "aws-iot": AwsIot,
    "clearblade": ClearBlade,
    "solace": Solace,
    "bearer-header": BearerHeader,
}


@dataclass(frozen=True, slots=True)
class _Function:
    place: PlacingFunction


def open_profile(profile: str | Profile | PlacingFunction) -> Profile:
    """The profile of a name, the profile itself, or one that places a token as a function does.

    Args:
        profile: one of ``PROFILES`` that needs no arguments; an object with ``place(token, client_id)``; or a function
            of a token and the client id that returns :class:`Credentials`.

    Raises:
        ConfigurationError: there is no profile of that name, or it needs arguments.
    """
    if isinstance(profile, str):
        return _named(profile)
    if isinstance(profile, type):
        raise ConfigurationError(f"profile: an instance is needed: {profile.__name__}(…)")
    if callable(getattr(profile, "place", None)):
        return profile  # type: ignore[return-value]  # mypy does not know what getattr has shown
    if callable(profile):
        return _Function(profile)
    raise ConfigurationError(
        "profile: a name such as 'password', an object with place(token, client_id), or a function"
    )


def _named(name: str) -> Profile:
    make = PROFILES.get(name)
    if make is None:
        raise ConfigurationError(f"profile: {name!r} is not known; there are {', '.join(PROFILES)}")
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ConfigurationError(f"profile: {name!r} is to be given as an object: {error}") from None
    return make()
