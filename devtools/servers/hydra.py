"""Ory Hydra, and the pages of its login, on which a person agrees to everything; for scripts/try-hydra."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests

from .pki import Pki
from .processes import Process, free_port


class Hydra:
    """Hydra 25.4 or newer in memory: https on loopback, tokens of ten seconds, and one reuse of a refresh token.

    Args:
        program: its path.
        folder: an empty folder for its files.
        strategy: ``strategies.access_token``, "jwt" or "opaque".

    Attributes:
        issuer: its issuer identifier.
        ca: path of the certificate of the authority that issued its certificate.
    """

    def __init__(self, program: str, folder: Path, strategy: str) -> None:
        folder.mkdir()
        pki = Pki(folder)
        self.ca = str(pki.ca)
        port, admin = free_port(), free_port()
        self.issuer, self._admin = f"https://127.0.0.1:{port}/", f"http://127.0.0.1:{admin}"
        pages = type("PagesOfThis", (_Pages,), {"admin": self._admin})
        self._pages = ThreadingHTTPServer(("127.0.0.1", 0), pages)
        self._page = f"http://127.0.0.1:{self._pages.server_port}"
        certificate = {"cert": {"path": str(pki.server.certificate)}, "key": {"path": str(pki.server.key)}}
        settings = {
            "dsn": "memory",
            "serve": {
                "public": {"host": "127.0.0.1", "port": port, "tls": {"enabled": True, **certificate}},
                "admin": {"host": "127.0.0.1", "port": admin, "tls": {"enabled": False}},
            },
            "urls": {
                "self": {"issuer": self.issuer},
                "login": f"{self._page}/login",
                "consent": f"{self._page}/consent",
                "device": {"verification": f"{self._page}/device", "success": f"{self._page}/success"},
            },
            "strategies": {"access_token": strategy},
            "oauth2": {
                "grant": {"refresh_token": {"rotation_grace_period": "1m", "rotation_grace_reuse_count": 2}},
                "device_authorization": {"token_polling_interval": "1s"},
            },
            "ttl": {"access_token": "10s"},
            "secrets": {"system": [secrets.token_hex(16)]},
            "sqa": {"opt_out": True},  # otherwise it reports its use to its maker
        }
        file = folder / "hydra.json"
        file.write_text(json.dumps(settings))
        self._process = Process("Hydra", [program, "serve", "all", "--config", str(file)], folder / "hydra.log")

    def __enter__(self) -> Hydra:
        threading.Thread(target=self._pages.serve_forever, daemon=True).start()
        self._process.start(self._ready, timeout=120)  # an answer breaks off if its keys take 10 s to generate
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        self._pages.shutdown()
        self._pages.server_close()

    def create_client(self, client_id: str, **properties: Any) -> None:
        """Register a client, with these properties of Hydra's admin API."""
        body = {"client_id": client_id, **properties}
        requests.post(f"{self._admin}/admin/clients", json=body, timeout=10).raise_for_status()

    def keys(self) -> Any:
        """What is at the ``jwks_uri`` of its metadata."""
        return self._get(self._get(f"{self.issuer}.well-known/openid-configuration")["jwks_uri"])

    def approve(self, verification_uri: str, user_code: str) -> None:
        """Open the address in a browser, and enter the code there.

        Raises:
            RuntimeError: that did not lead to the page that says so.
        """
        with requests.Session() as browser:
            page = browser.get(verification_uri, verify=self.ca, timeout=10)
            page = browser.get(f"{page.url}&user_code={user_code}", verify=self.ca, timeout=10)
        if not page.url.startswith(f"{self._page}/success"):
            raise RuntimeError(f"HTTP {page.status_code} at {page.url}: {page.text[:2000]}")

    def _get(self, url: str) -> Any:
        answer = requests.get(url, verify=self.ca, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self._admin}/health/ready", timeout=10).ok and bool(self.keys())
        except requests.RequestException:
            return False


class _Pages(BaseHTTPRequestHandler):
    """Answers Hydra's request for a code, a login or a consent by its admin API, and sends the browser back to it."""

    admin: str

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        page, query = address.path.strip("/"), dict(parse_qsl(address.query))
        target = None
        if page == "login":
            target = self._accept(page, query, {"subject": "alice"})
        elif page == "consent":
            asked = self._hydra("GET", page, query)
            names = ("scope", "access_token_audience")
            target = self._accept(page, query, {f"grant_{name}": asked[f"requested_{name}"] for name in names})
        elif page == "device" and "user_code" in query:
            target = self._accept(page, query, {"user_code": query["user_code"]})
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        self.end_headers()

    def _accept(self, page: str, query: Mapping[str, str], answer: Mapping[str, Any]) -> str:
        return str(self._hydra("PUT", f"{page}/accept", query, answer)["redirect_to"])

    def _hydra(self, method: str, path: str, query: Mapping[str, str], body: Any = None) -> Any:
        url = f"{self.admin}/admin/oauth2/auth/requests/{path}"
        answer = requests.request(method, url, params=query, json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def log_message(self, *_: Any) -> None:
        """Log nothing: the addresses have challenges in them."""
