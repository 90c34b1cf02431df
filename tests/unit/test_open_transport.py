"""From a URL to an open connection: against real servers and proxies on loopback."""

from __future__ import annotations

import base64
import contextlib
import datetime
import errno
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devtools.servers.pki import Certificate, Pki
from devtools.servers.processes import free_port
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import BrokerRefused, BrokerUnreachable, CertificateRejected, ConfigurationError
from mqtt_token_client.mqtt.transport import (
    happy_eyeballs,
    open as dial_module,
    websocket,  # noqa: F401 - its clock is replaced
)
from mqtt_token_client.mqtt.transport.address import Address, parse_broker
from mqtt_token_client.mqtt.transport.open import open_transport
from mqtt_token_client.mqtt.transport.proxy import check_proxy
from mqtt_token_client.mqtt.transport.tls import check_context
from tests.unit.stepped_loop import replaced
from tests.unit.websocket_server import WebSocketPeer

_SHAPE = "broker must be a URL of a host and perhaps a port from 1 to 65535, such as mqtts://broker.example.com:8883"
_NO_CREDENTIALS = "broker must not hold a user name or password; the token is the password"
_SCHEMES = "broker must begin with mqtts://, wss://, mqtt:// or ws://, got"
_PATH = "broker must have a path of ASCII characters without spaces; percent-encode the others"


def _plain(host: str, scheme: str = "mqtt", better: str = "mqtts") -> str:
    return f"broker: {scheme}:// to {host} would send the token unencrypted; use {better}://, or allow_insecure=True"


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "address", "text"),
        [
            ("mqtts://b.example", Address("b.example", 8883, True), "mqtts://b.example:8883"),
            ("mqtts://b.example:443", Address("b.example", 443, True), "mqtts://b.example:443"),
            ("mqtts://b.example:65535", Address("b.example", 65535, True), "mqtts://b.example:65535"),
            ("mqtts://b.example:", Address("b.example", 8883, True), "mqtts://b.example:8883"),
            ("mqtts://b.example/", Address("b.example", 8883, True), "mqtts://b.example:8883"),
            ("MQTTS://B.Example", Address("b.example", 8883, True), "mqtts://b.example:8883"),
            ("mqtts://bücher.example", Address("bücher.example", 8883, True), "mqtts://bücher.example:8883"),
            ("mqtts://10.0.0.5", Address("10.0.0.5", 8883, True), "mqtts://10.0.0.5:8883"),
            ("mqtts://[2001:db8::1]:8884", Address("2001:db8::1", 8884, True), "mqtts://[2001:db8::1]:8884"),
            ("mqtt://localhost", Address("localhost", 1883, False), "mqtt://localhost:1883"),
            ("mqtt://LOCALHOST:1884", Address("localhost", 1884, False), "mqtt://localhost:1884"),
            ("mqtt://127.0.0.1", Address("127.0.0.1", 1883, False), "mqtt://127.0.0.1:1883"),
            ("mqtt://127.255.0.9", Address("127.255.0.9", 1883, False), "mqtt://127.255.0.9:1883"),
            ("mqtt://[::1]", Address("::1", 1883, False), "mqtt://[::1]:1883"),
            ("mqtt://idp.localhost", Address("idp.localhost", 1883, False), "mqtt://idp.localhost:1883"),
            ("mqtt://localhost.", Address("localhost.", 1883, False), "mqtt://localhost.:1883"),
            ("ws://a.b.LOCALHOST", Address("a.b.localhost", 80, False, "/"), "ws://a.b.localhost:80/"),
            ("wss://b.example", Address("b.example", 443, True, "/"), "wss://b.example:443/"),
            ("wss://b.example/mqtt", Address("b.example", 443, True, "/mqtt"), "wss://b.example:443/mqtt"),
            ("wss://b.example:8084/a/b%20c", Address("b.example", 8084, True, "/a/b%20c"), None),
            ("WSS://[2001:db8::1]/Mqtt", Address("2001:db8::1", 443, True, "/Mqtt"), "wss://[2001:db8::1]:443/Mqtt"),
            ("ws://localhost/mqtt", Address("localhost", 80, False, "/mqtt"), "ws://localhost:80/mqtt"),
        ],
    )
    def test_of_a_broker(self, url: str, address: Address, text: str | None) -> None:
        assert parse_broker(url) == address
        assert str(address) == (text or url)

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            (None, "broker must be a URL such as 'mqtts://broker.example.com', got NoneType"),
            (b"mqtts://b.example", "broker must be a URL such as 'mqtts://broker.example.com', got bytes"),
            (8883, "broker must be a URL such as 'mqtts://broker.example.com', got int"),
            ("", f"{_SCHEMES} a URL without a scheme"),
            ("b.example", f"{_SCHEMES} a URL without a scheme"),
            ("https://b.example", f"{_SCHEMES} https://"),
            ("mqtts://", _SHAPE),
            ("mqtts:b.example", _SHAPE),
            ("mqtts:///b.example", _SHAPE),
            ("mqtts://:8883", _SHAPE),
            ("mqtts://b.example:0", _SHAPE),
            ("mqtts://b.example:65536", _SHAPE),
            ("mqtts://b.example:-1", _SHAPE),
            ("mqtts://b.example:mqtt", _SHAPE),
            ("mqtts://b.example/pump", _SHAPE),
            ("mqtts://b.example?pump=17", _SHAPE),
            ("mqtts://b.example#pump", _SHAPE),
            ("mqtts://[::1", _SHAPE),
            ("mqtts://[pump]", _SHAPE),
            ("mqtts://b..example", _SHAPE),
            (f"mqtts://{'b' * 64}.example", _SHAPE),
            ("mqtts://user@b.example", _NO_CREDENTIALS),
            ("mqtts://user:a-secret@b.example", _NO_CREDENTIALS),
            ("mqtts://:a-secret@b.example", _NO_CREDENTIALS),
            ("mqtt://b.example", _plain("b.example")),
            ("mqtt://localhost.b.example", _plain("localhost.b.example")),
            ("mqtt://127.0.0.1.b.example", _plain("127.0.0.1.b.example")),
            ("mqtt://notlocalhost", _plain("notlocalhost")),
            ("mqtt://10.0.0.5:1883", _plain("10.0.0.5")),
            ("mqtt://0.0.0.0", _plain("0.0.0.0")),
            ("mqtt://[2001:db8::1]", _plain("2001:db8::1")),
            ("ws://b.example/mqtt", _plain("b.example", "ws", "wss")),
            ("wss://b.example/mqtt?pump=17", _SHAPE),
            ("wss://b.example/mqtt#pump", _SHAPE),
            ("wss:///mqtt", _SHAPE),
            ("wss://user:a-secret@b.example/mqtt", _NO_CREDENTIALS),
            ("wss://b.example/a b", _PATH),
            ("wss://b.example/bücher", _PATH),
            ("wss://b.example/\x7f", _PATH),
        ],
    )
    def test_that_are_none_of_a_broker_are_refused_in_one_line(self, url: Any, says: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{re.escape(says)}$"):
            parse_broker(url)

    def test_plain_mqtt_to_another_machine_is_for_those_who_ask_for_it(self) -> None:
        assert parse_broker("mqtt://b.example", allow_insecure=True) == Address("b.example", 1883, False)
        assert parse_broker("ws://b.example", allow_insecure=True) == Address("b.example", 80, False, "/")


class TestContexts:
    def test_one_that_verifies_is_taken_as_it_is(self) -> None:
        context = ssl.create_default_context()
        assert check_context(context) is context

    def test_versions_before_tls_1_2_are_switched_off(self) -> None:
        context = ssl.create_default_context()
        with pytest.deprecated_call():
            context.minimum_version = ssl.TLSVersion.TLSv1
        assert check_context(context).minimum_version is ssl.TLSVersion.TLSv1_2

    def test_a_higher_version_stays(self) -> None:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        assert check_context(context).minimum_version is ssl.TLSVersion.TLSv1_3

    def _lenient(self) -> list[ssl.SSLContext]:
        no_hostname, optional, none = (ssl.create_default_context() for _ in range(3))
        for context in (no_hostname, optional, none):
            context.check_hostname = False
        optional.verify_mode, none.verify_mode = ssl.CERT_OPTIONAL, ssl.CERT_NONE
        optional_with_name = ssl.create_default_context()
        optional_with_name.verify_mode = ssl.CERT_OPTIONAL
        return [no_hostname, optional, none, optional_with_name]

    def test_one_that_does_not_verify_is_refused(self) -> None:
        for context in self._lenient():
            with pytest.raises(
                ConfigurationError,
                match=r"^tls must be a context that verifies the broker; or set allow_insecure=True$",
            ):
                check_context(context)

    def test_one_that_does_not_verify_is_for_those_who_ask_for_it(self) -> None:
        for context in self._lenient():
            mode = context.verify_mode
            assert check_context(context, allow_insecure=True) is context
            assert context.verify_mode is mode

    @pytest.mark.parametrize("context", [None, True, "ca.pem", ssl])
    def test_what_is_not_one_is_rejected(self, context: Any) -> None:
        says = rf"^tls must be TlsFiles, such as .*, or an ssl\.SSLContext, got {type(context).__name__}$"
        with pytest.raises(ConfigurationError, match=says):
            check_context(context)


Handler = Callable[[socket.socket], object]


class Server:
    """Accepts connections on loopback, one at a time, and hands each to a function."""

    def __init__(self, handle: Handler, host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._handle = handle
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(20)
            with sock, contextlib.suppress(OSError):
                self._handle(sock)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=30)
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(handle: Handler, host: str = "127.0.0.1", port: int = 0) -> Server:
        servers.append(Server(handle, host, port))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1000):
        sock.sendall(data)


def tls_echo(certificate: Certificate) -> Handler:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)

    def handle(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as wrapped:
            echo(wrapped)

    return handle


def dribble(answer: bytes, gone: threading.Event) -> Handler:
    """Answers a byte at a time, twenty a second; ``gone`` is set if the other end closes before that is over."""

    def handle(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.settimeout(0.05)
        for byte in answer:
            with contextlib.suppress(TimeoutError):
                while sock.recv(1000):
                    pass
                gone.set()
                return
            sock.sendall(bytes((byte,)))

    return handle


def answers(sock: socket.socket) -> bool:
    """Whether an echo comes back; closes the socket."""
    with sock:
        sock.settimeout(20)
        sock.sendall(b"to the broker")
        return sock.recv(1000) == b"to the broker"


def plain(port: int, host: str = "127.0.0.1") -> Address:
    return Address(host, port, tls=False)


@pytest.fixture
def context(pki: Pki) -> ssl.SSLContext:
    return check_context(ssl.create_default_context(cafile=pki.ca))


class TestTcp:
    def test_reaches_the_broker(self, serve: Callable[..., Server]) -> None:
        assert answers(open_transport(plain(serve(echo).port), None, None))

    def test_neither_blocks_nor_holds_small_packets_back(self, serve: Callable[..., Server]) -> None:
        with open_transport(plain(serve(echo).port), None, None) as sock:
            assert sock.gettimeout() == 0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    @pytest.mark.parametrize(
        ("keepalive", "seconds"), [(1, 15), (60, 60), (300, 300), (65_535, 32_767)], ids=lambda value: str(value)
    )
    def test_a_connection_that_is_dead_is_given_up_in_about_the_keepalive(
        self, serve: Callable[..., Server], keepalive: int, seconds: int
    ) -> None:
        with open_transport(plain(serve(echo).port), None, None, keepalive=keepalive) as sock:
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            options = [sock.getsockopt(socket.IPPROTO_TCP, name) for name in names]
        assert options == [seconds, seconds // 3, 3, seconds * 1000]

    def test_without_a_keepalive_the_operating_system_decides(self, serve: Callable[..., Server]) -> None:
        with open_transport(plain(serve(echo).port), None, None, keepalive=0) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0

    def test_reaches_a_name_by_whichever_of_its_addresses_listens(self, serve: Callable[..., Server]) -> None:
        assert answers(open_transport(plain(serve(echo).port, "localhost"), None, None))

    def test_reaches_the_broker_by_ipv6(self, serve: Callable[..., Server]) -> None:
        try:
            server = serve(echo, "::1")
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        assert answers(open_transport(plain(server.port, "::1"), None, None))

    def test_a_port_where_nobody_listens_is_unreachable(self) -> None:
        port = free_port()
        with pytest.raises(
            BrokerUnreachable, match=rf"^mqtt://127\.0\.0\.1:{port}: no connection: Connection refused$"
        ):
            open_transport(plain(port), None, None)

    def test_a_host_that_nobody_knows_is_unreachable(self) -> None:
        with pytest.raises(
            BrokerUnreachable, match=r"^mqtt://no-such-host\.invalid:1883: no connection: .*[nN]ame"
        ) as raised:
            open_transport(plain(1883, "no-such-host.invalid"), None, None)
        assert not raised.value.permanent


def _self_signed(
    folder: Path, begins: datetime.timedelta, ends: datetime.timedelta, names: tuple[str, ...] = ("localhost",)
) -> Certificate:
    """A certificate that is its own authority, valid from and to some time from now. Its Common Name is localhost, its
    subjectAltName has the names.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
    certificate = builder.sign(key, hashes.SHA256())
    paths = Certificate(folder / "certificate.pem", folder / "certificate.key")
    paths.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


_DATE = r"20\d\d-\d\d-\d\d \d\d:\d\d UTC"
_CLOCK = f"by this device's clock, which says {_DATE}"


class TestTls:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_reaches_a_broker_whose_certificate_is_for_that_host(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext, host: str
    ) -> None:
        sock = open_transport(Address(host, serve(tls_echo(pki.server)).port, tls=True), context, None)
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.version() in ("TLSv1.2", "TLSv1.3")
        assert sock.gettimeout() == 0
        assert answers(sock)

    def test_a_certificate_for_another_host_is_rejected_for_good(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext
    ) -> None:
        port = serve(tls_echo(pki.other_host)).port
        says = (
            rf"^mqtts://localhost:{port}: its certificate was not accepted: Hostname mismatch, certificate is not "
            r"valid for 'localhost'; give the URL with a name that the certificate has in its subjectAltName, or "
        )
        with pytest.raises(CertificateRejected, match=says) as raised:
            open_transport(Address("localhost", port, tls=True), context, None)
        assert raised.value.permanent

    def test_a_certificate_of_an_unknown_authority_is_rejected_for_good(
        self, serve: Callable[..., Server], pki: Pki
    ) -> None:
        port = serve(tls_echo(pki.server)).port
        says = (
            rf"^mqtts://localhost:{port}: its certificate was not accepted: .*(issuer|self-signed).*; give the file of "
            r"the authority that issued it: tls=TlsFiles\(ca_bundle='plant-ca\.pem'\), or ca_bundle in "
            r"a TOML file; or have the server send its whole chain$"
        )
        with pytest.raises(CertificateRejected, match=says):
            open_transport(Address("localhost", port, tls=True), ssl.create_default_context(), None)

    @pytest.mark.parametrize(
        ("begins", "ends", "says"),
        [
            (
                -10,
                -1,
                rf"expired; its authority expired on {_DATE}, {_CLOCK}: tls=.*; or set the clock, if it is wrong$",
            ),
            (1, 10, rf"certificate is not yet valid( or the system clock is incorrect)?; {_CLOCK}: set the clock"),
        ],
    )
    def test_a_certificate_of_another_time_passes_when_the_clock_is_set(
        self, serve: Callable[..., Server], tmp_path: Path, begins: int, ends: int, says: str
    ) -> None:
        certificate = _self_signed(tmp_path, datetime.timedelta(days=begins), datetime.timedelta(days=ends))
        context = ssl.create_default_context(cafile=certificate.certificate)
        port = serve(tls_echo(certificate)).port
        with pytest.raises(BrokerUnreachable, match=says) as raised:
            open_transport(Address("localhost", port, tls=True), context, None)
        assert not raised.value.permanent

    def test_an_expired_certificate_of_a_valid_authority_is_for_the_server_to_renew(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext
    ) -> None:
        expired = pki.issue_for_days(-10, -1)
        says = (
            r"certificate has expired; by this device's clock, which says 20\S+ \S+ UTC: renew the server's certificate"
        )
        with pytest.raises(BrokerUnreachable, match=says):
            open_transport(Address("localhost", serve(tls_echo(expired)).port, tls=True), context, None)

    def test_the_same_certificate_at_its_time_is_accepted(self, serve: Callable[..., Server], tmp_path: Path) -> None:
        certificate = _self_signed(tmp_path, datetime.timedelta(days=-1), datetime.timedelta(days=1))
        context = ssl.create_default_context(cafile=certificate.certificate)
        assert answers(open_transport(Address("localhost", serve(tls_echo(certificate)).port, tls=True), context, None))

    @pytest.mark.parametrize("path", [None, "/mqtt"], ids=["mqtts", "wss"])
    def test_a_certificate_that_has_the_name_in_its_common_name_only_is_rejected(
        self, serve: Callable[..., Server], tmp_path: Path, path: str | None
    ) -> None:
        """RFC 9525 section 6.3: the subjectAltName is what names a server."""
        day = datetime.timedelta(days=1)
        certificate = _self_signed(tmp_path, -day, day, names=())
        context = check_context(ssl.create_default_context(cafile=certificate.certificate))
        address = Address("localhost", serve(tls_echo(certificate)).port, tls=True, path=path)
        with pytest.raises(CertificateRejected, match="Hostname mismatch"):
            open_transport(address, context, None)

    @pytest.mark.parametrize(
        "handle",
        [lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), lambda _: None, lambda sock: sock.recv(1000)],
        ids=["something else", "nothing", "its end"],
    )
    def test_a_port_that_speaks_no_tls_is_unreachable(
        self, serve: Callable[..., Server], context: ssl.SSLContext, handle: Handler
    ) -> None:
        port = serve(handle).port
        says = rf"^mqtts://localhost:{port}: no TLS connection: .*; perhaps this port does not speak TLS$"
        with pytest.raises(BrokerUnreachable, match=says) as raised:
            open_transport(Address("localhost", port, tls=True), context, None)
        assert not raised.value.permanent

    def test_a_broker_that_never_answers_is_unreachable(
        self, serve: Callable[..., Server], context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dial_module, "_TIMEOUT", 0.2)
        port = serve(lambda sock: [*iter(lambda: sock.recv(1000), b"")]).port
        with pytest.raises(BrokerUnreachable, match=r"no TLS connection: .*timed out"):
            open_transport(Address("localhost", port, tls=True), context, None)

    def test_what_failed_leaves_no_connection_open(self, serve: Callable[..., Server], context: ssl.SSLContext) -> None:
        gone = threading.Event()

        def never_mind(sock: socket.socket) -> None:
            sock.sendall(b"no TLS at all, but something else")
            with contextlib.suppress(OSError):
                while sock.recv(1000):
                    pass
            gone.set()

        with pytest.raises(BrokerUnreachable) as raised:
            open_transport(Address("localhost", serve(never_mind).port, tls=True), context, None)
        assert gone.wait(10)
        assert raised.value.__cause__ is None


def tls_server(certificate: Certificate, ca: Path | None = None, tickets: int = 2) -> ssl.SSLContext:
    """A server's context; with ``ca`` it wants a client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.load_cert_chain(certificate.certificate, certificate.key)
    context.num_tickets = tickets
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def tls_echo_by(contexts: list[ssl.SSLContext], resumed: list[bool | None] | None = None) -> Handler:
    """An echo whose n-th connection has the n-th context, or the last; it records which were resumed."""
    order = iter(contexts)
    current = contexts[0]

    def handle(sock: socket.socket) -> None:
        nonlocal current
        current = next(order, current)
        with current.wrap_socket(sock, server_side=True) as wrapped:
            if resumed is not None:
                resumed.append(wrapped.session_reused)
            echo(wrapped)

    return handle


def echoed(sock: socket.socket) -> ssl.SSLSession | None:
    """The TLS session of a connection after the first answer, when a ticket of TLS 1.3 has come; closes it."""
    assert isinstance(sock, ssl.SSLSocket)
    with sock:
        sock.settimeout(20)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        return sock.session


class TestTlsSessions:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_are_resumed_again_and_again(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext, version: ssl.TLSVersion
    ) -> None:
        context.maximum_version = version
        resumed: list[bool | None] = []
        address = Address("localhost", serve(tls_echo_by([tls_server(pki.server)], resumed)).port, tls=True)
        session = echoed(open_transport(address, context, None))
        for _ in range(3):
            session = echoed(open_transport(address, context, None, session=session))
        assert resumed == [False, True, True, True]

    def test_that_the_server_does_not_know_any_more_cost_nothing(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext
    ) -> None:
        resumed: list[bool | None] = []
        servers = [tls_server(pki.server), tls_server(pki.server)]  # the second has another key for its tickets
        address = Address("localhost", serve(tls_echo_by(servers, resumed)).port, tls=True)
        session = echoed(open_transport(address, context, None))
        echoed(open_transport(address, context, None, session=session))
        assert resumed == [False, False]

    def test_that_the_server_breaks_the_handshake_for_are_left_out_at_once(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext
    ) -> None:
        """As OpenSSL's do that verify clients and were given no session id context."""
        server = tls_echo_by([tls_server(pki.server)])
        handled = 0

        def handle(sock: socket.socket) -> None:
            nonlocal handled
            handled += 1
            if handled == 2:
                sock.recv(65_536)
                sock.sendall(b"\x15\x03\x03\x00\x02\x02\x50")  # alert: internal error (RFC 8446 section 6.2)
                return
            server(sock)

        address = Address("localhost", serve(handle).port, tls=True)
        session = echoed(open_transport(address, context, None))
        echoed(open_transport(address, context, None, session=session))
        assert handled == 3

    def test_do_not_pass_for_the_certificate_of_another_host(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext
    ) -> None:
        servers = [tls_server(pki.server), tls_server(pki.other_host)]
        address = Address("localhost", serve(tls_echo_by(servers)).port, tls=True)
        session = echoed(open_transport(address, context, None))
        with pytest.raises(CertificateRejected, match="Hostname mismatch"):
            open_transport(address, context, None, session=session)


class TestMutualTls:
    def test_shows_the_certificate_of_the_context_also_when_resumed(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext
    ) -> None:
        server = tls_server(pki.server, pki.ca)
        shown: list[Any] = []

        def handle(sock: socket.socket) -> None:
            with server.wrap_socket(sock, server_side=True) as wrapped:
                shown.append((wrapped.session_reused, wrapped.getpeercert()))
                echo(wrapped)

        context.load_cert_chain(pki.client.certificate, pki.client.key)
        address = Address("localhost", serve(handle).port, tls=True)
        session = echoed(open_transport(address, context, None))
        echoed(open_transport(address, context, None, session=session))
        assert [reused for reused, _ in shown] == [False, True]
        for _, certificate in shown:
            assert certificate["subjectAltName"] == (("DNS", "pump-17.example"),)

    def test_a_broker_that_wants_a_certificate_and_gets_none_is_unreachable(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext
    ) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # TLS 1.3 tells a client only when it reads
        port = serve(tls_echo_by([tls_server(pki.server, pki.ca)])).port
        says = "no TLS connection: the server requires a client.*: tls=TlsFiles.certificate=.* certificate and key"
        with pytest.raises(BrokerUnreachable, match=says):
            open_transport(Address("localhost", port, tls=True), context, None)


def websocket_echo(sock: socket.socket, **answer: Any) -> None:
    peer = WebSocketPeer(sock)
    peer.accept(**answer)
    while data := peer.recv(1000):
        peer.sendall(data)


def websocket_answers(sock: socket.socket) -> bool:
    """Whether an echo comes back over a WebSocket; closes it."""
    assert sock.send(b"to the broker") == 13
    data = b""
    while len(data) < 13:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            data += sock.recv(1000)
            continue
        assert select.select([sock], [], [], 20)[0]
    sock.close()
    return data == b"to the broker"


class TestWebSockets:
    def test_reach_the_broker(self, serve: Callable[..., Server]) -> None:
        address = Address("127.0.0.1", serve(websocket_echo).port, tls=False, path="/mqtt")
        assert websocket_answers(open_transport(address, None, None))

    def test_reach_the_broker_by_tls_and_resume_its_session(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext
    ) -> None:
        server, resumed = tls_server(pki.server), []

        def handle(sock: socket.socket) -> None:
            with server.wrap_socket(sock, server_side=True) as wrapped:
                resumed.append(wrapped.session_reused)
                websocket_echo(wrapped)

        address = Address("localhost", serve(handle).port, tls=True, path="/mqtt")
        first = open_transport(address, context, None)
        session = first.session  # type: ignore[attr-defined]  # a WebSocket's
        assert websocket_answers(first)
        assert websocket_answers(open_transport(address, context, None, session=session))
        assert resumed == [False, True]

    @pytest.mark.parametrize("kind", ["http", "socks5"])
    def test_reach_the_broker_through_a_proxy(self, serve: Callable[..., Server], kind: str) -> None:
        proxy = Proxy(serve(websocket_echo).port)
        url = f"{kind}://127.0.0.1:{serve(getattr(proxy, kind)).port}"
        assert websocket_answers(open_transport(Address("broker.test", 80, tls=False, path="/mqtt"), None, url))

    @pytest.mark.parametrize(("host", "written"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
    def test_carry_the_headers_and_name_host_port_and_path(
        self, serve: Callable[..., Server], host: str, written: str
    ) -> None:
        peers: list[WebSocketPeer] = []

        def handle(sock: socket.socket) -> None:
            peers.append(WebSocketPeer(sock))
            peers[0].refuse(401)

        try:
            port = serve(handle, host).port
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        with pytest.raises(BrokerRefused) as raised:
            open_transport(
                Address(host, port, tls=False, path="/a/mqtt"), None, None, {"Authorization": "Bearer a-secret"}
            )
        assert raised.value.reason == 0x87
        assert str(raised.value).startswith(f"ws://{written}:{port}/a/mqtt: ")
        assert peers[0].request == "GET /a/mqtt HTTP/1.1"
        assert peers[0].headers["host"] == f"{written}:{port}"
        assert peers[0].headers["authorization"] == "Bearer a-secret"

    def test_leave_the_standard_port_out_of_the_host_header(self, serve: Callable[..., Server]) -> None:
        peers: list[WebSocketPeer] = []

        def handle(sock: socket.socket) -> None:
            peers.append(WebSocketPeer(sock))
            peers[0].refuse(500)

        url = f"http://127.0.0.1:{serve(Proxy(serve(handle).port).http).port}"
        with pytest.raises(BrokerUnreachable):
            open_transport(Address("bücher.test", 80, tls=False, path="/"), None, url)
        assert peers[0].headers["host"] == "xn--bcher-kva.test"

    def test_that_do_not_answer_in_the_time_for_all_of_it_are_unreachable(
        self, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dial_module, "_TIMEOUT", 0.2)
        gone = threading.Event()

        def handle(sock: socket.socket) -> None:
            while sock.recv(1000):
                pass
            gone.set()

        address = Address("127.0.0.1", serve(handle).port, tls=False, path="/mqtt")
        with pytest.raises(BrokerUnreachable, match=rf"^{address}: no WebSocket connection: .*timed out$"):
            open_transport(address, None, None)
        assert gone.wait(20)


@pytest.mark.parametrize(
    ("tls", "path", "answer"),
    [
        (True, None, b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(400)),  # a long ServerHello
        (False, "/mqtt", b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 400),
    ],
    ids=["TLS", "WebSocket"],
)
def test_a_broker_that_dribbles_leaves_nothing_when_the_deadline_has_passed(
    serve: Callable[..., Server],
    context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    tls: bool,
    path: str | None,
    answer: bytes,
) -> None:
    monkeypatch.setattr(dial_module, "_TIMEOUT", 0.3)
    gone = threading.Event()
    address = Address("localhost", serve(dribble(answer, gone)).port, tls, path)
    with pytest.raises(BrokerUnreachable, match="timed out"):
        open_transport(address, context if tls else None, None)
    assert gone.wait(20)


class Proxy:
    """What a proxy was asked for; it connects to one port, whatever the name: nobody else knows the broker's."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.asked: list[Any] = []
        self.credentials: tuple[str, str] | None = None

    def http(self, sock: socket.socket) -> None:
        """RFC 9110 section 9.3.6."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1000)
        request, *headers = head.decode().split("\r\n")
        self.asked.append(request)
        if self.credentials is not None:
            basic = base64.b64encode(":".join(self.credentials).encode()).decode()
            if f"Proxy-Authorization: Basic {basic}" not in headers:
                sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
        for piece in (b"HTTP/1.", b"1 200 Connection established\r", b"\nVia: x\r\n\r\n"):  # as three segments
            sock.sendall(piece)
            time.sleep(0.01)
        self._relay(sock)

    def socks4(self, sock: socket.socket) -> None:
        """For a host by its IPv4 address; the user is the name that the proxy asks for."""
        version, command, *destination = sock.recv(8)
        assert (version, command) == (4, 1)
        user = b""
        while not user.endswith(b"\0"):
            user += sock.recv(1)
        self.asked.append((bytes(destination), user))
        granted = self.credentials is None or user[:-1].decode() == self.credentials[0]
        sock.sendall(bytes((0, 90 if granted else 93)) + bytes(6))
        if granted:
            self._relay(sock)

    def socks5(self, sock: socket.socket) -> None:
        """RFC 1928 and RFC 1929, for a host by name."""
        _, count = sock.recv(2)
        methods = sock.recv(count)
        if self.credentials is None:
            sock.sendall(b"\x05\x00")
        elif 2 not in methods:
            sock.sendall(b"\x05\xff")
            return
        else:
            sock.sendall(b"\x05\x02")
            user, password = (part.encode() for part in self.credentials)
            expected = bytes((1, len(user))) + user + bytes((len(password),)) + password
            granted = sock.recv(1000) == expected
            sock.sendall(b"\x01\x00" if granted else b"\x01\x01")
            if not granted:
                return
        *_, kind, length = sock.recv(5)
        name = sock.recv(length) if kind == 3 else b"an address, not a name"
        self.asked.append((name.decode(), int.from_bytes(sock.recv(2))))
        sock.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        self._relay(sock)

    def _relay(self, sock: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as broker:
            back = threading.Thread(target=self._pipe, args=(broker, sock))
            back.start()
            self._pipe(sock, broker)
            back.join()

    @staticmethod
    def _pipe(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def test_an_address_that_resets_a_new_connection_comes_after_the_others(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = serve(echo, "127.0.0.2")
    serve(lambda sock: sock.sendall(b"the other"), "127.0.0.3", bad.port)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, bad.port)) for host in ("127.0.0.2", "127.0.0.3")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(happy_eyeballs, "_HEAD_START", 1000.0)

    def broken(*_: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    with monkeypatch.context() as patched:
        patched.setattr(dial_module, "set_options", broken)
        with pytest.raises(BrokerUnreachable):
            open_transport(plain(bad.port, "localhost"), None, None)
    with open_transport(plain(bad.port, "localhost"), None, None) as sock:
        sock.settimeout(20)
        assert sock.recv(9) == b"the other"


@pytest.mark.parametrize("path", [None, "/mqtt"], ids=["TLS", "WebSocket"])
def test_an_address_that_ends_the_handshake_comes_after_the_others(
    serve: Callable[..., Server],
    pki: Pki,
    context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    path: str | None,
) -> None:
    bad = serve(lambda sock: sock.recv(1000), "127.0.0.2")
    serve(tls_echo(pki.server) if path is None else websocket_echo, "127.0.0.3", bad.port)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, bad.port)) for host in ("127.0.0.2", "127.0.0.3")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(happy_eyeballs, "_HEAD_START", 1000.0)
    tls = context if path is None else None
    address = Address("localhost", bad.port, tls=path is None, path=path)
    with pytest.raises(BrokerUnreachable):
        open_transport(address, tls, None)
    for _ in range(2):
        sock = open_transport(address, tls, None)
        assert answers(sock) if path is None else websocket_answers(sock)


def test_an_address_that_ends_the_handshake_because_of_a_session_gets_a_full_one(
    serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, handled = tls_echo(pki.server), 0

    def handle(sock: socket.socket) -> None:
        nonlocal handled
        handled += 1
        if handled == 2:
            sock.recv(65_536)
            sock.sendall(b"\x15\x03\x03\x00\x02\x02\x50")  # alert: internal error (RFC 8446 section 6.2)
            return
        server(sock)

    port = serve(handle, "127.0.0.2").port
    other = serve(lambda sock: sock.recv(1000), "127.0.0.3", port)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, other.port)) for host in ("127.0.0.2", "127.0.0.3")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(happy_eyeballs, "_HEAD_START", 1000.0)
    address = Address("localhost", port, tls=True)
    session = echoed(open_transport(address, context, None))
    echoed(open_transport(address, context, None, session=session))
    assert handled == 3


def unhurried(handle: Handler) -> Handler:
    """The same after a moment, longer than the least time that is set on a socket."""

    def handle_later(sock: socket.socket) -> None:
        time.sleep(0.05)
        handle(sock)

    return handle_later


class TestSlowResolvers:
    """They take longer than all the rest may."""

    @pytest.fixture(autouse=True)
    def _resolver(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        late = 0.0
        resolve, now = socket.getaddrinfo, monotonic

        def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
            nonlocal late
            late += 60.0 if host == "localhost" else 0.0  # the servers here use addresses
            return resolve(host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with replaced("monotonic", now, lambda: now() + late):
            yield
        assert late

    def test_leave_tls_its_time(self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext) -> None:
        port = serve(unhurried(tls_echo(pki.server))).port
        assert answers(open_transport(Address("localhost", port, tls=True), context, None))

    def test_leave_a_websocket_its_time(self, serve: Callable[..., Server]) -> None:
        address = Address("localhost", serve(unhurried(websocket_echo)).port, tls=False, path="/mqtt")
        assert websocket_answers(open_transport(address, None, None))

    @pytest.mark.parametrize("kind", ["http", "socks5", "socks4"])
    def test_leave_a_proxy_and_what_follows_their_time(
        self, serve: Callable[..., Server], pki: Pki, context: ssl.SSLContext, kind: str
    ) -> None:
        proxy = Proxy(serve(tls_echo(pki.server)).port)
        url = f"{kind}://localhost:{serve(getattr(proxy, kind)).port}"
        assert answers(open_transport(Address("localhost", 8883, tls=True), context, url))


@pytest.mark.parametrize("kind", ["http", "socks5"])
class TestProxies:
    @pytest.fixture
    def broker(self, serve: Callable[..., Server], pki: Pki) -> Server:
        return serve(tls_echo(pki.server))

    @pytest.fixture
    def proxy(self, broker: Server) -> Proxy:
        return Proxy(broker.port)

    def test_lead_to_the_broker_whose_certificate_is_checked_for_its_own_name(
        self, serve: Callable[..., Server], broker: Server, proxy: Proxy, context: ssl.SSLContext, kind: str
    ) -> None:
        url = f"{kind}://127.0.0.1:{serve(getattr(proxy, kind)).port}"
        sock = open_transport(Address("localhost", broker.port, tls=True), context, check_proxy(url))
        assert sock.gettimeout() == 0
        assert answers(sock)
        with pytest.raises(CertificateRejected):
            open_transport(Address("broker.test", broker.port, tls=True), context, url)

    def test_resolve_the_name_of_the_broker(self, serve: Callable[..., Server], kind: str) -> None:
        proxy = Proxy(serve(echo).port)
        url = f"{kind}://127.0.0.1:{serve(getattr(proxy, kind)).port}"
        assert answers(open_transport(plain(1883, "broker.test"), None, url))
        assert proxy.asked == ["CONNECT broker.test:1883 HTTP/1.1" if kind == "http" else ("broker.test", 1883)]

    def test_of_several_addresses_are_tried_at_the_others_after_one_that_came_to_nothing(
        self, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        bad = serve(lambda sock: sock.recv(1000), "127.0.0.2")
        serve(getattr(Proxy(serve(echo).port), kind), "127.0.0.3", bad.port)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, bad.port)) for host in ("127.0.0.2", "127.0.0.3")]
        resolve = socket.getaddrinfo
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *more, **names: found if host == "proxy.test" else resolve(host, *more, **names),
        )
        monkeypatch.setattr(happy_eyeballs, "_HEAD_START", 1000.0)
        url = f"{kind}://proxy.test:{bad.port}"
        with pytest.raises(BrokerUnreachable):
            open_transport(plain(1883, "broker.test"), None, url)
        assert answers(open_transport(plain(1883, "broker.test"), None, url))

    def test_get_their_credentials(self, serve: Callable[..., Server], kind: str) -> None:
        proxy = Proxy(serve(echo).port)
        proxy.credentials = ("pump", "a-secret of 17")
        url = f"{kind}://pump:a-secret%20of%2017@127.0.0.1:{serve(getattr(proxy, kind)).port}"
        assert answers(open_transport(plain(1883, "broker.test"), None, check_proxy(url)))

    @pytest.mark.parametrize("credentials", ["pump:another-secret@", ""])
    def test_that_refuse_make_the_broker_unreachable_and_no_secret_is_shown(
        self, serve: Callable[..., Server], kind: str, credentials: str
    ) -> None:
        proxy = Proxy(0)
        proxy.credentials = ("pump", "a-secret of 17")
        url = f"{kind}://{credentials}127.0.0.1:{serve(getattr(proxy, kind)).port}"
        says = r"^mqtt://broker\.test:1883: the proxy gave no connection: "
        with pytest.raises(BrokerUnreachable, match=says) as raised:
            open_transport(plain(1883, "broker.test"), None, url)
        assert "secret" not in str(raised.value)
        assert "secret" not in str(raised.value.__context__)

    @pytest.mark.parametrize("handle", [lambda _: None, lambda sock: sock.sendall(b"\0" * 10)], ids=["away", "garbage"])
    def test_that_fail_make_the_broker_unreachable(
        self, serve: Callable[..., Server], kind: str, handle: Handler
    ) -> None:
        url = f"{kind}://127.0.0.1:{serve(handle).port}"
        with pytest.raises(BrokerUnreachable, match=r"^mqtt://broker\.test:1883: "):
            open_transport(plain(1883, "broker.test"), None, url)

    def test_that_never_answer_make_the_broker_unreachable(
        self, serve: Callable[..., Server], kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dial_module, "_TIMEOUT", 0.2)
        url = f"{kind}://127.0.0.1:{serve(lambda sock: [*iter(lambda: sock.recv(1000), b'')]).port}"
        with pytest.raises(BrokerUnreachable, match=r"no connection: .*timed out"):
            open_transport(plain(1883, "broker.test"), None, url)

    def test_that_are_down_make_the_broker_unreachable(self, kind: str) -> None:
        port = free_port()
        says = rf"^mqtt://broker\.test:1883: no connection: .*proxy 127\.0\.0\.1:{port} \[Connection refused\]$"
        with pytest.raises(BrokerUnreachable, match=says):
            open_transport(plain(1883, "broker.test"), None, f"{kind}://127.0.0.1:{port}")

    def test_that_dribble_leave_nothing_when_the_deadline_has_passed(
        self, serve: Callable[..., Server], kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A byte at a time, each of them in time."""
        monkeypatch.setattr(dial_module, "_TIMEOUT", 1.0)
        gone = threading.Event()
        answer = b"HTTP/1.1 200 OK\r\nX: " if kind == "http" else b"\x05\x00\x05\x00\x00\x03\xff"
        url = f"{kind}://127.0.0.1:{serve(dribble(answer + b'x' * 400, gone)).port}"
        with pytest.raises(BrokerUnreachable, match=r"no connection: the proxy timed out$"):
            open_transport(plain(1883, "broker.test"), None, url)
        assert gone.wait(20)


class TestSocks4:
    def test_leads_to_the_address_of_the_broker(self, serve: Callable[..., Server]) -> None:
        proxy = Proxy(serve(echo).port)
        url = f"socks4://pump@127.0.0.1:{serve(proxy.socks4).port}"
        assert answers(open_transport(plain(1883, "localhost"), None, check_proxy(url)))
        assert proxy.asked == [(b"\x07\x5b\x7f\x00\x00\x01", b"pump\0")]

    def test_that_rejects_makes_the_broker_unreachable(self, serve: Callable[..., Server]) -> None:
        proxy = Proxy(0)
        proxy.credentials = ("pump", "")
        url = f"socks4://other@127.0.0.1:{serve(proxy.socks4).port}"
        with pytest.raises(BrokerUnreachable, match=r": the proxy gave no connection: SOCKS4 error 93$"):
            open_transport(plain(1883, "127.0.0.1"), None, url)


class TestHttpProxies:
    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (b"HTTP/1.1 407 Authenticate\x1b[31m\r\n\r\n", "HTTP 407"),
            (b"HTTP/1.1 xyz\r\n\r\n", "its answer is not valid HTTP"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "its answer is not valid HTTP"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000, "its answer is too long"),
            (b"HTTP/1.1 200 OK\r\n", "it closed the connection"),
        ],
    )
    def test_that_answer_something_else_are_named(self, serve: Callable[..., Server], answer: bytes, says: str) -> None:
        def handle(sock: socket.socket) -> None:
            sock.recv(1000)
            sock.sendall(answer)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)

        with pytest.raises(BrokerUnreachable, match=rf": the proxy gave no connection: {says}$"):
            open_transport(plain(1883, "broker.test"), None, f"http://127.0.0.1:{serve(handle).port}")

    def test_are_asked_for_an_ipv6_address_in_brackets(self, serve: Callable[..., Server]) -> None:
        proxy = Proxy(serve(echo).port)
        assert answers(open_transport(plain(1883, "2001:db8::1"), None, f"http://127.0.0.1:{serve(proxy.http).port}"))
        assert proxy.asked == ["CONNECT [2001:db8::1]:1883 HTTP/1.1"]


class TestProxyUrls:
    @pytest.mark.parametrize(
        "url",
        ["http://proxy:3128", "socks5://proxy:1080", "socks4://proxy:1080", "socks5://user:a-secret@[::1]:1080"],
    )
    def test_of_a_proxy(self, url: str) -> None:
        assert check_proxy(url) == url

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "proxy:3128",
            "ftp://a-secret@proxy:1",
            "http://proxy",
            "http://:3128",
            "http://p:x",
            "http://[",
            3128,
            b"a",
        ],
    )
    def test_that_are_none_of_a_proxy_are_refused_in_one_line(self, url: Any) -> None:
        says = r"^proxy must be a URL such as socks5://host:1080 or http://host:3128$"
        with pytest.raises(ConfigurationError, match=says):
            check_proxy(url)

    def test_has_credentials_that_socks5_can_carry(self) -> None:
        with pytest.raises(ConfigurationError, match="at most 255 bytes each") as raised:
            check_proxy(f"socks5://pump:{'x' * 256}@proxy:1080")
        assert "xxx" not in str(raised.value)
