"""``mqtt-token login``, ``status``, ``token`` and ``logout`` with a scripted server; with a real one in
tests/integration/test_login_command.py.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import Result
from cryptography.fernet import Fernet

from devtools.servers.secret_check import remember_secret
from mqtt_token_client.cli import waiting
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.clock import monotonic
from mqtt_token_client.config import read_config
from mqtt_token_client.stores.folder import replace
from mqtt_token_client.token import Token
from tests.unit.command_line import cli_runner
from tests.unit.oauth_server import OAuthServer, answer, token_answer

SECRET = "the secret of the client of the command"
CLAIMS = {"sub": "pump\x1b[31m-17", "iss": "https://id.example.com", "aud": "plant", "scope": "read write"}


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


class Command:
    """The command with a file of its own."""

    def __init__(self, folder: Path, server: OAuthServer) -> None:
        remember_secret(SECRET)
        (folder / "secret").write_text(SECRET)
        self.file = folder / "device.toml"
        self.server = server
        self.text = f"""
            store = "file:store"
            [source]
            type = "client_credentials"
            issuer = "{server.origin}"
            client_id = "pump-17"
            client_secret_file = "secret"
        """
        self.file.write_text(self.text)
        self.offer()

    def offer(self, **more: str) -> None:
        metadata = {"issuer": self.server.origin, "token_endpoint": self.server.token_endpoint, **more}
        self.server.pages["/.well-known/openid-configuration"] = answer(metadata)

    def __call__(self, *arguments: str) -> Result:
        return cli_runner().invoke(mqtt_token, [arguments[0], "-c", str(self.file), *arguments[1:]])

    def stored(self) -> Token | None:
        config = read_config(self.file)
        return config.store.load(config.source.key)  # type: ignore[attr-defined]  # ours has one

    def make_due(self, value: str) -> None:
        """Store a token in the last tenth of its life."""
        config = read_config(self.file)
        token = Token(value, 100.0, since=monotonic() - 90)
        config.store.save(config.source.key, token)  # type: ignore[attr-defined]  # ours has one

    def token_requests(self) -> int:
        return sum(request.path == "/token" for request in self.server.requests)


@pytest.fixture
def command(tmp_path: Path, server: OAuthServer) -> Command:
    return Command(tmp_path, server)


@pytest.fixture
def device(command: Command) -> Command:
    """A device that a person has approved, whose token has expired."""
    text = command.text.replace("client_credentials", "device_flow").replace("client_secret_file", "#")
    command.file.write_text(text)
    command.offer(device_authorization_endpoint=f"{command.server.origin}/device")
    command.server.pages["/device"] = answer(
        {
            "device_code": "the-device-code",
            "user_code": "ABCD-EFGH",
            "verification_uri": "https://id.example.com/device",
            "expires_in": 600,
            "interval": 0.01,
        }
    )
    config = read_config(command.file)
    expired = Token("old", 10.0, refresh_token="refresh-1", since=monotonic() - 60)
    config.store.save(config.source.key, expired)  # type: ignore[attr-defined]  # ours has one
    return command


def issue(command: Command, value: str | None = None, **more: Any) -> str:
    value = value or jwt.encode(CLAIMS, "k" * 32, "HS256")
    remember_secret(value)
    command.server.pages["/token"] = token_answer(value, **more)
    return value


def unsigned(claims: dict[str, Any]) -> str:
    """A JWT with claims that PyJWT would not sign."""
    return f"e30.{urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def _entries(entries: dict[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in entries.items())


def full_for(monkeypatch: pytest.MonkeyPatch, attempts: int) -> list[float]:
    """Have so many attempts to store a token fail; return the waits between them."""
    failures, waits = [OSError(28, "No space left on device")] * attempts, list[float]()

    def replace_if_room(*names: Any) -> None:
        if failures:
            raise failures.pop()
        replace(*names)

    monkeypatch.setattr("mqtt_token_client.stores.file.replace", replace_if_room)
    monkeypatch.setattr("mqtt_token_client.cli.waiting.sleep", waits.append)
    return waits


class TestLogin:
    def test_stores_a_token_and_says_whose_it_is_and_where(self, command: Command) -> None:
        value = issue(command)
        done = command("login")
        assert done.exit_code == 0
        assert done.stdout == ""
        assert "Logged in as pump[31m-17. Token: valid for 60 min. Stored in encrypted files in " in done.stderr
        assert command.stored() == Token(value)

    def test_asks_no_server_while_there_is_a_valid_token(self, command: Command) -> None:
        issue(command)
        command("login")
        assert command("login").exit_code == 0
        assert command.token_requests() == 1

    def test_again_gets_a_new_one_all_the_same(self, command: Command) -> None:
        issue(command)
        command("login")
        value = issue(command, "another-token")
        assert command("login", "--again").exit_code == 0
        assert command.stored() == Token(value)

    @pytest.mark.parametrize("arguments", [["login"], ["login", "--again"], ["token"]])
    def test_that_cannot_store_fails(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
    ) -> None:
        waits = full_for(monkeypatch, attempts=99)
        issue(command, refresh_token="refresh-1")
        done = command(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "No space left on device" in done.stderr
        assert 2 < sum(waits) < 10

    def test_that_cannot_store_does_not_wait_if_it_can_get_another_token(
        self, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits = full_for(monkeypatch, attempts=99)
        issue(command)
        assert command("token").exit_code == 1
        assert waits == []

    @pytest.mark.parametrize("arguments", [["login"], ["login", "--again"], ["token"]])
    def test_stores_the_token_once_the_store_works_again(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
    ) -> None:
        """Its refresh token would be lost, and that of the stored one is used up."""
        full_for(monkeypatch, attempts=2)
        value = issue(command, refresh_token="refresh-1")
        assert command(*arguments).exit_code == 0
        assert command.stored() == Token(value)


_ENDED_WHILE_IT_STORES = """
import atexit, os, signal, sys, threading
from mqtt_token_client.cli import main, waiting
from mqtt_token_client.stores import file
from mqtt_token_client.tokens import exit_guard

waiting._SAVE_AGAIN = (0.0, 0.0, 0.0)
number, noticed, replace, failed = signal.Signals[sys.argv.pop(1)], threading.Event(), file.replace, []
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(noticed.set)  # what is registered last is called first

def handle_and_tell(*arguments, handle=exit_guard._end_when_released):
    handle(*arguments)
    noticed.set()

def fail_twice(*names):
    if len(failed) < 2:
        if not failed:
            os.kill(os.getpid(), number)
            noticed.wait()
        failed.append(names)
        raise OSError(28, "No space left on device")
    replace(*names)

exit_guard._end_when_released, file.replace = handle_and_tell, fail_twice
main()
"""


@pytest.mark.parametrize("arguments", [["login"], ["login", "--again"], ["token"]], ids=" ".join)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_command_once_the_store_that_had_failed_has_the_new_refresh_token(
    device: Command, name: str, arguments: list[str]
) -> None:
    device.server.pages["/token"] = token_answer("new", refresh_token="next")
    program = [sys.executable, "-c", _ENDED_WHILE_IT_STORES, name, *arguments, "-c", str(device.file)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == (1 if name == "SIGINT" else -signal.SIGTERM), done.stderr
    stored = device.stored()
    assert stored is not None
    assert (stored.value, stored.refresh_token) == ("new", "next")


class TestStatus:
    def test_tells_in_json_what_a_script_needs(self, command: Command) -> None:
        issue(command)
        command("login")
        done = command("status", "--json")
        found = json.loads(done.stdout)
        assert done.exit_code == 0
        assert 3500 < found.pop("expires_in") <= 3600
        assert found.pop("stored_in").startswith("encrypted files in ")
        assert found == {
            "subject": CLAIMS["sub"],
            "issuer": CLAIMS["iss"],
            "audience": ["plant"],
            "scopes": ["read", "write"],
            "valid": True,
            "renewable": True,
            "rejected": None,
        }

    def test_tells_a_person_the_same_without_the_token_and_what_steers_a_terminal(self, command: Command) -> None:
        value = issue(command)
        command("login")
        shown = command("status").stdout
        assert "subject    pump[31m-17\n" in shown
        assert "token      valid for 60 min\n" in shown
        assert "renewal    automatic\n" in shown
        assert value not in shown

    @pytest.mark.parametrize("audience", [[1, 2], 5, {"a": "b"}, [None]], ids=repr)
    def test_of_claims_that_make_no_sense_shows_them_as_they_are(self, command: Command, audience: object) -> None:
        issue(command, unsigned({**CLAIMS, "aud": audience, "exp": 10**400}))
        command("login")
        done = command("status")
        assert done.exit_code == 0
        assert json.loads(command("status", "--json").stdout)["audience"] == audience

    def test_changes_nothing_of_a_token_that_is_damaged(self, command: Command, tmp_path: Path) -> None:
        issue(command)
        command("login")
        (file,) = (tmp_path / "store").glob("*.token")
        file.write_bytes(content := file.read_bytes()[:-9])
        before = {path.name for path in file.parent.iterdir()}
        done = command("status")
        assert done.exit_code == 1
        assert "is damaged" in done.stderr
        assert (file.read_bytes(), {path.name for path in file.parent.iterdir()}) == (content, before)
        assert command("login").exit_code == 0
        assert command("status").exit_code == 0

    def test_without_a_token_says_so(self, command: Command) -> None:
        done = command("status")
        assert "token      none\n" in done.stdout
        assert done.exit_code == 0, "it gets one by itself"

    def test_of_a_device_flow_without_a_token_exits_with_3(self, command: Command) -> None:
        text = command.text.replace("client_credentials", "device_flow").replace("client_secret_file", "#")
        command.file.write_text(text)
        done = command("status")
        assert "renewal    a person has to log in\n" in done.stdout
        assert done.exit_code == 3

    @pytest.mark.parametrize(
        ("entries", "expected"),
        [
            ('broker = "mqtts://"', "broker must be "),
            ('broker = "mqtt://broker.example.com"', "broker: "),
            ('profile = "magic"', "profile must be one of password"),
            ("protocol = 3", "protocol must be 5, or 4 for MQTT 3.1.1, got 3"),
            ('keepalive = "1"', "keepalive must be a whole number"),
        ],
    )
    def test_checks_what_the_file_says_of_mqtt(self, command: Command, entries: str, expected: str) -> None:
        whole = {"client_id": '"pump-17"', "broker": '"mqtts://broker.example.com"'}
        command.file.write_text(_entries(whole) + command.text)
        assert command("status").exit_code == 0
        name, _, value = entries.partition(" = ")
        command.file.write_text(_entries({**whole, name: value}) + command.text)
        done = command("status")
        assert done.exit_code == 2
        assert f"device.toml: {expected}" in done.stderr
        done = command("doctor", "--json")
        assert done.exit_code == 2
        assert f"device.toml: {expected}" in json.loads(done.stdout)["cause"]["saw"]
        assert command.token_requests() == 0

    @pytest.mark.parametrize("name", ["broker", "client_id"])
    def test_misses_a_broker_and_an_identifier_where_the_file_is_for_mqtt(self, command: Command, name: str) -> None:
        entries = {"client_id": '"pump-17"', "broker": '"mqtts://broker.example.com"', "protocol": "5"}
        del entries[name]
        command.file.write_text(_entries(entries) + command.text)
        done = command("status")
        assert done.exit_code == 2
        assert f"device.toml: {name}: this entry is missing" in done.stderr
        done = command("doctor", "--json")
        assert done.exit_code == 2
        assert f"device.toml: {name}: this entry is missing" in json.loads(done.stdout)["cause"]["saw"]


class TestToken:
    def test_is_printed_and_nothing_else(self, command: Command) -> None:
        value = issue(command)
        done = command("token")
        assert (done.exit_code, done.stdout, done.stderr) == (0, f"{value}\n", "")

    def test_that_is_due_is_renewed_first(self, command: Command) -> None:
        issue(command, "the-old-token")
        command("login")
        command.make_due("the-old-token")
        value = issue(command, "the-new-token")
        assert command("token").stdout == f"{value}\n"

    def test_that_cannot_be_renewed_is_printed_while_it_lives(self, command: Command) -> None:
        issue(command, "the-old-token")
        command("login")
        command.make_due("the-old-token")
        command.server.pages["/token"] = answer(b"out of order", 503)
        done = command("token")
        assert (done.exit_code, done.stdout) == (0, "the-old-token\n")
        assert "HTTP 503" in done.stderr

    @pytest.mark.parametrize(
        ("page", "code", "expected"),
        [
            (answer(b"out of order", 503), 1, "HTTP 503"),
            (answer({"error": "invalid_client"}, 401), 4, "invalid_client"),
            (answer({"error": "invalid_grant"}, 400), 4, "invalid_grant"),
            (answer({"error": "access_denied"}, 403), 4, "access_denied"),
        ],
    )
    def test_that_cannot_be_had_is_an_error_with_an_exit_code_of_its_kind(
        self, command: Command, page: bytes, code: int, expected: str
    ) -> None:
        command.server.pages["/token"] = page
        done = command("token")
        assert (done.exit_code, done.stdout) == (code, "")
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1, "it is said once"
        assert SECRET not in done.stderr


class TestRejectedRenewal:
    """Dex rejects an expired refresh token with invalid_request."""

    @pytest.fixture
    def device(self, device: Command) -> Command:
        self.reject(device)
        return device

    def reject(self, command: Command, error: str = "invalid_request") -> None:
        """Reject each refresh token, and accept each device code."""
        refused = answer({"error": error, "error_description": "Refresh token expired"}, 400)

        def send(connection: socket.socket, _closing: threading.Event) -> None:
            refresh = ("grant_type", "refresh_token") in command.server.requests[-1].form
            connection.sendall(refused if refresh else token_answer("approved", refresh_token="next"))

        command.server.pages["/token"] = send

    @pytest.mark.parametrize("error", ["invalid_request", "unauthorized_client", "invalid_grant"])
    def test_has_login_ask_the_person(self, device: Command, error: str) -> None:
        self.reject(device, error)
        done = device("login")
        assert done.exit_code == 0, done.stderr
        assert "ABCD-EFGH" in done.stderr
        assert device.stored() == Token("approved")

    def test_has_login_ask_the_person_at_once_where_the_store_cannot_be_read(
        self, device: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wait(_seconds: float) -> None:
            pytest.fail("waits for the store")

        monkeypatch.setattr("mqtt_token_client.stores.guarded.sleep", wait)
        (file,) = (device.file.parent / "store").glob("*.token")
        file.write_bytes(file.read_bytes()[:-9])
        done = device("login")
        assert done.exit_code == 0, done.stderr
        assert "is damaged" in done.stderr
        assert "ABCD-EFGH" in done.stderr
        assert device.stored() == Token("approved")

    def test_is_what_status_shows_until_the_next_login(self, device: Command) -> None:
        assert device("status").exit_code == 0
        assert device("token").exit_code == 4
        shown, found = device("status"), json.loads(device("status", "--json").stdout)
        assert shown.exit_code == 3
        assert "renewal    a person has to log in; the server rejected the last one: http" in shown.stdout
        assert "invalid_request (Refresh token expired)\n" in shown.stdout
        assert (found["renewable"], "Refresh token expired" in found["rejected"]) == (False, True)
        device("login")
        assert device("status").exit_code == 0
        assert json.loads(device("status", "--json").stdout)["rejected"] is None

    def test_again_makes_the_command_say_that_a_person_has_to_log_in(self, device: Command) -> None:
        assert [device("token").exit_code for _ in range(3)] == [4, 3, 3]

    def test_is_shown_by_status_as_by_token(self, device: Command) -> None:
        self.reject(device, "invalid_grant")
        assert [device("token").exit_code for _ in range(2)] == [3, 3]
        assert device("status").exit_code == 3

    def test_that_is_accepted_again_costs_no_login(self, device: Command) -> None:
        """What the server said may have been a fault of its own."""
        self.reject(device, "invalid_grant")
        assert device("token").exit_code == 3
        device.server.pages["/token"] = token_answer("renewed", refresh_token="next")
        assert device("token").stdout == "renewed\n"
        assert device("status").exit_code == 0


class TestMissingKey:
    """The command is run by hand, in the folder of a service, without the service's credential."""

    @pytest.mark.parametrize("subcommand", ["status", "token", "login"])
    def test_is_named_and_the_service_loses_nothing(
        self, command: Command, subcommand: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        credentials = tmp_path / "credentials"
        credentials.mkdir()
        (credentials / "mqtt-token-client.key").write_bytes(Fernet.generate_key())
        value = issue(command)
        with monkeypatch.context() as service:
            service.setenv("CREDENTIALS_DIRECTORY", str(credentials))
            command("login")
        before = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
        done = command(subcommand)
        assert (done.exit_code, done.stdout) == (4, "")
        assert "written with the systemd credential mqtt-token-client.key of a service" in done.stderr
        assert {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before
        assert command.token_requests() == 1
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
        assert command("token").stdout == f"{value}\n"

    def test_lets_the_token_be_deleted(self, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mqtt-token-client.key").write_bytes(Fernet.generate_key())
        issue(command)
        with monkeypatch.context() as service:
            service.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
            command("login")
        done = command("logout", "--local")
        assert done.exit_code == 0
        assert "Not revoked: store: " in done.stderr
        assert command("login").exit_code == 0


class TestWaiting:
    @pytest.mark.parametrize("subcommand", ["token", "login", "logout"])
    def test_for_another_who_holds_the_lock_is_told(
        self, command: Command, subcommand: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = threading.Event()

        def tell(tell: Callable[[], None] = waiting._print_notice) -> None:
            tell()
            expected.set()

        monkeypatch.setattr(waiting, "_NOTICE_AFTER", 0.01)
        monkeypatch.setattr(waiting, "_print_notice", tell)
        issue(command)
        config, holding = read_config(command.file), threading.Event()

        def hold() -> None:
            with config.store.lock(config.source.key):  # type: ignore[attr-defined]  # ours have both
                holding.set()
                expected.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        holding.wait(30)
        done = command(subcommand)
        holder.join()
        assert done.exit_code == 0
        assert done.stderr.startswith("mqtt-token: waiting for another login or renewal of this token …\n")

    def test_for_nobody_is_not(self, command: Command) -> None:
        issue(command)
        assert "waiting" not in command("login").stderr


class TestLogout:
    def test_revokes_and_forgets(self, command: Command) -> None:
        command.offer(revocation_endpoint=f"{command.server.origin}/revoke")
        command.server.pages["/revoke"] = answer(b"")
        value = issue(command)
        command("login")
        done = command("logout")
        assert (done.exit_code, done.stderr) == (0, "Deleted, and revoked at the server.\n")
        assert ("token", value) in command.server.requests[-1].form
        assert command.stored() is None

    def test_says_so_where_the_server_revokes_nothing(self, command: Command) -> None:
        issue(command)
        command("login")
        done = command("logout")
        assert (done.exit_code, done.stderr) == (0, "Deleted; it was not revoked.\n")

    def test_keeps_what_could_not_be_revoked_unless_told_to_forget_it_here(self, command: Command) -> None:
        command.offer(revocation_endpoint=f"{command.server.origin}/revoke")
        command.server.pages["/revoke"] = answer(b"", 503)
        issue(command)
        command("login")
        done = command("logout")
        assert done.exit_code == 1
        assert "--local deletes it here only" in done.stderr
        assert command.stored() is not None
        assert command("logout", "--local").exit_code == 0
        assert command.stored() is None

    def test_without_a_token_is_no_error(self, command: Command) -> None:
        done = command("logout")
        assert (done.exit_code, done.stderr) == (0, "No token was stored.\n")


class TestConfiguration:
    def test_that_keeps_nothing_is_refused(self, command: Command) -> None:
        command.file.write_text(command.text.replace("file:store", "memory"))
        done = command("token")
        assert done.exit_code == 2
        assert "store must not be memory" in done.stderr

    def test_that_is_not_there_is_named(self, command: Command) -> None:
        command.file.unlink()
        done = command("status")
        assert done.exit_code == 2
        assert "device.toml: No such file or directory" in done.stderr
