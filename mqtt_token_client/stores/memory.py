"""A store that ends with the process."""

from __future__ import annotations

from ..token import Token


class MemoryStore:
    """Keeps tokens in this process only: for tests, and for several clients that share one token."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def load(self, key: str) -> Token | None:
        return self._tokens.get(key)

    def save(self, key: str, token: Token) -> None:
        self._tokens[key] = token

    def delete(self, key: str) -> None:
        self._tokens.pop(key, None)
