"""What refreshes on a terminal: sub --stats and status --watch, and their lines where there is no terminal."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jwt
import pytest
from rich.console import Console, RenderableType

from mqtt_token_client.cli import live, status as status_module, traffic as traffic_module
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.cli.live import show_until
from mqtt_token_client.cli.login import token_key
from mqtt_token_client.cli.status import Watched
from mqtt_token_client.cli.traffic import Traffic, line, picture, size
from mqtt_token_client.cli.wrapping import wrapped
from mqtt_token_client.config import Config, read_config
from mqtt_token_client.errors import StoreError
from mqtt_token_client.events import Connected, Disconnected, Rotated, TokenRenewed
from mqtt_token_client.token import Token
from tests.unit.command_line import cli_runner


class Clock:
    """Stands for time.monotonic in a module."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(traffic_module, "time", clock)
    return clock


def drawn(draw: Callable[[Console], RenderableType], width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(draw(console))
    return captured.get().splitlines()


# What is live


def test_where_there_is_no_terminal_lines_are_printed_at_the_beginning_and_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    over, lines = threading.Event(), iter(["one", "two"])
    over.set()
    assert show_until(over, lambda _console: "a picture", lambda: next(lines))
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize(("term", "drawn"), [("xterm", True), ("dumb", False)])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, term: str, drawn: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stdout for a terminal
    over = threading.Event()
    over.set()
    assert show_until(over, lambda _console: "a picture", lambda: "a line")
    output = capsys.readouterr().out
    assert ("a picture" in output, "a line" in output) == (drawn, not drawn)


def test_lines_are_printed_every_ten_seconds_until_the_time_is_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, over = Clock(), threading.Event()

    def wait(seconds: float) -> bool:
        clock.now += seconds
        return False

    monkeypatch.setattr(live, "time", clock)
    monkeypatch.setattr(over, "wait", wait)
    assert not show_until(over, None, lambda: f"{clock.now:.0f}", timeout=25)
    assert capsys.readouterr().out.split() == ["1000", "1010", "1020", "1025"]


def test_ctrl_c_ends_it_without_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(over, "wait", lambda _timeout: (_ for _ in ()).throw(KeyboardInterrupt))
    assert not show_until(over, None, lambda: "a line")
    assert capsys.readouterr().out == "a line\na line\n"


# What fits the terminal


def test_a_text_is_broken_between_words_and_indented_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "kept in encrypted files, with a key in the same-folder"
    assert wrapped(text, 10) == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "35")
    assert wrapped(text, 10).split("\n") == [
        "kept in encrypted files,",
        "          with a key in the",
        "          same-folder",
    ]
    assert wrapped("", 10) == ""


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_doctor_has_colours_unless_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    ended = cli_runner().invoke(mqtt_token, ["doctor", "-c", "nothing.toml"], color=True)
    assert ("\x1b[31mFAILED" in ended.stdout, "\x1b" in ended.stdout) == (coloured, coloured)


# sub --stats


def busy(clock: Clock, topics: int = 60) -> Traffic:
    traffic = Traffic()
    traffic.on_event(Connected("mqtts://broker.example.com:8883", session_present=False))
    for number in range(topics):
        for _ in range(topics - number):
            traffic.add(f"plant/{number}/" + "a long level/" * 10, b"payload of some length \x1b[31m \xff" * 5)
    clock.now += 10
    return traffic


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (200, 60)])
@pytest.mark.parametrize("topics", [0, 1, 60])
def test_the_table_of_topics_fits_the_terminal(clock: Clock, width: int, height: int, topics: int) -> None:
    traffic = busy(clock, topics)
    traffic.on_event(Disconnected("a reason that is rather long, as those of brokers are " * 3, None, retry_in=1))
    lines = drawn(lambda console: picture(traffic, console), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert not any("\x1b" in line for line in lines)


def test_the_table_has_the_topics_with_the_most_messages_and_the_sums(clock: Clock) -> None:
    traffic = busy(clock)
    traffic.on_event(Rotated("handover", 0.0012))
    text = "\n".join(drawn(lambda console: picture(traffic, console), width=120))
    for part in (
        *("plant/0/", " 60 ", "60 topics, 45 not shown", " 1830 ", "1 rotation, longest gap 1.2 ms"),
        *("183.0 messages a second", "moved onto the new token by handover"),
    ):
        assert part in text, part
    assert "plant/59/" not in text


def test_the_title_says_how_the_connection_is(clock: Clock) -> None:
    traffic = Traffic()
    states = []
    for event in (
        Connected("mqtts://b:1", session_present=False),
        TokenRenewed(300.0),
        Disconnected("the reason", None, retry_in=1),
        Connected("mqtts://b:1", session_present=False),
    ):
        traffic.on_event(event)
        states.append(traffic.state)
    assert states == [
        *("connected to mqtts://b:1", "connected to mqtts://b:1"),
        *("connection lost: the reason; next attempt in 1.0 s", "connected to mqtts://b:1"),
    ]


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    traffic = Traffic()
    for second in range(20):
        for _ in range(100 if second < 10 else 10):
            traffic.add("a", b"")
        clock.now += 1
        rate = traffic.rate()
        assert second != 9 or rate == 100.0
    assert rate == 10.0
    clock.now += 60
    assert traffic.rate() < 1


def test_the_line_sums_up(clock: Clock) -> None:
    traffic = busy(clock, 2)
    assert line(traffic) == (
        "10 s: 3 messages, 0.3 a second, 450 B, 2 topics, 0 rotations; connected to mqtts://broker.example.com:8883"
    )


def test_a_size_is_short() -> None:
    assert [size(10**power) for power in (0, 3, 4, 8, 11)] == ["1 B", "1000 B", "9.8 KiB", "95.4 MiB", "93.1 GiB"]


@pytest.mark.parametrize("option", ["-v", "--json", "-F%p"])
def test_statistics_take_the_place_of_the_messages(option: str, device: Config) -> None:
    ended = cli_runner().invoke(mqtt_token, ["sub", "-t", "a", "--stats", option, "-c", str(device.path)])
    assert (ended.exit_code, "--stats takes the place of the messages" in ended.stderr) == (2, True)


# status --watch


CLAIMS = {"sub": "pump-17", "iss": "https://id.example.com/realms/plant", "aud": ["mqtt", "plant"], "scope": "mqtt"}


@pytest.fixture
def device(tmp_path: Path) -> Config:
    """The file of a device, whose store has a token that is valid for 300 s."""
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "secret").chmod(0o600)
    file = tmp_path / "device.toml"
    file.write_text("""
        store = "file:tokens"
        [source]
        type = "client_credentials"
        issuer = "https://id.example.com/realms/plant"
        client_id = "pump-17"
        client_secret_file = "secret"
    """)
    return read_config(file)


def token(expires_in: float | None = 300.0, **more: Any) -> Token:
    return Token(jwt.encode(CLAIMS, "k" * 32, "HS256"), expires_in, **more)


def test_watching_shows_the_validity_and_the_next_renewal(device: Config) -> None:
    watched = Watched(device, token())
    text = "\n".join(drawn(watched.picture))
    for part in ("pump-17", "valid for 5 min", "automatic, in 3 min", "█" * 30, "300.0 s left"):
        assert part in text, part
    assert watched.line() == "token: valid for 5 min; renewal: automatic, in 3 min"


@pytest.mark.parametrize(
    ("stored", "row"),
    [
        (lambda: None, "token: none; renewal: automatic"),
        (lambda: token(None), "token: does not expire; renewal: automatic"),
        (lambda: token(-3600.0), "token: expired 60 min ago; renewal: automatic, due now"),
        (
            lambda: token(300.0, age_known=False),
            "token: valid for at most 5 min (its age is unknown); renewal: automatic, due now",
        ),
        (
            lambda: token().with_refusal("invalid_client"),
            "token: valid for 5 min; renewal: automatic, in 3 min; the server rejected the last one: invalid_client",
        ),
    ],
)
def test_watching_says_so_where_there_is_nothing_to_count_down(
    device: Config, stored: Callable[[], Token | None], row: str
) -> None:
    watched = Watched(device, stored())
    assert watched.line() == row
    assert drawn(watched.picture)


@pytest.mark.parametrize("width", [80, 120])
def test_the_picture_fits_the_terminal(device: Config, width: int) -> None:
    lines = drawn(Watched(device, token()).picture, width)
    assert max(map(len, lines)) <= width
    assert len(lines) < 24


def test_watching_sees_a_token_that_another_process_stores(device: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "_READ_EVERY", 0.0)
    watched = Watched(device, None)
    device.store.save(token_key(device), token())
    assert watched.line().startswith("token: valid for 5 min")


def test_watching_goes_on_where_the_store_fails_for_a_while(device: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "_READ_EVERY", 0.0)
    watched = Watched(device, token())

    def fail(_key: str) -> None:
        raise StoreError("the store is locked")

    monkeypatch.setattr(device.store, "load", fail)
    assert watched.line().endswith("in 3 min; the store is locked")
    assert "the store is locked" in "\n".join(drawn(watched.picture))


def test_watching_prints_lines_or_json_until_ctrl_c(device: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_over: threading.Event, _picture: object, line: Callable[[], str]) -> None:
        click.echo(line())

    monkeypatch.setattr(status_module, "show_until", interrupted)
    device.store.save(token_key(device), token())
    command = ["status", "--watch", "-c", str(device.path)]
    shown = cli_runner().invoke(mqtt_token, command)
    assert (shown.exit_code, shown.stdout) == (0, "token: valid for 5 min; renewal: automatic, in 3 min\n")
    found = json.loads(cli_runner().invoke(mqtt_token, [*command, "--json"]).stdout)
    assert (found["subject"], found["valid"], found["renewable"]) == ("pump-17", True, True)
