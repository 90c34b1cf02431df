"""Ctrl-C and signal handlers, which run on the main thread between two instructions of whatever it does."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mqtt_token_client import ClientClosed, Delivery, Token, TokenClient, TokenKeeper, TokenSource, open_journal
from mqtt_token_client.journal.disk import DiskJournal
from mqtt_token_client.mqtt.runtime.base import current
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


def interrupted_at_each_line(
    work: Callable[[], object],
    handler: Callable[[], object],
    files: tuple[str, ...],
    prepare: Callable[[], object] = lambda: None,
) -> int:
    """Do some work again and again, and call the handler in it once each time, as a signal would have it called: before
    the first line of these files that runs, before the second, and so on. Return how many lines there are.
    """
    tracer = sys.gettrace()  # that of a measurement of coverage
    for number in itertools.count(1):
        prepare()
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
def source(server: AuthorizationServer) -> TokenSource:
    token = token_of(server)

    class Source:
        def fetch(self, _previous: Token | None) -> Token:
            return Token(token, 3600)

    return Source()


@pytest.fixture
def new_client(broker: Broker, source: TokenSource) -> Callable[..., TokenClient]:
    return lambda given=source, **more: TokenClient(broker.url, given, client_id="device", allow_insecure=True, **more)


def test_a_signal_handler_may_wait_for_a_message_in_the_middle_of_a_wait(new_client: Callable[[], TokenClient]) -> None:
    with new_client() as client:

        def publish() -> None:
            client.publish("t", b"", qos=1).wait(5)

        # Not in thread.py, where no signal handler can run between two lines that must not be separated.
        files = "client_base.py", "session/queue.py", "session/delivery.py", "oneshot.py", "runtime/base.py"
        assert interrupted_at_each_line(publish, publish, files) > 30


def test_a_signal_handler_in_the_middle_of_publish_for_a_journal_cannot_wait(
    new_client: Callable[..., TokenClient], tmp_path: Path
) -> None:
    def interrupted() -> list[str]:
        errors = []
        journal = open_journal(tmp_path / "journal")
        with new_client(journal=journal) as client:

            def publish_and_wait() -> None:
                try:
                    client.publish("t", b"", qos=1).wait()
                except RuntimeError as error:
                    errors.append(str(error))

            files = "recorded_queue.py", "journal/disk.py", "journal/channel.py"
            interrupted_at_each_line(lambda: client.publish("t", b"", qos=1), publish_and_wait, files)
        journal.close()
        return errors

    errors = run_forked(interrupted)
    assert len(errors) > 10
    assert set(errors) == {"Delivery.wait() in a handler would wait for itself; use add_done_callback() there"}


class TestDisconnectInASignalHandler:
    """Wherever it interrupts the main thread, it ends: what it waits for needs nothing that is held there."""

    def test_publish_is_refused_or_its_message_delivered(self, new_client: Callable[..., TokenClient]) -> None:
        client: TokenClient

        def prepare() -> None:
            nonlocal client
            client = new_client()
            client.connect(5)

        def publish() -> None:
            with contextlib.suppress(ClientClosed):
                delivery = client.publish("t", b"", qos=1)
                client.disconnect(5)
                assert (delivery.done, delivery.error) == (True, None)
            assert (client.state, client.stats.queued) == ("closed", 0)

        def interrupted() -> int:
            files = "client_base.py", "session/queue.py", "session/delivery.py", "runtime/base.py"
            # For all of the two seconds before the one line that no signal handler comes before: see put().
            return interrupted_at_each_line(publish, lambda: client.disconnect(2), files, prepare)

        assert run_forked(interrupted) > 30

    def test_publish_for_a_journal_is_not_waited_for(
        self, new_client: Callable[..., TokenClient], tmp_path: Path
    ) -> None:
        client: TokenClient
        journal: DiskJournal

        def prepare() -> None:
            nonlocal client, journal
            journal = open_journal(tmp_path / "journal")
            client = new_client(journal=journal)
            client.connect(5)

        def publish() -> None:
            with contextlib.suppress(ClientClosed):
                delivery = client.publish("t", b"", qos=1)
                client.disconnect(5)
                assert delivery.stored
            client.disconnect(5)
            assert client.state == "closed"
            journal.close()

        def interrupted() -> int:
            files = "client_base.py", "session/queue.py", "recorded_queue.py", "journal/disk.py", "journal/channel.py"
            return interrupted_at_each_line(publish, lambda: client.disconnect(5), files, prepare)

        assert run_forked(interrupted) > 50

    @pytest.mark.parametrize("act", ["connect", "subscribe", "disconnect", "token"])
    def test_another_call_goes_on_afterwards(
        self, new_client: Callable[..., TokenClient], source: TokenSource, act: str
    ) -> None:
        client: TokenClient
        keeper: TokenKeeper

        def prepare() -> None:
            nonlocal client, keeper
            keeper = TokenKeeper(source)
            client = new_client(keeper)
            if act != "connect":
                client.connect(5)

        def call() -> None:
            if act == "connect":
                client.connect(5)
            elif act == "subscribe":
                client.subscribe("t", print)
            elif act == "disconnect":
                client.disconnect(5)
            else:
                assert keeper.token
                keeper.add_listener(print)
                keeper.remove_listener(print)

        def interrupted() -> int:
            files = (
                *("client.py", "client_base.py", "core.py", "starting.py", "oneshot.py"),
                *("session/session.py", "session/queue.py", "session/subscriptions.py"),
                *("keeper.py", "requests.py", "renewer.py", "notifier.py"),
            )
            return interrupted_at_each_line(call, lambda: client.disconnect(5), files, prepare)

        assert run_forked(interrupted) > 10

    def test_connect_that_is_under_way_ends_as_the_handler_wants_it(
        self, new_client: Callable[..., TokenClient]
    ) -> None:
        def end_with(handler: Callable[[TokenClient], object]) -> list[str]:
            client: TokenClient
            states = []

            def prepare() -> None:
                nonlocal client
                client = new_client()

            def connect() -> None:
                client.connect(5)
                sys.settrace(None)
                states.append(client.state)
                client.disconnect(5)

            interrupted_at_each_line(connect, lambda: handler(client), ("core.py",), prepare)
            return states

        def close_and_connect(client: TokenClient) -> None:
            client.disconnect(5)
            client.connect(5)

        # Connected where the handler comes before connect() does anything, and before the one line of start() that no
        # signal handler comes before.
        assert run_forked(lambda: end_with(lambda client: client.disconnect(5))).count("closed") > 10
        assert run_forked(lambda: end_with(close_and_connect)).count("closed") <= 1


def test_an_exception_of_a_signal_handler_leaves_nothing_of_a_message_that_is_refused(
    new_client: Callable[..., TokenClient],
) -> None:
    client = new_client()
    client.connect(5)
    client.disconnect(5)
    queue = client._core.session.queue

    def publish() -> None:
        with contextlib.suppress(ClientClosed, KeyboardInterrupt):
            client.publish("t", b"", qos=1)
        sys.settrace(None)
        assert (client.stats.queued, list(queue.new)) == (0, [])

    def interrupt() -> None:
        raise KeyboardInterrupt

    # In a child, as exceptions that a trace function raises may leave something behind.
    assert run_forked(lambda: interrupted_at_each_line(publish, interrupt, ("session/queue.py",))) > 3


def test_a_child_of_a_signal_handler_in_the_middle_of_publish_may_wait(
    new_client: Callable[..., TokenClient], tmp_path: Path
) -> None:
    may_wait = []

    def fork() -> None:
        assert current.in_handler
        may_wait.append(run_forked(lambda: not current.in_handler))

    journal = open_journal(tmp_path / "journal")
    with new_client(journal=journal) as client:
        interrupted_at_each_line(lambda: client.publish("t", b"", qos=1), fork, ("journal/channel.py",))
    journal.close()
    assert may_wait
    assert all(may_wait)


def test_a_signal_handler_in_the_middle_of_subscribe_may_wait(new_client: Callable[..., TokenClient]) -> None:
    unused = new_client()
    with new_client() as client:
        files = "session/session.py", "session/queue.py", "session/subscriptions.py"

        def publish() -> None:
            client.publish("t", b"", qos=1).wait(5)

        assert interrupted_at_each_line(lambda: unused.subscribe("t", print), publish, files) > 10
