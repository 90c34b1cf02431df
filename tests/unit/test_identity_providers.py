"""docs/identity-providers.md: each file is one that the library reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mqtt_token_client.config import read_config

DOCUMENT = (Path(__file__).parents[2] / "docs/identity-providers.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))


def test_the_document_has_every_provider() -> None:
    assert list(SECTIONS) == [
        *("Keycloak", "Ory Hydra", "Microsoft Entra ID", "Auth0", "Okta", "Amazon Cognito", "authentik", "ZITADEL")
    ]


@pytest.mark.parametrize("provider", SECTIONS)
def test_the_file_of_a_provider_is_valid(provider: str, tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0o600)
    (tmp_path / "secret").write_text("s3cret")
    blocks = re.findall(r"^```toml\n(.*?)^```$", SECTIONS[provider], re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        file = tmp_path / "mqtt-token.toml"
        file.write_text('store = "memory"\n' + block)
        assert read_config(file).source is not None
