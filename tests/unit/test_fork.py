"""A process that forks: its clients and keepers go on, and the child's own ones work."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mqtt_token_client import ClientClosed, DeliveryFailed, FileStore, Token, TokenClient, TokenKeeper
from mqtt_token_client.errors import StoreLocked
from mqtt_token_client.mqtt.runtime import thread
from mqtt_token_client.stores import memory
from mqtt_token_client.stores.limit import TimeLimit
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.tokens import renewer
from mqtt_token_client.tokens.turns import MOST_AT_ONCE
from tests.unit import network_thread
from tests.unit.device import Make, Source, password
from tests.unit.forked import fork, run_forked, start_forked
from tests.unit.keeping import Clock, keep
from tests.unit.packets import CONNECT, DISCONNECT, PUBACK, PUBLISH
from tests.unit.scripted_broker import PATIENCE, ScriptedBroker
from tests.unit.stepped_loop import SteppedThread


def connect_and_publish(url: str, client_id: str = "child") -> None:
    """What a child does with a client of its own."""
    with TokenClient(url, Source(), client_id=client_id) as client:
        client.publish("from/the/child", b"hello", qos=1).wait(PATIENCE)


def serve(broker: ScriptedBroker, client_id: str = "child") -> None:
    """The broker's part in it."""
    peer = broker.accept()
    assert peer.expect(CONNECT).client_id == client_id
    peer.connack()
    published = peer.expect(PUBLISH)
    assert published.topic == "from/the/child"
    peer.acknowledge(PUBACK, published.packet_id)
    peer.expect(DISCONNECT)
    peer.close()


@contextlib.contextmanager
def held(lock: Any) -> Any:
    """Another thread holds a lock."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(PATIENCE)
    try:
        yield
    finally:
        done.set()
        holder.join()


class TestNewClients:
    def test_work_in_a_child_while_the_parents_stays_connected(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        peer = device.start()
        child = start_forked(lambda: connect_and_publish(device.broker.url))
        serve(device.broker)
        child()
        device.client.publish("from/the/parent", b"", qos=1)
        assert peer.expect(PUBLISH).topic == "from/the/parent", "and nothing of the child's came before"

    def test_work_in_a_child_that_was_forked_in_a_handler(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        device.start()
        manager = device.client._core._manager
        assert manager is not None
        child = network_thread.call(
            manager.runtime, lambda: start_forked(lambda: connect_and_publish(device.broker.url))
        )
        serve(device.broker)
        child()

    def test_work_in_a_child_of_a_child(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        device.start()
        child = start_forked(lambda: run_forked(lambda: connect_and_publish(device.broker.url)))
        serve(device.broker)
        child()

    def test_work_although_another_thread_was_starting_the_network_thread(self, make_in_real_time: Make) -> None:
        broker = make_in_real_time().broker
        with held(thread.shared._lock):
            child = start_forked(lambda: connect_and_publish(broker.url))
            serve(broker)
            child()

    @pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_work_in_a_process_of_multiprocessing(self, make_in_real_time: Make, method: str) -> None:
        device = make_in_real_time()
        device.start()
        context: Any = multiprocessing.get_context(method)
        child = context.Process(target=connect_and_publish, args=(device.broker.url,))
        child.start()
        serve(device.broker)
        child.join(PATIENCE)
        assert child.exitcode == 0

    def test_made_before_the_fork_and_not_connected_work_too(self, make_in_real_time: Make) -> None:
        device = make_in_real_time(client_id="made before")

        def connect() -> None:
            with device.client:
                device.client.publish("from/the/child", b"hello", qos=1).wait(PATIENCE)

        child = start_forked(connect)
        serve(device.broker, "made before")
        child()

    def test_disconnected_before_the_fork_work_too(self, make_in_real_time: Make, pool: ThreadPoolExecutor) -> None:
        device = make_in_real_time(client_id="disconnected")
        peer = device.start()
        disconnecting = pool.submit(device.client.disconnect)
        peer.expect(DISCONNECT)
        peer.close()
        disconnecting.result(PATIENCE)

        def connect() -> None:
            with device.client:
                device.client.publish("from/the/child", b"hello", qos=1).wait(PATIENCE)

        child = start_forked(connect)
        serve(device.broker, "disconnected")
        child()


class TestInheritedClients:
    @pytest.mark.parametrize(
        "use",
        [
            pytest.param(lambda client: client.connect(), id="connect"),
            pytest.param(lambda client: client.publish("t", b""), id="publish"),
            pytest.param(lambda client: client.publish("t", b"", qos=1), id="publish at QoS 1"),
            pytest.param(lambda client: client.subscribe("t"), id="subscribe"),
            pytest.param(lambda client: client.unsubscribe("t"), id="unsubscribe"),
            pytest.param(lambda client: client.rotate(), id="rotate"),
        ],
    )
    def test_raise_at_once_and_say_why(self, make_in_real_time: Make, use: Callable[[TokenClient], object]) -> None:
        device = make_in_real_time()
        device.start()
        with pytest.raises(ClientClosed, match=r"fork.*make a TokenClient in this process"):
            run_forked(lambda: use(device.client))
        assert device.client.state == "connected"

    def test_are_closed(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        device.start()

        def look() -> tuple[str, int, bool]:
            return device.client.state, device.client.stats.queued, "closed" in repr(device.client)

        device.client.publish("t", b"", qos=1)
        assert run_forked(look) == ("closed", 0, True)
        assert device.client.stats.queued == 1

    def test_have_nothing_to_disconnect(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        peer = device.start()
        run_forked(device.client.disconnect)
        peer.expect_nothing()
        assert device.client.state == "connected"

    def test_leave_the_child_its_exit_status_at_the_end_of_a_with_block(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        device.start()

        def leave() -> None:
            with contextlib.ExitStack() as block:
                block.push(device.client)
                sys.exit(3)

        with pytest.raises(SystemExit, match="3"):
            run_forked(leave)

    @pytest.mark.parametrize("sent", [False, True])
    def test_fail_the_deliveries_in_the_child_only(self, make_in_real_time: Make, sent: bool) -> None:
        device = make_in_real_time()
        device.start(properties={0x21: 1})  # Receive Maximum
        first, second = (device.client.publish("t", b"", qos=1) for _ in range(2))
        device.until(lambda: device.client.stats.inflight == 1)
        delivery = first if sent else second
        with pytest.raises(DeliveryFailed, match="fork"):
            run_forked(lambda: delivery.wait(PATIENCE))
        assert not delivery.done

    def test_of_a_connect_under_way_raise_too(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        device.client.connect(timeout=0)
        device.broker.accept().expect(CONNECT)
        with pytest.raises(ClientClosed, match="fork"):
            run_forked(device.client.connect)

    def test_do_not_wait_for_locks_of_the_parents_threads(self, make_in_real_time: Make) -> None:
        device = make_in_real_time()
        device.start()
        with held(device.client._core.starting.lock), held(device.client._core.session.queue._lock):
            with pytest.raises(ClientClosed, match="fork"):
                run_forked(lambda: device.client.publish("t", b"", qos=1))
            run_forked(device.client.disconnect)

    def test_leave_the_parents_connection_to_the_parent(self) -> None:
        broker = ScriptedBroker()
        program = subprocess.Popen([sys.executable, "-c", _DIES, broker.url], stdout=subprocess.PIPE)
        peer = broker.accept()
        peer.expect(CONNECT)
        peer.connack()
        peer.expect_end(PATIENCE)  # although the child is alive
        assert program.stdout is not None
        os.kill(int(program.stdout.readline()), 9)
        program.stdout.close()
        program.wait()
        peer.close()
        broker.close()


_DIES = """
import os, signal, sys, time
from mqtt_token_client import Token, TokenClient
class Source:
    def fetch(self, previous):
        return Token("a token", 3600)
client = TokenClient(sys.argv[1], Source(), client_id="parent")
assert client.connect()
if (child := os.fork()) == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
os._exit(0)
"""


class TestKeepers:
    def test_that_forked_in_a_request_work_in_the_child(self) -> None:
        source = Source()
        keeper = TokenKeeper(source)
        source.gate.clear()
        asking = threading.Thread(target=keeper.get)
        asking.start()
        assert source.asked.acquire(timeout=PATIENCE)

        def get() -> str:
            source.gate.set()
            return keeper.token.value

        assert run_forked(get).encode() == password(2)
        source.gate.set()
        asking.join()
        assert keeper.token.value.encode() == password(1)

    def test_whose_source_forks_work_in_the_child(self) -> None:
        source = _Forking()
        source.keeper = TokenKeeper(source)
        assert source.keeper.token.value == "token 1"
        assert source.in_child == "token 2"

    def test_return_the_childs_token_where_the_source_itself_forked(self) -> None:
        reading, writing = os.pipe()
        keeper, _ = keep(_Returning())
        parent = os.getpid()
        found: list[str] = []

        def ask() -> None:  # on a thread, as the keeper starts one of its own on the main thread
            token = keeper.get()
            if os.getpid() != parent:
                os.write(writing, f"{token.value}, {keeper.get().value}".encode())
                os._exit(0)
            found.append(token.value)

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join()
        os.close(writing)
        assert os.read(reading, 100) == b"the child's, the child's"
        os.close(reading)
        assert found == ["the parent's"]

    def test_load_what_a_parents_thread_was_loading(self) -> None:
        loading, go_on = threading.Event(), threading.Event()

        class SlowStore:
            def load(self, key: str) -> Token | None:
                loading.set()
                go_on.wait(PATIENCE)
                return Token("stored", 3600)

            def save(self, key: str, token: Token) -> None: ...
            def delete(self, key: str) -> None: ...

        keeper = TokenKeeper(source := Source(), SlowStore(), key="k")
        asking = threading.Thread(target=keeper.get)
        asking.start()
        assert loading.wait(PATIENCE)

        def get() -> tuple[str, int]:
            go_on.set()
            return keeper.token.value, source.requests

        assert run_forked(get) == ("stored", 0)
        go_on.set()
        asking.join()

    def test_load_what_the_parent_has_stored_since_the_fork(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        clock, store = Clock(monkeypatch), FileStore(tmp_path / "store")
        without_lock = SimpleNamespace(load=store.load, save=store.save, delete=store.delete)
        keeper, _ = keep(Source(), without_lock, key="k")
        keeper.get()

        def get() -> str:
            clock.now += 3600
            store.save("k", Token("new", 3600, since=clock.now))
            return keeper.get().value

        assert run_forked(get) == "new"

    def test_let_clients_begin_although_as_many_of_the_parent_are_moving_as_may(self) -> None:
        keeper, _ = keep(Source())

        def take_all() -> int:
            began: list[int] = []
            runtime = SteppedThread()
            for _ in range(2):
                keeper.renew_ahead(runtime)
            for number in range(2 * MOST_AT_ONCE):
                keeper.take_turn(runtime, partial(began.append, number), valid_for=100.0, urgent=True)
            runtime.stop()
            runtime.turn()
            return len(began)

        assert take_all() == MOST_AT_ONCE
        assert run_forked(take_all) == MOST_AT_ONCE

    def test_do_not_wait_for_locks_of_the_parents_threads(self) -> None:
        keeper, events = keep(Source())
        with held(keeper._lock), held(keeper._timer._lock):
            assert run_forked(lambda: (keeper.renew().value, len(events))) == (password(1).decode(), 1)

    def test_shared_with_an_inherited_client_renew_for_a_new_one(
        self, make_in_real_time: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(renewer, "MIN_INTERVAL", 0.01)
        source = Source(life=0.3)
        keeper = TokenKeeper(source)
        device = make_in_real_time(tokens=keeper)
        device.start()

        def connect() -> None:
            with TokenClient(device.broker.url, keeper, client_id="child") as client:
                requests = source.requests
                device.until(lambda: source.requests > requests + 1)
                client.disconnect(0)

        child = start_forked(connect)
        while (peer := device.broker.accept()).expect(CONNECT).client_id != "child":
            """A rotation of the parent's."""
        peer.connack(session_present=True)
        peer.expect(DISCONNECT)
        peer.close()
        child()

    def test_let_a_child_exit_at_once(self) -> None:
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", _EXITS], capture_output=True, timeout=50, text=True)
        assert done.stdout == "3\n", done.stderr
        assert time.monotonic() - began < 20


class _Forking:
    """Its first request forks, and the child uses the keeper."""

    keeper: TokenKeeper
    requests = 0
    in_child = ""

    def fetch(self, previous: Token | None) -> Token:
        self.requests += 1
        if self.requests == 1:
            self.in_child = run_forked(lambda: self.keeper.token.value)
        return Token(f"token {self.requests}", 60)


class _Returning:
    """Its request forks, and returns in both processes."""

    def fetch(self, previous: Token | None) -> Token:
        return Token("the parent's" if fork() else "the child's", 60)


_EXITS = """
import os, sys, threading
from mqtt_token_client import Token, TokenKeeper
asked = threading.Event()
class Source:
    def fetch(self, previous):
        if previous is not None:
            asked.set()
            threading.Event().wait()
        return Token("a token", 3600, refresh_token="a refresh token")
keeper = TokenKeeper(Source())
keeper.get()
threading.Thread(target=keeper.renew, daemon=True).start()
asked.wait()
if (child := os.fork()) == 0:
    sys.exit(3)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), flush=True)
os._exit(0)
"""


def test_a_store_that_was_busy_at_the_fork_is_free_in_the_child() -> None:
    limit = TimeLimit("the store", 5.0)

    def use() -> str:
        with limit.operation() as call:
            result: str = call(lambda: "stored")
            return result

    with limit.operation():
        assert run_forked(use) == "stored"


@pytest.mark.parametrize(
    "way",
    [lambda store: store, lambda store: pickle.loads(pickle.dumps(store)), copy.copy, copy.deepcopy],
    ids=["new", "unpickled", "copy", "deepcopy"],
)
def test_a_memory_store_that_a_parents_thread_had_locked_is_free_in_the_child(
    monkeypatch: pytest.MonkeyPatch, way: Callable[[MemoryStore], MemoryStore]
) -> None:
    monkeypatch.setattr(memory, "_LOCK_TIMEOUT", 0.1)
    store = way(MemoryStore())
    store.save("k", Token("stored"))

    def use() -> str:
        with store.lock("k"):
            token = store.load("k")
            assert token is not None
            return token.value

    with held(store.lock("k")):
        assert run_forked(use) == "stored"
        with pytest.raises(StoreLocked):
            use()


def test_a_memory_store_that_is_locked_at_the_fork_can_be_released_in_the_child() -> None:
    store = MemoryStore()

    def release() -> str:
        holding.pop_all().close()
        with store.lock("k"):
            return "free"

    with contextlib.ExitStack() as holding:
        holding.enter_context(store.lock("k"))
        assert run_forked(release) == "free"
