"""A private key or a secret in a file that every user can read is rejected, wherever it is named."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client import (
    ClientSecretBasic,
    ClientSecretJWT,
    ClientSecretPost,
    ConfigurationError,
    MutualTLS,
    PrivateKeyJWT,
    SignedJWT,
    TlsFiles,
)
from mqtt_token_client.config import read_config
from mqtt_token_client.private_files import check_private

UNITS: dict[str, Callable[[Pki], object]] = {
    "MutualTLS": lambda pki: MutualTLS(pki.client.certificate, pki.client.key),
    "TlsFiles": lambda pki: TlsFiles(certificate=pki.client.certificate, key=pki.client.key),
    "PrivateKeyJWT": lambda pki: PrivateKeyJWT(pki.client.key),
    "SignedJWT": lambda pki: SignedJWT(pki.client.key, "ES256", {"sub": "pump"}, 60),
}


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.fixture
def pki(public: Path) -> Pki:
    return Pki(public)


@pytest.mark.parametrize("name", UNITS)
def test_a_key_that_every_user_can_read_is_rejected_with_what_to_do(pki: Pki, name: str) -> None:
    UNITS[name](pki)
    pki.client.key.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"key: every user of this machine can read '.*': chmod it to 600 "):
        UNITS[name](pki)


def test_a_certificate_with_its_key_is_a_key(pki: Pki, public: Path) -> None:
    both = public / "both.pem"
    both.write_bytes(pki.client.certificate.read_bytes() + pki.client.key.read_bytes())
    both.chmod(0o644)
    with pytest.raises(ConfigurationError, match="certificate: every user"):
        TlsFiles(certificate=both)


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o600, 0o755), (0o640, 0o755), (0o400, 0o755), (0o644, 0o700)])
def test_a_file_that_only_the_user_and_the_group_can_read_is_accepted(
    public: Path, file_mode: int, folder_mode: int
) -> None:
    file = public / "secret"
    file.write_text("secret")
    file.chmod(file_mode)
    public.chmod(folder_mode)
    check_private("client_secret_file", file)


def test_a_link_is_judged_by_the_file_it_leads_to(public: Path) -> None:
    """As Kubernetes mounts secrets."""
    (public / "..data").mkdir()
    (public / "private").mkdir(0o700)
    file = public / "..data" / "secret"
    file.write_text("secret")
    file.chmod(0o644)
    link = public / "private" / "secret"
    link.symlink_to(file)
    with pytest.raises(ConfigurationError, match="defaultMode: 0400"):
        check_private("client_secret_file", link)


def test_a_file_that_is_not_there_is_left_to_whoever_reads_it(public: Path) -> None:
    check_private("client_secret_file", public / "secret")


@pytest.mark.parametrize("kind", [ClientSecretBasic, ClientSecretPost, ClientSecretJWT])
def test_the_file_of_a_client_secret_is_checked(public: Path, kind: Callable[[Path], object]) -> None:
    file = public / "secret"
    file.write_text("a client secret of thirty-two bytes or more")
    file.chmod(0o640)
    kind(file)
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="client_secret: every user"):
        kind(file)


def test_a_secret_file_of_the_configuration_is_checked(public: Path) -> None:
    (public / "secret").write_text("the-secret")
    (public / "secret").chmod(0o644)
    file = public / "device.toml"
    file.write_text(
        'store = "memory"\n[source]\ntype = "client_credentials"\nissuer = "https://id.example.com"\n'
        'client_id = "pump"\nclient_secret_file = "secret"\n'
    )
    with pytest.raises(ConfigurationError, match=r"source\.client_secret_file: every user") as raised:
        read_config(file)
    assert "the-secret" not in str(raised.value)
