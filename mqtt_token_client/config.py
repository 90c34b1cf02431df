"""The TOML file of a device, which both a program and the ``mqtt-token`` command read."""

from __future__ import annotations

import inspect
import os
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .mqtt.codec.will import Will
from .mqtt.session.journal import UnopenedJournal
from .private_files import check_private, read_small
from .profiles import PROFILES, Profile, profile_class
from .sources import TokenSource
from .sources.oauth.assertion_file import ClientAssertionFile
from .sources.oauth.client_assertion import ClientSecretJWT, PrivateKeyJWT
from .sources.oauth.client_auth import ClientSecretBasic, ClientSecretPost, PublicClient
from .sources.oauth.client_credentials import ClientCredentials
from .sources.oauth.device_flow import DeviceFlow
from .sources.oauth.mutual_tls import MutualTLS
from .sources.signed_jwt import SignedJWT
from .sources.token_file import TokenFile
from .stores import TokenStore
from .stores.opening import open_store
from .tls_files import TlsFiles
from .value import hide

_SOURCES: dict[str, Callable[..., TokenSource]] = {
    "client_credentials": ClientCredentials,
    "device_flow": DeviceFlow,
    "signed_jwt": SignedJWT,
    "token_file": TokenFile,
}
# By their names at the authorization server (RFC 7591 section 2, RFC 8705 section 2, OpenID Connect Core section 9).
_CLIENT_AUTHS: dict[str, Callable[..., Any]] = {
    "none": PublicClient,
    "client_secret_basic": ClientSecretBasic,
    "client_secret_post": ClientSecretPost,
    "client_secret_jwt": ClientSecretJWT,
    "client_assertion_file": ClientAssertionFile,
    "private_key_jwt": PrivateKeyJWT,
    "tls_client_auth": MutualTLS,
    "self_signed_tls_client_auth": MutualTLS,
}
_PATHS = ("path", "private_key", "certificate", "key", "ca_bundle")
_SECRETS = ("client_secret",)
_EXCLUDED = ("client_auth", "prompt", "signature")
_CLIENT = ("broker", "client_id", "profile", "protocol", "keepalive", "session_expiry", "clean_start", "proxy",
           "allow_insecure", "max_inflight", "max_queued",
           "max_packet_size", "receive_maximum")  # fmt: skip
_TLS = ("ca_bundle", "certificate", "key")
_TOP = (*_CLIENT, *_TLS, "will", "store", "journal", "source")


@dataclass(frozen=True, slots=True)
class Config:
    """The content of a file.

    Attributes:
        path: the file.
        source: obtains tokens.
        store: keeps them.
        client: the other arguments of :class:`~mqtt_token_client.TokenClient`, by name.
    """

    path: Path
    source: TokenSource
    store: TokenStore
    client: dict[str, Any] = field(repr=False)  # a proxy URL may hold a password


def read_config(path: str | os.PathLike[str]) -> Config:
    """Read a file, and create the objects that it describes.

    Paths in it are relative to its folder; ``~`` and environment variables such as ``$CREDENTIALS_DIRECTORY`` are
    expanded. A secret is in a file of its own (``client_secret_file``), or in this one if no other user can read it.

    Raises:
        ConfigurationError: there is no such file, it is not valid TOML, or an entry is wrong; the message names it.
    """
    file = Path(path)
    try:
        with file.open("rb") as opened:
            open_to_others = bool(os.fstat(opened.fileno()).st_mode & 0o077)
            table = _without_secrets(tomllib.load(opened))
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: not valid TOML: {error}") from None
    reader = _Reader(file, open_to_others)
    try:
        return reader.config(table)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def _without_secrets(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table whose secrets no repr shows, at any depth."""
    inner = {name: _without_secrets(value) for name, value in table.items() if isinstance(value, dict)}
    return hide({**table, **inner}, (*_SECRETS, "proxy"))


class _Reader:
    """Creates objects from the tables of one file."""

    def __init__(self, file: Path, open_to_others: bool) -> None:
        self._file = file
        self._open_to_others = open_to_others

    def config(self, table: dict[str, Any]) -> Config:
        for name in table:
            if name not in _TOP:
                raise ConfigurationError(f"{name}: unknown entry; the entries are {', '.join(_TOP)}")
        source = self._source(_table(table, "source"))
        client = {name: table[name] for name in _CLIENT if name in table}
        if isinstance(table.get("profile"), dict):
            client["profile"] = self._profile(table["profile"])
        if "will" in table:
            client["will"] = self._will(_table(table, "will"))
        if not table.keys().isdisjoint(_TLS):
            client["tls"] = self._tls(table)
        store = table.get("store", "auto")
        if isinstance(store, str) and store.startswith("file:"):
            store = f"file:{self._path(store.removeprefix('file:'))}"
        if "journal" in table:
            client["journal"] = self._journal(table["journal"])
        return Config(self._file, source, _opened(store), client)

    def _journal(self, entry: Any) -> UnopenedJournal:
        from .journal.disk import open_journal  # few files have one

        table = dict(entry) if isinstance(entry, dict) else {"path": entry}
        if not isinstance(table.get("path"), str) or not table["path"]:
            raise ConfigurationError(f"journal must be the path of a file, or a table with a path, got {entry!r}")
        if "key" in table:
            raise ConfigurationError("journal.key: give key_file instead, the path of a file with the key")
        key_file = table.pop("key_file", None)
        arguments = self._arguments("journal", table, open_journal)
        if key_file is not None:
            arguments["key"] = self._secret("journal.key_file", key_file)
        journal: UnopenedJournal = _made("journal", open_journal, arguments)
        return journal

    def _source(self, table: dict[str, Any]) -> TokenSource:
        make = _SOURCES[_chosen(table, "source", "type", _SOURCES)]
        arguments = self._arguments("source", table, make)
        if "client_auth" in table:
            auth = table["client_auth"]
            if not isinstance(auth, dict):
                method = auth if isinstance(auth, str) and auth in _CLIENT_AUTHS else "none"
                raise ConfigurationError(
                    f'source.client_auth must be a table: [source.client_auth] with method = "{method}"'
                )
            makes_auth = _CLIENT_AUTHS[_chosen(auth, "source.client_auth", "method", _CLIENT_AUTHS)]
            arguments["client_auth"] = _made(
                "source.client_auth", makes_auth, self._arguments("source.client_auth", auth, makes_auth)
            )
        if isinstance(arguments.get("timeout"), list):
            arguments["timeout"] = tuple(arguments["timeout"])
        source: TokenSource = _made("source", make, arguments)
        return source

    def _profile(self, table: dict[str, Any]) -> Profile:
        make = profile_class(_chosen(table, "profile", "type", PROFILES))
        profile: Profile = _made("profile", make, self._arguments("profile", table, make))
        return profile

    def _will(self, table: dict[str, Any]) -> Will:
        will: Will = _made("will", Will, self._arguments("will", table, Will))
        return will

    def _tls(self, table: dict[str, Any]) -> TlsFiles:
        paths = {name: table[name] for name in _TLS if name in table}
        return TlsFiles(**{name: self._path(path) if isinstance(path, str) else path for name, path in paths.items()})

    def _arguments(self, where: str, table: dict[str, Any], make: Callable[..., Any]) -> dict[str, Any]:
        """Return the arguments of a constructor; for a secret, the path of its file."""
        known = [name for name in inspect.signature(make).parameters if name not in _EXCLUDED]
        arguments: dict[str, Any] = {}
        for name, value in table.items():
            secret = name.removesuffix("_file")
            if name in ("type", "method", "client_auth"):
                continue
            if name.endswith("_file") and secret in _SECRETS and secret in known:
                self._secret(f"{where}.{name}", value)  # so that a mistake is found now, and named as it stands here
                arguments[secret] = self._path(value)
            elif name not in known:
                raise ConfigurationError(f"{where}.{name}: unknown entry; the entries are {', '.join(known)}")
            elif name in _SECRETS and self._open_to_others:
                raise ConfigurationError(
                    f"{where}.{name}: other users can read this file; chmod it to 600, or give {name}_file instead"
                )
            else:
                arguments[name] = self._path(value) if name in _PATHS and isinstance(value, str) else value
        return arguments

    def _secret(self, where: str, value: Any) -> str:
        try:
            check_private(where, self._path(value))
            return read_small(self._path(value)).decode().rstrip("\r\n")
        except OSError as error:
            raise ConfigurationError(f"{where}: {value}: {error.strerror}") from None
        except (UnicodeDecodeError, TypeError):
            raise ConfigurationError(f"{where} must be the path of a text file") from None

    def _path(self, value: str) -> Path:
        """Return the path that an entry means.

        Raises:
            ConfigurationError: it begins with an environment variable that is not set, or the home of a user who has
                none, or cannot be a path.
        """
        expanded = os.path.expandvars(value)
        if expanded.startswith("$"):
            raise ConfigurationError(f"{value}: this environment variable is not set")
        if "\0" in expanded:
            raise ConfigurationError(f"{value!r} must be a path, which has no NUL")
        try:
            return self._file.absolute().parent / Path(expanded).expanduser()
        except RuntimeError:
            raise ConfigurationError(f"{value}: this user has no home directory; give the whole path") from None


def _opened(spec: Any) -> TokenStore:
    try:
        return open_store(spec)
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(text if text.startswith("store") else f"store: {text}") from None


def _table(table: dict[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    if not isinstance(value, dict):
        raise ConfigurationError(f"[{name}]: this table is missing")
    return value


def _chosen(table: dict[str, Any], where: str, name: str, choices: Iterable[str]) -> str:
    chosen = table.get(name)
    if not isinstance(chosen, str) or chosen not in choices:
        raise ConfigurationError(f"{where}.{name} must be one of {', '.join(choices)}, got {chosen!r}")
    return chosen


def _made(where: str, make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        inspect.signature(make).bind(**arguments)
    except TypeError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    try:
        return make(**arguments)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}.{error}") from None
