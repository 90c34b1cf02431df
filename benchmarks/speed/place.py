"""The interface between the benchmark and an MQTT library that is measured.

Only the standard library is imported here, and each library by its own adapter: not every environment has them all.
All methods are coroutines, so that one job serves all; those of libraries with threads of their own never suspend.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    import ssl

_Result = TypeVar("_Result")

PATIENCE = 15.0  # seconds, for whatever has to happen
HOST = "127.0.0.1"
TASKS = 20  # that publish at the same time where each message is awaited: as many as aiomqtt lets be in flight

Arrived = Callable[[bytes], None]
Acknowledged = Callable[[], None]


@dataclass(frozen=True)
class Place:
    """Where and how a client connects.

    Attributes:
        ca: the file with the certificate authority; None: not TLS.
        protocol: 5, or 4 for MQTT 3.1.1.
        token: the password.
        issuer: where a client gets its token instead, with "endpoint", "client_id", "client_secret" and "scope".
    """

    name: str
    port: int
    ca: str | None
    protocol: int
    token: str
    issuer: dict[str, str] | None = None


class Peer(ABC):
    """A client of one of the libraries.

    Attributes:
        packages: the packages that are measured, as pip is given them.
        imports: what a program that uses it begins with.
        used: how it is used, with the page that says so.
        lacks: what it does not offer, or is not measured at: "QoS 2", "MQTT 3.1.1", or a job.
    """

    packages: ClassVar[tuple[str, ...]]
    imports: ClassVar[str]
    used: ClassVar[str]
    lacks: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def __init__(self, place: Place, arrived: Arrived) -> None: ...

    @staticmethod
    @abstractmethod
    def run(job: Coroutine[Any, Any, _Result]) -> _Result: ...

    @abstractmethod
    async def connect(self) -> None: ...

    async def subscribe(self, topic: str, qos: int) -> None:
        raise NotImplementedError

    async def publish_all(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        """Publish a message ``count`` times as fast as possible; returns how many are acknowledged (at QoS 0 accepted)
        once all are, or after ``limit`` seconds.
        """
        raise NotImplementedError

    async def publish_one(self, topic: str, payload: bytes, qos: int) -> None:
        """Publish a message; return once it is acknowledged."""
        raise NotImplementedError

    async def publish_each(self, topic: str, payload: bytes, qos: int, count: int, limit: float) -> int:
        """Like :meth:`publish_all`, by ``TASKS`` tasks; each awaits its message before it publishes the next."""
        raise NotImplementedError

    def publish(self, topic: str, payload: bytes, qos: int, acknowledged: Acknowledged) -> None:
        """Publish once without waiting; ``acknowledged`` is called later, at QoS 0 perhaps never."""
        raise NotImplementedError

    async def rotate(self) -> None:
        """Return once it is connected with a new token."""
        raise NotImplementedError

    @abstractmethod
    async def wait_for(self, event: threading.Event, limit: float) -> bool: ...

    @abstractmethod
    async def sleep(self, seconds: float) -> None: ...

    @abstractmethod
    async def wait_for_line(self) -> None:
        """Wait for a line on standard input, without any polling."""

    @abstractmethod
    async def close(self) -> None: ...


@cache
def context(ca: str | None) -> ssl.SSLContext | None:
    """One TLS context a process, as each documentation has it."""
    import ssl  # a plain connection does not need it

    return None if ca is None else ssl.create_default_context(cafile=ca)
