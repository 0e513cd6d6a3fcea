"""S3Source against a real S3 server, and against one that misbehaves by script."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from tests.servers import Reply, ScriptedHttp, deadline
from tests.timing import least_s
from worker.embedded_s3 import S3Server
from worker.errors import ErrorCode, Fault
from worker.fetch import s3 as s3_module
from worker.fetch.s3 import S3Limits, S3Source

BODY = bytes(range(256)) * 40
LIMITS = S3Limits(connect_s=0.5, idle_s=0.5, max_bytes=20_000)
AWS_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%b</Code><Message>m</Message></Error>'
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3") / "root"
    with S3Server(folder) as server:
        for name, body in {
            "photos/cat.jpg": BODY,
            "photos/2026/a b+c#d?ü%.jpg": BODY,
            "photos/empty": b"",
            "photos/full": b"x" * 20_000,
            "photos/large": b"x" * 20_001,
            "private/cat.jpg": BODY,
        }.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(body)
        yield server


@pytest.fixture
def source() -> Iterator[Callable[..., S3Source]]:
    made = []

    def make(server: Any, limits: S3Limits = LIMITS, **options: Any) -> S3Source:
        if isinstance(server, S3Server):
            options.setdefault("access_key", server.access_key)
            options.setdefault("secret_key", server.secret_key)
            options.setdefault("endpoint_url", server.endpoint_url)
        else:
            options |= {"access_key": "key", "secret_key": "secret", "endpoint_url": server.url("")}
        made.append(S3Source(limits, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def outcome(source: S3Source, uri: str, within_s: float = 5) -> bytes | ErrorCode:
    try:
        return source.fetch(uri, deadline(within_s))
    except Fault as fault:
        return fault.code


# A real server


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("s3://photos/cat.jpg", BODY),
        ("s3://photos/2026/a%20b+c%23d%3F%C3%BC%25.jpg", BODY),
        ("s3://photos/2026/a%20b%2Bc%23d%3Fü%25.jpg", BODY),
        ("s3://photos/empty", b""),
        ("s3://photos/full", b"x" * 20_000),
        ("s3://photos/large", ErrorCode.BODY_TOO_LARGE),
        ("s3://photos/missing.jpg", ErrorCode.S3_NOT_FOUND),
        ("s3://missing/cat.jpg", ErrorCode.S3_NOT_FOUND),
        ("s3://photos/../private/cat.jpg", ErrorCode.URL_INVALID),
    ],
)
def test_given_a_real_s3_when_fetched_then_objects_come_whole_and_errors_are_typed(
    server: S3Server, source: Callable[..., S3Source], uri: str, wanted: bytes | ErrorCode
) -> None:
    assert outcome(source(server), uri) == wanted


@pytest.mark.parametrize(
    "wrong", [{"secret_key": "wrong"}, {"access_key": "unknown"}], ids=["secret", "access key"]
)
def test_given_wrong_credentials_when_fetched_then_it_is_denied(
    server: S3Server, source: Callable[..., S3Source], wrong: dict[str, str]
) -> None:
    assert outcome(source(server, **wrong), "s3://photos/cat.jpg") is ErrorCode.S3_DENIED


@pytest.mark.parametrize(
    ("allow", "uri", "passes"),
    [
        (None, "s3://private/cat.jpg", True),
        (["photos"], "s3://photos/cat.jpg", True),
        (["photos"], "s3://private/cat.jpg", False),
        (["photo"], "s3://photos/cat.jpg", False),
        (["photos/2026/"], "s3://photos/cat.jpg", False),
        (["photos/c"], "s3://photos/cat.jpg", True),
        (["private", "photos/c"], "s3://photos/cat.jpg", True),
        ([], "s3://photos/cat.jpg", False),
    ],
)
def test_given_an_allow_list_when_fetched_then_only_its_buckets_and_prefixes_are_read(
    server: S3Server,
    source: Callable[..., S3Source],
    allow: list[str] | None,
    uri: str,
    passes: bool,
) -> None:
    wanted = BODY if passes else ErrorCode.BUCKET_NOT_ALLOWED
    assert outcome(source(server, allow=allow), uri) == wanted


def test_given_no_credentials_anywhere_when_fetched_then_it_is_denied(
    server: S3Server, source: Callable[..., S3Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    bare = source(server, access_key=None, secret_key=None)
    assert outcome(bare, "s3://photos/cat.jpg") is ErrorCode.S3_DENIED


def test_given_the_folder_when_a_file_is_put_into_it_then_it_is_an_object_at_once(
    tmp_path: Path, source: Callable[..., S3Source]
) -> None:
    with S3Server(tmp_path, "mykey", "mysecret") as server:
        (tmp_path / "new").mkdir()
        http = source(server)
        for n in range(3):
            (tmp_path / "new" / f"{n}").write_bytes(BODY)
            assert outcome(http, f"s3://new/{n}") == BODY


# A server by script


@pytest.mark.parametrize(
    ("reply", "wanted", "requests"),
    [
        (Reply(200, BODY), BODY, 1),
        (Reply(200, BODY, chunked=True), BODY, 1),
        (Reply(200, BODY, truncate_at=100), ErrorCode.BODY_INCOMPLETE, 1),
        (Reply(200, b"x" * 20_001), ErrorCode.BODY_TOO_LARGE, 1),
        (Reply(200, b"x" * 20_001, chunked=True), ErrorCode.BODY_TOO_LARGE, 1),
        (Reply(403, AWS_ERROR % b"AccessDenied"), ErrorCode.S3_DENIED, 1),
        (Reply(400, AWS_ERROR % b"ExpiredToken"), ErrorCode.S3_DENIED, 1),
        (Reply(404, AWS_ERROR % b"NoSuchVersion"), ErrorCode.S3_NOT_FOUND, 1),
        (Reply(405, AWS_ERROR % b"MethodNotAllowed"), ErrorCode.S3_NOT_FOUND, 1),
        (Reply(501, AWS_ERROR % b"NotImplemented"), ErrorCode.S3_DENIED, 1),
        (Reply(503, AWS_ERROR % b"SlowDown"), ErrorCode.S3_UNAVAILABLE, 2),
        (Reply(500, b"not xml"), ErrorCode.S3_UNAVAILABLE, 2),
        (Reply(hang_up=True), ErrorCode.S3_UNAVAILABLE, 2),
    ],
    ids=lambda value: repr(value)[:70] if isinstance(value, Reply) else "",
)
def test_given_a_reply_when_fetched_then_it_is_a_body_or_one_code_after_bounded_tries(
    source: Callable[..., S3Source], reply: Reply, wanted: bytes | ErrorCode, requests: int
) -> None:
    with ScriptedHttp({"/photos/cat.jpg": [reply]}) as server:
        assert outcome(source(server), "s3://photos/cat.jpg") == wanted
        assert server.hits("/photos/cat.jpg") == requests


def test_given_a_failure_that_passes_when_fetched_then_the_second_try_succeeds(
    source: Callable[..., S3Source],
) -> None:
    replies = [Reply(503, AWS_ERROR % b"SlowDown"), Reply(200, BODY)]
    with ScriptedHttp({"/photos/cat.jpg": replies}) as server:
        assert outcome(source(server), "s3://photos/cat.jpg") == BODY


def test_given_a_version_when_fetched_then_it_is_asked_for_and_the_request_is_signed(
    source: Callable[..., S3Source],
) -> None:
    with ScriptedHttp({"/photos/cat.jpg": [Reply(200, BODY)]}) as server:
        assert outcome(source(server), "s3://photos/cat.jpg?versionId=v1.%2B") == BODY
        (seen,) = server.requests
        assert seen.path == "/photos/cat.jpg?versionId=v1.%2B"
        assert seen.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, BODY, delay_s=3),
        Reply(200, BODY, drip_s=0.05),
        Reply(200, BODY, {"X": "x" * 99}, drip_s=0.05),
    ],
    ids=["silence", "drip", "dripped head"],
)
def test_given_a_server_that_takes_its_time_when_fetched_then_the_deadline_ends_it(
    source: Callable[..., S3Source], reply: Reply
) -> None:
    with ScriptedHttp({"/photos/cat.jpg": [reply]}) as server:
        s3 = source(server, S3Limits(idle_s=2))

        def attempt() -> None:
            assert outcome(s3, "s3://photos/cat.jpg", 0.5) is ErrorCode.FETCH_TIMEOUT

        assert least_s(attempt, 1) < 1


@pytest.mark.parametrize(
    "slow",
    [
        Reply(200, BODY, drip_s=0.2),
        Reply(200, BODY, {"X": "x" * 999}, drip_s=0.2),
        Reply(200, BODY, chunked=True, drip_s=0.2),
        Reply(403, b"<Error>" * 99, drip_s=0.2),
        Reply(200, BODY, delay_s=9),
    ],
    ids=["body", "head", "chunks", "error", "silence"],
)
def test_given_one_thread_when_a_service_drips_past_the_deadline_then_the_thread_is_free_again(
    source: Callable[..., S3Source], slow: Reply
) -> None:
    routes = {"/photos/slow": [slow], "/photos/cat.jpg": [Reply(200, BODY)]}
    with ScriptedHttp(routes) as server:
        s3 = source(server, S3Limits(idle_s=2, max_connections=1))

        def attempt() -> None:
            for _ in range(2):
                assert outcome(s3, "s3://photos/slow", 0.4) is ErrorCode.FETCH_TIMEOUT

        assert least_s(attempt, 1.8) < 1.8
        assert outcome(s3, "s3://photos/cat.jpg", 3) == BODY


def test_given_many_objects_when_fetched_then_connections_are_kept(
    source: Callable[..., S3Source],
) -> None:
    replies = [Reply(200, BODY), Reply(404, AWS_ERROR % b"NoSuchKey"), Reply(200, BODY)]
    with ScriptedHttp({"/photos/cat.jpg": replies}) as server:
        s3 = source(server)
        wanted = [BODY, ErrorCode.S3_NOT_FOUND, BODY, BODY]
        assert [outcome(s3, "s3://photos/cat.jpg") for _ in wanted] == wanted
        assert len({seen.peer_port for seen in server.requests}) == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(200, BODY, {"Last-Modified": "never"}), ErrorCode.S3_UNAVAILABLE),
        (Reply(200, BODY, {"Content-Length": "ten"}), ErrorCode.S3_UNAVAILABLE),
        (Reply(200, BODY, {"x-amz-missing-meta": "ten"}), ErrorCode.S3_UNAVAILABLE),
        (Reply(403, b"<Error>" + b"<x>" * 200_000, chunked=True), ErrorCode.S3_DENIED),
        (Reply(403, b"\0" * 100), ErrorCode.S3_DENIED),
        (Reply(301, b"", {"x-amz-bucket-region": "no such region"}), ErrorCode.S3_UNAVAILABLE),
        (Reply(307, b"", {"Location": "http://169.254.169.254/"}), ErrorCode.S3_DENIED),
    ],
    ids=["time", "length", "number", "endless error", "no XML", "another region", "a redirect"],
)
def test_given_an_answer_that_botocore_stumbles_over_when_fetched_then_it_is_a_code_all_the_same(
    source: Callable[..., S3Source], reply: Reply, code: ErrorCode
) -> None:
    routes = {"/photos/odd": [reply], "/photos/cat.jpg": [Reply(200, BODY)]}
    with ScriptedHttp(routes) as server:
        s3 = source(server, S3Limits(max_bytes=20_000, max_connections=1))
        for _ in range(3):
            assert outcome(s3, "s3://photos/odd") is code
        assert outcome(s3, "s3://photos/cat.jpg") == BODY


@pytest.mark.parametrize(("payer", "header"), [("requester", "requester"), (None, None)])
def test_given_a_requester_who_pays_when_fetched_then_the_request_says_so(
    source: Callable[..., S3Source], payer: str | None, header: str | None
) -> None:
    with ScriptedHttp({"/photos/cat.jpg": [Reply(200, BODY)]}) as server:
        assert outcome(source(server, request_payer=payer), "s3://photos/cat.jpg") == BODY
        assert server.requests[0].headers.get("x-amz-request-payer") == header


def test_given_proxies_in_the_environment_when_fetched_then_they_are_not_used(
    source: Callable[..., S3Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with ScriptedHttp({"/photos/cat.jpg": [Reply(200, BODY)]}) as server:
        assert outcome(source(server), "s3://photos/cat.jpg") == BODY


PLANTED = ("AKIAPLANTED", "plantedSecret", "plantedToken", "plantedSignature")


def test_given_planted_credentials_when_everything_fails_then_they_are_told_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for name, value in zip(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), PLANTED, strict=False
    ):
        monkeypatch.setenv(name, value)
    echo = b"<Error><Code>%b</Code><Message>%b</Message><AWSAccessKeyId>%b</AWSAccessKeyId></Error>"
    told = " ".join(PLANTED).encode()
    error = echo % (b"Invalid", told, told)
    replies = [
        Reply(200, BODY),
        Reply(403, error),
        Reply(400, error),
        Reply(404, error),
        Reply(503, error),
        Reply(200, BODY, {"Content-Length": told.decode()}),
        Reply(200, BODY, {"Last-Modified": told.decode()}),
        Reply(200, BODY, {"Transfer-Encoding": told.decode()}),
        Reply(301, error, {"Location": "http://127.0.0.1:9/?" + told.decode()}),
        Reply(200, BODY, truncate_at=3),
        Reply(200, BODY, delay_s=9),
        Reply(hang_up=True),
    ]
    said = []
    with ScriptedHttp() as server:
        s3 = S3Source(S3Limits(idle_s=0.3), endpoint_url=server.url(""), allow=["photos"])
        for reply in replies:
            server.routes["/photos/cat.jpg"] = [reply]
            for uri in ("s3://photos/cat.jpg", "s3://photos/cat.jpg?X-Amz-Signature=" + PLANTED[3]):
                try:
                    s3.fetch(uri, deadline(2))
                except Fault as fault:
                    said += [repr(fault), *traceback.format_exception(fault)]
        sent = server.requests[0].headers
        s3.close()
    gone = S3Source(LIMITS, endpoint_url=server.url(""))
    with pytest.raises(Fault) as caught:
        gone.fetch("s3://photos/cat.jpg", deadline())
    gone.close()
    said += traceback.format_exception(caught.value)
    assert "AKIAPLANTED" in sent["authorization"]  # they were there to be told
    assert sent["x-amz-security-token"] == "plantedToken"
    assert len(said) > 20
    for secret in PLANTED:
        assert secret not in caplog.text
        assert secret not in " ".join(said)


def test_given_a_silent_server_when_fetched_then_the_idle_limit_ends_it(
    source: Callable[..., S3Source],
) -> None:
    with ScriptedHttp({"/photos/cat.jpg": [Reply(200, BODY, delay_s=3)]}) as server:
        s3 = source(server, S3Limits(idle_s=0.2, tries=1))
        assert outcome(s3, "s3://photos/cat.jpg") is ErrorCode.FETCH_TIMEOUT


def test_given_no_server_when_fetched_then_s3_is_unavailable(
    source: Callable[..., S3Source],
) -> None:
    with ScriptedHttp() as server:
        s3 = source(server)
    assert outcome(s3, "s3://photos/cat.jpg") is ErrorCode.S3_UNAVAILABLE


def test_given_the_exceptions_of_botocore_when_mapped_then_each_has_a_row() -> None:
    kinds = [
        kind
        for kind in vars(botocore.exceptions).values()
        if isinstance(kind, type) and issubclass(kind, botocore.exceptions.BotoCoreError)
    ]
    assert len(kinds) > 50
    for kind in kinds:
        assert any(issubclass(kind, row) for row, _ in s3_module._CODES)


# The embedded server's own end


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_given_a_server_when_stopped_then_its_process_has_ended(tmp_path: Path) -> None:
    server = S3Server(tmp_path)
    server.stop()
    assert gone(server.pid)
    server.stop()


def test_given_a_server_when_its_starter_is_killed_then_it_ends_too(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from worker.embedded_s3 import S3Server\n"
        "print(S3Server(Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert not gone(pid)
        starter.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while not gone(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert gone(pid)


def test_given_a_process_that_can_start_no_thread_when_fetched_then_it_is_overloaded_for_now(
    source: Callable[..., S3Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with ScriptedHttp({"/photos/cat.jpg": [Reply(200, BODY)]}) as server:
        s3 = source(server)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none_left)
            assert outcome(s3, "s3://photos/cat.jpg", 3) is ErrorCode.WORKER_OVERLOADED
        assert outcome(s3, "s3://photos/cat.jpg", 3) == BODY
