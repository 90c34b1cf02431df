"""Client secrets and assertions in files: read for each request, so that they may be replaced meanwhile."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from devtools.servers.secret_check import remember_secret
from mqtt_token_client import (
    ClientAssertionFile,
    ClientCredentials,
    ClientSecretBasic,
    ClientSecretJWT,
    ClientSecretPost,
    ConfigurationError,
)
from mqtt_token_client.config import read_config
from mqtt_token_client.errors import TokenError, TokenRequestRefused

from .oauth_server import OAuthServer, Request, answer

FIRST, SECOND = "the first secret of thirty-two bytes", "the second secret of thirty-two bytes"
ASSERTION = jwt.encode({"iss": "cluster", "sub": "pump"}, "a key of thirty-two bytes and some more", "HS256")


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    remember_secret(FIRST)
    remember_secret(SECOND)
    (tmp_path / "secret").write_text(f"{FIRST}\n")
    return tmp_path / "secret"


def device(server: OAuthServer, **auth: Any) -> ClientCredentials:
    return ClientCredentials(client_id="pump", token_endpoint=server.token_endpoint, **auth)


def shows(request: Request, secret: str) -> bool:
    """Whether a request proves that the client knows the secret, in whatever way."""
    form = dict(request.form)
    if "client_assertion" in form:
        try:
            jwt.decode(form["client_assertion"], secret, ["HS256"], options={"verify_aud": False})
        except jwt.InvalidSignatureError:
            return False
        return True
    basic = base64.b64encode(f"pump:{secret.replace(' ', '+')}".encode()).decode()
    return form.get("client_secret") == secret or request.headers.get("authorization") == f"Basic {basic}"


WAYS: dict[str, Any] = {
    "client_secret": lambda file: {"client_secret": file},
    "basic": lambda file: {"client_auth": ClientSecretBasic(file)},
    "post": lambda file: {"client_auth": ClientSecretPost(file)},
    "jwt": lambda file: {"client_auth": ClientSecretJWT(file)},
}


@pytest.mark.parametrize("way", WAYS)
class TestSecret:
    def test_is_the_line_in_the_file(self, server: OAuthServer, file: Path, way: str) -> None:
        device(server, **WAYS[way](file)).fetch(None)
        assert shows(server.requests[0], FIRST)
        assert not shows(server.requests[0], SECOND)

    def test_that_was_replaced_is_used_for_the_next_request(self, server: OAuthServer, file: Path, way: str) -> None:
        source = device(server, **WAYS[way](file))
        server.script.append(answer({"error": "invalid_client"}, 401))
        with pytest.raises(TokenRequestRefused):
            source.fetch(None)
        file.write_text(SECOND)
        source.fetch(None)
        assert shows(server.requests[-1], SECOND)

    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 65_537, None], ids=lambda content: str(content)[:20]
    )
    def test_that_cannot_be_read_for_a_moment_is_trouble_that_passes(
        self, server: OAuthServer, file: Path, way: str, content: bytes | None
    ) -> None:
        source = device(server, **WAYS[way](file))
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(TokenError, match=f"client_secret: {file}") as caught:
            source.fetch(None)
        assert not caught.value.permanent
        assert server.requests == []

    def test_that_is_not_there_is_found_when_the_source_is_made(
        self, server: OAuthServer, file: Path, way: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"client_secret: .*none: No such file or directory"):
            device(server, **WAYS[way](file.with_name("none")))

    def test_is_not_shown(self, server: OAuthServer, file: Path, way: str) -> None:
        source = device(server, **WAYS[way](file))
        server.script.append(answer({"error": "invalid_client", "error_description": f"not {FIRST}"}, 401))
        with pytest.raises(TokenRequestRefused) as caught:
            source.fetch(None)
        assert FIRST not in f"{source!r} {caught.value} {caught.value.description}"


def test_a_secret_that_is_too_short_for_an_assertion_is_trouble_that_passes(server: OAuthServer, file: Path) -> None:
    source = device(server, client_auth=ClientSecretJWT(file))
    file.write_text("short")
    with pytest.raises(TokenError, match="client_secret must have at least 32 bytes"):
        source.fetch(None)


def test_the_file_that_a_configuration_names_is_read_again_as_well(server: OAuthServer, file: Path) -> None:
    configuration = file.with_name("mqtt-token.toml")
    configuration.write_text(f"""
        [source]
        type = "client_credentials"
        token_endpoint = "{server.token_endpoint}"
        client_id = "pump"
        client_secret_file = "secret"
    """)
    file.chmod(0o600)
    source = read_config(configuration).source
    source.fetch(None)
    file.write_text(SECOND)
    source.fetch(None)
    first, second = server.requests
    assert shows(first, FIRST)
    assert shows(second, SECOND)


class TestAssertion:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "token").write_text(f"{ASSERTION}\n")
        return tmp_path / "token"

    def test_of_the_file_is_sent_with_its_type_and_the_client_id(self, server: OAuthServer, file: Path) -> None:
        device(server, client_auth=ClientAssertionFile(file)).fetch(None)
        assert server.requests[0].form[1:] == [
            ("client_id", "pump"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", ASSERTION),
        ]

    def test_that_was_renewed_is_used_for_the_next_request(self, server: OAuthServer, file: Path) -> None:
        source = device(server, client_auth=ClientAssertionFile(str(file)))
        source.fetch(None)
        file.write_text("a.b.c")
        source.fetch(None)
        assert dict(server.requests[1].form)["client_assertion"] == "a.b.c"

    @pytest.mark.parametrize(
        "content", [b"", b"a.b", b"a.b.c.d", b"a.b\n.c", b"a.b.\xff", b"a.b." + b"c" * 65536, None]
    )
    def test_that_cannot_be_used_for_a_moment_is_trouble_that_passes(
        self, server: OAuthServer, file: Path, content: bytes | None
    ) -> None:
        source = device(server, client_auth=ClientAssertionFile(file))
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(TokenError, match=f"client_auth: {file}") as caught:
            source.fetch(None)
        assert not caught.value.permanent
        assert server.requests == []

    def test_that_the_server_rejects_has_not_the_time_of_this_device(self, server: OAuthServer, file: Path) -> None:
        server.script.append(answer({"error": "invalid_client"}, 401))
        with pytest.raises(TokenRequestRefused) as caught:
            device(server, client_auth=ClientAssertionFile(file)).fetch(None)
        assert caught.value.permanent
        assert "clock" not in str(caught.value)

    @pytest.mark.parametrize("path", ["/no/such/file", ASSERTION, 5, None, b"x"], ids=str)
    def test_needs_the_path_of_a_file(self, path: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^path must be the path of a file") as caught:
            ClientAssertionFile(path)
        assert ASSERTION not in str(caught.value)

    def test_may_be_named_in_a_configuration(self, server: OAuthServer, file: Path) -> None:
        configuration = file.with_name("mqtt-token.toml")
        configuration.write_text(f"""
            [source]
            type = "client_credentials"
            token_endpoint = "{server.token_endpoint}"
            client_id = "pump"
            [source.client_auth]
            method = "client_assertion_file"
            path = "token"
        """)
        read_config(configuration).source.fetch(None)
        assert dict(server.requests[0].form)["client_assertion"] == ASSERTION
