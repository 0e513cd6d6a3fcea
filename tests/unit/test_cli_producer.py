"""The command `captionq`: what it prints, and with which code it ends."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import redis
from click.testing import Result
from typer.testing import CliRunner

from producer import cli, exits
from producer.client import Client, JobHandle
from producer.contract import (
    Caption,
    CaptionJob,
    ErrorCode,
    Job,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    RegionCaptions,
    utcnow,
)
from producer.embedded import EmbeddedUnavailable, RedisServer
from producer.signing import Keys, Verifier
from producer.upload import Uploader, UploadFailed, key_for, local_path
from producer.words import REFUSED, outcome
from tests.stand_in_model import caption, match, vector
from tests.stand_in_worker import StandInWorker, messages, succeeded
from worker.embedded_s3 import S3Server

Captionq = Callable[..., Result]
IMAGE = "https://example.com/cat.jpg"


@pytest.fixture
def captionq(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Captionq:
    """Run the command against the test's Redis."""
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", redis_server.url)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(cli.app, words)


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def documents(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_submitting_prints_an_id_for_each_image(captionq: Captionq, broker: redis.Redis) -> None:
    result = captionq("submit", IMAGE, "s3://photos/dog.jpg")

    sent = messages(broker, "captionq.caption")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{sent[0]['headers']['id']}  {IMAGE}",
        f"{sent[1]['headers']['id']}  s3://photos/dog.jpg",
    ]


def test_options_reach_the_job(captionq: Captionq, broker: redis.Redis) -> None:
    captionq("submit", IMAGE, "--beams", "5", "--prompt", "a picture of", "--model", "org/blip")

    (message,) = messages(broker, "captionq.caption.org-blip")
    assert message["kwargs"]["job"]["options"]["num_beams"] == 5
    assert message["kwargs"]["job"]["options"]["prompt"] == "a picture of"


def test_the_lane_reaches_the_job_and_chooses_its_queue(
    captionq: Captionq, broker: redis.Redis
) -> None:
    captionq("submit", IMAGE, "--lane", "bulk")
    captionq("submit", IMAGE, "--task", "match", "--text", "a", "--lane", "interactive")

    (message,) = messages(broker, "captionq.caption.bulk")
    assert message["kwargs"]["job"]["lane"] == "bulk"
    assert captionq("status", message["headers"]["id"]).exit_code == 0
    (message,) = messages(broker, "captionq.match")
    assert message["kwargs"]["job"]["lane"] == "interactive"
    assert captionq("submit", IMAGE, "--lane", "fast").exit_code == 2


def test_how_the_image_is_seen_reaches_the_job(captionq: Captionq, broker: redis.Redis) -> None:
    regions = ("--region", "0,0,10,20", "--region", "5,5,6,6")
    captionq("submit", IMAGE, "--mode", "native", "--resolution", "576", *regions)
    captionq("submit", IMAGE, "--task", "match", "--text", "a", "--mode", "pad")

    (message,) = messages(broker, "captionq.caption")
    job = message["kwargs"]["job"]
    assert (job["mode"], job["resolution"]) == ("native", 576)
    assert job["regions"] == [[0, 0, 10, 20], [5, 5, 6, 6]]
    (message,) = messages(broker, "captionq.match")
    assert message["kwargs"]["job"]["mode"] == "pad"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--region", "0,0,10"), "a region is left,top,right,bottom in pixels, not '0,0,10'"),
        (("--region", "9,0,9,9"), "a region is [left, top, right, bottom]"),
        (("--resolution", "0"), "resolution: Input should be greater than or equal to 1"),
        (("--region", "0,0,1,1") * 65, "regions: Tuple should have at most 64 items"),
        (("--task", "match", "--text", "a", "--region", "0,0,1,1"), "--region is for captions"),
    ],
)
def test_a_framing_that_cannot_be_is_wrong_usage(
    captionq: Captionq, words: tuple[str, ...], sentence: str
) -> None:
    result = captionq("submit", IMAGE, *words)

    assert result.exit_code == 2
    assert sentence in result.stderr


def test_waiting_prints_each_regions_best_caption(
    captionq: Captionq, redis_server: RedisServer
) -> None:
    with StandInWorker(redis_server.url):
        words = ("--region", "0,0,10,20", "--region", "5,5,6,6", "--wait")
        result = captionq("submit", IMAGE, *words)

    said = f"a picture of {IMAGE}"
    assert result.stdout == f"{IMAGE}: 0,0,10,20: {said} | 5,5,6,6: {said}\n"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"captions": (("bad", True),), "abstained": True}, REFUSED),
        ({"captions": (("good", False), ("bad", True)), "abstained": False}, "good"),
        (
            {"regions": ((("good", False), ("bad", True)), (("bad", True),)), "abstained": False},
            f"0,0,9,9: good | 0,0,9,9: {REFUSED}",
        ),
        ({"counts": {"http_4xx": 2}, "ranking": ()}, "2 http_4xx"),
    ],
)
def test_what_a_filter_refused_is_not_told_as_a_caption_and_no_result_is_told_as_nothing(
    said: dict[str, Any], words: str
) -> None:
    def captions(given: Any) -> tuple[Caption, ...]:
        return tuple(
            caption(text).model_copy(update={"rejected": rejected}) for text, rejected in given
        )

    if "captions" in said:
        said = said | {"captions": captions(said["captions"])}
    if "regions" in said:
        regions = [RegionCaptions(box=(0, 0, 9, 9), captions=captions(r)) for r in said["regions"]]
        said = said | {"regions": tuple(regions)}
    state = JobState.SUCCEEDED
    result = JobResult(
        job_id="1", task="caption", state=state, attempts=1, finished_at=utcnow(), **said
    )
    assert outcome(result) == words


def test_samples_are_asked_for_without_a_search(captionq: Captionq, broker: redis.Redis) -> None:
    words = ["--sample", "--seed", "7", "-n", "5", "--max-tokens", "9"]
    assert captionq("submit", IMAGE, *words).exit_code == 0

    (message,) = messages(broker, "captionq.caption")
    options = message["kwargs"]["job"]["options"]
    assert (options["do_sample"], options["num_beams"], options["seed"]) == (True, 1, 7)
    assert (options["num_return_sequences"], options["max_new_tokens"]) == (5, 9)


def test_a_seed_without_samples_is_refused(captionq: Captionq) -> None:
    result = captionq("submit", IMAGE, "--seed", "7")
    assert result.exit_code == 2
    assert "seed needs do_sample" in result.stderr


def test_a_local_file_travels_as_a_file_uri(
    captionq: Captionq, broker: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a cät#1.jpg").write_bytes(b"image")

    assert captionq("submit", "a cät#1.jpg").exit_code == 0

    (message,) = messages(broker, "captionq.caption")
    uri = message["kwargs"]["job"]["image"]
    assert uri.isascii()
    assert unquote(urlsplit(uri).path) == str(tmp_path / "a cät#1.jpg")


def test_waiting_prints_the_captions(captionq: Captionq, redis_server: RedisServer) -> None:
    with StandInWorker(redis_server.url):
        result = captionq("submit", IMAGE, "--wait")

    assert result.exit_code == 0
    assert result.stdout == f"{IMAGE}: a picture of {IMAGE}\n"


def test_waiting_prints_the_texts_that_fit_best_first(
    captionq: Captionq, redis_server: RedisServer
) -> None:
    with StandInWorker(redis_server.url):
        words = ("--task", "match", "--text", "a cat", "--text", "a dog", "--wait")
        result = captionq("submit", IMAGE, *words)

    cat, dog = (match(IMAGE, text).itm_probability for text in ("a cat", "a dog"))
    assert dog > cat
    assert result.stdout == f"{IMAGE}: {dog:.3f} a dog | {cat:.3f} a cat\n"


def test_texts_are_ranked_and_the_best_k_of_them_printed(
    captionq: Captionq, redis_server: RedisServer
) -> None:
    texts = [word for one in ("a cat", "a dog", "a car") for word in ("--text", one)]
    with StandInWorker(redis_server.url):
        result = captionq("submit", IMAGE, "--task", "rank", *texts, "-k", "2", "--wait")

    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    best = sorted(("a cat", "a dog", "a car"), key=lambda text: -match(IMAGE, text).score)
    assert [part.split(" ", 1)[1] for part in line.partition(": ")[2].split(" | ")] == best[:2]


def test_an_embedding_is_told_by_its_size_and_is_whole_as_json(
    captionq: Captionq, redis_server: RedisServer
) -> None:
    with StandInWorker(redis_server.url):
        result = captionq("submit", IMAGE, "--task", "embed", "--wait")
        as_json = captionq("submit", IMAGE, "--task", "embed", "--wait", "--json")

    assert result.stdout == f"{IMAGE}: 1 embedding of 256 numbers\n"
    (document,) = documents(as_json)
    (embedding,) = document["embeddings"]  # type: ignore[misc]
    assert tuple(embedding["vector"]) == vector(IMAGE)


def test_json_is_one_document_per_line_and_nothing_else(
    captionq: Captionq, redis_server: RedisServer
) -> None:
    queued = captionq("submit", IMAGE, IMAGE, "--json")
    with StandInWorker(redis_server.url):
        ended = captionq("submit", IMAGE, IMAGE, "--json", "--wait")

    assert [sorted(document) for document in documents(queued)] == [["image", "job_id"]] * 2
    assert [document["state"] for document in documents(ended)] == ["succeeded"] * 2
    assert all(JobResult.model_validate_json(line) for line in ended.stdout.splitlines())


def test_the_progress_bar_is_on_stderr_alone(redis_server: RedisServer) -> None:
    ours, terminal = os.openpty()
    command = [sys.executable, "-m", "producer.cli", "submit", IMAGE, "--wait", "--json"]
    environment = {**os.environ, "CAPTIONQ_BROKER_URL": redis_server.url, "TERM": "xterm"}

    with StandInWorker(redis_server.url):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, env=environment)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(terminal)

    assert json.loads(done.stdout)["state"] == "succeeded"
    assert "Captioning" in shown


def test_a_reader_that_goes_away_is_no_fault(redis_server: RedisServer) -> None:
    command = f"{sys.executable} -m producer.cli submit {IMAGE} {IMAGE} {IMAGE} | true"
    environment = {**os.environ, "CAPTIONQ_BROKER_URL": redis_server.url}

    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)

    assert done.stderr == ""


def test_a_job_that_fails_is_printed_and_ends_with_1(
    captionq: Captionq, redis_server: RedisServer
) -> None:
    def fail(job: Job) -> JobResult:
        error = JobError.of(JobFailed(ErrorCode.JOB_CANCELLED))
        update = {"state": JobState.CANCELLED, "captions": None, "error": error}
        return succeeded(job).model_copy(update=update)

    with StandInWorker(redis_server.url, fail):
        result = captionq("submit", IMAGE, "--wait")

    assert result.exit_code == 1
    assert result.stdout == f"{IMAGE}: job_cancelled: The job was cancelled.\n"


def test_given_a_file_outside_the_workers_folder_people_are_told_what_to_set(
    captionq: Captionq, redis_server: RedisServer
) -> None:
    def refuse(job: Job) -> JobResult:
        error = JobError.of(JobFailed(ErrorCode.FILE_NOT_ALLOWED))
        update = {"state": JobState.FAILED, "captions": None, "error": error}
        return succeeded(job).model_copy(update=update)

    with StandInWorker(redis_server.url, refuse):
        told = captionq("submit", "file:///srv/cat.jpg", "--wait")
        as_json = captionq("submit", "file:///srv/cat.jpg", "--wait", "--json")

    assert (told.exit_code, as_json.exit_code) == (1, 1)
    assert "under its CAPTIONQ_FILE_ROOT; or set CAPTIONQ_UPLOAD_URL" in told.stdout
    assert "CAPTIONQ" not in as_json.output


def test_a_time_out_ends_with_4_and_says_what_to_look_at(captionq: Captionq) -> None:
    result = captionq("submit", IMAGE, "--wait", "--timeout", "0.1")

    assert result.exit_code == 4
    assert result.stdout == ""
    assert "captionq: 1 job has not ended within 0.1 s. Is a worker running?" in result.stderr


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize(
    ("cut_short", "code"), [(TimeoutError("Too late."), 4), (KeyboardInterrupt(), 130)]
)
def test_given_a_wait_cut_short_the_ids_that_have_not_ended_are_on_stderr(
    captionq: Captionq,
    broker: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    cut_short: BaseException,
    code: int,
    as_json: list[str],
) -> None:
    def one_and_no_more(
        _: Client, handles: list[JobHandle], timeout_s: float
    ) -> Iterator[JobResult]:
        yield succeeded(CaptionJob(job_id=handles[0].job_id, image=IMAGE))
        raise cut_short

    monkeypatch.setattr(Client, "as_completed", one_and_no_more)

    result = captionq("submit", IMAGE, "s3://photos/dog.jpg", "--wait", *as_json)

    ended, missing = (m["headers"]["id"] for m in messages(broker, "captionq.caption"))
    assert result.exit_code == code
    assert f"not ended: {missing}  s3://photos/dog.jpg\n" in result.stderr
    assert ended not in result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert not as_json or documents(result)[0]["job_id"] == ended


def test_the_way_of_a_job_can_be_followed(captionq: Captionq, redis_server: RedisServer) -> None:
    (queued,) = documents(captionq("submit", IMAGE, "--json"))
    job_id = str(queued["job_id"])

    assert captionq("status", job_id).stdout.startswith("queued since ")
    assert captionq("result", job_id).exit_code == 4
    with StandInWorker(redis_server.url):
        assert captionq("result", job_id, "--wait").stdout == f"a picture of {IMAGE}\n"
    assert captionq("status", job_id).stdout == f"succeeded: a picture of {IMAGE}\n"
    assert documents(captionq("status", job_id, "--json"))[0]["state"] == "succeeded"
    assert documents(captionq("result", job_id, "--json"))[0]["task"] == "caption"
    assert captionq("cancel", job_id).stdout == "succeeded\n"


def test_a_job_can_be_cancelled(captionq: Captionq) -> None:
    (queued,) = documents(captionq("submit", IMAGE, "--json"))
    job_id = str(queued["job_id"])

    assert captionq("cancel", job_id).stdout == "cancelled\n"
    ended = captionq("result", job_id)
    assert (ended.exit_code, ended.stdout) == (1, "job_cancelled: The job was cancelled.\n")


@pytest.mark.parametrize("command", ["status", "result", "cancel"])
def test_an_unknown_job_ends_with_5(captionq: Captionq, command: str) -> None:
    result = captionq(command, "never")

    assert result.exit_code == 5
    assert re.fullmatch(r"captionq: No job 'never' is known: .*\n", result.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ["submit", IMAGE],
        ["status", "never"],
        ["result", "never", "--wait"],
        ["cancel", "never"],
    ],
)
def test_a_broker_out_of_reach_ends_with_3_and_says_what_to_check(
    captionq: Captionq, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("CAPTIONQ_SUBMIT_TIMEOUT_S", "0.5")

    result = captionq(*words)

    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert "CAPTIONQ_BROKER_URL" in result.stderr


def test_given_no_broker_and_no_server_to_start_it_ends_with_3_and_says_what_to_do(
    captionq: Captionq, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none() -> str:
        raise EmbeddedUnavailable("There is no Redis server to start.")

    monkeypatch.delenv("CAPTIONQ_BROKER_URL")
    monkeypatch.setenv("CAPTIONQ_HOME", str(tmp_path))
    monkeypatch.setattr("producer.embedded.server_binary", none)
    told = captionq("status", "any")
    assert told.exit_code == 3
    assert told.stderr == "captionq: There is no Redis server to start.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["submit"], "Missing argument", id="no image"),
        pytest.param(["submit", "no-such.jpg"], "There is no file 'no-such.jpg'", id="no file"),
        pytest.param(["submit", "s3://photos"], "s3://bucket/key", id="no image URI"),
        pytest.param(["submit", IMAGE, "--beams", "99"], "--beams", id="too many beams"),
        pytest.param(["submit", IMAGE, "--task", "match"], "--text", id="nothing to match"),
        pytest.param(["submit", IMAGE, "--text", "a cat"], "--task match", id="no match asked for"),
        pytest.param(["submit", IMAGE, "--timeout", "-1"], "--timeout", id="a time before now"),
        pytest.param(["paint", IMAGE], "paint", id="no such command"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(
    captionq: Captionq, broker: redis.Redis, words: list[str], says: str
) -> None:
    result = captionq(*words)

    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert broker.dbsize() == 0


def test_a_wrong_setting_ends_with_2_and_names_it(
    captionq: Captionq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONQ_SUBMIT_TIMEOUT_S", "soon")

    result = captionq("submit", IMAGE)

    assert result.exit_code == 2
    assert "CAPTIONQ_SUBMIT_TIMEOUT_S" in result.stderr


def test_the_help_teaches(captionq: Captionq) -> None:
    assert "captionq submit cat.jpg --wait" in captionq("--help").stdout
    shown = captionq("submit", "--help").stdout
    assert "--beams 5 --prompt 'a picture of'" in shown
    assert "--task match --text 'a cat'" in shown
    assert "Exit codes: 0 all went well" in shown


def test_the_schema_and_the_version_need_no_broker(
    captionq: Captionq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONQ_BROKER_URL", "redis://127.0.0.1:1/0")

    assert "CaptionJob" in json.loads(captionq("schema").stdout)
    assert re.fullmatch(r"captionq.+\n", captionq("--version").stdout)


def test_a_file_is_uploaded_once_per_content_when_so_configured(
    captionq: Captionq, broker: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = tmp_path / "s3" / "photos"
    bucket.mkdir(parents=True)
    for name in ("one.JPG", "two.JPG"):
        (tmp_path / name).write_bytes(b"the same image")
    server = S3Server(tmp_path / "s3")
    try:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("CAPTIONQ_UPLOAD_URL", "s3://photos/in/")
        monkeypatch.setenv("CAPTIONQ_S3_ENDPOINT_URL", server.endpoint_url)
        result = captionq("submit", str(tmp_path / "one.JPG"), str(tmp_path / "two.JPG"), IMAGE)
        assert result.exit_code == 0, result.output

        with pytest.raises(UploadFailed, match="absent"):
            Uploader("s3://absent", server.endpoint_url).upload(tmp_path / "one.JPG")
    finally:
        server.stop()

    first, second, third = (
        message["kwargs"]["job"]["image"] for message in messages(broker, "captionq.caption")
    )
    assert first == second
    assert re.fullmatch(r"s3://photos/in/[0-9a-f]{64}\.jpg", first)
    assert (bucket / urlsplit(first).path.removeprefix("/")).read_bytes() == b"the same image"
    assert third == IMAGE


@pytest.mark.parametrize("prefix", ["", "/"])
def test_without_a_prefix_the_key_begins_with_the_hash(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "cat.png").write_bytes(b"")

    assert key_for(tmp_path / "cat.png", prefix).startswith("e3b0c442")


def test_a_uri_is_no_path_and_a_folder_is_no_file(tmp_path: Path) -> None:
    assert local_path("HTTPS://example.com/cat.jpg") is None
    with pytest.raises(ValueError, match="There is no file"):
        local_path(str(tmp_path))


def test_given_a_new_key_when_it_is_set_then_jobs_are_signed_with_it(
    captionq: Captionq, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = captionq("new-key", "2026a").stdout.strip()
    monkeypatch.setenv("CAPTIONQ_SIGNING_KEYS", key)
    assert captionq("submit", IMAGE).exit_code == 0
    (message,) = messages(broker, "captionq.caption")
    job = message["kwargs"]["job"]
    assert Verifier(Keys.parse(key)).verified("caption", job["job_id"], job) == job


def test_given_no_id_then_a_new_key_has_the_date_for_one_and_a_wrong_one_is_refused(
    captionq: Captionq,
) -> None:
    assert re.fullmatch(r"20\d{6}:[A-Za-z0-9+/]{43}=\n", captionq("new-key").stdout)
    refused = captionq("new-key", "a.b")
    assert (refused.exit_code, refused.stdout) == (exits.USAGE, "")
    assert "ID" in refused.stderr


def test_given_wrong_keys_then_that_is_said_without_them(
    captionq: Captionq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONQ_SIGNING_KEYS", "a:c2hvcnQ=")
    refused = captionq("submit", IMAGE)
    assert refused.exit_code == exits.USAGE
    assert "CAPTIONQ_SIGNING_KEYS" in refused.stderr
    assert "c2hvcnQ" not in refused.output
