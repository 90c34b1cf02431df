"""A certificate authority for the tests, and the certificates that it issues."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Certificate:
    """Paths of a certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Pki:
    """A new authority with three certificates, created in some milliseconds.

    Attributes:
        ca: path of the authority's certificate.
        server: a certificate for localhost and 127.0.0.1.
        other_host: one for ``other.example``, to which no test ever connects.
        client: one for a TLS client named ``pump-17.example``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        public = self._key.public_key()
        certificate = self._sign(
            self._builder(self._name, public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_KEY_CERT_SIGN, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate)
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        self.server = self._issue("server", x509.DNSName("localhost"), loopback)
        self.other_host = self._issue("other", x509.DNSName("other.example"))
        self.client = self.client_certificate("client")

    def client_certificate(self, name: str, days: tuple[int, int] = (-1, 7)) -> Certificate:
        """A new certificate for the client, with a key of its own, in files of this name; it is valid from one day to
        another, counted from today.
        """
        hosts = x509.DNSName("pump-17.example")
        return self._issue(name, hosts, purpose=ExtendedKeyUsageOID.CLIENT_AUTH, days=days)

    def issue_for_days(self, first: int, last: int) -> Certificate:
        """A certificate for localhost and 127.0.0.1 that is valid from one day to another, counted from today."""
        hosts = x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return self._issue(f"from{first}to{last}", *hosts, days=(first, last))

    def _issue(
        self,
        name: str,
        *hosts: x509.GeneralName,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        days: tuple[int, int] = (-1, 7),
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(
            self._builder(subject, key.public_key(), days)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        paths = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        paths.certificate.write_bytes(certificate)
        paths.key.touch(0o600)
        paths.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, days: tuple[int, int] = (-1, 7)
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
        )

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


_KEY_CERT_SIGN = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
