"""One exchange with a scripted server: what is given up and when, who is trusted, which way it goes."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import queue
import socket
import ssl
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from devtools.servers.pki import Pki
from devtools.servers.processes import free_port, wait_until
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import (
    AuthorizationServerUnavailable,
    AuthorizationServerUntrusted,
    ConfigurationError,
    InvalidTokenResponse,
    TokenError,
)
from mqtt_token_client.sources.oauth import http_errors
from mqtt_token_client.sources.oauth.client_auth import TokenRequest
from mqtt_token_client.sources.oauth.http import HttpClient, Reply, url_problem
from mqtt_token_client.sources.oauth.token_endpoint import TokenEndpoint

from . import oauth_server
from .oauth_server import OAuthServer, answer, token_answer

FORM = [("grant_type", "client_credentials")]
SOON = (0.1, 0.1)  # as the deadline of an exchange


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


def post(url: str, **transport: Any) -> Reply:
    return HttpClient(**{"timeout": (5.0, 5.0), **transport}).send("POST", url, form=FORM)


def failure(url: str, **transport: Any) -> TokenError:
    """What a request raises."""
    with pytest.raises(TokenError) as caught:
        post(url, **transport)
    return caught.value


def exchanges() -> list[threading.Thread]:
    """The threads that exchanges are under way in."""
    return [thread for thread in threading.enumerate() if thread.name == "token-request"]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def server_context(pki: Pki) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.certificate, pki.server.key)
    return context


class TestInterimAnswers:
    @pytest.mark.parametrize("status", ["100 Continue", "102 Processing", "103 Early Hints", "199 New"])
    @pytest.mark.parametrize("count", [1, 3])
    def test_are_skipped(self, server: OAuthServer, status: str, count: int) -> None:
        """RFC 9110 section 15.2."""
        interim = f"HTTP/1.1 {status}\r\nLink: </style.css>; rel=preload\r\nContent-Length: 5\r\n\r\n".encode()
        server.script.append(interim * count + token_answer("new"))
        assert b'"new"' in HttpClient().send("POST", server.token_endpoint, form=[]).body

    def test_that_do_not_end_are_no_answer(self, server: OAuthServer) -> None:
        server.script.append(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
        assert HttpClient().send("POST", server.token_endpoint, form=[]).status == 103


class TestHostileAnswer:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirect_is_named_not_followed_and_its_body_not_read(self, server: OAuthServer, status: int) -> None:
        elsewhere = f"HTTP/1.1 {status} Elsewhere\r\nLocation: https://evil.example/?take=this\r\n\r\n".encode()
        server.script.append(oauth_server.endless(elsewhere, b"x" * 65536))
        error = failure(server.token_endpoint)
        assert isinstance(error, InvalidTokenResponse)
        assert "evil.example" in str(error)
        assert "take" not in str(error)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("location", [None, "http://[", "https://a\x1b[31mb/"])
    def test_redirect_to_nowhere_is_reported_too(self, server: OAuthServer, location: str | None) -> None:
        header = {} if location is None else {"location": location}
        server.script.append(answer(b"", 302, **header))
        assert str(failure(server.token_endpoint)).isprintable()

    def test_long_page_with_503_is_not_read_either(self, server: OAuthServer) -> None:
        server.script.append(oauth_server.endless(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n", b"x" * 65536))
        assert failure(server.token_endpoint).retry_after == 7

    @pytest.mark.parametrize("name", ["TEN_MEGABYTES", "ENDLESS", "GZIP_BOMB"])
    def test_answer_beyond_a_mebibyte_is_given_up(self, server: OAuthServer, name: str) -> None:
        post(server.token_endpoint)  # so that all imports are done
        server.script.append(getattr(oauth_server, name))
        tracemalloc.start()
        with pytest.raises(InvalidTokenResponse, match="1 MiB"):
            post(server.token_endpoint)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 5 * 2**20

    @pytest.mark.parametrize("name", ["SILENCE", "TRICKLE", "HEADER_TRICKLE"])
    def test_answer_that_does_not_end_is_given_up_at_the_deadline(self, server: OAuthServer, name: str) -> None:
        server.script.append(getattr(oauth_server, name))
        before = monotonic()
        error = failure(server.token_endpoint, timeout=SOON)
        assert isinstance(error, AuthorizationServerUnavailable)
        assert monotonic() - before < 5

    @pytest.mark.parametrize("name", ["CUT_OFF", "HANG_UP", "NOT_HTTP"])
    def test_answer_that_breaks_off_or_is_not_http_passes(self, server: OAuthServer, name: str) -> None:
        server.script.append(getattr(oauth_server, name))
        assert isinstance(failure(server.token_endpoint), AuthorizationServerUnavailable)

    def test_that_does_not_come_does_not_keep_the_process_from_ending(self) -> None:
        with OAuthServer() as server:
            server.script.append(oauth_server.SILENCE)
            asking = threading.Thread(target=failure, args=(server.token_endpoint,))
            asking.start()
            wait_until(lambda: bool(server.requests), "the request")
            assert [thread.daemon for thread in exchanges()] == [True]
        asking.join(10)

    @pytest.mark.parametrize("module", ["requests", "requests.exceptions"])
    def test_that_cannot_be_read_for_want_of_a_module_says_so_at_once(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch, module: str
    ) -> None:
        server.script.append(oauth_server.HANG_UP)
        monkeypatch.setitem(sys.modules, module, None)
        error = failure(server.token_endpoint)
        assert isinstance(error, AuthorizationServerUnavailable)
        assert "no answer within" not in str(error)
        assert module != "requests" or str(error).endswith("the module requests cannot be imported")

    @pytest.mark.parametrize(
        "error", [SystemExit(1), MemoryError(), RecursionError(), OSError(24, "Too many open files"), KeyError("x")]
    )
    @pytest.mark.parametrize("explained", [True, False], ids=["explained", "not explained"])
    def test_that_cannot_be_read_for_any_reason_says_so_at_once(
        self, monkeypatch: pytest.MonkeyPatch, error: BaseException, explained: bool
    ) -> None:
        def fail(*_: object) -> NoReturn:
            raise error

        def fail_too(*_: object) -> NoReturn:
            raise MemoryError

        monkeypatch.setattr(HttpClient, "_send", fail)
        if not explained:
            monkeypatch.setattr(http_errors, "explain", fail_too)
        found = failure("https://as.example/token")
        assert isinstance(found, AuthorizationServerUnavailable)
        expected = getattr(error, "strerror", None) or type(error).__name__
        assert str(found) == f"https://as.example/token: {expected}"

    def test_that_no_thread_can_wait_for_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_thread(_: threading.Thread) -> NoReturn:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", no_thread)
        found = failure("https://as.example/token")
        assert isinstance(found, AuthorizationServerUnavailable)
        assert str(found).startswith("https://as.example/token: no thread could be started")

    @pytest.mark.parametrize(
        ("way", "name"),
        [
            *itertools.product(["http", "https"], ["TRICKLE", "HEADER_TRICKLE"]),
            ("through a proxy", "HEADER_TRICKLE"),  # in answer to CONNECT
        ],
    )
    def test_that_does_not_end_leaves_no_thread_and_no_descriptor_once_it_is_given_up(
        self, pki: Pki, monkeypatch: pytest.MonkeyPatch, way: str, name: str
    ) -> None:
        """A server that sends a byte now and then would keep both forever, and each attempt adds more."""
        with OAuthServer(server_context(pki) if way == "https" else None) as server:
            before = descriptors()
            transport: dict[str, Any] = {"ca_bundle": pki.ca}
            url = server.token_endpoint
            if way == "through a proxy":
                transport, url = {"proxies": {"https": server.origin}}, "https://id.example.com/token"
            server.script.append(getattr(oauth_server, name))
            requests = server.requests

            class Impatient(queue.SimpleQueue[Any]):
                def get(self, block: bool = True, timeout: float | None = None) -> Any:
                    wait_until(lambda: bool(requests), "the request")
                    raise queue.Empty

            with monkeypatch.context() as patch:
                patch.setattr(queue, "SimpleQueue", Impatient)
                assert "no answer within" in str(failure(url, **transport, timeout=(20, 20)))
            wait_until(lambda: not exchanges(), "end of the thread", timeout=5)
            wait_until(lambda: descriptors() <= before, "end of the connection at both ends", timeout=5)

    def test_that_nobody_waits_for_any_more_is_not_asked_for(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name server was slow, for instance."""
        resolved, given_up, resolve = threading.Event(), threading.Event(), socket.getaddrinfo

        def slowly(*arguments: Any) -> Any:
            given_up.wait(20)
            resolved.set()
            return resolve(*arguments)

        monkeypatch.setattr(socket, "getaddrinfo", slowly)
        failure(server.token_endpoint, timeout=SOON)
        given_up.set()
        assert resolved.wait(20)
        wait_until(lambda: not exchanges(), "end of the thread", timeout=5)
        assert server.requests == []

    def test_thread_of_an_exchange_ends_when_the_server_falls_silent(self, server: OAuthServer) -> None:
        server.script.append(oauth_server.SILENCE)
        failure(server.token_endpoint, timeout=SOON)
        wait_until(lambda: not exchanges(), "end of the thread", timeout=3)


class TestNetwork:
    def test_nobody_there_is_unavailable_and_says_why(self) -> None:
        error = failure(f"http://127.0.0.1:{free_port()}/token")
        assert isinstance(error, AuthorizationServerUnavailable)
        assert "Connection refused" in str(error)

    def test_messages_name_the_server_without_the_query(self, server: OAuthServer) -> None:
        server.script.append(answer(b"", 503))
        assert str(failure(f"{server.token_endpoint}?code=secret")) == f"{server.token_endpoint}: HTTP 503"

    def test_unknown_host_is_unavailable(self) -> None:
        assert isinstance(failure("https://nobody.invalid/token"), AuthorizationServerUnavailable)

    def test_proxy_that_is_given_is_used(self, server: OAuthServer) -> None:
        url = "http://id.example.com/token"
        post(url, allow_insecure=True, proxies={"http": server.origin})
        assert server.requests[0].path == url

    @pytest.mark.parametrize("given", ["proxies={'http': 'socks5://127.0.0.1:1'}", "proxies=None"])
    def test_socks_without_its_extra_is_a_line_that_names_it(self, given: str) -> None:
        program = (
            "import sys; sys.modules['socks'] = None; from mqtt_token_client.sources.oauth.http import HttpClient; "
            f"HttpClient({given}, allow_insecure=True).send('GET', 'http://id.example.com')"
        )
        environment = {"http_proxy": "socks5://127.0.0.1:1", "PYTHONPATH": ":".join(sys.path)}
        ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert ended.stderr.splitlines()[-1] == (
            'mqtt_token_client.errors.ConfigurationError: proxies: a SOCKS proxy needs the "proxy" extra: '
            "pip install 'mqtt-token-client[proxy]'"
        )

    def test_proxy_of_the_environment_is_used(self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", server.origin)
        post("http://id.example.com/token", allow_insecure=True)
        assert server.requests[0].headers["host"] == "id.example.com"

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_proxy_of_the_environment_gets_nothing_that_is_for_this_machine(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch, host: str
    ) -> None:
        with OAuthServer() as proxy:
            monkeypatch.setenv("http_proxy", proxy.origin)
            post(server.token_endpoint.replace("127.0.0.1", host))
            assert (len(server.requests), len(proxy.requests)) == (1, 0)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"timeout": 5},
            {"timeout": (1, 2, 3)},
            {"timeout": (0, 1)},
            {"timeout": (1, float("nan"))},
            {"timeout": (1, 1e9)},
            {"timeout": ("1", 1)},
            {"ca_bundle": "/no/such/file.pem"},
            {"ca_bundle": 5},
            {"proxies": "http://proxy.example.com"},
            {"proxies": {"https": None}},
        ],
        ids=str,
    )
    def test_wrong_argument_is_named(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            HttpClient(**wrong)


class TestUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "https://id.example.com/token",
            "https://id.example.com:8443/a?tenant=1",
            "http://127.9.9.9/",
            "http://[::1]:80/",
            "http://LOCALHOST/",
            "http://id.localhost/",
        ],
    )
    def test_over_tls_or_on_this_machine_is_right(self, url: str) -> None:
        assert url_problem(url, allow_insecure=False) is None

    @pytest.mark.parametrize(
        "url",
        [
            None,
            b"https://id.example.com",
            "",
            "id.example.com/token",
            "ftp://id.example.com",
            "https://",
            "https://[::1",
            "https://id.example.com:port/",
            "https://id.example.com/a b",
            "https://id.example.com/\n",
            "https://user:password@id.example.com/",
            "https://id.example.com/#token",
            "http://id.example.com/",
            "http://localhost.example.com/",
            "http://127.0.0.1.example.com/",
            "http://10.0.0.1/",
        ],
    )
    def test_anything_else_has_a_problem(self, url: object) -> None:
        assert url_problem(url, allow_insecure=False)

    def test_plain_http_may_be_allowed_by_name(self) -> None:
        assert url_problem("http://id.example.com/", allow_insecure=True) is None


def certificate(pki: Pki, folder: Path, first: int, last: int, usage: str = "SERVER_AUTH") -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 of the tests' authority, valid from and to days from now; and its key."""
    now, key = datetime.datetime.now(datetime.UTC), ec.generate_private_key(ec.SECP256R1())
    signed = pki._sign(
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "one of the tests")]))
        .issuer_name(pki._name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=first))
        .not_valid_after(now + datetime.timedelta(days=last))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, usage)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(pki._key.public_key()), critical=False)
    )
    paths = folder / f"{usage}{first}.pem", folder / f"{usage}{first}.key"
    paths[0].write_bytes(signed)
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class TestTls:
    def context(self, chain: Path, key: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        return context

    def test_ca_bundle_is_what_is_trusted(self, pki: Pki) -> None:
        with OAuthServer(self.context(pki.server.certificate, pki.server.key)) as server:
            post(server.token_endpoint, ca_bundle=pki.ca)
            post(server.token_endpoint, ca_bundle=str(pki.ca))

    def test_unknown_authority_is_for_a_person_to_fix(self, pki: Pki) -> None:
        with OAuthServer(self.context(pki.server.certificate, pki.server.key)) as server:
            error = failure(server.token_endpoint)
        assert isinstance(error, AuthorizationServerUntrusted)
        assert error.permanent
        assert "certificate was not accepted: " in str(error)
        assert "give the file of the authority that issued it: ca_bundle='plant-ca.pem'" in str(error)

    @pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nMIIB"])
    def test_ca_bundle_without_a_certificate_is_named(self, pki: Pki, tmp_path: Path, content: bytes) -> None:
        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"^ca_bundle must be a PEM file; .* contains no certificate$"):
            HttpClient(ca_bundle=bundle)
        HttpClient(ca_bundle=tmp_path)  # a folder

    @pytest.mark.parametrize("content", [b"", b"garbage", None])
    def test_ca_bundle_that_is_being_replaced_is_trouble_that_passes(
        self, pki: Pki, tmp_path: Path, content: bytes | None
    ) -> None:
        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(pki.ca.read_bytes())
        client = HttpClient(ca_bundle=bundle)
        with OAuthServer(self.context(pki.server.certificate, pki.server.key)) as server:
            bundle.unlink() if content is None else bundle.write_bytes(content)
            with pytest.raises(AuthorizationServerUnavailable, match=r"ca_bundle: .*ca\.pem' contains no certificate"):
                client.send("POST", server.token_endpoint)
            bundle.write_bytes(pki.ca.read_bytes())
            assert client.send("POST", server.token_endpoint).status == 200

    def test_trusted_certificates_that_are_not_there_are_for_a_person_to_fix(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
        error = failure(server.token_endpoint.replace("http:", "https:"))
        assert isinstance(error, AuthorizationServerUntrusted)
        assert "/no/such/file.pem" in str(error)

    def test_certificate_of_another_host_is_for_a_person_to_fix(self, pki: Pki) -> None:
        with OAuthServer(self.context(pki.other_host.certificate, pki.other_host.key)) as server:
            error = failure(server.token_endpoint, ca_bundle=pki.ca)
        assert isinstance(error, AuthorizationServerUntrusted)
        assert "127.0.0.1" in str(error)

    @pytest.mark.parametrize(
        ("first", "last", "says"),
        [(1, 7, "UTC: set the clock"), (-7, -1, "UTC: renew the server's certificate, or set the clock")],
        ids=["not yet valid", "expired"],
    )
    def test_certificate_of_another_time_may_be_this_devices_clock_and_passes(
        self, pki: Pki, first: int, last: int, says: str
    ) -> None:
        issued = pki.issue_for_days(first, last)
        with OAuthServer(self.context(issued.certificate, issued.key)) as server:
            error = failure(server.token_endpoint, ca_bundle=pki.ca)
        assert isinstance(error, AuthorizationServerUnavailable)
        assert "by this device's clock, which says 20" in str(error)
        assert says in str(error)

    def test_plain_http_on_the_port_is_unavailable(self, server: OAuthServer) -> None:
        error = failure(server.token_endpoint.replace("http:", "https:"))
        assert isinstance(error, AuthorizationServerUnavailable)
        assert str(error).endswith("perhaps this port does not speak TLS")

    def test_port_that_plain_http_is_sent_to_is_named(self, pki: Pki) -> None:
        with OAuthServer(self.context(pki.server.certificate, pki.server.key)) as server:
            error = failure(server.token_endpoint.replace("https:", "http:"))
        assert isinstance(error, AuthorizationServerUnavailable)
        assert str(error).endswith("; if this port speaks TLS, the URL must begin with https://")

    def test_certificate_of_the_client_that_the_server_requires_is_named(self, pki: Pki) -> None:
        context = self.context(pki.server.certificate, pki.server.key)
        context.load_verify_locations(pki.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        with OAuthServer(context) as server:
            error = failure(server.token_endpoint, ca_bundle=pki.ca)
        assert " requires a client certificate: client_auth=MutualTLS(" in str(error)

    def test_client_authentication_by_certificate_can_be_added(self, pki: Pki, tmp_path: Path) -> None:
        chain, key = certificate(pki, tmp_path, -1, 1, "CLIENT_AUTH")

        class ByCertificate:
            def authenticate(self, request: TokenRequest) -> None:
                request.form.append(("client_id", request.client_id))
                request.certificate = (str(chain), str(key))
                request.url = request.metadata["mtls_endpoint_aliases"]["token_endpoint"]

        context = self.context(pki.server.certificate, pki.server.key)
        context.load_verify_locations(pki.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        with OAuthServer(context) as server:
            alias = {"token_endpoint": f"{server.origin}/with-certificate"}
            metadata = {"token_endpoint": server.token_endpoint, "mtls_endpoint_aliases": alias}
            TokenEndpoint("pump-17", ByCertificate(), metadata, HttpClient(ca_bundle=pki.ca)).token(FORM)
            assert server.requests[0].path == "/with-certificate"
            assert server.requests[0].form == [*FORM, ("client_id", "pump-17")]
