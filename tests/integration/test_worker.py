"""The house as a whole: real Redis, real S3, real HTTP, a real worker process."""

import base64
import json
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from PIL import Image
from rich.console import Console
from standardwebhooks import Webhook

from producer import CaptionJob, Client, ErrorCode, JobState, MatchJob
from producer.callback import Callback
from producer.contract import utcnow
from producer.event_rules import Rules
from producer.queues import DEFAULT_QUEUE
from producer.redis_store import RedisStore
from producer.s3_events import parse
from tests.event_shapes import SHAPES, Happened
from tests.house import PNG, SCENE, WHSEC, House, picture
from tests.servers import Reply
from worker import demo
from worker.training import scenes

RESULT_TIMEOUT_S = 60


@pytest.fixture
def celery_client(house: House) -> Iterator[Celery]:
    """Someone who knows Celery and our task names, but not `producer`."""
    app = Celery("theirs", broker=house.broker.url, backend=house.broker.url, set_as_current=False)
    yield app
    app.close()


def wait(job: Any, client: Client) -> Any:
    return client.result(client.submit(job).job_id, RESULT_TIMEOUT_S)


@pytest.mark.parametrize("scheme", ["http", "s3", "file"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_given_an_image_anywhere_when_it_is_captioned_the_words_are_right(
    house: House, scheme: str, kind: str
) -> None:
    data, scene = picture(7, kind)
    name = f"seven.{kind.lower()}"
    if scheme == "http":
        house.web.routes[f"/{name}"] = [Reply(200, data)]
        uri = house.web.url(f"/{name}")
    elif scheme == "s3":
        (house.bucket / name).write_bytes(data)
        uri = f"s3://photos/{name}"
    else:
        (house.files / name).write_bytes(data)
        uri = (house.files / name).as_uri()
    result = wait(CaptionJob(image=uri), house.client).raise_for_state()
    (caption,) = result.captions
    assert caption.text == scene.caption
    assert len(caption.tokens) == len(caption.token_logprobs)
    assert caption.logprob == pytest.approx(sum(caption.token_logprobs))
    assert result.image.format == kind
    assert (result.image.width, result.image.height) == (192, 192)
    assert result.image.bytes == len(data)
    assert (result.model.id, result.model.dtype) == ("bundled", "float32")
    assert result.timings.batch_size >= 1
    assert result.timings.queue_ms >= 0


@pytest.mark.parametrize("shape", ["aws", "eventbridge", "minio", "ceph"])
def test_given_an_event_on_an_object_with_any_key_then_that_very_object_is_captioned(
    shape: str, house: House
) -> None:
    data, scene = picture(7)
    key = f"in/{shape} b+ü%41#x?y=z&.png"
    (house.bucket / "in").mkdir(exist_ok=True)
    (house.bucket / key).write_bytes(data)
    (event,) = parse(SHAPES[shape](Happened("photos", key)))
    (job,) = Rules.of().jobs(event)

    (caption,) = wait(job, house.client).raise_for_state().captions

    assert caption.text == scene.caption


def test_given_a_true_and_a_false_text_the_match_tells_them_apart(house: House) -> None:
    false = scenes.change(SCENE, "colour", random.Random(0)).caption
    job = MatchJob(image=house.web.url("/ok.png"), texts=(SCENE.caption, false))
    yes, no = wait(job, house.client).raise_for_state().matches
    assert yes.itm_probability > 0.5 > no.itm_probability
    assert yes.itc_cosine > no.itc_cosine


def test_given_a_job_that_names_the_model_the_worker_that_has_it_takes_it(
    house: House, celery_client: Celery
) -> None:
    job = CaptionJob(image=house.web.url("/ok.png"), model="bundled")
    assert wait(job, house.client).raise_for_state().model.id == "bundled"
    sent = celery_client.send_task(
        "captionq.caption", kwargs={"job": {"image": job.image, "model": "bundled"}}
    )
    assert sent.get(timeout=RESULT_TIMEOUT_S)["model"]["id"] == "bundled"


def test_given_many_jobs_at_once_they_share_batches(house: House) -> None:
    jobs = [CaptionJob(image=house.web.url("/ok.png")) for _ in range(40)]
    handles = house.client.submit_many(jobs)
    results = list(house.client.as_completed(handles, RESULT_TIMEOUT_S))
    assert {result.job_id for result in results} == {handle.job_id for handle in handles}
    assert {result.state for result in results} == {JobState.SUCCEEDED}
    assert max(result.timings.batch_size for result in results) > 1


def test_given_a_bulk_backlog_then_interactive_jobs_overtake_it_and_all_of_it_is_done(
    house: House,
) -> None:
    (house.files / "ok.png").write_bytes(PNG)
    image = (house.files / "ok.png").as_uri()
    bulk = house.client.submit_many(CaptionJob(image=image, lane="bulk") for _ in range(400))
    quick = []
    for _ in range(5):
        submitted_at = utcnow()
        ended = wait(CaptionJob(image=image), house.client).raise_for_state()
        quick.append((submitted_at, ended.finished_at))
    results = list(house.client.as_completed(bulk, RESULT_TIMEOUT_S))
    assert {result.state for result in results} == {JobState.SUCCEEDED}
    assert len(results) == 400
    ends = sorted(result.finished_at for result in results)
    assert quick[-1][1] < ends[-1], "the backlog was gone too soon to say anything"
    # The batch that runs, bulk's turn, and what fills its own: 24; and those that are stored late.
    overtaken_by = [sum(begin < end < over for end in ends) for begin, over in quick]
    assert max(overtaken_by) <= 48, overtaken_by


def test_given_a_bulk_job_of_a_celery_client_then_it_waits_in_its_lane_and_brings_its_result(
    house: House, celery_client: Celery
) -> None:
    job = {"image": house.web.url("/ok.png"), "lane": "bulk"}
    sent = celery_client.send_task("captionq.caption", kwargs={"job": job})
    assert sent.get(timeout=RESULT_TIMEOUT_S)["state"] == "succeeded"
    assert f"job {sent.id} sent on to queue captionq.caption.bulk" in house.worker.log


def test_given_a_source_that_is_busy_twice_when_it_recovers_the_job_took_three_attempts(
    house: House,
) -> None:
    result = wait(CaptionJob(image=house.web.url("/busy.png")), house.client)
    assert result.state is JobState.SUCCEEDED
    assert result.attempts == 3
    assert house.web.hits("/busy.png") == 3


def test_given_a_source_that_has_no_such_image_one_attempt_is_enough(
    house: House,
) -> None:
    result = wait(CaptionJob(image=house.web.url("/gone.png")), house.client)
    assert (result.state, result.attempts) == (JobState.FAILED, 1)
    assert result.error.code is ErrorCode.HTTP_4XX
    assert house.web.hits("/gone.png") == 1


def test_given_a_damaged_image_it_fails_typed_and_stops_nothing(house: House) -> None:
    result = wait(CaptionJob(image=house.web.url("/damaged.png")), house.client)
    assert result.error.code is ErrorCode.IMAGE_CORRUPT
    assert wait(CaptionJob(image=house.web.url("/ok.png")), house.client).raise_for_state()


def test_given_regions_of_one_image_each_is_captioned_in_order_from_one_fetch(
    house: House,
) -> None:
    rng = random.Random("regions")
    drawn = [scenes.sample(rng, shapes=1) for _ in range(3)]
    sheet = Image.new("RGB", (400, 100), "white")
    boxes = ((0, 0, 100, 100), (300, 0, 400, 100), (150, 0, 250, 100))
    for box, scene in zip(boxes, drawn, strict=True):
        sheet.paste(scenes.draw(scene, side=100), box[:2])
    out = BytesIO()
    sheet.save(out, "PNG")
    house.web.routes["/sheet.png"] = [Reply(200, out.getvalue())]
    job = CaptionJob(image=house.web.url("/sheet.png"), mode="native", regions=boxes)
    result = wait(job, house.client).raise_for_state()
    assert result.captions is None
    assert [(region.box, region.captions[0].text) for region in result.regions] == [
        (box, scene.caption) for box, scene in zip(boxes, drawn, strict=True)
    ]
    assert result.timings.batch_size >= 3
    assert house.web.hits("/sheet.png") == 1

    outside = job.model_copy(update={"regions": ((0, 0, 9, 9), (0, 0, 401, 100))})
    result = wait(outside, house.client)
    assert (result.error.code, result.attempts) == (ErrorCode.JOB_INVALID, 1)
    assert "region 0,0,401,100 leaves the image of 400x100 pixels" in result.error.message


@pytest.mark.parametrize("mode", ["pad", "crop", "native"])
def test_given_a_mode_and_a_resolution_a_square_image_is_captioned_all_the_same(
    house: House, mode: str
) -> None:
    job = CaptionJob(image=house.web.url("/ok.png"), mode=mode, resolution=96)
    assert wait(job, house.client).raise_for_state().captions[0].text == SCENE.caption


def test_given_a_resolution_the_model_cannot_take_the_job_says_what_it_can(house: House) -> None:
    result = wait(CaptionJob(image=house.web.url("/ok.png"), resolution=100), house.client)
    assert (result.error.code, result.attempts) == (ErrorCode.JOB_INVALID, 1)
    assert "a multiple of the patch size, 12, not 100" in result.error.message


def test_given_a_text_longer_than_the_model_takes_the_job_is_invalid_at_once(
    house: House,
) -> None:
    job = MatchJob(image=house.web.url("/ok.png"), texts=("a " * 400,))
    result = wait(job, house.client)
    assert result.error.code is ErrorCode.JOB_INVALID
    assert result.attempts == 1


def test_given_a_file_outside_the_root_it_is_refused(house: House, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    result = wait(CaptionJob(image=(tmp_path / "secret.png").as_uri()), house.client)
    assert result.error.code is ErrorCode.FILE_NOT_ALLOWED


def test_given_a_plain_celery_client_its_async_result_is_the_result(
    house: House, celery_client: Celery
) -> None:
    job = {"image": house.web.url("/ok.png")}
    sent = celery_client.send_task("captionq.caption", kwargs={"job": job})
    result = sent.get(timeout=RESULT_TIMEOUT_S)
    assert result["job_id"] == sent.id
    assert result["captions"][0]["text"] == SCENE.caption
    assert house.client.result(sent.id).captions[0].text == SCENE.caption, "and it is in the store"


def test_given_a_plain_celery_client_its_failed_job_raises_code_and_public_text(
    house: House, celery_client: Celery
) -> None:
    job = {"image": house.web.url("/missing.png")}
    sent = celery_client.send_task("captionq.caption", kwargs={"job": job})
    with pytest.raises(Exception, match="http_4xx") as failure:
        sent.get(timeout=RESULT_TIMEOUT_S)
    assert type(failure.value).__name__ == "JobFailed"
    assert "refused the request" in str(failure.value)
    assert "127.0.0.1" not in str(failure.value)


def test_given_a_plain_celery_clients_cancelled_job_it_raises_too(
    house: House, celery_client: Celery
) -> None:
    job_id = uuid.uuid4().hex
    job = {"image": house.web.url("/ok.png"), "job_id": job_id}
    house.client._store.create(CaptionJob(**job))
    house.client.cancel(job_id)
    sent = celery_client.send_task("captionq.caption", kwargs={"job": job}, task_id=job_id)
    with pytest.raises(Exception, match="job_cancelled"):
        sent.get(timeout=RESULT_TIMEOUT_S)


def test_given_a_job_that_was_revoked_as_flower_does_those_who_wait_learn_of_it(
    house: House, celery_client: Celery
) -> None:
    job_id = uuid.uuid4().hex
    assert celery_client.control.revoke(job_id, reply=True, timeout=10, limit=1)
    result = wait(CaptionJob(image=house.web.url("/ok.png"), job_id=job_id), house.client)
    assert (result.state, result.attempts) == (JobState.CANCELLED, 0)
    assert result.error.code is ErrorCode.JOB_CANCELLED


def test_given_a_message_past_its_expires_its_job_ends_as_expired(
    house: House, celery_client: Celery
) -> None:
    job = {"image": house.web.url("/ok.png")}
    sent = celery_client.send_task("captionq.caption", kwargs={"job": job}, expires=-1)
    with pytest.raises(TaskRevokedError):
        sent.get(timeout=RESULT_TIMEOUT_S)
    assert next(house.client.as_completed([sent.id], RESULT_TIMEOUT_S)).error.code is (
        ErrorCode.JOB_EXPIRED
    )


@pytest.mark.parametrize("positional", [True, False], ids=["positional", "keyword"])
def test_given_a_celery_client_of_another_language_its_job_is_served(
    house: House, positional: bool
) -> None:
    """The message is written byte by byte as the Celery message protocol 2 says."""
    task_id = str(uuid.uuid4())
    job = {"image": house.web.url("/ok.png"), "texts": [SCENE.caption]}
    call = [[job], {}] if positional else [[], {"job": job}]
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    message = {
        "body": base64.b64encode(json.dumps([*call, embed]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "go", "task": "captionq.match", "id": task_id, "root_id": task_id},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": DEFAULT_QUEUE},
            "body_encoding": "base64",
        },
    }
    with redis.Redis.from_url(house.broker.url, decode_responses=True) as connection:
        connection.lpush(DEFAULT_QUEUE, json.dumps(message))
        deadline_s = time.monotonic() + RESULT_TIMEOUT_S
        while not (stored := connection.get(f"celery-task-meta-{task_id}")) or (
            json.loads(stored)["status"] == "STARTED"
        ):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    meta = json.loads(stored)
    assert meta["status"] == "SUCCESS"
    assert meta["result"]["matches"][0]["itm_probability"] > 0.5


def test_given_images_of_ones_own_the_demo_captions_and_matches_them(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "my cat[1].png").write_bytes(PNG)
    images = [str(tmp_path / "my cat[1].png"), house.web.url("/missing.png?token=secret")]
    mine, missing = demo._run_jobs(house.client, demo._own(images, house.files), Console())
    assert mine.caption.captions[0].text == SCENE.caption
    assert mine.match.matches[0].text == SCENE.caption
    assert mine.match.matches[0].itm_probability > 0.5 > mine.match.matches[1].itm_probability
    assert demo._as_expected(mine)
    assert missing.match is None
    assert not demo._as_expected(missing)
    console = Console(width=demo.WIDTH)
    with console.capture() as capture:
        console.print(demo._table([mine, missing]))
    assert "file my cat[1].png" in capture.get()
    assert "secret" not in capture.get()


def test_given_the_command_line_when_a_file_is_submitted_its_caption_is_printed(
    house: House,
) -> None:
    (house.files / "cli.png").write_bytes(PNG)
    command = [sys.executable, "-m", "producer.cli", "submit", "--wait", "--json"]
    done = subprocess.run(
        [*command, str(house.files / "cli.png"), house.web.url("/missing.png")],
        env=house.environment | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    by_state = {document["state"]: document for document in documents}
    assert by_state["succeeded"]["captions"][0]["text"] == SCENE.caption
    assert by_state["failed"]["error"]["code"] == "http_4xx"


def test_given_a_worker_that_takes_work_then_it_says_so_and_what_it_serves(house: House) -> None:
    with closing(RedisStore(house.broker.url)) as store:
        (worker,) = store.workers()

    assert (worker.name, worker.pid) == ("test@localhost", house.worker.process.pid)
    assert set(worker.models) == {"caption", "match"}
    assert {"en", "de"} <= set(worker.languages)
    assert worker.packs
    assert {"celery", "captionq.caption", "captionq.match.bulk"} <= set(worker.queues)


def test_given_jobs_with_callbacks_then_their_receiver_is_told_of_every_end_whoever_sent_them(
    house: House, celery_client: Celery
) -> None:
    told = Callback(url=house.web.url("/told"))
    ok, gone = house.web.url("/ok.png"), house.web.url("/missing.png")
    expected = {
        house.client.submit(CaptionJob(image=ok, callback=told)).job_id: "job.succeeded",
        house.client.submit(CaptionJob(image=gone, callback=told)).job_id: "job.failed",
    }
    for image, kind in ((ok, "job.succeeded"), (gone, "job.failed"), ("no URI", "job.failed")):
        sent = {"image": image, "callback": told.model_dump()}
        expected[celery_client.send_task("captionq.caption", [sent]).id] = kind
    revoked = celery_client.send_task(
        "captionq.caption", [{"image": ok, "callback": told.model_dump()}], expires=-1
    )
    expected[revoked.id] = "job.failed"

    deadline_s = time.monotonic() + RESULT_TIMEOUT_S
    while house.web.hits("/told") < len(expected) and time.monotonic() < deadline_s:
        time.sleep(0.05)

    seen = [one for one in house.web.requests if one.path == "/told"]
    said = [Webhook(WHSEC).verify(one.body, dict(one.headers)) for one in seen]
    assert {one["data"]["job_id"]: one["type"] for one in said} == expected
    assert len(said) == len(expected)
