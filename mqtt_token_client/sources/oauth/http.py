"""HTTP with an authorization server: one request, one answer, within bounds of time and size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from urllib.parse import urljoin, urlsplit

from ...clock import ServerClock, http_date, monotonic
from ...errors import (
    AuthorizationServerUnavailable,
    AuthorizationServerUntrusted,
    ConfigurationError,
    InvalidTokenResponse,
    MqttTokenError,
    TokenError,
)
from ...loopback import is_loopback

LARGEST_ANSWER = 1 << 20  # bytes, decompressed
LONGEST_WAIT = 3600.0  # seconds that a Retry-After can ask for
_CHUNK = 1024  # bytes read at a time: a gzip bomb makes at most 1 MiB of it before it is noticed
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_VALIDITY = (9, 10)  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED


def url_problem(url: object, *, allow_insecure: bool) -> str | None:
    """What keeps ``url`` from being the address of an authorization server, or None."""
    if not isinstance(url, str):
        return f"an https URL is needed, not {type(url).__name__}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "an https URL is needed; this is none"
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        return "an https URL is needed; this is none"
    if parts.username is not None or parts.fragment:
        return "the URL must hold neither a user name nor a fragment"
    if parts.scheme == "http" and not is_loopback(host) and not allow_insecure:
        return "plain http is for this machine's own addresses; use https, or allow_insecure=True"
    return None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is neither a redirect nor one that says to come back later.

    Attributes:
        url: where it came from, without the query: fit for a message.
        retry_after: seconds that it asks to wait (RFC 9110 section 10.2.3), or None.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class HttpClient:
    """How an authorization server is reached. Safe to use from several threads.

    Args:
        timeout: seconds to connect and seconds without a byte; their sum is the deadline of a whole exchange.
        ca_bundle: path of the certificates to trust; None for those of ``REQUESTS_CA_BUNDLE``, else certifi's.
        proxies: a proxy URL for each scheme; None for those of the environment.
        allow_insecure: allow plain http to other machines.
        clock: the server's time of day, learned from each answer.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    timeout: tuple[float, float] = (10.0, 20.0)
    ca_bundle: str | os.PathLike[str] | None = None
    proxies: Mapping[str, str] | None = field(default=None, repr=False)  # may hold a password
    allow_insecure: bool = False
    clock: ServerClock = field(default_factory=ServerClock)

    def __post_init__(self) -> None:
        if not _is_timeout(self.timeout):
            raise ConfigurationError(
                "timeout: a pair of seconds is needed, to connect and to read, each at most an hour, such as (10, 20)"
            )
        if self.ca_bundle is not None and not (
            isinstance(self.ca_bundle, str | os.PathLike) and os.path.exists(self.ca_bundle)  # noqa: PTH110 - pathlib takes a while to load
        ):
            raise ConfigurationError(f"ca_bundle: a PEM file is needed; {self.ca_bundle!r} does not exist")
        if self.proxies is not None and not _is_proxies(self.proxies):
            raise ConfigurationError('proxies: a mapping is needed such as {"https": "http://proxy.example.com:3128"}')

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
            AuthorizationServerUnavailable: no answer in time, or one that says to come back later (HTTP 408, 429, 5xx).
            AuthorizationServerUntrusted: its certificate is not trusted, or is for another host.
            InvalidTokenResponse: a redirect, or more than 1 MiB.
            ConfigurationError: a SOCKS proxy is given, and the library for it is missing.
        """
        outcome: SimpleQueue[Reply | MqttTokenError] = SimpleQueue()

        def run() -> None:
            try:
                outcome.put(self._send(method, url, form, headers, certificate))
            except Exception as error:  # noqa: BLE001 - of whatever kind, it holds the request and may not leave
                outcome.put(_explain(error, _without_query(url)))

        # In a thread of its own, because a time-out of requests is for each read: a peer that sends a header byte now
        # and then, or a name server that does not answer, would go on for ever.
        Thread(target=run, name="token-request", daemon=True).start()
        try:
            result = outcome.get(timeout=sum(self.timeout))
        except Empty:
            result = AuthorizationServerUnavailable(f"{_without_query(url)}: no answer within {sum(self.timeout):g} s")
        if isinstance(result, MqttTokenError):
            raise result  # here, where nothing of requests is in its context
        return result

    def _send(
        self,
        method: str,
        url: str,
        form: list[tuple[str, str]] | None,
        headers: Mapping[str, str] | None,
        certificate: tuple[str, str] | None,
    ) -> Reply | TokenError:
        import requests

        with requests.Session() as session:
            # Even with allow_redirects=False requests would read the body of a redirect, however long it is.
            session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]  # noqa: ARG005 - its name
            with session.request(
                method,
                url,
                data=form,
                headers={**_HEADERS, **(headers or {})},
                auth=lambda request: request,  # none of .netrc, which would replace our Authorization header
                timeout=self.timeout,
                stream=True,
                verify=None if self.ca_bundle is None else str(self.ca_bundle),
                cert=certificate,
                proxies=self._proxies_for(url),
            ) as response:
                self.clock.learn(response.headers.get("Date"), monotonic())
                retry_after = _retry_after(response.headers.get("Retry-After"), self.clock)
                failure = _failure(url, response.status_code, response.headers.get("Location"), retry_after)
                if failure:
                    return failure
                body = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    body += chunk
                    if len(body) > LARGEST_ANSWER:
                        return InvalidTokenResponse(f"{_without_query(url)}: the answer is longer than 1 MiB")
        return Reply(_without_query(url), response.status_code, response.headers, bytes(body), retry_after)

    def _proxies_for(self, url: str) -> dict[str, str] | None:
        if self.proxies is not None:
            return dict(self.proxies)
        # What is plain because it stays on this machine must not leave it through a proxy of the environment.
        host = urlsplit(url).hostname or ""
        return {"no_proxy": host} if is_loopback(host) else None


def _failure(url: str, status: int, location: str | None, retry_after: float | None) -> TokenError | None:
    """What is wrong with an answer already by its status, or None."""
    where = _without_query(url)
    if status in (408, 429) or status >= 500:
        return AuthorizationServerUnavailable(f"{where}: HTTP {status}", retry_after=retry_after, status=status)
    if 300 <= status < 400:
        return InvalidTokenResponse(
            f"{where}: HTTP {status}, a redirect to {_host(url, location)}; it is not followed, give the final address"
        )
    return None


def _is_timeout(timeout: object) -> bool:
    return (
        isinstance(timeout, tuple)
        and len(timeout) == 2
        and all(isinstance(seconds, int | float) and 0 < seconds <= 3600 for seconds in timeout)
    )


def _is_proxies(proxies: object) -> bool:
    return isinstance(proxies, Mapping) and all(isinstance(text, str) for pair in proxies.items() for text in pair)


def _retry_after(told: str | None, clock: ServerClock) -> float | None:
    if told is None:
        return None
    try:
        seconds = float(told)
    except ValueError:
        date = http_date(told)
        if date is None:
            return None
        seconds = date - clock.now()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def _host(url: str, location: str | None) -> str:
    try:
        host = urlsplit(urljoin(url, location or "")).hostname
    except ValueError:
        host = None
    return host[:100] if host and host.isprintable() else "an address that cannot be read"


def _explain(error: Exception, where: str) -> MqttTokenError:
    """What an exception of requests means, in words that hold nothing of the request."""
    import ssl

    from requests.exceptions import ContentDecodingError, InvalidSchema

    if isinstance(error, InvalidSchema) and "SOCKS" in str(error):
        return ConfigurationError(
            "proxies: a SOCKS proxy needs the \"proxy\" extra: pip install 'mqtt-token-client[proxy]'"
        )
    if type(error) is OSError:  # of requests itself, which names a file of certificates that it does not find
        return AuthorizationServerUntrusted(f"{where}: {error}")
    why = type(error).__name__
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code in _VALIDITY:
                return AuthorizationServerUnavailable(
                    f"{where}: {cause.verify_message}, by this device's clock, which may be wrong"
                )
            return AuthorizationServerUntrusted(f"{where}: the certificate is refused: {cause.verify_message}")
        if isinstance(cause, ContentDecodingError):
            return InvalidTokenResponse(f"{where}: the answer cannot be decompressed")
        if isinstance(cause, TimeoutError):
            why = "timed out"
        elif isinstance(cause, OSError) and cause.strerror:
            why = cause.strerror
    return AuthorizationServerUnavailable(f"{where}: {why}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it wraps: requests and urllib3 keep these in different places."""
    found: list[BaseException] = [error]
    for cause in found:
        yield cause
        for inner in (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args):
            if isinstance(inner, BaseException) and not any(inner is known for known in found):
                found.append(inner)
