"""The demo as a person runs it: as a process, with and without a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sysconfig
import termios
from pathlib import Path

COMMAND = str(Path(sysconfig.get_path("scripts"), "mqtt-token"))


def test_the_demo_loses_nothing_in_15_seconds_and_rotates_twice_at_least() -> None:
    ended = subprocess.run(
        [COMMAND, "demo", "--seconds", "15", "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    result = json.loads(ended.stdout)
    assert ended.returncode == 0, ended.stderr
    assert result["lost"] == 0
    assert result["rotations"] >= 2
    assert result["renewals"] >= result["rotations"]
    assert result["received"] == result["sent"] > 15 * 50 * 0.5
    assert result["gap_ms_max"] > 0


def test_ctrl_c_ends_the_demo_with_its_summary_and_without_noise() -> None:
    demo = subprocess.Popen([COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert demo.stdout is not None
        log: list[str] = []
        while "handover" not in (log or [""])[-1]:
            log.append(demo.stdout.readline())
            assert log[-1], "the demo ended by itself"
        demo.send_signal(signal.SIGINT)
        rest, errors = demo.communicate(timeout=30)
    finally:
        demo.kill()
    assert demo.returncode == 0
    summary = " ".join(rest.split())
    assert "the connection moved onto a new token" in summary
    assert "none was lost" in summary
    assert errors == ""
    assert "\x1b" not in "".join(log) + rest


def test_in_a_terminal_it_draws_a_picture_and_leaves_the_cursor_as_it_was() -> None:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    demo = subprocess.Popen(
        [COMMAND, "demo", "--seconds", "2"], stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
    )
    os.close(its)
    seen = b""
    try:
        while chunk := _read(ours):
            seen += chunk
        demo.wait(timeout=30)
    finally:
        demo.kill()
        demo.wait()
        os.close(ours)
    picture = seen.decode()
    assert demo.returncode == 1  # no rotation in two seconds
    for part in ("mqtt-token demo", "s left", "duplicated 0", "nothing is shown"):
        assert part in picture
    assert picture.count("\x1b[?25l") == picture.count("\x1b[?25h") == 1


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux tells that the other end is closed
        return b""
