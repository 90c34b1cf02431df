"""``mqtt-token status``: the stored token, once or for as long as somebody watches."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..clock import monotonic
from ..config import Config
from ..errors import MqttTokenError
from ..logs import printable
from ..sources.oauth.device_flow import DeviceFlow
from ..token import Token
from ..tokens.renewal import RenewalPolicy
from .display import lifetime_bar
from .live import show_until
from .login import LOGIN, check_client, duration, protection, token_key, validity, with_config
from .wrapping import wrapped

_READ_EVERY = 2.0  # seconds
_WIDTH = 100  # columns of the picture at most


@click.command()
@with_config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch, one a line.")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, with the time until the next renewal.")
@click.pass_context
def status(context: click.Context, config: Config, as_json: bool, watch: bool) -> None:
    """Check the whole file, and show the stored token. No server is contacted.

    Exits with 3 if no token is stored that is valid or can be renewed automatically. If the server rejected the last
    renewal, it says why. --watch is a picture that refreshes; where stdout is not a terminal, a line every ten seconds.
    """
    check_client(config)
    token = config.store.load(token_key(config))
    if watch:
        watched = Watched(config, token)
        show_until(threading.Event(), None if as_json else watched.picture, watched.json if as_json else watched.line)
        token = watched.token
    elif as_json:
        click.echo(json.dumps(_status(config, token)))
    else:
        for name, value in _rows(config, token):
            click.echo(f"{name:<10} {wrapped(value, 11)}")
    found = _status(config, token)
    context.exit(0 if found["valid"] or found["renewable"] else LOGIN)


class Watched:
    """The stored token, which is read again from time to time.

    Attributes:
        token: what was read last.
    """

    def __init__(self, config: Config, token: Token | None) -> None:
        self.token = token
        self._config = config
        self._read_at = monotonic()
        self._error = ""

    def _read(self) -> None:
        if monotonic() - self._read_at < _READ_EVERY:
            return
        self._read_at = monotonic()
        try:
            self.token = self._config.store.load(token_key(self._config))
            self._error = ""
        except MqttTokenError as error:
            self._error = str(error)

    def picture(self, console: Console) -> RenderableType:
        """Draw the status, and a bar of the remaining validity."""
        self._read()
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in _rows(self._config, self.token, next_renewal=True):
            table.add_row(name, Text(value))
        if self.token is not None and math.isfinite(self.token.lifetime):
            table.add_row("", lifetime_bar(self.token.expires_in, self.token.lifetime))
        if self._error:
            table.add_row("error", Text(self._error, "red"))
        width = min(console.width, _WIDTH)
        return Panel(table, title="mqtt-token status", subtitle="Ctrl-C stops it", width=width, padding=(1, 2))

    def line(self) -> str:
        """Return the status in a line, for a log."""
        self._read()
        rows = dict(_rows(self._config, self.token, next_renewal=True))
        return f"token: {rows['token']}; renewal: {rows['renewal']}" + (f"; {self._error}" if self._error else "")

    def json(self) -> str:
        """Return the status as a JSON object."""
        self._read()
        return json.dumps(_status(self._config, self.token))


def _rows(config: Config, token: Token | None, *, next_renewal: bool = False) -> list[tuple[str, str]]:
    """Return what a person sees: a name and a text for each row."""
    rows = []
    found = _status(config, token)
    for name, value in found.items():
        if name not in ("valid", "expires_in", "renewable", "rejected"):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
            rows.append((name.replace("_", " "), printable(shown) or "-"))
    rows.append(("token", "none" if token is None else validity(token)))
    renewal = "automatic" if found["renewable"] else "a person has to log in"
    if next_renewal and found["renewable"] and token is not None:
        renewal += _until_renewal(token)
    said = f"; the server rejected the last one: {printable(token.refusal)}" if token and token.refusal else ""
    rows.append(("renewal", f"{renewal}{said}"))
    return rows


def _until_renewal(token: Token) -> str:
    """When a device renews this token, unless its program gives another ``renewal``."""
    left = RenewalPolicy(jitter=0.0).due(token) - monotonic()
    if math.isinf(left):
        return ""
    return f", in {duration(left)}" if left > 0 else ", due now"


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
        "renewable": not isinstance(config.source, DeviceFlow)
        or (token is not None and bool(token.refresh_token) and not token.refusal),
        "rejected": None if token is None else token.refusal or None,
        "stored_in": protection(config),
    }
