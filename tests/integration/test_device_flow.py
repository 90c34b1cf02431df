"""The device flow and refresh tokens against a certified authorization server, approved by a person on its pages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from devtools.servers.oidc import AuthorizationServer
from devtools.servers.person import approve_by_forms, approve_in_browser
from devtools.servers.processes import wait_until
from mqtt_token_client import clock
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import TokenRequestRefused
from mqtt_token_client.sources.oauth import device_flow
from mqtt_token_client.sources.oauth.device_flow import DeviceFlow
from mqtt_token_client.sources.oauth.device_login import DeviceLogin
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.keeper import TokenKeeper


def flow(oidc: AuthorizationServer, **more: Any) -> DeviceFlow:
    given: dict[str, Any] = {
        "issuer": oidc.issuer,
        "client_id": oidc.device_client_id,
        "scope": f"openid offline_access {oidc.scope}",
        "prompt": lambda login: oidc.approve(login.user_code),
    }
    return DeviceFlow(**{**given, **more})


def beside(work: Callable[[DeviceLogin], object]) -> Callable[[DeviceLogin], None]:
    """A prompt that returns at once, while ``work`` goes on in a thread of its own."""

    def prompt(login: DeviceLogin) -> None:
        threading.Thread(target=work, args=(login,), daemon=True).start()

    return prompt


@pytest.fixture
def quick(oidc: AuthorizationServer) -> None:
    oidc.config(interval=0.2)


@pytest.mark.usefixtures("quick")
class TestLogin:
    def test_approved_on_the_pages_gives_a_token_of_that_person(self, oidc: AuthorizationServer) -> None:
        forms: list[list[str]] = []

        def person(login: DeviceLogin) -> None:
            forms.extend(approve_by_forms(login.verification_uri, login.user_code))

        token = flow(oidc, prompt=beside(person)).fetch(None)
        assert [name for fields in forms for name in fields if name not in ("xsrf", "prompt")] == [
            *("user_code", "user_code", "confirm", "login", "password")
        ]
        assert len(forms) == 4  # code, confirmation, login, consent
        assert (token.claims["sub"], token.claims["aud"]) == ("alice", "rabbitmq")
        assert token.refresh_token

    def test_approved_in_a_browser_gives_a_token_of_that_person(self, oidc: AuthorizationServer) -> None:
        pages: list[str] = []

        def person(login: DeviceLogin) -> None:
            pages.extend(approve_in_browser(login.verification_uri_complete or ""))

        token = flow(oidc, prompt=person).fetch(None)
        assert pages == ["Confirm Device", "Sign-in", "Authorize", "Sign-in Success"]
        assert token.claims["sub"] == "alice"

    def test_aborted_on_the_pages_is_refused(self, oidc: AuthorizationServer) -> None:
        def person(login: DeviceLogin) -> None:
            approve_by_forms(login.verification_uri, login.user_code, approve=False)

        with pytest.raises(TokenRequestRefused, match="the person refused the login") as caught:
            flow(oidc, prompt=beside(person)).fetch(None)
        assert caught.value.error == "access_denied"

    @pytest.mark.parametrize("resource", ["urn:test:mqtt", "urn:test:mqtt-es"])
    def test_brings_a_token_for_the_resource_and_so_does_each_refresh(
        self, oidc: AuthorizationServer, resource: str
    ) -> None:
        source = flow(oidc, resource=resource)
        token = source.fetch(None)
        for one in (token, source.fetch(token)):
            assert len(one.value) > 0
            assert one.claims["aud"] == "rabbitmq"
            assert set(oidc.scope.split()) <= set((one.scope or "").split())

    def test_nobody_approves_ends_with_the_code(self, oidc: AuthorizationServer) -> None:
        oidc.config(device=2)
        before = monotonic()
        with pytest.raises(TokenRequestRefused, match="nobody approved the login within 2 seconds") as caught:
            flow(oidc, prompt=lambda _login: None).fetch(None)
        assert caught.value.error == "expired_token"
        assert monotonic() - before > 0.9  # the server counts in whole seconds

    def test_nobody_approves_ends_when_the_server_says_so(
        self, oidc: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        oidc.config(device=1)
        monkeypatch.setattr(device_flow, "monotonic", lambda: clock.monotonic() - 10)
        with pytest.raises(TokenRequestRefused, match=r"nobody approved .* \(expired_token") as caught:
            flow(oidc, prompt=lambda _login: None).fetch(None)
        assert caught.value.error == "expired_token"

    def test_slows_down_when_it_is_told_to(self, oidc: AuthorizationServer, monkeypatch: pytest.MonkeyPatch) -> None:
        def impatient(login: DeviceLogin) -> None:
            oidc.config(interval=1)  # longer than the device knows
            beside(approve_after_two)(login)

        def approve_after_two(login: DeviceLogin) -> None:
            wait_until(lambda: oidc.token_requests() == 2, "the second poll")
            oidc.approve(login.user_code)

        before = monotonic()
        assert flow(oidc, prompt=impatient).fetch(None).value
        assert monotonic() - before >= 0.2 + 0.2 + 5.2
        assert oidc.token_requests() == 3

    def test_outlives_three_failures_of_the_network(
        self, oidc: AuthorizationServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []
        logins: list[DeviceLogin] = []
        really_wait = device_flow._wait

        def wait(seconds: float) -> None:
            waits.append(round(seconds, 1))
            if len(waits) == 4:  # three polls have failed
                oidc.start()
                oidc.approve(logins[0].user_code)
            really_wait(seconds)

        def pull_the_plug(login: DeviceLogin) -> None:
            logins.append(login)
            oidc.stop()

        monkeypatch.setattr(device_flow, "_wait", wait)
        assert flow(oidc, prompt=pull_the_plug).fetch(None).claims["sub"] == "alice"
        assert waits == [0.2, 0.4, 0.8, 1.6]
        assert oidc.token_requests() == 1

    @pytest.mark.parametrize(("status", "retry_after"), [(503, None), (429, 1)])
    def test_outlives_a_server_in_trouble(
        self, oidc: AuthorizationServer, status: int, retry_after: int | None
    ) -> None:
        oidc.fail(status, retry_after=retry_after)
        assert flow(oidc).fetch(None).value
        assert oidc.token_requests() == 2


@pytest.mark.usefixtures("quick")
class TestRefresh:
    def test_rotates_the_refresh_token_again_and_again(self, oidc: AuthorizationServer) -> None:
        logins: list[DeviceLogin] = []

        def person(login: DeviceLogin) -> None:
            logins.append(login)
            oidc.approve(login.user_code)

        keeper = TokenKeeper(flow(oidc, prompt=person))
        tokens = [keeper.get(), *(keeper.renew() for _ in range(3))]
        assert len({token.refresh_token for token in tokens}) == 4
        assert len({token.claims["jti"] for token in tokens}) == 4
        assert len(logins) == 1

    def test_with_a_rotated_refresh_token_is_refused(self, oidc: AuthorizationServer) -> None:
        source = flow(oidc)
        first = source.fetch(None)
        second = source.fetch(first)
        for used_up in (first, second):  # the server ends the whole family
            with pytest.raises(TokenRequestRefused) as caught:
                source.fetch(used_up)
            assert caught.value.error == "invalid_grant"
            assert str(used_up.refresh_token) not in str(caught.value)

    @pytest.mark.parametrize("lenient", [True, False])
    def test_whose_answer_is_lost_is_tried_again_with_the_predecessor_where_the_server_allows_it(
        self, oidc: AuthorizationServer, lenient: bool
    ) -> None:
        oidc.config(lenient=lenient)
        source = flow(oidc)
        token = source.fetch(None)
        oidc.lose()
        if lenient:
            again = source.fetch(token)
            assert again.refresh_token != token.refresh_token
        else:
            with pytest.raises(TokenRequestRefused) as caught:
                source.fetch(token)
            assert caught.value.error == "invalid_grant"


@pytest.mark.usefixtures("quick")
class TestRevocation:
    def test_ends_the_refresh_token(self, oidc: AuthorizationServer) -> None:
        source = flow(oidc)
        token = source.fetch(None)
        assert source.revoke(token) is True
        with pytest.raises(TokenRequestRefused) as caught:
            source.fetch(token)
        assert caught.value.error == "invalid_grant"
        assert source.revoke(token) is True  # as for any token that the server does not know (RFC 7009 section 2.2)

    def test_of_an_access_token_is_answered(self, oidc: AuthorizationServer) -> None:
        source = flow(oidc)
        assert source.revoke(Token(source.fetch(None).value)) is True
