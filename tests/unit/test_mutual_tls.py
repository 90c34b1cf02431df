"""Client authentication by certificate: what the server sees, where the request goes, which files do."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from devtools.servers.pki import Pki
from mqtt_token_client.errors import ConfigurationError, InvalidTokenResponse, TokenError
from mqtt_token_client.sources.oauth.client_credentials import ClientCredentials
from mqtt_token_client.sources.oauth.mutual_tls import MutualTLS

from .oauth_server import OAuthServer

METADATA_PATH = "/.well-known/openid-configuration"


@pytest.fixture
def tls_server(pki: Pki) -> Iterator[OAuthServer]:
    """A server that talks only to who shows a certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.certificate, pki.server.key)
    context.load_verify_locations(pki.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with OAuthServer(context) as server:
        yield server


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


@pytest.fixture
def auth(pki: Pki) -> MutualTLS:
    return MutualTLS(pki.client.certificate, pki.client.key)


def device(pki: Pki, auth: Any, **where: str) -> ClientCredentials:
    given: dict[str, Any] = {"client_id": "pump-17", "client_auth": auth, "ca_bundle": pki.ca, **where}
    return ClientCredentials(**given)


class TestRequest:
    def test_shows_the_certificate_and_names_the_client(
        self, pki: Pki, auth: MutualTLS, tls_server: OAuthServer
    ) -> None:
        device(pki, auth, token_endpoint=tls_server.token_endpoint).fetch(None)
        assert tls_server.requests[0].form == [("grant_type", "client_credentials"), ("client_id", "pump-17")]
        assert "authorization" not in tls_server.requests[0].headers

    def test_without_a_certificate_does_not_arrive(self, pki: Pki, tls_server: OAuthServer) -> None:
        no_certificate = ClientCredentials(
            client_id="pump-17", client_secret="secret", token_endpoint=tls_server.token_endpoint, ca_bundle=pki.ca
        )
        with pytest.raises(TokenError):
            no_certificate.fetch(None)
        assert tls_server.requests == []

    def test_goes_to_the_alias_that_the_metadata_has(
        self, pki: Pki, auth: MutualTLS, server: OAuthServer, tls_server: OAuthServer
    ) -> None:
        aliases = {
            "token_endpoint": f"{tls_server.origin}/mtls/token",
            "revocation_endpoint": "https://elsewhere.example",
        }
        server.describe(METADATA_PATH, mtls_endpoint_aliases=aliases)
        device(pki, auth, issuer=server.origin).fetch(None)
        assert [request.path for request in tls_server.requests] == ["/mtls/token"]
        assert server.token_requests == []

    @pytest.mark.parametrize("aliases", [None, {}, {"revocation_endpoint": "https://elsewhere.example"}, "https", 5])
    def test_goes_to_the_usual_address_where_there_is_no_alias(
        self, pki: Pki, auth: MutualTLS, server: OAuthServer, tls_server: OAuthServer, aliases: object
    ) -> None:
        server.describe(METADATA_PATH, token_endpoint=tls_server.token_endpoint, mtls_endpoint_aliases=aliases)
        device(pki, auth, issuer=server.origin).fetch(None)
        assert [request.path for request in tls_server.requests] == ["/token"]

    @pytest.mark.parametrize(
        "alias",
        ["http://id.example.com/token", "http://127.0.0.1/token", "https://user@id.example.com/", "token", 5, None],
    )
    def test_goes_to_no_alias_that_is_not_an_https_address(
        self, pki: Pki, auth: MutualTLS, server: OAuthServer, alias: object
    ) -> None:
        server.describe(METADATA_PATH, mtls_endpoint_aliases={"token_endpoint": alias})
        with pytest.raises(
            InvalidTokenResponse, match=r"mtls_endpoint_aliases\.token_endpoint in the server's metadata"
        ):
            device(pki, auth, issuer=server.origin).fetch(None)
        assert server.token_requests == []

    def test_is_not_made_over_plain_http_even_on_this_machine(
        self, pki: Pki, auth: MutualTLS, server: OAuthServer
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"^client_auth: .*https"):
            device(pki, auth, token_endpoint=server.token_endpoint).fetch(None)
        assert server.requests == []


class TestFiles:
    @pytest.fixture
    def files(self, pki: Pki, tmp_path: Path) -> tuple[Path, Path]:
        certificate, key = tmp_path / "pem", tmp_path / "key"
        shutil.copy(pki.client.certificate, certificate)
        shutil.copy(pki.client.key, key)
        return certificate, key

    def copies(self) -> int:
        """How many copies of a client certificate this process has in memory."""
        links = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # another thread has closed it
                links.append(str(descriptor.readlink()))
        return sum("client-certificate" in link for link in links)

    def test_that_are_renewed_are_used_from_then_on(
        self, pki: Pki, files: tuple[Path, Path], tls_server: OAuthServer, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        certificate, key = files
        foreign = Pki(tmp_path_factory.mktemp("foreign")).client
        shutil.copy(foreign.certificate, certificate)
        shutil.copy(foreign.key, key)
        source = device(pki, MutualTLS(str(certificate), str(key)), token_endpoint=tls_server.token_endpoint)
        with pytest.raises(TokenError):
            source.fetch(None)
        shutil.copy(pki.client.certificate, certificate)
        shutil.copy(pki.client.key, key)
        source.fetch(None)

    @pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux only")
    def test_that_do_not_fit_for_a_moment_cost_nothing(
        self, pki: Pki, files: tuple[Path, Path], tls_server: OAuthServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        auth = MutualTLS(*files)
        source = device(pki, auth, token_endpoint=tls_server.token_endpoint)
        key = files[1].read_text()
        for half in (pki.server.key.read_text(), key[:60], None):
            caplog.clear()
            files[1].unlink() if half is None else files[1].write_text(half)
            for _ in range(2):
                source.fetch(None)
        assert [record.levelname for record in caplog.records] == ["WARNING"], "once for each problem"
        assert str(files[1]) in caplog.text
        assert "BEGIN" not in caplog.text
        files[1].write_text(key)
        source.fetch(None)
        assert len(tls_server.requests) == 7

    @pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux only")
    def test_that_are_renewed_replace_the_copy_that_is_kept(
        self, pki: Pki, files: tuple[Path, Path], tls_server: OAuthServer, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        foreign = Pki(tmp_path_factory.mktemp("foreign")).client
        shutil.copy(foreign.certificate, files[0])
        shutil.copy(foreign.key, files[1])
        auth = MutualTLS(*files)
        source = device(pki, auth, token_endpoint=tls_server.token_endpoint)
        shutil.copy(pki.client.certificate, files[0])
        shutil.copy(pki.client.key, files[1])
        source.fetch(None)
        copies = self.copies()
        for _ in range(3):
            source.fetch(None)
        assert self.copies() <= copies
        files[0].unlink()
        source.fetch(None)

    def test_are_the_files_themselves_for_a_copy_in_another_process(
        self, pki: Pki, files: tuple[Path, Path], tls_server: OAuthServer
    ) -> None:
        for auth in (pickle.loads(pickle.dumps(MutualTLS(*files))), copy.deepcopy(MutualTLS(*files))):
            device(pki, auth, token_endpoint=tls_server.token_endpoint).fetch(None)
        assert len(tls_server.requests) == 2

    def test_that_do_not_fit_for_a_moment_are_trouble_that_passes_where_no_copy_can_be_kept(
        self, pki: Pki, files: tuple[Path, Path], tls_server: OAuthServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "memfd_create", raising=False)
        source = device(pki, MutualTLS(*files), token_endpoint=tls_server.token_endpoint)
        key = files[1].read_text()
        for half in (pki.server.key.read_text(), key[:60], None):
            files[1].unlink() if half is None else files[1].write_text(half)
            with pytest.raises(TokenError, match=str(files[1])) as caught:
                source.fetch(None)
            assert not caught.value.permanent
        files[1].write_text(key)
        source.fetch(None)

    def test_that_do_not_do_are_named_at_once(self, pki: Pki, files: tuple[Path, Path], tmp_path: Path) -> None:
        pem = files[1].read_bytes()
        encrypted = serialization.load_pem_private_key(pem, None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
        (tmp_path / "encrypted").write_bytes(encrypted)
        cases: list[tuple[object, object, str]] = [
            (files[0], pki.server.key, "certificate, key: .* its private key"),
            (files[0], tmp_path / "encrypted", "without a passphrase"),
            (files[1], files[0], "certificate, key: "),
            (files[0], files[0], "certificate, key: "),
            (files[0], "/no/such/file", "^key must .* no such file"),
            ("/no/such/file", files[1], "^certificate must .* no such file"),
            (tmp_path, files[1], "^certificate must "),
            (files[0], pem.decode(), "^key must "),
            (files[0], pem, "^key must .* got bytes"),
            (None, files[1], "^certificate must .* got NoneType"),
        ]
        for certificate, key, named in cases:
            with pytest.raises(ConfigurationError, match=named) as caught:
                MutualTLS(certificate, key)  # type: ignore[arg-type]  # wrong types on purpose
            assert "BEGIN" not in str(caught.value)
