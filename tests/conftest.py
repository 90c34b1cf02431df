"""The real servers as fixtures, with their logs in the report of a failed test."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator

import pytest

from devtools.servers import processes, secret_check
from devtools.servers.delay_proxy import DelayProxy
from devtools.servers.ejabberd import Ejabberd
from devtools.servers.hivemq import HiveMQ
from devtools.servers.keys import Keys
from devtools.servers.mosquitto import Mosquitto
from devtools.servers.nats import Nats
from devtools.servers.oidc import AuthorizationServer
from devtools.servers.pki import Pki
from devtools.servers.rabbitmq import RabbitMQ

_SERVERS = ("oidc", "mosquitto", "rabbitmq", "hivemq", "ejabberd", "nats")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(secret_check, "secret_check")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: the servers are stopped at the end
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background ignores otherwise


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def oidc(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizationServer]:
    server = AuthorizationServer(keys, tmp_path_factory.mktemp("oidc"))
    yield server
    for secret in server.secrets():
        secret_check.remember_secret(secret)
    server.close()


@pytest.fixture(scope="session")
def mosquitto(keys: Keys, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    broker = Mosquitto(keys, pki, tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def rabbitmq(oidc: AuthorizationServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    broker = RabbitMQ(oidc.jwks_uri, tmp_path_factory.mktemp("rabbitmq"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def hivemq(keys: Keys, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HiveMQ]:
    broker = HiveMQ(keys, pki, tmp_path_factory.mktemp("hivemq"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def ejabberd(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ejabberd]:
    broker = Ejabberd(keys, tmp_path_factory.mktemp("ejabberd"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    broker = Nats(tmp_path_factory.mktemp("nats"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(autouse=True)
def _servers_as_new(request: pytest.FixtureRequest) -> None:
    """Each test finds its servers running and their counts at zero, whatever the previous test did."""
    names = request.fixturenames
    for name in _SERVERS:
        if name in names:
            request.getfixturevalue(name).reset()


@pytest.fixture
def delay() -> Iterator[Callable[..., DelayProxy]]:
    """``delay(port, round_trip=0.02)``: a proxy in front of a loopback port, with its own ``port``."""
    proxies: list[DelayProxy] = []

    def start(port: int, round_trip: float = 0.02) -> DelayProxy:
        proxies.append(DelayProxy(port, round_trip))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and any(name in item.fixturenames for name in _SERVERS):
        report.sections += [(f"log of the {one.name}", one.tail()) for one in processes.started]
    return report
