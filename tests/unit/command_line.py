"""Runs the command in this process, with any release of click that the library accepts."""

from __future__ import annotations

import inspect

from click.testing import CliRunner


def cli_runner() -> CliRunner:
    """A runner whose results have stdout and stderr apart, which is an option of click 8.1 and the rule since 8.2."""
    if "mix_stderr" in inspect.signature(CliRunner).parameters:
        return CliRunner(mix_stderr=False)  # type: ignore[call-arg]  # of click 8.1
    return CliRunner()
