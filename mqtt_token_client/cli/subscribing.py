"""``mqtt-token sub`` and ``request``: messages from the broker, by hand and in scripts."""

from __future__ import annotations

import base64
import json
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import click

from ..config import Config
from ..errors import DeliveryFailed, MqttTokenError
from ..events import Event, SubscriptionRefused
from ..logs import printable
from ..mqtt.codec.message import Message
from .beside import (
    MAX_WAIT,
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
from .live import show_until
from .login import with_config
from .printing import Printer, cannot_write, check_stdout, write_out
from .traffic import Traffic, line, picture


@click.command()
@with_config
@click.option("-t", "--topic", "topics", required=True, multiple=True, help="A topic filter; may be given again.")
@qos_option
@click.option("-C", "--count", type=click.IntRange(min=1), help="End after this many messages.")
@wait_option
@click.option("-R", "--no-retained", is_flag=True, help="Leave out retained messages.")
@click.option("-v", "--verbose", is_flag=True, help="Print the topic before the payload.")
@click.option("-F", "--format", "form", help="Such as '%t %q %p': topic, QoS, payload; %r retain, %% a percent sign.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each message.")
@click.option("--stats", is_flag=True, help="Show the topics with their numbers of messages instead of the messages.")
@client_id_option
@click.pass_context
def sub(
    context: click.Context,
    config: Config,
    topics: tuple[str, ...],
    qos: int,
    count: int | None,
    wait: float | None,
    no_retained: bool,
    verbose: bool,
    form: str | None,
    as_json: bool,
    stats: bool,
    client_id: str | None,
) -> None:
    """Print messages, one a line, until Ctrl-C.

    Exits with 1 if --wait is over before --count messages have come. --stats is a table that refreshes; where stdout is
    not a terminal, a line every ten seconds.

    \b
        mqtt-token sub -t 'pump/+/temperature' -v
        mqtt-token sub -t pump/17/state -C 1 -W 10
    """
    if stats and (as_json or form or verbose):
        raise click.UsageError("--stats takes the place of the messages: leave out -v, -F and --json")
    as_text = _json if as_json else _formatted(form or ("%t %p" if verbose else "%p"))
    traffic, over, left = Traffic(), threading.Event(), count or math.inf
    check_stdout()
    limit, printer = Wait(wait), Printer(over.set)

    def received(message: Message) -> None:
        nonlocal left
        if over.is_set() or (no_retained and message.retain):
            return
        traffic.add(message.topic, message.payload)
        if not stats:
            printer.put(as_text(message))
        left -= 1
        if not left:
            over.set()

    failures: list[MqttTokenError] = []

    def failed(error: MqttTokenError) -> None:
        failures.append(error)
        over.set()

    def on_event(event: Event) -> None:
        traffic.on_event(event)
        if isinstance(event, SubscriptionRefused):
            failed(DeliveryFailed(f"the broker rejected the filter {printable(event.topic_filter)}"))

    show = partial(show_until, over, partial(picture, traffic), partial(line, traffic)) if stats else over.wait
    patient = False
    try:
        try:
            with connected(config, client_id, limit, failed, on_event) as client:
                for topic in topics:
                    client.subscribe(topic, received, qos=qos)
                ended = show(limit.left)
            patient = not left and wait is None
        finally:
            printer.finish(patient=patient)
    except KeyboardInterrupt:
        _check_printed(printer)
        raise
    if failures:
        raise failures[0]
    _check_printed(printer)
    context.exit(0 if ended or count is None else 1)


def _check_printed(printer: Printer) -> None:
    if printer.error is not None:
        raise click.ClickException(f"stdout: {printer.error.strerror}; the last messages were not printed")
    if unprinted := printer.unprinted:
        raise click.ClickException(f"{unprinted} of {printer.count} messages not printed, as nobody reads stdout")


@click.command()
@with_config
@topic_option
@click.option("-m", "--message", default="", help="The payload.")
@click.option("--response-topic", help="Where the answer is expected. [default: a random one below the topic]")
@qos_option
@properties_option
@user_properties_option
@client_id_option
@click.option(
    "-W",
    "--wait",
    type=click.FloatRange(0, MAX_WAIT, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds, which begin before it connects.",
)
def request(
    config: Config,
    topic: str,
    message: str,
    response_topic: str | None,
    qos: int,
    properties: tuple[str, ...],
    user: tuple[str, ...],
    client_id: str | None,
    wait: float,
) -> None:
    """Publish a request and print the answer (MQTT 5 section 4.10).

    Exits with 1 if no answer comes in time.
    """
    check_stdout()
    limit = Wait(wait)
    mark, arrived = uuid4().bytes, threading.Event()
    answer_topic = response_topic or f"{topic}/response/{mark.hex()}"
    more = (message_properties(properties, user) or {}) | {"response_topic": answer_topic, "correlation_data": mark}

    answers: list[bytes] = []

    def received(answer: Message) -> None:
        if answer.properties.get("correlation_data", mark) == mark:
            answers.append(answer.payload)
            arrived.set()

    failures: list[MqttTokenError] = []

    def failed(error: MqttTokenError) -> None:
        failures.append(error)
        arrived.set()

    with connected(config, client_id, limit, failed) as client:
        client.subscribe(answer_topic, received, qos=qos)
        delivery = client.publish(topic, encoded(message), qos=qos, properties=more)
        came = arrived.wait(limit.left)
        if failures or not came:
            client.disconnect(0)
        if failures:
            raise failures[0]
        if not came:
            if delivery.error is not None:
                raise delivery.error
            raise click.ClickException(f"no answer on {printable(answer_topic)} within {wait:g} s")
    try:
        write_out(answers[0] + b"\n")
    except BrokenPipeError:
        raise  # click ends the command without a word
    except OSError as error:
        raise cannot_write(error) from None


def _formatted(form: str) -> Callable[[Message], bytes]:
    parts = form.split("%%")

    def show(message: Message) -> bytes:
        fields = {
            "t": message.topic.encode(),
            "p": message.payload,
            "q": b"%d" % message.qos,
            "r": b"%d" % message.retain,
        }
        shown = []
        for part in parts:
            first, *others = part.split("%")
            pieces = [encoded(first)]
            pieces += [fields.get(other[:1], encoded(f"%{other[:1]}")) + encoded(other[1:]) for other in others]
            shown.append(b"".join(pieces))
        return b"%".join(shown)

    return show


def _json(message: Message) -> bytes:
    """The payload as text if it is UTF-8, otherwise as Base64 in ``payload_base64``."""
    found: dict[str, Any] = {"topic": message.topic, "qos": message.qos, "retain": message.retain}
    try:
        found["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        found["payload_base64"] = base64.b64encode(message.payload).decode()
    if message.properties:
        found["properties"] = message.properties
    return json.dumps(found, default=lambda value: base64.b64encode(value).decode()).encode()
