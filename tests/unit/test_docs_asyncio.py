"""The programs of docs/asyncio.md run as they are, with the embedded servers in place of the real ones."""

from __future__ import annotations

import asyncio
import runpy
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import aiohttp
import fastapi
import httpx
import pytest
from aiohttp import test_utils, web

from mqtt_token_client import AsyncTokenClient, TokenClient, TokenKeeper
from mqtt_token_client.testing import AuthorizationServer, Broker
from tests.unit.documented import Block, blocks

BLOCKS = blocks("docs/asyncio.md", "python")


PROGRAMS = (
    "async for message in messages", "async def on_command", "get_async", "FromHomeAssistant", "FastAPI(lifespan",
    "web.AppKey", "FromOurCloud",
)  # fmt: skip
ELSEWHERE = "import aiomqtt"  # tests/integration/test_documented_aiomqtt.py: it waits for a renewal


def program(words: str) -> Block:
    """The only block with these words."""
    assert words in PROGRAMS
    (block,) = [block for block in BLOCKS if words in block.code]
    return block


def test_each_program_of_the_page_is_run() -> None:
    for block in BLOCKS:
        assert sum(words in block.code for words in (*PROGRAMS, ELSEWHERE)) == 1, block


@pytest.fixture
def run(server: AuthorizationServer, broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a block; return its names."""
    monkeypatch.setenv("PUMP_SECRET", server.client_secret)

    def run(block: Block) -> dict[str, Any]:
        code = block.code.replace("https://id.example.com/realms/plant", server.issuer)
        code = code.replace("mqtts://broker.example.com", broker.url)
        for name in ("pump-17", "dashboard"):
            code = code.replace(
                f'client_id="{name}",\n    client_secret', f'client_id="{server.client_id}",\n    client_secret'
            )
        path = tmp_path / "program.py"
        path.write_text(code)
        return runpy.run_path(str(path), run_name="__main__")

    return run


@pytest.fixture
def stopping(broker: Broker) -> Any:
    """Publish the command that ends the programs, until they have ended."""
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.02):
            broker.publish("pump/17/command/now", b"stop", qos=1)

    thread = threading.Thread(target=publish)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.mark.usefixtures("stopping")
@pytest.mark.parametrize("words", ["async for message in messages", "async def on_command"])
def test_a_program_publishes_and_receives_and_ends(words: str, run: Any) -> None:
    run(program(words))


def test_the_program_with_a_keeper_prints_how_long_the_token_is_valid(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(program("get_async"))
    assert capsys.readouterr().out.startswith("valid for ")


def test_the_source_of_home_assistant_returns_what_the_session_has(run: Any) -> None:
    class Session:
        token: dict[str, Any]

        async def async_ensure_token_valid(self) -> None:
            self.token = {"access_token": "a-token", "expires_at": time.time() + 60}

    source = run(program("FromHomeAssistant"))["FromHomeAssistant"](Session())
    token = asyncio.run(TokenKeeper(source).get_async())
    assert token.value == "a-token"
    assert 59 < token.expires_in <= 60


def test_fastapi_publishes_in_a_request(run: Any, broker: Broker) -> None:
    app = run(program("FastAPI(lifespan"))["app"]
    assert isinstance(app, fastapi.FastAPI)

    async def main() -> None:
        async with app.router.lifespan_context(app) as state:

            async def with_state(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
                await app({**scope, "state": state}, receive, send)

            transport = httpx.ASGITransport(app=with_state)
            async with httpx.AsyncClient(transport=transport, base_url="http://plant") as client:
                assert (await client.post("/pump/17/command?text=open")).status_code == 200

    asyncio.run(main())
    assert [message.payload for message in broker.messages("pump/17/command/text")] == [b"open"]


def test_aiohttp_publishes_in_a_request(run: Any, broker: Broker) -> None:
    app = run(program("web.AppKey"))["app"]

    async def main() -> None:
        async with test_utils.TestClient(test_utils.TestServer(app)) as client:
            assert (await client.post("/pump/17/command", data="open")).status == 200

    asyncio.run(main())
    assert [message.payload for message in broker.messages("pump/17/command/text")] == [b"open"]


def test_the_source_over_aiohttp_returns_a_token_of_the_cloud(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from_our_cloud = run(program("FromOurCloud"))["FromOurCloud"]

    async def token(_request: Any) -> Any:
        return web.json_response({"token": "a-token", "seconds": 60})

    async def main() -> None:
        app = web.Application()
        app.add_routes([web.post("/token", token)])
        async with test_utils.TestServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as session:
            original = session.post

            def post(url: str, **options: Any) -> Any:
                assert url == "https://cloud.example.com/token"
                return original("/token", **options)

            monkeypatch.setattr(session, "post", post)
            assert (await from_our_cloud(session).fetch(None)).value == "a-token"

    asyncio.run(main())


def test_the_tables_name_methods_and_arguments_that_exist() -> None:
    for name in ("publish", "publish_nowait", "messages", "subscribe", "connect", "disconnect", "rotate", "events"):
        assert callable(getattr(AsyncTokenClient, name))
        assert name == "events" or name.startswith(("publish_", "messages")) or hasattr(TokenClient, name)
