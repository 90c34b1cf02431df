"""The subcommands of ``mqtt-token``."""

from __future__ import annotations

import json

import click
from rich.console import Console

from .. import __version__
from ..errors import MqttTokenError
from .completion import completion
from .display import Snapshot, verdict
from .doctor import doctor
from .init import init
from .journal import journal
from .login import login, logout, token
from .publishing import pub
from .service import service
from .status import status
from .subscribing import request, sub


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def mqtt_token() -> None:
    """MQTT with short-lived tokens.

    \b
    Exit codes: 0 done; 1 temporary failure; 2 wrong usage or configuration;
    3 a person has to log in; 4 rejected, and the cause needs fixing.
    """


for command in (init, journal, login, status, token, logout, doctor, pub, sub, request, service, completion):
    mqtt_token.add_command(command)


@mqtt_token.command()
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this many seconds. [default: at Ctrl-C]"
)
@click.option("--json", "as_json", is_flag=True, help="Print only one JSON object to stdout, at the end.")
@click.pass_context
def demo(context: click.Context, seconds: float | None, as_json: bool) -> None:
    """Watch a client whose tokens expire after 6 seconds.

    An authorization server and a broker run in this process, on loopback. One client publishes 50 messages a second
    at QoS 1 and subscribes to them, while its connection moves from each token to the next.

    Exits with 1 if a message was lost or the token was never rotated.
    """
    try:
        from .demo import run
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    console = Console(stderr=as_json)
    try:
        end = run(seconds, console)
    except MqttTokenError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(_as_json(end)))
    else:
        console.print(verdict(end), highlight=False)
    context.exit(1 if end.lost or not end.gaps else 0)


def _as_json(end: Snapshot) -> dict[str, float]:
    return {
        "rotations": len(end.gaps),
        "sent": end.sent,
        "received": end.received,
        "lost": end.lost,
        "duplicated": end.duplicated,
        "gap_ms_max": round(max(end.gaps, default=0.0) * 1000, 1),
        "renewals": end.renewals,
    }
