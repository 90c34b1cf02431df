"""The state of an authorization server that keeps its tokens valid after a restart."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from ..errors import ConfigurationError
from ..stores.folder import replace
from .refresh_tokens import Family


def _new_keys() -> KeySet:
    return KeySet([RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})])


@dataclass(frozen=True)
class State:
    """The state, in memory.

    Attributes:
        keys: the signing key, as a set of one.
        client_secret: the secret of the client with a secret.
        families: the refresh tokens, by family.
    """

    keys: KeySet = field(default_factory=_new_keys, repr=False)
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    families: Mapping[str, Family] = field(default_factory=dict, repr=False)


def load(path: Path) -> State:
    """Load the state from a file; returns a new one if there is no file.

    Raises:
        ConfigurationError: the file cannot be read, or contains something else.
    """
    try:
        kept: Any = json.loads(path.read_bytes())
        return State(
            KeySet.import_key_set(kept["keys"]),
            kept["client_secret"],
            {name: Family(**family) for name, family in kept["families"].items()},
        )
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise ConfigurationError(f"state: {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, JoseError):
        pass  # raised below without this cause, which may show a part of the file
    raise ConfigurationError(f"state: {path} is not a state file of an authorization server; delete it to start over")


def save(path: Path, state: State) -> None:
    """Replace the file as a whole and durably, with mode 600.

    Raises:
        ConfigurationError: it cannot be written; the old content stays.
    """
    kept = {
        "keys": state.keys.as_dict(private=True),
        "client_secret": state.client_secret,
        "families": {name: asdict(family) for name, family in state.families.items()},
    }
    try:
        replace(path, json.dumps(kept, indent=1).encode())
    except OSError as error:
        raise ConfigurationError(f"state: {path}: {error.strerror}") from None
