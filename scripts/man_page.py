"""The man page of mqtt-token, made of the command's own definitions: python scripts/man_page.py > man/mqtt-token.1"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from mqtt_token_client.cli.commands import mqtt_token

FILES = """\
.TP
.I mqtt-token.toml
The device, in the current folder, unless
.B \\-c
or
.B MQTT_TOKEN_CONFIG
names another file.
"""
ENVIRONMENT = """\
.TP
.B MQTT_TOKEN_CONFIG
The TOML file of the device.
.TP
.B MQTT_TOKEN_CLIENT_SECRET
The client secret that
.B mqtt\\-token init
writes to a file.
.TP
.B NO_COLOR
No colours.
"""


def page() -> str:
    """Return the page in the language of man(7)."""
    lines = ['.TH MQTT\\-TOKEN 1 "" "mqtt\\-token\\-client" "User Commands"', ".SH NAME"]
    lines += ["mqtt\\-token \\- MQTT with short\\-lived tokens", ".SH SYNOPSIS"]
    lines += [".B mqtt\\-token", "[\\fIOPTION\\fR]... \\fICOMMAND\\fR [\\fIARGUMENT\\fR]..."]
    lines += [".SH DESCRIPTION", *text(mqtt_token), ".SH OPTIONS", *options(mqtt_token), ".SH COMMANDS"]
    for name, command in sorted(mqtt_token.commands.items()):
        lines += described(name, command)
    lines += [".SH FILES", FILES.rstrip(), ".SH ENVIRONMENT", ENVIRONMENT.rstrip(), ".SH SEE ALSO"]
    lines += ["https://github.com/mqtt-token-client/mqtt-token-client/tree/main/docs"]
    return "\n".join(lines) + "\n"


def described(name: str, command: click.Command) -> Iterator[str]:
    """The part of a command, and of those below it."""
    arguments = " ".join(f"\\fI{roff(metavar(one))}\\fR" for one in command.params if isinstance(one, click.Argument))
    if isinstance(command, click.Group):
        yield from (f".SS {roff(name)}", *text(command))
        for inner, one in sorted(command.commands.items()):
            yield from described(f"{name} {inner}", one)
    else:
        yield from (f".SS {roff(name)} [\\fIOPTION\\fR]... {arguments}".rstrip(), *text(command), *options(command))


def text(command: click.Command) -> Iterator[str]:
    """The paragraphs of a command's help; those that begin with \\b keep their lines."""
    for number, paragraph in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", *map(roff, inspect.cleandoc(paragraph.removeprefix("\b\n")).splitlines()), ".fi")
        else:
            yield roff(" ".join(paragraph.split()))


def options(command: click.Command) -> Iterator[str]:
    """The options of a command."""
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        names = ", ".join(f"\\fB{roff(name)}\\fR" for name in [*option.opts, *option.secondary_opts])
        value = "" if option.is_flag else f" \\fI{roff(metavar(option))}\\fR"
        default = f" [default: {option.default}]" if option.show_default and option.default is not None else ""
        yield from (".TP", f"{names}{value}", roff(f"{option.help or ''}{default}"))


def metavar(parameter: click.Parameter) -> str:
    """What stands for a value."""
    if parameter.metavar:
        return parameter.metavar
    if isinstance(parameter.type, click.Choice):
        return "|".join(parameter.type.choices)
    if isinstance(parameter, click.Argument):
        return (parameter.name or "").upper()
    kinds = {"float": "SECONDS", "float range": "SECONDS", "integer range": "NUMBER", "filename": "FILE"}
    return kinds.get(parameter.type.name, parameter.type.name.upper())


def roff(line: str) -> str:
    """Return text in which nothing means a request or an escape."""
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", line)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
