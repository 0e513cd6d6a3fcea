"""A whole house for tests: Redis, S3, HTTP and a worker, all real, and a client."""

import base64
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from producer import Client
from producer.embedded import RedisServer
from producer.redis_at import MASTER
from producer.settings import ProducerSettings
from tests.servers import Reply, ScriptedHttp
from tests.worker_process import WorkerProcess
from worker.embedded_s3 import S3Server
from worker.training import scenes


def picture(seed: int, kind: str = "PNG") -> tuple[bytes, scenes.Scene]:
    """A drawn scene as an image file, and what is true of it."""
    scene = scenes.sample(random.Random(seed), shapes=1)
    out = BytesIO()
    scenes.draw(scene, side=192).save(out, kind)
    return out.getvalue(), scene


PNG, SCENE = picture(1)
WHSEC = "whsec_" + base64.b64encode(b"a secret of the house, of 32 byte").decode()


@dataclass(frozen=True)
class House:
    """`files` is what the worker may read by file://, `bucket` the folder of s3://photos. It may
    write to `maps` and s3://photos/maps/, and send callbacks to `hook_port`, where nobody listens
    yet."""

    broker: RedisServer
    web: ScriptedHttp
    files: Path
    maps: Path
    bucket: Path
    environment: dict[str, str]
    worker: WorkerProcess
    client: Client
    hook_port: int


@contextmanager
def open_house(folder: Path, server: RedisServer | None = None, **settings: str) -> Iterator[House]:
    """A house whose data lies in `folder`, until the block ends. `server` is its Redis, not started
    yet, in place of a plain one. `settings` are further ones of the worker, by their variables."""
    files, maps, bucket = folder / "files", folder / "maps", folder / "s3" / "photos"
    files.mkdir()
    maps.mkdir()
    bucket.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        hook_port: int = free.getsockname()[1]
    routes = {
        "/ok.png": [Reply(200, PNG)],
        "/busy.png": [Reply(503), Reply(503), Reply(200, PNG)],
        "/missing.png": [Reply(404)],
        "/damaged.png": [Reply(200, PNG[: len(PNG) // 2])],
        "/told": [Reply(204)],
    }
    with (
        server or RedisServer(folder / "redis") as broker,
        S3Server(folder / "s3") as s3,
        ScriptedHttp(routes) as web,
    ):
        environment = {
            "CAPTIONQ_BROKER_URL": broker.url,
            "CAPTIONQ_FILE_ROOT": str(files),
            "CAPTIONQ_FETCH_ALLOW": f"127.0.0.1/32:{web.port}",
            "CAPTIONQ_S3_ENDPOINT_URL": s3.endpoint_url,
            "CAPTIONQ_SINK_ALLOW": f"{maps.as_uri()}/,s3://photos/maps/",
            "CAPTIONQ_CALLBACK_SECRETS": f"default:{WHSEC}",
            "CAPTIONQ_CALLBACK_ALLOW": f"127.0.0.1/32:{web.port},127.0.0.1/32:{hook_port}",
            "CAPTIONQ_CALLBACK_HTTP": "true",
            "CAPTIONQ_MAX_BATCH": "8",
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            **settings,
        }
        with (
            WorkerProcess(folder / "worker.log", environment) as worker,
            Client(
                environment["CAPTIONQ_BROKER_URL"],
                environment.get("CAPTIONQ_RESULTS_URL"),
                settings=ProducerSettings(
                    sentinel_master=environment.get("CAPTIONQ_SENTINEL_MASTER", MASTER),
                    rabbitmq_queues=environment.get("CAPTIONQ_RABBITMQ_QUEUES", "classic"),
                ),
            ) as client,
        ):
            yield House(broker, web, files, maps, bucket, environment, worker, client, hook_port)
