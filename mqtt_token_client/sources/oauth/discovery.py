"""Discovery: what an authorization server says about itself (RFC 8414, OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from ...errors import InvalidTokenResponse, IssuerMismatch
from .http import HttpClient, Reply


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Where the metadata of an issuer may be: below it (OpenID Connect Discovery 1.0 section 4), or between its host
    and its path (RFC 8414 section 3).
    """
    parts = urlsplit(issuer)
    host, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return (
        f"{host}{path}/.well-known/openid-configuration",
        f"{host}/.well-known/oauth-authorization-server{path}",
    )


def discover(issuer: str, transport: HttpClient) -> dict[str, Any]:
    """The metadata of an issuer, which names that very issuer; nothing else in it is checked.

    Raises:
        AuthorizationServerUnavailable: no answer, or one that says to come back later.
        AuthorizationServerUntrusted: the server's certificate is refused.
        IssuerMismatch: the metadata is another issuer's (RFC 8414 section 3.3).
        InvalidTokenResponse: there is no metadata at either place; permanent, if there is nothing (HTTP 404) at both.
    """
    failures, statuses = [], []
    for url in metadata_urls(issuer):
        try:
            reply = transport.send("GET", url)
            statuses.append(reply.status)
            metadata = _read(reply)
        except InvalidTokenResponse as failure:
            failures.append(str(failure))
            continue
        if metadata.get("issuer") != issuer:
            told = repr(metadata.get("issuer"))[:200]
            raise IssuerMismatch(f"issuer: {url} is of {told}, not of {issuer!r}; they must be equal to the letter")
        return metadata
    error = InvalidTokenResponse(f"issuer: no metadata found: {'; '.join(failures)}; check issuer")
    error.permanent = statuses == [404, 404]  # a server in trouble says something else
    raise error


def _read(reply: Reply) -> dict[str, Any]:
    metadata = None
    if reply.status == 200:
        with suppress(ValueError, RecursionError):
            metadata = json.loads(reply.body)
    if not isinstance(metadata, dict):
        raise InvalidTokenResponse(f"{reply.url}: HTTP {reply.status}, no JSON object")
    return metadata
