"""The command, and how the demo counts and looks; the demo itself runs in tests/integration/test_demo.py."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from mqtt_token_client import __version__
from mqtt_token_client.cli import demo, main
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.cli.demo import Traffic, Watch
from mqtt_token_client.cli.display import Snapshot, lifetime_bar, line, sparkline, table, verdict
from mqtt_token_client.config import read_config
from mqtt_token_client.description import describe
from mqtt_token_client.errors import BrokerUnreachable, ClientClosed
from mqtt_token_client.events import (
    Connected,
    ConnectFailed,
    Disconnected,
    Event,
    MessageRejected,
    MessagesAbandoned,
    RenewalFailed,
    Rotated,
    RotationFailed,
    SessionLost,
    TokenRefused,
    TokenRenewed,
)
from mqtt_token_client.token import Token
from tests.unit.command_line import cli_runner

if TYPE_CHECKING:
    from rich.console import RenderableType

WELL = Snapshot(elapsed=12, token_lifetime=6, renewals=2, gaps=(0.001, 0.0042), sent=600, received=600)

# The command


def run_python(*statements: str) -> subprocess.CompletedProcess[str]:
    script = "; ".join(("import sys", *statements, "from mqtt_token_client.cli import main", "main()"))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_cli_one_line_says_so(missing: str) -> None:
    ended = run_python(f"sys.modules['{missing}'] = None")
    assert ended.stderr == "mqtt-token needs the \"cli\" extra: pip install 'mqtt-token-client[cli]'\n"
    assert ended.returncode == 1


@pytest.mark.parametrize("missing", ["flask", "authlib"])
def test_without_the_extra_testing_one_line_says_so(missing: str) -> None:
    ended = run_python(f"sys.modules['{missing}'] = None", "sys.argv[1:] = ['demo']")
    assert "pip install 'mqtt-token-client[testing]'" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.returncode == 1


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """The file of a device that has a token."""
    (tmp_path / "secret").write_text("secret")
    (file := tmp_path / "device.toml").write_text(
        """
        store = "file:store"
        [source]
        type = "client_credentials"
        issuer = "https://login.example.com"
        client_id = "pump-17"
        client_secret_file = "secret"
        """
    )
    config = read_config(file)
    config.store.save(config.source.key, Token("the-token-of-pump-17", 3600.0))  # type: ignore[attr-defined]  # has one
    return file


PRINTING = [["--help"], ["--version"], ["completion", "bash"], ["status", "-c", "{file}"], ["token", "-c", "{file}"]]
CONNECTING = [["sub", "-t", "a", "-c", "{file}"], ["request", "-t", "a", "-c", "{file}"], ["demo", "--seconds", "0.1"]]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_disk_that_takes_no_output_is_one_line(arguments: list[str], device: Path) -> None:
    command = [sys.executable, "-m", "mqtt_token_client", *(one.format(file=device) for one in arguments)]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert (ended.returncode, ended.stderr) == (1, "Error: stdout: No space left on device\n")
        failed = subprocess.run([*command, "--none"], stdout=subprocess.PIPE, stderr=full, timeout=60)
    assert failed.returncode in (0, 2), "a full disk for its errors changes no exit code"


@pytest.mark.parametrize("arguments", [*PRINTING, *CONNECTING], ids=" ".join)
def test_a_closed_stdout_is_one_line(arguments: list[str], device: Path) -> None:
    command = [sys.executable, "-m", "mqtt_token_client", *(one.format(file=device) for one in arguments)]
    ended = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (1, "Error: stdout: Bad file descriptor\n")


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_outputs_change_no_exit_code(closed: str) -> None:
    command = [sys.executable, "-m", "mqtt_token_client", "token", "-c", "none.toml"]
    ended = subprocess.run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command], stdout=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_no_connection_takes_the_place_of_a_closed_output(closed: str, tmp_path: Path) -> None:
    """What is printed would be sent over it."""
    program = (
        "import pathlib, socket, sys\n"
        "from mqtt_token_client.cli import encoding\n"
        "encoding.report_full_outputs()\n"
        "numbers = sys.stdout.fileno(), sys.stderr.fileno(), socket.socket().fileno() > 2\n"
        "pathlib.Path(sys.argv[1]).write_text(str(numbers))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "numbers")]
    subprocess.run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command], check=True, timeout=60)
    assert (tmp_path / "numbers").read_text() == "(1, 2, True)"


def test_a_command_that_prints_nothing_to_stdout_needs_none(device: Path) -> None:
    command = [sys.executable, "-m", "mqtt_token_client", "login", "-c", str(device)]
    ended = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr.startswith("Logged in")) == (0, True), ended.stderr


def test_a_reader_of_stdout_that_stops_ends_the_command_without_a_word() -> None:
    command = [sys.executable, "-m", "mqtt_token_client", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (1, b"")


def test_a_file_that_cannot_be_read_is_not_taken_for_stdout() -> None:
    ended = run_python(
        "from click import Command",
        "import mqtt_token_client.cli.commands as commands",
        "commands.mqtt_token.add_command(Command('read', callback=lambda: open('/proc/self/mem', 'rb').read()))",
        "sys.argv[1:] = ['read']",
    )
    assert "stdout" not in ended.stderr
    assert "Input/output error" in ended.stderr


class _Interrupted:
    def __getattr__(self, name: str) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_while_it_loads_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mqtt_token_client.cli.commands", _Interrupted())
    with pytest.raises(SystemExit, match=r"^Aborted!$"):
        main()


def test_output_in_ascii_has_similar_characters_for_those_that_it_lacks() -> None:
    show = "Console(width=80).print(table(Snapshot(token='…abc', token_left=3, token_lifetime=6, gaps=(0.1, 0.2))))"
    script = (
        "from rich.console import Console; from mqtt_token_client.cli.display import Snapshot, table; "
        "from mqtt_token_client.cli.encoding import allow_any_encoding; allow_any_encoding(); "
        f"{show}; print('é', '…', '█░')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "TERM": "xterm"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True, env=environment)
    shown = ended.stdout.decode("ascii")
    assert ".abc" in shown
    assert f"{'#' * 15}{'-' * 15}" in shown
    assert shown.endswith("? . #-\n")
    assert ended.stderr == b""


def test_the_command_sets_up_its_output_first() -> None:
    ended = run_python(
        "sys.argv[1:] = ['--version']", "import atexit", "atexit.register(lambda: print(sys.stdout.errors))"
    )
    assert ended.stdout.splitlines()[-1] == "mqtt-token"


def test_an_error_of_the_package_itself_is_not_taken_for_a_missing_extra() -> None:
    ended = run_python("sys.modules['mqtt_token_client.events'] = None")
    assert "Traceback" in ended.stderr


def test_version_is_that_of_the_package() -> None:
    assert __version__ in cli_runner().invoke(mqtt_token, ["--version"]).stdout


@pytest.mark.parametrize("seconds", ["0", "-1", "soon"])
def test_seconds_that_are_none_are_refused(seconds: str) -> None:
    assert cli_runner().invoke(mqtt_token, ["demo", "--seconds", seconds]).exit_code == 2


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (WELL, 0),
        (Snapshot(elapsed=12, gaps=(0.001,), sent=600, received=599, lost=1), 1),
        (Snapshot(elapsed=2, sent=100, received=100), 1),
        (Snapshot(elapsed=12, gaps=(0.001,), sent=600, received=600, duplicated=1), 0),
    ],
)
def test_the_status_is_1_if_a_message_was_lost_or_nothing_rotated(
    monkeypatch: pytest.MonkeyPatch, end: Snapshot, status: int
) -> None:
    monkeypatch.setattr(demo, "run", lambda *_: end)
    assert cli_runner().invoke(mqtt_token, ["demo"]).exit_code == status
    assert cli_runner().invoke(mqtt_token, ["demo", "--json"]).exit_code == status


def test_json_is_one_object_and_nothing_else_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: float | None, console: Console) -> Snapshot:
        console.print("to watch")
        return WELL

    monkeypatch.setattr(demo, "run", run)
    ended = cli_runner().invoke(mqtt_token, ["demo", "--json"])
    assert json.loads(ended.stdout) == {
        "rotations": 2,
        "sent": 600,
        "received": 600,
        "lost": 0,
        "duplicated": 0,
        "gap_ms_max": 4.2,
        "renewals": 2,
    }
    assert "to watch" in ended.stderr


def test_trouble_of_the_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Snapshot:
        raise BrokerUnreachable("nobody there")

    monkeypatch.setattr(demo, "run", run)
    ended = cli_runner().invoke(mqtt_token, ["demo"])
    assert (ended.exit_code, ended.stderr) == (1, "Error: nobody there\n")


def test_the_demo_prints_lines_on_a_terminal_that_cannot_move_its_cursor() -> None:
    output = io.StringIO()
    demo.run(0.05, Console(file=output, force_terminal=True, _environ={"TERM": "dumb"}))
    assert re.match(r" +\d\.\d s  connected to mqtt://127\.0\.0\.1:\d+; sent \d+, ", output.getvalue())


# What the demo counts


def test_a_message_that_arrives_again_is_duplicated_and_counted_as_received_once() -> None:
    traffic = Traffic()
    first, second = traffic.send(), traffic.send()
    for number in (first, second, first, first):
        traffic.receive(number)
    assert (traffic.sent, traffic.received, traffic.duplicated, traffic.lost) == (2, 2, 2, 0)


def test_a_message_is_lost_when_its_time_is_over_and_until_it_arrives() -> None:
    traffic = Traffic(grace=0.2)
    number = traffic.send()
    assert (traffic.lost, traffic.settled) == (0, False)
    time.sleep(0.21)
    assert (traffic.lost, traffic.settled) == (1, True)
    traffic.receive(number)
    assert (traffic.lost, traffic.received, traffic.duplicated) == (0, 1, 0)


def test_events_make_the_picture_and_the_first_token_is_no_renewal() -> None:
    lines: list[str] = []
    watch = Watch(lines.append)
    for event in (
        TokenRenewed(6.0, "the-first-one"),
        Connected("mqtt://127.0.0.1:1883", session_present=False),
        TokenRenewed(5.9, "the-second-one"),
        Rotated("handover", 0.0012),
    ):
        watch.on_event(event)
    now = watch.snapshot()
    assert (now.token, now.token_lifetime, now.renewals, now.gaps) == ("…nd-one", 5.9, 1, (0.0012,))
    assert [what for _, what in now.events] == [
        "new token …st-one, valid for 6.0 s",
        "connected to mqtt://127.0.0.1:1883",
        "new token …nd-one, valid for 5.9 s",
        "moved onto the new token by handover, gap 1.2 ms",
    ]
    assert len(lines) == 2
    assert "handover, gap 1.2 ms; sent 0, received 0, lost 0, duplicated 0" in lines[1]


# How it looks


def shown(picture: RenderableType, width: int = 120, colour: bool = False) -> str:
    console = Console(width=width, force_terminal=colour, color_system="standard" if colour else None, record=True)
    with console.capture() as captured:
        console.print(picture)
    return captured.get()


LONG = Snapshot(
    elapsed=10_000_000,
    token="…123456",
    token_left=604_800.0,
    token_lifetime=604_800.0,
    renewals=100_000,
    gaps=(1234.5678,) * 100_000,
    sent=1_000_000_000,
    received=1_000_000_000,
    lost=1_000_000,
    duplicated=1_000_000,
    events=tuple((1_000_000.0, "word " * 40) for _ in range(20)),
)


@pytest.mark.parametrize("now", [Snapshot(), WELL, LONG])
@pytest.mark.parametrize(("terminal", "most"), [(200, 80), (80, 80), (60, 60)])
def test_the_picture_is_80_columns_wide_at_most_and_its_height_does_not_change(
    now: Snapshot, terminal: int, most: int
) -> None:
    rows = shown(table(now), terminal).splitlines()
    assert max(map(len, rows)) <= most
    assert len(rows) == len(shown(table(Snapshot())).splitlines())


def test_the_picture_shows_the_token_the_rotations_the_gaps_and_the_messages() -> None:
    now = Snapshot(
        elapsed=31, token="…a9X3fQ", token_left=4, token_lifetime=6, renewals=8, gaps=(0.001, 0.0042, 0.0011),
        sent=1551, received=1549, lost=2, duplicated=3, events=((27.1, "something happened"),),
    )  # fmt: skip
    picture = re.sub(" +", " ", shown(table(now)))  # releases of rich differ in the width of columns
    for part in (
        "…a9X3fQ", "4.0 s left", "rotations 3", "8 renewals in 31 s", "last 1.1 ms, max 4.2 ms", "▃█▃",
        "sent 1551", "received 1549", "lost 2", "duplicated 3", "27.1 s something happened",
    ):  # fmt: skip
        assert part in picture


def test_what_is_wrong_is_red_and_what_is_well_is_green() -> None:
    assert "\x1b[32mlost 0" in shown(table(WELL), colour=True)
    assert "\x1b[1;31mlost 1" in shown(table(Snapshot(lost=1)), colour=True)


@pytest.mark.parametrize(
    ("left", "colour", "filled"),
    [
        (7.0, "green", 30),
        (6.0, "green", 30),
        (2.01, "green", 10),
        (1.99, "yellow", 10),
        (0.61, "yellow", 3),
        (0.59, "red", 3),
    ],
)
def test_the_bar_shows_what_is_left_of_a_life_and_warns_of_its_end(left: float, colour: str, filled: int) -> None:
    bar = lifetime_bar(left, 6.0)
    assert bar.plain == "█" * filled + "░" * (30 - filled) + f" {left:4.1f} s left"
    assert bar.spans[0].style == colour


@pytest.mark.parametrize(("left", "lifetime"), [(-1.0, 6.0), (0.0, 0.0)])
def test_the_bar_of_a_token_that_has_ended_or_is_not_there_yet_is_empty(left: float, lifetime: float) -> None:
    assert lifetime_bar(left, lifetime).plain == "░" * 30 + "  0.0 s left"


def test_the_greatest_gap_is_the_highest_block() -> None:
    assert sparkline([0.001, 0.002, 0.004, 0.008]) == "▂▃▅█"
    assert sparkline([0, 8, 4]) == "▁█▅"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""


REASON = ClientClosed("the reason")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (TokenRenewed(6.0, "jti-of-a-token"), "new token …-token, valid for 6.0 s"),
        (TokenRenewed(6.0), "new token (no jti), valid for 6.0 s"),
        (Rotated("handover", 0.00123), "moved onto the new token by handover, gap 1.2 ms"),
        (Connected("mqtt://b:1", session_present=False), "connected to mqtt://b:1"),
        (Connected("mqtt://b:1", session_present=True), "connected to mqtt://b:1, session present"),
        (Disconnected("the reason", None, retry_in=1), "connection lost: the reason; next attempt in 1.0 s"),
        (
            TokenRefused(0x87, "Not authorized", 1, 2),
            "the broker rejected the token: Not authorized; next attempt in 2.0 s",
        ),
        (RenewalFailed(REASON, retry_in=1, expires_in=2), "token renewal failed: the reason; next attempt in 1.0 s"),
        (RotationFailed(REASON, retry_in=1), "connecting failed: the reason; next attempt in 1.0 s"),
        (ConnectFailed(REASON, retry_in=1), "connecting failed: the reason; next attempt in 1.0 s"),
        (SessionLost(resent=3), "the broker had lost the session; sent 3 messages again"),
        (MessageRejected("a", 0x95, 900), "a message of 900 bytes on 'a' was rejected: Packet too large"),
        (MessageRejected("a", 0x81, 9, "QoS 3"), "a message of 9 bytes on 'a' was rejected: QoS 3"),
        (MessagesAbandoned(2), "MessagesAbandoned(count=2)"),
    ],
)
def test_events_are_told_in_plain_words_and_the_rare_ones_by_name(event: Event, text: str) -> None:
    assert describe(event) == text


def test_a_line_for_a_log_has_the_time_the_event_and_the_counters() -> None:
    now = Snapshot(sent=4, received=3, lost=2, duplicated=1, events=((0.1, "first"), (12.34, "last")))
    assert line(now) == "  12.3 s  last; sent 4, received 3, lost 2, duplicated 1"


def test_the_verdict_says_what_was_seen() -> None:
    assert verdict(WELL) == (
        "In 12 s, with tokens valid for 6 s, the connection moved onto a new token 2 times. The longest gap in "
        "which nothing could be sent or received was 4.2 ms. Of 600 messages, none was lost and none arrived twice."
    )
    assert "3 WERE LOST and 1 arrived twice" in verdict(Snapshot(gaps=(0.1,), sent=9, lost=3, duplicated=1))
    assert "this shows nothing" in verdict(Snapshot(elapsed=2))
