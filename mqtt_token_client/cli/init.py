"""``mqtt-token init``: writes the TOML file of a device, and checks it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..config import read_config
from ..errors import ConfigurationError
from ..mqtt.transport.address import parse_broker
from ..profiles import PROFILES
from .device_file import Answers, render, write
from .doctor import doctor
from .login import check_client, config_option
from .providers import GRANTS, PROVIDERS, Provider, Scope

_SECRET_VARIABLE = "MQTT_TOKEN_CLIENT_SECRET"  # noqa: S105 - the name of a variable
_SECRET_FILE = "secret"  # noqa: S105 - the name of a file
_PROFILES = [name for name in PROFILES if name not in ("aws-iot", "solace")]  # for these, a table in the file has more
_REQUIRED = ("broker", "client_id", "provider", "issuer")


@click.command()
@config_option
@click.option("--broker", metavar="URL", help="Such as mqtts://broker.example.com.")
@click.option("-i", "--client-id", help="The MQTT client identifier of the device.")
@click.option("--profile", type=click.Choice(_PROFILES), default="password", show_default=True,
              help="How the broker expects the token.")  # fmt: skip
@click.option("--provider", type=click.Choice(list(PROVIDERS)), help="The identity provider.")
@click.option("--issuer", metavar="URL", help="Its issuer identifier.")
@click.option("--grant", type=click.Choice(GRANTS), help="[default: client_credentials]")
@click.option("--source-client-id", metavar="ID", help="The client at the provider. [default: that of --client-id]")
@click.option("--secret-file", metavar="PATH", help="A file with the client secret; may begin with a $VARIABLE.")
@click.option("--private-key", metavar="PATH", help="A PEM file that signs requests, instead of a client secret.")
@click.option("--audience", help="To request from the provider.")
@click.option("--scope", help="To request from the provider.")
@click.option("--store", help="auto, keyring, file or file:FOLDER. [default: auto]")
@click.option("--allow-insecure", is_flag=True, help="Allow plain mqtt:// and http:// to other machines.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--check/--no-check", default=True, help="Run doctor on the file. [default: check]")
@click.pass_context
def init(context: click.Context, /, path: str, **options: Any) -> None:
    """Write the TOML file of a device, with comments, and run doctor on it.

    Asks for what the options leave open. Where stdin is not a terminal, an option that is missing is an error.

    The client secret goes into a file of its own, "secret" beside the TOML file, with mode 600. It is asked for, or
    taken from the environment variable MQTT_TOKEN_CLIENT_SECRET; or name a file that has it with --secret-file. There
    is no option for the secret itself, as every user of the machine can read a command line.

    \b
        mqtt-token init --broker mqtts://broker.example.com -i pump-17 \\
            --provider keycloak --issuer https://id.example.com/realms/plant
    """
    file = Path(path)
    _check_free(file, options["force"])
    answers, secret = _Questions(options).answers(file)
    kept = file.parent / _SECRET_FILE
    if secret:
        _check_free(kept, options["force"])
    try:
        _check(file, answers, secret)
        if secret:
            write(kept, secret + "\n", 0o600)
            click.echo(f"Wrote {kept}, which only you can read.")
        write(file, render(answers), 0o644)
    except OSError as error:
        raise click.ClickException(f"{file.parent}: {error.strerror}") from None
    click.echo(f"Wrote {file}.")
    if answers.secret_file.startswith("$") and os.path.expandvars(answers.secret_file).startswith("$"):
        click.echo(f"Not checked: {answers.secret_file} is not set here. Run mqtt-token doctor where it is.")
    elif options["check"]:
        click.echo()
        context.invoke(doctor, path=path)


def _check_free(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists; --force replaces it")


def _check(file: Path, answers: Answers, secret: str) -> None:
    """Read the file before it is in place. A secret that is not there yet, or only in the service, is left out.

    Raises:
        UsageError: the library would reject the file.
        OSError: the folder cannot be written.
    """
    trial = file.with_name(f".{file.name}.{os.getpid()}")
    trial_secret = file.with_name(f"{trial.name}.secret")
    if secret or answers.secret_file.startswith("$"):
        answers = answers._replace(secret_file=trial_secret.name)
        write(trial_secret, "a secret", 0o600)
    try:
        write(trial, render(answers), 0o600)
        check_client(read_config(trial))
    except ConfigurationError as error:
        raise click.UsageError(str(error).removeprefix(f"{trial}: ")) from None
    finally:
        trial.unlink(missing_ok=True)
        trial_secret.unlink(missing_ok=True)


class _Questions:
    """Gets what the file says from the options, and from a person at the terminal if they leave something open."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._terminal = _is_terminal()
        self._ask_all = self._terminal and any(options[name] is None for name in _REQUIRED)

    def answers(self, file: Path) -> tuple[Answers, str]:
        """Return what the file says, and the client secret that is to be written to a file of its own."""
        options = self._options
        insecure: bool = options["allow_insecure"]
        broker = self._get(
            "broker", "Broker", parse=lambda url: _url(url, insecure), example="mqtts://broker.example.com"
        )
        client_id = self._get("client_id", "MQTT client id of this device", socket.gethostname())
        provider = self._provider()
        issuer = self._get("issuer", "Issuer", example=provider.issuer)
        grant = self._grant(provider)
        source_client_id = self._get("source_client_id", f"Client id at {provider.title}", client_id, required=False)
        secret_file, private_key, secret = self._client_auth(file, grant)
        answers = Answers(
            broker=broker,
            client_id=client_id,
            profile=options["profile"],
            provider=provider,
            issuer=issuer,
            grant=grant,
            source_client_id=source_client_id,
            audience=self._own_or_default("audience", "Audience", Scope(provider.audience, bool(provider.audience))),
            scope=self._own_or_default("scope", "Scope", provider.scopes[grant]),
            store=self._get("store", "Store for the token: auto, keyring, file, file:FOLDER", "auto", required=False),
            secret_file=secret_file,
            private_key=private_key,
            allow_insecure=insecure,
        )
        return answers, secret

    def _provider(self) -> Provider:
        if self._options["provider"] is None and self._terminal:
            click.echo("Identity providers:")
            for name, provider in PROVIDERS.items():
                click.echo(f"    {name:<10} {provider.title}")
        return PROVIDERS[self._get("provider", "Identity provider", parse=_one_of(list(PROVIDERS)))]

    def _grant(self, provider: Provider) -> str:
        grants = list(provider.scopes)
        grant = self._options["grant"]
        if grant is None and len(grants) > 1 and self._ask_all:
            click.echo("Grants:")
            click.echo("    client_credentials   the device has a secret or a private key")
            click.echo("    device_flow          a person approves the device on a phone")
            grant = self._get("grant", "Grant", grants[0], required=False, parse=_one_of(grants))
        grant = grant or grants[0]
        if grant not in grants:
            raise click.UsageError(f"--grant: {provider.title} has no {grant}")
        return str(grant)

    def _client_auth(self, file: Path, grant: str) -> tuple[str, str, str]:
        """Return the path of a secret, the path of a private key, and a secret that is not in a file yet."""
        secret_file, private_key = self._options["secret_file"], self._options["private_key"]
        if secret_file is not None and private_key is not None:
            raise click.UsageError("--secret-file and --private-key exclude each other")
        if private_key is not None:
            return "", _from_folder(file, private_key), ""
        if secret_file is not None:
            return _from_folder(file, secret_file), "", ""
        if grant == "device_flow":
            return "", "", ""
        secret = os.environ.get(_SECRET_VARIABLE, "")
        if not secret and self._terminal:
            secret = click.prompt("Client secret (not shown)", hide_input=True)
        if not secret:
            raise click.UsageError(f"--secret-file is missing, and {_SECRET_VARIABLE} is not set")
        return _SECRET_FILE, "", secret

    def _own_or_default(self, name: str, question: str, wanted: Scope) -> str:
        if wanted.own:
            return self._get(name, question, example=wanted.text)
        return self._get(name, question if wanted.text else f"{question} (may be empty)", wanted.text, required=False)

    def _get(
        self,
        name: str,
        question: str,
        default: str | None = None,
        required: bool = True,
        parse: Callable[[str], str] | None = None,
        example: str = "",
    ) -> str:
        """Return an option's value; if it is not given, the answer of a person, or the default.

        Raises:
            UsageError: it is required, and there is nobody to ask.
        """
        parse = parse or _printable
        option = f"--{name.replace('_', '-')}"
        if self._options[name] is not None:
            try:
                return parse(self._options[name])
            except click.UsageError as error:
                raise click.UsageError(f"{option}: {error.message}") from None
        if self._ask_all or (required and self._terminal):
            if example:
                click.echo(f"Such as {example}")
            return str(click.prompt(question, default=default, show_default=bool(default), value_proc=parse))
        if required or default is None:
            raise click.UsageError(f"{option} is missing")
        return default


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _printable(text: str) -> str:
    if not text.isprintable():
        raise click.UsageError("it must not contain control characters")
    return text.strip()


def _one_of(names: list[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip() not in names:
            raise click.UsageError(f"it must be one of {', '.join(names)}")
        return text.strip()

    return parse


def _url(text: str, allow_insecure: bool) -> str:
    try:
        parse_broker(_printable(text), allow_insecure=allow_insecure)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    return text.strip()


def _from_folder(file: Path, path: str) -> str:
    """Return a path as it stands in the file, which means it relative to its own folder."""
    if path.startswith(("$", "~", "/")):
        return path
    return os.path.relpath(path, file.parent)
