"""An image on its way from whoever has one to where workers read it.

At most PART_BYTES of it are held at a time: while they are written, nothing more is read.
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request

from producer.beginnings import BEGINNING_BYTES, kind_of
from producer.gateway.body import CLOSE
from producer.gateway.one_file import FormFault, OneFile
from producer.gateway.problems import Code, Problem
from producer.gateway.settings import GatewaySettings
from producer.gateway.upload_place import PART_BYTES, Place, StorageFailed, Writing, place

__all__ = ["Uploaded", "Uploads"]

THREADS = 8
"""Writing to the disk or to S3 at a time, of all uploads."""
ABORT_S = 5.0
"""How long nobody is answered because what was written is still to be taken away, in seconds."""
FORM_BYTES = 65_536
"""What a form may have beside its file."""
ACCEPTED = "multipart/form-data, image/*, application/octet-stream"
MEDIA_TYPES = {"HEIF": "image/heic"}
SUFFIXES = {"JPEG": "jpg", "HEIF": "heic"}

_log = logging.getLogger("captionq.gateway")


class Uploaded(BaseModel):
    """An image that is kept."""

    image: str = Field(
        description="Its URI, for the image of a job",
        examples=["s3://photos/uploads/5f1c2a9be04d4f36a1f04a6a0c1b7d22.jpg"],
    )
    bytes: int = Field(examples=[48_213])
    sha256: str = Field(description="Of its bytes, in hex", examples=["9f86d081884c7d65" * 4])


class Uploads:
    """Takes images while they come. One for an app.

    Raises:
        UploadFailed: from the constructor: boto3 is needed, and is not installed.
    """

    def __init__(self, settings: GatewaySettings, into: Place | None = None) -> None:
        self._settings = settings
        if into is None and settings.upload_to is not None:
            into = place(settings.upload_to, settings.s3_endpoint_url)
        self._place = into
        self._threads = ThreadPoolExecutor(THREADS, "upload")
        self._calls: set[Future[None]] = set()
        self.running = 0

    @property
    def writing(self) -> int:
        """How many threads write now, also for senders who have gone."""
        return len(self._calls)

    async def take(self, request: Request) -> Uploaded:
        """Keep the image of a request.

        Raises:
            Problem: as the route documents. Nothing of the image is left then.
            ClientDisconnect: the sender hung up. Nothing is left either.
        """
        if self._place is None:
            raise Problem(Code.NOT_CONFIGURED, "Uploads need UPLOAD_TO.", headers=CLOSE)
        if self.running >= self._settings.max_uploads:
            raise Problem(Code.UPLOADS_BUSY, headers={"Retry-After": "2"} | CLOSE)
        self.running += 1
        try:
            return await self._keep(self._file(request), self._place)
        finally:
            self.running -= 1

    async def _file(self, request: Request) -> AsyncIterator[bytes]:
        """The bytes of the image in a request's body, of either kind, counted and in time."""
        declared = request.headers.get("content-type", "")
        media_type = declared.partition(";")[0].strip().lower()
        form = OneFile(declared) if media_type == "multipart/form-data" else None
        raw = media_type.startswith("image/") or media_type == "application/octet-stream"
        encoded = request.headers.get("content-encoding", "identity") != "identity"
        if encoded or not (form or raw):
            raise Problem(
                Code.MEDIA_TYPE_UNSUPPORTED,
                f"Send Content-Type: {ACCEPTED}, and no Content-Encoding.",
                headers={"Accept-Post": ACCEPTED} | CLOSE,
            )
        most = self._settings.max_upload_bytes
        around = FORM_BYTES if form else 0
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most + around:
            raise self._too_large()
        size = total = 0
        async for chunk in _in_time(request.stream(), self._settings.upload_timeout_s):
            total += len(chunk)
            for piece in form.feed(chunk) if form else [chunk]:
                size += len(piece)
                if size > most:
                    raise self._too_large()
                yield piece
            if total - size > around:
                raise Problem(
                    Code.BODY_TOO_LARGE,
                    f"A form has at most {FORM_BYTES} bytes beside its file.",
                    headers=CLOSE,
                )
        if form:
            form.close()

    def _too_large(self) -> Problem:
        most = self._settings.max_upload_bytes
        return Problem(
            Code.BODY_TOO_LARGE, f"An image has at most {most} bytes here.", headers=CLOSE
        )

    async def _keep(self, file: AsyncIterator[bytes], into: Place) -> Uploaded:
        digest, size = hashlib.sha256(), 0
        head, name = b"", secrets.token_hex(16)
        part = _Part()
        writing: Writing | None = None
        try:
            async for piece in file:
                size += len(piece)
                digest.update(piece)
                if writing is None:
                    head += piece[:BEGINNING_BYTES]
                    if len(head) >= BEGINNING_BYTES:
                        name, writing = _begun(head, name, into)
                while (rest := part.take(piece)) and writing is not None:
                    await self._in_thread(writing.write, part.taken())
                    piece = rest
            if not size:
                raise Problem(Code.IMAGE_EMPTY)
            if writing is None:
                name, writing = _begun(head, name, into)
            await self._in_thread(writing.finish, part.taken())
        except BaseException as exc:
            if writing is not None:
                await self._abort(writing)
            if isinstance(exc, StorageFailed):
                _log.error("an upload cannot be kept: %s", exc)
                retry = {"Retry-After": "5"} | CLOSE
                raise Problem(Code.STORAGE_UNAVAILABLE, headers=retry) from exc
            if isinstance(exc, FormFault):
                raise Problem(Code.BODY_INVALID, str(exc), headers=CLOSE) from exc
            raise
        return Uploaded(image=f"{into.uri}{name}", bytes=size, sha256=digest.hexdigest())

    async def _abort(self, writing: Writing) -> None:
        """Done even if the one who waits for it is cancelled, or has waited for ABORT_S."""
        try:
            await asyncio.wait_for(self._in_thread(writing.abort), ABORT_S)
        except TimeoutError:
            return
        except OSError as exc:
            _log.error("something of an upload may be left: %s", exc)

    async def _in_thread(self, call: Callable[..., None], *given: Any) -> None:
        calling = self._threads.submit(call, *given)
        self._calls.add(calling)
        calling.add_done_callback(self._calls.discard)
        await asyncio.shield(asyncio.wrap_future(calling))


class _Part:
    """Pieces, until there are PART_BYTES of them."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._bytes = 0

    def take(self, piece: bytes) -> bytes:
        """Take in as much of a piece as there is room for. What is left of it: the part is full."""
        room = PART_BYTES - self._bytes
        self._pieces.append(piece[:room])
        self._bytes += len(self._pieces[-1])
        return piece[room:]

    def taken(self) -> bytes:
        """All of it; and it is empty again."""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self._bytes = 0
        return whole


def _begun(head: bytes, name: str, into: Place) -> tuple[str, Writing]:
    """A file that begins so, under its whole name.

    Raises:
        Problem: image_unsupported_format.
    """
    kind = kind_of(head)
    if kind is None:
        raise Problem(Code.IMAGE_UNSUPPORTED_FORMAT, headers=CLOSE)
    name = f"{name}.{SUFFIXES.get(kind, kind.lower())}"
    return name, into.begin(name, MEDIA_TYPES.get(kind, f"image/{kind.lower()}"))


async def _in_time(chunks: AsyncIterator[bytes], budget_s: float) -> AsyncIterator[bytes]:
    """Pieces of a body, whose sender may take so many seconds for all of them; what is done with
    them meanwhile counts nothing.

    Raises:
        Problem: body_timeout.
    """
    clock_s = asyncio.get_running_loop().time
    left_s = budget_s
    while True:
        began_s = clock_s()
        try:
            async with asyncio.timeout(left_s):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            detail = f"The image did not come within {budget_s:g} s."
            raise Problem(Code.BODY_TIMEOUT, detail, headers=CLOSE) from None
        left_s -= clock_s() - began_s
        yield chunk
