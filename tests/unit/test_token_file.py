"""A token in a file: what is taken for one, how old it is, and how a change is noticed."""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import ConfigurationError, TokenError, TokenUnchanged
from mqtt_token_client.events import Event, TokenRenewed
from mqtt_token_client.sources import folder_watch
from mqtt_token_client.sources.token_file import TokenFile
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.keeper import TokenKeeper

NOW = 1_800_000_000.0  # 2027
LIFE = 3600.0


def jwt(**claims: object) -> str:
    parts = ({"alg": "none"}, claims)
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".sign"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall clock of this device."""
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: seconds)


def write(path: Path, value: str, at: float) -> None:
    """Write a token at a time by the device's clock."""
    path.write_text(value)
    os.utime(path, (at, at))


class TestContent:
    @pytest.mark.parametrize("content", ["{}", "{}\n", "\n  {}\r\n", "\t{} \n\n"])
    @pytest.mark.parametrize("value", ["an-opaque-token/+=", jwt(sub="a"), "eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn"])
    def test_is_the_token_without_the_white_space_around_it(self, path: Path, content: str, value: str) -> None:
        path.write_text(content.format(value))
        assert TokenFile(path).fetch(None).value == value
        assert TokenFile(str(path)).fetch(None).expires_in == float("inf")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b" \n",
            jwt(sub="secret-part")[:-5].encode(),  # its signature is missing
            jwt(sub="secret-part")[:10].encode(),
            jwt(sub="secret-part").rpartition(".")[0].encode(),
            jwt(sub="secret-part").encode()[:-3] + b"\0\0\0",
            jwt(sub="secret-part").encode() + b".x.y.z",
            jwt(sub="secret-part").replace(".sign", ".signs").encode(),  # no base64 has this length
            b"eyJhbGciOiJub25lIn0.eyJzdWIiOi.sign",
            b"eyJhbGciOiJub25lIn0.WyJzZWNyZXQiXQ.sign",  # a list
            b"a token of words",
            b"two\nlines",
            b"\xff\xfe\x00",
            "tökén-of-letters".encode(),
        ],
        ids=lambda content: content[:30],
    )
    def test_that_is_not_a_whole_token_is_a_passing_problem_and_is_not_shown(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(TokenError) as caught:
            TokenFile(path).fetch(None)
        assert not caught.value.permanent
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        message = str(caught.value).replace(str(path), "")
        assert not any(piece in message for piece in content.decode(errors="replace").split() if len(piece) > 5)

    def test_that_is_longer_than_any_token_is_not_read_to_its_end(self, path: Path) -> None:
        path.write_bytes(b"x" * (1 << 20))
        assert len(TokenFile(path).fetch(None).value) == 1 << 20
        with path.open("r+b") as file:
            file.truncate(1 << 40)  # of zeros that take no room
        with pytest.raises(TokenError, match="longer than 1 MiB"):
            TokenFile(path).fetch(None)

    def test_that_is_not_there_yet_is_waited_for(self, path: Path) -> None:
        source = TokenFile(path)
        with pytest.raises(TokenError, match="No such file") as caught:
            source.fetch(None)
        assert not caught.value.permanent
        path.write_text("opaque")
        assert source.fetch(None).value == "opaque"

    @pytest.mark.timeout(20)
    def test_of_a_fifo_is_not_waited_for(self, path: Path) -> None:
        os.mkfifo(path)
        source = TokenFile(path)
        source.watch(print)()
        with pytest.raises(TokenError, match="not a regular file"):
            source.fetch(None)

    def test_that_is_a_folder_is_reported(self, path: Path) -> None:
        path.mkdir()
        with pytest.raises(TokenError, match="directory"):
            TokenFile(path).fetch(None)


class TestAge:
    @pytest.mark.parametrize(
        ("clock", "written", "issued", "age"),
        [
            # this device's clock now and when the file was written, the issuer's when it made the token
            (NOW, NOW - 10, NOW - 20, 20),  # all are right
            (NOW, NOW + 5, NOW + 30, 0),  # half a minute behind
            (NOW, NOW - 100, NOW + 30, 100),  # so, and the file shows that it is older
            (NOW - 600, NOW - 610, NOW - 5, 10),  # ten minutes behind: only the file's time makes sense
            (NOW + 900, NOW + 890, NOW, 900),  # ahead, but it might be so: asked for again too early
            (1000, 900, NOW, 100),  # never set, nor when the agent wrote
            (NOW, 900, NOW - 50, 50),  # set since the agent wrote
            (NOW + 1e8, NOW + 1e8 - 30, NOW, 30),  # years ahead, as when the agent wrote
            (1000, NOW, NOW, None),  # a boot without a clock chip, the file is older: nobody can tell
            (NOW - 1e8, NOW, NOW, None),  # stepped back by years since
        ],
    )
    def test_is_reported_by_what_makes_sense(
        self, path: Path, wall: Callable[[float], None], clock: float, written: float, issued: float, age: float | None
    ) -> None:
        wall(clock)
        write(path, jwt(iat=issued, exp=issued + LIFE), written)
        token = TokenFile(path).fetch(None)
        assert token.lifetime == LIFE
        assert token.age_known == (age is not None)
        assert token.expires_in == pytest.approx(LIFE - (age or 0), abs=1)

    def test_beyond_the_life_by_both_clocks_is_the_end(self, path: Path, wall: Callable[[float], None]) -> None:
        wall(NOW)
        write(path, jwt(iat=NOW - LIFE - 1, exp=NOW - 1), NOW - LIFE)
        with pytest.raises(TokenError, match="has expired"):
            TokenFile(path).fetch(None)

    def test_of_a_token_that_was_known_does_not_move_with_the_wall_clock(
        self, path: Path, wall: Callable[[float], None]
    ) -> None:
        wall(NOW)
        write(path, jwt(iat=NOW, exp=NOW + LIFE), NOW)
        source = TokenFile(path)
        first = source.fetch(None)
        for clock in (1000, NOW + 1e8, NOW + 2 * LIFE):
            wall(clock)
            assert source.fetch(first) is first
            assert TokenFile(path).fetch(first) is first  # which a store kept

    def test_that_was_unknown_is_known_once_the_clock_is_set(self, path: Path, wall: Callable[[float], None]) -> None:
        wall(1000)
        write(path, jwt(iat=NOW, exp=NOW + LIFE), NOW)
        source = TokenFile(path)
        unknown = source.fetch(None)
        assert not unknown.age_known
        assert source.fetch(unknown) is unknown
        wall(NOW + 100)
        known = source.fetch(unknown)
        assert known.age_known
        assert known.expires_in == pytest.approx(LIFE - 100, abs=1)
        wall(1000)
        assert source.fetch(known) is known

    @pytest.mark.parametrize(
        ("clock", "written", "ends", "left"),
        [
            (NOW, NOW - 100, NOW + 500, 500),
            (NOW, NOW - 100, NOW - 50, None),
            (1000, 900, NOW, float("inf")),  # the clock was never set: nobody can tell
            (NOW, NOW + 1e8, NOW + 500, float("inf")),
        ],
    )
    def test_with_an_exp_alone_counts_from_when_it_was_written(
        self, path: Path, wall: Callable[[float], None], clock: float, written: float, ends: float, left: float | None
    ) -> None:
        wall(clock)
        write(path, jwt(exp=ends), written)
        if left is None:
            with pytest.raises(TokenError, match="has expired"):
                TokenFile(path).fetch(None)
        else:
            assert TokenFile(path).fetch(None).expires_in == pytest.approx(left, abs=1)

    @pytest.mark.parametrize(
        "claims",
        [{}, {"exp": "soon"}, {"exp": 10**400}, {"iat": "a", "exp": True}, {"iat": NOW}, {"exp": float("nan")}],
    )
    def test_without_an_end_that_makes_sense_there_is_none(self, path: Path, claims: dict[str, Any]) -> None:
        path.write_text(jwt(sub="a", **claims))
        assert TokenFile(path).fetch(None).expires_in == float("inf")


class TestKeeper:
    def test_takes_over_the_token_that_stands_there_when_it_renews(self, path: Path) -> None:
        events: list[Event] = []
        now = time.time()
        path.write_text(jwt(iat=now, exp=now + LIFE, jti="first"))
        keeper = TokenKeeper(TokenFile(path), on_event=events.append)
        first = keeper.get()
        assert keeper.renew() is first
        path.write_text(jwt(iat=now, exp=now + LIFE, jti="second"))
        assert keeper.renew().claims["jti"] == "second"
        assert [type(event) for event in events] == [TokenRenewed, TokenRenewed]

    def test_keeps_its_token_while_the_file_is_half_written(self, path: Path) -> None:
        path.write_text("opaque")
        keeper = TokenKeeper(TokenFile(path))
        first = keeper.get()
        path.write_text("")
        with pytest.raises(TokenError, match="empty"):
            keeper.renew()
        assert keeper.get() is first

    def test_says_that_the_file_holds_the_same_token_that_was_rejected(self, path: Path) -> None:
        path.write_text("opaque")
        keeper = TokenKeeper(TokenFile(path))
        with pytest.raises(TokenUnchanged, match="same token that the broker rejected"):
            keeper.get(refused=keeper.get())


class Watched:
    """A file that is watched, and how often something changed."""

    def __init__(self, path: Path, source: TokenFile | None = None) -> None:
        self.source = source or TokenFile(path)
        self.calls: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.end = self.source.watch(lambda: self.calls.put(self.source.fetch(None).value))

    def next(self) -> str:
        return self.calls.get(timeout=10)


@pytest.fixture
def watch(path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def start(at: Path = path, **more: Any) -> Watched:
        made.append(Watched(at, **more))
        return made[-1]

    yield start
    for one in made:
        one.end()
    wait_until(lambda: not _watching(), "the end of the watch")


def _watching() -> list[threading.Thread]:
    """The threads of all that is watched."""
    threads = threading.enumerate()
    return [one for one in threads if one.name == "folder-watch" or type(one).__module__.startswith("watchdog")]


class TestWatch:
    def test_notices_a_file_that_is_renamed_over_the_old_one(self, path: Path, watch: Callable[..., Watched]) -> None:
        path.write_text("first")
        watched = watch()
        for value in ("second", "third"):
            path.with_name("new").write_text(value)
            path.with_name("new").replace(path)
            assert watched.next() == value

    def test_notices_a_file_that_appears_and_one_that_is_written_in_place(
        self, path: Path, watch: Callable[..., Watched]
    ) -> None:
        watched = watch()
        path.write_text("first")
        assert watched.next() == "first"
        path.write_text("second")
        assert watched.next() == "second"
        path.unlink()
        path.write_text("third")
        assert watched.next() == "third"

    def test_notices_how_kubernetes_moves_its_link(self, path: Path, watch: Callable[..., Watched]) -> None:
        folder = path.parent
        for name in ("..2026_1", "..2026_2"):
            (folder / name).mkdir()
            (folder / name / "token").write_text(name.strip("."))
        (folder / "..data").symlink_to("..2026_1")
        path.symlink_to("..data/token")
        watched = watch()
        assert watched.source.fetch(None).value == "2026_1"
        (folder / "..data_tmp").symlink_to("..2026_2")
        (folder / "..data_tmp").rename(folder / "..data")
        assert watched.next() == "2026_2"

    def test_notices_changes_in_a_folder_that_is_reached_by_a_link(
        self, tmp_path: Path, watch: Callable[..., Watched]
    ) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("folder")
        watched = watch(tmp_path / "link" / "token")
        (tmp_path / "folder" / "token").write_text("first")
        assert watched.next() == "first"

    def test_says_nothing_of_half_writes_the_same_content_and_other_files(
        self, path: Path, watch: Callable[..., Watched]
    ) -> None:
        whole = jwt(sub="a", jti="whole")
        path.write_text("first")
        watched = watch()
        looks: list[str | None] = []
        read = watched.source._value

        def look() -> str | None:
            looks.append(read())
            return looks[-1]

        watched.source._value = look  # type: ignore[method-assign]
        for content, seen in (("", None), ("first\n", "first"), (whole[:20], None), ("first", "first")):
            path.write_text(content)
            wait_until(lambda seen=seen: looks[-1:] == [seen], f"a look at {content!r}")  # type: ignore[misc]
        path.with_name("other").write_text("another")
        path.write_text(whole)
        assert watched.next() == whole
        assert watched.calls.empty()

    def test_is_quiet_while_nothing_changes(self, path: Path, watch: Callable[..., Watched]) -> None:
        path.write_text("first")
        watched = watch()
        looked_at = [monotonic()]
        read = watched.source._value

        def look() -> str | None:
            looked_at.append(monotonic())
            return read()  # which opens and closes the file

        watched.source._value = look  # type: ignore[method-assign]
        path.write_text("second")
        assert watched.next() == "second"
        wait_until(lambda: monotonic() - looked_at[-1] > 0.5, "half a second without a look at the file")

    def test_notices_what_changed_between_the_last_fetch_and_its_beginning(
        self, path: Path, watch: Callable[..., Watched]
    ) -> None:
        path.write_text("first")
        source = TokenFile(path)
        source.fetch(None)
        path.write_text("second")
        assert watch(source=source).next() == "second"

    def test_says_nothing_at_its_beginning_if_nothing_changed(self, path: Path, watch: Callable[..., Watched]) -> None:
        path.write_text("first")
        watched = watch()
        path.write_text("second")
        assert watched.next() == "second"

    def test_goes_on_after_an_exception(
        self, path: Path, watch: Callable[..., Watched], caplog: pytest.LogCaptureFixture
    ) -> None:
        watched = watch()
        calls: list[str] = []

        def fail() -> None:
            calls.append("")
            raise RuntimeError

        end = watched.source.watch(fail)
        path.write_text("first")
        wait_until(lambda: len(calls) == 1, "the first call")
        path.write_text("second")
        wait_until(lambda: len(calls) == 2, "the second call")
        end()
        assert "RuntimeError" in caplog.text

    def test_ends_when_it_is_stopped_also_twice_and_by_what_it_calls(self, path: Path) -> None:
        source = TokenFile(path)
        calls: list[str] = []

        def once() -> None:
            calls.append("")
            end()

        end = source.watch(once)
        assert len(_watching()) > 1
        path.write_text("first")
        wait_until(lambda: not _watching(), "the end of the watch")
        end()
        path.write_text("second")
        assert len(calls) == 1

    def test_of_no_folder_is_logged_and_ends_there(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        TokenFile(tmp_path / "none" / "token").watch(lambda: None)()
        assert [record.levelno for record in caplog.records if "is not watched" in record.message] == [logging.WARNING]
        wait_until(lambda: not _watching(), "the end of the watch")

    def test_without_watchdog_is_logged_and_does_nothing(
        self, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "watchdog.observers", None)
        caplog.set_level(logging.INFO, folder_watch.__name__)
        TokenFile(path).watch(lambda: None)()
        assert [record.message for record in caplog.records] == [
            f"{path.parent} is not watched, as watchdog is not installed (mqtt-token-client[watch])"
        ]
        assert _watching() == []


class TestArguments:
    @pytest.mark.parametrize("wrong", [None, "", 5, b"/run/token"])
    def test_invalid_path_is_reported(self, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^path must "):
            TokenFile(wrong)

    def test_key_is_the_paths_in_every_process(self, tmp_path: Path) -> None:
        program = "from mqtt_token_client import TokenFile; print(TokenFile('a/token').key)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert done.stdout.strip() == TokenFile(tmp_path / "a" / "token").key
        assert TokenFile(tmp_path / "b").key != TokenFile(tmp_path / "a").key

    def test_repr_names_the_file_only(self, path: Path) -> None:
        path.write_text("opaque")
        source = TokenFile(path)
        token: Token = source.fetch(None)
        assert repr(source) == f"TokenFile({str(path)!r})"
        assert token.since <= monotonic()
