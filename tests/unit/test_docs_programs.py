"""Programs of README.md and of docs/index.md, service.md, metrics.md, journal.md and brokers.md run as they are, with
the embedded servers in place of the real ones.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.servers.processes import wait_until
from mqtt_token_client import ClientCredentials, OutboxFull, TokenClient, open_journal
from mqtt_token_client.journal.disk import DiskJournal
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.documented import ROOT, Block, blocks

Run = Callable[[Block], None]
# The sections of docs/brokers.md whose token is the password as it is, or the Authentication Data.
LIKE_THE_EMBEDDED_BROKER = {
    "EMQX", "HiveMQ", "Mosquitto", "VerneMQ", "TBMQ", "RMQTT", "Artemis", "RabbitMQ", "LavinMQ",
    "Any other Authentication Method (MQTT 5)",
}  # fmt: skip


def programs_of_brokers() -> Iterator[tuple[str, Block]]:
    """The first program of each of these sections."""
    lines = (ROOT / "docs/brokers.md").read_text().splitlines()
    for block in blocks("docs/brokers.md", "python"):
        headings = [line for line in lines[: block.line] if line.startswith("## ")]
        if (section := headings[-1].removeprefix("## ")) in LIKE_THE_EMBEDDED_BROKER:
            yield section, block


BROKERS = dict(programs_of_brokers())


@pytest.fixture
def run(server: AuthorizationServer, broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a block on the embedded servers."""
    monkeypatch.setenv("PUMP_SECRET", server.client_secret)
    for name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(block: Block) -> None:
        path = tmp_path / "program.py"
        path.write_text(embedded(block.code, server, broker))
        runpy.run_path(str(path), run_name="__main__")

    return run


def embedded(code: str, server: AuthorizationServer, broker: Broker) -> str:
    """Replace the servers of an example, and what belongs to them: the client, its scope, certificates."""
    code = code.replace("https://id.example.com/realms/plant", server.issuer)
    code = re.sub(r"mqtts://[\w.-]+\.example\.com", broker.url, code)
    code = re.sub(r'client_id="pump-17",(\s+)client_secret', rf'client_id="{server.client_id}",\1client_secret', code)
    code = re.sub(r"\n *tls=TlsFiles\(.*?\),", "", code)
    return re.sub(r'scope=".*?"', 'scope="mqtt"', code)


@pytest.mark.parametrize("document", ["README.md", "docs/index.md"])
def test_the_first_program_publishes_and_ends(document: str, run: Run, broker: Broker) -> None:
    run(blocks(document, "python")[0])
    (message,) = broker.messages("pump/17/temperature", count=1)
    assert (message.payload, message.qos, message.client_id) == (b"21.5", 1, "pump-17")


def test_a_client_with_a_journal_is_made(
    server: AuthorizationServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (block,) = blocks("docs/journal.md", "python")
    opened: list[DiskJournal] = []

    def open_and_keep(path: str) -> DiskJournal:
        opened.append(open_journal(path))
        return opened[-1]

    monkeypatch.setattr("mqtt_token_client.open_journal", open_and_keep)
    names = {
        "broker": "mqtts://broker.example.com",
        "source": ClientCredentials(issuer=server.issuer, client_id="pump-17", client_secret="s3cret"),
    }
    Block(block.document, block.line, "python", block.code.replace("/var/lib/pump", str(tmp_path))).run(names)
    assert isinstance(names["client"], TokenClient)
    assert (tmp_path / "outbox").exists()
    for journal in opened:
        journal.close()  # its thread would be another test's


def test_each_section_has_a_program() -> None:
    assert BROKERS.keys() == LIKE_THE_EMBEDDED_BROKER


@pytest.mark.parametrize("section", BROKERS)
def test_the_program_for_a_broker_publishes_and_ends(section: str, run: Run, broker: Broker) -> None:
    run(BROKERS[section])
    assert broker.messages("pump/17/temperature", count=1)[0].payload == b"21.5"


@pytest.fixture
def credentials(server: AuthorizationServer, broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the unit of docs/service.md gives to its process."""
    (toml,) = blocks("docs/service.md", "toml")
    code = toml.code.replace("https://id.example.com/realms/plant", server.issuer)
    code = code.replace("mqtts://broker.example.com", broker.url)
    code = code.replace('client_id = "pump-17"\nclient_secret', f'client_id = "{server.client_id}"\nclient_secret')
    (tmp_path / "pump.toml").write_text(code)
    (tmp_path / "pump-secret").touch(mode=0o600)
    (tmp_path / "pump-secret").write_text(server.client_secret)
    monkeypatch.setenv("MQTT_TOKEN_CONFIG", str(tmp_path / "pump.toml"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))


def test_the_program_writes_metrics(
    run: Run, credentials: None, broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (block,) = blocks("docs/metrics.md", "python")
    code = block.code.replace("/var/lib/node_exporter", str(tmp_path)).replace("time.sleep(10)", "raise SystemExit")
    with pytest.raises(SystemExit):
        run(Block(block.document, block.line, "python", code))
    values = dict(line.split() for line in (tmp_path / "pump.prom").read_text().splitlines())
    named = set(re.findall(r"^\| `(mqtt_\w+)`", (ROOT / block.document).read_text(), re.MULTILINE))
    assert named <= values.keys()
    assert (values["mqtt_connected"], values["mqtt_needs_help"]) == ("1.0", "0.0")
    assert float(values["mqtt_token_expires_in_seconds"]) > 0
    assert broker.messages("pump/17/temperature", count=1)[0].payload == b"21.5"


@pytest.mark.parametrize("document", ["docs/service.md", "examples/one_machine/opt/pump/pump.py"])
def test_the_program_of_a_service_publishes_until_sigterm(
    document: str, run: Run, credentials: None, broker: Broker
) -> None:
    block = Block(document, 0, "python", (ROOT / document).read_text()) if document.endswith(".py") else None
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        if broker.messages("pump/17/temperature", count=1, timeout=20):
            os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with pytest.raises(SystemExit):
            run(block or blocks(document, "python")[0])
    finally:
        stopper.join()
        signal.signal(signal.SIGTERM, before)
    wait_until(lambda: broker.client_ids == set(), "the broker has read DISCONNECT")


@pytest.mark.parametrize("document", ["docs/service.md", "docs/metrics.md", "examples/one_machine/opt/pump/pump.py"])
def test_a_program_that_runs_for_years_outlives_a_full_outbox(
    document: str, run: Run, credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempts = []

    def publish(*_arguments: object, **_options: object) -> None:
        attempts.append(1)
        if len(attempts) == 3:
            raise SystemExit
        raise OutboxFull("publish: 10000 messages wait already (max_queued); publish less, or wait")

    monkeypatch.setattr(TokenClient, "publish", publish)
    code = (ROOT / document).read_text() if document.endswith(".py") else blocks(document, "python")[0].code
    code = code.replace("time.sleep(10)", "pass").replace("/var/lib/node_exporter", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            run(Block(document, 0, "python", code))
    finally:
        signal.signal(signal.SIGTERM, before)
