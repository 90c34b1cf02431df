"""Proof that the client that asks for a token also began the login (Proof Key for Code Exchange, RFC 7636)."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256

METHOD = "S256"


class ProofKey:
    """A secret for one login: its hash goes into the first request, the secret itself into those for the token.

    Attributes:
        challenge: the fields of the first request (section 4.3).
        verifier: the fields of the later ones (section 4.5).
    """

    def __init__(self) -> None:
        secret = secrets.token_urlsafe(32)
        challenge = urlsafe_b64encode(sha256(secret.encode()).digest()).decode().rstrip("=")
        self.challenge = [("code_challenge", challenge), ("code_challenge_method", METHOD)]
        self.verifier = [("code_verifier", secret)]
