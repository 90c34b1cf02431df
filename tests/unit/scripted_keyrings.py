"""Keyring backends that misbehave, each as real ones do."""

from __future__ import annotations

import threading
from typing import ClassVar

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

SECRET = "hunter2-in-an-error-text"


class Good(KeyringBackend):
    """Keeps its entries for all objects of the class; tests hook into :meth:`_called`."""

    priority = 99.0  # higher than any backend of the system
    kept: ClassVar[dict[tuple[str, str], str]] = {}
    limit: ClassVar[int | None] = None

    def _called(self, name: str, entry: str) -> None:
        """Called first in each call."""

    def get_password(self, service: str, username: str) -> str | None:
        self._called("get", username)
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._called("set", username)
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._called("delete", username)
        try:
            del self.kept[service, username]
        except KeyError:
            raise PasswordDeleteError(username) from None


class Windows(Good):
    """Accepts 2560 bytes of UTF-16 and no more, like the Credential Manager."""

    def set_password(self, service: str, username: str, password: str) -> None:
        if len(password.encode("utf-16-le")) > 2560:
            raise OSError(1783, "CredWrite", "The stub received bad data")
        super().set_password(service, username, password)


class TooSmall(Good):
    """Truncates a long entry silently."""

    def set_password(self, service: str, username: str, password: str) -> None:
        super().set_password(service, username, password[:256])


class Lying(Good):
    """Returns something else than was stored."""

    def get_password(self, service: str, username: str) -> str | None:
        found = super().get_password(service, username)
        return found and found.lower() + "."


class Failing(Good):
    """Raises ``error``."""

    error: ClassVar[BaseException] = KeyringLocked(SECRET)

    def _called(self, name: str, entry: str) -> None:
        raise self.error


class Dying(Good):
    """Fails from a certain write on, as if the power had failed."""

    calls_left: ClassVar[int] = 0

    def _called(self, name: str, entry: str) -> None:
        if name != "get":
            if type(self).calls_left <= 0:
                raise RuntimeError
            type(self).calls_left -= 1


class Hanging(Good):
    """Hangs until ``let_go`` is set."""

    let_go: ClassVar[threading.Event] = threading.Event()
    begun: ClassVar[int] = 0

    def _called(self, name: str, entry: str) -> None:
        type(self).begun += 1
        self.let_go.wait(60)
