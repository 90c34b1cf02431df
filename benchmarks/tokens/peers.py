"""The libraries whose tokens are compared, each used as its documentation says, behind one small interface.

Only the standard library is imported here, and each library by its own adapter: not every environment has them all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Place:
    """What a library is given: the authorization server, the client, the scopes, and a folder of its own."""

    issuer: str
    api: str
    folder: str
    scopes: list[str]
    client_id: str = "device"
    client_secret: str | None = None

    @property
    def token_endpoint(self) -> str:
        return f"{self.issuer}/token"


class LoginNeeded(Exception):  # noqa: N818 - a result of a library, not a fault
    """The library has no token, and only a person can obtain one."""


class Returned(Exception):  # noqa: N818
    """An error that the library returned instead of raising it; ``code`` is the server's."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code


class Peer(Protocol):
    """A library with its store.

    Attributes:
        packages: what its figures are of, as pip is asked for it.
        used: how it is used, with the page that says so.
        lacks: what it does not offer ("login", "cache", "lock"), and why.
        cache: its cache file.
        reported: what it has reported to the program besides its results.
    """

    packages: ClassVar[tuple[str, ...]]
    used: ClassVar[str]
    lacks: ClassVar[Mapping[str, str]]
    reported: list[str]

    def __init__(self, place: Place) -> None: ...

    @property
    def cache(self) -> Path: ...

    def adopt(self, answer: dict[str, Any], left: float) -> None:
        """Keep the token of a token response, which is valid for ``left`` more seconds."""

    def token(self) -> str:
        """The access token that a program gets, or that its request carries."""

    def log_in(self) -> str:
        """Log in by the device flow."""

    def lock(self) -> AbstractContextManager[object]:
        """The lock that it holds while it writes or renews."""


class _NoCache:
    """What the three libraries share that leave storing the tokens to the program."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._file = Path(place.folder) / "token.json"
        self.reported: list[str] = []

    @property
    def cache(self) -> Path:
        return self._file

    def log_in(self) -> str:
        raise NotImplementedError

    def lock(self) -> AbstractContextManager[object]:
        raise NotImplementedError

    def _load(self) -> dict[str, Any]:
        token: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        return token

    def _save(self, token: Mapping[str, Any]) -> None:
        # In one step: the file belongs to the program and is not what is measured.
        whole = self._file.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
        whole.write_text(json.dumps(token))
        whole.replace(self._file)


_NO_CACHE = {
    "cache": "has no cache: the program stores the token",
    "lock": "has no lock between processes",
}


class Msal:
    packages: ClassVar[tuple[str, ...]] = ("msal", "msal-extensions[portalocker]")
    used: ClassVar[str] = (
        "`PublicClientApplication(oidc_authority=…)` (with a client secret `ConfidentialClientApplication`), one for "
        "the whole process, `acquire_token_silent_with_error()` before each use "
        "(https://learn.microsoft.com/entra/msal/python/getting-started/acquiring-tokens), over the "
        "`PersistedTokenCache` of msal-extensions with `FilePersistence`, its choice where there is no LibSecret "
        "(https://pypi.org/project/msal-extensions/); its extra gives it the better of its two locks"
    )
    lacks: ClassVar[Mapping[str, str]] = {}

    def __init__(self, place: Place) -> None:
        import msal
        import msal_extensions

        self.reported: list[str] = []
        self._cache = Path(place.folder) / "cache.json"
        store = msal_extensions.PersistedTokenCache(msal_extensions.FilePersistence(str(self._cache)))
        kind = msal.ConfidentialClientApplication if place.client_secret else msal.PublicClientApplication
        self._app = kind(
            place.client_id,
            client_credential=place.client_secret,
            oidc_authority=place.issuer,
            token_cache=store,
            exclude_scopes=["profile"],  # the real server has none of that name
        )
        self._scopes = [scope for scope in place.scopes if scope not in ("openid", "offline_access")]  # it adds these

    @property
    def cache(self) -> Path:
        return self._cache

    def adopt(self, answer: dict[str, Any], left: float) -> None:  # noqa: ARG002 - it asks the server for a token
        self._read(self._app.acquire_token_by_refresh_token(answer["refresh_token"], scopes=self._scopes))

    def token(self) -> str:
        accounts = self._app.get_accounts()
        if not accounts:
            raise LoginNeeded
        result = self._app.acquire_token_silent_with_error(self._scopes, account=accounts[0])
        if result is None:
            raise LoginNeeded
        return self._read(result)

    def log_in(self) -> str:
        flow = self._app.initiate_device_flow(scopes=self._scopes)
        return self._read(self._app.acquire_token_by_device_flow(flow))

    def lock(self) -> AbstractContextManager[object]:
        import msal_extensions

        held: AbstractContextManager[object] = msal_extensions.CrossPlatLock(f"{self._cache}.lockfile")
        return held

    def _read(self, result: Mapping[str, Any]) -> str:
        if "access_token" not in result:
            raise Returned(str(result.get("error")), str(result.get("error_description")))
        return str(result["access_token"])


class GoogleAuth(_NoCache):
    packages: ClassVar[tuple[str, ...]] = ("google-auth",)
    used: ClassVar[str] = (
        "`google.oauth2.credentials.Credentials(token_uri=…, refresh_token=…)` in an `AuthorizedSession`, one for the "
        "whole process (https://googleapis.dev/python/google-auth/latest/user-guide.html); kept by `to_json()`"
    )
    lacks: ClassVar[Mapping[str, str]] = {
        "login": "no device flow: its documentation leaves the first token to others",
        **_NO_CACHE,
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        token = self._load()
        if token:
            self._open(token)

    def adopt(self, answer: dict[str, Any], left: float) -> None:
        end = datetime.fromtimestamp(time.time() + left, UTC).replace(tzinfo=None)  # its own kind of date
        self._open(
            {"token": answer["access_token"], "refresh_token": answer["refresh_token"], "expiry": end.isoformat()}
        )
        self._save(json.loads(self._credentials.to_json()))

    def token(self) -> str:
        before = self._credentials.token
        response = self._session.get(self._place.api)
        if self._credentials.token != before:
            self._save(json.loads(self._credentials.to_json()))
        return _bearer(response.request.headers["authorization"])

    def _open(self, token: Mapping[str, Any]) -> None:
        from google.auth.transport.requests import AuthorizedSession
        from google.oauth2.credentials import Credentials

        # Not from_authorized_user_file(): that one always asks Google's own server.
        self._credentials = Credentials(
            token["token"],
            refresh_token=token["refresh_token"],
            token_uri=self._place.token_endpoint,
            client_id=self._place.client_id,
            client_secret=self._place.client_secret or "",  # it does not refresh without one
            expiry=datetime.fromisoformat(token["expiry"].rstrip("Z")),
        )
        self._session = AuthorizedSession(self._credentials)


class Authlib(_NoCache):
    packages: ClassVar[tuple[str, ...]] = ("Authlib",)
    used: ClassVar[str] = (
        "`OAuth2Session(token=…, token_endpoint=…, update_token=…)`, one for the whole process "
        "(https://docs.authlib.org/en/latest/client/oauth2.html, “Refresh & Auto Update Token”)"
    )
    lacks: ClassVar[Mapping[str, str]] = {"login": "no device flow in its client: nothing that polls", **_NO_CACHE}

    def __init__(self, place: Place) -> None:
        from authlib.integrations.requests_client import OAuth2Session

        super().__init__(place)
        self._session = OAuth2Session(
            place.client_id,
            place.client_secret,
            token=self._load() or None,
            token_endpoint=place.token_endpoint,
            update_token=lambda token, **_: self._save(token),
        )

    def adopt(self, answer: dict[str, Any], left: float) -> None:
        self._save(answer | {"expires_at": int(time.time() + left)})

    def token(self) -> str:
        return _bearer(self._session.get(self._place.api).request.headers["Authorization"])


class RequestsOauthlib(_NoCache):
    packages: ClassVar[tuple[str, ...]] = ("requests-oauthlib", "oauthlib")
    used: ClassVar[str] = (
        "`OAuth2Session(token=…, auto_refresh_url=…, token_updater=…)`, one for the whole process "
        "(https://requests-oauthlib.readthedocs.io/en/latest/oauth2_workflow.html, the third and recommended way to "
        "refresh tokens)"
    )
    lacks: ClassVar[Mapping[str, str]] = {
        "login": "no device flow: oauthlib builds the body of one request, nothing polls",
        **_NO_CACHE,
    }

    def __init__(self, place: Place) -> None:
        from requests_oauthlib import OAuth2Session

        super().__init__(place)
        who = {"client_id": place.client_id} | ({"client_secret": place.client_secret} if place.client_secret else {})
        self._session = OAuth2Session(
            place.client_id,
            token=self._load() or None,
            auto_refresh_url=place.token_endpoint,
            auto_refresh_kwargs=who,
            token_updater=self._save,
        )

    def adopt(self, answer: dict[str, Any], left: float) -> None:
        self._save(answer | {"expires_in": left, "expires_at": time.time() + left})

    def token(self) -> str:
        return _bearer(self._session.get(self._place.api).request.headers["Authorization"])


class ThisLibrary:
    packages: ClassVar[tuple[str, ...]] = ("mqtt-token-client",)
    used: ClassVar[str] = "`TokenKeeper(DeviceFlow(…), FileStore(…)).token`, one for the whole process"
    lacks: ClassVar[Mapping[str, str]] = {}

    def __init__(self, place: Place) -> None:
        from mqtt_token_client import DeviceFlow, FileStore, TokenKeeper

        self.reported: list[str] = []
        self._folder = Path(place.folder) / "store"
        self._store = FileStore(self._folder)
        self._source = DeviceFlow(
            client_id=place.client_id,
            device_authorization_endpoint=f"{place.issuer}/device",
            token_endpoint=place.token_endpoint,
            client_secret=place.client_secret,
            scope=place.scopes,
            prompt=lambda _: self.reported.append("login"),
        )
        self._keeper = TokenKeeper(
            self._source, self._store, on_event=lambda event: self.reported.append(type(event).__name__)
        )

    @property
    def cache(self) -> Path:
        return next(self._folder.glob("*.token"))

    def adopt(self, answer: dict[str, Any], left: float) -> None:
        from mqtt_token_client import Token
        from mqtt_token_client.clock import monotonic

        life = answer["expires_in"]
        since = monotonic() - (life - left)
        token = Token(answer["access_token"], life, refresh_token=answer["refresh_token"], since=since)
        self._store.save(self._source.key, token)

    def token(self) -> str:
        return self._keeper.token.value

    def log_in(self) -> str:
        return self._keeper.renew().value

    def lock(self) -> AbstractContextManager[object]:
        return self._store.lock(self._source.key)


def _bearer(header: str) -> str:
    return header.removeprefix("Bearer ")


OURS = "this library"
PEERS: dict[str, type[Peer]] = {
    "MSAL": Msal,
    "google-auth": GoogleAuth,
    "Authlib": Authlib,
    "requests-oauthlib": RequestsOauthlib,
    OURS: ThisLibrary,
}
