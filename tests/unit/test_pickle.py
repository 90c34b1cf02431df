"""Every public name: errors, events and values survive pickle, copy and deepcopy; the rest says that it does not."""

from __future__ import annotations

import copy
import inspect
import itertools
import multiprocessing
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import mqtt_token_client as library
from devtools.servers.pki import Pki
from mqtt_token_client import (
    AsyncTokenClient,
    Event,
    HandlerFailed,
    Message,
    MqttTokenError,
    Token,
    TokenClient,
    TokenKeeper,
)
from tests.unit.device import Source

WAYS = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "oldest pickle": lambda value: pickle.loads(pickle.dumps(value, 2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
ways = pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))
_Way = Callable[[Any], Any]

_NO_VALUES = {"__version__", "AsyncTokenSource", "Profile", "TokenSource", "TokenStore", "open_journal", "open_store"}
_IN_ONE_PROCESS = {"AsyncTokenClient", "TokenClient", "TokenKeeper", "Delivery"}
_CLASSES = [name for name in library.__all__ if name not in _NO_VALUES | _IN_ONE_PROCESS]
_ERRORS = [name for name in _CLASSES if issubclass(getattr(library, name), MqttTokenError)]
_EVENTS = [name for name in _CLASSES if issubclass(getattr(library, name), Event)]
_VALUES = [name for name in _CLASSES if name not in {*_ERRORS, *_EVENTS}]


def _arguments(kind: Any) -> dict[str, Any]:
    """An argument for each keyword of an error or each field of an event."""
    if kind.__init__ is Exception.__init__ or kind.__init__ is ValueError.__init__:
        return {"message": "a text"}
    made: dict[str, Any] = {
        "float | None": 1.5,
        "int": 135,
        "int | None": 135,
        "bool": True,
        "float": 2.5,
        "RotationKind": "handover",
    }
    made["MqttTokenError"] = library.BrokerRefused("refused", reason=135)
    made["Exception"] = ValueError("of the application")
    parameters = inspect.signature(kind).parameters.values()
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return {one.name: made.get(str(one.annotation), "a text") for one in named}


def _error(name: str) -> MqttTokenError:
    kind = getattr(library, name)
    arguments = _arguments(kind)
    error = kind(arguments.pop("message"), **arguments)
    error.add_note("a note")
    assert isinstance(error, MqttTokenError)
    return error


def _same(one: Any, other: Any) -> bool:
    """Whether two objects have the same type and attributes, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseException):
        return bool(one.args == other.args and vars(one) == vars(other))
    if isinstance(one, Event):
        names: tuple[str, ...] = one.__match_args__
        return all(_same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


@pytest.mark.parametrize("name", _ERRORS)
def test_errors_survive(name: str) -> None:
    error = _error(name)
    for way in WAYS.values():
        again = way(error)
        assert _same(error, again)
        assert str(again) == str(error) == "a text"
        assert again.permanent == error.permanent


@pytest.mark.parametrize("name", [name for name in _EVENTS if name != "Event"])
def test_events_survive(name: str) -> None:
    kind = getattr(library, name)
    event = kind(**_arguments(kind))
    for way in WAYS.values():
        again = way(event)
        assert _same(event, again)
        assert repr(again) == repr(event)


class TwoArgumentsError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(one + two)


@ways
def test_an_event_survives_with_an_error_of_the_application_that_does_not(way: _Way) -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(TwoArgumentsError(1, 2)))
    again = way(HandlerFailed("the handler of t", TwoArgumentsError(1, 2)))
    assert again.where == "the handler of t"
    assert "TwoArgumentsError" in repr(again.error)


@pytest.fixture(scope="module")
def key() -> bytes:
    private = ec.generate_private_key(ec.SECP256R1())
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def values(key: bytes, pki: Pki, tmp_path: Path) -> dict[str, Iterable[Any]]:
    """Values of each public class."""
    l = library  # noqa: E741
    source = {"client_id": "c", "token_endpoint": "https://as.example/token"}
    token = Token("opaque", 60, refresh_token="r", scope="s", age_known=False, refresh_expires_in=90)
    return {
        "AwsIot": [l.AwsIot("authorizer", token_key="key", signature=str.upper)],
        "Backoff": [l.Backoff(), l.Backoff(0.5, 9.0, 3.0)],
        "BearerHeader": [l.BearerHeader("X-Token")],
        "ClearBlade": [l.ClearBlade()],
        "ClientAssertionFile": [l.ClientAssertionFile(pki.client.certificate)],
        "ClientCredentials": [l.ClientCredentials(**source, client_secret="secret")],  # type: ignore[arg-type]
        "ClientSecretBasic": [l.ClientSecretBasic("secret")],
        "ClientSecretJWT": [l.ClientSecretJWT("a secret of 32 characters or more")],
        "ClientSecretPost": [l.ClientSecretPost("secret")],
        "Credentials": [l.Credentials("user", b"password", token, "method", b"data", {"Authorization": "Bearer x"})],
        "DeviceFlow": [l.DeviceFlow(**source, device_authorization_endpoint="https://as.example/device")],  # type: ignore[arg-type]
        "DeviceLogin": [l.DeviceLogin("CODE", "https://as.example", None, 3.0)],
        "Event": [Event()],
        "EventGrid": [l.EventGrid()],
        "FileStore": [l.FileStore(tmp_path / "tokens")],
        "IoTOperations": [l.IoTOperations()],
        "KeyringStore": [l.KeyringStore("service")],
        "MemoryStore": [l.MemoryStore()],
        "Message": [Message("t", b"p", 1, True, False, {"content_type": "text"}, 7)],
        "MutualTLS": [l.MutualTLS(pki.client.certificate, pki.client.key)],
        "Password": [l.Password(username_claim="sub")],
        "PrivateKeyJWT": [l.PrivateKeyJWT(key)],
        "PublicClient": [l.PublicClient()],
        "RabbitMQ": [l.RabbitMQ("vhost")],
        "RenewalPolicy": [l.RenewalPolicy(0.5)],
        "SignedJWT": [l.SignedJWT(key, "ES256", {"sub": "device"}, 60)],
        "Solace": [l.Solace("profile")],
        "Stats": [l.Stats(*range(8))],
        "TlsFiles": [l.TlsFiles(pki.ca, pki.client.certificate, pki.client.key)],
        "Token": [Token("opaque"), token, Token("opaque", -3.0), token.with_refusal("expired")],
        "TokenFile": [l.TokenFile(tmp_path / "token")],
        "Username": [l.Username("p")],
        "Will": [l.Will("t", "gone"), l.Will("t", b"", 1, True, 3, {"content_type": "text"})],
    }


def _state(value: Any) -> Any:
    """What a value consists of, as text: not the copy of its files that MutualTLS has in this process's memory."""
    if isinstance(value, Token | Message):
        kind = type(value)
        return {name: getattr(value, name) for name in kind.__slots__}
    attributes = getattr(value, "__dict__", {})
    return {name: repr(attribute).split(" at 0x")[0] for name, attribute in attributes.items() if name != "_kept"}


@pytest.mark.parametrize("name", _VALUES)
def test_values_survive(values: dict[str, Iterable[Any]], name: str) -> None:
    for value, way in itertools.product(values[name], WAYS.values()):
        again = way(value)
        assert type(again) is type(value)
        assert _state(again) == _state(value)


@pytest.mark.parametrize("name", ["SignedJWT", "ClientSecretJWT", "FileStore"])
def test_values_that_survived_still_work(values: dict[str, Any], name: str) -> None:
    (value,) = values[name]
    again = pickle.loads(pickle.dumps(value))
    if name == "SignedJWT":
        assert again.fetch(None).claims["sub"] == "device"
    elif name == "FileStore":
        again.save("k", Token("stored", 60))
        assert value.load("k").value == "stored"
    else:
        assert again.__dict__.keys() == value.__dict__.keys()


@ways
def test_a_login_that_has_expired_has_expired_in_each_copy(way: _Way) -> None:
    login = library.DeviceLogin("CODE", "https://as.example", None, 3.0)
    login._over.set()
    assert way(login).ended


def test_a_copy_of_a_login_ends_with_it() -> None:
    login = library.DeviceLogin("CODE", "https://as.example", None, 3.0)
    copies = copy.copy(login), copy.deepcopy(login)
    login._over.set()
    assert all(one.ended for one in copies)


class TestMessagesToAcknowledge:
    @pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
    def test_are_acknowledged_by_a_copy(self, way: _Way) -> None:
        done: list[bool] = []
        way(Message("t", b"", 1, False, False, None, 7, lambda: done.append(True))).acknowledge()
        assert done == [True]

    def test_say_in_another_process_that_they_cannot_be(self) -> None:
        message = Message("t", b"", 1, False, False, None, 7, lambda: None)
        with pytest.raises(RuntimeError, match="in the process that received it"):
            pickle.loads(pickle.dumps(message)).acknowledge()

    def test_are_acknowledged_already_without_manual_ack(self) -> None:
        message = Message("t", b"", 1, False, False, None, 7)
        assert pickle.loads(pickle.dumps(message)) == message
        pickle.loads(pickle.dumps(message)).acknowledge()


@pytest.mark.parametrize("way", [WAYS["pickle"], copy.deepcopy])
@pytest.mark.parametrize("name", sorted(_IN_ONE_PROCESS))
def test_what_has_threads_says_that_it_does_not(name: str, way: _Way) -> None:
    made = {
        "AsyncTokenClient": lambda: AsyncTokenClient("mqtt://localhost", Source(), client_id="c"),
        "TokenClient": lambda: TokenClient("mqtt://localhost", Source(), client_id="c"),
        "TokenKeeper": lambda: TokenKeeper(Source()),
        "Delivery": library.Delivery,
    }
    with pytest.raises(TypeError, match=f"a {name} can .*; make one in each process"):
        way(made[name]())


def refuse(number: int) -> None:
    raise library.TokenRequestRefused(f"request {number}", error="invalid_grant", description="used", status=403)


def test_an_error_of_a_pool_reaches_the_caller() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        refused = pool.apply_async(refuse, (3,))
        with pytest.raises(library.TokenRequestRefused, match="request 3") as raised:
            refused.get(timeout=60)
    assert (raised.value.error, raised.value.description, raised.value.status) == ("invalid_grant", "used", 403)
    assert raised.value.needs_login
