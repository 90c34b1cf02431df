"""``mqtt-token service``: a systemd unit for a script."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")

# What a device needs of the kernel: the network, its own folders, and the credential. `systemd-analyze security` rates
# each line. ProcSubset=pid is not among them, as it would hide the identifier of the boot, by which the age of a stored
# token is known.
_UNIT = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} {script}
Environment={config}
Environment=PYTHONUNBUFFERED=1
{credential}WatchdogSec={watchdog}
TimeoutStartSec=infinity
Restart=always
RestartSec=5

DynamicUser=yes
StateDirectory={name}
StateDirectoryMode=0700
WorkingDirectory=%S/{name}
UMask=0077

AmbientCapabilities=
CapabilityBoundingSet=
IPAddressDeny=multicast
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# The journal asks the kernel whether NTP keeps the clock, which ProtectClock= would deny. Without capabilities these
# calls cannot set it.
SystemCallFilter=adjtimex clock_adjtime clock_adjtime64

[Install]
WantedBy=multi-user.target
"""


@click.command()
@click.argument("script", type=click.Path(path_type=Path))
@click.option("-c", "--config", type=click.Path(path_type=Path), required=True, help="The TOML file of the device.")
@click.option("--name", help="Of the service. [default: that of the script]")
@click.option("--python", type=click.Path(path_type=Path), help="The interpreter. [default: this one]")
@click.option("--credential", help="The name of an encrypted credential, such as the client secret.")
@click.option("--watchdog", type=click.IntRange(min=10), default=120, show_default=True, help="Seconds.")
def service(
    script: Path, config: Path, name: str | None, python: Path | None, credential: str | None, watchdog: int
) -> None:
    """Print a systemd unit that runs SCRIPT as a hardened service.

    The script calls notify_systemd(client) of mqtt_token_client.contrib.systemd: the service is ready when the broker
    has accepted it, and is restarted if it hangs. It runs as a user of its own, and writes only to /var/lib/NAME.

    \b
        mqtt-token service /opt/pump/pump.py -c /etc/pump.toml --credential pump-secret \\
            | sudo tee /etc/systemd/system/pump.service
        sudo systemd-creds encrypt --name=pump-secret - /etc/credstore.encrypted/pump-secret
        sudo systemctl enable --now pump

    The TOML file then has client_secret_file = "$CREDENTIALS_DIRECTORY/pump-secret".
    """
    name = name or script.stem
    for option, value in (("--name", name), ("--credential", credential)):
        if value is not None and not _NAME.fullmatch(value):
            raise click.UsageError(f"{option} must consist of letters, digits and _.@-, got {value!r}")
    click.echo(
        _UNIT.format(
            name=name,
            python=_quoted(str(python or sys.executable)),
            script=_quoted(str(script.absolute())),
            config=_quoted(f"MQTT_TOKEN_CONFIG={config.absolute()}"),
            description=f"{name}, an MQTT client with short-lived tokens",
            credential=f"LoadCredentialEncrypted={credential}\n" if credential else "",
            watchdog=watchdog,
        ),
        nl=False,
    )


def _quoted(text: str) -> str:
    """One word as it stands in a unit (systemd.syntax(7), systemd.unit(5))."""
    if any(ord(character) < ord(" ") for character in text):
        raise click.UsageError(f"a path must not contain control characters, got {text!r}")
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w./@:+,~%=-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
