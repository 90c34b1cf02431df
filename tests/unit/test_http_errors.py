"""What an error says about a failed request: the proxy's failure is distinguished from the server's."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest

from devtools.servers.processes import free_port
from mqtt_token_client.errors import AuthorizationServerUnavailable, TokenError
from mqtt_token_client.sources.oauth.http import HttpClient


def failure(url: str, **options: Any) -> TokenError:
    """What a request raises."""
    with pytest.raises(TokenError) as caught:
        HttpClient(**{"timeout": (5.0, 5.0), **options}).send("POST", url, form=[("grant_type", "client_credentials")])
    return caught.value


class Answering:
    """A server that answers whatever it gets in one way, and closes the connection."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answer = answer
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(self._answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):  # what is closed unread is reset, and the answer lost with it
                        pass

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


class TestProxies:
    @pytest.mark.parametrize("url", ["https://id.example.com/token", "http://id.example.com/token"])
    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "HTTP 407"),
            (b"", "the connection was closed without an answer"),
            (b"220 mail.example.com ESMTP\r\n", "the answer is not valid HTTP"),
        ],
    )
    def test_that_fail_are_named_without_their_password(self, url: str, answer: bytes, says: str) -> None:
        with Answering(answer) as proxy:
            address = f"http://pump:proxy-password@127.0.0.1:{proxy.port}"
            error = failure(url, proxies={"https": address, "http": address}, allow_insecure=True)
        assert isinstance(error, AuthorizationServerUnavailable)
        assert "proxy" in str(error)
        assert says in str(error)
        assert "proxy-password" not in str(error)
        assert ("http://user:password@host:port" in str(error)) == ("407" in says)

    @pytest.mark.parametrize("scheme", ["http", "socks5"])
    def test_that_are_not_there_are_named(self, scheme: str) -> None:
        address = f"127.0.0.1:{free_port()}"
        error = failure("https://id.example.com/token", proxies={"https": f"{scheme}://{address}"})
        assert str(error) == (
            f"https://id.example.com/token: the proxy {address} gave no connection: Connection refused"
        )

    def test_of_the_environment_are_named_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        address = f"127.0.0.1:{free_port()}"
        monkeypatch.setenv("https_proxy", f"http://user:proxy-password@{address}")
        error = failure("https://id.example.com/token")
        assert f"the proxy {address} gave no connection" in str(error)

    def test_that_do_not_speak_tls_are_distinguished_from_the_server(self) -> None:
        with Answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as proxy:
            error = failure("https://id.example.com/token", proxies={"https": f"https://127.0.0.1:{proxy.port}"})
        assert str(error).endswith("gave no connection: it does not speak TLS; its URL must begin with http://")

    @pytest.mark.parametrize("status", [502, 503, 504])
    def test_of_plain_http_may_have_failed_themselves(self, status: int) -> None:
        with Answering(b"HTTP/1.1 %d Oh\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n" % status) as proxy:
            address = f"http://pump:proxy-password@127.0.0.1:{proxy.port}"
            error = failure("http://id.example.com/token", proxies={"http": address}, allow_insecure=True)
        assert isinstance(error, AuthorizationServerUnavailable)
        assert str(error) == (
            f"http://id.example.com/token: HTTP {status}, from the server or from the proxy 127.0.0.1:{proxy.port}"
            " in front of it"
        )
        assert (error.status, error.retry_after) == (status, 7)

    @pytest.mark.parametrize("status", [500, 502])
    def test_are_not_named_where_there_is_none_or_where_the_server_failed(self, status: int) -> None:
        with Answering(b"HTTP/1.1 %d Oh\r\nContent-Length: 0\r\n\r\n" % status) as server:
            url = f"http://127.0.0.1:{server.port}/token"
            proxies = {"http": f"http://127.0.0.1:{server.port}"} if status == 500 else None
            error = failure(url, proxies=proxies)
        assert str(error) == f"{url}: HTTP {status}"
