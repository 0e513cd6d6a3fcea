"""`captionq mcp` as an agent runs it: a session of the `mcp` package over the process' pipes."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from producer.contract import JobState
from producer.embedded import RedisServer
from producer.redis_store import RedisStore
from tests.fork_server import captionq
from tests.house import SCENE, House, picture

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def agent(environment: dict[str, str], *words: str) -> AsyncIterator[Client]:
    """A session with `captionq mcp words...`."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "producer.cli", "mcp", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )
    async with Client(server) as client:
        yield client


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    done = await client.call_tool(tool, arguments)
    assert not done.is_error, done.content
    assert isinstance(done.structured_content, dict)
    return done.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    done = await client.call_tool(tool, arguments)
    assert done.is_error
    return str(getattr(done.content[0], "text", ""))


@pytest.fixture(scope="module")
def photos(house: House) -> Path:
    folder = house.files / "agent"
    folder.mkdir()
    for seed in range(4):
        (folder / f"{seed}.png").write_bytes(picture(seed)[0])
    return folder


async def test_given_an_agent_then_every_tool_is_described_and_none_changes_anything(
    house: House,
) -> None:
    async with agent(house.environment) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert "reads no text" in (client.instructions or "")
    assert set(tools) == {"caption", "match", "explain", "search"}
    for tool in tools.values():
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is True
        assert tool.output_schema is not None
        assert len(tool.description or "") > 40
        for name, parameter in tool.input_schema["properties"].items():
            assert parameter.get("description"), f"{tool.name}: {name}"


async def test_given_images_by_url_and_by_path_then_they_are_captioned_matched_and_explained(
    house: House, photos: Path
) -> None:
    async with agent(house.environment, "--root", str(photos)) as client:
        by_url = await answer(client, "caption", image=house.web.url("/ok.png"), count=2)
        assert by_url["caption"] == SCENE.caption
        assert 0.5 < by_url["confidence"] <= 1
        assert by_url["language"] is None
        assert len(by_url["others"]) == 1
        german = await answer(client, "caption", image="1.png", language="de")
        assert (german["language"], german["caption"].split()[0]) == ("de", "ein")
        style = await answer(client, "caption", image="1.png", style="alt_text")
        assert style["caption"][0].isupper()

        texts = ["nothing of the kind", SCENE.caption]
        weighed = await answer(client, "match", image=str(photos / "1.png"), texts=texts)
        assert weighed["best"] == SCENE.caption
        assert [one["text"] for one in weighed["matches"]] == texts[::-1]
        assert weighed["matches"][0]["probability"] > weighed["matches"][1]["probability"]

        own = await answer(client, "explain", image="1.png")
        given = await answer(client, "explain", image="1.png", texts=["a red square"])
        for found, text in ((own, SCENE.caption), (given, "a red square")):
            assert (found["width"], found["height"]) == (192, 192)
            (explained,) = found["texts"]
            assert [word["word"] for word in explained["words"]] == text.split()
            for word in explained["words"]:
                x, y = word["peak"]
                assert 0 <= x <= 192
                assert 0 <= y <= 192
                assert 0 < word["probability"] <= 1


async def test_given_an_index_then_words_find_its_images(
    house: House, photos: Path, tmp_path: Path
) -> None:
    index = str(tmp_path / "index")
    environment = os.environ | house.environment
    built = captionq("index", "build", str(photos), "--index", index, env=environment)
    assert built.returncode == 0, built.stderr
    async with agent(house.environment, "--index", index) as client:
        found = await answer(client, "search", query=SCENE.caption, k=2)
        assert len(found["images"]) == 2
        best = found["images"][0]
        assert best["image"] == (photos / "1.png").as_uri()
        assert best["caption"] == SCENE.caption
        assert best["similarity"] >= found["images"][1]["similarity"]
        none = await answer(client, "search", query=SCENE.caption, source="s3://elsewhere/")
        assert none["images"] == []
    async with agent(house.environment, "--index", str(tmp_path / "none")) as client:
        assert "index_missing: " in await refusal(client, "search", query="a cat")


async def test_given_what_cannot_be_done_then_the_agent_is_told_why_and_what_to_do(
    house: House, photos: Path
) -> None:
    async with agent(house.environment, "--root", str(photos)) as client:
        missing = await refusal(client, "caption", image=house.web.url("/missing.png"))
        assert "http_4xx: The image host refused the request (4xx). What to do: Check" in missing
        outside = await refusal(client, "caption", image=str(house.files / "scene.png"))
        assert "input_invalid: " in outside
        assert "lies outside" in outside
        language = await refusal(client, "caption", image="1.png", language="nl")
        assert "language_unavailable: " in language
        assert "count" in await refusal(client, "caption", image="1.png", count=9)
        texts = [""]
        assert "texts" in await refusal(client, "match", image="1.png", texts=texts)
        assert (await answer(client, "caption", image="1.png"))["caption"] == SCENE.caption


def ended(store: RedisStore, redis_url: str) -> list[str]:
    """The states of all jobs there are."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        ids = [key.removeprefix("captionq:job:") for key in client.scan_iter("captionq:job:*")]
    records = [store.get(job_id) for job_id in ids]
    return [str(record.state) for record in records if record is not None]


async def until(condition: Any, timeout_s: float = 20) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


async def test_given_no_worker_then_progress_is_told_until_the_time_is_over_and_the_job_cancelled(
    redis_server: RedisServer,
) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total, message))

    store = RedisStore(redis_server.url)
    async with agent({"CAPTIONQ_BROKER_URL": redis_server.url}, "--timeout", "2.5") as client:
        image = {"image": "https://example.com/a.png"}
        done = await client.call_tool("caption", image, progress_callback=progress)
    assert done.is_error
    assert "timeout: No worker answered within 2.5 s; the job was queued." in str(done.content)
    assert [(total, message) for _, total, message in seen[:2]] == [
        (2.5, "queued for 1 s"),
        (2.5, "queued for 2 s"),
    ]
    assert ended(store, redis_server.url) == [JobState.CANCELLED]
    store.close()


@pytest.mark.parametrize("how", ["cancels the call", "goes away"])
async def test_given_an_agent_that_does_not_wait_then_its_job_is_cancelled(
    redis_server: RedisServer, how: str
) -> None:
    store = RedisStore(redis_server.url)
    async with agent({"CAPTIONQ_BROKER_URL": redis_server.url}) as client:
        call = asyncio.create_task(client.call_tool("caption", {"image": "https://a.example/1"}))
        await until(lambda: ended(store, redis_server.url) == [JobState.QUEUED])
        if how == "cancels the call":
            call.cancel()
            await until(lambda: ended(store, redis_server.url) == [JobState.CANCELLED])
    await until(lambda: ended(store, redis_server.url) == [JobState.CANCELLED])
    await asyncio.gather(call, return_exceptions=True)
    store.close()


async def test_given_no_broker_then_the_tool_says_so_and_the_server_lives_on() -> None:
    environment = {
        "CAPTIONQ_BROKER_URL": "redis://127.0.0.1:1/0",
        "CAPTIONQ_SUBMIT_TIMEOUT_S": "0.5",
    }
    async with agent(environment) as client:
        for _ in range(2):
            said = await refusal(client, "caption", image="https://example.com/a.png")
            assert "broker_unavailable: " in said


async def test_given_a_port_then_the_same_tools_are_served_by_http_on_this_machine_alone(
    house: House,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "mcp", "--port", str(port)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | house.environment,
        stderr=subprocess.PIPE,
    )
    try:
        await until(lambda: listens(port))
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            found = await answer(client, "caption", image=house.web.url("/ok.png"))
        assert found["caption"] == SCENE.caption
    finally:
        process.terminate()
        process.communicate(timeout=20)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_given_a_root_that_is_no_folder_then_one_sentence_says_so(tmp_path: Path) -> None:
    done = captionq("mcp", "--root", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (
        2,
        f"captionq: There is no folder {tmp_path / 'none'}.\n",
    )


def test_given_no_mcp_package_then_one_sentence_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['mcp'] = None; sys.argv = ['captionq', 'mcp']; "
        "from producer.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == ("captionq: Tools for agents need mcp: pip install 'captionq[mcp]'\n")
