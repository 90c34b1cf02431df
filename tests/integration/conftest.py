"""Ends the run where a test does not end. pytest-timeout raises in the main thread, which may then wait for another one
that never ends.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Generator

import pytest

from devtools.servers import processes

_PATIENCE = 300.0  # seconds for a test, its set-up and its end; more than any timeout of pytest-timeout
_stderr: int


def pytest_configure() -> None:
    global _stderr
    _stderr = os.dup(2)  # tests run with another one


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    guard = threading.Timer(_PATIENCE, _end, [item.nodeid])
    guard.daemon = True
    guard.start()
    try:
        return (yield)
    finally:
        guard.cancel()


def _end(test: str) -> None:
    os.write(_stderr, f"\n{test} still runs after {_PATIENCE:g} s\n".encode())
    faulthandler.dump_traceback(_stderr)
    for process in processes.started:
        process.kill()
    os._exit(1)
