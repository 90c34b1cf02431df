"""Profiles: how a broker expects a token in CONNECT, one file per way."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ..errors import ConfigurationError
from ..token import Token
from ..value import Value
from .credentials import Credentials, Profile, check_profile

__all__ = ["PROFILES", "Credentials", "PlacingFunction", "Profile", "check_profile", "open_profile", "profile_class"]

PlacingFunction = Callable[[Token, str], Credentials]

# The file and the class of each name; a file is loaded when its profile is used.
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
    """Return the class of a profile by its name in ``PROFILES``."""
    file, class_name = PROFILES[name]
    make: Callable[..., Profile] = getattr(import_module(f".{file}", __name__), class_name)
    return make


class _Function(Value):
    place: PlacingFunction


def open_profile(profile: str | Profile | PlacingFunction) -> Profile:
    """Return the profile of a name, the profile itself, or a profile that calls a function.

    Args:
        profile: one of ``PROFILES`` that needs no arguments; an object with ``place(token, client_id)``; or a function
            of a token and the client id that returns :class:`Credentials`.

    Raises:
        ConfigurationError: it is something else, or the profile needs arguments.
    """
    if isinstance(profile, str):
        return _named(profile)
    if isinstance(profile, type):
        raise ConfigurationError(f"profile must be an instance, {profile.__name__}(…), got the class")
    if callable(getattr(profile, "place", None)):
        return profile  # type: ignore[return-value]  # mypy does not know what getattr has shown
    if callable(profile):
        return _Function(profile)
    raise ConfigurationError(
        "profile must be a name such as 'password', an object with place(token, client_id), or a function, "
        f"got {type(profile).__name__}"
    )


def _named(name: str) -> Profile:
    if name not in PROFILES:
        raise ConfigurationError(f"profile must be one of {', '.join(PROFILES)}, got {name!r}")
    make = profile_class(name)
    try:
        return make()
    except TypeError as error:
        raise ConfigurationError(
            f"profile: {name!r} must be given as an object, as it needs arguments: {error}"
        ) from None
