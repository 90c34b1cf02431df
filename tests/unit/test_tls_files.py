"""TLS by files: which do, which context they make, and when it is made anew."""

from __future__ import annotations

import os
import resource
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from devtools.servers.pki import Certificate, Pki
from mqtt_token_client import ConfigurationError, TlsFiles, TokenClient
from mqtt_token_client.certificate_validity import validity
from mqtt_token_client.mqtt.transport.tls_context import open_tls
from tests.unit.device import Source

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@pytest.fixture
def files(pki: Pki, tmp_path: Path) -> TlsFiles:
    """A copy of the authority's certificate, and of the client's with its key."""
    own = TlsFilesIn(tmp_path)
    shutil.copy(pki.ca, own.ca)
    own.take(pki.client)
    return TlsFiles(own.ca, own.certificate, own.key)


class TlsFilesIn:
    """The paths of a device's TLS files in a folder, and how an agent replaces them."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.certificate, self.key = folder / "ca.pem", folder / "own.pem", folder / "own.key"

    def take(self, renewed: Certificate) -> None:
        for source, target in ((renewed.key, self.key), (renewed.certificate, self.certificate)):
            shutil.copy(source, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)


class TestArguments:
    @pytest.mark.parametrize("name", ["ca_bundle", "certificate"])
    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("/no/such/file", "must be the path of a PEM file; there is no such file"),
            (5, "must be the path of a PEM file, got int"),
            (b"/etc/hostname", "must be the path of a PEM file, got bytes"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA", "must be the path of a PEM file; there is no such file"),
        ],
    )
    def test_must_be_paths_of_files(self, name: str, path: object, says: str) -> None:
        with pytest.raises(ConfigurationError) as raised:
            TlsFiles(**{name: path})  # type: ignore[arg-type]  # wrong types on purpose
        assert str(raised.value) == f"{name} {says}"

    def test_of_a_key_need_a_certificate(self, pki: Pki) -> None:
        with pytest.raises(ConfigurationError, match=r"^key needs a certificate$"):
            TlsFiles(key=pki.client.key)

    def test_that_hold_no_certificate_are_named(self, tmp_path: Path, pki: Pki) -> None:
        (tmp_path / "empty").write_bytes(b"")
        with pytest.raises(ConfigurationError, match=r"^ca_bundle: '.*/empty' must contain certificates in PEM$"):
            TlsFiles(tmp_path / "empty")
        with pytest.raises(ConfigurationError, match=r"^certificate, key: .* its private key, in PEM and without"):
            TlsFiles(certificate=pki.client.certificate, key=pki.server.key)
        with pytest.raises(ConfigurationError, match=r"^certificate, key: "):
            TlsFiles(certificate=pki.client.certificate)  # which is to contain the key as well

    def test_with_a_passphrase_are_rejected_without_a_question_on_the_terminal(self, tmp_path: Path, pki: Pki) -> None:
        key = serialization.load_pem_private_key(pki.client.key.read_bytes(), None)
        encryption = serialization.BestAvailableEncryption(b"a passphrase")
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        (tmp_path / "key").write_bytes(pem)
        with pytest.raises(ConfigurationError, match=r"without a passphrase$"):
            TlsFiles(certificate=pki.client.certificate, key=tmp_path / "key")

    def test_of_a_client_are_checked_when_it_is_made(self, files: TlsFiles, pki: Pki) -> None:
        shutil.copy(pki.server.key, files.key or "")
        with pytest.raises(ConfigurationError, match=r"^certificate, key: "):
            TokenClient("mqtts://broker.example", Source(), client_id="pump-17", tls=files)


class TestContext:
    def test_verifies_the_broker_by_the_bundle_alone(self, files: TlsFiles) -> None:
        context = open_tls(files, (), allow_insecure=False).look()
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert not context.hostname_checks_common_name
        assert len(context.get_ca_certs()) == 1

    def test_is_the_same_until_a_file_changes(self, files: TlsFiles, pki: Pki, tmp_path: Path) -> None:
        tls = open_tls(files, (), allow_insecure=False)
        first = tls.look()
        assert tls.look() is first
        TlsFilesIn(tmp_path).take(pki.client_certificate("next"))
        assert tls.look() is not first
        assert tls.problem is None

    def test_is_shared_by_all_clients_with_the_same_files(self, files: TlsFiles) -> None:
        same = TlsFiles(files.ca_bundle, files.certificate, files.key)
        assert open_tls(files, (), allow_insecure=False) is open_tls(same, (), allow_insecure=False)
        assert open_tls(files, ("mqtt",), allow_insecure=False) is not open_tls(same, (), allow_insecure=False)
        assert open_tls(None, (), allow_insecure=False) is open_tls(TlsFiles(), (), allow_insecure=False)

    @pytest.mark.parametrize("name", ["ca.pem", "own.pem", "own.key"])
    @pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nMIIB", None])
    def test_stays_while_a_new_file_cannot_be_used(
        self, files: TlsFiles, pki: Pki, tmp_path: Path, name: str, content: bytes | None
    ) -> None:
        tls = open_tls(files, (), allow_insecure=False)
        first, file = tls.look(), tmp_path / name
        good = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        assert tls.look() is first
        assert str(tmp_path) in str(tls.problem)
        problem = tls.problem
        assert tls.look() is first
        assert tls.problem is problem  # so that it is reported once
        file.write_bytes(good)
        assert tls.look() is not first
        assert tls.problem is None

    def test_is_that_of_files_which_could_not_be_read_when_they_changed(
        self, files: TlsFiles, pki: Pki, tmp_path: Path
    ) -> None:
        tls = open_tls(files, (), allow_insecure=False)
        first = tls.look()
        TlsFilesIn(tmp_path).take(pki.client_certificate("next"))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            assert tls.look() is first
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert str(tls.problem).endswith(": Too many open files")
        assert tls.look() is not first
        assert tls.problem is None

    def test_of_the_system_follows_its_store(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pki: Pki) -> None:
        store = tmp_path / "ca-certificates.crt"
        shutil.copy(pki.ca, store)
        monkeypatch.setenv("SSL_CERT_FILE", str(store))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
        tls = open_tls(None, ("system store",), allow_insecure=False)
        assert len(tls.look().get_ca_certs()) == 1
        (tmp_path / "other").mkdir()
        store.write_bytes(pki.ca.read_bytes() + Pki(tmp_path / "other").ca.read_bytes())
        assert len(tls.look().get_ca_certs()) == 2

    def test_that_was_given_is_used_as_it_is(self) -> None:
        context = ssl.create_default_context()
        assert open_tls(context, (), allow_insecure=False).look() is context

    def test_can_be_had_in_a_child_of_a_process_that_was_reading(self, files: TlsFiles) -> None:
        tls = open_tls(files, (), allow_insecure=False)
        with tls._lock:
            child = os.fork()
            if not child:
                os._exit(0 if tls._lock.acquire(timeout=5) else 1)
        assert os.waitpid(child, 0)[1] == 0


class TestValidity:
    @pytest.mark.parametrize("days", [(-1, 7), (-400, 3000), (-1, 20_000)])  # the last in another form, after 2049
    def test_is_that_of_the_client_certificate(self, pki: Pki, days: tuple[int, int]) -> None:
        renewed = pki.client_certificate(f"from{days[0]}to{days[1]}", days)
        read = TlsFiles(None, renewed.certificate, renewed.key).validity()
        known = x509.load_pem_x509_certificate(renewed.certificate.read_bytes())
        assert read == (known.not_valid_before_utc.timestamp(), known.not_valid_after_utc.timestamp())

    def test_is_that_of_the_first_certificate_wherever_it_stands_in_the_file(self, pki: Pki, tmp_path: Path) -> None:
        own = tmp_path / "own.pem"
        parts = pki.client.key, pki.client.certificate, pki.ca
        own.write_bytes(b"Subject: CN=client\n" + b"".join(part.read_bytes() for part in parts))
        assert TlsFiles(pki.ca, own).validity() == TlsFiles(None, pki.client.certificate, pki.client.key).validity()

    def test_is_none_without_a_client_certificate(self, pki: Pki) -> None:
        assert TlsFiles(pki.ca).validity() is None

    @pytest.mark.timeout(20)
    def test_is_none_while_a_fifo_has_taken_the_place_of_the_file(self, pki: Pki, tmp_path: Path) -> None:
        certificate = tmp_path / "own.pem"
        certificate.write_bytes(pki.client.certificate.read_bytes())
        files = TlsFiles(None, certificate, pki.client.key)
        certificate.unlink()
        os.mkfifo(certificate)
        assert files.validity() is None

    @pytest.mark.parametrize("pem", ["", "garbage", f"{BEGIN}\nMIIB\n{END}", f"{BEGIN}\n{END}", f"{BEGIN}\nMIIBAQ=="])
    def test_is_none_of_what_cannot_be_read(self, pem: str) -> None:
        assert validity(pem) is None
