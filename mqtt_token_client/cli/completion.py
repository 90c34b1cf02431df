"""``mqtt-token completion``: what makes a shell complete the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_MQTT_TOKEN_COMPLETE"  # click asks for completions by it


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes a shell complete commands and options with the Tab key.

    \b
        mqtt-token completion bash | sudo tee /etc/bash_completion.d/mqtt-token
        mqtt-token completion zsh > ~/.zfunc/_mqtt-token  # a folder of $fpath
        mqtt-token completion fish > ~/.config/fish/completions/mqtt-token.fish
    """
    make = get_completion_class(shell)
    assert make is not None
    click.echo(make(context.find_root().command, {}, "mqtt-token", _VARIABLE).source())
