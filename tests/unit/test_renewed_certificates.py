"""TLS files that are renewed while a client is connected: it moves onto them, and bad ones cost nothing."""

from __future__ import annotations

import shutil
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client import (
    Backoff,
    ConnectFailed,
    Credentials,
    Disconnected,
    RenewalFailed,
    Rotated,
    RotationFailed,
    TlsFiles,
    TlsFilesFailed,
    Token,
    TokenRenewed,
    Will,
)
from mqtt_token_client.errors import (
    BrokerRefused,
    BrokerUnreachable,
    CertificateRejected,
    ConfigurationError,
    TokenError,
)
from mqtt_token_client.mqtt.transport import tls_context
from tests.unit.device import Device, Make, password
from tests.unit.packets import AUTH, CONNECT, DISCONNECT
from tests.unit.scripted_broker import Peer, ScriptedBroker
from tests.unit.stepped_time import wait_until_readable
from tests.unit.test_tls_files import TlsFilesIn

_LONG = 120.0  # seconds of stepped time, in which the files are looked at several times


@pytest.fixture
def files(tmp_path: Path, pki: Pki) -> TlsFilesIn:
    files = TlsFilesIn(tmp_path)
    shutil.copy(pki.ca, files.ca)
    files.take(pki.client)
    return files


@pytest.fixture
def make(make: Make, pki: Pki, files: TlsFilesIn) -> Make:
    """Makes a device at a broker that wants a certificate of the authority."""

    def made(protocol: int = 5, *, broker: ScriptedBroker | None = None, **options: Any) -> Device:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki.ca)
        context.load_cert_chain(pki.server.certificate, pki.server.key)
        context.verify_mode = ssl.CERT_REQUIRED
        tls = TlsFiles(files.ca, files.certificate, files.key)
        return make(protocol, **{"broker": broker or ScriptedBroker(context), "tls": tls, "keepalive": 0, **options})

    return made


def shown(peer: Peer) -> str:
    """The serial number of the certificate that the client showed."""
    certificate = cast("ssl.SSLSocket", peer._sock).getpeercert()
    assert certificate is not None
    return cast("str", certificate["serialNumber"])


def move(device: Device) -> Peer:
    """Accept the connection that the device opens by itself; returns it after its CONNACK and the rotation."""
    peer = device.broker.accept(_LONG)
    peer.expect(CONNECT)
    peer.connack(session_present=True)
    device.event(Rotated)
    return peer


def reported(device: Device) -> Exception:
    """Wait for the report of the files; returns its error."""
    device.until(lambda: bool(device.reported(TlsFilesFailed)), _LONG)
    return device.event(TlsFilesFailed).error


class TestRenewal:
    @pytest.mark.parametrize("protocol", [4, 5])
    def test_of_the_client_certificate_is_a_handover_with_the_same_token(
        self, make: Make, pki: Pki, files: TlsFilesIn, protocol: int
    ) -> None:
        device = make(protocol)
        first = device.start()
        before = shown(first)
        files.take(pki.client_certificate("renewed"))
        second = device.broker.accept(_LONG)
        assert second.expect(CONNECT).password == password(1)
        first.expect_nothing()  # it stays open until the new one is accepted
        second.connack(session_present=True)
        first.expect_end()
        assert device.event(Rotated).kind == "handover"
        assert shown(second) != before
        assert not cast("ssl.SSLSocket", second._sock).session_reused  # which would show the old certificate
        assert device.source.requests == 1
        device.broker.expect_no_connection(_LONG)
        assert not device.reported(Disconnected)

    def test_again_and_again_is_a_handover_each_time(self, make: Make, pki: Pki, files: TlsFilesIn) -> None:
        device = make()
        seen = [shown(device.start())]
        for number in range(3):
            files.take(pki.client_certificate(f"renewed-{number}"))
            seen.append(shown(move(device)))
        assert len(set(seen)) == 4

    def test_of_the_bundle_alone_is_one_as_well(self, make: Make, pki: Pki, files: TlsFilesIn) -> None:
        device = make(tls=TlsFiles(files.ca), broker=_trusting_broker(pki))
        device.start()
        files.ca.write_bytes(pki.ca.read_bytes() + b"\n")
        move(device)

    def test_is_a_reconnect_for_a_will_that_a_handover_would_fire(
        self, make: Make, pki: Pki, files: TlsFilesIn
    ) -> None:
        device = make(will=Will("t", b"lost"))
        first = device.start()
        files.take(pki.client_certificate("renewed"))
        second = device.broker.accept(_LONG)
        first.expect(DISCONNECT)
        first.close()
        second.expect(CONNECT)
        second.connack(session_present=True)
        assert device.event(Rotated).kind == "reconnect"

    def test_is_a_handover_where_tokens_are_replaced_by_re_authentication(
        self, make: Make, pki: Pki, files: TlsFilesIn
    ) -> None:
        device = make(profile=lambda token, _: Credentials(None, None, token, "OAUTH2-JWT", token.value.encode()))
        first = device.start()
        before = shown(first)
        files.take(pki.client_certificate("renewed"))
        second = move(device)
        assert shown(second) != before
        device.client.rotate()
        second.expect(AUTH)

    def test_during_a_rotation_follows_it(self, make: Make, pki: Pki, files: TlsFilesIn) -> None:
        device = make()
        device.start()
        second = device.rotate()
        files.take(pki.client_certificate("renewed"))
        second.connack(session_present=True)
        device.event(Rotated)
        assert shown(move(device)) != shown(second)

    def test_is_seen_at_once_by_a_rotation_of_the_token(self, make: Make, pki: Pki, files: TlsFilesIn) -> None:
        device = make()
        first = device.start()
        before = shown(first)
        files.take(pki.client_certificate("renewed"))
        second = device.rotate()
        assert shown(second) != before
        second.connack(session_present=True)
        device.event(Rotated)
        device.broker.expect_no_connection(_LONG)

    def test_that_a_lost_connection_has_seen_already_causes_no_handover(
        self, make: Make, pki: Pki, files: TlsFilesIn
    ) -> None:
        device = make()
        first = device.start()
        before = shown(first)
        files.take(pki.client_certificate("renewed"))
        first.close()
        device.event(Disconnected)
        assert shown(device.answer(session_present=True)) != before
        device.broker.expect_no_connection(_LONG)

    def test_of_the_systems_certificates_alone_is_used_by_the_next_connection_and_causes_none(
        self, make: Make, pki: Pki, files: TlsFilesIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
        monkeypatch.setattr(tls_context, "_by_files", tls_context._by_files.__wrapped__)  # made once in a process
        device = make(tls=None, broker=_trusting_broker(pki))
        first = device.start()
        (tmp_path / "other").mkdir()
        shutil.copy(Pki(tmp_path / "other").ca, files.ca)
        device.broker.expect_no_connection(_LONG)
        first.close()
        with pytest.raises(ssl.SSLError):
            device.broker.accept(_LONG)
        assert isinstance(device.event(ConnectFailed).error, CertificateRejected)

    def test_ends_with_the_client(self, make: Make, pki: Pki, files: TlsFilesIn) -> None:
        device = make()
        device.start().close()
        device.client.disconnect(0)
        files.take(pki.client_certificate("renewed"))
        device.broker.expect_no_connection(_LONG)


def _trusting_broker(pki: Pki) -> ScriptedBroker:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.server.certificate, pki.server.key)
    return ScriptedBroker(context)


def _half(files: TlsFilesIn, _pki: Pki, _folder: Path) -> None:
    files.certificate.write_bytes(files.certificate.read_bytes()[:200])


def _other_key(files: TlsFilesIn, pki: Pki, _folder: Path) -> None:
    shutil.copy(pki.server.key, files.key)


def _garbage(files: TlsFilesIn, _pki: Pki, _folder: Path) -> None:
    files.key.write_bytes(bytes(range(256)))


def _nothing(files: TlsFilesIn, _pki: Pki, _folder: Path) -> None:
    files.certificate.unlink()


def _empty_bundle(files: TlsFilesIn, _pki: Pki, _folder: Path) -> None:
    files.ca.write_bytes(b"")


class TestFilesThatCannotBeUsed:
    @pytest.mark.parametrize("spoil", [_half, _other_key, _garbage, _nothing, _empty_bundle])
    def test_change_nothing_and_are_reported_once(
        self, make: Make, pki: Pki, files: TlsFilesIn, tmp_path: Path, spoil: Callable[[TlsFilesIn, Pki, Path], None]
    ) -> None:
        device = make()
        first = device.start()
        before = shown(first)
        spoil(files, pki, tmp_path)
        error = reported(device)
        assert isinstance(error, ConfigurationError)
        assert str(tmp_path) in str(error)
        device.broker.expect_no_connection(_LONG)
        second = device.rotate()
        assert shown(second) == before
        second.connack(session_present=True)
        device.event(Rotated)
        second.close()
        device.event(Disconnected)
        assert shown(device.answer(session_present=True)) == before
        device.broker.expect_no_connection(_LONG)
        assert len(device.reported(TlsFilesFailed)) == 1

        shutil.copy(pki.ca, files.ca)
        files.take(pki.client_certificate("repaired"))
        assert shown(move(device)) != before

    def test_are_reported_if_they_are_first_seen_by_a_connection(
        self, make: Make, pki: Pki, files: TlsFilesIn, tmp_path: Path
    ) -> None:
        device = make()
        first = device.start()
        _half(files, pki, tmp_path)
        first.close()
        device.event(Disconnected)
        device.answer(session_present=True)
        reported(device)


class TestExpiry:
    def renew(self, files: TlsFilesIn, pki: Pki, first: int, last: int) -> None:
        files.take(pki.client_certificate(f"from{first}to{last}", (first, last)))

    def test_that_is_near_is_reported_once_and_again_when_it_has_come(
        self, make: Make, pki: Pki, files: TlsFilesIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.renew(files, pki, -12, 1)
        device = make()
        device.source.life = None
        device.start()
        (event,) = device.reported(TlsFilesFailed)
        assert "the client certificate expires soon, and was not renewed" in str(event.error)
        device.broker.expect_no_connection(_LONG)
        assert len(device.reported(TlsFilesFailed)) == 1
        later = time.time() + 2 * 86_400
        monkeypatch.setattr(time, "time", lambda: later)
        device.until(lambda: len(device.reported(TlsFilesFailed)) == 2, _LONG)
        assert "the client certificate has expired" in str(device.reported(TlsFilesFailed)[1].error)
        device.broker.expect_no_connection(_LONG)

    @pytest.mark.parametrize("days", [(-5, 5), (-1, 1), (-8, 1)])
    def test_that_is_not_near_is_not_reported(
        self, make: Make, pki: Pki, files: TlsFilesIn, days: tuple[int, int]
    ) -> None:
        self.renew(files, pki, *days)
        device = make()
        device.start()
        device.broker.expect_no_connection(_LONG)
        assert not device.reported(TlsFilesFailed)

    def test_is_unknown_to_a_device_whose_clock_was_never_set(
        self, make: Make, pki: Pki, files: TlsFilesIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.renew(files, pki, -12, 1)
        device = make()
        device.start()
        monkeypatch.setattr(time, "time", lambda: 1000.0)
        device.rotate().connack(session_present=True)
        device.event(Rotated)
        device.broker.expect_no_connection(_LONG)
        assert len(device.reported(TlsFilesFailed)) == 1

    def test_ends_with_the_renewal(self, make: Make, pki: Pki, files: TlsFilesIn) -> None:
        self.renew(files, pki, -12, 1)
        device = make()
        device.start()
        self.renew(files, pki, -1, 7)
        move(device)
        device.broker.expect_no_connection(_LONG)
        assert len(device.reported(TlsFilesFailed)) == 1


class TestFilesThatTheBrokerDoesNotAccept:
    def spoil(self, files: TlsFilesIn, tmp_path: Path) -> None:
        """Renew the certificate by another authority."""
        (tmp_path / "other").mkdir()
        files.take(Pki(tmp_path / "other").client)

    def fail(self, device: Device, timeout: float = _LONG) -> None:
        """The broker breaks off in the handshake."""
        with pytest.raises(ssl.SSLError):
            device.broker.accept(timeout)

    def test_leave_the_connection_up_and_are_not_used_for_the_next(
        self, make: Make, files: TlsFilesIn, tmp_path: Path
    ) -> None:
        device = make()
        first = device.start()
        before = shown(first)
        self.spoil(files, tmp_path)
        self.fail(device)
        assert isinstance(reported(device), BrokerUnreachable)
        device.event(RotationFailed)
        device.broker.accept().expect_end()  # with the files of before, which are in use already
        second = device.rotate()
        assert shown(second) == before
        second.connack(session_present=True)
        device.event(Rotated)
        second.close()
        device.event(Disconnected)
        assert shown(device.answer(session_present=True)) == before
        assert len(device.reported(TlsFilesFailed)) == 1

    def test_are_not_used_for_the_next_either_if_it_rejects_the_token_with_them(
        self, make: Make, pki: Pki, files: TlsFilesIn
    ) -> None:
        device = make()
        before = shown(device.start())
        files.take(pki.client_certificate("renewed"))
        second = device.broker.accept(_LONG)
        second.expect(CONNECT)
        assert shown(second) != before
        second.connack(0x87)
        assert isinstance(reported(device), BrokerRefused)
        third = device.broker.accept(_LONG)
        third.expect(CONNECT)
        assert shown(third) == before

    def test_do_not_keep_the_connection_from_a_token_that_arrives_while_those_of_before_are_tried(
        self, make: Make, files: TlsFilesIn, tmp_path: Path
    ) -> None:
        device = make()
        device.start()
        self.spoil(files, tmp_path)
        self.fail(device)
        device.event(RotationFailed)
        wait_until_readable(device.broker._listener, _LONG)  # a worker has the token of before, and shakes hands
        device.client.rotate()
        device.event(TokenRenewed)
        device.broker.accept().expect_end()
        second = device.broker.accept()
        assert second.expect(CONNECT).password == password(2)
        second.connack(session_present=True)
        device.event(Rotated)

    def test_are_tried_again_in_an_hour(self, make: Make, files: TlsFilesIn, tmp_path: Path) -> None:
        device = make()
        device.source.life = None
        device.start()
        self.spoil(files, tmp_path)
        self.fail(device)
        device.event(RotationFailed)
        device.broker.accept().expect_end()  # with the files of before, which are in use already
        device.broker.expect_no_connection(3500.0)
        self.fail(device, 300.0)
        device.event(RotationFailed)

    def test_take_turns_with_the_others_while_no_connection_is_up(
        self, make: Make, files: TlsFilesIn, pki: Pki, tmp_path: Path
    ) -> None:
        """The broker may move to the other authority later."""
        device = make()
        first = device.start()
        before = shown(first)
        self.spoil(files, tmp_path)
        self.fail(device)
        device.event(RotationFailed)
        moved = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "other" / "ca.pem")
        moved.load_cert_chain(pki.server.certificate, pki.server.key)
        moved.verify_mode = ssl.CERT_REQUIRED
        device.broker._context = moved
        first.close()
        device.event(Disconnected)
        self.fail(device)  # the certificate of before
        device.event(ConnectFailed)
        assert shown(device.answer(session_present=True)) != before
        device.broker.expect_no_connection(_LONG)

    def test_do_not_take_the_blame_for_a_token_that_could_not_be_obtained(
        self, make: Make, files: TlsFilesIn, pki: Pki
    ) -> None:
        device = make()
        device.source.next = [Token(password(1).decode(), 40.0)]
        first = device.start()
        before = shown(first)
        device.source.always = TokenError("not now")
        device.until(lambda: bool(device.reported(RenewalFailed)), _LONG)
        device.until(lambda: (device.client.token_expires_in or 0.0) <= 0.0, _LONG)
        files.take(pki.client_certificate("renewed"))
        device.until(lambda: bool(device.reported(RotationFailed)), _LONG)
        device.source.always = None
        assert shown(move(device)) != before
        assert not device.reported(TlsFilesFailed)


class TestBundleThatDoesNotTrustTheBroker:
    def spoil(self, files: TlsFilesIn, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        shutil.copy(Pki(tmp_path / "other").ca, files.ca)

    def test_leaves_the_connection_up_and_is_used_for_the_next_all_the_same(
        self, make: Make, pki: Pki, files: TlsFilesIn, tmp_path: Path
    ) -> None:
        """An administrator who withdraws trust must not be overruled."""
        device = make(backoff=Backoff(initial=0.02, maximum=5.0))
        first = device.start()
        self.spoil(files, tmp_path)
        with pytest.raises(ssl.SSLError):
            device.broker.accept(_LONG)
        assert isinstance(reported(device), CertificateRejected)
        device.event(RotationFailed)
        assert device.client.state == "connected"
        first.close()
        device.event(Disconnected)
        with pytest.raises(ssl.SSLError):
            device.broker.accept(_LONG)
        shutil.copy(pki.ca, files.ca)
        device.until(lambda: bool(device.reported(ConnectFailed)), _LONG)
        device.answer(session_present=True)

    def test_does_not_keep_a_connection_from_new_tokens_by_re_authentication(
        self, make: Make, files: TlsFilesIn, tmp_path: Path
    ) -> None:
        device = make(profile=lambda token, _: Credentials(None, None, token, "OAUTH2-JWT", token.value.encode()))
        first = device.start()
        self.spoil(files, tmp_path)
        with pytest.raises(ssl.SSLError):
            device.broker.accept(_LONG)
        device.event(RotationFailed)
        device.client.rotate()
        first.expect(AUTH)
