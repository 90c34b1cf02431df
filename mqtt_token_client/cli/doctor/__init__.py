"""``mqtt-token doctor``: why a device does not connect, and what to do."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import click

from ...logs import get_logger
from ..login import REJECTED, TEMPORARY, config_option, exit_code
from ..wrapping import wrapped
from .examination import examine
from .findings import FAILED, NOTE, OK, Finding, likeliest_cause

_MARKS = {OK: ("ok", "green"), NOTE: ("note", "yellow"), FAILED: ("FAILED", "red")}
_WIDTH = 22  # of a step's name


@click.command()
@config_option
@click.option("--topic", help="To subscribe and publish to. [default: the client id and /doctor]")
@click.option("--timeout", type=click.FloatRange(1, 300), default=15.0, show_default=True, help="Seconds per step.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(context: click.Context, path: str, topic: str | None, timeout: float, as_json: bool) -> None:
    """Go through everything that a device needs, and name the likeliest cause of what fails.

    It connects with the device's own client id, so stop the device's service before. A new token is obtained and
    stored; messages that wait for the device are left to it.

    \b
    Exit codes: 0 all is well; 1 temporary failure; 2 wrong configuration;
    3 a person has to log in; 4 rejected, and the cause needs fixing.
    """
    get_logger("mqtt_token_client").logger.addHandler(logging.NullHandler())  # the findings say it all
    findings: list[Finding] = []
    for finding in examine(path, topic, timeout):
        findings.append(finding)
        if not as_json:
            _show(finding)
    cause = likeliest_cause(findings)
    if as_json:
        click.echo(json.dumps({"steps": [_as_json(one) for one in findings], "cause": cause and _as_json(cause)}))
    elif cause is None:
        click.echo("\nAll is well.")
    else:
        click.echo("\n" + wrapped(f"Likeliest cause: {cause.step}: {cause.saw}"))
        if cause.fix:
            click.echo(wrapped(f"What to do: {cause.fix}"))
    context.exit(0 if cause is None else _exit_code(findings))


def _show(finding: Finding) -> None:
    text, colour = _MARKS[finding.state]
    mark = f"{text:<6}"
    if not os.environ.get("NO_COLOR"):  # https://no-color.org, which click leaves to the program
        mark = click.style(mark, fg=colour)
    click.echo(f"{finding.step:<{_WIDTH}} {mark} {wrapped(finding.saw, _WIDTH + 8)}")


def _as_json(finding: Finding) -> dict[str, Any]:
    return {"step": finding.step, "state": finding.state, "saw": finding.saw, "fix": finding.fix}


def _exit_code(findings: list[Finding]) -> int:
    failed = next(finding for finding in findings if finding.state == FAILED)
    if failed.error is None:
        return REJECTED if failed.fix else TEMPORARY
    return exit_code(failed.error, asks_a_person=failed.step == "token")
