"""The refresh tokens of the embedded authorization server: each serves once, and may be revoked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from mqtt_token_client.testing import AuthorizationServer
from mqtt_token_client.testing.refresh_tokens import Family, Refresh
from tests.unit.device_login import claims, log_in, post, refresh


def test_a_refresh_token_brings_a_token_for_the_same_person_and_scope_and_the_next_refresh_token(
    server: AuthorizationServer,
) -> None:
    first = log_in(server, "alice", scope="a b")
    second = refresh(server, first["refresh_token"])
    third = refresh(server, second["refresh_token"], scope="b")
    fourth = refresh(server, third["refresh_token"])
    assert {claims(token["access_token"])["sub"] for token in (first, second, third, fourth)} == {"alice"}
    assert [token["scope"] for token in (first, second, third, fourth)] == ["a b", "a b", "b", "a b"]


def test_more_scope_than_was_granted_is_refused_and_the_refresh_token_stays_good(server: AuthorizationServer) -> None:
    token = log_in(server, scope="a")["refresh_token"]
    assert refresh(server, token, scope="a b")["error"] == "invalid_scope"
    assert "access_token" in refresh(server, token)


def test_a_refresh_token_that_comes_again_ends_all_that_followed_and_nothing_else(server: AuthorizationServer) -> None:
    first, other = log_in(server)["refresh_token"], log_in(server)["refresh_token"]
    second = refresh(server, first)["refresh_token"]
    assert refresh(server, first)["error"] == "invalid_grant"
    assert refresh(server, second)["error"] == "invalid_grant"
    assert "access_token" in refresh(server, other)


def test_of_many_who_use_one_refresh_token_at_once_one_gets_a_token_and_it_ends(tmp_path: Path) -> None:
    together = threading.Barrier(8)
    plain = Refresh.authenticate_refresh_token

    def found_by_all(grant: Refresh, token: str) -> Family | None:
        family = plain(grant, token)
        together.wait(10)
        return family

    with AuthorizationServer(60, state=tmp_path / "state.json") as server, ThreadPoolExecutor(8) as pool:
        token = log_in(server)["refresh_token"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Refresh, "authenticate_refresh_token", found_by_all)
            answers = list(pool.map(lambda _: refresh(server, token), range(8)))
        assert sorted(answer.get("error", "a token") for answer in answers) == ["a token"] + ["invalid_grant"] * 7
        (last,) = [answer["refresh_token"] for answer in answers if "refresh_token" in answer]
        assert refresh(server, last)["error"] == "invalid_grant"


@pytest.mark.parametrize("token", ["", "x", "x.y", "."])
def test_what_was_never_issued_is_invalid_grant(server: AuthorizationServer, token: str) -> None:
    assert refresh(server, token)["error"] == "invalid_grant"


# Revocation


@pytest.mark.parametrize("hint", [{}, {"token_type_hint": "access_token"}, {"token_type_hint": "unheard-of"}])
@pytest.mark.parametrize("used", [False, True])
def test_a_revoked_refresh_token_ends_with_all_that_followed(
    server: AuthorizationServer, hint: dict[str, str], used: bool
) -> None:
    first = last = log_in(server)["refresh_token"]
    if used:
        last = refresh(server, first)["refresh_token"]
    assert post(server, "revoke", token=first, **hint).status_code == 200
    assert refresh(server, last)["error"] == "invalid_grant"


def test_revoking_what_is_unknown_succeeds_and_a_jwt_cannot_be_revoked(server: AuthorizationServer) -> None:
    assert post(server, "revoke", token="never issued").status_code == 200
    refused = post(server, "revoke", token=log_in(server)["access_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_token_type")
    assert post(server, "revoke").json()["error"] == "invalid_request"


def test_a_client_cannot_revoke_what_is_anothers(server: AuthorizationServer) -> None:
    token = log_in(server)["refresh_token"]
    credentials = server.client_id, server.client_secret
    refused = requests.post(f"{server.issuer}/revoke", data={"token": token}, auth=credentials, timeout=5)
    assert refused.json()["error"] == "invalid_grant"
    assert "access_token" in refresh(server, token)
