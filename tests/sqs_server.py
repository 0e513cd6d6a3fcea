"""moto's server in a process of its own: SQS and S3 that send events to it, on 127.0.0.1."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from typing import Any, Self

import boto3

START_S = 30
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class MotoServer:
    """While its block lasts; what it holds is in its memory alone."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | CREDENTIALS,
        )
        deadline_s = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise RuntimeError("moto's server did not start")
            time.sleep(0.05)

    def client(self, service: str) -> Any:
        named = {name.lower(): value for name, value in CREDENTIALS.items()}
        region = named.pop("aws_default_region")
        return boto3.session.Session().client(
            service, endpoint_url=self.url, region_name=region, **named
        )

    def queue(self, name: str, **attributes: str) -> "Queue":
        sqs = self.client("sqs")
        return Queue(sqs, sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Queue:
    """A queue as a test sees it."""

    def __init__(self, sqs: Any, url: str) -> None:
        self._sqs = sqs
        self.url = url

    @property
    def arn(self) -> str:
        return self._attributes()["QueueArn"]

    def send(self, *bodies: str) -> None:
        for begin in range(0, len(bodies), 10):
            entries = [
                {"Id": str(place), "MessageBody": body}
                for place, body in enumerate(bodies[begin : begin + 10])
            ]
            answer = self._sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert not answer.get("Failed")

    def counts(self) -> tuple[int, int]:
        """Messages that wait, and those that somebody has in hand."""
        found = self._attributes()
        waiting = int(found["ApproximateNumberOfMessages"])
        return waiting, int(found["ApproximateNumberOfMessagesNotVisible"])

    def bodies(self) -> list[str]:
        """Up to ten that wait, which are not there for others for a while."""
        found = self._sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        return [one["Body"] for one in found.get("Messages", ())]

    def _attributes(self) -> dict[str, str]:
        answer = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        found: dict[str, str] = answer["Attributes"]
        return found
