"""The device flow against a scripted server: what is sent, how long it waits, what ends a login and what does not."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import logging
import math
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from devtools.servers.pki import Pki
from mqtt_token_client import clock
from mqtt_token_client.errors import (
    AuthorizationServerUnavailable,
    ConfigurationError,
    InvalidTokenResponse,
    MqttTokenError,
    TokenError,
    TokenRequestRefused,
)
from mqtt_token_client.events import Event, RenewalFailed
from mqtt_token_client.sources.oauth import device_flow
from mqtt_token_client.sources.oauth.client_assertion import ClientSecretJWT
from mqtt_token_client.sources.oauth.client_auth import ClientSecretPost
from mqtt_token_client.sources.oauth.client_credentials import ClientCredentials
from mqtt_token_client.sources.oauth.device_flow import DeviceFlow
from mqtt_token_client.sources.oauth.device_login import DeviceLogin
from mqtt_token_client.stores.memory import MemoryStore
from mqtt_token_client.token import Token
from mqtt_token_client.tokens.keeper import TokenKeeper

from . import oauth_server
from .oauth_server import Answer, OAuthServer, Request, answer, token_answer
from .test_token_endpoint import NO_DURATION

DEVICE_CODE = "the-device-code-that-nobody-may-see"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
PENDING = answer({"error": "authorization_pending"}, 400)
SLOW_DOWN = answer({"error": "slow_down"}, 400)
UNSUPPORTED = answer({"error": "unsupported_token_type", "error_description": "no access_token"}, 400)
OPENID = "/.well-known/openid-configuration"

TROUBLE: dict[str, Answer] = {
    "503": answer(b"busy", 503),
    "429": answer(b"too many", 429),
    "server_error": answer({"error": "server_error"}, 400),
    "temporarily_unavailable": answer({"error": "temporarily_unavailable"}, 400),
    "page": answer(b"<html>Log in to this network</html>", content_type="text/html"),
    "page with 404": answer(b"<html>Not here</html>", 404, content_type="text/html"),
    "half of an object": answer(b'{"access_token": "abc', content_type="application/json"),
    "a list": answer([1]),
    "redirect": answer(b"", 302, location="https://evil.example/token"),
    "hang up": oauth_server.HANG_UP,
    "cut off": oauth_server.CUT_OFF,
    "not HTTP": oauth_server.NOT_HTTP,
    "silence": oauth_server.SILENCE,
    "trickle": oauth_server.TRICKLE,
    "endless": oauth_server.ENDLESS,
    "10 MB": oauth_server.TEN_MEGABYTES,
    "gzip bomb": oauth_server.GZIP_BOMB,
}


def patience(name: str) -> tuple[float, float]:
    """The timeouts for a trouble: short ones where they end it, and otherwise some that a busy machine keeps. The short
    ones are for the answers without trouble too.
    """
    return (0.3, 0.3) if name in ("silence", "trickle", "endless") else (5.0, 5.0)


NO_TOKEN: dict[str, Answer] = {  # the server's own answers, after which the device code is used up
    "no token": answer({}),
    "token of a wrong type": answer({"access_token": 7}),
    "another kind of token": token_answer(token_type="mac"),
}


UNUSABLE: list[dict[str, Any]] = [
    {"token_type": "mac"},
    {"token_type": 5},
    {"access_token": 7},
    {"access_token": None},
    {"access_token": "a\x1bb"},
]


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


class Waiting:
    """Waiting that takes no time: the flow's clock is turned instead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[float] = []
        self.turned = 0.0
        monkeypatch.setattr(device_flow, "_wait", self.wait)
        monkeypatch.setattr(device_flow, "monotonic", lambda: clock.monotonic() + self.turned)

    def wait(self, seconds: float) -> None:
        self.waits.append(round(seconds, 1))
        self.turned += seconds


@pytest.fixture(autouse=True)
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting(monkeypatch)


def device_answer(**more: object) -> bytes:
    """A device authorization response (RFC 8628 section 3.2); a field that is None is left out."""
    fields = {
        "device_code": DEVICE_CODE,
        "user_code": "WDJB-MJHT",
        "verification_uri": "https://id.example.com/device",
        "expires_in": 600,
    } | more
    return answer({name: one for name, one in fields.items() if one is not None})


def flow(server: OAuthServer, **more: Any) -> DeviceFlow:
    given = {
        "client_id": "pump-17",
        "device_authorization_endpoint": f"{server.origin}/device",
        "token_endpoint": server.token_endpoint,
        "prompt": lambda _login: None,
        "timeout": (5.0, 5.0),
    }
    return DeviceFlow(**{**given, **more})


def polls(server: OAuthServer) -> list[Request]:
    return [request for request in server.token_requests if request.path == "/token"]


def refused(source: DeviceFlow) -> TokenRequestRefused:
    with pytest.raises(TokenRequestRefused) as caught:
        source.fetch(None)
    assert caught.value.permanent
    return caught.value


class TestRequest:
    def test_asks_for_a_code_then_for_the_token(self, server: OAuthServer) -> None:
        server.script.extend([device_answer(), PENDING, token_answer("value", refresh_token="again")])
        token = flow(
            server,
            scope=["mqtt", "offline_access"],
            audience="https://broker.example.com",
            resource=["urn:plant:1", "urn:plant:2"],
            extra={"tenant": "süd"},
        ).fetch(None)
        assert (token.value, token.refresh_token) == ("value", "again")
        ask, *asked = server.token_requests
        resources = [("resource", "urn:plant:1"), ("resource", "urn:plant:2")]
        assert ask.path == "/device"
        assert ask.form == [
            ("scope", "mqtt offline_access"),
            ("audience", "https://broker.example.com"),
            *resources,
            ("tenant", "süd"),
            ("client_id", "pump-17"),
        ]
        poll = [("grant_type", DEVICE_GRANT), ("device_code", DEVICE_CODE), *resources, ("client_id", "pump-17")]
        assert [request.form for request in asked] == [poll, poll]
        assert not [request for request in server.requests if "authorization" in request.headers]

    def test_client_with_a_secret_proves_itself_every_time(self, server: OAuthServer) -> None:
        server.script.extend([device_answer(), PENDING])
        flow(server, client_secret="secret").fetch(None)
        assert ["Basic" in request.headers["authorization"] for request in server.requests] == [True] * 3

    @pytest.mark.parametrize(
        "auth",
        [
            {},
            {"client_secret": "secret"},
            {"client_auth": ClientSecretPost("secret")},
            {"client_auth": ClientSecretJWT("secret" * 6)},
        ],
        ids=["public", "secret", "post", "JWT"],
    )
    def test_for_a_code_names_the_client_once_however_it_proves_itself(
        self, server: OAuthServer, auth: dict[str, Any]
    ) -> None:
        """Hydra and others refuse a client with a secret otherwise; RFC 8628 section 3.1 allows it."""
        server.script.append(device_answer())
        flow(server, **auth).fetch(None)
        assert [value for name, value in server.requests[0].form if name == "client_id"] == ["pump-17"]

    def test_endpoints_are_discovered(self, server: OAuthServer) -> None:
        server.describe(OPENID, device_authorization_endpoint=f"{server.origin}/device")
        server.pages["/device"] = device_answer()
        flow(server, issuer=server.origin, device_authorization_endpoint=None, token_endpoint=None).fetch(None)
        assert [request.path for request in server.requests] == [OPENID, "/device", "/token"]

    def test_server_without_device_flow_is_distinguished_until_it_has_one(self, server: OAuthServer) -> None:
        server.describe(OPENID)
        source = flow(server, issuer=server.origin, device_authorization_endpoint=None, token_endpoint=None)
        with pytest.raises(ConfigurationError, match="does not support the device flow"):
            source.fetch(None)
        server.describe(OPENID, device_authorization_endpoint=f"{server.origin}/device")
        server.pages["/device"] = device_answer()
        assert source.fetch(None).value


class TestWaiting:
    def test_is_five_seconds_where_the_server_says_nothing(self, server: OAuthServer, waiting: Waiting) -> None:
        server.script.extend([device_answer(), PENDING, PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [5, 5, 5]

    @pytest.mark.parametrize("value", [0, -1, "", "soon", None, [5], True])
    def test_is_five_seconds_too_where_the_servers_interval_makes_no_sense(
        self, server: OAuthServer, waiting: Waiting, value: object
    ) -> None:
        """RFC 8628 section 3.2: a login must not fail for it."""
        server.script.extend([device_answer(interval=value), PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [5, 5]

    @pytest.mark.parametrize("value", [2, 2.0, "2"])
    def test_is_the_servers_interval(self, server: OAuthServer, waiting: Waiting, value: object) -> None:
        server.script.extend([device_answer(interval=value), PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [2, 2]

    @pytest.mark.parametrize("value", [1e-9, 0.001])
    def test_is_a_tenth_of_a_second_where_the_servers_interval_is_less(
        self, server: OAuthServer, waiting: Waiting, value: float
    ) -> None:
        server.script.extend([device_answer(interval=value), PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [0.1, 0.1]

    def test_is_five_seconds_longer_for_good_after_each_slow_down(self, server: OAuthServer, waiting: Waiting) -> None:
        server.script.extend([device_answer(), SLOW_DOWN, PENDING, PENDING, SLOW_DOWN, PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [5, 10, 10, 10, 15, 15]

    @pytest.mark.parametrize(("value", "then"), [(30, 30), (6, 10), (1, 10), (-3, 10), ("soon", 10), (None, 10)])
    def test_is_at_least_the_interval_that_slow_down_brings(
        self, server: OAuthServer, waiting: Waiting, value: object, then: float
    ) -> None:
        slow_down = answer({"error": "slow_down", "interval": value})  # with HTTP 200, as GitHub sends it
        server.script.extend([device_answer(), slow_down, PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [5, then, then]

    def test_is_a_minute_where_the_servers_leaves_no_time_for_a_second_poll(
        self, server: OAuthServer, waiting: Waiting
    ) -> None:
        """Otherwise nobody would notice the approval; slow_down makes it longer all the same (section 3.5)."""
        slow_down = answer({"error": "slow_down", "interval": 1e9})
        server.script.extend([device_answer(interval=1e9), PENDING, SLOW_DOWN, slow_down, PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [60, 60, 65, 70, 70]

    def test_is_the_servers_however_long_it_is_if_there_is_time_for_a_second_poll(
        self, server: OAuthServer, waiting: Waiting
    ) -> None:
        server.script.extend([device_answer(interval=290), PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [290, 290]

    @pytest.mark.parametrize(("lifetime", "waits"), [(90, [30, 30]), (12, [5, 5])])
    def test_leaves_time_for_two_polls_of_a_code_that_expires_soon(
        self, server: OAuthServer, waiting: Waiting, lifetime: float, waits: list[float]
    ) -> None:
        server.script.extend([device_answer(interval=1e9, expires_in=lifetime), PENDING])
        flow(server).fetch(None)
        assert waiting.waits == waits

    def test_doubles_in_trouble_up_to_a_minute_and_is_the_interval_again_after_an_answer(
        self, server: OAuthServer, waiting: Waiting
    ) -> None:
        trouble = [TROUBLE["hang up"]] * 5
        server.script.extend([device_answer(), SLOW_DOWN, *trouble, PENDING, TROUBLE["503"], PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [5, 10, 20, 40, 60, 60, 60, 10, 20, 10]

    def test_in_trouble_is_never_shorter_than_the_interval(self, server: OAuthServer, waiting: Waiting) -> None:
        server.script.extend([device_answer(interval=50), TROUBLE["503"], TROUBLE["503"]])
        flow(server).fetch(None)
        assert waiting.waits == [50, 60, 60]

    def test_is_as_long_as_retry_after_asks(self, server: OAuthServer, waiting: Waiting) -> None:
        server.script.extend([device_answer(), answer(b"", 429, retry_after="100"), TROUBLE["503"], PENDING])
        flow(server).fetch(None)
        assert waiting.waits == [5, 100, 60, 5]

    def test_in_trouble_leaves_time_for_a_poll_before_the_code_expires(
        self, server: OAuthServer, waiting: Waiting
    ) -> None:
        server.script.extend([device_answer(expires_in=300), *[TROUBLE["hang up"]] * 7])
        assert flow(server).fetch(None).value
        assert waiting.waits[:-1] == [5, 10, 20, 40, 60, 60, 60]
        assert waiting.waits[-1] == pytest.approx(40, abs=1)

    def test_in_trouble_is_not_shorter_than_the_interval_for_a_poll_before_the_code_expires(
        self, server: OAuthServer, waiting: Waiting
    ) -> None:
        server.script.append(device_answer(expires_in=62, interval=20))
        server.pages["/token"] = TROUBLE["503"]
        refused(flow(server))
        assert waiting.waits == [20, pytest.approx(37, abs=1), pytest.approx(5, abs=1)]
        assert len(polls(server)) == 2

    def test_is_as_long_as_retry_after_asks_though_the_code_expires(
        self, server: OAuthServer, waiting: Waiting
    ) -> None:
        server.script.extend([device_answer(expires_in=100), answer(b"", 429, retry_after="200")])
        refused(flow(server))
        assert len(polls(server)) == 1

    def test_really_takes_its_time(self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        server.script.extend([device_answer(interval=1), PENDING])
        before = clock.monotonic()
        flow(server).fetch(None)
        assert clock.monotonic() - before >= 2


class TestTrouble:
    @pytest.mark.parametrize("name", TROUBLE)
    def test_of_any_kind_does_not_end_the_login(self, server: OAuthServer, name: str) -> None:
        server.script.extend([device_answer(), *[TROUBLE[name]] * 3, PENDING])
        assert flow(server, timeout=patience(name)).fetch(None).value == "opaque-token-6"

    @pytest.mark.parametrize("name", TROUBLE)
    def test_that_lasts_is_reported_when_the_code_has_expired_and_nothing_is_stored(
        self, server: OAuthServer, name: str
    ) -> None:
        server.script.extend([device_answer(expires_in=6), TROUBLE[name]])
        source, store = flow(server, timeout=patience(name)), MemoryStore()
        with pytest.raises(
            TokenRequestRefused, match=f"within 6 seconds; .* failed: {server.token_endpoint}"
        ) as caught:
            TokenKeeper(source, store).get()
        assert caught.value.error == "expired_token"
        assert store.load(source.key) is None
        assert len(polls(server)) == 1

    def test_of_trust_does_not_end_the_login_either(self, server: OAuthServer, pki: Pki) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.server.certificate, pki.server.key)
        server.script.append(device_answer(expires_in=20))
        with OAuthServer(context) as untrusted:
            assert "certificate" in str(refused(flow(server, token_endpoint=untrusted.token_endpoint)))

    @pytest.mark.parametrize("name", NO_TOKEN)
    def test_of_an_invalid_token_response_ends_it_and_nothing_is_stored(self, server: OAuthServer, name: str) -> None:
        server.script.extend([device_answer(), NO_TOKEN[name]])
        source, store = flow(server), MemoryStore()
        with pytest.raises(InvalidTokenResponse, match="token response"):
            TokenKeeper(source, store).get()
        assert store.load(source.key) is None
        assert len(polls(server)) == 1


class TestEnd:
    def test_by_the_person_is_reported_in_plain_words(self, server: OAuthServer) -> None:
        server.script.extend(
            [device_answer(), answer({"error": "access_denied", "error_description": "not mine"}, 403)]
        )
        error = refused(flow(server))
        assert str(error) == "the person refused the login (access_denied: not mine)"
        assert (error.error, error.description, error.status) == ("access_denied", "not mine", 403)

    def test_by_the_server_is_reported_in_plain_words(self, server: OAuthServer) -> None:
        server.script.extend([device_answer(), answer({"error": "expired_token"}, 400)])
        error = refused(flow(server))
        assert str(error) == "nobody approved the login within 10 minutes (expired_token)"
        assert error.error == "expired_token"

    def test_by_time_comes_without_a_poll_too_many(self, server: OAuthServer, waiting: Waiting) -> None:
        server.pages |= {"/device": device_answer(expires_in=62, interval=20), "/token": PENDING}
        error = refused(flow(server))
        assert str(error) == "nobody approved the login within 62 seconds"
        assert error.error == "expired_token"
        assert waiting.waits[:-1] == [20, 20, 20]
        assert 0 < waiting.waits[-1] <= 2
        assert len(polls(server)) == 3

    def test_counts_from_when_the_code_was_asked_for(self, server: OAuthServer, waiting: Waiting) -> None:
        def slowly(connection: Any, closing: threading.Event) -> None:
            closing.wait(0.2)
            connection.sendall(device_answer(expires_in=10))

        server.script.append(slowly)
        server.pages["/token"] = PENDING
        refused(flow(server))
        assert sum(waiting.waits) <= 9.85

    def test_in_a_suspend_leaves_nothing_to_ask(self, server: OAuthServer, waiting: Waiting) -> None:
        def sleep(_login: DeviceLogin) -> None:
            waiting.turned += 3600

        server.script.append(device_answer())
        refused(flow(server, prompt=sleep))
        assert polls(server) == []

    @pytest.mark.parametrize(
        "error",
        [  # RFC 6749 section 5.2, RFC 8707 section 2
            *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client"),
            *("unsupported_grant_type", "invalid_scope", "invalid_target", "something_new"),
        ],
    )
    @pytest.mark.parametrize("before", [[], [device_answer(), PENDING]], ids=["the code", "the token"])
    def test_by_any_other_error_is_typed_and_named(self, server: OAuthServer, before: list[bytes], error: str) -> None:
        server.script.extend([*before, answer({"error": error, "error_description": "because"}, 400)])
        shown: list[DeviceLogin] = []
        source, store = flow(server, prompt=shown.append), MemoryStore()
        with pytest.raises(TokenRequestRefused, match=rf"/(token|device): {error} \(because\)") as caught:
            TokenKeeper(source, store).get()
        assert caught.value.error == error
        assert store.load(source.key) is None
        assert len(server.requests) == len(before) + 1
        assert [login.ended for login in shown] == [True] * bool(before)


class TestDeviceAuthorization:
    @pytest.mark.parametrize("error", ["access_denied", "expired_token", "authorization_pending"])
    def test_refused_by_an_error_of_the_token_endpoint_is_typed_too(self, server: OAuthServer, error: str) -> None:
        server.script.append(answer({"error": error}, 400))
        assert refused(flow(server)).error == error

    def test_that_is_to_slow_down_says_so_and_passes(self, server: OAuthServer) -> None:
        server.script.append(SLOW_DOWN)
        with pytest.raises(AuthorizationServerUnavailable, match="/device: slow_down") as caught:
            flow(server).fetch(None)
        assert caught.value.error == "slow_down"

    @pytest.mark.parametrize("name", TROUBLE)
    def test_in_trouble_raises_at_once_what_it_was_and_shows_nothing(self, server: OAuthServer, name: str) -> None:
        server.script.append(TROUBLE[name])
        shown: list[DeviceLogin] = []
        with pytest.raises((AuthorizationServerUnavailable, InvalidTokenResponse), match=f"{server.origin}/device"):
            flow(server, prompt=shown.append, timeout=patience(name)).fetch(None)
        assert shown == []
        assert len(server.requests) == 1

    @pytest.mark.parametrize("name", ["device_code", "user_code", "verification_uri", "expires_in"])
    @pytest.mark.parametrize("wrong", [None, -7.5, "", ["a"], {}, True], ids=repr)
    def test_response_without_a_field_or_with_one_of_a_wrong_type_names_it(
        self, server: OAuthServer, name: str, wrong: object
    ) -> None:
        server.script.append(device_answer(**{name: wrong}))
        with pytest.raises(InvalidTokenResponse, match=name.replace("uri", "ur[il]")) as caught:
            flow(server).fetch(None)
        assert DEVICE_CODE not in str(caught.value)

    def test_response_with_an_address_of_a_wrong_type_names_it(self, server: OAuthServer) -> None:
        server.script.append(device_answer(verification_uri_complete=7))
        with pytest.raises(InvalidTokenResponse, match="verification_uri_complete"):
            flow(server).fetch(None)

    @pytest.mark.parametrize("name", ["user_code", "verification_uri", "verification_uri_complete"])
    @pytest.mark.parametrize("text", ["A\x1b]0;title\x07", "A\nB", "A\u202eB"], ids=ascii)
    def test_response_with_characters_that_steer_a_terminal_is_refused(
        self, server: OAuthServer, name: str, text: str
    ) -> None:
        server.script.append(device_answer(**{name: text}))
        with pytest.raises(InvalidTokenResponse, match=name) as caught:
            flow(server).fetch(None)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("name", ["verification_uri", "verification_uri_complete"])
    @pytest.mark.parametrize(
        "url", ["javascript:alert(1)", "file:///etc/passwd", "id.example.com/device", "data:text/html,x"]
    )
    def test_response_with_an_address_that_is_not_a_web_page_is_rejected(
        self, server: OAuthServer, name: str, url: str
    ) -> None:
        server.script.append(device_answer(**{name: url}))
        with pytest.raises(InvalidTokenResponse, match=f"{name} must be an https or http URL$"):
            flow(server).fetch(None)

    @pytest.mark.parametrize("name", ["user_code", "verification_uri", "verification_uri_complete"])
    def test_response_with_a_text_too_long_to_show_is_rejected(self, server: OAuthServer, name: str) -> None:
        server.script.append(device_answer(**{name: f"https://id.example.com/{'x' * 2000}"}))
        with pytest.raises(InvalidTokenResponse, match=f"{name} must not contain .* nor more than 20*0 characters$"):
            flow(server).fetch(None)

    def test_response_with_googles_name_for_the_address_is_understood(self, server: OAuthServer) -> None:
        shown: list[DeviceLogin] = []
        server.script.append(device_answer(verification_uri=None, verification_url="https://www.google.com/device"))
        flow(server, prompt=shown.append).fetch(None)
        assert shown[0].verification_uri == "https://www.google.com/device"


class TestLogin:
    def test_has_what_a_person_needs_and_ends_with_the_approval(self, server: OAuthServer) -> None:
        seen: list[tuple[DeviceLogin, bool, float]] = []
        server.script.append(device_answer(verification_uri_complete="https://id.example.com/device?c=1"))
        flow(server, prompt=lambda login: seen.append((login, login.ended, login.expires_in))).fetch(None)
        ((login, ended, left),) = seen
        assert (login.user_code, login.verification_uri) == ("WDJB-MJHT", "https://id.example.com/device")
        assert login.verification_uri_complete == "https://id.example.com/device?c=1"
        assert not ended
        assert 590 < left <= 600
        assert login.ended
        assert login.wait(0)

    @pytest.mark.parametrize("last", [answer({"error": "access_denied"}, 400), answer({"error": "expired_token"}, 400)])
    def test_ends_with_a_refusal(self, server: OAuthServer, last: bytes) -> None:
        shown: list[DeviceLogin] = []
        server.script.extend([device_answer(), last])
        refused(flow(server, prompt=shown.append))
        assert shown[0].ended

    def test_ends_with_an_interrupt(self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(_seconds: float) -> None:
            raise KeyboardInterrupt

        shown: list[DeviceLogin] = []
        monkeypatch.setattr(device_flow, "_wait", interrupt)
        server.script.append(device_answer())
        with pytest.raises(KeyboardInterrupt):
            flow(server, prompt=shown.append).fetch(None)
        assert shown[0].ended

    def test_is_a_value_that_does_not_change_and_knows_no_device_code(self, server: OAuthServer) -> None:
        shown: list[DeviceLogin] = []
        server.script.append(device_answer(verification_uri_complete="https://id.example.com/device?c=WDJB-MJHT"))
        flow(server, prompt=shown.append).fetch(None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            shown[0].ended = False  # type: ignore[misc]  # that is the point
        assert repr(shown[0]) == "DeviceLogin(verification_uri='https://id.example.com/device')"
        assert DEVICE_CODE not in str(vars(shown[0]))

    def test_time_left_is_never_negative(self) -> None:
        assert DeviceLogin("code", "https://id.example.com", None, clock.monotonic() - 5).expires_in == 0

    def test_goes_on_when_prompt_raises(self, server: OAuthServer, caplog: pytest.LogCaptureFixture) -> None:
        def fails(_login: DeviceLogin) -> None:
            raise OSError("no display")

        server.script.append(device_answer())
        assert flow(server, prompt=fails).fetch(None).value
        assert "no display" in caplog.text
        assert DEVICE_CODE not in caplog.text


class TestRefresh:
    OLD = Token("old", 60, refresh_token="refresh-1")

    def test_sends_what_was_asked_for_again_and_takes_the_new_refresh_token(self, server: OAuthServer) -> None:
        server.script.append(token_answer("new", refresh_token="refresh-2", scope="a"))
        source = flow(server, scope="a b", audience="x", resource="urn:plant:1", extra={"tenant": "süd"})
        token = source.fetch(self.OLD)
        assert (token.value, token.refresh_token, token.scope, token.lifetime) == ("new", "refresh-2", "a", 3600)
        assert server.requests[0].form == [
            ("grant_type", "refresh_token"),
            ("refresh_token", "refresh-1"),
            ("scope", "a b"),
            ("audience", "x"),
            ("resource", "urn:plant:1"),
            ("tenant", "süd"),
            ("client_id", "pump-17"),
        ]

    @pytest.mark.parametrize(("granted", "sent"), [("b a", True), ("a b c", True), ("a", False), ("", False)])
    def test_never_asks_for_more_scope_than_was_granted(self, server: OAuthServer, granted: str, sent: bool) -> None:
        source = flow(server, scope="a b", audience="https://broker.example.com")
        source.fetch(Token("old", refresh_token="refresh-1", scope=granted))
        assert (("scope", "a b") in server.requests[0].form) is sent
        assert ("audience", "https://broker.example.com") in server.requests[0].form

    def test_keeps_the_refresh_token_and_the_scope_that_no_answer_replaces(self, server: OAuthServer) -> None:
        token = flow(server).fetch(Token("old", refresh_token="refresh-1", scope="a"))
        assert (token.refresh_token, token.scope) == ("refresh-1", "a")

    @pytest.mark.parametrize(
        ("answered", "left"),
        [
            ({}, math.inf),
            ({"refresh_expires_in": 900}, 900),
            ({"refresh_token": "refresh-2"}, math.inf),
            ({"refresh_token": "refresh-2", "refresh_expires_in": 1800}, 1800),
        ],
        ids=str,
    )
    def test_knows_when_the_refresh_token_expires_if_the_answer_says_so(
        self, server: OAuthServer, answered: dict[str, Any], left: float
    ) -> None:
        server.script.append(token_answer("new", **answered))
        old = Token("old", 60, since=clock.monotonic() - 100, refresh_token="refresh-1", refresh_expires_in=1800)
        assert flow(server).fetch(old).refresh_lifetime == pytest.approx(left, abs=5)

    def test_of_an_empty_refresh_token_keeps_the_old_one_too(self, server: OAuthServer) -> None:
        server.script.append(token_answer(refresh_token=""))
        assert flow(server).fetch(self.OLD).refresh_token == "refresh-1"

    @pytest.mark.parametrize(
        "odd",
        [*({"expires_in": value} for value in NO_DURATION), {"scope": ["a", "b"]}, {"scope": 5}, {"token_type": None}],
        ids=lambda odd: str(odd)[:40],
    )
    def test_with_an_odd_answer_takes_the_new_refresh_token(self, server: OAuthServer, odd: dict[str, Any]) -> None:
        server.script.append(token_answer("new", refresh_token="refresh-2", **odd))
        token = flow(server).fetch(self.OLD)
        assert (token.value, token.refresh_token) == ("new", "refresh-2")

    @pytest.mark.parametrize("odd", UNUSABLE, ids=str)
    def test_with_an_answer_of_no_use_stores_its_refresh_token_all_the_same(
        self, server: OAuthServer, odd: dict[str, Any]
    ) -> None:
        """The old one is used up: if it were sent again, the server would revoke all that followed from the login."""
        store, events = MemoryStore(), list[Event]()
        source = flow(server)
        store.save(source.key, Token("old", 60, since=clock.monotonic() - 50, refresh_token="refresh-1", scope="a"))
        keeper = TokenKeeper(source, store, on_event=events.append)
        server.script.append(token_answer(**{"refresh_token": "refresh-2", **odd}))
        with pytest.raises(InvalidTokenResponse):
            keeper.renew()
        assert [type(event) for event in events] == [RenewalFailed]
        stored = store.load(source.key)
        assert stored is not None
        assert (stored, stored.refresh_token, stored.scope) == (Token("old"), "refresh-2", "a")
        assert keeper.get() == Token("old")  # it is valid still
        assert keeper.renew().refresh_token == "refresh-2"
        assert [dict(request.form)["refresh_token"] for request in server.requests] == ["refresh-1", "refresh-2"]

    @pytest.mark.parametrize("odd", UNUSABLE, ids=str)
    def test_with_an_answer_of_no_use_and_no_refresh_token_stores_nothing(
        self, server: OAuthServer, odd: dict[str, Any]
    ) -> None:
        store, source = MemoryStore(), flow(server)
        store.save(source.key, old := Token("old", 60, refresh_token="refresh-1"))
        server.script.append(token_answer(**odd))
        with pytest.raises(InvalidTokenResponse):
            TokenKeeper(source, store).renew()
        assert store.load(source.key) is old

    def test_that_is_refused_asks_nobody(self, server: OAuthServer) -> None:
        shown: list[DeviceLogin] = []
        server.script.append(answer({"error": "invalid_grant", "error_description": "not refresh-1"}, 400))
        with pytest.raises(TokenRequestRefused) as caught:
            flow(server, prompt=shown.append).fetch(self.OLD)
        assert caught.value.error == "invalid_grant"
        assert "refresh-1" not in repr(caught.value)
        assert (shown, len(server.requests)) == ([], 1)

    def test_whose_answer_is_lost_is_tried_once_more_at_once_with_the_predecessor(self, server: OAuthServer) -> None:
        server.script += [oauth_server.HANG_UP]
        flow(server).fetch(self.OLD)
        assert [dict(request.form)["refresh_token"] for request in server.requests] == ["refresh-1"] * 2
        server.script += [oauth_server.HANG_UP] * 2
        with pytest.raises(AuthorizationServerUnavailable):
            flow(server).fetch(self.OLD)
        assert len(server.requests) == 4

    def test_that_has_an_answer_is_not_tried_again_at_once(self, server: OAuthServer) -> None:
        server.script.append(answer(b"out of order", 503))
        with pytest.raises(AuthorizationServerUnavailable):
            flow(server).fetch(self.OLD)
        assert len(server.requests) == 1

    def test_is_not_possible_without_a_refresh_token(self, server: OAuthServer) -> None:
        server.script.append(device_answer())
        flow(server).fetch(Token("old", 60))
        assert server.requests[0].path == "/device"


def any_source(server: OAuthServer, device: bool) -> DeviceFlow | ClientCredentials:
    if device:
        return flow(server, issuer=server.origin, device_authorization_endpoint=None, token_endpoint=None)
    return ClientCredentials(client_id="pump-17", client_secret="secret", issuer=server.origin)


class TestProofKey:
    """PKCE (RFC 7636), which Keycloak can demand in the device flow."""

    def start(self, server: OAuthServer, methods: object) -> DeviceFlow:
        server.describe(
            OPENID, device_authorization_endpoint=f"{server.origin}/device", code_challenge_methods_supported=methods
        )
        server.pages["/device"] = device_answer()
        return flow(server, issuer=server.origin, device_authorization_endpoint=None, token_endpoint=None)

    def test_is_sent_where_the_server_supports_it(self, server: OAuthServer) -> None:
        source = self.start(server, ["plain", "S256"])
        for _ in range(2):
            source.fetch(None)
        begun = [dict(request.form) for request in server.token_requests if request.path == "/device"]
        proofs = [dict(request.form)["code_verifier"] for request in polls(server)]
        for form, proof in zip(begun, proofs, strict=True):
            digest = hashlib.sha256(proof.encode()).digest()
            assert form["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
            assert form["code_challenge_method"] == "S256"
            assert 43 <= len(proof) <= 128
        assert proofs[0] != proofs[1]

    @pytest.mark.parametrize("methods", [None, [], ["plain"], "S256", 5])
    def test_is_not_sent_where_it_does_not(self, server: OAuthServer, methods: object) -> None:
        self.start(server, methods).fetch(None)
        names = {name for request in server.token_requests for name, _ in request.form}
        assert not names & {"code_challenge", "code_challenge_method", "code_verifier"}

    def test_is_left_out_where_the_server_does_not_accept_it_in_this_flow(self, server: OAuthServer) -> None:
        source = self.start(server, ["S256"])
        body = {"error": "invalid_request", "error_description": "Parameter not allowed: code_challenge"}
        server.script.extend([server.pages[OPENID], answer(body, 400)])
        assert source.fetch(None).value.startswith("opaque-token")
        assert "code_verifier" not in dict(polls(server)[0].form)

    def test_is_left_out_where_the_server_does_not_accept_it_for_the_token(self, server: OAuthServer) -> None:
        source = self.start(server, ["S256"])
        body = {"error": "invalid_request", "error_description": "Parameter not allowed: code_verifier"}
        server.script.extend([server.pages[OPENID], device_answer(), answer(body, 400)])
        assert source.fetch(None).value.startswith("opaque-token")
        first, second = (dict(request.form) for request in polls(server))
        assert first.pop("code_verifier")
        assert first == second

    def test_does_not_hide_another_refusal(self, server: OAuthServer) -> None:
        source = self.start(server, ["S256"])
        server.pages["/device"] = answer({"error": "invalid_client"}, 401)
        assert refused(source).error == "invalid_client"
        assert len(server.token_requests) == 1


@pytest.mark.parametrize("device", [True, False])
class TestRevocation:
    @pytest.mark.parametrize(
        ("token", "sent"),
        [
            (Token("access", refresh_token="refresh"), ("refresh", "refresh_token")),
            (Token("access"), ("access", "access_token")),
        ],
        ids=["refresh token", "access token"],
    )
    @pytest.mark.parametrize("body", [b"", b"done", b"{}"])
    def test_is_of_the_refresh_token_if_there_is_one(
        self, server: OAuthServer, device: bool, token: Token, sent: tuple[str, str], body: bytes
    ) -> None:
        server.describe(OPENID, revocation_endpoint=f"{server.origin}/revoke")
        server.pages["/revoke"] = answer(body)
        assert any_source(server, device).revoke(token) is True
        assert [request.path for request in server.requests] == [OPENID, "/revoke"]
        assert server.requests[1].form[:2] == [("token", sent[0]), ("token_type_hint", sent[1])]

    def test_is_not_there_without_an_endpoint_for_it(self, server: OAuthServer, device: bool) -> None:
        server.describe(OPENID)
        assert any_source(server, device).revoke(Token("access")) is False
        assert server.token_requests == []

    @pytest.mark.parametrize("discovered", [True, False])
    def test_is_at_the_endpoint_that_was_given(self, server: OAuthServer, device: bool, discovered: bool) -> None:
        server.describe(OPENID, revocation_endpoint="https://elsewhere.example")
        server.pages["/revoke"] = answer(b"")
        where: dict[str, Any] = {"issuer": server.origin} if discovered else {"token_endpoint": server.token_endpoint}
        source: DeviceFlow | ClientCredentials
        if device:
            endpoint = None if discovered else f"{server.origin}/device"
            where = {"token_endpoint": None, **where, "device_authorization_endpoint": endpoint}
            source = flow(server, revocation_endpoint=f"{server.origin}/revoke", **where)
            plain = flow(server, **where)
        else:
            given = {"client_id": "pump-17", "client_secret": "secret", **where}
            source = ClientCredentials(revocation_endpoint=f"{server.origin}/revoke", **given)
            plain = ClientCredentials(**given)  # type: ignore[assignment]
        assert source.revoke(Token("access")) is True
        assert server.requests[-1].path == "/revoke"
        assert source.key == plain.key  # the stored token is found with and without it

    def test_is_not_there_for_a_kind_that_the_server_does_not_revoke(self, server: OAuthServer, device: bool) -> None:
        server.describe(OPENID, revocation_endpoint=f"{server.origin}/revoke")
        server.pages["/revoke"] = UNSUPPORTED
        assert any_source(server, device).revoke(Token("access")) is False

    @pytest.mark.parametrize(
        ("wrong", "kind", "match"),
        [
            (answer({"error": "invalid_client", "error_description": "a-token"}, 401), TokenRequestRefused, "…"),
            (answer(b"", 503), AuthorizationServerUnavailable, "503"),
            (answer(b"<html>", 404, content_type="text/html"), InvalidTokenResponse, "404 with text/html"),
            (oauth_server.CUT_OFF, AuthorizationServerUnavailable, "revoke"),
        ],
    )
    def test_that_fails_is_typed_and_shows_no_token(
        self, server: OAuthServer, device: bool, wrong: Answer, kind: type[MqttTokenError], match: str
    ) -> None:
        server.describe(OPENID, revocation_endpoint=f"{server.origin}/revoke")
        server.pages["/revoke"] = wrong
        with pytest.raises(kind, match=match) as caught:
            any_source(server, device).revoke(Token("a-token"))
        assert "a-token" not in repr(caught.value)


RIGHT: dict[str, Any] = {"client_id": "pump-17", "issuer": "https://id.example.com"}
ENDPOINTS = {
    "device_authorization_endpoint": "https://id.example.com/device",
    "token_endpoint": "https://id.example.com/token",
}


class TestArguments:
    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"client_id": ""}, "client_id"),
            ({"issuer": None}, "device_authorization_endpoint"),
            ({"issuer": None, "token_endpoint": "https://id.example.com/token"}, "device_authorization_endpoint"),
            (ENDPOINTS, "issuer"),
            ({**ENDPOINTS, "issuer": None, "token_endpoint": "http://id.example.com"}, "token_endpoint"),
            ({"client_secret": ""}, "client_secret"),
            ({"client_secret": "s", "client_auth": "s"}, "client_auth"),
            ({"client_auth": "s"}, "client_auth"),
            ({"extra": {"device_code": "a"}}, "device_code"),
            ({"prompt": None}, "prompt"),
            ({"timeout": 10}, "timeout"),
        ],
        ids=str,
    )
    def test_wrong_one_is_named_in_one_line(self, wrong: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=named) as caught:
            DeviceFlow(**{**RIGHT, **wrong})
        assert "\n" not in str(caught.value)

    def test_repr_names_the_client_and_the_server_only(self) -> None:
        assert repr(DeviceFlow(**RIGHT)) == "DeviceFlow(client_id='pump-17', issuer='https://id.example.com')"

    def test_key_is_of_all_that_makes_the_token_another(self) -> None:
        others: list[dict[str, Any]] = [
            {},
            {"client_id": "pump-18"},
            {"issuer": "https://id2.example.com"},
            {"issuer": None, **ENDPOINTS},
            {"scope": "a"},
            {"audience": "a"},
        ]
        keys = {DeviceFlow(**{**RIGHT, **other}).key for other in others}
        assert len(keys | {ClientCredentials(**RIGHT, client_secret="secret").key}) == len(others) + 1
        same: list[dict[str, Any]] = [{}, {"client_secret": "secret"}, {"prompt": print}]
        assert len({DeviceFlow(**{**RIGHT, **one}).key for one in same}) == 1


def test_debug_log_of_a_login_and_a_refresh_shows_no_secret(
    server: OAuthServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echoes = [
        answer({"error": "invalid_grant", "error_description": f"you sent {one}"}, 400)
        for one in ("the-refresh-token", DEVICE_CODE)
    ]
    server.script.extend(
        [device_answer(), TROUBLE["503"], token_answer("the-token", refresh_token="the-refresh-token")]
    )
    server.script.extend([echoes[0], device_answer(), echoes[1]])
    source, seen = flow(server), list[str]()
    token = source.fetch(None)
    for previous in (token, None):
        with pytest.raises(TokenError) as caught:
            source.fetch(previous)
        seen.append(f"{caught.value!r} {vars(caught.value)}")
    shown = "".join([caplog.text, *seen, repr(source), repr(token)])
    assert "/device" in caplog.text  # urllib3 logs each request
    assert not [one for one in (DEVICE_CODE, "the-refresh-token", "the-token") if one in shown]
