"""Opening: a worker obtains a token and opens a transport to the broker."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from socket import socket
from typing import TYPE_CHECKING, TypeVar

from ...errors import BrokerRefused, MqttTokenError
from ...logs import get_logger
from ...profiles import Credentials
from ...token import Token
from ...value import Value
from ..codec.codec import Codec
from ..runtime.base import Runtime
from ..transport.address import Address
from ..transport.open import open_transport
from .attempt import Attempt, AttemptListener, Rejection
from .connect_packet import connect_packet
from .settings import CredentialsSource, Settings

if TYPE_CHECKING:
    from .broker_tls import BrokerTls

log = get_logger("mqtt_token_client.mqtt")

_Result = TypeVar("_Result")


class Opened(Value):
    """A transport to the broker, ready for CONNECT."""

    credentials: Credentials
    sock: socket
    codec: Codec
    packet: bytes  # CONNECT


class UpgradeRejected(Exception):  # noqa: N818 - never leaves this package
    """The broker rejected the token in a header of the WebSocket upgrade."""

    def __init__(self, token: Token, reason: int) -> None:
        super().__init__("the broker rejected the token in the WebSocket upgrade")
        self.token = token
        self.reason = reason


def open_connection(
    settings: Settings,
    source: CredentialsSource,
    address: Address,
    tls: BrokerTls,
    *,
    rejected: Token | None,
    first: bool,
) -> Opened:
    """Obtain credentials, build CONNECT, and open a transport. Blocks: for a worker.

    Args:
        settings: of the client.
        source: makes the credentials.
        address: the broker.
        tls: chooses the TLS context.
        rejected: the token that must not be presented again, if there is one.
        first: whether the broker has accepted no connection of this session yet.

    Raises:
        MqttTokenError: there is no token, CONNECT cannot be built, or the broker cannot be reached.
        UpgradeRejected: the broker rejected the token before CONNECT.
    """
    credentials = source.credentials(rejected)
    codec = Codec(settings.protocol, settings.max_packet_size)
    packet = connect_packet(codec, settings, credentials, address, first=first)  # checked before a socket is opened
    context = tls.choose() if address.tls else None
    try:
        sock = open_transport(
            address,
            context,
            settings.proxy,
            credentials.headers,
            keepalive=settings.keepalive,
            session=tls.session(address, context),
        )
    except BrokerRefused as error:
        raise UpgradeRejected(credentials.token, error.reason) from None
    return Opened(credentials, sock, codec, packet)


class State(Enum):
    WORKING = auto()  # a worker is at it
    ENDED = auto()  # its result is no longer wanted, or was handed on


class Opening(Attempt):
    """The first part of every attempt.

    Args:
        runtime: has the workers.
        listener: gets the result.
    """

    def __init__(self, runtime: Runtime, listener: AttemptListener) -> None:
        self._runtime = runtime
        self._listener = listener
        self._state = State.WORKING

    def open(self, job: Callable[[], Opened]) -> None:
        """Open a transport, for CONNECT."""

        def opened(result: Opened) -> None:
            if self._state is State.ENDED:
                result.sock.close()
            else:
                self._listener.opened(result)

        self._run(job, opened)

    def obtain(self, job: Callable[[], Credentials]) -> None:
        """Obtain credentials, for AUTH on the current connection."""

        def obtained(result: Credentials) -> None:
            if self._state is State.WORKING:
                self._listener.obtained(result)

        self._run(job, obtained)

    def _run(self, job: Callable[[], _Result], then: Callable[[_Result], None]) -> None:
        def done(result: _Result | None, error: Exception | None) -> None:
            if result is not None:
                try:
                    then(result)
                except Exception as unexpected:
                    log.exception("an error of this library, please report it; another attempt follows")
                    name = type(unexpected).__name__
                    self._listener.failed(MqttTokenError(f"connecting failed with {name}; see the log"))
                    if isinstance(result, Opened):  # which no connection may have by then
                        result.sock.close()
            elif self._state is State.ENDED:
                pass
            elif isinstance(error, UpgradeRejected):
                self._listener.rejected(Rejection(error.token, error.reason))
            else:
                assert error is not None
                self._listener.failed(error)

        self._runtime.run_blocking(job, done)

    def end(self) -> None:
        self._state = State.ENDED
