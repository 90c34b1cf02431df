"""Devices whose lives end by force, each on its own disk, beside a broker that goes on living.

A life ends in the middle of a change of the disk, or at any time, and the next one finds what the disk may have kept.
Between lives the broker may lose the session, or not be reached in the next one; during a life the connection may be
lost, or the session. The last life delivers everything, and journal_audit.py looks at what became of each message.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from devtools.disk.layer import environment
from devtools.disk.power_cut import Disk, Operation, Record, read_log, restore
from devtools.servers.processes import free_port
from tests.integration.journal_audit import Monitor, Story
from tests.integration.journal_device import Life

_KEY = urlsafe_b64encode(bytes(range(32))).decode()  # of every third device
_ROOT = Path(__file__).parents[2]


def take_session_over(port: int, name: str, token: str, *, keep: bool) -> None:
    """Connect as another client of the same name, for a moment: the device loses its connection, and unless ``keep``
    also its session.
    """

    def text(value: str) -> bytes:
        return len(value).to_bytes(2, "big") + value.encode()

    flags = 0xC0 if keep else 0xC2  # user name, password; Clean Session
    body = text("MQTT") + bytes((4, flags, 0, 10)) + text(name) + text("thief") + text(token)
    size = bytes((len(body) & 0x7F | 0x80, len(body) >> 7)) if len(body) > 127 else bytes((len(body),))
    while True:
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(b"\x10" + size + body)
            answer = sock.recv(4)
            if answer[3:] == b"\0":
                sock.sendall(b"\xe0\0")
                return
        time.sleep(0.05)  # the broker is starting again


@dataclasses.dataclass
class Plan:
    """What happens to one device.

    Attributes:
        name: its client identifier.
        seed: of all that is random.
        lives: how many end by force.
        cut_at: the change of the disk at which each one ends; 0 for a random one.
        kills: whether lives end by SIGKILL at a random time, and the disk keeps everything.
        fails: what the disk does in each life but the first: the error, the first call that fails, how many do.
    """

    name: str
    seed: int
    lives: int
    cut_at: int = 0
    kills: bool = False
    fails: tuple[int, int, int] = (0, 0, 0)


@dataclasses.dataclass
class Result:
    """What a run has seen."""

    cuts: int = 0
    devices: int = 0
    messages: int = 0
    stored: int = 0
    delivered: int = 0
    handed_over: int = 0
    forgotten: int = 0  # by the broker, see journal_audit.py
    faults: list[str] = dataclasses.field(default_factory=list)


class Rig:
    """The broker, the monitor, and processes in which devices live.

    Args:
        folder: for everything on disk.
        port: of the broker.
        tokens: for the broker.
        traces: a folder for all reports of the devices with a fault; None keeps none.
    """

    def __init__(self, folder: Path, port: int, tokens: list[str], traces: Path | None = None) -> None:
        self._traces = traces
        self._folder = folder
        self._port = port
        self._tokens = tokens
        self._nowhere = free_port()
        self._monitor = Monitor(port, tokens[0])
        self._lock = threading.Lock()
        self.result = Result()

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._monitor.close()

    def run(self, plans: Iterator[Plan], beside: int) -> Result:
        """Let devices live, so many beside each other."""
        threads = [threading.Thread(target=self._work, args=(plans,)) for _ in range(beside)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.result

    def _work(self, plans: Iterator[Plan]) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "tests.integration.journal_device"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env=environment(),
            text=True,
        ) as process:
            while True:
                with self._lock:
                    plan = next(plans, None)
                if plan is None:
                    break
                device = _DeviceOnDisk(self, process, plan)
                try:
                    device.live()
                except Exception as error:  # noqa: BLE001 - the others go on
                    device.story.faults.append(f"{type(error).__name__}: {error}")
                self._finish(plan, device.story)
            assert process.stdin is not None
            process.stdin.close()

    def _finish(self, plan: Plan, story: Story) -> None:
        with self._lock:
            result = self.result
            result.devices += 1
            result.cuts += max(0, story.life - 1)
            result.messages += len(story.messages)
            result.stored += sum(one.stored for one in story.messages.values())
            result.delivered += sum(one.delivered is not None for one in story.messages.values())
            result.handed_over += sum(len(one.handed_over) for one in story.messages.values())
            result.forgotten += story.forgotten
            result.faults += [f"{plan}: {fault}" for fault in story.faults]
            if story.faults:
                sys.stderr.write(f"{plan}: {story.faults[:3]}\n")
        if story.faults and self._traces is not None:
            trace = [str(plan), *story.faults, *story.history]
            (self._traces / plan.name).write_text("\n".join(trace), "utf-8")
        if not story.faults:
            shutil.rmtree(self._folder / plan.name, ignore_errors=True)


class _DeviceOnDisk:
    """The lives of one device, one after the other."""

    def __init__(self, rig: Rig, process: subprocess.Popen[str], plan: Plan) -> None:
        self._rig = rig
        self._process = process
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self.story = Story(plan.name)
        folder = rig._folder / plan.name
        self._disk, self._log, self._reports = folder / "disk", folder / "log", folder / "reports"
        self._disk.mkdir(parents=True, mode=0o700)

    def live(self) -> None:
        """Live all lives; what they reported is in ``story`` then."""
        chance, story = self._chance, self.story
        for number in range(self._plan.lives):
            if number and chance.random() < 0.15:
                self._lose_session()
            life = self._next_life()
            if number and chance.random() < 0.15:
                life.port, life.commit_every = self._rig._nowhere, 0.0
            if self._plan.kills:
                life.kill_after = chance.uniform(0.0, 0.2)
            else:
                life.kill_at = self._plan.cut_at or chance.randint(1, chance.choice((40, 160)))
            if number and self._plan.fails[0]:  # perhaps for good: then the disk does not change any more
                life.fails, life.kill_after = self._plan.fails, chance.choice((0.2, 0.2, 1.5))
            self._end(life, -9)
            if life.fails[0]:
                story.disk_failed()
        life = self._next_life()
        life.drains = True
        self._end(life, 0)
        story.check(self._rig._monitor.take(self._plan.name))

    def _next_life(self) -> Life:
        return Life(
            self._plan.name,
            self._rig._port,
            str(self._disk),
            str(self._log),
            str(self._reports),
            self._rig._tokens,
            first=max(self.story.messages, default=-1) + 1,
            seed=self._chance.getrandbits(32),
            commit_every=self._chance.choice((0.0, 0.0, 0.01, 0.03)),
            key=_KEY if self._plan.seed % 3 == 0 else "",
        )

    def _lose_session(self) -> None:
        take_session_over(self._rig._port, self._plan.name, self._rig._tokens[0], keep=False)
        self.story.add(["x", "y"])

    def _end(self, life: Life, expected: int) -> None:
        """Live one life to its end, and put the disk into the state that the next one finds."""
        self._log.unlink(missing_ok=True)
        self._reports.unlink(missing_ok=True)
        disk = Disk(self._disk)
        disturbance = threading.Timer(self._chance.uniform(0.01, 0.2), self._disturb)
        if life.port == self._rig._port and self._chance.random() < 0.3 and not life.drains:
            disturbance.start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(life)) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        disturbance.cancel()
        if disturbance.ident is not None:
            disturbance.join()
        records = read_log(self._log) if self._log.exists() else []
        self.story.add(self._reports.read_text().splitlines() if self._reports.exists() else [])
        self.story.syncs.append(_syncs(records))
        self.story.history.append(f"the disk: {life.kill_at=} {life.port=} syncs {self.story.syncs[-1]}")
        if status != expected:
            self.story.faults.append(f"life {self.story.life} ended with {status}")
        disk.replay(records, killed=len(_changes(records)) == life.kill_at)
        self.story.faults += [f"{name} is written through memory" for name in disk.mapped]
        if life.kill_at:
            restore(self._disk, disk.after_cut(self._chance))
        self._check_files()

    def _disturb(self) -> None:
        """In the middle of a life, end its connection, or its session."""
        keep = self._chance.random() < 0.5
        with self._reports.open("a") as reports:
            if not keep:
                print("x", file=reports, flush=True)
            take_session_over(self._rig._port, self._plan.name, self._rig._tokens[0], keep=keep)
            if not keep:
                print("y", file=reports, flush=True)

    def _check_files(self) -> None:
        names = {path.name for path in self._disk.iterdir()}
        self.story.faults += [f"unreadable: {name}" for name in names if "corrupt" in name]
        if "outbox" not in names or self._chance.random() < 0.8:
            return
        copy = self._disk.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._disk, copy)
        database = sqlite3.connect(copy / "outbox")
        try:
            found = database.execute("PRAGMA integrity_check").fetchall()
        except sqlite3.DatabaseError as error:
            found = [str(error)]
        database.close()
        if found != [("ok",)]:
            self.story.faults.append(f"unreadable: {found}")


def _changes(records: list[Record]) -> list[Record]:
    """Those that count for ``kill_at``."""
    return [one for one in records if one[0] not in (Operation.OPEN, Operation.MAP)]


def _syncs(records: list[Record]) -> list[int]:
    """After how many changes each file was synced."""
    changes = _changes(records)
    return [number for number, one in enumerate(changes, 1) if one[0] == Operation.SYNC and number < len(changes)]
