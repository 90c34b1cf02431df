"""``mqtt-token pub``: publishes by hand and in scripts, through every rotation."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from ..config import Config
from ..errors import MqttTokenError
from ..mqtt.codec.checks import LARGEST_PAYLOAD
from ..mqtt.session.delivery import Delivery
from .beside import (
    Wait,
    client_id_option,
    connected,
    encoded,
    message_properties,
    properties_option,
    qos_option,
    topic_option,
    user_properties_option,
    wait_option,
)
from .login import with_config

_MOST_UNACKNOWLEDGED = 1000  # messages from stdin; then the next line waits
_PIECE = 1 << 20  # bytes read at once: a reader makes room for as many as it is asked for
_TOO_LONG = "more than {} bytes, the most that a message may have"


@click.command()
@with_config
@topic_option
@click.option("-m", "--message", help="The payload.")
@click.option("-n", "--null", is_flag=True, help="An empty payload.")
@click.option("-l", "--lines", is_flag=True, help="A message for each line of stdin.")
@click.option(
    "-f", "--file", type=click.Path(allow_dash=True), metavar="FILE", help="The payload is this file; - is stdin."
)
@qos_option
@click.option("-r", "--retain", is_flag=True, help="The broker keeps it for later subscribers.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="Send it this many times.")
@click.option("--delay", type=click.FloatRange(min=0), default=0.0, help="Seconds between two of these.")
@properties_option
@user_properties_option
@client_id_option
@wait_option
@click.option("--stats", is_flag=True, help="At the end, print how many were acknowledged, and how fast.")
def pub(
    config: Config,
    topic: str,
    message: str | None,
    null: bool,
    lines: bool,
    file: str | None,
    qos: int,
    retain: bool,
    repeat: int,
    delay: float,
    properties: tuple[str, ...],
    user: tuple[str, ...],
    client_id: str | None,
    wait: float | None,
    stats: bool,
) -> None:
    """Publish a message, a file, or each line of stdin.

    Exits with 1 if a message was not acknowledged in time, and with 4 if the broker rejected one.

    \b
        mqtt-token pub -t pump/17/temperature -m 21.5
        journalctl -f -o json | mqtt-token pub -t pump/17/log -l
    """
    if [message is not None, null, lines, file is not None].count(True) != 1:
        raise click.UsageError("give one of -m, -n, -l and -f")
    payloads: Iterable[bytes]
    if lines and sys.stdin is None:
        raise click.UsageError("-l reads stdin, and stdin is closed")
    if lines:
        payloads = _lines(sys.stdin.buffer)
    else:
        payload = _content(file) if file is not None else encoded(message or "")
        payloads = _repeated(payload, repeat, delay)
    sender = _Sender()
    more = message_properties(properties, user)
    limit = Wait(wait)
    with connected(config, client_id, limit, sender.stop) as client:
        rest = limit.left
        publish = partial(client.publish, topic, qos=qos, retain=retain, properties=more)
        finished = all(sender.send(partial(publish, one), rest) for one in payloads) and sender.finish(rest)
        error = sender.error
        if not finished:
            client.disconnect(0)
    if stats:
        seconds = time.monotonic() - sender.began
        click.echo(f"{sender.delivered} of {sender.sent} acknowledged, {sender.sent / seconds:.0f} a second", err=True)
    if error is not None:
        raise error
    if not finished:
        raise click.ClickException(f"{sender.sent - sender.delivered} of {sender.sent} not acknowledged in time")


def _content(file: str) -> bytes:
    def wrong(why: str) -> click.BadParameter:
        return click.BadParameter(f"{file!r}: {why}", param_hint="'-f' / '--file'")

    if file == "-" and sys.stdin is None:
        raise wrong("stdin is closed")
    content = bytearray()
    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as opened:
            while len(content) <= LARGEST_PAYLOAD and (piece := opened.read(_PIECE)):  # /dev/zero has no end
                content += piece
    except OSError as error:
        raise wrong(str(error.strerror)) from None
    if len(content) > LARGEST_PAYLOAD:
        raise wrong(_TOO_LONG.format(LARGEST_PAYLOAD))
    return bytes(content)


def _lines(stdin: BinaryIO) -> Iterator[bytes]:
    try:
        while line := stdin.readline(LARGEST_PAYLOAD + 2):
            payload = line.rstrip(b"\r\n")
            if len(payload) > LARGEST_PAYLOAD:
                raise click.UsageError(f"-l: a line has {_TOO_LONG.format(LARGEST_PAYLOAD)}")
            yield payload
    except OSError as error:
        raise click.UsageError(f"-l: stdin: {error.strerror}") from None


def _repeated(payload: bytes, repeat: int, delay: float) -> Iterator[bytes]:
    for number in range(repeat):
        if number and delay:
            time.sleep(delay)
        yield payload


class _Sender:
    """Publishes, and waits where too many messages are not acknowledged."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.sent = self.delivered = 0
        self.error: MqttTokenError | None = None
        self._stopped = False
        self._room = threading.Semaphore(_MOST_UNACKNOWLEDGED)

    def send(self, publish: Callable[[], Delivery], timeout: float | None) -> bool:
        """Publish when there is room; returns False if there is none in time, or will be none."""
        if not self._room.acquire(timeout=timeout) or self._stopped:
            return False
        self.sent += 1
        publish().add_done_callback(self._done)
        return True

    def stop(self, error: MqttTokenError) -> None:
        """Wait for nothing any more, because of an error."""
        self.error, self._stopped = error, True
        self._room.release(_MOST_UNACKNOWLEDGED)

    def _done(self, delivery: Delivery) -> None:
        if delivery.error is None:
            self.delivered += 1
        elif not self._stopped:
            self.error = delivery.error
        self._room.release()

    def finish(self, timeout: float | None) -> bool:
        """Wait until all are acknowledged or have failed; returns False if the time is over before that, or if that
        will not happen.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for _ in range(_MOST_UNACKNOWLEDGED):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._room.acquire(timeout=left):
                return False
        return not self._stopped
