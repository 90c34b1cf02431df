"""The embedded servers as guests of a process, and the authorization server, whose tokens PyJWT judges."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time

import jwt
import pytest
import requests

from mqtt_token_client.errors import ConfigurationError
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.embedded import (
    PUBACK,
    Connection,
    ask,
    connack_of,
    token_of,
)


@pytest.mark.parametrize("path", ["openid-configuration", "oauth-authorization-server"])
def test_its_metadata_name_the_issuer_and_where_to_go(server: AuthorizationServer, path: str) -> None:
    metadata = requests.get(f"{server.issuer}/.well-known/{path}", timeout=5).json()
    assert metadata["issuer"] == server.issuer
    assert metadata["token_endpoint"] == f"{server.issuer}/token"
    assert requests.get(metadata["jwks_uri"], timeout=5).json() == server.jwks


def test_its_token_is_a_signed_jwt_with_the_claims_of_rfc_9068(server: AuthorizationServer) -> None:
    token = ask(server, scope="mqtt").json()["access_token"]
    header = jwt.get_unverified_header(token)
    key = jwt.PyJWKSet.from_dict(dict(server.jwks))[header["kid"]]
    claims = jwt.decode(token, key, ["RS256"], audience="mqtt", issuer=server.issuer)
    assert header["typ"] == "at+jwt"
    assert claims.keys() >= {"iss", "sub", "aud", "exp", "iat", "jti", "client_id"}
    assert (claims["sub"], claims["scope"]) == (server.client_id, "mqtt")


def test_no_two_tokens_are_the_same(server: AuthorizationServer) -> None:
    assert token_of(server) != token_of(server)


def test_the_client_may_prove_who_it_is_in_the_body(server: AuthorizationServer) -> None:
    body = {
        "grant_type": "client_credentials",
        "client_id": server.client_id,
        "client_secret": server.client_secret,
    }
    answer = requests.post(f"{server.issuer}/token", data=body, timeout=5)
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "Bearer"


def test_a_wrong_secret_is_invalid_client(server: AuthorizationServer) -> None:
    answer = ask(server, secret="wrong")
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.parametrize("lifetime", [0.25, 6, 6.0])
def test_expires_in_and_exp_say_the_same_and_whole_seconds_are_an_integer(lifetime: float) -> None:
    with AuthorizationServer(lifetime=lifetime) as server:
        before = time.time()
        answer = ask(server)
        after = time.time()
    claims = jwt.decode(answer.json()["access_token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == pytest.approx(lifetime)
    assert before <= claims["iat"] <= after
    assert f'"expires_in": {lifetime:g},' in answer.text.replace('":', '": ').replace("  ", " ")


def test_the_lifetime_may_be_changed_while_it_runs() -> None:
    with AuthorizationServer(lifetime=60) as server:
        server.lifetime = 2
        assert ask(server).json()["expires_in"] == 2


def test_it_fails_as_often_as_asked_and_then_recovers() -> None:
    with AuthorizationServer() as server:
        server.fail(429, times=2, retry_after=7)
        answers = [ask(server) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [429, 429, 200]
        assert answers[0].headers["Retry-After"] == "7"
        assert "Retry-After" not in answers[2].headers
        server.fail(times=100)
        server.fail(times=0)
        assert ask(server).status_code == 200


@pytest.mark.parametrize("lifetime", [0, -1, float("nan")])
def test_an_invalid_lifetime_is_refused(lifetime: float) -> None:
    with pytest.raises(ConfigurationError, match="lifetime"):
        AuthorizationServer(lifetime=lifetime)


# Both as guests of a process


def test_both_listen_on_127_0_0_1_only(server: AuthorizationServer, broker: Broker) -> None:
    for port in (int(server.issuer.rpartition(":")[2]), broker.port):
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


def test_they_are_quiet_where_nobody_has_set_up_logging() -> None:
    script = """
import contextlib
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.embedded import Connection, ask
with AuthorizationServer() as server, Broker(server) as broker, contextlib.ExitStack() as connections:
    ask(server, secret="wrong")
    token = ask(server).json()["access_token"]
    connect = lambda token, *, clean=False: connections.enter_context(Connection(broker, token, clean=clean))
    connect("no token").receive()
    first = connect(token)
    first.accepted()
    second = connect(token)
    second.accepted()
    first.ended()
    second.subscribe("#")
    second.publish(1, b"in flight at the end")
    second.publish(2, b"forbidden", "#")
    second.ended()
    connect(token, clean=True).accepted()
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script], capture_output=True, text=True, check=False
    )
    assert (ended.stderr, ended.stdout, ended.returncode) == ("", "", 0)


def test_they_leave_no_thread_and_no_port_and_nothing_pending(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    before = set(threading.enumerate())
    with AuthorizationServer(lifetime=60) as server, Broker(server) as broker:
        connack_of(broker, "no token")
        with Connection(broker, token_of(server)) as first, Connection(broker, token_of(server)) as second:
            second.accepted()
            assert first.ended()
            second.subscribe("#")
            second.publish(1, b"in flight at the end")
            second.expect(PUBACK)
            held = Connection(broker, token_of(server), "held")
            held.accepted()
        ports = int(server.issuer.rpartition(":")[2]), broker.port
    assert held.ended()
    held.__exit__()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
        assert not thread.is_alive(), thread
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_broker_comes_back_on_the_same_port_and_has_forgotten_everything(server: AuthorizationServer) -> None:
    with Broker(server) as broker, Connection(broker, token_of(server)) as connection:
        assert not connection.accepted()
    with Broker(server, port=broker.port) as broker, Connection(broker, token_of(server)) as connection:
        assert not connection.accepted()


def test_a_port_that_is_taken_is_an_oserror(
    server: AuthorizationServer, broker: Broker, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match="in use"), Broker(server, port=broker.port):
        pass
    with pytest.raises(OSError, match="in use"), AuthorizationServer(port=broker.port):
        pass
    assert capfd.readouterr() == ("", "")


def test_several_pairs_live_in_one_process_and_know_only_their_own(server: AuthorizationServer, broker: Broker) -> None:
    with AuthorizationServer() as other_server, Broker(other_server) as other_broker:
        assert connack_of(broker, token_of(server)) == 0
        assert connack_of(other_broker, token_of(other_server)) == 0
        assert connack_of(broker, token_of(other_server)) == 0x87
