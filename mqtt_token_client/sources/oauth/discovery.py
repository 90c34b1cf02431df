"""Discovery of an authorization server's metadata (RFC 8414, OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from ...errors import InvalidTokenResponse, IssuerMismatch
from .http import HttpClient, Reply


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Return the two URLs where the metadata of an issuer may be: below it (OpenID Connect Discovery 1.0 section 4), or
    between its host and its path (RFC 8414 section 3).
    """
    parts = urlsplit(issuer)
    host, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return (
        f"{host}{path}/.well-known/openid-configuration",
        f"{host}/.well-known/oauth-authorization-server{path}",
    )


def discover(issuer: str, http: HttpClient, needed: str | None = None) -> dict[str, Any]:
    """Fetch the metadata of an issuer. Only its ``issuer`` is checked.

    Args:
        issuer: the issuer identifier.
        http: sends the requests.
        needed: the name of an endpoint. Some servers have it at one of the two URLs only: if it is missing at the
            first, the second completes the metadata.

    Raises:
        AuthorizationServerUnavailable: no answer, or one that says to try again later.
        AuthorizationServerUntrusted: the server's certificate is not trusted.
        IssuerMismatch: the metadata is another issuer's (RFC 8414 section 3.3).
        InvalidTokenResponse: there is no metadata at either URL; permanent if both answer with HTTP 404.
    """
    failures, statuses = [], []
    metadata: dict[str, Any] = {}
    for url in metadata_urls(issuer):
        try:
            reply = http.send("GET", url)
            statuses.append(reply.status)
            found = _read(reply)
        except InvalidTokenResponse as failure:
            failures.append(str(failure))
            continue
        if found.get("issuer") == issuer:
            metadata = {**found, **metadata}
        elif not metadata:
            other = repr(found.get("issuer"))[:200]
            raise IssuerMismatch(f"issuer must be the same as in {url}, letter by letter: {issuer!r} is not {other}")
        if needed is None or needed in metadata:
            break
    if metadata:
        return metadata
    error = InvalidTokenResponse(f"issuer: no metadata found: {'; '.join(failures)}; check the issuer")
    error.permanent = statuses == [404, 404]  # a server that has a problem answers with something else
    raise error


def _read(reply: Reply) -> dict[str, Any]:
    metadata = None
    if reply.status == 200:
        with suppress(ValueError, RecursionError):
            metadata = json.loads(reply.body)
    if not isinstance(metadata, dict):
        from .refusals import one_line, reason_in

        reason = one_line(reason_in(reply)) if reply.status != 200 else ""
        raise InvalidTokenResponse(f"{reply.url}: HTTP {reply.status}, {reason or 'not a JSON object'}")
    return metadata
