"""A device login on a terminal, which a pseudo-terminal stands for, and where there is none."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import segno

from devtools.servers.processes import wait_until
from mqtt_token_client.clock import monotonic
from mqtt_token_client.sources.oauth import device_login
from mqtt_token_client.sources.oauth.device_login import DeviceLogin
from mqtt_token_client.sources.oauth.terminal import show_login

URI = "https://id.example.com/device"
COMPLETE = f"{URI}?user_code=WDJB-MJHT"
LIGHT_AND_DARK = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}  # upper and lower module; 1 is dark
QR_LINE = re.compile(r"\x1b\[97;40m([█▀▄ ]+)\x1b\[0m\r\n")


class Terminal:
    """A pseudo-terminal as stderr, and all that was written to it."""

    def __init__(self, columns: int, lines: int, encoding: str) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.stream = open(slave, "w", encoding=encoding, errors="backslashreplace")  # noqa: PTH123, SIM115 - a handle
        self._read = b""
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(self._master, 65536):
                self._read += piece

    @property
    def shown(self) -> str:
        return self._read.decode(errors="replace")  # a character may have come in part so far

    def close(self) -> None:
        self.stream.close()
        self._reader.join(5)
        os.close(self._master)


@contextlib.contextmanager
def on_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int = 80, lines: int = 40, encoding: str = "utf-8", term: str = "xterm"
) -> Iterator[Terminal]:
    terminal = Terminal(columns, lines, encoding)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    try:
        yield terminal
    finally:
        monkeypatch.undo()
        wait_until(lambda: not countdowns(), "the end of the countdown")
        terminal.close()


def countdowns() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "login-countdown"]


def a_login(
    complete: str | None = COMPLETE, seconds: float = 600, code: str = "WDJB-MJHT", uri: str = URI
) -> DeviceLogin:
    return DeviceLogin(code, uri, complete, monotonic() + seconds)


def end(login: DeviceLogin) -> None:
    login._over.set()


def shown(monkeypatch: pytest.MonkeyPatch, login: DeviceLogin, **of: object) -> str:
    """All that a login leaves on a terminal."""
    with on_terminal(monkeypatch, **of) as terminal:  # type: ignore[arg-type]  # as given by the test
        show_login(login)
        wait_until(lambda: "left\r" in terminal.shown, "the countdown")
        end(login)
    return terminal.shown


@pytest.fixture
def passing() -> Iterator[None]:
    """Each second of a countdown passes at once, but only two of them."""
    now, passed = monotonic(), 0.0

    def wait(login: DeviceLogin, timeout: float) -> bool:
        nonlocal passed
        over = login._over.wait(0.01 if passed < 2 else None)
        passed += timeout
        return over

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_login, "monotonic", lambda: now + passed)
        patch.setattr(DeviceLogin, "wait", wait)
        yield


class TestTerminal:
    def test_shows_address_and_code_even_with_a_qr_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = [line.strip() for line in shown(monkeypatch, a_login()).splitlines()]
        assert URI in lines
        assert "WDJB-MJHT" in lines

    @pytest.mark.parametrize("address", [COMPLETE, "https://a.example/d?c=1", f"{URI}?user_code=" + "WDJBMJHT" * 20])
    def test_qr_code_holds_the_complete_address_with_a_quiet_zone_in_colours_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch, address: str
    ) -> None:
        lines = QR_LINE.findall(shown(monkeypatch, a_login(address), columns=200, lines=100))
        modules = [[LIGHT_AND_DARK[block][half] for block in line] for line in lines for half in (0, 1)]
        matrix = [list(row) for row in segno.make(address, error="l", micro=False).matrix]
        size = len(matrix) + 8
        assert len(modules) in (size, size + 1)
        assert all(len(row) == size for row in modules)
        assert [row[4:-4] for row in modules[4 : size - 4]] == matrix
        assert not any(sum(modules[:4] + modules[size - 4 : size], start=list[int]()))
        assert not any(sum((row[:4] + row[-4:] for row in modules[:size]), start=list[int]()))

    @pytest.mark.parametrize("of", [{"lines": 24}, {"lines": 0}, {"columns": 0}], ids=str)
    def test_of_24_lines_shows_qr_code_address_and_code_at_once_the_text_last(
        self, monkeypatch: pytest.MonkeyPatch, of: dict[str, int]
    ) -> None:
        lines = shown(monkeypatch, a_login(), **of).replace("\r\n", "\n").split("\n")
        assert len(lines) <= 24
        assert lines[-5:-1] == ["To log in, scan this, or open", f"    {URI}", "and enter the code", "    WDJB-MJHT"]
        assert QR_LINE.match(lines[0] + "\r\n")

    @pytest.mark.parametrize(
        ("of", "needed"), [({"lines": 23}, 24), ({"lines": 24, "uri": f"{URI}/{'x' * 100}"}, 25)], ids=["low", "long"]
    )
    def test_that_is_too_low_for_the_qr_code_shows_the_text_and_the_lines_it_needs(
        self, monkeypatch: pytest.MonkeyPatch, of: dict[str, Any], needed: int
    ) -> None:
        text = shown(monkeypatch, a_login(uri=of.pop("uri", URI)), **of)
        assert not QR_LINE.findall(text)
        assert "    WDJB-MJHT\r\n" in text
        assert f"A window of {needed} lines has room for a QR code." in text

    def test_counts_the_time_left_down_in_place_until_the_login_has_expired(
        self, monkeypatch: pytest.MonkeyPatch, passing: None
    ) -> None:
        login = a_login()
        with on_terminal(monkeypatch) as terminal:
            show_login(login)
            wait_until(lambda: "9:58 minutes left\r" in terminal.shown, "two seconds less")
            assert countdowns()[0].daemon
            end(login)
        left = [line for line in re.split(r"\r\n|\r", terminal.shown) if "left" in line]
        assert left[:1] in (["\x1b[K10:00 minutes left"], ["\x1b[K9:59 minutes left"])
        assert left[-1] == "\x1b[K9:58 minutes left"
        assert terminal.shown.endswith("\r\x1b[K")

    def test_stops_counting_when_there_is_no_time_left(self, monkeypatch: pytest.MonkeyPatch, passing: None) -> None:
        with on_terminal(monkeypatch) as terminal:
            show_login(a_login(seconds=0.2))
            wait_until(lambda: not countdowns(), "the end of the countdown")
        assert "0:00 minutes left" in terminal.shown

    def test_that_goes_away_stops_the_countdown_without_a_word(
        self, monkeypatch: pytest.MonkeyPatch, passing: None
    ) -> None:
        with on_terminal(monkeypatch) as terminal:
            show_login(a_login())
            terminal.stream.close()

    @pytest.mark.parametrize(
        ("complete", "of"),
        [
            (None, {}),
            (COMPLETE, {"columns": 30}),
            (COMPLETE, {"encoding": "ascii"}),
            (f"{URI}?user_code={'W' * 5000}", {"columns": 500}),
        ],
        ids=["no address with the code", "narrow", "ASCII only", "longer than a QR code can be"],
    )
    def test_without_room_or_reason_for_a_qr_code_shows_the_rest(
        self, monkeypatch: pytest.MonkeyPatch, complete: str | None, of: dict[str, object]
    ) -> None:
        text = shown(monkeypatch, a_login(complete), **of)
        assert URI in text
        assert "WDJB-MJHT" in text
        assert not QR_LINE.findall(text)
        assert "scan" not in text
        assert "QR code" not in text

    def test_without_segno_shows_the_rest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with on_terminal(monkeypatch) as terminal:
            login = a_login()
            monkeypatch.setitem(sys.modules, "segno", None)
            show_login(login)
            wait_until(lambda: "left" in terminal.shown, "the countdown")
            end(login)
        assert "WDJB-MJHT" in terminal.shown
        assert "scan" not in terminal.shown


class TestNoTerminal:
    def show(self, monkeypatch: pytest.MonkeyPatch, login: DeviceLogin) -> str:
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        show_login(login)
        monkeypatch.undo()
        return stream.getvalue()

    def test_gets_plain_text_with_the_time_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = self.show(monkeypatch, a_login(seconds=90))
        lines = ["To log in, open", f"    {URI}", "and enter the code", "    WDJB-MJHT"]
        assert text.splitlines()[::2] == [*lines, "The code is valid for 1:30 minutes."]
        assert not countdowns()

    def test_is_what_a_terminal_is_that_knows_no_escape_codes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with on_terminal(monkeypatch, term="dumb") as terminal:
            show_login(a_login())
            wait_until(lambda: "The code is valid" in terminal.shown, "the text")
        assert "\x1b" not in terminal.shown

    def test_text_of_the_server_cannot_steer_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        login = a_login(code="A\x1b]0;title\x07B\r\x9b2J\u202eC", uri=f"{URI}\x1b[2J\nforged line")
        text = self.show(monkeypatch, login)
        assert all(character.isprintable() for character in text.replace("\n", ""))
        assert "A]0;titleB 2JC\n" in text
        assert not [line for line in text.splitlines() if line.startswith("forged")]

    def test_is_none_where_a_process_has_no_stderr(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        show_login(a_login())
        monkeypatch.undo()
        assert capsys.readouterr().out == ""
