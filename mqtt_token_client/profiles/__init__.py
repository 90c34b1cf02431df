"""How a broker wants a token in CONNECT: a file a way."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ..errors import ConfigurationError
from ..token import Token
from .credentials import Credentials, Profile, check_profile

__all__ = ["PROFILES", "Credentials", "PlacingFunction", "Profile", "check_profile", "open_profile", "profile_class"]

PlacingFunction = Callable[[Token, str], Credentials]

# The class of each name, and its file, which is loaded for those who use it.
PROFILES = {
    "password": ("password", "Password"),
    "rabbitmq": ("rabbitmq", "RabbitMQ"),
    "username": ("username", "Username"),
    "event-grid": ("enhanced", "EventGrid"),
    "iot-operations": ("enhanced", "IoTOperations"),
    "aws-iot": ("aws_iot", "AwsIot"),
    "clearblade": ("clearblade", "ClearBlade"),
    "solace": ("solace", "Solace"),
    "bearer-header": ("bearer_header", "BearerHeader"),
}


def profile_class(name: str) -> Callable[..., Profile]:
    """What makes a profile that has a name in ``PROFILES``."""
    file, class_name = PROFILES[name]
    make: Callable[..., Profile] = getattr(import_module(f".{file}", __name__), class_name)
    return make


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
    if name not in PROFILES:
        raise ConfigurationError(f"profile: {name!r} is not known; there are {', '.join(PROFILES)}")
    make = profile_class(name)
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ConfigurationError(f"profile: {name!r} is to be given as an object: {error}") from None
    return make()
