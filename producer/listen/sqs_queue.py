"""A queue of Amazon SQS, or of a service that speaks its protocol, for asyncio."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from producer.upload import aws_client

T = TypeVar("T")

SCHEME = "sqs://"
BATCH = 10
"""Messages of one call, SQS' own limit."""

LONG_POLL_S = 20


class QueueUnavailable(OSError):  # noqa: N818 - "unavailable" is what it is
    """SQS cannot be reached, or does not do what it was asked for; the text is what it said."""


class QueueRefused(QueueUnavailable):
    """SQS is there and refuses: there is no such queue, or it may not be read."""


class NoQueue(ValueError):  # noqa: N818 - that is what there is
    """There is no such queue, or it may not be read."""


@dataclass(frozen=True)
class Message:
    """One message, as it was received."""

    message_id: str
    receipt: str
    body: str
    receives: int
    """How often it has been received, this time included."""


def queue_named(word: str) -> tuple[str, str | None]:
    """The queue's name or URL in `sqs://NAME`, `sqs://HOST/ACCOUNT/NAME` or a URL of SQS' own, and
    the region that the URL says.

    Raises:
        ValueError: it names none.

    >>> queue_named("sqs://uploads")
    ('uploads', None)
    >>> queue_named("sqs://sqs.eu-west-1.amazonaws.com/123456789012/uploads")
    ('https://sqs.eu-west-1.amazonaws.com/123456789012/uploads', 'eu-west-1')
    """
    named = word.removeprefix(SCHEME)
    if "/" not in named:
        if not named:
            raise ValueError("sqs:// names no queue: sqs://NAME, or its URL")
        return named, None
    url = named if "://" in named else f"https://{named}"
    host = urlsplit(url).hostname or ""
    labels = host.split(".")
    region = labels[1] if labels[0] == "sqs" and "amazonaws" in labels[2:] else None
    return url, region


class SqsQueue:
    """Receives, deletes and holds messages; many calls at a time, each in a thread of its own.

    Args:
        word: see `queue_named`.
        endpoint_url: an SQS endpoint other than AWS.
        at_once: calls that may be under way.

    Every method but `open` raises QueueUnavailable.
    """

    def __init__(self, word: str, endpoint_url: str | None = None, at_once: int = 16) -> None:
        self._named, self._region = queue_named(word)
        self._endpoint_url = endpoint_url
        self._at_once = at_once
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="sqs")
        self._sqs: Any = None
        self.url = ""

    async def open(self) -> None:
        """Find the queue.

        Raises:
            NoQueue: there is none, or its region or credentials are not known.
            OSError: boto3 is not installed.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._sqs = aws_client(
                "sqs",
                self._endpoint_url,
                "Listening to SQS",
                region=self._region,
                read_timeout=LONG_POLL_S + 10,
                connections=self._at_once,
            )
            if "://" in self._named:
                self.url = self._named
            else:
                found = await self._call(lambda: self._sqs.get_queue_url(QueueName=self._named))
                self.url = found["QueueUrl"]
        except (QueueUnavailable, BotoCoreError, ClientError) as exc:
            raise NoQueue(f"The queue {self._named} cannot be listened to: {exc}") from exc

    async def receive(self, wait_s: int, visibility_s: int) -> list[Message]:
        """Up to ten messages, waiting for the first of them; nobody else is given them for so
        many seconds."""
        found = await self._call(
            functools.partial(
                self._sqs.receive_message,
                QueueUrl=self.url,
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=visibility_s,
                AttributeNames=["ApproximateReceiveCount"],
            )
        )
        return [
            Message(
                one["MessageId"],
                one["ReceiptHandle"],
                one.get("Body", ""),
                int(one.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for one in found.get("Messages", ())
        ]

    async def delete(self, messages: Sequence[Message]) -> None:
        """Delete messages that have been seen to."""
        await self._each(self._sqs.delete_message_batch, messages)

    async def hold(self, messages: Sequence[Message], seconds: int) -> None:
        """Keep others from being given these for so many seconds from now; 0 gives them back."""
        await self._each(
            self._sqs.change_message_visibility_batch, messages, VisibilityTimeout=seconds
        )

    def close(self) -> None:
        """Let no further call begin; those under way are left to themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _each(self, call: Any, messages: Sequence[Message], **further: Any) -> None:
        if not messages:
            return
        entries = [
            {"Id": str(place), "ReceiptHandle": message.receipt, **further}
            for place, message in enumerate(messages)
        ]
        answer = await self._call(functools.partial(call, QueueUrl=self.url, Entries=entries))
        if failed := answer.get("Failed"):
            raise QueueUnavailable(f"{len(failed)} of {len(entries)}: {failed[0].get('Message')}")

    async def _call(self, call: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except NoCredentialsError as exc:
            raise QueueRefused(f"SQS: {exc}") from exc
        except ClientError as exc:
            refused = 400 <= _status(exc.response) < 500 and not _throttled(exc.response)
            raise (QueueRefused if refused else QueueUnavailable)(f"SQS: {exc}") from exc
        except BotoCoreError as exc:
            raise QueueUnavailable(f"SQS: {exc}") from exc


def _status(answer: Any) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _throttled(answer: Any) -> bool:
    """Whether it was asked too often: AWS has several codes for that, most of status 400 or 403."""
    return _status(answer) == 429 or "Throttl" in answer.get("Error", {}).get("Code", "")
