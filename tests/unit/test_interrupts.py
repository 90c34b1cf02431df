"""Ctrl-C and signal handlers, which run on the main thread between two instructions of whatever it does."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from mqtt_token_client import Delivery, Token, TokenClient
from mqtt_token_client.mqtt.session import delivery
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.device import Make
from tests.unit.embedded import token_of
from tests.unit.forked import run_forked

_UNNOTICED = """
import os, signal, sys, threading
from mqtt_token_client import Token, TokenClient, TokenKeeper
class Source:
    def fetch(self, previous):
        return Token("a token", 3600)
client = TokenClient("mqtt://127.0.0.1:1", Source(), client_id="device")
delivery = client.publish("t", b"", qos=1)
class Hanging:
    def fetch(self, previous):
        threading.Event().wait()
keeper = TokenKeeper(Hanging())
reached = threading.Event()
def interrupt():
    reached.wait()
    os.kill(os.getpid(), signal.SIGINT)  # the kernel gives it to this thread, so that nothing wakes the main one
threading.Thread(target=interrupt, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
threading.Timer(0.3, reached.set).start()
try:
    %s
except KeyboardInterrupt:
    print("interrupted", flush=True)
os._exit(0)
"""


_WAITS = (
    "client.connect(timeout=50)",
    "client.connect(timeout=0); client.disconnect(timeout=50)",
    "delivery.wait()",
    "keeper.get()",
)


@pytest.fixture(scope="module")
def waiting() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process for each of the waits. They start together, as they wait for most of their time."""
    with contextlib.ExitStack() as stack:
        processes = {}
        for wait in _WAITS:
            program = [sys.executable, "-c", _UNNOTICED % wait]
            process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            processes[wait] = stack.enter_context(process)
            stack.callback(process.kill)
        yield processes


@pytest.mark.parametrize("wait", _WAITS)
def test_ctrl_c_ends_a_wait_that_it_does_not_wake(waiting: dict[str, subprocess.Popen[str]], wait: str) -> None:
    # The signal is handled as one is that comes just before the main thread blocks: nothing wakes it.
    output, errors = waiting[wait].communicate(timeout=30)
    assert output == "interrupted\n", errors


@contextlib.contextmanager
def interrupted_often(handler: Callable[[], object]) -> Iterator[None]:
    """Call a function in a signal handler, again and again."""
    before = signal.signal(signal.SIGVTALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005, 0.0005)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_publish_in_a_signal_handler_interrupts_publish_and_loses_nothing(make_in_real_time: Make) -> None:
    device = make_in_real_time(max_queued=1_000_000)
    made: list[Delivery] = []
    in_handler = 0

    def publish() -> None:
        nonlocal in_handler
        in_handler += 1
        made.append(device.client.publish("handler", b"", qos=1))
        made[-1].add_done_callback(lambda _: None)

    with interrupted_often(publish):
        while in_handler < 50:
            made.append(device.client.publish("main", b"", qos=1))
            made[-1].add_done_callback(lambda _: None)
    assert len({message.number for message in made}) == len(made)  # type: ignore[attr-defined]
    assert device.client.stats.queued == len(made)


def test_a_callback_is_added_in_a_signal_handler_that_interrupts_the_same() -> None:
    def add() -> bool:  # in a child, as it would hang
        with delivery._waiting.lock:
            signal.signal(signal.SIGUSR1, lambda *_: Delivery().add_done_callback(lambda _: None))
            signal.raise_signal(signal.SIGUSR1)
        return True

    assert run_forked(add)


def interrupted_at_each_line(work: Callable[[], object], handler: Callable[[], object], files: tuple[str, ...]) -> int:
    """Do some work again and again, and call the handler in it once each time, as a signal would have it called: before
    the first line of these files that runs, before the second, and so on. Return how many lines there are.
    """
    tracer = sys.gettrace()  # that of a measurement of coverage
    for number in itertools.count(1):
        left = number

        def trace(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal left
            left -= event == "line" and frame.f_code.co_filename.endswith(files)
            if left:
                return trace
            sys.settrace(None)
            handler()
            return None

        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(tracer)
        if left > 0:
            return number - 1
    raise AssertionError


@pytest.fixture
def new_client(server: AuthorizationServer, broker: Broker) -> Callable[[], TokenClient]:
    token = token_of(server)

    class Source:
        def fetch(self, _previous: Token | None) -> Token:
            return Token(token, 3600)

    return lambda: TokenClient(broker.url, Source(), client_id="device", allow_insecure=True)


def test_a_signal_handler_may_wait_for_a_message_in_the_middle_of_a_wait(new_client: Callable[[], TokenClient]) -> None:
    with new_client() as client:

        def publish() -> None:
            client.publish("t", b"", qos=1).wait(5)

        # Not in thread.py, where no signal handler can run between two lines that must not be separated.
        files = "client_base.py", "session/queue.py", "session/delivery.py", "oneshot.py", "runtime/base.py"
        assert interrupted_at_each_line(publish, publish, files) > 30
