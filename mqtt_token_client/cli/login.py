"""``mqtt-token login``, ``status``, ``token`` and ``logout``: a device's token, by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import click

from ..clock import monotonic
from ..config import Config, read_config
from ..errors import ConfigurationError, MqttTokenError, StoreError, TokenRequestRefused
from ..events import Event, LoginRequired, RenewalFailed, StoreFailed
from ..sources import TokenSource
from ..sources.oauth.device_flow import DeviceFlow
from ..stores.memory import MemoryStore
from ..token import Token
from ..tokens.keeper import TokenKeeper
from .waiting import WaitingStore

TROUBLE, USAGE, LOGIN, REFUSED = 1, 2, 3, 4  # exit codes

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click has it on the class


def with_config(command: _Function) -> _Function:
    """Give a command the configuration, and turn this library's errors into a line and an exit code."""

    @click.option(
        "-c",
        "--config",
        "path",
        envvar="MQTT_TOKEN_CONFIG",
        default="mqtt-token.toml",
        show_default=True,
        type=click.Path(dir_okay=False),
        help="The TOML file of the device; also MQTT_TOKEN_CONFIG.",
    )
    @wraps(command)
    def run(path: str, **options: Any) -> Any:
        try:
            config = read_config(path)
            if isinstance(config.store, MemoryStore):
                raise ConfigurationError(f"{path}: store: memory keeps nothing from one command to the next")
            return command(replace(config, store=WaitingStore(config.store)), **options)
        except MqttTokenError as error:
            raise _Failure(str(error), _exit_code(error)) from None

    return run  # type: ignore[return-value]  # what click makes of it


@click.command()
@with_config
@click.option("--again", is_flag=True, help="Get a new token, by a new approval, though there is a valid one.")
def login(config: Config, again: bool) -> None:
    """Get a token and store it.

    With the device flow a person approves this device on another screen. With a valid or renewable login stored
    already, nobody is asked.
    """
    if again:
        with config.store.lock(_key(config)):  # type: ignore[attr-defined]  # with_config() has seen to it
            token = config.source.fetch(None)
            config.store.save(_key(config), token)
    else:
        token = _fetched(config, config.source)
    click.echo(f"Logged in{_as_whom(token)}, {_left(token)}. Kept in {_protection(config)}.", err=True)


@click.command()
@with_config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def status(context: click.Context, config: Config, as_json: bool) -> None:
    """Check the whole file, and tell which token is stored. No server is asked.

    Exits with 3 if there is none that is valid or can be renewed without a person.
    """
    _check_client(config)
    token = config.store.load(_key(config))
    found = _status(config, token)
    if as_json:
        click.echo(json.dumps(found))
    else:
        for name, value in found.items():
            if name not in ("valid", "expires_in", "renewable"):
                shown = ", ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
                click.echo(f"{name.replace('_', ' '):<10} {_printable(shown)}")
        click.echo(f"{'life':<10} {'no token' if token is None else _left(token)}")
        click.echo(f"{'renewal':<10} {'by itself' if found['renewable'] else 'a person has to log in'}")
    context.exit(0 if found["valid"] or found["renewable"] else LOGIN)


@click.command()
@with_config
def token(config: Config) -> None:
    """Print a valid token, for use in a pipe; renewed, if it is due. Nobody is asked to log in."""
    source = _Unattended(config.source) if isinstance(config.source, DeviceFlow) else config.source
    click.echo(_fetched(config, source).value)


@click.command()
@with_config
@click.option("--local", is_flag=True, help="Only forget it here, without revoking it at the server.")
def logout(config: Config, local: bool) -> None:
    """Revoke the stored token at the authorization server, if that is offered, and forget it."""
    with config.store.lock(_key(config)):  # type: ignore[attr-defined]  # with_config() has seen to it
        try:
            stored = config.store.load(_key(config))
        except StoreError as error:  # unreadable is no reason to keep it
            click.echo(f"Not revoked: {error}", err=True)
            stored = None
        revoke = getattr(config.source, "revoke", None)
        revoked = False
        if stored is not None and revoke is not None and not local:
            try:
                revoked = revoke(stored)
            except MqttTokenError as error:
                raise _Failure(f"not revoked, and kept: {error}; --local forgets it here", _exit_code(error)) from None
        config.store.delete(_key(config))
    if stored is None:
        click.echo("No token was stored.", err=True)
    else:
        click.echo(f"Forgotten{', and revoked at the server' if revoked else '; it was not revoked'}.", err=True)


class _Unattended:
    """A device flow that asks no person."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def fetch(self, previous: Token | None) -> Token:
        if previous is None or previous.refresh_token is None:
            raise TokenRequestRefused("nobody is logged in: run mqtt-token login", error="expired_token")
        return self._source.fetch(previous)


def _fetched(config: Config, source: TokenSource) -> Token:
    """The stored token, or a new one, which is stored; past its renewal time it is renewed if that is possible."""
    failures, renewals = list[MqttTokenError](), list[MqttTokenError]()

    def tell(event: Event) -> None:
        match event:
            case StoreFailed(error=error):
                failures.append(error)
            case LoginRequired(error=error):
                click.echo(f"mqtt-token: {error}", err=True)
            case RenewalFailed(error=error):
                renewals.append(error)

    keeper = TokenKeeper(source, config.store, key=_key(config), on_event=tell)
    found = keeper.get()
    if keeper.renewal_due <= monotonic():
        keeper.renew_when_due()
        found = keeper.current or found
    if failures:  # a token that is not stored serves no script, and its refresh token would be lost
        raise failures[0]
    for error in renewals:  # the token in hand serves on
        click.echo(f"mqtt-token: {error}", err=True)
    return found


def _check_client(config: Config) -> None:
    """Have ``TokenClient`` look at what the file says of MQTT, if it says anything."""
    from ..client import TokenClient

    if not config.client.keys() - {"client_id"}:
        return
    for name in ("broker", "client_id"):
        if name not in config.client:
            raise ConfigurationError(f"{config.path}: {name}: this entry is needed")
    try:
        TokenClient(tokens=config.source, store=config.store, **config.client)
    except ConfigurationError as error:
        raise ConfigurationError(f"{config.path}: {error}") from None


def _key(config: Config) -> str:
    return str(getattr(config.source, "key", None) or config.client.get("client_id") or "")


def _protection(config: Config) -> str:
    return str(config.store.protection)  # type: ignore[attr-defined]  # as above


def _status(config: Config, token: Token | None) -> dict[str, Any]:
    claims = {} if token is None else token.claims
    scope = claims.get("scope") if token is None or token.scope is None else token.scope
    audience = claims.get("aud")
    left = None if token is None or not math.isfinite(token.expires_in) else round(token.expires_in, 1)
    return {
        "subject": claims.get("sub"),
        "issuer": claims.get("iss"),
        "audience": [audience] if isinstance(audience, str) else audience,
        "scopes": scope.split() if isinstance(scope, str) else [],
        "valid": token is not None and token.expires_in > 0,
        "expires_in": left,
        "renewable": not isinstance(config.source, DeviceFlow) or (token is not None and bool(token.refresh_token)),
        "stored_in": _protection(config),
    }


def _as_whom(token: Token) -> str:
    subject = token.claims.get("sub")
    return f" as {_printable(subject)}" if isinstance(subject, str) else ""


def _left(token: Token) -> str:
    left = token.expires_in
    if math.isinf(left):
        return "without an end"
    return f"{_duration(left)} left" if left > 0 else f"ended {_duration(-left)} ago"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _printable(text: str) -> str:
    """What a server said, without what steers a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _exit_code(error: MqttTokenError) -> int:
    if isinstance(error, ConfigurationError):
        return USAGE
    if isinstance(error, TokenRequestRefused) and error.error in ("access_denied", "expired_token", "invalid_grant"):
        return LOGIN
    return REFUSED if error.permanent else TROUBLE
