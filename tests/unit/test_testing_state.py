"""What the embedded authorization server remembers after a restart, and a device that is not asked to log in again."""

from __future__ import annotations

import contextlib
import shlex
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.servers.secret_check import remember_secret
from mqtt_token_client import DeviceFlow, FileStore, TokenClient, TokenKeeper
from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.testing import AuthorizationServer
from tests.unit.device_login import Answer, claims, device_flow, log_in, open_page, post, refresh
from tests.unit.embedded import ask

_EXAMPLES = Path(__file__).parents[2] / "examples"


def test_with_state_everything_that_was_issued_is_good_after_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with AuthorizationServer(60, state=state) as before:
        remember_secret(before.client_secret)
        token = log_in(before, "alice", scope="a")
    with AuthorizationServer(60, state=str(state)) as after:
        assert after.jwks == before.jwks
        assert ask(after, before.client_secret).status_code == 200
        renewed = refresh(after, token["refresh_token"])
    assert (claims(renewed["access_token"])["sub"], renewed["scope"]) == ("alice", "a")


def test_a_refresh_token_that_was_used_or_revoked_before_a_restart_is_not_good_after_it(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with AuthorizationServer(state=state) as server:
        used, revoked = log_in(server)["refresh_token"], log_in(server)["refresh_token"]
        last = refresh(server, used)["refresh_token"]
        post(server, "revoke", token=revoked)
    with AuthorizationServer(state=state) as server:
        answers = [refresh(server, token).get("error") for token in (revoked, used, last)]
    assert answers == ["invalid_grant"] * 3


def test_without_state_another_server_knows_nothing_of_the_first() -> None:
    with AuthorizationServer() as before:
        token = log_in(before)["refresh_token"]
    with AuthorizationServer() as after:
        assert refresh(after, token)["error"] == "invalid_grant"
    assert after.jwks != before.jwks
    assert after.client_secret != before.client_secret


def test_a_client_secret_that_is_given_replaces_the_one_in_the_state(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    AuthorizationServer(state=state)
    AuthorizationServer(state=state, client_secret="a secret that was given")
    assert AuthorizationServer(state=state).client_secret == "a secret that was given"


def test_the_state_is_for_its_owner_only_and_holds_no_refresh_token(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with AuthorizationServer(state=state) as server:
        token = log_in(server)["refresh_token"]
        token = refresh(server, token)["refresh_token"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert token not in state.read_text()
    assert list(tmp_path.iterdir()) == [state]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"keys": {"keys": []}}', '{"keys": "the secret"}'])
def test_a_file_without_a_state_is_left_alone_and_not_quoted(tmp_path: Path, content: str) -> None:
    state = tmp_path / "state.json"
    state.write_text(content)
    with pytest.raises(ConfigurationError, match=r"state: .*delete it") as caught:
        AuthorizationServer(state=state)
    assert state.read_text() == content
    assert "the secret" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_state_that_cannot_be_kept_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"state: .*No such file"):
        AuthorizationServer(state=tmp_path / "no folder" / "state.json")
    with pytest.raises(ConfigurationError, match=r"state: .*directory"):
        AuthorizationServer(state=tmp_path)


def test_a_refresh_token_stays_good_if_its_successor_cannot_be_kept(tmp_path: Path) -> None:
    state = tmp_path / "folder" / "state.json"
    state.parent.mkdir()
    with AuthorizationServer(state=state) as server:
        token = log_in(server)["refresh_token"]
        aside = state.parent.rename(tmp_path / "aside")
        assert post(server, "token", grant_type="refresh_token", refresh_token=token).status_code == 500
        aside.rename(state.parent)
        assert "access_token" in refresh(server, token)


def test_nobody_is_asked_again_after_server_and_device_have_been_restarted(tmp_path: Path) -> None:
    state, store = tmp_path / "state.json", tmp_path / "store"
    with AuthorizationServer(60, interval=0.05, state=state) as server:
        port = int(server.issuer.rpartition(":")[2])
        TokenKeeper(device_flow(server, lambda login: server.approve(login.user_code)), FileStore(store)).token  # noqa: B018 - it is fetched
    for _ in range(2):
        with AuthorizationServer(60, interval=0.05, state=state, port=port) as server:
            refused_if_asked = device_flow(server, lambda login: server.deny(login.user_code))
            assert TokenKeeper(refused_if_asked, FileStore(store)).renew().expires_in > 0


# The examples


@contextlib.contextmanager
def example_servers(state: Path, *ports: int) -> Iterator[tuple[dict[str, str], Answer]]:
    """``examples/servers.py``: the environment that it says to set, and the file that it wrote."""
    broker, issuer = ports or (0, 0)
    command = [
        sys.executable,
        "-W",
        "error::ResourceWarning",
        str(_EXAMPLES / "servers.py"),
        "--state",
        str(state),
        "--lifetime",
        "60",
    ]
    command += ["--broker-port", str(broker), "--issuer-port", str(issuer)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            environment: dict[str, str] = {}
            assert process.stdout is not None
            for line in process.stdout:
                name_and_value = [word.partition("=") for word in shlex.split(line, comments=True)[1:]]
                environment.update((name, value) for name, _, value in name_and_value)
                if "OAUTH_CLIENT_SECRET" in environment:
                    remember_secret(environment["OAUTH_CLIENT_SECRET"])
                    break
            yield environment, tomllib.loads(Path(environment["MQTT_TOKEN_CONFIG"]).read_text())
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
    assert (errors, process.returncode) == ("", 0)


def test_the_servers_of_the_examples_know_a_device_again_after_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    with example_servers(folder) as (environment, config):
        first_secret = environment["OAUTH_CLIENT_SECRET"]
        assert (config["broker"], config["source"]["issuer"]) == (
            environment["MQTT_BROKER"],
            environment["OAUTH_ISSUER"],
        )
        ports = [int(url.rpartition(":")[2]) for url in (config["broker"], config["source"]["issuer"])]
        source = DeviceFlow(
            issuer=config["source"]["issuer"],
            client_id=config["source"]["client_id"],
            prompt=lambda login: open_page(str(login.verification_uri_complete)).send(decision="approve"),
        )
        TokenKeeper(source, FileStore(config["store"].removeprefix("file:"))).token  # noqa: B018 - it is fetched
    with example_servers(folder, *ports) as (environment, _):
        assert environment["OAUTH_CLIENT_SECRET"] == first_secret
        with TokenClient.from_config(folder / "mqtt-token.toml") as client:
            client.publish("t", "x", qos=1).wait(10)
            client.rotate()
            client.publish("t", "x", qos=1).wait(10)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
