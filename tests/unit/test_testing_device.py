"""The device flow of the embedded authorization server: what a device receives and what a person sees."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from mqtt_token_client.errors import ConfigurationError, TokenRequestRefused
from mqtt_token_client.testing import AuthorizationServer
from tests.unit.device_login import (
    DEVICE_GRANT,
    Answer,
    Page,
    begin,
    claims,
    device_flow,
    log_in,
    open_page,
    poll,
    post,
    refresh,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of the device flow."""
    now = [0.0]
    monkeypatch.setattr("mqtt_token_client.testing.device_grant.monotonic", lambda: now[0])
    return lambda reading: now.__setitem__(0, reading)


# What a device receives


def test_the_metadata_offer_the_device_flow_refresh_tokens_and_revocation(server: AuthorizationServer) -> None:
    metadata = requests.get(f"{server.issuer}/.well-known/oauth-authorization-server", timeout=5).json()
    assert metadata["device_authorization_endpoint"] == f"{server.issuer}/device_authorization"
    assert metadata["revocation_endpoint"] == f"{server.issuer}/revoke"
    assert set(metadata["grant_types_supported"]) == {"client_credentials", DEVICE_GRANT, "refresh_token"}
    for endpoint in ("token", "revocation"):
        assert "none" in metadata[f"{endpoint}_endpoint_auth_methods_supported"]


def test_a_device_learns_where_to_send_a_person_and_how_long_to_wait() -> None:
    with AuthorizationServer(device_code_lifetime=90.0, interval=0.5) as server:
        login = begin(server)
    assert login["verification_uri"] == f"{server.issuer}/device"
    assert login["verification_uri_complete"] == f"{server.issuer}/device?user_code={login['user_code']}"
    assert (repr(login["expires_in"]), repr(login["interval"])) == ("90", "0.5")


@pytest.mark.parametrize("name", ["interval", "device_code_lifetime", "lifetime"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        AuthorizationServer(**{name: seconds})  # type: ignore[arg-type]  # mypy cannot tell which it is


def test_the_two_clients_need_two_names() -> None:
    with pytest.raises(ConfigurationError, match="device_client_id"):
        AuthorizationServer(client_id="pump", device_client_id="pump")


def test_each_client_has_its_own_grants(server: AuthorizationServer) -> None:
    assert post(server, "token", grant_type="client_credentials").json()["error"] == "invalid_client"
    with_secret = {"client_id": server.client_id, "client_secret": server.client_secret}
    for path, grant in (("device_authorization", ""), ("token", DEVICE_GRANT), ("token", "refresh_token")):
        fields = {"grant_type": grant, "device_code": "none", "refresh_token": "none"}
        assert post(server, path, **fields, **with_secret).json()["error"] == "invalid_client"
        assert post(server, path, **fields, client_id=server.client_id).json()["error"] == "invalid_client"


def test_a_device_that_polls_too_early_has_to_wait_five_seconds_longer_for_good(
    server: AuthorizationServer, clock: Callable[[float], None]
) -> None:
    device_code = begin(server)["device_code"]
    seen = []
    for reading in (0, 0.9, 6.8, 17.8, 28.8):  # the interval is 1, 6 and then 11 seconds
        clock(reading)
        seen.append(poll(server, device_code)["error"])
    assert seen == [
        "authorization_pending",
        "slow_down",
        "slow_down",
        "authorization_pending",
        "authorization_pending",
    ]


def test_a_code_ends_for_the_device_and_for_the_person(
    server: AuthorizationServer, clock: Callable[[float], None]
) -> None:
    asked, approved = begin(server), begin(server)
    server.approve(approved["user_code"])
    clock(599.9)
    assert poll(server, asked["device_code"])["error"] == "authorization_pending"
    clock(600)
    for login in (asked, approved):
        assert poll(server, login["device_code"])["error"] == "expired_token"
    assert open_page(asked["verification_uri_complete"]).status == 400
    with pytest.raises(ConfigurationError, match="user_code"):
        server.approve(asked["user_code"])


def test_a_device_code_serves_once_however_many_ask_at_once(server: AuthorizationServer) -> None:
    login = begin(server)
    server.approve(login["user_code"])
    together = threading.Barrier(8)

    def ask_for_it(_: int) -> Answer:
        together.wait(10)
        return poll(server, login["device_code"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask_for_it, range(8)))
    assert sorted(answer.get("error", "a token") for answer in answers) == ["a token"] + ["invalid_grant"] * 7


def test_an_unknown_device_code_is_invalid_grant(server: AuthorizationServer) -> None:
    assert poll(server, "never issued")["error"] == "invalid_grant"


# What a person sees


def test_a_person_who_has_the_whole_address_sees_the_code_and_who_asks_and_approves(
    server: AuthorizationServer,
) -> None:
    login = begin(server, scope="mqtt:17")
    page = open_page(login["verification_uri_complete"])
    assert all(word in page.text for word in (login["user_code"], server.device_client_id, "mqtt:17"))
    assert page.buttons == [("decision", "approve"), ("decision", "refuse")]
    assert "Approved" in page.send(decision="approve").text
    token = poll(server, login["device_code"])
    assert (claims(token["access_token"])["sub"], token["scope"]) == ("someone", "mqtt:17")
    assert token["refresh_token"]


@pytest.mark.parametrize("typing", [str, str.lower, lambda code: code.replace("-", ""), lambda code: f" {code} "])
def test_a_person_may_type_the_code_in_many_ways_and_decides_on_the_next_page(
    server: AuthorizationServer, typing: Callable[[str], str]
) -> None:
    login = begin(server)
    first = open_page(login["verification_uri"])
    assert first.buttons == [("", "")]
    second = first.send(user_code=typing(login["user_code"]))
    assert login["user_code"] in second.text
    assert poll(server, login["device_code"])["error"] == "authorization_pending"
    second.send(decision="approve")
    assert "access_token" in poll(server, login["device_code"])


def test_a_refusal_is_access_denied_and_stays(server: AuthorizationServer) -> None:
    login = begin(server)
    page = open_page(login["verification_uri_complete"])
    assert "Refused" in page.send(decision="refuse").text
    assert page.send(decision="approve").status == 400
    assert [poll(server, login["device_code"])["error"] for _ in range(2)] == ["access_denied"] * 2


def test_a_form_without_a_decision_decides_nothing(server: AuthorizationServer) -> None:
    login = begin(server)
    assert open_page(login["verification_uri_complete"]).send(decision="perhaps").status == 400
    assert poll(server, login["device_code"])["error"] == "authorization_pending"


def test_a_wrong_code_is_asked_for_again_and_shown_as_text(server: AuthorizationServer) -> None:
    page = open_page(f"{server.issuer}/device").send(user_code='"><script>alert(1)</script>')
    assert page.status == 400
    assert page.fields == {"user_code": '"><script>alert(1)</script>'}
    assert "script" not in page.elements


def test_the_page_loads_nothing_and_stands_in_no_frame(server: AuthorizationServer) -> None:
    response = requests.get(begin(server)["verification_uri_complete"], timeout=5)
    assert Page(response).elements.isdisjoint({"script", "img", "link", "iframe"})
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-store"


def test_a_test_approves_for_whom_it_wants_and_denies(server: AuthorizationServer) -> None:
    assert claims(log_in(server, "alice")["access_token"])["sub"] == "alice"
    login = begin(server)
    server.deny(login["user_code"].lower())
    assert poll(server, login["device_code"])["error"] == "access_denied"
    for decide in (server.approve, server.deny):
        with pytest.raises(ConfigurationError, match="user_code"):
            decide(login["user_code"])


# No secret in a log


def test_no_secret_is_in_the_log(server: AuthorizationServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    login = begin(server)
    server.approve(login["user_code"])
    first = poll(server, login["device_code"])
    second = refresh(server, first["refresh_token"])
    refresh(server, first["refresh_token"])
    post(server, "revoke", token=second["refresh_token"])
    tokens = [answer[name] for answer in (first, second) for name in ("access_token", "refresh_token")]
    assert [secret for secret in (login["device_code"], *tokens) if secret in caplog.text] == []
    assert "authlib" in {record.name.partition(".")[0] for record in caplog.records}


# With this library


def test_a_device_flow_logs_in_renews_and_logs_out() -> None:
    with AuthorizationServer(interval=0.05) as server:
        source = device_flow(server, lambda login: server.approve(login.user_code))
        first = source.fetch(None)
        second = source.fetch(first)
        assert source.revoke(second)
        with pytest.raises(TokenRequestRefused) as caught:
            source.fetch(second)
    assert caught.value.error == "invalid_grant"


def test_a_refused_device_flow_ends_with_access_denied() -> None:
    with AuthorizationServer(interval=0.05) as server:
        with pytest.raises(TokenRequestRefused) as caught:
            device_flow(server, lambda login: server.deny(login.user_code)).fetch(None)
        assert caught.value.error == "access_denied"
