"""FileStore's key as a systemd credential that only this machine can decrypt, where the machine has systemd-creds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from mqtt_token_client import FileStore
from tests.store_contract import LONG, same

KEY = Fernet.generate_key()


def systemd_creds(*arguments: str, given: bytes) -> bytes:
    """What the command makes of what it is given. The test is skipped where that is not possible, also in CI: not
    every machine has systemd, or a TPM.
    """
    program = shutil.which("systemd-creds")
    if program is None:
        pytest.skip("systemd-creds missing")
    done = subprocess.run([program, *arguments, "-", "-"], input=given, capture_output=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"systemd-creds: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


@pytest.mark.parametrize("bound_to", ["host", "tpm2"])
def test_a_key_that_systemd_decrypts_for_the_service_opens_the_store(
    bound_to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSTEMD_CREDENTIAL_SECRET", os.fspath(tmp_path / "host key"))  # not the machine's own
    name = "mqtt-token-client.key"
    encrypted = systemd_creds("encrypt", f"--with-key={bound_to}", f"--name={name}", given=KEY)
    assert KEY not in encrypted
    credentials = tmp_path / "credentials"  # what LoadCredentialEncrypted= does at the start of a service
    credentials.mkdir(mode=0o700)
    (credentials / name).write_bytes(systemd_creds("decrypt", f"--name={name}", given=encrypted))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", os.fspath(credentials))
    store = FileStore(tmp_path / "store")
    store.save("a", LONG)
    assert same(FileStore(tmp_path / "store").load("a"), LONG)
    assert same(FileStore(tmp_path / "store", key=KEY).load("a"), LONG)
    assert not (tmp_path / "store" / "store.key").exists()
