"""Tracebacks with the local variables of each frame, as error reporters record them, show no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jwt
import pytest
from cryptography.fernet import Fernet

from devtools.servers.processes import free_port
from mqtt_token_client import (
    BearerHeader,
    ClientCredentials,
    ClientSecretJWT,
    ClientSecretPost,
    DeviceFlow,
    FileStore,
    MemoryStore,
    PrivateKeyJWT,
    SignedJWT,
    Token,
    TokenClient,
    TokenKeeper,
)
from mqtt_token_client.config import read_config
from mqtt_token_client.mqtt.transport.address import parse_broker
from mqtt_token_client.mqtt.transport.open import open_transport
from mqtt_token_client.sources.oauth import http, token_endpoint, token_response
from mqtt_token_client.stores import encryption, file as file_store, record
from mqtt_token_client.value import hidden
from tests.unit.oauth_server import OAuthServer, answer

CLIENT_SECRET = "client-secret-of-thirty-two-bytes-or-more"
REFRESH_TOKEN = "refresh-token-of-the-tracebacks"
NEW_REFRESH_TOKEN = "new-refresh-token-of-the-tracebacks"
ACCESS_TOKEN = jwt.encode({"sub": "pump-17"}, "the key of an issuer that nobody knows")
NEW_ACCESS_TOKEN = jwt.encode({"sub": "pump-18"}, "the key of an issuer that nobody knows")
DEVICE_CODE = "device-code-of-the-tracebacks"
PROXY_PASSWORD = "proxy-password-of-the-tracebacks"
STORE_KEY = Fernet.generate_key()
SECRETS = (
    *(CLIENT_SECRET, REFRESH_TOKEN, NEW_REFRESH_TOKEN, ACCESS_TOKEN, NEW_ACCESS_TOKEN, DEVICE_CODE, PROXY_PASSWORD),
    STORE_KEY.decode(),
)


class FailureError(Exception):
    """Raised inside the library, where a fault of it or of another package would be."""


def fail(*_: object, **__: object) -> NoReturn:
    raise FailureError


def reported(function: Callable[[], object]) -> str:
    """What an error reporter records of the exception that a function raises, but for the frames of the test."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 - any
        found = traceback.TracebackException.from_exception(error, capture_locals=True)
    else:
        raise AssertionError("it raised nothing")
    text = "".join(found.format())
    chained: traceback.TracebackException | None = found
    while chained is not None:
        chained.stack[:] = [
            frame for frame in chained.stack if not frame.filename.startswith(str(Path(__file__).parent))
        ]
        chained = chained.__cause__ or chained.__context__
    assert len(text) > 0
    return "".join(found.format())


def check(function: Callable[[], object]) -> str:
    text = reported(function)
    for secret in SECRETS:
        assert secret not in text, "\n".join(line.strip()[:200] for line in text.splitlines() if secret in line)
    return text


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


def credentials(server: OAuthServer, **more: Any) -> ClientCredentials:
    options: dict[str, Any] = {"client_secret": CLIENT_SECRET, **more}
    if "client_auth" in more:
        del options["client_secret"]
    return ClientCredentials(token_endpoint=server.token_endpoint, client_id="pump", **options)


def flow(server: OAuthServer, **more: Any) -> DeviceFlow:
    endpoint = f"{server.origin}/device_authorization"
    return DeviceFlow(
        token_endpoint=server.token_endpoint,
        device_authorization_endpoint=endpoint,
        client_id="pump",
        client_secret=CLIENT_SECRET,
        **more,
    )


PREVIOUS = Token(ACCESS_TOKEN, 60, refresh_token=REFRESH_TOKEN)
REFUSED = answer({"error": "invalid_client", "error_description": "no"}, 401)
REPEATED = answer(
    {"error": "invalid_request", "error_description": f"you sent {CLIENT_SECRET}", "sent": CLIENT_SECRET}, 400
)
ODD = answer({"access_token": NEW_ACCESS_TOKEN, "refresh_token": NEW_REFRESH_TOKEN, "token_type": 7})
MINTED = answer({"access_token": NEW_ACCESS_TOKEN, "refresh_token": NEW_REFRESH_TOKEN, "expires_in": 60})


class TestSources:
    @pytest.mark.parametrize("page", [REFUSED, REPEATED, ODD, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"])
    @pytest.mark.parametrize("way", ["basic", "post", "jwt"])
    def test_that_get_an_answer_they_cannot_use(self, server: OAuthServer, page: bytes, way: str) -> None:
        auth = {"post": ClientSecretPost(CLIENT_SECRET), "jwt": ClientSecretJWT(CLIENT_SECRET)}.get(way)
        source = credentials(server, **({} if auth is None else {"client_auth": auth}))
        server.script += [page] * 3
        check(lambda: source.fetch(None))

    @pytest.mark.parametrize("page", [REFUSED, REPEATED, ODD])
    def test_that_renew_with_a_refresh_token(self, server: OAuthServer, page: bytes) -> None:
        server.script += [page] * 3
        check(lambda: flow(server).fetch(PREVIOUS))

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            (http.HttpClient, "_send"),
            (http.HttpClient, "send"),
            (token_endpoint, "token_in"),
            (token_response, "seconds_in"),
            (token_endpoint.TokenEndpoint, "_read"),
            (token_endpoint, "TokenRequest"),
        ],
    )
    @pytest.mark.parametrize("renews", [False, True])
    def test_that_fail_inside(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, renews: bool
    ) -> None:
        server.script += [MINTED]
        source: Any = flow(server) if renews else credentials(server)
        monkeypatch.setattr(module, name, fail)
        check(lambda: source.fetch(PREVIOUS if renews else None))

    def test_that_revoke(self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
        source = credentials(server)
        monkeypatch.setattr(token_endpoint.TokenEndpoint, "offers", lambda *_: True)
        monkeypatch.setattr(token_endpoint.TokenEndpoint, "_metadata", fail)
        check(lambda: source.revoke(PREVIOUS))

    def test_that_use_a_proxy_with_a_password(self) -> None:
        proxy = f"http://pump:{PROXY_PASSWORD}@127.0.0.1:{free_port()}"
        source = ClientCredentials(
            token_endpoint="https://id.example.com",
            client_id="pump",
            client_secret=CLIENT_SECRET,
            proxies={"https": proxy},
        )
        check(lambda: source.fetch(None))

    @pytest.mark.parametrize(
        "make",
        [
            lambda: ClientCredentials(client_id="pump", client_secret=CLIENT_SECRET),
            lambda: DeviceFlow(client_id="pump", client_secret=CLIENT_SECRET),
            lambda: ClientCredentials(client_id="p", token_endpoint="ftp://x", client_secret=CLIENT_SECRET + "\n"),
            lambda: ClientSecretPost(CLIENT_SECRET + "\n"),
            lambda: ClientSecretJWT(CLIENT_SECRET, algorithm="HS1"),
            lambda: PrivateKeyJWT(f"-----BEGIN {CLIENT_SECRET}"),
            lambda: SignedJWT(f"-----BEGIN {CLIENT_SECRET}", "ES256", {}, 60),
            lambda: Token(ACCESS_TOKEN, "soon"),  # type: ignore[arg-type]
        ],
    )
    def test_that_cannot_be_made(self, make: Callable[[], object]) -> None:
        check(make)


class TestStores:
    @pytest.mark.parametrize("name", ["replace", "dump"])
    def test_that_cannot_save(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        store = FileStore(tmp_path / "store", key=STORE_KEY)
        monkeypatch.setattr(file_store, name, fail)
        check(lambda: store.save("key", PREVIOUS))

    @pytest.mark.parametrize("target", [(record, "_since"), (record, "_number"), (encryption.Key, "decrypt")])
    def test_that_cannot_load(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: tuple[Any, str]) -> None:
        store = FileStore(tmp_path / "store", key=STORE_KEY)
        store.save("key", PREVIOUS)
        monkeypatch.setattr(*target, fail)
        check(lambda: store.load("key"))

    def test_whose_record_has_a_wrong_shape(self) -> None:
        text = json.dumps({"value": ACCESS_TOKEN, "refresh_token": REFRESH_TOKEN, "lifetime": "long"})
        check(lambda: record.parse(text))

    def test_whose_key_is_wrong(self, tmp_path: Path) -> None:
        check(lambda: FileStore(tmp_path / "store", key=STORE_KEY[:-4]))


class TestKeeperAndClient:
    def test_a_keeper_whose_source_is_rejected(self, server: OAuthServer) -> None:
        server.script += [REFUSED] * 3
        check(lambda: TokenKeeper(credentials(server), MemoryStore()).token)

    def test_a_keeper_that_fails_inside(self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
        server.script += [MINTED]
        monkeypatch.setattr("mqtt_token_client.tokens.renewer.problem", fail)
        check(lambda: TokenKeeper(credentials(server), MemoryStore()).token)

    def test_a_client_that_cannot_connect(self, server: OAuthServer) -> None:
        server.script += [REFUSED] * 3
        client = TokenClient("mqtt://localhost", credentials(server), client_id="pump")
        check(lambda: client.connect(timeout=20))

    def test_a_client_that_cannot_rotate(self, server: OAuthServer) -> None:
        server.script += [MINTED, *[REFUSED] * 3]
        keeper = TokenKeeper(credentials(server))
        assert keeper.token.value == NEW_ACCESS_TOKEN
        client = TokenClient("mqtt://localhost", keeper, client_id="pump")
        check(client.rotate)

    def test_a_websocket_whose_headers_hold_the_token(self) -> None:
        headers = BearerHeader().place(PREVIOUS, "pump").headers
        address = parse_broker(f"ws://127.0.0.1:{free_port()}")
        check(lambda: open_transport(address, None, None, headers))

    def test_a_client_with_a_wrong_proxy(self) -> None:
        proxy = f"ftp://pump:{PROXY_PASSWORD}@127.0.0.1:1"
        check(lambda: TokenClient("mqtt://localhost", MemoryStore(), client_id="p", proxy=proxy))  # type: ignore[arg-type]

    def test_a_connection_through_a_proxy_that_is_not_there(self) -> None:
        proxy = hidden(f"http://pump:{PROXY_PASSWORD}@127.0.0.1:{free_port()}")
        check(lambda: open_transport(parse_broker("mqtt://localhost"), None, proxy))

    def test_a_connection_whose_packet_cannot_be_made(
        self, monkeypatch: pytest.MonkeyPatch, server: OAuthServer
    ) -> None:
        from mqtt_token_client.mqtt.codec.codec import Codec
        from mqtt_token_client.mqtt.lifecycle import connect_packet

        client = TokenClient("mqtt://localhost", credentials(server), client_id="pump")
        placed = client._settings.profile.place(PREVIOUS, "pump")
        address = client._settings.brokers[0]
        monkeypatch.setattr(connect_packet, "_properties", fail)
        check(lambda: connect_packet.connect_packet(Codec(5, 1000), client._settings, placed, address, first=True))


class TestConfigurationAndCommand:
    TEXT = f"""
        broker = "mqtts://broker.example.com"
        client_id = "pump"
        store = "file:store"
        proxy = "http://pump:{PROXY_PASSWORD}@127.0.0.1:1"
        [source]
        type = "client_credentials"
        issuer = "https://id.example.com"
        client_id = "pump"
        client_secret = "{CLIENT_SECRET}"
        """

    @pytest.mark.parametrize("more", ['user = "x"', "timeout = 7", 'issuer_ = "x"', "[profile]\ntype = 7"])
    def test_a_file_with_a_wrong_entry(self, tmp_path: Path, more: str) -> None:
        file = tmp_path / "device.toml"
        file.touch(0o600)
        file.write_text(f"{self.TEXT}\n{more}")
        check(lambda: read_config(file))

    def test_a_command_that_fails_inside(self, tmp_path: Path) -> None:
        file = tmp_path / "device.toml"
        file.touch(0o600)
        file.write_text(self.TEXT)
        script = (
            "import sys, traceback\nfrom mqtt_token_client.cli.status import status\n"
            "def fail(*_, **__): raise RuntimeError\nsys.modules[status.callback.__module__]._status = fail\n"
            "from mqtt_token_client.cli.commands import mqtt_token\n"
            "try: mqtt_token(['status', '-c', sys.argv[1]], standalone_mode=False)\n"
            "except RuntimeError as error:\n"
            "    print(*traceback.TracebackException.from_exception(error, capture_locals=True).format())\n"
        )
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=60, env=environment
        )
        assert "RuntimeError" in done.stdout
        assert "config = " in done.stdout
        assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
