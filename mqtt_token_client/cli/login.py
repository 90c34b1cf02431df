"""``mqtt-token login``, ``token`` and ``logout``: manage a device's token by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import click

from ..clock import monotonic
from ..config import Config, read_config
from ..errors import ConfigurationError, MqttTokenError, StoreError, StoreKeyMissing, TokenRequestRefused
from ..events import Event, LoginRequired, RenewalFailed, StoreFailed
from ..logs import printable
from ..sources import TokenSource
from ..sources.oauth.device_flow import DeviceFlow
from ..stores.memory import MemoryStore
from ..token import Token
from ..tokens.exit_guard import ExitGuard, postpone_signals
from ..tokens.keeper import TokenKeeper
from ..tokens.off_main_thread import off_main_thread
from .waiting import WaitingStore

TEMPORARY, USAGE, LOGIN, REJECTED = 1, 2, 3, 4  # exit codes

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Ends the command with one line on stderr and this exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click has it on the class


config_option = click.option(
    "-c",
    "--config",
    "path",
    envvar="MQTT_TOKEN_CONFIG",
    default="mqtt-token.toml",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="The TOML file of the device; also MQTT_TOKEN_CONFIG.",
)


def with_config(command: _Function) -> _Function:
    """Pass the configuration to a command, and turn errors of this library into one line and an exit code."""

    @config_option
    @wraps(command)
    def run(path: str, **options: Any) -> Any:
        asks_a_person = True
        try:
            config = read_config(path)
            asks_a_person = isinstance(config.source, DeviceFlow)
            if isinstance(config.store, MemoryStore):
                raise ConfigurationError(f"{path}: store must not be memory, which is lost when the command ends")
            return command(replace(config, store=WaitingStore(config.store, asks_a_person=asks_a_person)), **options)
        except MqttTokenError as error:
            raise Failure(str(error), exit_code(error, asks_a_person=asks_a_person)) from None

    return run  # type: ignore[return-value]  # what click makes of it


@click.command()
@with_config
@click.option("--again", is_flag=True, help="Log in again even if there is a valid token.")
def login(config: Config, again: bool) -> None:
    """Obtain a token and store it.

    With the device flow, a person approves this device on another screen. If the stored token is valid or can be
    renewed, nobody is asked; if the server rejects its renewal, for whatever reason, the person is.
    """
    postpone_signals()
    unreadable = _check_key(config)
    if unreadable is not None:
        click.echo(f"mqtt-token: {unreadable}", err=True)
    if again or unreadable is not None or _was_rejected(config):
        token = off_main_thread(lambda: _log_in(config))
    else:
        try:
            token = _fetched(config, config.source)
        except TokenRequestRefused as refusal:
            if refusal.needs_login or not _was_rejected(config):
                raise
            token = off_main_thread(lambda: _log_in(config))
    click.echo(f"Logged in{_as_whom(token)}. Token: {validity(token)}. Stored in {protection(config)}.", err=True)


def _was_rejected(config: Config) -> bool:
    """Whether the server rejected the refresh token of the stored token when it was last used."""
    try:
        stored = config.store.load(token_key(config))
    except StoreError:  # a damaged token is replaced
        return False
    return stored is not None and bool(stored.refusal)


def _log_in(config: Config) -> Token:
    """Obtain a token without the stored one, and store it."""
    with config.store.lock(token_key(config)):  # type: ignore[attr-defined]  # with_config() wraps it
        token = config.source.fetch(None)
        with ExitGuard(needed=True):  # a person approved it
            config.store.save(token_key(config), token)
    return token


@click.command()
@with_config
def token(config: Config) -> None:
    """Print a valid token, for use in a pipe, renewed if it is due. Nobody is asked to log in."""
    _check_key(config)
    source = Unattended(config.source) if isinstance(config.source, DeviceFlow) else config.source
    click.echo(_fetched(config, source).value)


@click.command()
@with_config
@click.option("--local", is_flag=True, help="Delete it here without revoking it at the server.")
def logout(config: Config, local: bool) -> None:
    """Revoke the stored token at the authorization server, if it supports that, and delete it."""
    with config.store.lock(token_key(config)):  # type: ignore[attr-defined]  # with_config() wraps it
        try:
            stored = config.store.load(token_key(config))
        except StoreError as error:  # delete it even if it cannot be read
            click.echo(f"Not revoked: {error}", err=True)
            stored = None
        revoke = getattr(config.source, "revoke", None)
        revoked = False
        if stored is not None and revoke is not None and not local:
            try:
                revoked = revoke(stored)
            except MqttTokenError as error:
                raise Failure(
                    f"not revoked, and kept: {error}; --local deletes it here only",
                    exit_code(error, asks_a_person=False),
                ) from None
        config.store.delete(token_key(config))
    if stored is None:
        click.echo("No token was stored.", err=True)
    else:
        click.echo(f"Deleted{', and revoked at the server' if revoked else '; it was not revoked'}.", err=True)


class Unattended:
    """A device flow that never asks a person."""

    uses_refresh_tokens = True

    def __init__(self, source: DeviceFlow) -> None:
        self._source = source
        self.salvage = source.salvage

    def fetch(self, previous: Token | None) -> Token:
        if previous is None or previous.refresh_token is None:
            raise TokenRequestRefused("not logged in: run mqtt-token login", error="expired_token")
        return self._source.fetch(previous)


def _fetched(config: Config, source: TokenSource) -> Token:
    """Return the stored token, or a new one, which is stored; past its renewal time it is renewed if possible."""
    failures, renewals = list[MqttTokenError](), list[MqttTokenError]()

    def on_event(event: Event) -> None:
        match event:
            case StoreFailed(error=error):
                failures.append(error)
            case LoginRequired(error=error):
                click.echo(f"mqtt-token: {error}", err=True)
            case RenewalFailed(error=error):
                renewals.append(error)

    keeper = TokenKeeper(source, config.store, key=token_key(config), on_event=on_event)
    found = keeper.get()
    if keeper.renewal_due <= monotonic():
        keeper.renew_when_due()
        found = keeper.current or found
    if failures and keeper.unsaved:  # it is no use to the next command, and its refresh token would be lost
        raise failures[-1]
    for text in dict.fromkeys(map(str, failures + renewals)):  # the stored token is valid all the same
        click.echo(f"mqtt-token: {text}", err=True)
    return found


def check_client(config: Config) -> None:
    """Let ``TokenClient`` check the MQTT entries of the file, if there are any. The journal, which the device may be
    using, stays closed.
    """
    from ..client import TokenClient

    if not config.client.keys() - {"client_id"}:
        return
    for name in ("broker", "client_id"):
        if name not in config.client:
            raise ConfigurationError(f"{config.path}: {name}: this entry is missing")
    arguments = {name: value for name, value in config.client.items() if name != "journal"}
    try:
        TokenClient(tokens=config.source, store=config.store, **arguments)
    except ConfigurationError as error:
        raise ConfigurationError(f"{config.path}: {error}") from None


def _check_key(config: Config) -> StoreError | None:
    """Raise at once if no token could be stored for want of a key; return why it cannot be read for another reason. A
    damaged one is going to be replaced.
    """
    try:
        config.store.load(token_key(config))
    except StoreKeyMissing:
        raise
    except StoreError as error:
        return error
    return None


def token_key(config: Config) -> str:
    return str(getattr(config.source, "key", None) or config.client.get("client_id") or "")


def protection(config: Config) -> str:
    return str(config.store.protection)  # type: ignore[attr-defined]  # as above


def _as_whom(token: Token) -> str:
    subject = token.claims.get("sub")
    return f" as {printable(subject)}" if isinstance(subject, str) else ""


def validity(token: Token) -> str:
    left = token.expires_in
    if math.isinf(left):
        return "does not expire"
    if not token.age_known:
        return f"valid for at most {duration(left)} (its age is unknown)"
    return f"valid for {duration(left)}" if left > 0 else f"expired {duration(-left)} ago"


def duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def exit_code(error: MqttTokenError, *, asks_a_person: bool) -> int:
    if isinstance(error, ConfigurationError):
        return USAGE
    if asks_a_person and isinstance(error, TokenRequestRefused) and error.needs_login:
        return LOGIN
    return REJECTED if error.permanent else TEMPORARY
