"""Handlers and filters of the application that raise, on every thread of the library."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mqtt_token_client
from mqtt_token_client import Backoff, Connected, ConnectFailed, Disconnected, Rotated, Token, TokenKeeper
from mqtt_token_client.logs import get_logger
from mqtt_token_client.mqtt.runtime.thread import NetworkThread
from tests.unit import network_thread
from tests.unit.device import Make, Source, both, password
from tests.unit.packets import PUBACK, PUBLISH


@contextlib.contextmanager
def filtered(function: Callable[[logging.LogRecord], bool], way: str) -> Iterator[None]:
    """Every record of the library goes through a function of the application: as a filter, or in a handler."""
    names = ("", ".mqtt", ".runtime", ".session", ".outbox", ".keeper", ".stores", ".sources")
    loggers = [logging.getLogger(f"mqtt_token_client{name}") for name in names]
    handler = logging.Handler()
    handler.emit = function  # type: ignore[method-assign, assignment]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        if way == "filter":
            logger.addFilter(function)
        else:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
            logger.removeFilter(function)
            logger.removeHandler(handler)


def raise_error(_record: logging.LogRecord) -> bool:
    raise ValueError("the filter failed")


def leave(_record: logging.LogRecord) -> bool:
    if threading.current_thread() is threading.main_thread():
        return True
    raise SystemExit("the filter ends its thread")


def recurse(record: logging.LogRecord) -> bool:
    return recurse(record)


raising = pytest.mark.parametrize("function", [raise_error, leave, recurse])
ways = pytest.mark.parametrize("way", ["filter", "handler"])


class TestThatRaises:
    @pytest.fixture(autouse=True)
    def _quiet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logging, "raiseExceptions", False)

    @raising
    @ways
    @both
    def test_costs_neither_connection_nor_message_nor_rotation(
        self, make: Make, function: Callable[[logging.LogRecord], bool], way: str, protocol: int
    ) -> None:
        device = make(protocol, backoff=Backoff(initial=0.02, maximum=0.02))
        with filtered(function, way):
            device.broker.close_listener()
            device.client.connect(timeout=0)
            device.event(ConnectFailed)
            device.broker.listen_again()
            peer = device.answer()
            device.event(Connected)
            device.client.subscribe("t", lambda _: 1 / 0)
            peer.expect_subscribe(1)
            peer.publish("t", b"")
            delivery = device.client.publish("t", b"", qos=1)
            delivery.add_done_callback(lambda _: 1 / 0)
            peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id)
            device.until(lambda: delivery.done)
            peer = device.rotate()
            peer.connack(session_present=True)
            device.event(Rotated)
            peer.disconnect(0x8B)
            device.event(Disconnected)
            device.answer()
            device.event(Connected)
            device.client.disconnect(0)
        assert device.client.stats.received == 1

    @raising
    @ways
    def test_costs_the_network_thread_nothing(
        self, loop: NetworkThread, function: Callable[[logging.LogRecord], bool], way: str
    ) -> None:
        with filtered(function, way):
            loop.call_soon(lambda: 1 / 0)  # type: ignore[arg-type]
            assert network_thread.call(loop, lambda: "it goes on") == "it goes on"

    @raising
    @ways
    def test_costs_no_token(self, function: Callable[[logging.LogRecord], bool], way: str) -> None:
        class Store:
            def load(self, key: str) -> Token | None:
                raise OSError("the disk is gone")

            save = delete = load

        store: Any = Store()
        with filtered(function, way):
            keeper = TokenKeeper(Source(), store, key="k", on_event=lambda _: 1 / 0)  # type: ignore[arg-type]
            assert keeper.token.value.encode() == password(1)
            assert keeper.renew().value.encode() == password(2)

    def test_lets_ctrl_c_end_the_main_thread(self) -> None:
        def interrupt(_record: logging.LogRecord) -> bool:
            raise KeyboardInterrupt

        with filtered(interrupt, "filter"), pytest.raises(KeyboardInterrupt):
            get_logger("mqtt_token_client.mqtt").info("text")


class TestThatRaisesIsReported:
    def test_on_the_standard_error_stream(self, capsys: pytest.CaptureFixture[str]) -> None:
        with filtered(raise_error, "filter"):
            get_logger("mqtt_token_client.mqtt").info("text")
        assert "ValueError: the filter failed" in capsys.readouterr().err

    def test_unless_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stderr", None)
        reached = []
        with filtered(raise_error, "filter"):
            get_logger("mqtt_token_client.mqtt").info("text")
            reached.append(True)
        assert reached

    def test_unless_it_is_closed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        stream = (tmp_path / "stderr").open("w")
        stream.close()
        monkeypatch.setattr("sys.stderr", stream)
        reached = []
        with filtered(raise_error, "filter"):
            get_logger("mqtt_token_client.mqtt").info("text")
            reached.append(True)
        assert reached


class TestRecords:
    @both
    def test_carry_strings_only(self, make: Make, protocol: int, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="mqtt_token_client")
        device = make(protocol)
        peer = device.start()
        device.client.subscribe("t", lambda _: 1 / 0)
        peer.expect_subscribe(1)
        peer.publish("t", b"")
        device.client.publish("t", b"", qos=1)
        peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id)
        device.client.unsubscribe("t")
        peer.expect_unsubscribe()
        device.rotate().connack(session_present=True)
        device.event(Rotated)
        ours = [record for record in caplog.records if record.name.startswith("mqtt_token_client")]
        assert len(ours) > 10
        for record in ours:
            assert isinstance(record.msg, str)
            assert isinstance(record.args, tuple)
            assert all(isinstance(argument, str) for argument in record.args), record
            assert not re.search(r"%(?!s)", record.msg), record.msg

    def test_name_the_place_that_logs(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="mqtt_token_client")
        log = get_logger("mqtt_token_client.mqtt")
        log.debug("one")
        log.log(logging.INFO, "two")
        log.error("three")
        assert [record.filename for record in caplog.records] == ["test_logs.py"] * 3
        assert [record.funcName for record in caplog.records] == ["test_name_the_place_that_logs"] * 3


def test_every_logger_of_the_library_is_one_that_cannot_raise() -> None:
    package = Path(mqtt_token_client.__file__).parent
    modules = [
        path
        for path in package.rglob("*.py")
        if path.name not in ("logs.py", "paho_names.py") and path.parent.name != "testing"
    ]
    assert len(modules) > 80
    for path in modules:
        assert "getLogger" not in path.read_text(), f"{path}: use get_logger of mqtt_token_client.logs"
