"""mqtt-token pub, sub and request, as a shell uses them, on a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import IO

import pytest

from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.processes import wait_until
from mqtt_token_client import ClientCredentials, Message, TokenClient

Command = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def command(tmp_path: Path, oidc: AuthorizationServer, mosquitto: Mosquitto) -> Iterator[Command]:
    """``command("pub", …)`` starts the command with the file of a device."""
    secret = tmp_path / "secret"
    secret.write_text(oidc.client_secret)
    secret.chmod(0o600)
    (tmp_path / "mqtt-token.toml").write_text(f"""\
broker = "mqtt://127.0.0.1:{mosquitto.port}"
client_id = "pump-17"
store = "file:store"
[source]
type = "client_credentials"
issuer = "{oidc.issuer}"
client_id = "{oidc.client_id}"
client_secret_file = "secret"
""")

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "mqtt_token_client", *arguments],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return started.enter_context(process)

    with ExitStack() as started:
        yield start


def subscribed(mosquitto: Mosquitto, topic: str) -> None:
    wait_until(lambda: mosquitto.count(rf"{topic} \(QoS") > 0, f"a subscription to {topic}")


def line(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    return stream.readline().rstrip(b"\n")


def test_lines_of_stdin_arrive_in_order_as_lines_of_stdout(command: Command, mosquitto: Mosquitto) -> None:
    numbers = [b"%d" % number for number in range(3000)]  # more than may be unacknowledged at once
    sub = command("sub", "-t", "lines/+", "-C", "3000", "-W", "60")
    subscribed(mosquitto, r"lines/\+")
    pub = command("pub", "-t", "lines/a", "-l", "--stats")
    _, said = pub.communicate(b"\n".join(numbers), timeout=60)
    received, error = sub.communicate(timeout=60)
    assert (pub.returncode, sub.returncode) == (0, 0), said + error
    assert said.startswith(b"3000 of 3000 acknowledged, ") or b"\n3000 of 3000 acknowledged, " in said
    assert received.splitlines() == numbers


def test_nothing_is_lost_while_the_tokens_of_both_rotate(
    command: Command, mosquitto: Mosquitto, oidc: AuthorizationServer
) -> None:
    oidc.config(at=5)
    sub = command("sub", "-t", "rotated", "-W", "60")
    subscribed(mosquitto, "rotated")
    pub = command("pub", "-t", "rotated", "-l")
    assert pub.stdin is not None
    numbers = [b"%d" % number for number in range(2000)]
    for number in numbers:
        pub.stdin.write(number + b"\n")
        pub.stdin.flush()
        time.sleep(0.003)
    pub.stdin.close()
    assert pub.wait(30) == 0
    received = list(takewhile(bool, iter(lambda: line(sub.stdout), numbers[-1])))
    sub.terminate()
    assert list(dict.fromkeys(received)) == numbers[:-1]  # one of QoS 1 may come twice
    assert oidc.token_requests() >= 2


def test_a_file_and_properties_arrive_as_they_are(command: Command, mosquitto: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\xff\x00\xfe")
    sub = command("sub", "-t", "file", "-C", "1", "-W", "30", "--json")
    subscribed(mosquitto, "file")
    sent = command("pub", "-t", "file", "-f", "picture", "-P", "content_type=image/x", "-U", "a=b", "-U", "a=c=d")
    assert sent.wait(30) == 0
    message = json.loads(line(sub.stdout))
    assert message["payload_base64"] == "/wD+"
    assert message["properties"] == {"content_type": "image/x", "user_property": [["a", "b"], ["a", "c=d"]]}
    assert sub.wait(30) == 0


def test_the_format_says_what_is_printed(command: Command, mosquitto: Mosquitto) -> None:
    sub = command("sub", "-t", "format", "-C", "1", "-W", "30", "-F", "%t|%q|%r|%p|100 %%|%x")
    subscribed(mosquitto, "format")
    assert command("pub", "-t", "format", "-m", "%p", "-q", "2").wait(30) == 0
    assert line(sub.stdout) == b"format|1|0|%p|100 %|%x"


def test_a_retained_message_is_kept_and_deleted(command: Command) -> None:
    assert command("pub", "-t", "kept", "-m", "on", "-r").wait(30) == 0
    assert command("sub", "-t", "kept", "-C", "1", "-W", "30").communicate(timeout=30)[0] == b"on\n"
    assert command("sub", "-t", "kept", "-C", "1", "-W", "1", "-R").wait(30) == 1
    assert command("pub", "-t", "kept", "-n", "-r").wait(30) == 0
    assert command("sub", "-t", "kept", "-C", "1", "-W", "1").wait(30) == 1


def test_a_request_prints_its_answer(command: Command, mosquitto: Mosquitto, oidc: AuthorizationServer) -> None:
    source = ClientCredentials(issuer=oidc.issuer, client_id=oidc.client_id, client_secret=oidc.client_secret)
    with TokenClient(f"mqtt://127.0.0.1:{mosquitto.port}", source, client_id="answers") as client:

        def answer(message: Message) -> None:
            correlation = {"correlation_data": message.properties["correlation_data"]}
            client.publish(message.properties["response_topic"], b"21.5", qos=1, properties=correlation)

        client.subscribe("question", answer)
        subscribed(mosquitto, "question")
        asked = command("request", "-t", "question", "-m", "temperature?")
        assert (asked.communicate(timeout=30)[0], asked.returncode) == (b"21.5\n", 0)


def test_a_request_that_nobody_answers_fails_in_time(command: Command) -> None:
    asked = command("request", "-t", "nobody", "-W", "1")
    _, error = asked.communicate(timeout=30)
    assert (asked.returncode, b"no answer on nobody/response/" in error) == (1, True)


def test_the_devices_own_session_is_left_alone(
    command: Command, mosquitto: Mosquitto, oidc: AuthorizationServer
) -> None:
    source = ClientCredentials(issuer=oidc.issuer, client_id=oidc.client_id, client_secret=oidc.client_secret)
    lost = threading.Event()
    with TokenClient(
        f"mqtt://127.0.0.1:{mosquitto.port}",
        source,
        client_id="pump-17",
        on_event=lambda event: lost.set() if type(event).__name__ == "Disconnected" else None,
    ):
        assert command("pub", "-t", "beside", "-m", "x").wait(30) == 0
    assert not lost.is_set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "x", "-l"), b"give one of -m, -n, -l and -f"),
        ((), b"give one of -m, -n, -l and -f"),
        (("-m", "x", "-P", "content_type"), b"--property must be NAME=VALUE"),
        (("-m", "x", "-P", "colour=red"), b"'colour' is not a property of MQTT 5"),
    ],
)
def test_a_wrong_option_is_named(command: Command, arguments: tuple[str, ...], message: bytes) -> None:
    done = command("pub", "-t", "x", *arguments)
    _, error = done.communicate(timeout=30)
    assert (done.returncode, message in error) == (2, True), error
