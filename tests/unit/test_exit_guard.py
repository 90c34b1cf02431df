"""ExitGuard: what a signal does while a refresh token is in flight, in processes that end by it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import TokenError
from mqtt_token_client.stores.file import FileStore
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.token import Token
from mqtt_token_client.tokens import exit_guard
from mqtt_token_client.tokens.exit_guard import ExitGuard, postpone_signals
from mqtt_token_client.tokens.keeper import TokenKeeper
from mqtt_token_client.tokens.off_main_thread import off_main_thread

from .keeping import Source
from .test_keeper_shared import USED

_PROGRAM = """
import logging, os, signal, sys, threading, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
from mqtt_token_client.tokens.exit_guard import ExitGuard, postpone_signals
"""


def run(program: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-c", _PROGRAM + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_process_once_the_guard_is_released(name: str) -> None:
    program = f"""
postpone_signals()
signalled = threading.Event()

def renew():
    with ExitGuard(needed=True):
        os.kill(os.getpid(), signal.{name})
        signalled.set()
        time.sleep(0.1)
        print("stored", flush=True)

threading.Thread(target=renew, daemon=True).start()
signalled.wait()
time.sleep(30)
print("went on")
"""
    assert run(program) == (-getattr(signal, name), "stored\n")


def test_a_client_that_has_connected_on_the_main_thread_renews_under_its_protection() -> None:
    """The client renews on a thread of its own, which may not set a handler."""
    program = """
from mqtt_token_client import Token, TokenClient
logging.disable()  # no broker is there

class Source:
    uses_refresh_tokens = True

    def fetch(self, previous):
        return Token("a token", 60.0, refresh_token="next")

client = TokenClient("mqtt://127.0.0.1:9", Source(), client_id="x")
client.connect(timeout=0)
print(*(signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)))
client.disconnect(0)
"""
    assert run(program) == (0, "False False\n")


@pytest.mark.parametrize(
    "use",
    [
        "keeper.get()",
        "asyncio.run(keeper.get_async())",
        "load_in_thread(); keeper.token",
        "load_in_thread(); asyncio.run(keeper.get_async())",
        "login_again()",
    ],
)
def test_each_use_on_the_main_thread_protects_renewals(tmp_path: Path, use: str) -> None:
    program = f"""
import asyncio
from pathlib import Path
from click.testing import CliRunner
from mqtt_token_client import Token, TokenKeeper
from mqtt_token_client.cli.commands import mqtt_token

class Source:
    uses_refresh_tokens = True

    def fetch(self, previous):
        return Token("a token", 60.0, refresh_token="next")

keeper = TokenKeeper(Source())

def load_in_thread():
    thread = threading.Thread(target=keeper.get)
    thread.start()
    thread.join()
    keeper._renewer.renewal_due = 0.0

def login_again():
    device = Path(sys.argv[1]) / "device.toml"
    device.touch(0o600)
    device.write_text('''
store = "file:store"
[source]
type = "client_credentials"
token_endpoint = "http://127.0.0.1:9/token"
client_id = "pump-17"
client_secret = "secret"
''')
    CliRunner().invoke(mqtt_token, ["login", "--again", "-c", str(device)])

{use}
print(*(signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)))
"""
    assert run(program, str(tmp_path)) == (0, "False False\n")


def test_a_signal_ends_the_process_at_once_while_no_guard_is_held() -> None:
    assert run("postpone_signals(); os.kill(os.getpid(), signal.SIGTERM); print('went on')") == (-signal.SIGTERM, "")


def test_a_guard_that_is_never_released_does_not_keep_the_process_forever() -> None:
    program = """
from mqtt_token_client.tokens import exit_guard
exit_guard._LONGEST_WAIT = 0.2
postpone_signals()
threading.Thread(target=ExitGuard(needed=True).__enter__).start()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
"""
    assert run(program) == (-signal.SIGTERM, "")


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "print"])
def test_what_the_application_does_with_a_signal_stays(handler: str) -> None:
    program = f"""
signal.signal(signal.SIGTERM, {handler})
postpone_signals()
assert signal.getsignal(signal.SIGTERM) is {handler}
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    assert run(program) == (0, "")


def test_another_thread_than_the_main_one_sets_no_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=postpone_signals)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interpreter_that_may_set_no_handler_sets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[int]()

    def refuse(number: int, _handler: object) -> None:
        tried.append(number)
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(signal, "getsignal", lambda _number: signal.SIG_DFL)
    monkeypatch.setattr(signal, "signal", refuse)
    postpone_signals()
    assert tried == [signal.SIGTERM]


def test_a_forked_child_does_not_wait_for_a_renewal_of_its_parent() -> None:
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside a thread
postpone_signals()
threading.Thread(target=ExitGuard(needed=True).__enter__).start()
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""
    assert run(program) == (0, f"{-signal.SIGTERM}\n")


def test_a_guard_that_is_taken_while_the_process_ends_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [ExitGuard(needed=True).too_late]
    monkeypatch.setattr(exit_guard, "_ending", True)
    found += [ExitGuard(needed=needed).too_late for needed in (True, False)]
    assert found == [False, True, False]


def test_no_refresh_token_is_used_when_it_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_guard, "_ending", True)
    source, store = Source(), MemoryStore()
    store.save(source.key, Token("expired", 60.0, since=monotonic() - 100, refresh_token="unused"))
    with pytest.raises(TokenError, match="the process is ending"):
        TokenKeeper(source, store).get()
    assert source.requests == 0


@pytest.mark.parametrize("refreshes", [None, False, True])
def test_signals_wait_only_for_a_source_that_uses_refresh_tokens(
    monkeypatch: pytest.MonkeyPatch, refreshes: bool | None
) -> None:
    postponed: list[bool] = []
    monkeypatch.setattr("mqtt_token_client.tokens.keeper.postpone_signals", lambda: postponed.append(True))
    source = Source()
    if refreshes is not None:
        source.uses_refresh_tokens = refreshes  # type: ignore[attr-defined]
    TokenKeeper(source).get()
    assert bool(postponed) is bool(refreshes)


def test_the_process_may_end_while_a_person_logs_in() -> None:
    source, store, held = Source(), MemoryStore(), list[int]()
    store.save(source.key, Token("expired", -1.0, refresh_token="used"))

    def log_in() -> Token:
        held.append(len(exit_guard._held))
        return Token("approved", 60.0, refresh_token="next")

    source.next = [USED, log_in]
    assert TokenKeeper(source, store).get().value == "approved"
    assert held == [0]


_LOGS_IN = """
import atexit
from mqtt_token_client import FileStore, Token, TokenKeeper
from mqtt_token_client.errors import TokenRequestRefused
from mqtt_token_client.tokens import exit_guard
noticed, past_guards = threading.Event(), threading.Event()
atexit.unregister(exit_guard._wait_for_guards)
for function in (past_guards.set, exit_guard._wait_for_guards, noticed.set):
    atexit.register(function)  # the last one is called first
logging.disable()  # the store has a new key
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.excepthook = lambda *_: None  # it would print KeyboardInterrupt
number, folder, handle = signal.Signals[sys.argv[1]], sys.argv[2], exit_guard._end_when_released

def handle_and_tell(*arguments):
    handle(*arguments)
    noticed.set()

exit_guard._end_when_released = handle_and_tell

class Source:
    key = "a source"
    uses_refresh_tokens = True

    def fetch(self, previous):
        if previous is not None:
            raise TokenRequestRefused("token: invalid_grant", error="invalid_grant")
        return Token("approved", 60.0, refresh_token="next")

class SlowStore(FileStore):
    def save(self, key, token):
        if token.value == "approved":
            os.kill(os.getpid(), number)
            noticed.wait()
            if past_guards.wait(0.2):
                threading.Event().wait()  # the process did not wait, and ends
        super().save(key, token)

TokenKeeper(Source(), SlowStore(folder)).get()
print("went on")
time.sleep(30)
"""


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_login_that_a_person_has_approved_is_stored_before_a_signal_ends_the_process(
    tmp_path: Path, name: str, refused: bool
) -> None:
    folder = tmp_path / "store"
    if refused:
        FileStore(folder).save(Source.key, Token("expired", -1.0, refresh_token="used"))
    code, _ = run(_LOGS_IN, name, str(folder))
    assert code == -getattr(signal, name)
    stored = FileStore(folder).load(Source.key)
    assert stored is not None
    assert (stored.value, stored.refresh_token) == ("approved", "next")


class TestOffMainThread:
    def test_is_not_needed_for_a_token_that_is_valid(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keeper = TokenKeeper(Source())
        token = keeper.get()
        monkeypatch.setattr("mqtt_token_client.tokens.keeper.off_main_thread", pytest.fail)
        assert keeper.get() is token

    def test_runs_a_function_on_another_thread_than_the_main_one(self) -> None:
        assert off_main_thread(threading.current_thread) is not threading.main_thread()

    def test_stays_on_a_thread_that_no_signal_interrupts(self) -> None:
        found = list[threading.Thread]()
        thread = threading.Thread(target=lambda: found.append(off_main_thread(threading.current_thread)))
        thread.start()
        thread.join()
        assert found == [thread]

    @pytest.mark.parametrize("error", [ValueError(), SystemExit(), KeyboardInterrupt()], ids=repr)
    def test_raises_what_the_function_raises(self, error: BaseException) -> None:
        def fail() -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            off_main_thread(fail)
        assert caught.value is error

    def test_does_without_a_thread_where_none_can_be_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_left(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", none_left)
        assert off_main_thread(threading.current_thread) is threading.main_thread()
