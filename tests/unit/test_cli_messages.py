"""``mqtt-token pub``, ``sub``, ``request`` and ``doctor`` with the embedded servers; with real ones in
tests/integration.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
from click.testing import Result

from mqtt_token_client import ClientCredentials, TokenClient, open_journal
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.cli.encoding import allow_any_encoding
from mqtt_token_client.cli.login import token_key
from mqtt_token_client.clock import monotonic
from mqtt_token_client.config import Config, read_config
from mqtt_token_client.mqtt.codec.topics import encode_topic
from mqtt_token_client.mqtt.session.delivery import RecordedMessage
from mqtt_token_client.testing import AuthorizationServer, Broker
from mqtt_token_client.token import Token
from tests.unit.command_line import cli_runner
from tests.unit.device_login import log_in
from tests.unit.packets import CONNECT, DISCONNECT, PUBACK, PUBLISH, SESSION_EXPIRY_INTERVAL, Packet
from tests.unit.scripted_broker import ScriptedBroker

Command = Callable[..., Result]


@pytest.fixture
def file(tmp_path: Path, server: AuthorizationServer, broker: Broker) -> Path:
    secret = tmp_path / "secret"
    secret.write_text(server.client_secret)
    secret.chmod(0o600)
    file = tmp_path / "device.toml"
    file.write_text(
        f"""
        broker = "{broker.url}"
        client_id = "pump-17"
        store = "file:store"
        [source]
        type = "client_credentials"
        issuer = "{server.issuer}"
        client_id = "{server.client_id}"
        client_secret_file = "secret"
        """
    )
    return file


@pytest.fixture
def command(file: Path) -> Command:
    def command(name: str, *arguments: str, stdin: bytes | None = None) -> Result:
        return cli_runner().invoke(mqtt_token, [name, "-c", str(file), *arguments], input=stdin)

    return command


@pytest.fixture
def silent(file: Path, broker: Broker) -> Iterator[ScriptedBroker]:
    """A broker in place of the one in the file, which does only what the test does for it."""
    with closing(ScriptedBroker()) as silent:
        file.write_text(file.read_text().replace(broker.url, silent.url))
        yield silent


def acknowledge_nothing(broker: ScriptedBroker) -> None:
    """Serve a connection until DISCONNECT."""
    peer = broker.accept()
    peer.expect(CONNECT)
    peer.connack()
    while (packet := peer.packet()) and packet.kind != DISCONNECT:
        pass
    assert packet, "the connection ended without DISCONNECT"
    peer.close()


class TestPub:
    def test_publishes_a_message_with_its_properties(self, command: Command, broker: Broker) -> None:
        given = ("-t", "a/b", "-m", "21.5", "-q", "2", "-P", "content_type=text/csv", "-U", "unit=C")
        assert command("pub", *given).exit_code == 0
        (message,) = broker.messages()
        assert (message.topic, message.payload, message.qos) == ("a/b", b"21.5", 2)
        assert message.properties["content_type"] == "text/csv"
        assert list(map(tuple, message.properties["user_property"])) == [("unit", "C")]
        assert message.client_id.startswith("pump-17-")

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            ("content_type=42", "42"),
            ("correlation_data=42", b"42"),
            ("message_expiry_interval=42", 42),
            ("payload_format_indicator=1", 1),
        ],
    )
    def test_sends_a_number_as_what_the_property_is(
        self, command: Command, broker: Broker, given: str, sent: object
    ) -> None:
        result = command("pub", "-t", "a", "-n", "-P", given)
        assert result.exit_code == 0, result.stderr
        assert broker.messages()[0].properties[given.partition("=")[0]] == sent

    def test_publishes_bytes_of_the_command_line_that_are_not_utf_8(self, command: Command, broker: Broker) -> None:
        given = os.fsdecode(b"\xff\xc3\xa9")
        assert command("pub", "-t", "a", "-m", given).exit_code == 0
        assert command("request", "-t", "a", "-m", given, "-W", "1").exit_code == 1
        assert [message.payload for message in broker.messages(count=2)] == [b"\xff\xc3\xa9"] * 2

    def test_needs_stdin_for_its_lines(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mqtt_token_client.cli.publishing.sys", SimpleNamespace(stdin=None))
        result = command("pub", "-t", "a", "-l")
        assert (result.exit_code, "stdin is closed" in result.stderr) == (2, True), result.output

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (".", "'.': Is a directory"),
            ("/proc/self/mem", "'/proc/self/mem': Input/output error"),
            ("/dev/zero", "'/dev/zero': more than 1000 bytes, the most that a message may have"),
            ("-", "'-': stdin is closed"),
        ],
    )
    def test_names_a_file_that_cannot_be_the_payload(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.cli.publishing.LARGEST_PAYLOAD", 1000)
        monkeypatch.setattr("mqtt_token_client.cli.publishing.sys", SimpleNamespace(stdin=None))
        result = command("pub", "-t", "a", "-f", given)
        last = result.stderr.splitlines()[-1]
        assert (result.exit_code, last) == (2, f"Error: Invalid value for '-f' / '--file': {expected}")

    def test_makes_no_room_for_more_than_the_file_has(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, broker: Broker, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.cli.publishing.LARGEST_PAYLOAD", 1 << 50)
        (tmp_path / "payload").write_bytes(b"small")
        assert command("pub", "-t", "a", "-f", str(tmp_path / "payload")).exit_code == 0
        assert [message.payload for message in broker.messages()] == [b"small"]

    def test_reads_nothing_while_the_shell_completes_its_arguments(self, tmp_path: Path) -> None:
        (tmp_path / "stdin").write_text("for the command itself")
        words = {"_MQTT_TOKEN_COMPLETE": "bash_complete", "COMP_WORDS": "mqtt-token pub -f - --", "COMP_CWORD": "4"}
        with (tmp_path / "stdin").open("rb", buffering=0) as stdin:
            program = [sys.executable, "-m", "mqtt_token_client"]
            environment = {**os.environ, **words}
            done = subprocess.run(program, stdin=stdin, env=environment, capture_output=True, text=True, timeout=60)
            assert "--topic" in done.stdout
            assert stdin.read() == b"for the command itself"

    def test_says_so_if_stdin_cannot_be_read(self, file: Path, tmp_path: Path) -> None:
        program = [sys.executable, "-m", "mqtt_token_client", "pub", "-t", "a", "-l", "-c", str(file)]
        with (tmp_path / "output").open("wb") as output:
            done = subprocess.run(program, stdin=output, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "Error: -l: stdin: Bad file descriptor")

    def test_accepts_no_line_that_is_longer_than_a_message(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, broker: Broker
    ) -> None:
        """It would be read into memory whole: some files have no end."""
        monkeypatch.setattr("mqtt_token_client.cli.publishing.LARGEST_PAYLOAD", 10)
        result = command("pub", "-t", "a", "-l", stdin=b"x" * 10 + b"\r\nshort\n" + b"x" * 100)
        last = result.stderr.splitlines()[-1]
        expected = "Error: -l: a line has more than 10 bytes, the most that a message may have"
        assert (result.exit_code, last) == (2, expected)
        assert [message.payload for message in broker.messages()] == [b"x" * 10, b"short"]

    def test_publishes_each_line_of_stdin_and_says_how_many_were_acknowledged(
        self, command: Command, broker: Broker
    ) -> None:
        result = command("pub", "-t", "a", "-l", "--stats", stdin=b"1\r\n2\n3")
        assert result.exit_code == 0
        assert [message.payload for message in broker.messages()] == [b"1", b"2", b"3"]
        assert result.stderr.startswith("3 of 3 acknowledged, ")

    def test_publishes_a_file_or_nothing_as_often_as_asked(
        self, command: Command, broker: Broker, tmp_path: Path
    ) -> None:
        (tmp_path / "picture").write_bytes(b"\xff\x00")
        assert command("pub", "-t", "a", "-f", str(tmp_path / "picture")).exit_code == 0
        assert command("pub", "-t", "a", "-n", "--repeat", "2", "--delay", "0.001").exit_code == 0
        assert [message.payload for message in broker.messages()] == [b"\xff\x00", b"", b""]

    def test_needs_one_payload(self, command: Command) -> None:
        for given in ((), ("-m", "a", "-n")):
            result = command("pub", "-t", "a", *given)
            assert (result.exit_code, "give one of -m, -n, -l and -f" in result.stderr) == (2, True)
        assert command("pub", "-t", "a", "-n", "-U", "unit").exit_code == 2

    def test_fails_for_a_message_that_the_broker_rejects(self, command: Command, broker: Broker) -> None:
        broker.forbid("secret/#")
        result = command("pub", "-t", "secret/a", "-m", "x")
        assert result.exit_code == 4
        assert "Not authorized" in result.stderr

    def test_fails_for_a_message_that_is_not_acknowledged_in_time(
        self, command: Command, silent: ScriptedBroker, pool: ThreadPoolExecutor
    ) -> None:
        answered = pool.submit(acknowledge_nothing, silent)
        result = command("pub", "-t", "a", "-m", "x", "-W", "1", "--stats")
        assert (result.exit_code, "1 of 1 not acknowledged in time" in result.stderr) == (1, True), result.output
        assert "0 of 1 acknowledged" in result.stderr
        answered.result()

    def test_fails_if_nothing_is_acknowledged_in_time_before_the_last_line(
        self, command: Command, silent: ScriptedBroker, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mqtt_token_client.cli.publishing._MOST_UNACKNOWLEDGED", 3)
        answered = pool.submit(acknowledge_nothing, silent)
        result = command("pub", "-t", "a", "-l", "-W", "1", stdin=b"1\n2\n3\n4\n5\n")
        answered.result()
        assert (result.exit_code, "3 of 3 not acknowledged in time" in result.stderr) == (1, True), result.output

    def test_sends_each_line_where_the_device_keeps_few_messages(
        self, command: Command, file: Path, silent: ScriptedBroker, pool: ThreadPoolExecutor
    ) -> None:
        def answer() -> None:
            peer = silent.accept()
            peer.expect(CONNECT)
            peer.connack()
            for packet in peer.expect_messages(5):
                peer.acknowledge(PUBACK, packet.packet_id)
            peer.expect(DISCONNECT)
            peer.close()

        file.write_text("max_queued = 2\n" + file.read_text())
        answered = pool.submit(answer)
        result = command("pub", "-t", "a", "-l", stdin=b"1\n2\n3\n4\n5\n")
        assert result.exit_code == 0, result.output
        answered.result()


class TestBesideTheDevice:
    """The device has a journal, which one process at a time may use."""

    @pytest.fixture
    def journal(self, file: Path) -> Path:
        file.write_text('journal = "outbox"\n' + file.read_text())
        return file.parent / "outbox"

    @pytest.mark.parametrize(
        "arguments",
        [("status",), ("pub", "-t", "a", "-m", "x"), ("sub", "-t", "kept", "-C", "1", "-W", "10")],
        ids=lambda given: given[0],
    )
    def test_the_device_keeps_its_journal_for_itself(
        self, command: Command, file: Path, broker: Broker, journal: Path, arguments: tuple[str, ...]
    ) -> None:
        broker.publish("kept", "on", qos=1, retain=True)
        command("login")
        assert command(*arguments).exit_code == 0
        assert not journal.exists(), "it would be that of another client"
        with closing(open_journal(journal)) as opened, TokenClient.from_config(file, journal=opened):
            assert command(*arguments).exit_code == 0

    @pytest.mark.parametrize(("protocol", "clean", "seconds"), [(5, True, 60), (4, True, 0)])
    def test_the_session_outlives_a_rotation_and_ends_soon_after_the_command(
        self,
        command: Command,
        file: Path,
        silent: ScriptedBroker,
        pool: ThreadPoolExecutor,
        protocol: int,
        clean: bool,
        seconds: int,
    ) -> None:
        def answer() -> Packet:
            peer = silent.accept()
            connect = peer.expect(CONNECT)
            peer.connack()
            peer.acknowledge(PUBACK, peer.expect(PUBLISH).packet_id)
            peer.expect(DISCONNECT)
            peer.close()
            return connect

        file.write_text(f"protocol = {protocol}\nsession_expiry = 7200\n" + file.read_text())
        sent = pool.submit(answer)
        assert command("pub", "-t", "a", "-m", "x").exit_code == 0
        connect = sent.result()
        assert (connect.clean, connect.properties.get(SESSION_EXPIRY_INTERVAL, 0)) == (clean, seconds)


class TestWithoutALogin:
    """The device flow, and nobody has approved the device."""

    @pytest.fixture(autouse=True)
    def device(self, file: Path, server: AuthorizationServer) -> Config:
        text = file.read_text().replace("client_credentials", "device_flow").replace("client_secret_file", "#")
        file.write_text(text.replace(server.client_id, server.device_client_id))
        return read_config(file)

    def store(self, device: Config, token: Token) -> None:
        device.store.save(token_key(device), token)

    @pytest.mark.parametrize("name", ["pub", "sub", "request"])
    def test_each_command_says_that_a_person_has_to_log_in_and_asks_nobody(self, command: Command, name: str) -> None:
        result = command(name, "-t", "a", *(["-n"] if name == "pub" else []))
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == "Error: not logged in: run mqtt-token login\n"

    @pytest.mark.parametrize("name", ["pub", "sub", "request"])
    def test_so_does_a_refresh_token_that_is_rejected(self, command: Command, device: Config, name: str) -> None:
        self.store(device, Token("old", 10.0, refresh_token="not-known", since=monotonic() - 60))
        result = command(name, "-t", "a", *(["-n"] if name == "pub" else []))
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == "Error: not logged in: run mqtt-token login\n"

    @pytest.mark.parametrize("name", ["pub", "sub", "request"])
    def test_so_does_one_that_is_rejected_while_the_command_runs(
        self,
        command: Command,
        device: Config,
        silent: ScriptedBroker,
        pool: ThreadPoolExecutor,
        server: AuthorizationServer,
        name: str,
    ) -> None:
        def answer() -> None:
            peer = silent.accept()
            peer.expect(CONNECT)
            peer.connack()
            peer.packet()
            peer.disconnect(0x87)

        self.store(device, Token(log_in(server)["access_token"], 60.0, refresh_token="not-known"))
        answered = pool.submit(answer)
        result = command(name, "-t", "a", *(["-n"] if name == "pub" else []), *(["-W", "60"] * (name == "request")))
        answered.result()
        assert result.exit_code == 3, result.output
        assert result.stderr.endswith("Error: not logged in: run mqtt-token login\n")


class TestSub:
    @pytest.fixture(autouse=True)
    def retained(self, broker: Broker) -> None:
        broker.publish("a/text", "21.5", qos=1, retain=True, properties={"content_type": "text/csv"})
        broker.publish("a/bytes", b"\xff", qos=1, retain=True)

    @pytest.mark.parametrize(
        ("options", "printed"),
        [
            ([], "21.5\n"),
            (["-v"], "a/text 21.5\n"),
            (["-F", "%p %% %q %r %x"], "21.5 % 1 1 %x\n"),
            (["-F", "\udce9 %\udce9 %p"], "\udce9 %\udce9 21.5\n"),  # as Python has bytes that are not UTF-8
        ],
    )
    def test_prints_a_line_for_each_message(self, command: Command, options: list[str], printed: str) -> None:
        result = command("sub", "-t", "a/text", "-C", "1", "-W", "10", *options)
        assert result.exit_code == 0
        assert result.stdout_bytes == printed.encode(errors="surrogateescape")

    def test_prints_json(self, command: Command) -> None:
        result = command("sub", "-t", "a/+", "-C", "2", "-W", "10", "--json")
        found = {one["topic"]: one for one in map(json.loads, result.stdout.splitlines())}
        assert found["a/text"]["payload"] == "21.5"
        assert found["a/text"]["properties"] == {"content_type": "text/csv"}
        assert found["a/bytes"]["payload_base64"] == "/w=="

    def test_leaves_out_what_is_retained_and_fails_if_too_little_comes(self, command: Command) -> None:
        result = command("sub", "-t", "a/text", "-R", "-C", "1", "-W", "1")
        assert (result.exit_code, result.stdout) == (1, "")

    def test_fails_for_a_filter_that_the_broker_rejects(self, command: Command, broker: Broker) -> None:
        broker.forbid("secret/#")
        result = command("sub", "-t", "secret/a")
        assert result.exit_code != 0
        assert "the broker rejected the filter secret/a" in result.stderr


@pytest.mark.parametrize("name", ["pub", "sub", "request"])
def test_the_time_to_wait_begins_before_the_connection(
    command: Command, silent: ScriptedBroker, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    waits: list[float | None] = []

    def connect(client: TokenClient, timeout: float | None = 30.0) -> bool:
        waits.append(timeout)
        return Event().wait(timeout)

    monkeypatch.setattr(TokenClient, "connect", connect)
    began = monotonic()
    result = command(name, "-t", "a", *(["-n"] if name == "pub" else ["-C", "1"] if name == "sub" else []), "-W", "1")
    assert (result.exit_code, monotonic() - began < 10) == (1, True), result.output
    assert [round(seconds or 0, 1) for seconds in waits] == [1.0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["-C", "1"], ["-W", "5"]])
def test_messages_that_a_full_disk_cannot_take_are_an_error(file: Path, broker: Broker, arguments: list[str]) -> None:
    broker.publish("kept", "1", qos=1, retain=True)
    command = [sys.executable, "-m", "mqtt_token_client", "sub", "-t", "kept", *arguments, "-c", str(file)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    expected = "Error: stdout: No space left on device; the last messages were not printed"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, expected)


class TestPausingReader:
    """Of stdout, such as ``less``: the pipe takes part of the first message only."""

    @pytest.fixture(autouse=True)
    def large(self, broker: Broker) -> bytes:
        payload = b"x" * 1_000_000
        broker.publish("large", payload, qos=1, retain=True)
        return payload

    @pytest.fixture
    def start(self, file: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
        """``start("sub", ...)`` starts the command, and returns when something of the message has been printed."""

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "mqtt_token_client", *arguments, "-c", str(file)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0]
            return process

        with ExitStack() as stack:
            yield start

    def last_line(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """The exit code, and what it printed to stderr last."""
        code = process.wait(60)
        assert process.stderr is not None
        return code, process.stderr.read().decode().splitlines()[-1]

    def test_keeps_no_other_message_from_being_received(
        self, start: Callable[..., subprocess.Popen[bytes]], broker: Broker
    ) -> None:
        process = start("sub", "-t", "more", "-t", "large", "-C", "2", "-W", "100")
        broker.publish("more", "", qos=1)
        assert self.last_line(process) == (1, "Error: 2 of 2 messages not printed, as nobody reads stdout")

    def test_does_not_keep_the_time_from_being_over(self, start: Callable[..., subprocess.Popen[bytes]]) -> None:
        assert start("sub", "-t", "large", "-C", "2", "-W", "1").wait(60) == 1

    @pytest.mark.parametrize("arguments", [[], ["-C", "1"]], ids=["waits for messages", "waits for the reader"])
    def test_does_not_keep_ctrl_c_from_ending_it_with_the_number_of_messages_that_are_lost(
        self, start: Callable[..., subprocess.Popen[bytes]], arguments: list[str]
    ) -> None:
        process = start("sub", "-t", "large", *arguments)
        process.send_signal(signal.SIGINT)
        assert self.last_line(process) == (1, "Error: 1 of 1 messages not printed, as nobody reads stdout")

    def test_that_goes_on_gets_as_many_messages_as_it_wants_in_order(
        self, start: Callable[..., subprocess.Popen[bytes]], broker: Broker, large: bytes
    ) -> None:
        process = start("sub", "-t", "more", "-t", "large", "-C", "4")
        for number in range(10):
            broker.publish("more", str(number), qos=1)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output == large + b"\n0\n1\n2\n"

    def test_that_ends_ends_it(self, start: Callable[..., subprocess.Popen[bytes]]) -> None:
        process = start("sub", "-t", "large")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0

    def test_of_an_answer_gets_all_of_it(self, start: Callable[..., subprocess.Popen[bytes]], large: bytes) -> None:
        process = start("request", "-t", "a", "--response-topic", "large")
        assert process.communicate(timeout=60)[0] == large + b"\n"


class TestRequest:
    @pytest.fixture
    def responder(self, server: AuthorizationServer, broker: Broker) -> Iterator[None]:
        source = ClientCredentials(issuer=server.issuer, client_id=server.client_id, client_secret=server.client_secret)
        client = TokenClient(broker.url, source, client_id="responder")
        client.subscribe("state", lambda message: message.reply(b"idle: " + message.payload))
        with client:
            client.publish("ready", "", qos=1).wait(5)
            yield

    def test_prints_the_answer(self, command: Command, responder: None) -> None:
        result = command("request", "-t", "state", "-m", "pump")
        assert (result.exit_code, result.stdout) == (0, "idle: pump\n")

    def test_fails_without_an_answer(self, command: Command) -> None:
        result = command("request", "-t", "state", "--response-topic", "mine", "-W", "1")
        assert (result.exit_code, "no answer on mine within 1 s" in result.stderr) == (1, True)


class TestDoctor:
    @pytest.fixture(autouse=True)
    def little_peace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So long must no other client take the connection over."""
        monkeypatch.setattr("mqtt_token_client.cli.doctor.broker._PEACE", 0.01)

    def cause(self, command: Command) -> tuple[str, str]:
        """The step that it names as the likeliest cause, and what it saw there."""
        result = command("doctor", "--json", "--timeout", "10")
        assert result.exit_code, result.output
        cause = json.loads(result.stdout)["cause"]
        return cause["step"], cause["saw"]

    def test_goes_through_everything(self, command: Command) -> None:
        result = command("doctor")
        assert (result.exit_code, result.stdout.endswith("\nAll is well.\n")) == (0, True), result.output
        assert [line.split("  ")[0] for line in result.stdout.splitlines() if "  " in line] == [
            *("configuration", "system", "store", "authorization server", "token", "clock", "claims"),
            *("connection", "login", "publish", "subscribe"),
        ]

    def test_leaves_the_journal_of_the_device_alone(self, command: Command, file: Path, broker: Broker) -> None:
        path = file.parent / "outbox"
        file.write_text('journal = "outbox"\n' + file.read_text())
        assert command("doctor").exit_code == 0
        assert not path.exists()
        with closing(open_journal(path)) as journal:
            journal.open("pump-17", print)
            message = RecordedMessage(encode_topic("waiting"), b"21.5", 1, False, b"")
            message.number = 1
            journal.append(message)
        before = path.read_bytes()
        assert command("doctor").exit_code == 0
        assert path.read_bytes() == before
        assert {message.topic for message in broker.messages()} == {"pump-17/doctor"}

    def test_finds_no_fault_in_messages_that_wait_for_the_device(
        self, command: Command, file: Path, broker: Broker
    ) -> None:
        file.write_text("receive_maximum = 2\n" + file.read_text())
        client = TokenClient.from_config(file)
        client.subscribe("work", print)
        with client:
            client.publish("ready", "", qos=1).wait(30)
        for _ in range(3):
            broker.publish("work", "", qos=1)
        result = command("doctor", "--json", "--timeout", "5")
        assert result.exit_code == 0, result.output
        step = json.loads(result.stdout)["steps"][-1]
        assert (step["step"], step["state"]) == ("subscribe", "note")
        assert step["saw"].startswith("2 messages wait for the device, ")

    def test_needs_no_home_for_a_store_in_memory(
        self, command: Command, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        file.write_text(file.read_text().replace("file:store", "memory"))
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.delenv("STATE_DIRECTORY", raising=False)
        monkeypatch.setattr(Path, "home", no_home)
        result = command("doctor")
        assert result.exit_code == 0, result.output
        (system,) = (line for line in result.stdout.splitlines() if line.startswith("system "))
        assert system.endswith(f"MB left on the disk of {file.parent}")

    def test_says_what_to_do(self, command: Command, broker: Broker) -> None:
        broker.forbid("pump-17/doctor")
        result = command("doctor")
        assert result.exit_code == 4
        assert "What to do: allow this client to publish to pump-17/doctor" in result.stdout

    def test_names_a_file_that_is_wrong(self, command: Command, file: Path) -> None:
        file.write_text("brokr = 1")
        assert self.cause(command)[0] == "configuration"

    def test_names_a_secret_that_is_wrong(self, command: Command, file: Path) -> None:
        (file.parent / "secret").write_text("not the secret of this client")
        assert self.cause(command)[0] == "token"

    def test_names_an_authorization_server_that_does_not_answer(
        self, command: Command, file: Path, server: AuthorizationServer
    ) -> None:
        file.write_text(file.read_text().replace(server.issuer, "http://127.0.0.1:1"))
        assert self.cause(command)[0] == "authorization server"

    def test_names_a_broker_that_does_not_answer(self, command: Command, file: Path, broker: Broker) -> None:
        file.write_text(file.read_text().replace(broker.url, "mqtt://127.0.0.1:1"))
        assert self.cause(command)[0] == "connection"

    def test_names_a_broker_that_rejects_the_client(self, command: Command, broker: Broker) -> None:
        broker.reject(0x85, times=10)
        step, saw = self.cause(command)
        assert (step, "Client Identifier not valid" in saw) == ("login", True)


class TestService:
    def unit(self, *arguments: str) -> Result:
        return cli_runner().invoke(mqtt_token, ["service", *arguments])

    def test_names_what_it_runs_and_escapes_what_systemd_would_expand(self) -> None:
        result = self.unit("/opt/a b/100%.py", "-c", "/etc/pump.toml", "--name", "pump", "--python", "/usr/bin/python3")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert 'ExecStart=/usr/bin/python3 "/opt/a b/100%%.py"' in lines
        assert "Environment=MQTT_TOKEN_CONFIG=/etc/pump.toml" in lines
        assert not [line for line in lines if line.startswith("LoadCredential")]

    def test_is_named_after_its_script_and_loads_a_credential(self) -> None:
        lines = self.unit("/opt/pump.py", "-c", "pump.toml", "--credential", "pump-secret").stdout.splitlines()
        assert "Description=pump, an MQTT client with short-lived tokens" in lines
        assert "LoadCredentialEncrypted=pump-secret" in lines

    @pytest.mark.parametrize("wrong", [["--name", "a b"], ["--credential", "a/b"], ["--python", "/a\nb"]])
    def test_takes_no_name_or_path_that_a_unit_cannot_have(self, wrong: list[str]) -> None:
        assert self.unit("/opt/pump.py", "-c", "/etc/pump.toml", *wrong).exit_code == 2


def test_what_an_output_cannot_encode_is_shown_in_a_similar_way(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.BytesIO()
    with io.TextIOWrapper(output, encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        allow_any_encoding()
        stream.write("wait… 21 °C █")
        stream.flush()
        assert output.getvalue() == b"wait. 21 ?C #"
