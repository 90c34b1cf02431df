"""The TOML file of a device as ``mqtt-token init`` writes it, and how a file comes into place."""

from __future__ import annotations

import json
import os
import tempfile
import textwrap
from pathlib import Path
from typing import NamedTuple

from .providers import Provider

_DOCS = "https://github.com/mqtt-token-client/mqtt-token-client/tree/main/docs"

_WIDTH = 80  # columns of a comment

_TEXT = """\
# A device, for mqtt_token_client and the command mqtt-token. All entries:
# {docs}/configuration.md

broker = {broker}

# The MQTT client identifier. Each device needs its own.
client_id = {client_id}

# Where the token is kept across restarts: "auto", "keyring", "file" or
# "file:folder". Name one if a service and a person share the token.
store = {store}
{profile}{insecure}
# If the broker's certificate comes from an authority of your own:
# ca_bundle = "plant-ca.pem"

# To keep messages across a power cut:
# journal = "messages.journal"

[source]
{note}
type = {grant}
issuer = {issuer}
client_id = {source_client_id}
{secret}{audience}{scope}{source_insecure}
# If the provider's certificate comes from an authority of your own:
# ca_bundle = "plant-ca.pem"
{client_auth}"""

_AUTH_BY_FILE = """
# The client secret is in a file of its own, which other users must not be able
# to read. A service gets it as "$CREDENTIALS_DIRECTORY/name" from systemd.
client_secret_file = {}
"""

_AUTH_BY_KEY = """
# The client signs a JWT with its private key instead of sending a secret.
[source.client_auth]
method = "private_key_jwt"
private_key = {}
"""


class Answers(NamedTuple):
    """What the file of a device says.

    Attributes:
        broker: its URL.
        client_id: the MQTT client identifier.
        profile: how the broker expects the token.
        provider: the identity provider.
        issuer: its issuer identifier.
        grant: one of ``GRANTS``.
        source_client_id: the client at the identity provider.
        audience: to request, or an empty string.
        scope: to request, or an empty string.
        store: where the token is kept.
        secret_file: the path of a file, or an empty string if there is no client secret.
        private_key: the path of a PEM file, or an empty string.
        allow_insecure: whether plain MQTT and HTTP are allowed.
    """

    broker: str
    client_id: str
    profile: str
    provider: Provider
    issuer: str
    grant: str
    source_client_id: str
    audience: str
    scope: str
    store: str
    secret_file: str
    private_key: str
    allow_insecure: bool


def render(answers: Answers) -> str:
    """Return the text of a device's file, which is TOML with comments."""
    insecure = "allow_insecure = true\n" if answers.allow_insecure else ""
    profile = f"\n# How the broker expects the token.\nprofile = {_quoted(answers.profile)}\n"
    return _TEXT.format(
        docs=_DOCS,
        broker=_quoted(answers.broker),
        client_id=_quoted(answers.client_id),
        store=_quoted(answers.store),
        profile=profile if answers.profile != "password" else "",
        insecure=f"\n# The token travels unencrypted.\n{insecure}" if insecure else "",
        note=_comment(f"{answers.provider.title}: {answers.provider.note}"),
        grant=_quoted(answers.grant),
        issuer=_quoted(answers.issuer),
        source_client_id=_quoted(answers.source_client_id),
        secret=_AUTH_BY_FILE.format(_quoted(answers.secret_file)) if answers.secret_file else "",
        audience=f"audience = {_quoted(answers.audience)}\n" if answers.audience else "",
        scope=f"scope = {_quoted(answers.scope)}\n" if answers.scope else "",
        source_insecure=insecure,
        client_auth=_AUTH_BY_KEY.format(_quoted(answers.private_key)) if answers.private_key else "",
    )


def _comment(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _quoted(text: str) -> str:
    """A basic string of TOML, which JSON's strings are as long as they contain no control characters."""
    return json.dumps(text, ensure_ascii=False)


def write(path: Path, text: str, mode: int) -> None:
    """Write a file that appears at once and whole, in place of the one that is there.

    Args:
        path: of the file; its folder must exist.
        text: its content.
        mode: its permissions; those of a secret are there before its content.

    Raises:
        OSError: the folder cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 600
    new = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
