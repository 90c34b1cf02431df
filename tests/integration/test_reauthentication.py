"""Re-authentication in place on Mosquitto: the connection stays, and nothing waits."""

from __future__ import annotations

from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.oidc import AuthorizationServer
from mqtt_token_client import Credentials, Disconnected, Event, Token
from tests.integration.interfaces import INTERFACES, through_both
from tests.integration.traffic import Peer, Traffic, source


class ByMethod:
    """The Authentication Method that the plugin knows."""

    def place(self, token: Token, client_id: str) -> Credentials:
        return Credentials(None, None, token, "OAUTH2-JWT", token.value.encode())


class BadAtFirst:
    """Its second token is one that no broker takes."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._count = 0

    def fetch(self, previous: Token | None) -> Token:
        self._count += 1
        bad = self._count == 2  # without iat its age is no excuse
        return Token(self._keys.token(60, "client", iat=None) if bad else self._keys.token(60), 60)


def test_loses_and_holds_nothing_at_any_qos_on_one_connection(
    keys: Keys, oidc: AuthorizationServer, mosquitto: Mosquitto
) -> None:
    oidc.config(at=4)

    def check(interface: str) -> None:
        events: list[Event] = []
        name, url = f"in-place-{interface}", f"mqtt://127.0.0.1:{mosquitto.port}"
        client = INTERFACES[interface](url, source(oidc), client_id=name, profile=ByMethod(), on_event=events.append)
        with Traffic(client, Peer(mosquitto.port, name, keys.token(600)), events) as traffic:
            traffic.run(seconds=12, rate=200, qos=lambda number: number % 3)
            traffic.settle()
        assert len(traffic.rotations) >= 3
        assert {(rotation.kind, rotation.gap) for rotation in traffic.rotations} == {("re-authentication", 0.0)}
        assert client.stats.connects == 1
        for way in (traffic.peer.arrivals, traffic.down):
            assert (way.lost_of(traffic.sent), way.duplicated, way.reordered) == (set(), 0, 0)
        assert traffic.losses == []
        assert mosquitto.refused(name) == 0

    through_both(check)


def test_refused_goes_on_with_another_token_on_another_connection_and_loses_nothing(
    keys: Keys, mosquitto: Mosquitto
) -> None:
    def check(interface: str) -> None:
        events: list[Event] = []
        name, url = f"in-place-refused-{interface}", f"mqtt://127.0.0.1:{mosquitto.port}"
        client = INTERFACES[interface](
            url, BadAtFirst(keys), client_id=name, profile=ByMethod(), on_event=events.append
        )
        with Traffic(client, Peer(mosquitto.port, name, keys.token(600)), events) as traffic:
            client.rotate()
            traffic.run(seconds=2, rate=200)
            traffic.settle()
        assert client.stats.connects == 2
        lost = next(event for event in events if isinstance(event, Disconnected))
        # Where Mosquitto has not read all of the traffic when it closes the connection, the kernel drops a DISCONNECT
        # that Nagle's algorithm holds back: the client does not know why, and presents the new token once more.
        assert mosquitto.refused(name) == (2 if lost.reason is None else 1)
        assert traffic.peer.arrivals.lost_of(traffic.sent) == set()
        assert traffic.down.lost_of(traffic.sent) == set()

    through_both(check)
