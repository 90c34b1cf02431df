"""HttpClient: one request to an authorization server and its answer, within limits of time and size."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ...clock import ServerClock, monotonic, seconds_to_wait
from ...errors import (
    AuthorizationServerUnavailable,
    ConfigurationError,
    InvalidTokenResponse,
    MqttTokenError,
    TokenError,
)
from ...loopback import is_loopback
from ...value import Value, hide

if TYPE_CHECKING:
    from requests import Response

    from .exchange_socket import ExchangeSocket

MAX_ANSWER = 1 << 20  # bytes, decompressed
_CHUNK = 1024  # bytes read at a time: a gzip bomb expands these to at most 1 MiB before it is noticed
_OF_A_GATEWAY = (502, 503, 504)
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


def url_problem(url: object, *, allow_insecure: bool) -> str | None:
    """Say why ``url`` cannot be the address of an authorization server; None if it can."""
    if not isinstance(url, str):
        return f"must be an https URL, got {type(url).__name__}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "must be an https URL"
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        return "must be an https URL"
    if parts.username is not None or parts.fragment:
        return "must not contain a user name or a fragment"
    if parts.scheme == "http" and not is_loopback(host) and not allow_insecure:
        return "must be https, as plain http is allowed on this machine only; or set allow_insecure=True"
    return None


def holds_certificates(ca_bundle: str | os.PathLike[str]) -> bool:
    """Whether a file of trusted certificates contains one. OpenSSL looks into a folder only when it needs one."""
    import ssl  # loaded with requests, or for the broker

    if os.path.isdir(ca_bundle):  # noqa: PTH112 - pathlib takes a while to load
        return True
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_bundle)
    except OSError:
        return False
    return True


class Reply(Value):
    """An answer with another status than a redirect, 408, 429 and 5xx.

    Attributes:
        url: where it came from, without the query, so that it is safe for a message.
        retry_after: seconds to wait (RFC 9110 section 10.2.3), or None.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    retry_after: float | None

    _hidden = ("body",)


class HttpClient:
    """Sends requests to an authorization server. Safe to use from several threads.

    Args:
        timeout: seconds to connect and seconds without a byte; their sum is the deadline of the whole request.
        ca_bundle: path of the trusted certificates; None for those of ``REQUESTS_CA_BUNDLE``, else certifi's.
        proxies: a proxy URL for each scheme; None for those of the environment.
        allow_insecure: allow plain http to other machines.

    Attributes:
        clock: the server's time of day, learned from each answer.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        timeout: tuple[float, float] = (10.0, 20.0),
        ca_bundle: str | os.PathLike[str] | None = None,
        proxies: Mapping[str, str] | None = None,
        allow_insecure: bool = False,
    ) -> None:
        proxies = hide(proxies, proxies) if isinstance(proxies, Mapping) else proxies  # with passwords
        if not _is_timeout(timeout):
            raise ConfigurationError(
                "timeout must be two numbers of seconds, to connect and to read, each at most an hour, such as (10, 20)"
            )
        if ca_bundle is not None and not (
            isinstance(ca_bundle, str | os.PathLike) and os.path.exists(ca_bundle)  # noqa: PTH110 - pathlib takes a while to load
        ):
            raise ConfigurationError(f"ca_bundle must be the path of a PEM file; {ca_bundle!r} does not exist")
        if ca_bundle is not None and not holds_certificates(ca_bundle):
            raise ConfigurationError(f"ca_bundle must be a PEM file; {ca_bundle!r} contains no certificate")
        if proxies is not None and not _is_proxies(proxies):
            raise ConfigurationError('proxies must be a mapping such as {"https": "http://proxy.example.com:3128"}')
        self.timeout = timeout
        self.ca_bundle = ca_bundle
        self.proxies = proxies
        self.allow_insecure = allow_insecure
        self.clock = ServerClock()

    def send(
        self,
        method: str,
        url: str,
        *,
        form: list[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        certificate: tuple[str, str] | None = None,
    ) -> Reply:
        """Send a request and read the whole answer; no redirect is followed.

        Args:
            form: the fields of a form to send as the body (application/x-www-form-urlencoded).
            certificate: paths of a client certificate and its key (RFC 8705).

        Raises:
            AuthorizationServerUnavailable: no answer in time, or HTTP 408, 429 or 5xx.
            AuthorizationServerUntrusted: its certificate is not trusted, or is for another host.
            InvalidTokenResponse: the answer is a redirect, or longer than 1 MiB.
            ConfigurationError: there is a SOCKS proxy, and the library for it is not installed.
        """
        from queue import Empty, SimpleQueue  # loaded with requests, for the first token

        from .exchange_socket import ExchangeSocket

        outcome: SimpleQueue[Reply | MqttTokenError] = SimpleQueue()
        sock = ExchangeSocket()

        def run() -> None:
            try:
                found: Reply | MqttTokenError = self._send(method, url, form, headers, certificate, sock)
            except BaseException as error:  # noqa: BLE001 - it refers to the request, so it must not leave this thread
                found = self._explained(error, url)
            sock.close()
            outcome.put(found)

        # On another thread, because a timeout of requests is for each read: a server that sends a byte now and then, or
        # a name server that does not answer, would take forever. A daemon: it cannot keep the process from ending.
        try:
            Thread(target=run, name="token-request", daemon=True).start()
        except RuntimeError:
            text = "no thread could be started: too little memory, or too many threads"
            raise AuthorizationServerUnavailable(f"{_without_query(url)}: {text}") from None
        try:
            result = outcome.get(timeout=sum(self.timeout))
        except Empty:
            result = AuthorizationServerUnavailable(f"{_without_query(url)}: no answer within {sum(self.timeout):g} s")
        finally:
            sock.shut_down()  # or a server that sends a byte now and then would keep the thread and its descriptor
        if isinstance(result, MqttTokenError):
            raise result  # on this thread, where no exception of requests is in its context
        return result

    def _send(
        self,
        method: str,
        url: str,
        form: list[tuple[str, str]] | None,
        headers: Mapping[str, str] | None,
        certificate: tuple[str, str] | None,
        sock: ExchangeSocket,
    ) -> Reply | TokenError:
        import requests

        with sock.of(requests.Session()) as session:
            # Even with allow_redirects=False, requests would read the body of a redirect, however long it is.
            session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # noqa: ARG005 - its name
            with session.request(
                method,
                url,
                data=form,
                headers={**_HEADERS, **(headers or {})},
                auth=lambda request: request,  # not that of .netrc, which would replace our Authorization header
                timeout=self.timeout,
                stream=True,
                verify=None if self.ca_bundle is None else str(self.ca_bundle),
                cert=certificate,
                proxies=self._proxies_for(url),
            ) as response:
                self.clock.learn(response.headers.get("Date"), monotonic(), response.headers.get("Age"))
                retry_after = seconds_to_wait(response.headers.get("Retry-After"), self.clock)
                if failure := self._failure(url, response, retry_after):
                    return failure
                body = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        return InvalidTokenResponse(f"{_without_query(url)}: the answer is longer than 1 MiB")
        return Reply(_without_query(url), response.status_code, response.headers, bytes(body), retry_after)

    def _proxies_for(self, url: str) -> dict[str, str] | None:
        if self.proxies is not None:
            return dict(self.proxies)
        # Plain http is allowed because it stays on this machine: it must not leave it through a proxy.
        host = urlsplit(url).hostname or ""
        return {"no_proxy": host} if is_loopback(host) else None

    def _failure(self, url: str, response: Response, retry_after: float | None) -> TokenError | None:
        """Return the error that the status of an answer means; None if it means none."""
        where, status = _without_query(url), response.status_code
        if status == 407:
            from .http_errors import PROXY_CREDENTIALS

            text = f"{where}: HTTP 407, from the proxy; {PROXY_CREDENTIALS}"
            return AuthorizationServerUnavailable(text, status=status)
        if status in (408, 429) or status >= 500:
            text = f"{where}: HTTP {status}"
            # Of plain http a proxy may answer itself (RFC 9110 section 15.6.3); https passes through it.
            if status in _OF_A_GATEWAY and url.startswith("http:") and (proxy := self._proxy_to(url)):
                text += f", from the server or from the proxy {proxy} in front of it"
            return AuthorizationServerUnavailable(text, retry_after=retry_after, status=status)
        if 300 <= status < 400:
            to = _host(url, response.headers.get("Location"))
            return InvalidTokenResponse(
                f"{where}: HTTP {status}, a redirect to {to}, which is not followed; give the final URL"
            )
        return None

    def _explained(self, error: BaseException, url: str) -> MqttTokenError:
        """Translate any exception, even if the modules that this takes cannot be imported."""
        where = _without_query(url)
        why: str | None = getattr(error, "strerror", None)
        if isinstance(error, ImportError):
            why = f"the module {error.name} cannot be imported"
        else:
            with suppress(Exception):  # not installed, or no file descriptor or memory left to load it
                from .http_errors import explain

                return explain(error, where, self.ca_bundle, self._proxy_to(url))
        return AuthorizationServerUnavailable(f"{where}: {why or type(error).__name__}")

    def _proxy_to(self, url: str) -> str | None:
        """Return host and port of the proxy that a request goes through, for errors; never its user and password."""
        from requests.utils import get_environ_proxies, select_proxy

        proxies = self._proxies_for(url) or {}
        proxy = select_proxy(url, get_environ_proxies(url, proxies.get("no_proxy")) | proxies)
        return urlsplit(proxy).netloc.rpartition("@")[2] if proxy else None


def _is_timeout(timeout: object) -> bool:
    return (
        isinstance(timeout, tuple)
        and len(timeout) == 2
        and all(isinstance(seconds, int | float) and 0 < seconds <= 3600 for seconds in timeout)
    )


def _is_proxies(proxies: object) -> bool:
    return isinstance(proxies, Mapping) and all(isinstance(text, str) for pair in proxies.items() for text in pair)


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def _host(url: str, location: str | None) -> str:
    try:
        host = urlsplit(urljoin(url, location or "")).hostname
    except ValueError:
        host = None
    return host[:100] if host and host.isprintable() else "an invalid address"
