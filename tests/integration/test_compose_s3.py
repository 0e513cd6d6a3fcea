"""The S3 server and the listener of docker/compose.s3.yaml, by their own words, without Docker."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis
from botocore.config import Config

from producer.embedded import RedisServer
from tests.dockerfiles import ROOT
from tests.house import PNG
from tests.stand_in_worker import messages
from tests.unit.deploy.conftest import composed
from worker.bench.processes import free_port

START_S = 20


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Where this test has what containers have at fixed places."""
    port = str(free_port())
    return {"/srv/uploads": str(tmp_path), "/data": str(tmp_path), "9000": port}


def said(words: list[str], places: dict[str, str]) -> list[str]:
    for place, here in places.items():
        words = [word.replace(place, here) for word in words]
    return words


@pytest.fixture
def s3(places: dict[str, str]) -> Iterator[Any]:
    """A client of the server, which has been found healthy as Docker would find it."""
    services = composed("s3")["services"]
    setup, server = services["s3-setup"], services["s3"]
    subprocess.run(said([*setup["entrypoint"], *setup["command"]], places), check=True)
    rclone = shutil.which("rclone", path=sysconfig.get_path("scripts"))
    assert rclone is not None
    environment = {name: str(value) for name, value in server["environment"].items()}
    endpoint = f"http://127.0.0.1:{places['9000']}"
    environment["RCLONE_S3_ENDPOINT"] = endpoint
    environment["RCLONE_CACHE_DIR"] = places["/data"] + "/.cache"
    environment["PATH"] = os.environ["PATH"]
    (address,) = (word for word in server["command"] if word.startswith("--addr="))
    assert address == "--addr=:9000"
    command = [rclone, *said(server["command"], places)]
    command[command.index(f"--addr=:{places['9000']}")] = f"--addr=127.0.0.1:{places['9000']}"
    asked, tool, *rest = server["healthcheck"]["test"]
    assert (asked, tool) == ("CMD", "rclone")
    process = subprocess.Popen(command, env=environment)
    try:
        deadline_s = time.monotonic() + START_S
        while subprocess.run([rclone, *rest], env=environment, capture_output=True).returncode:
            assert time.monotonic() < deadline_s
        worker = services["worker"]["environment"]
        yield boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name=worker["AWS_DEFAULT_REGION"],
            aws_access_key_id=worker["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=worker["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"max_attempts": 1}),
        )
    finally:
        process.terminate()
        process.wait(20)


def test_given_an_upload_to_the_bucket_its_file_is_a_job(s3: Any, places: dict[str, str]) -> None:
    listener = composed("s3")["services"]["listener"]
    assert "profiles" not in listener
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == {
        *("photos", "uploads", "shards")
    }
    with RedisServer() as broker, redis.Redis.from_url(broker.url) as client:
        command = [sys.executable, "-m", "producer.cli", *said(listener["command"], places)]
        environment = os.environ | {"CAPTIONQ_BROKER_URL": broker.url, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, env=environment)
        try:
            s3.put_object(Bucket="photos", Key="in/cat.png", Body=PNG)
            deadline_s = time.monotonic() + START_S
            while not (jobs := messages(client, "captionq.caption.bulk")):
                assert time.monotonic() < deadline_s
                assert process.poll() is None
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait(20)
    (job,) = (one["kwargs"]["job"] for one in jobs)
    assert job["image"] == f"file://{places['/srv/uploads']}/photos/in/cat.png"
