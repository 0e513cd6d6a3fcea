"""Uploads through a real server, into a folder and into a real S3: whole, or not at all."""

import asyncio
import contextlib
import hashlib
import socket
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from botocore.config import Config
from fastapi import FastAPI
from starlette.requests import Request

from producer.gateway.app import create_app
from producer.gateway.keys import new_key, write
from producer.gateway.problems import Problem
from producer.gateway.settings import GatewaySettings
from producer.gateway.upload_place import PART_BYTES, Place, StorageFailed, Writing
from producer.gateway.uploading import Uploads
from tests.house import PNG
from tests.serving import serving
from worker.embedded_s3 import S3Server

CAP = 3 * PART_BYTES
LARGE = PNG + bytes(2 * PART_BYTES)
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Kept:
    """A gateway, and the folder in which what it keeps can be seen, whatever it writes to."""

    url: str
    uri: str
    folder: Path
    s3: Any = None

    def files(self) -> dict[str, bytes]:
        """All that is there, half-written files included."""
        found = self.folder.rglob("*") if self.folder.exists() else ()
        return {path.name: path.read_bytes() for path in found if path.is_file()}

    def unfinished(self) -> list[str]:
        if self.s3 is None:
            return []
        try:
            listed = self.s3.list_multipart_uploads(Bucket="photos")
        except self.s3.exceptions.NoSuchUpload:  # rclone's way to say: none
            return []
        return [one["UploadId"] for one in listed.get("Uploads", ())]

    def nothing(self) -> bool:
        return not self.files() and not self.unfinished()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Path, Any]]:
    root = tmp_path_factory.mktemp("s3")
    (root / "photos").mkdir()
    with S3Server(root) as server:
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        yield server, root, client


SETTINGS: dict[str, Any] = {
    "broker_url": "redis://127.0.0.1:9/0",  # uploads need none
    "max_upload_bytes": CAP,
    "upload_timeout_s": 1,
    "max_uploads": 2,
}


def app_of(**settings: Any) -> FastAPI:
    return create_app(GatewaySettings(**settings))


@pytest.fixture(scope="module", params=["file", "s3"])
def _served(
    request: pytest.FixtureRequest,
    s3: tuple[S3Server, Path, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kept]:
    server, root, client = s3
    if request.param == "file":
        folder = tmp_path_factory.mktemp("uploads") / "kept here"
        uri, seen, more = f"{folder.as_uri()}/", None, {}
    else:
        folder, uri, seen = root / "photos" / "kept here", "s3://photos/kept%20here/", client
        more = {"s3_endpoint_url": server.endpoint_url}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        patched.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        patched.setenv("AWS_DEFAULT_REGION", "us-east-1")
        made = app_of(**SETTINGS, **more, upload_to=uri)
    with serving(made) as url:
        yield Kept(url, uri, folder, seen)


@pytest.fixture
def kept(_served: Kept) -> Kept:
    """A gateway that has kept nothing yet."""
    for path in _served.folder.rglob("*") if _served.folder.exists() else ():
        path.unlink()
    return _served


def soon(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


@pytest.mark.parametrize("data", [PNG, LARGE, PNG + bytes(PART_BYTES - len(PNG)), b"\xff\xd8\xff!"])
@pytest.mark.parametrize("form", [False, True])
def test_given_an_image_when_it_is_sent_then_it_is_kept_whole_under_a_name_that_nobody_chose(
    kept: Kept, data: bytes, form: bool
) -> None:
    where = f"{kept.url}/v1/uploads"

    if form:
        files = {"file": ("../../etc/My cat.exe", data, "text/html")}
        answer = httpx.post(where, files=files, data={"note": "hello"})
    else:
        answer = httpx.post(where, content=data, headers={"Content-Type": "image/png"})

    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert told["bytes"] == len(data)
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    name = told["image"].removeprefix(kept.uri)
    stem, suffix = name.split(".")
    assert suffix == ("jpg" if data[:2] == b"\xff\xd8" else "png")
    assert len(stem) == 32
    assert set(stem) <= set("0123456789abcdef")
    assert kept.files() == {name: data}
    assert kept.unfinished() == []


def test_given_an_image_without_a_declared_length_then_it_is_kept_as_well(kept: Kept) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(LARGE), 100_000):
            yield LARGE[start : start + 100_000]

    answer = httpx.post(f"{kept.url}/v1/uploads", content=pieces(), headers=OCTETS)

    assert answer.status_code == 201
    assert list(kept.files().values()) == [LARGE]


def form(*names: str) -> dict[str, Any]:
    return {"files": [("file", (name, PNG)) for name in names]}


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"content": b"<html>, not an image", "headers": OCTETS}, 415, "image_unsupported_format"),
        ({"content": b"\x89PNG", "headers": OCTETS}, 415, "image_unsupported_format"),
        ({"content": b"", "headers": OCTETS}, 422, "image_empty"),
        ({"files": {"file": ("a.png", b"")}}, 422, "image_empty"),
        ({"files": {"file": ("a.png", b"no image at all")}}, 415, "image_unsupported_format"),
        ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, 415,
         "media_type_unsupported"),
        ({"content": PNG, "headers": OCTETS | {"Content-Encoding": "gzip"}}, 415,
         "media_type_unsupported"),
        (form("a.png", "b.png"), 400, "body_invalid"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400,
         "body_invalid"),
        ({"content": LARGE + bytes(PART_BYTES), "headers": OCTETS}, 413, "body_too_large"),
        ({"content": [PNG, bytes(CAP)], "headers": OCTETS}, 413, "body_too_large"),
        ({"files": {"file": ("a.png", LARGE + bytes(PART_BYTES))}}, 413, "body_too_large"),
        ({"files": {"file": ("a.png", PNG)}, "data": {"note": "x" * 100_000}}, 413,
         "body_too_large"),
    ],
)  # fmt: skip
def test_given_what_is_refused_then_the_problem_says_why_and_nothing_is_left(
    kept: Kept, sent: dict[str, Any], status: int, code: str
) -> None:
    if isinstance(sent.get("content"), list):  # in chunks, of no declared length
        sent = sent | {"content": iter(sent["content"])}

    answer = httpx.post(f"{kept.url}/v1/uploads", **sent)

    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert soon(kept.nothing)


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("same-origin", "http://gateway.example", 201),
        ("none", None, 201),
        ("cross-site", "https://evil.example", 403),
        ("same-site", "https://b.example", 403),
        ("cross-site", "null", 403),
        ("cross-site", "https://app.example", 201),
    ],
)
def test_given_another_site_s_page_then_its_form_keeps_nothing_here_unless_it_may(
    tmp_path: Path, site: str, origin: str | None, status: int
) -> None:
    place = f"{tmp_path.as_uri()}/kept/"
    with serving(app_of(**SETTINGS, upload_to=place, allowed_origins="https://app.example")) as url:
        headers = {"Sec-Fetch-Site": site} | ({"Origin": origin} if origin else {})
        files = {"file": ("a.png", PNG)}
        answer = httpx.post(f"{url}/v1/uploads", files=files, headers=headers)
    assert answer.status_code == status
    assert (tmp_path / "kept").exists() == (status == 201)


def raw(kept: Kept, declared: int, sent: bytes) -> socket.socket:
    """A connection that has sent the head, and some of a body that it has promised."""
    parts = urlsplit(kept.url)
    peer = socket.create_connection((parts.hostname, parts.port))
    head = f"POST /v1/uploads HTTP/1.1\r\nHost: a\r\nContent-Length: {declared}\r\n"
    peer.sendall(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + sent)
    return peer


def test_given_a_body_that_comes_too_slowly_then_it_is_told_and_nothing_is_left(
    kept: Kept,
) -> None:
    with raw(kept, CAP, LARGE) as peer:
        peer.settimeout(10)
        assert peer.recv(100).startswith(b"HTTP/1.1 408")
    assert soon(kept.nothing)


def test_given_a_sender_that_hangs_up_then_nothing_is_left(kept: Kept) -> None:
    with raw(kept, CAP, LARGE):
        assert soon(lambda: not kept.nothing())  # of a part that is written already
    assert soon(kept.nothing)


def test_given_as_many_uploads_as_may_be_then_one_more_is_refused_until_one_is_over(
    kept: Kept,
) -> None:
    def one_more() -> httpx.Response:
        with raw(kept, CAP, PNG), raw(kept, CAP, PNG):
            time.sleep(0.2)
            return httpx.post(f"{kept.url}/v1/uploads", content=PNG, headers=OCTETS)

    for _ in range(10):
        answer = one_more()
        if answer.status_code != 201:  # where a busy machine was late, or too late
            break
    assert (answer.status_code, answer.json()["code"]) == (503, "uploads_busy")
    assert answer.headers["retry-after"] == "2"
    once_more = [0]

    def accepted() -> bool:
        once_more[0] = httpx.post(f"{kept.url}/v1/uploads", content=PNG, headers=OCTETS).status_code
        return once_more[0] == 201

    assert soon(accepted)


def test_given_no_place_for_uploads_then_it_is_said() -> None:
    with serving(app_of(**SETTINGS)) as url:
        answer = httpx.post(f"{url}/v1/uploads", content=PNG, headers=OCTETS)
    assert (answer.status_code, answer.json()["code"]) == (501, "not_configured")


def test_given_keys_then_one_without_the_scope_uploads_nothing(
    tmp_path: Path,
) -> None:
    [may, one], [may_not, other] = (
        new_key(name, scopes, 100)
        for name, scopes in (("may", ["upload"]), ("may-not", ["submit", "read"]))  # type: ignore[list-item]
    )
    write(tmp_path / "keys.json", [one, other])
    folder = tmp_path / "kept"
    where = {"upload_to": f"{folder.as_uri()}/", "api_keys": tmp_path / "keys.json"}
    with serving(app_of(**SETTINGS | where)) as url:
        for key, status in ((may, 201), (may_not, 403), ("cq_may_nonsense", 401)):
            headers = OCTETS | {"Authorization": f"Bearer {key}"}
            answer = httpx.post(f"{url}/v1/uploads", content=PNG, headers=headers)
            assert answer.status_code == status
    assert len(list(folder.iterdir())) == 1


def test_given_a_bucket_that_is_away_then_the_problem_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = {"upload_to": "s3://photos/", "s3_endpoint_url": "http://127.0.0.1:9"}
    with serving(app_of(**SETTINGS | away)) as url:
        answer = httpx.post(f"{url}/v1/uploads", content=PNG, headers=OCTETS, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert "127.0.0.1:9" not in answer.text


@dataclass
class Sink(Place):
    """Keeps nothing; takes its time, or fails, as it is told."""

    uri: str = "file:///nowhere/"
    fails: bool = False
    hold: threading.Event = field(default_factory=threading.Event)
    log: list[str] = field(default_factory=list)

    def begin(self, name: str, media_type: str) -> Writing:
        return _Counted(self)


class _Counted(Writing):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def _write(self, part: bytes) -> None:
        assert len(part) == PART_BYTES
        self._sink.log.append("writing")
        self._sink.hold.wait(10)
        if self._sink.fails:
            raise StorageFailed("full")
        self._sink.log.append("written")

    def _finish(self, rest: bytes) -> None:
        assert len(rest) <= PART_BYTES
        self._sink.log.append("finished")

    def _abort(self) -> None:
        self._sink.log.append("aborted")


def request_of(chunks: AsyncIterator[bytes]) -> Request:
    async def receive() -> dict[str, Any]:
        chunk = await anext(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    headers = [(b"content-type", b"application/octet-stream")]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def of_size(size: int) -> AsyncIterator[bytes]:
    yield PNG
    for _ in range((size - len(PNG)) // 65_536):
        yield bytes(65_536)


def test_given_200_mb_then_no_more_than_two_parts_are_held_at_a_time() -> None:
    size = 200_000_000
    sink = Sink()
    sink.hold.set()
    taking = Uploads(GatewaySettings(max_upload_bytes=size), sink)
    tracemalloc.start()
    try:
        told = asyncio.run(taking.take(request_of(of_size(size))))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told.bytes > size - 100_000
    assert sink.log.count("written") == told.bytes // PART_BYTES
    assert sink.log[-1] == "finished"
    assert most < 2.5 * PART_BYTES


def test_given_a_disk_that_is_full_then_the_problem_says_so_and_what_was_written_is_undone() -> (
    None
):
    sink = Sink(fails=True)
    sink.hold.set()
    taking = Uploads(GatewaySettings(), sink)
    with pytest.raises(Problem) as said:
        asyncio.run(taking.take(request_of(of_size(2 * PART_BYTES))))
    assert (said.value.status, said.value.code) == (503, "storage_unavailable")
    assert sink.log == ["writing", "aborted"]
    assert taking.running == 0


def test_given_an_upload_that_is_cancelled_while_it_writes_then_it_is_undone_after_that() -> None:
    sink = Sink()
    taking = Uploads(GatewaySettings(), sink)

    async def cancelled() -> None:
        task = asyncio.create_task(taking.take(request_of(of_size(2 * PART_BYTES))))
        while not sink.log:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.05)
        assert sink.log == ["writing"]
        sink.hold.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert sink.log == ["writing", "written", "aborted"]
    assert taking.running == 0


def test_given_a_slow_disk_then_its_time_is_not_the_senders() -> None:
    sink = Sink()
    taking = Uploads(GatewaySettings(upload_timeout_s=0.2), sink)

    async def late() -> None:
        task = asyncio.create_task(taking.take(request_of(of_size(2 * PART_BYTES))))
        await asyncio.sleep(0.5)
        sink.hold.set()
        await task

    asyncio.run(late())
    assert sink.log[-1] == "finished"


def test_given_a_file_that_is_aborted_before_a_late_write_then_that_writes_nothing() -> None:
    sink = Sink()
    writing = sink.begin("a.png", "image/png")
    writing.abort()
    writing.write(bytes(PART_BYTES))
    writing.finish(b"")
    writing.abort()
    assert sink.log == ["aborted"]
