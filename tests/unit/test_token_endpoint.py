"""The token endpoint client against a scripted server: what it takes for a token, what it says of everything else."""

from __future__ import annotations

import base64
import json
import logging
import math
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from email.utils import formatdate
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from devtools.servers.processes import free_port
from mqtt_token_client.clock import monotonic
from mqtt_token_client.errors import (
    AuthorizationServerUnavailable,
    InvalidTokenResponse,
    TokenError,
    TokenRequestRefused,
)
from mqtt_token_client.sources.oauth.client_assertion import ClientSecretJWT
from mqtt_token_client.sources.oauth.client_auth import ClientSecretBasic, ClientSecretPost, PublicClient, TokenRequest
from mqtt_token_client.sources.oauth.http import HttpClient
from mqtt_token_client.sources.oauth.token_endpoint import TokenEndpoint

from . import oauth_server
from .oauth_server import Answer, OAuthServer, Request, answer, token_answer

SECRET = "s3cr&t wörd+%/<of> the:client"
FORMS = [  # of the secret, or parts of it, as they may be met: as it is, in a form, in Basic, in HTML
    SECRET,
    "wörd",
    "s3cr%26t",
    "w%C3%B6rd",
    base64.b64encode(b"pump-17:s3cr%26t+w%C3%B6rd%2B%25%2F%3Cof%3E+the%3Aclient").decode(),
    "s3cr&amp;t",
]
GRANT = [("grant_type", "client_credentials")]


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as server:
        yield server


def endpoint(url: str, auth: Any = None, **transport: Any) -> TokenEndpoint:
    given = {"timeout": (5.0, 5.0)} | transport
    return TokenEndpoint("pump-17", auth or ClientSecretBasic(SECRET), {"token_endpoint": url}, HttpClient(**given))


def failure(url: str, **transport: Any) -> TokenError:
    """What asking for a token raises."""
    with pytest.raises(TokenError) as caught:
        endpoint(url, **transport).token(GRANT)
    return caught.value


def jwt(**claims: object) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".x"


NO_DURATION = [-1, 0, "", True, "soon", "never", "nan", "1e400", 1e30, 10**400, 1_790_000_000, 2_147_483_647, [1], {}]


class TestTokenResponse:
    def test_is_a_token(self, server: OAuthServer) -> None:
        server.script.append(token_answer("value", refresh_token="again", scope="a b"))
        token = endpoint(server.token_endpoint).token(GRANT)
        assert (token.value, token.refresh_token, token.scope, token.lifetime) == ("value", "again", "a b", 3600)

    def test_life_counts_from_the_moment_the_request_was_sent(self, server: OAuthServer) -> None:
        def slowly(connection: Any, closing: threading.Event) -> None:
            closing.wait(0.3)
            connection.sendall(token_answer(expires_in=60))

        server.script.append(slowly)
        before = monotonic()
        token = endpoint(server.token_endpoint).token(GRANT)
        assert before <= token.since
        assert token.expires_in <= 59.7

    @pytest.mark.parametrize("value", [3600, 3600.0, "3600"])
    def test_expires_in_may_be_any_number(self, server: OAuthServer, value: object) -> None:
        server.script.append(token_answer(expires_in=value))
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == 3600

    @pytest.mark.parametrize("value", NO_DURATION)
    def test_expires_in_that_is_not_a_duration_counts_as_missing(
        self, server: OAuthServer, value: object, caplog: pytest.LogCaptureFixture
    ) -> None:
        """RFC 6749 section 5.1: it is optional, so it must not cost the token and its refresh token."""
        server.script += [token_answer(expires_in=value), token_answer(jwt(iat=1000, exp=1060), expires_in=value)]
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == float("inf")
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == 60
        assert "expires_in is not a valid duration, and is ignored" in caplog.text

    @pytest.mark.parametrize(
        ("value", "shown"), [(-1, ": -1"), ("", ": ''"), ("never", ": 'never'"), ("a-secret-at-length", ": str")]
    )
    def test_expires_in_that_is_ignored_is_logged_unless_it_is_long(
        self, server: OAuthServer, value: object, shown: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.script.append(token_answer(expires_in=value))
        endpoint(server.token_endpoint).token(GRANT)
        assert caplog.messages[-1].endswith(shown)

    @pytest.mark.parametrize(("value", "lifetime"), [(1800, 1800), ("1800", 1800), (0, math.inf), (None, math.inf)])
    def test_may_give_the_lifetime_of_the_refresh_token(
        self, server: OAuthServer, value: object, lifetime: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        cached = jwt(iat=1_000_000_000, exp=1_000_003_600)
        fields = {"access_token": cached, "expires_in": 3600, "refresh_token": "again", "refresh_expires_in": value}
        server.script += [answer(fields), answer(fields, date=formatdate(1_000_003_000))]
        for _ in range(2):  # the second time the token has been issued earlier
            assert endpoint(server.token_endpoint).token(GRANT).refresh_lifetime == lifetime
        assert "ignored" not in caplog.text

    @pytest.mark.parametrize(
        ("value", "scope"), [(["a", "b"], "a b"), ([], ""), ([1], None), (5, None), ({"a": "b"}, None)], ids=repr
    )
    def test_scope_may_be_a_list_and_counts_as_missing_if_it_is_anything_else(
        self, server: OAuthServer, value: object, scope: str | None
    ) -> None:
        server.script.append(token_answer(scope=value))
        assert endpoint(server.token_endpoint).token(GRANT).scope == scope

    @pytest.mark.parametrize("value", [5, ["a"], "\x1b[31m", "two\nlines"], ids=ascii)
    def test_refresh_token_that_is_not_printable_ascii_counts_as_missing_and_is_not_shown(
        self, server: OAuthServer, value: object, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.script.append(token_answer(refresh_token=value))
        assert endpoint(server.token_endpoint).token(GRANT).refresh_token is None
        assert caplog.messages[-1].endswith("is ignored")

    @pytest.mark.parametrize("value", ["a\x1b]0;title\x07", "a\r\nb", "a\ud800", "tökén", "\x7f"], ids=ascii)
    def test_access_token_is_of_printable_ascii_characters(self, server: OAuthServer, value: str) -> None:
        """RFC 6749 appendix A.12: anything else would steer the terminal of whoever prints it."""
        server.script.append(token_answer(value))
        error = failure(server.token_endpoint)
        assert isinstance(error, InvalidTokenResponse)
        assert "access_token must be a string of printable ASCII characters" in str(error)

    @pytest.mark.parametrize("exp", [10**400, -(10**400), True, "soon"], ids=lambda exp: str(exp)[:5])
    def test_exp_that_makes_no_sense_changes_nothing(self, server: OAuthServer, exp: object) -> None:
        server.script.append(answer({"access_token": jwt(exp=exp), "expires_in": 60}, date=formatdate(1_000_000_000)))
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == 60

    def test_without_expires_in_an_opaque_token_has_no_end(self, server: OAuthServer) -> None:
        server.script.append(token_answer(expires_in=None))
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == float("inf")

    @pytest.mark.parametrize("kind", ["bearer", "BEARER", "BearerToken", None])
    def test_token_type_is_bearer_in_any_spelling_or_missing(self, server: OAuthServer, kind: str | None) -> None:
        server.script.append(token_answer(token_type=kind))
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == 3600

    @pytest.mark.parametrize("of_wall_clock", [-365, 365])
    def test_a_token_made_earlier_ends_at_its_exp_by_the_servers_clock(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch, of_wall_clock: int
    ) -> None:
        monkeypatch.setattr(time, "time", lambda wall=time.time: wall() + of_wall_clock * 86400)
        cached = jwt(iat=1_000_000_000, exp=1_000_003_600)
        body = {"access_token": cached, "expires_in": 3600, "refresh_token": "again", "scope": "a"}
        server.script.append(answer(body, date=formatdate(1_000_003_000)))
        before = monotonic()
        token = endpoint(server.token_endpoint).token(GRANT)
        assert 590 < token.expires_in <= 600
        assert (token.value, token.refresh_token, token.scope) == (cached, "again", "a")
        assert before <= token.since < monotonic()

    def test_exp_makes_no_life_longer_than_the_server_says(self, server: OAuthServer) -> None:
        token = jwt(exp=1_000_003_600)
        server.script.append(answer({"access_token": token, "expires_in": 60}, date=formatdate(1_000_000_000)))
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == 60

    def test_exp_is_not_judged_by_this_machines_clock(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "time", lambda: 1_000_003_000.0)
        server.script.append(token_answer(jwt(exp=1_000_003_600)))
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == 3600

    def test_a_date_after_exp_is_not_the_servers_and_counts_for_nothing(self, server: OAuthServer) -> None:
        token = jwt(iat=1_000_000_000, exp=1_000_003_600)
        server.script.append(answer({"access_token": token, "expires_in": 3600}, date=formatdate(1_500_000_000)))
        assert endpoint(server.token_endpoint).token(GRANT).lifetime == 3600

    @pytest.mark.parametrize(
        "wrong",
        [
            answer(b"<html>Log in</html>", content_type="text/html"),
            answer(b""),
            answer(b'{"access_token": "abc", "expi', content_type="application/json"),
            answer(b"\xff\xfe\x00", content_type="application/json"),
            answer(b"[" * 100_000),
            answer(b'{"access_token": "a", "expires_in": ' + b"9" * 10_000 + b"}"),
            answer([1]),
            answer({}),
            answer({"error": {"code": 7}}, 400),
            answer(b"no such page", 404, content_type="text/plain"),
            answer({"access_token": "of a failure"}, 400),
            token_answer(token_type="mac"),
            token_answer(token_type=5),
            answer({"access_token": 5}),
            answer({"access_token": ""}),
            answer(b"this is not gzip", content_encoding="gzip"),
        ],
        ids=lambda wrong: wrong.partition(b"\r\n\r\n")[2][:30].decode("ascii", "replace") or "empty",
    )
    def test_anything_else_is_an_invalid_token_response(self, server: OAuthServer, wrong: bytes) -> None:
        server.script.append(wrong)
        error = failure(server.token_endpoint)
        assert type(error) is InvalidTokenResponse
        assert "\n" not in str(error)

    def test_of_a_page_only_status_and_kind_are_reported(self, server: OAuthServer) -> None:
        server.script.append(answer(b"<html>secrets of the page</html>", 403, content_type="text/html"))
        assert "HTTP 403 with text/html" in str(error := failure(server.token_endpoint))
        assert "secrets" not in str(error)


class TestAnswerThatIsNotOfOAuth:
    @pytest.mark.parametrize(
        ("body", "kind", "says"),
        [
            ({"message": "no Route matched with those values"}, "application/json", "no Route matched with those va"),
            ({"error": "Realm does not exist"}, "application/json", "Realm does not exist"),
            ({"error": {"code": 404, "message": "Method not found."}}, "application/json", "Method not found."),
            ({"title": "Not Found", "detail": "no such tenant"}, "application/json", "Not Found: no such tenant"),
            (b"404 page not found\r\n", "text/plain; charset=utf-8", "404 page not found"),
        ],
        ids=["gateway", "Keycloak", "nested", "RFC 9457", "text"],
    )
    def test_is_shown_as_far_as_it_gives_the_reason(
        self, server: OAuthServer, body: object, kind: str, says: str
    ) -> None:
        server.script.append(answer(body, 404, content_type=kind))
        error = failure(server.token_endpoint)
        assert f"HTTP 404 with {kind}, which is not an OAuth response: {says}" in str(error)

    @pytest.mark.parametrize(("status", "permanent"), [(404, True), (405, True), (403, False), (200, False)])
    def test_from_an_endpoint_that_was_given_may_mean_that_its_url_is_wrong(
        self, server: OAuthServer, status: int, permanent: bool
    ) -> None:
        server.script.append(answer(b"<html>", status, content_type="text/html"))
        error = failure(server.token_endpoint)
        assert error.permanent is permanent
        assert str(error).endswith("; check token_endpoint") is permanent

    def test_from_an_endpoint_that_was_discovered_may_mean_that_it_has_moved(self, server: OAuthServer) -> None:
        server.describe("/.well-known/openid-configuration")
        server.pages["/token"] = answer(b"<html>", 404, content_type="text/html")
        with pytest.raises(InvalidTokenResponse) as caught:
            TokenEndpoint("pump-17", ClientSecretBasic(SECRET), server.origin, HttpClient()).token(GRANT)
        assert not caught.value.permanent

    def test_shows_no_secret_that_it_returns(self, server: OAuthServer) -> None:
        server.script.append(answer({"message": f"no client with the secret {SECRET}"}, 404))
        assert SECRET not in str(failure(server.token_endpoint))


class TestErrorResponse:
    @pytest.mark.parametrize("status", [400, 401, 403, 200])
    def test_of_rfc_6749_is_a_refusal_that_a_person_fixes(self, server: OAuthServer, status: int) -> None:
        body = {"error": "invalid_client", "error_description": "no such\r\n\tclient"}
        server.script.append(answer(body, status, date=formatdate(1_000_000_000)))
        error = failure(server.token_endpoint)
        assert isinstance(error, TokenRequestRefused)
        assert (error.error, error.description, error.status) == ("invalid_client", "no such client", status)
        assert error.permanent
        told_where = f"{server.token_endpoint}: invalid_client (no such client)"
        assert str(error) == f"{told_where}; check client_id and client_secret"

    @pytest.mark.parametrize(
        ("auth", "argument"),
        [
            (ClientSecretBasic(SECRET), "client_secret"),
            (ClientSecretPost(SECRET), "client_secret"),
            (ClientSecretJWT(SECRET * 2), "client_auth"),
            (PublicClient(), "client_auth"),
        ],
    )
    def test_invalid_client_names_the_arguments_to_check(self, server: OAuthServer, auth: Any, argument: str) -> None:
        def at_once(connection: socket.socket, _: object) -> None:
            connection.sendall(answer({"error": "invalid_client"}, 401, date=formatdate(usegmt=True)))

        server.script.append(at_once)
        with pytest.raises(TokenRequestRefused) as caught:
            endpoint(server.token_endpoint, auth).token(GRANT)
        assert str(caught.value) == f"{server.token_endpoint}: invalid_client; check client_id and {argument}"

    def test_unauthorized_client_may_mean_a_wrong_secret(self, server: OAuthServer) -> None:
        """As of Keycloak."""
        body = {"error": "unauthorized_client", "error_description": "Invalid client or Invalid client credentials"}
        server.script.append(answer(body, 401))
        error = failure(server.token_endpoint)
        assert error.permanent
        says = "; check client_id and client_secret, and whether the server allows the client this grant"
        assert str(error).endswith(says)

    @pytest.mark.parametrize("description", [None, 5, ["a"]])
    def test_needs_no_description(self, server: OAuthServer, description: object) -> None:
        server.script.append(answer({"error": "invalid_scope", "error_description": description}, 400))
        error = failure(server.token_endpoint)
        assert isinstance(error, TokenRequestRefused)
        assert error.description == ""

    @pytest.mark.parametrize(
        "busy",
        [
            answer({"error": name}, 400, retry_after="7")
            for name in ("temporarily_unavailable", "slow_down", "server_error")
        ]
        + [answer(b"busy", status, retry_after="7") for status in (408, 429, 500, 502, 503)]
        + [answer({"error": "invalid_client"}, 503, retry_after="7")],
    )
    def test_that_says_to_come_back_later_passes(self, server: OAuthServer, busy: bytes) -> None:
        server.script.append(busy)
        error = failure(server.token_endpoint)
        assert isinstance(error, AuthorizationServerUnavailable)
        assert not error.permanent
        assert error.retry_after == 7

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [("7", 7), ("0", 0), ("1.5", 1.5), ("-5", 0), ("86400", 3600), ("inf", 3600), ("nan", None), ("soon", None)],
    )
    def test_retry_after_in_seconds_is_never_negative_and_an_hour_at_most(
        self, server: OAuthServer, value: str, seconds: float | None
    ) -> None:
        server.script.append(answer(b"", 503, retry_after=value))
        assert failure(server.token_endpoint).retry_after == seconds

    @pytest.mark.parametrize(("ahead", "seconds"), [(30, 30), (-30, 0), (86400, 3600)])
    def test_retry_after_as_a_date_is_judged_by_the_answers_own_date(
        self, server: OAuthServer, ahead: int, seconds: float
    ) -> None:
        then = 1_000_000_000  # a time that this machine's clock never shows
        busy = answer(b"", 503, date=formatdate(then, usegmt=True), retry_after=formatdate(then + ahead, usegmt=True))
        server.script.append(busy)
        assert failure(server.token_endpoint).retry_after == pytest.approx(seconds, abs=5)

    def test_retry_after_as_a_date_without_a_date_is_judged_by_what_the_server_said_before(
        self, server: OAuthServer
    ) -> None:
        client = endpoint(server.token_endpoint)
        server.script.append(answer(b"", 503, date=formatdate(1_000_000_000, usegmt=True)))
        server.script.append(answer(b"", 503, retry_after=formatdate(1_000_000_030, usegmt=True)))
        for _ in range(2):
            with pytest.raises(AuthorizationServerUnavailable) as caught:
                client.token(GRANT)
        assert caught.value.retry_after == pytest.approx(30, abs=5)

    def test_retry_after_as_a_date_that_cannot_be_read_is_none(self, server: OAuthServer) -> None:
        server.script.append(answer(b"", 503, retry_after="Mon, 99 Nov 99999999 00:00:00 GMT"))
        assert failure(server.token_endpoint).retry_after is None

    def test_teaches_the_servers_time_too(self, server: OAuthServer) -> None:
        client = endpoint(server.token_endpoint)
        server.script.append(answer({"error": "invalid_client"}, 401, date=formatdate(1_000_000_000, usegmt=True)))
        with pytest.raises(TokenRequestRefused):
            client.token(GRANT)
        assert 1_000_000_000 <= client.clock.now() < 1_000_000_060


class TestClientAuthentication:
    def test_netrc_does_not_replace_our_authorization(
        self, server: OAuthServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        endpoint(server.token_endpoint).token(GRANT)
        endpoint(server.token_endpoint, ClientSecretPost(SECRET)).token(GRANT)
        basic, post = server.requests
        assert base64.b64decode(basic.headers["authorization"].removeprefix("Basic ")).startswith(b"pump-17:")
        assert "authorization" not in post.headers


def everything(error: BaseException) -> str:
    """All texts that hang on an exception, and on those in its chain."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    shown = [f"{one!s} {one!r} {one.args} {vars(one)}" for one in chain]
    return "\n".join([*shown, *traceback.format_exception(error)])


ECHOES: dict[str, Callable[[Request], str]] = {
    "the body": lambda request: request.body,
    "the fields": lambda request: str(request.form),
    "the header": lambda request: request.headers.get("authorization", ""),
    "the header, decoded": lambda request: str(base64.b64decode(request.headers.get("authorization", "")[6:])),
    "the secret": lambda _request: SECRET,
    "the secret with something unprintable in it": lambda _request: "\u200b".join(SECRET),
    "the secret with something unprintable in it, in HTML": lambda _request: "&#8203;".join(SECRET),
    "the secret in HTML": lambda _request: escape(SECRET),
    "the secret in a URL": lambda _request: quote(SECRET).lower(),
}


class TestSecrets:
    @pytest.mark.parametrize("auth", [ClientSecretBasic(SECRET), ClientSecretPost(SECRET)])
    @pytest.mark.parametrize("name", ECHOES)
    def test_server_that_sends_back_what_it_got_does_not_make_us_show_it(
        self, server: OAuthServer, name: str, auth: Any
    ) -> None:
        grant = [*GRANT, ("refresh_token", f"{SECRET} that is longer")]

        def echo(connection: Any, _closing: object) -> None:
            echoed = ECHOES[name](server.requests[0])
            connection.sendall(answer({"error": echoed or "nothing", "error_description": f"you sent {echoed}"}, 400))

        server.script.append(echo)
        with pytest.raises(TokenRequestRefused) as caught:
            endpoint(server.token_endpoint, auth).token(grant)
        shown = everything(caught.value)
        assert not [one for one in [*FORMS, "that is longer", "that+is+longer"] if one in shown]
        if name == "the secret":
            assert caught.value.description == "you sent …"

    def test_a_page_in_another_encoding_that_repeats_them_does_not_show_them(self, server: OAuthServer) -> None:
        page = f"rejected form: client_secret={SECRET}".encode("utf-16")
        server.script.append(answer(page, 400, content_type="text/plain; charset=utf-16"))
        with pytest.raises(TokenError) as caught:
            endpoint(server.token_endpoint).token(GRANT)
        shown = everything(caught.value)
        assert "rejected form" in shown
        assert not [one for one in FORMS if one in shown]

    @pytest.mark.parametrize("error", ["invalid_client", "invalid_grant"])
    def test_long_text_of_the_server_keeps_its_end_where_several_have_the_cause(
        self, server: OAuthServer, error: str
    ) -> None:
        usual = "Client authentication failed (e.g., unknown client, no client authentication included, or so). " * 4
        cause = "The requested OAuth 2.0 Client does not exist."
        server.script.append(answer({"error": error, "error_description": usual + cause}, 400))
        refused = failure(server.token_endpoint)
        assert isinstance(refused, TokenRequestRefused)
        description = refused.description
        assert description.startswith("Client authentication failed (e.g., unknown client")
        assert description.endswith(cause)
        assert len(description) == 200

    def test_text_of_the_server_is_one_short_line(self, server: OAuthServer) -> None:
        server.script.append(answer({"error": "e" * 1000, "error_description": "d\x1b[31m\n\u2028" * 1000}, 400))
        error = failure(server.token_endpoint)
        assert isinstance(error, TokenRequestRefused)
        assert (len(error.error), len(error.description)) == (200, 200)
        assert str(error).isprintable()

    def test_what_is_not_secret_stays_readable(self, server: OAuthServer) -> None:
        server.script.append(answer({"error": "invalid_scope", "error_description": "pump-17 has no scope mqtt"}, 400))
        with pytest.raises(TokenRequestRefused, match="pump-17 has no scope mqtt"):
            endpoint(server.token_endpoint).token([*GRANT, ("scope", "mqtt"), ("empty", "")])

    @pytest.mark.parametrize(
        "wrong",
        [oauth_server.HANG_UP, oauth_server.CUT_OFF, answer(b"{"), answer(b"", 503), answer({"error": "e"}, 400)],
    )
    def test_failure_has_no_exception_of_another_library_in_its_chain(self, server: OAuthServer, wrong: Answer) -> None:
        server.script.append(wrong)
        error = failure(server.token_endpoint)
        assert (error.__cause__, error.__context__) == (None, None)
        assert not [secret for secret in FORMS if secret in everything(error)]

    def test_debug_log_of_everything_shows_none(
        self, server: OAuthServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        for auth in (ClientSecretBasic(SECRET), ClientSecretPost(SECRET)):
            server.script.append(token_answer("the-token-itself", refresh_token="the-refresh-token"))
            endpoint(server.token_endpoint, auth).token(GRANT)
            server.script.append(answer({"error": "invalid_client"}, 401))
            failure(server.token_endpoint)
        failure(f"http://127.0.0.1:{free_port()}/token")
        shown = caplog.text + "".join(capfd.readouterr())
        assert "/token" in shown  # urllib3 logs each request
        assert not [one for one in [*FORMS, "the-token-itself", "the-refresh-token"] if one in shown]

    def test_repr_of_what_holds_one_does_not_show_it(self) -> None:
        request = TokenRequest("pump-17", "https://id.example.com", {}, HttpClient().clock, [("refresh_token", SECRET)])
        for auth in (ClientSecretBasic(SECRET), ClientSecretPost(SECRET)):
            auth.authenticate(request)
            assert not [one for one in FORMS if one in repr(auth) + repr(request)]
        assert "password" not in repr(HttpClient(proxies={"https": "http://user:password@proxy.example.com"}))
