"""The parameters that go with every grant: what the token is for."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigurationError

_OWN = frozenset(("grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type"))
_HERE = frozenset(("scope", "audience", "resource"))


def is_text(value: object) -> bool:
    """Whether this is a string of printable characters that is not empty."""
    return isinstance(value, str) and value != "" and value.isprintable()


def grant_parameters(scope: object, audience: object, resource: object, extra: object) -> list[tuple[str, str]]:
    """The form fields of what a user asked for.

    Args:
        scope: one space-separated string, or a list of scopes (RFC 6749 section 3.3), or None.
        audience: a string, or None.
        resource: a URI, or a list of them (RFC 8707 section 2), or None.
        extra: a mapping of further parameters, or None.

    Raises:
        ConfigurationError: one is not of that kind.
    """
    scopes = _texts("scope", scope)
    fields = [("scope", " ".join(scopes))] if scopes else []
    if audience is not None:
        if not isinstance(audience, str) or not is_text(audience):
            raise ConfigurationError("audience: a string of printable characters is needed")
        fields.append(("audience", audience))
    fields += [("resource", one) for one in _texts("resource", resource)]
    return fields + _extra(extra)


def _texts(name: str, value: object) -> list[str]:
    values = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(values, list | tuple) or not all(is_text(one) for one in values):
        raise ConfigurationError(f"{name}: a string, or a list of strings, of printable characters is needed")
    return list(values)


def _extra(extra: object) -> list[tuple[str, str]]:
    if extra is None:
        return []
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"extra: a mapping of strings is needed, not {type(extra).__name__}")
    for name, value in extra.items():
        if not is_text(name) or not isinstance(value, str):
            raise ConfigurationError(f"extra: a string to each name is needed; that of {name!r} is none")
        if name in _OWN | _HERE:
            raise ConfigurationError(f"extra: {name!r} has an argument of its own, or is not for you to set")
    return sorted(extra.items())
