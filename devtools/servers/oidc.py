"""The authorization server of the tests: oidc-provider, run by Node."""

from __future__ import annotations

import fcntl
import http.client
import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

from .keys import RIGHTS, Keys
from .pki import Pki
from .processes import BUILD, Process, accepts, free_port, need, unavailable

_HERE = Path(__file__).parent


def install_packages() -> None:
    """Run ``npm ci`` unless it was run since package-lock.json changed."""
    need("node", "npm", packages="nodejs npm")
    lock, installed = _HERE / "package-lock.json", _HERE / "node_modules" / ".package-lock.json"
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "npm.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
            return
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"],
            cwd=_HERE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            unavailable(f"npm ci in devtools/servers failed; run it by hand. It said: {done.stderr[-500:]}")


class AuthorizationServer:
    """A certified OpenID provider with clients for each way to authenticate, on its own loopback port.

    Its tokens are JWTs for the audience ``rabbitmq`` (which all brokers require) signed with RS256, or with ES256 for
    ``resource=urn:test:mqtt-es``; each has a ``jti``.

    Attributes:
        issuer: its issuer identifier.
        scope: all rights; a token has only those that were requested, and RabbitMQ rejects one without.
        client_id: a client that uses client_secret_basic.
        odd_client_id: another one, whose id and secret arrive intact only if they are form-encoded.
        post_client_id: a client that uses client_secret_post.
        client_secret: the secret of all these, except ``odd_client_id``, which has ``odd_client_secret``.
        pki: issued the certificates of its https listener and of the clients ``service-tls`` (known by its name) and
            ``service-self-signed-tls`` (known by its certificate).
        tls_token_endpoint: the same token endpoint, for these two with their certificates.
    """

    client_id = "service"
    odd_client_id = "odd: client+%id"
    post_client_id = "service-post"
    device_client_id = "device"
    scope = RIGHTS

    def __init__(self, keys: Keys, folder: Path) -> None:
        install_packages()
        self.client_secret = secrets.token_urlsafe(32)
        self.odd_client_secret = f"{self.client_secret}: +%&=/"
        self.port, self._control, tls = free_port(), free_port(), free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.token_endpoint = f"{self.issuer}/token"
        self.tls_token_endpoint = f"https://127.0.0.1:{tls}/token"
        self.jwks_uri = f"{self.issuer}/jwks"
        (folder / "pki").mkdir()
        self.pki = Pki(folder / "pki")
        options = {
            "port": self.port,
            "tls": tls,
            "pki": str(folder / "pki"),
            "control": self._control,
            "folder": str(keys.folder),
            "secret": self.client_secret,
            "rights": RIGHTS,
        }
        self._process = Process(
            "authorization server",
            ["node", str(_HERE / "server.mjs")],
            folder / "oidc.log",
            {"TEST_SERVER": json.dumps(options)},  # not on the command line: it holds a secret
        )
        self._process.start(lambda: accepts(self._control), timeout=30)
        self.listening = True

    def close(self) -> None:
        self._process.stop()

    def config(self, **seconds: float) -> None:
        """Set lifetimes: ``at`` (access tokens), ``device`` (device codes), ``refresh`` (refresh tokens), and the
        device flow's ``interval``. ``lenient=1`` is not a time: it allows that a rotated refresh token is used again.
        """
        self._command("config", seconds)

    def fail(
        self,
        status: int = 503,
        *,
        retry_after: str | int | None = None,
        times: int | None = 1,
        error: str | None = None,
    ) -> None:
        """Answer the next token requests with an HTTP status instead; ``times=None``: until :meth:`heal`.

        With ``error`` the body is a JSON error response with that code (RFC 6749 section 5.2), otherwise plain text.
        """
        wait = None if retry_after is None else str(retry_after)
        self._command("fail", {"status": status, "retryAfter": wait, "times": times, "error": error})

    def heal(self) -> None:
        """Stop failing."""
        self._command("heal")

    def lose(self, times: int = 1) -> None:
        """Process the next token requests, but lose the answers in transit."""
        self._command("lose", {"times": times})

    def token_requests(self) -> int:
        """The number of POST requests to the token endpoint since :meth:`reset`, including failed ones."""
        return int(self._command("requests"))

    def approve(self, user_code: str, sub: str = "alice") -> None:
        """Approve a device, as a person does."""
        self._command("decide", {"userCode": user_code, "approve": True, "sub": sub})

    def deny(self, user_code: str) -> None:
        """Deny a device, as a person does."""
        self._command("decide", {"userCode": user_code, "approve": False})

    def reset(self) -> None:
        """Restore the initial state: listening, tokens of 60 seconds, no failures, all counts zero."""
        self.start()
        self._command("reset")

    def stop(self) -> None:
        """Refuse connections and close the open ones. Keys and grants are kept."""
        if self.listening:
            self._command("stop")
            self.listening = False

    def start(self) -> None:
        """Listen again, on the same port."""
        if not self.listening:
            self._command("start")
            self.listening = True

    def secrets(self) -> list[str]:
        """Every token, client secret, assertion and Authorization header that it saw or issued."""
        return [self.client_secret, self.odd_client_secret, *self._command("secrets")]

    def _command(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=10)
        try:
            connection.request("POST", f"/{command}", json.dumps(arguments or {}))
            response = connection.getresponse()
            answer = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"authorization server: {command}: {answer}")
        return json.loads(answer)
