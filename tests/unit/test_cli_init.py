"""mqtt-token init: the file that it writes, what it asks for, and what it says about an option that is missing."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mqtt_token_client.cli import init as init_module
from mqtt_token_client.cli.commands import mqtt_token
from mqtt_token_client.cli.device_file import Answers, render
from mqtt_token_client.cli.providers import GRANTS, PROVIDERS
from mqtt_token_client.config import read_config
from mqtt_token_client.testing import AuthorizationServer, Broker
from mqtt_token_client.testing.plugin import broker, idp  # noqa: F401 - as fixtures
from tests.unit.command_line import cli_runner

SECRET = "a secret of the client"
PLANT = ("--broker", "mqtts://broker.example.com", "-i", "pump-17")
KEYCLOAK = (*PLANT, "--provider", "keycloak", "--issuer", "https://id.example.com/realms/plant", "--store", "memory")
Init = Callable[..., Result]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    """``init(*options)`` runs the command in an empty folder, without doctor."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MQTT_TOKEN_CONFIG", raising=False)
    monkeypatch.setenv("MQTT_TOKEN_CLIENT_SECRET", SECRET)

    def run(*options: str, answers: str | None = None, check: bool = False) -> Result:
        if answers is not None:
            monkeypatch.setattr(init_module, "_is_terminal", lambda: True)
        return cli_runner().invoke(
            mqtt_token, ["init", *options, *([] if check else ["--no-check"])], input=answers or ""
        )

    return run


def written(name: str = "mqtt-token.toml") -> dict[str, Any]:
    return tomllib.loads(Path(name).read_text())


GRANTED = [(name, grant) for name in PROVIDERS for grant in GRANTS if grant in PROVIDERS[name].scopes]


@pytest.mark.parametrize("store", ["auto", "keyring", "file", "file:tokens", "memory"])
@pytest.mark.parametrize(("provider", "grant"), GRANTED)
def test_each_provider_with_each_grant_and_store_makes_a_file_that_the_library_reads(
    provider: str, grant: str, store: str, tmp_path: Path
) -> None:
    known = PROVIDERS[provider]
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "secret").write_text(SECRET)
    secret_file = "secret" if grant == "client_credentials" else ""
    answers = Answers(
        *("mqtts://broker.example.com", "pump-17", "password", known, known.issuer, grant, "pumps", known.audience),
        *(known.scopes[grant].text, store, secret_file, "", False),
    )
    file = tmp_path / "mqtt-token.toml"
    file.write_text(render(answers))
    config = read_config(file)
    assert config.client == {"broker": "mqtts://broker.example.com", "client_id": "pump-17"}
    assert (
        type(config.source).__name__ == {"client_credentials": "ClientCredentials", "device_flow": "DeviceFlow"}[grant]
    )
    if store != "auto":
        assert type(config.store).__name__.lower().startswith(store.partition(":")[0])


@pytest.mark.parametrize(("provider", "grant"), GRANTED)
def test_the_command_writes_the_file_of_each_provider(init: Init, provider: str, grant: str) -> None:
    known = PROVIDERS[provider]
    options = [*PLANT, "--provider", provider, "--issuer", known.issuer, "--grant", grant, "--store", "memory"]
    if known.scopes[grant].own:
        options += ["--scope", known.scopes[grant].text]
    if known.audience:
        options += ["--audience", known.audience]
    result = init(*options)
    assert result.exit_code == 0, result.output
    source = written()["source"]
    assert (source["type"], source["issuer"], source["client_id"]) == (grant, known.issuer, "pump-17")
    assert source.get("scope", "") == known.scopes[grant].text
    assert source.get("audience", "") == known.audience
    assert ("client_secret_file" in source) == (grant == "client_credentials")


def test_the_file_explains_itself_within_80_columns(init: Init) -> None:
    init(*KEYCLOAK)
    text = Path("mqtt-token.toml").read_text()
    assert max(len(line) for line in text.splitlines() if "https://github.com" not in line) <= 80
    assert "# Keycloak: The token is a JWT. Its audience comes from a mapper of the type\n" in text
    assert SECRET not in text


def test_the_secret_is_in_a_file_of_its_own_that_only_its_owner_can_read(init: Init) -> None:
    result = init(*KEYCLOAK)
    secret = Path("secret")
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == (f"{SECRET}\n", 0o600)
    assert written()["source"]["client_secret_file"] == "secret"
    assert "secret, which only you can read" in result.output
    assert SECRET not in result.output
    assert sorted(path.name for path in Path().iterdir()) == ["mqtt-token.toml", "secret"]


def test_a_secret_that_is_in_a_file_already_stays_there(init: Init) -> None:
    Path("secrets").mkdir()
    Path("secrets/pump").write_text("s3cret")
    Path("secrets/pump").chmod(0o600)
    Path("devices").mkdir()
    assert init(*KEYCLOAK, "-c", "devices/pump.toml", "--secret-file", "secrets/pump").exit_code == 0
    assert written("devices/pump.toml")["source"]["client_secret_file"] == "../secrets/pump"
    assert read_config("devices/pump.toml").client["client_id"] == "pump-17"


def test_a_secret_that_everybody_can_read_is_rejected(init: Init) -> None:
    Path("pump").write_text("s3cret")
    Path("pump").chmod(0o644)
    result = init(*KEYCLOAK, "--secret-file", "pump")
    reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in Path("pump").resolve().parents)
    assert result.exit_code == (2 if reachable else 0), result.output
    assert Path("mqtt-token.toml").exists() != reachable


def test_a_secret_that_systemd_gives_to_the_service_is_named_and_not_checked(init: Init) -> None:
    result = init(*KEYCLOAK, "--secret-file", "$CREDENTIALS_DIRECTORY/pump", check=True)
    assert (result.exit_code, "Not checked" in result.output) == (0, True), result.output
    assert written()["source"]["client_secret_file"] == "$CREDENTIALS_DIRECTORY/pump"


def test_a_private_key_replaces_the_secret(init: Init, tmp_path: Path) -> None:
    assert init(*KEYCLOAK, "--private-key", "pump.pem").exit_code == 2  # there is none
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "pump.pem").write_bytes(key)
    (tmp_path / "pump.pem").chmod(0o600)
    result = init(*KEYCLOAK, "--private-key", "pump.pem")
    assert result.exit_code == 0, result.output
    assert written()["source"]["client_auth"] == {"method": "private_key_jwt", "private_key": "pump.pem"}
    assert not Path("secret").exists()


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ((), "--broker is missing"),
        (PLANT[2:], "--broker is missing"),
        (PLANT[:2], "--client-id is missing"),
        (PLANT, "--provider is missing"),
        (KEYCLOAK[:6], "--issuer is missing"),
        ((*KEYCLOAK[:5], "auth0", *KEYCLOAK[6:]), "--audience is missing"),
        ((*KEYCLOAK[:5], "cognito", *KEYCLOAK[6:]), "--scope is missing"),
    ],
)
def test_where_nobody_can_be_asked_the_option_that_is_missing_is_named(
    init: Init, options: tuple[str, ...], missing: str
) -> None:
    result = init(*options)
    assert (result.exit_code, missing in result.stderr) == (2, True), result.output
    assert list(Path().iterdir()) == []


def test_where_nobody_can_be_asked_a_secret_that_is_missing_is_named(
    init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MQTT_TOKEN_CLIENT_SECRET")
    result = init(*KEYCLOAK)
    assert (result.exit_code, "--secret-file is missing" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--broker", "broker.example.com"), "--broker: broker must begin with mqtts://"),
        (("--broker", "mqtt://broker.example.com"), "--broker: broker: mqtt:// to broker.example.com"),
        (("--issuer", "id.example.com"), "issuer"),
        (("--store", "cupboard"), "store must be"),
        (("--profile", "aws-iot"), "profile"),
        (("-i", "pump\n17"), "--client-id: it must not contain control characters"),
        (("--provider", "cognito", "--scope", "mqtt/publish", "--grant", "device_flow"), "Amazon Cognito has no"),
        (("--secret-file", "a", "--private-key", "b"), "exclude each other"),
        (("-c", "nowhere/mqtt-token.toml"), "nowhere: No such file or directory"),
    ],
)
def test_a_value_that_the_library_rejects_is_named_and_nothing_is_written(
    init: Init, options: tuple[str, ...], message: str
) -> None:
    result = init(*KEYCLOAK, *options)
    assert (result.exit_code in (1, 2), message in result.stderr) == (True, True), result.output
    assert list(Path().iterdir()) == []


def test_plain_mqtt_is_written_if_it_is_asked_for_by_name(init: Init) -> None:
    assert init(*KEYCLOAK, "--broker", "mqtt://broker.example.com", "--allow-insecure").exit_code == 0
    assert (written()["allow_insecure"], written()["source"]["allow_insecure"]) == (True, True)


def test_a_profile_is_written_unless_it_is_the_default(init: Init) -> None:
    init(*KEYCLOAK)
    assert "profile" not in written()
    init(*KEYCLOAK, "--profile", "rabbitmq", "--force")
    assert written()["profile"] == "rabbitmq"


@pytest.mark.parametrize("name", ["mqtt-token.toml", "secret"])
def test_a_file_that_exists_is_replaced_only_by_force(init: Init, name: str) -> None:
    Path(name).write_text("mine")
    result = init(*KEYCLOAK)
    assert (result.exit_code, f"{name} exists; --force replaces it" in result.stderr) == (2, True)
    assert Path(name).read_text() == "mine"
    assert init(*KEYCLOAK, "--force").exit_code == 0
    assert Path(name).read_text() != "mine"


def test_text_of_any_kind_comes_back_as_it_was(init: Init) -> None:
    strange = 'pump "17" \\ é € 🚰'
    assert init(*KEYCLOAK, "--source-client-id", strange).exit_code == 0
    assert written()["source"]["client_id"] == strange


def test_a_person_is_asked_for_what_the_options_leave_open(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MQTT_TOKEN_CLIENT_SECRET")
    answers = [
        *("broker.example.com", "mqtts://broker.example.com"),  # the first answer is no URL
        "pump-17",
        *("keyclock", "keycloak"),
        "https://id.example.com/realms/plant",
        "",  # client_credentials
        "pumps",
        "the secret",
        *("", "", "memory"),  # no audience, no scope
    ]
    result = init(answers="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    assert "must begin with mqtts://" in result.output
    assert "Keycloak" in result.output
    assert "Audience (may be empty): " in result.output
    assert "the secret" not in result.output
    assert max(len(line) for line in result.output.splitlines() if not line.startswith("Error:")) <= 80
    assert written() == {
        "broker": "mqtts://broker.example.com",
        "client_id": "pump-17",
        "store": "memory",
        "source": {
            "type": "client_credentials",
            "issuer": "https://id.example.com/realms/plant",
            "client_id": "pumps",
            "client_secret_file": "secret",
        },
    }
    assert Path("secret").read_text() == "the secret\n"


def test_a_person_who_gave_all_that_is_required_is_asked_for_the_secret_only(
    init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MQTT_TOKEN_CLIENT_SECRET")
    result = init(*KEYCLOAK, answers="the secret\n")
    assert (result.exit_code, result.output.count("?") + result.output.count(": ")) == (0, 1), result.output


def test_doctor_checks_what_was_written(init: Init, idp: AuthorizationServer, broker: Broker) -> None:  # noqa: F811
    device = ("--broker", broker.url, "-i", "pump-17", "--provider", "other", "--issuer", idp.issuer)
    result = init(*device, "--source-client-id", "nobody", "--store", "file:tokens", check=True)
    assert (result.exit_code, "check client_id" in result.output) == (4, True), result.output
