"""The TOML file of a device: what it can say, and what is said of a wrong one."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from devtools.servers.pki import Pki
from devtools.servers.secret_check import remember_secret
from mqtt_token_client import (
    ClientCredentials,
    ConfigurationError,
    DeviceFlow,
    FileStore,
    RabbitMQ,
    SignedJWT,
    TokenClient,
    TokenFile,
    Will,
    config,
)
from mqtt_token_client.config import Config, read_config
from mqtt_token_client.profiles import open_profile
from mqtt_token_client.stores.encryption import Key
from mqtt_token_client.tls_files import TlsFiles
from tests.unit.oauth_server import OAuthServer

SECRET = "the secret of the configured client"
CREDENTIALS = """
    [source]
    type = "client_credentials"
    issuer = "https://id.example.com"
    client_id = "pump-17"
    client_secret_file = "secret"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    remember_secret(SECRET)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return tmp_path


def written(folder: Path, text: str, mode: int = 0o644) -> Path:
    file = folder / "device.toml"
    file.write_text(textwrap.dedent(text))
    file.chmod(mode)
    return file


def read(folder: Path, text: str, mode: int = 0o644) -> Config:
    return read_config(written(folder, text, mode))


def refused(folder: Path, text: str) -> str:
    file = written(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        read_config(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


class TestSource:
    def test_is_client_credentials_with_the_secret_in_a_file_of_its_own(self, folder: Path) -> None:
        with OAuthServer() as server:
            config = read(
                folder,
                f"""
                [source]
                type = "client_credentials"
                token_endpoint = "{server.token_endpoint}"
                client_id = "pump-17"
                client_secret_file = "secret"
                client_auth = {{method = "none"}}
                """.replace('client_auth = {method = "none"}', ""),
            )
            config.source.fetch(None)
        assert isinstance(config.source, ClientCredentials)
        assert server.requests[0].form == [("grant_type", "client_credentials")]
        assert server.requests[0].headers["authorization"].startswith("Basic ")

    def test_is_named_alike_in_each_process_that_reads_it(self, folder: Path) -> None:
        first, second = read(folder, CREDENTIALS), read(folder, CREDENTIALS)
        assert isinstance(first.source, ClientCredentials)
        assert isinstance(second.source, ClientCredentials)
        assert first.source.key == second.source.key

    def test_is_the_device_flow(self, folder: Path) -> None:
        text = '[source]\ntype = "device_flow"\nissuer = "https://id.example.com"\nclient_id = "pump"\n'
        assert isinstance(read(folder, text).source, DeviceFlow)

    def test_is_a_signature_by_a_key_beside_the_file(self, folder: Path, pki: Pki) -> None:
        (folder / "key.pem").write_bytes(_ec_key())
        text = """
            [source]
            type = "signed_jwt"
            private_key = "key.pem"
            algorithm = "ES256"
            lifetime = 3600
            claims = {aud = "plant"}
        """
        source = read(folder, text).source
        assert isinstance(source, SignedJWT)
        assert source.fetch(None).claims["aud"] == "plant"

    def test_is_a_file_beside_the_file(self, folder: Path) -> None:
        (folder / "token").write_text("an-opaque-token")
        remember_secret("an-opaque-token")
        source = read(folder, '[source]\ntype = "token_file"\npath = "token"\n').source
        assert isinstance(source, TokenFile)
        assert source.fetch(None).value == "an-opaque-token"

    @pytest.mark.parametrize(
        "auth",
        [
            'method = "none"',
            'method = "client_secret_post"\nclient_secret_file = "secret"',
            'method = "client_secret_jwt"\nclient_secret_file = "secret"',
            'method = "private_key_jwt"\nprivate_key = "key.pem"\nalgorithm = "ES256"',
        ],
    )
    def test_proves_who_it_is_by_any_method(self, folder: Path, auth: str) -> None:
        (folder / "key.pem").write_bytes(_ec_key())
        base = '[source]\ntype = "client_credentials"\nissuer = "https://id.example.com"\nclient_id = "pump"\n'
        assert isinstance(read(folder, f"{base}[source.client_auth]\n{auth}\n").source, ClientCredentials)

    def test_takes_a_secret_from_the_file_itself_if_nobody_else_may_read_it(self, folder: Path) -> None:
        inline = CREDENTIALS.replace('client_secret_file = "secret"', f'client_secret = "{SECRET}"')
        assert isinstance(read(folder, inline, mode=0o600).source, ClientCredentials)
        message = refused(folder, inline)
        assert message == (
            "source.client_secret: other users can read this file; chmod it to 600, or give client_secret_file instead"
        )


class TestClient:
    def test_is_made_with_the_store_and_the_will_that_the_file_names(self, folder: Path) -> None:
        text = f"""
            broker = "mqtts://broker.example.com"
            client_id = "pump-17"
            protocol = 4
            store = "file:tokens"
            {CREDENTIALS}
            [will]
            topic = "pump/17/state"
            payload = "gone"
            retain = true
        """
        config = read(folder, text)
        assert isinstance(config.store, FileStore)
        assert str(folder / "tokens") in config.store.protection
        assert config.client["will"].payload == b"gone"
        client = TokenClient.from_config(config.path, on_event=print)
        assert "mqtts://broker.example.com:8883" in repr(client)

    def test_starts_clean_and_leaves_a_will_with_properties_if_the_file_says_so(self, folder: Path) -> None:
        text = f"""
            clean_start = true
            {CREDENTIALS}
            [will]
            topic = "pump/17/state"
            payload = "gone"
            properties = {{content_type = "text/plain", user_property = [["k", "v"]]}}
        """
        client = read(folder, text).client
        assert client["clean_start"] is True
        assert client["will"].properties == {"content_type": "text/plain", "user_property": [["k", "v"]]}

    def test_trusts_the_certificates_that_the_file_names(self, folder: Path, pki: Pki) -> None:
        config = read(folder, f'ca_bundle = "{pki.ca}"\n{CREDENTIALS}')
        assert config.client["tls"] == TlsFiles(pki.ca)

    def test_expands_environment_variables_in_paths(
        self, folder: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As systemd hands over secrets: LoadCredential= and $CREDENTIALS_DIRECTORY."""
        (folder / "credentials").mkdir()
        (folder / "secret").rename(folder / "credentials" / "secret")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder / "credentials"))
        monkeypatch.setenv("PKI", str(pki.ca.parent))
        text = CREDENTIALS.replace('"secret"', '"$CREDENTIALS_DIRECTORY/secret"')
        config = read(folder, f'ca_bundle = "${{PKI}}/{pki.ca.name}"\nstore = "file:$PKI/store"\n{text}')
        assert config.client["tls"] == TlsFiles(pki.ca)
        assert isinstance(config.store, FileStore)
        assert f"{pki.ca.parent}/store" in config.store.protection

    def test_names_an_environment_variable_that_is_not_set(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        text = CREDENTIALS.replace('"secret"', '"$CREDENTIALS_DIRECTORY/secret"')
        assert refused(folder, text) == "$CREDENTIALS_DIRECTORY/secret: this environment variable is not set"

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("~nobody-has-this-name/secret", "this user has no home directory; give the whole path"),
            ("a\\u0000b", "must be a path, which has no NUL"),
        ],
    )
    def test_names_a_path_that_leads_nowhere(self, folder: Path, path: str, says: str) -> None:
        assert says in refused(folder, CREDENTIALS.replace('"secret"', f'"{path}"'))
        assert says in refused(folder, f'ca_bundle = "{path}"\n{CREDENTIALS}')

    def test_names_a_client_auth_of_another_type(self, folder: Path) -> None:
        text = refused(folder, f"{CREDENTIALS}\nclient_auth = []")
        assert text.startswith("source.client_auth must be a table")

    def test_shows_the_client_certificate_that_the_file_names(self, folder: Path, pki: Pki) -> None:
        own = f'certificate = "{pki.client.certificate}"\nkey = "{pki.client.key}"\n'
        assert read(folder, own + CREDENTIALS).client["tls"] == TlsFiles(None, pki.client.certificate, pki.client.key)

    @pytest.mark.parametrize(
        ("profile", "made"),
        [
            ('profile = "rabbitmq"', RabbitMQ()),
            ('[profile]\ntype = "rabbitmq"\nvhost = "plant"', RabbitMQ("plant")),
        ],
    )
    def test_places_the_token_as_the_file_says(self, folder: Path, profile: str, made: RabbitMQ) -> None:
        text = f"{profile}\n{CREDENTIALS}" if profile.startswith("profile") else f"{CREDENTIALS}{profile}\n"
        found = read(folder, text).client["profile"]
        assert open_profile(found) == made

    @pytest.mark.parametrize("name", ["broker", "client_id"])
    def test_needs_a_broker_and_an_identifier(self, folder: Path, name: str) -> None:
        entries = {"broker": "mqtts://broker.example.com", "client_id": "pump-17", "store": "memory"}
        text = "".join(f'{key} = "{value}"\n' for key, value in entries.items() if key != name)
        with pytest.raises(ConfigurationError, match=rf"device\.toml: {name} is missing"):
            TokenClient.from_config(written(folder, text + CREDENTIALS))

    def test_takes_from_the_program_what_the_file_leaves_out(self, folder: Path) -> None:
        file = written(folder, f'store = "memory"\n{CREDENTIALS}')
        client = TokenClient.from_config(file, broker="mqtts://broker.example.com:8884", client_id="pump-17")
        assert "mqtts://broker.example.com:8884" in repr(client)

    def test_takes_the_constructors_word_for_what_is_wrong(self, folder: Path) -> None:
        text = f'broker = "mqtts://b.example.com"\nclient_id = "p"\nprotocol = 3\nstore = "memory"\n{CREDENTIALS}'
        with pytest.raises(ConfigurationError, match="protocol must be 5, or 4"):
            TokenClient.from_config(written(folder, text))


class TestDocument:
    def test_names_every_entry(self) -> None:
        text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
        makers = (*config._SOURCES.values(), *config._CLIENT_AUTHS.values(), Will)
        entries = {*config._TOP, *config._CLIENT_AUTHS, *(f"{name}_file" for name in config._SECRETS)}
        for make in makers:
            entries.update(inspect.signature(make).parameters)
        entries -= {"prompt", "client_auth", "source", "will"}
        assert [name for name in entries if f"`{name}`" not in text] == []
        assert all(f'type = "{name}"' in text for name in config._SOURCES)

    def test_shows_a_file_that_is_right(self, folder: Path, pki: Pki) -> None:
        text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
        (folder / "plant-ca.pem").write_bytes(Path(pki.ca).read_bytes())
        whole, *_ = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        file = written(folder, whole.replace('"file"', '"file:store"'))
        assert "mqtts://broker.example.com:8883" in repr(TokenClient.from_config(file))


class TestJournal:
    def test_is_a_file_beside_this_one(self, folder: Path) -> None:
        journal = read(folder, 'journal = "outbox/journal"\n' + CREDENTIALS).client["journal"]
        assert journal.path == folder / "outbox" / "journal"
        assert not journal.path.parent.exists(), "nothing is made before a client opens it"

    def test_is_a_table_if_it_has_options(self, folder: Path) -> None:
        key = Fernet.generate_key().decode()
        remember_secret(key)
        (folder / "journal.key").write_text(f"{key}\n")
        table = '[journal]\npath = "outbox"\nmax_queued = 7\ndrain_rate = 20\nkey_file = "journal.key"\n'
        journal = read(folder, CREDENTIALS + table).client["journal"]
        assert journal.path == folder / "outbox"
        assert (journal.bounds.max_queued, journal.bounds.drain_rate) == (7, 20.0)
        assert journal._key.id == Key("argument", key).id

    @pytest.mark.parametrize(
        ("entry", "error"),
        [
            ('"outbox"\nkey = "x"', "journal.key: give key_file instead, the path of a file with the key"),
            ('"outbox"\nrate = 1', "journal.rate: unknown entry; the entries are path, commit_every, "),
            ('"outbox"\ndrain_rate = 0', "journal.drain_rate must be messages a second, above 0, got 0"),
            ('"outbox"\nkey_file = "none"', "journal.key_file: none: No such file or directory"),
            ('"outbox"\nkey_file = "short.key"', "journal.key must be 32 bytes in URL-safe base64"),
            ('""', "journal must be the path of a file, or a table with a path"),
        ],
    )
    def test_is_a_table_whose_mistakes_are_named(self, folder: Path, entry: str, error: str) -> None:
        (folder / "short.key").write_text("short")
        with pytest.raises(ConfigurationError, match=re.escape(error)):
            read(folder, f"{CREDENTIALS}[journal]\npath = {entry}\n")

    @pytest.mark.parametrize("value", ["3", '""', "true"])
    def test_must_be_a_path(self, folder: Path, value: str) -> None:
        with pytest.raises(ConfigurationError, match="journal must be the path of a file"):
            read(folder, f"journal = {value}\n" + CREDENTIALS)


class TestWrongFile:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x = ", "not valid TOML: Invalid value"),
            ('brocker = "mqtts://b"\n' + CREDENTIALS, "brocker: unknown entry; the entries are broker, client_id"),
            ("", "[source]: this table is missing"),
            (
                '[source]\ntype = "password"',
                "source.type must be one of client_credentials, device_flow, signed_jwt, to",
            ),
            (CREDENTIALS + 'user = "x"\n', "source.user: unknown entry; the entries are client_id, issuer"),
            (CREDENTIALS + 'prompt = "x"\n', "source.prompt: unknown entry"),
            (CREDENTIALS.replace('secret"', 'none"'), "source.client_secret_file: none: No such file or directory"),
            (CREDENTIALS.replace("https://", "ftp://"), "source.issuer must be an https URL"),
            ('[source]\ntype = "token_file"', "source: missing a required argument: 'path'"),
            ('store = "cloud"\n' + CREDENTIALS, 'store must be "auto", "keyring"'),
            (
                'store = "keyring:no.such.Backend"\n' + CREDENTIALS,
                "store: backend must be module.Class of a keyring backend",
            ),
            ("store = 5\n" + CREDENTIALS, 'store must be "auto", "keyring"'),
            ('key = "k.pem"\n' + CREDENTIALS, "key needs a certificate"),
            ('ca_bundle = "secret"\n' + CREDENTIALS, "ca_bundle: '"),
            ('ca_bundle = "none.pem"\n' + CREDENTIALS, "ca_bundle must be the path of a PEM file; there is no"),
            (
                CREDENTIALS + '[source.client_auth]\nmethod = "magic"',
                "source.client_auth.method must be one of none, c",
            ),
            (
                CREDENTIALS + 'client_auth = "none"',
                'source.client_auth must be a table: [source.client_auth] with method = "none"',
            ),
            (
                CREDENTIALS + 'client_auth = "private_key_jwt"',
                '[source.client_auth] with method = "private_key_jwt"',
            ),
            (CREDENTIALS.replace("issuer", "# issuer"), "source.issuer is missing; give it, or token_endpoint instead"),
            (
                '[source]\ntype = "device_flow"\nclient_id = "a"\ntoken_endpoint = "https://id.example.com/token"',
                "source.device_authorization_endpoint is missing; give it together with token_endpoint, or give the is",
            ),
            (CREDENTIALS + '[profile]\ntype = "magic"', "profile.type must be one of password, rabbitmq"),
            (CREDENTIALS + '[profile]\ntype = "rabbitmq"\nhost = "x"', "profile.host: unknown entry"),
            (CREDENTIALS + "[will]\nqos = 1", "will: missing a required argument: 'topic'"),
        ],
    )
    def test_is_told_in_one_line_that_names_the_entry(self, folder: Path, text: str, message: str) -> None:
        assert message in refused(folder, text)

    @pytest.mark.timeout(20)
    def test_of_a_secret_that_cannot_be_one_is_named(self, folder: Path) -> None:
        (folder / "large").write_bytes(b"x" * 65_537)
        os.mkfifo(folder / "fifo")
        for name, problem in (("large", "longer than 64 KiB; give the path of the right"), ("fifo", "not a regular")):
            text = CREDENTIALS.replace('secret"', f'{name}"')
            assert f"source.client_secret_file: {name}: {problem} file" in refused(folder, text)

    def test_that_is_not_there_is_told(self, folder: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"none\.toml: No such file or directory"):
            read_config(folder / "none.toml")


def _ec_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
