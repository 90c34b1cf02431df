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


def discover(issuer: str, http: HttpClient) -> dict[str, Any]:
    """Fetch the metadata of an issuer. Only its ``issuer`` is checked.

    Raises:
        AuthorizationServerUnavailable: no answer, or one that says to try again later.
        AuthorizationServerUntrusted: the server's certificate is not trusted.
        IssuerMismatch: the metadata is another issuer's (RFC 8414 section 3.3).
        InvalidTokenResponse: there is no metadata at either URL; permanent if both answer with HTTP 404.
    """
    failures, statuses = [], []
    for url in metadata_urls(issuer):
        try:
            reply = http.send("GET", url)
            statuses.append(reply.status)
            metadata = _read(reply)
        except InvalidTokenResponse as failure:
            failures.append(str(failure))
            continue
        if metadata.get("issuer") != issuer:
            found = repr(metadata.get("issuer"))[:200]
            raise IssuerMismatch(f"issuer must be the same as in {url}, letter by letter: {issuer!r} is not {found}")
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
        raise InvalidTokenResponse(f"{reply.url}: HTTP {reply.status}, not a JSON object")
    return metadata
