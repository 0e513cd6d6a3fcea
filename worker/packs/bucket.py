"""Packs below a prefix of an S3 bucket: s3://bucket/prefix/NAME/pack.json and what lies beside it.

Listing reads cards alone. A pack's files come when a job asks for it (worker/packs/copies.py).
"""

import hashlib
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from worker.errors import ErrorCode, Fault
from worker.fetch.body import check_length
from worker.fetch.s3 import as_fault
from worker.fetch.s3_client import S3Limits, s3_client
from worker.fetch.s3_transport import CHUNK_BYTES
from worker.packs.copies import DOWNLOAD_S, Copies
from worker.packs.folder import CARD, MAX_CARD_BYTES, MOST_PACKS, described
from worker.packs.found import Found

__all__ = ["BucketPlace", "Remote"]

MOST_OBJECTS = 50_000
"""Objects below a prefix; more are not looked at."""

LIST_S = 60.0
"""Longest time for a place to be listed, and its new cards to be read, seconds."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
"""Folders and files that are taken for parts of packs; others are none of ours."""

_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Remote:
    """A file of a pack: its name in the pack's folder, its key, its ETag, its size in bytes."""

    name: str
    key: str
    etag: str
    size: int


class BucketPlace:
    """The packs below s3://bucket/prefix/, copied into a cache when they are opened.

    Args:
        cache: a folder; packs of other places may lie in it as well.
        max_bytes: of one pack.
        endpoint_url, request_payer: as `worker.fetch.s3.S3Source`.
    """

    def __init__(
        self,
        uri: str,
        cache: Path,
        max_bytes: int,
        endpoint_url: str | None = None,
        request_payer: Literal["requester"] | None = None,
    ) -> None:
        self.where = uri
        self._bucket, _, self._prefix = uri.removeprefix("s3://").partition("/")
        self._max_bytes = max_bytes
        self._payer = {"RequestPayer": request_payer} if request_payer else {}
        limits = S3Limits(total_s=DOWNLOAD_S, max_bytes=max_bytes)
        self._client, self._transport = s3_client(limits, endpoint_url=endpoint_url)
        self._copies = Copies(cache / _digest(uri))
        self._known: dict[str, Found] = {}

    def listed(self) -> list[Found]:
        """What is there now, by name; what the cache has of other packs is removed.

        Raises:
            Fault: s3_*, fetch_timeout and such: S3 does not say.
        """
        try:
            with self._transport.until(time.monotonic() + LIST_S):
                found = [self._found(name, files) for name, files in self._packs().items()]
        except Exception as exc:  # noqa: BLE001 - as in worker.fetch.s3
            raise as_fault(exc, self.where) from None
        stamps = {one.stamp for one in found}
        self._known = {stamp: one for stamp, one in self._known.items() if stamp in stamps}
        self._copies.keep_only(stamps)
        return found

    def close(self) -> None:
        """Close every connection."""
        self._client.close()
        self._transport.close()

    def _packs(self) -> dict[str, list[Remote]]:
        """The files of each folder that has a card; "" is the prefix itself."""
        folders: dict[str, list[Remote]] = {}
        for number, one in enumerate(self._objects()):
            if number >= MOST_OBJECTS:
                break
            folder, _, name = one["Key"].removeprefix(self._prefix).rpartition("/")
            if _NAME.fullmatch(name) and (not folder or _NAME.fullmatch(folder)):
                file = Remote(name, one["Key"], one["ETag"].strip('"'), one["Size"])
                folders.setdefault(folder, []).append(file)
        packs = [name for name, files in folders.items() if any(f.name == CARD for f in files)]
        packs = [""] if "" in packs else sorted(packs)
        return {name: folders[name] for name in packs[:MOST_PACKS]}

    def _objects(self) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix, **self._payer
        )
        for page in pages:
            yield from page.get("Contents", ())

    def _found(self, folder: str, files: Sequence[Remote]) -> Found:
        """A pack; its card is read unless that was done before. One that S3 refuses makes this pack
        unusable, and no other."""
        lines = sorted(f"{file.name} {file.etag} {file.size}" for file in files)
        stamp = _digest("\n".join([folder, *lines]))
        if (known := self._known.get(stamp)) is None:
            known = self._described(folder, files, stamp)
        return known

    def _described(self, folder: str, files: Sequence[Remote], stamp: str) -> Found:
        where = f"s3://{self._bucket}/{self._prefix}{folder}"
        called = folder or self._prefix.strip("/").rpartition("/")[2] or self._bucket
        called = called if _NAME.fullmatch(called) else "pack"
        size = sum(file.size for file in files)
        card = next(file for file in files if file.name == CARD)
        facts: dict[str, Any] = {"where": where, "stamp": stamp, "bytes": size}
        for what, bytes_, most in (
            ("its files have", size, self._max_bytes),
            (f"{CARD} has", card.size, MAX_CARD_BYTES),
        ):
            if bytes_ > most:
                why = f"{what} {bytes_} bytes, and {most} are the most"
                return Found(name=called, why_not=why, **facts)
        with tempfile.TemporaryDirectory() as scratch:
            (near := Path(scratch) / called).mkdir()
            try:
                self._fetch(card, near / CARD)
            except Exception as exc:  # noqa: BLE001 - as in worker.fetch.s3
                if (fault := as_fault(exc, where)).transient:
                    raise fault from None
                why = f"{CARD} cannot be had: {fault.code.value}"
                return Found(name=called, why_not=why, **facts)
            found = described(
                near, **facts, opened=lambda: self._copies.opened(stamp, called, files, self._get)
            )
        self._known[stamp] = found
        return found

    def _get(self, file: Remote, to: Path, deadline_s: float) -> None:
        """Copy a file of a pack, and check that it is whole.

        Raises:
            Fault: as `listed`, and body_incomplete for a file that is not what was listed.
        """
        try:
            with self._transport.until(deadline_s):
                self._fetch(file, to)
        except OSError:
            raise
        except Exception as exc:  # noqa: BLE001 - as in worker.fetch.s3
            raise as_fault(exc, f"s3://{self._bucket}/{file.key}") from None

    def _fetch(self, file: Remote, to: Path) -> None:
        answer = self._client.get_object(Bucket=self._bucket, Key=file.key, **self._payer)
        told, size = hashlib.md5(usedforsecurity=False), 0
        with closing(answer["Body"]) as body, to.open("wb") as out:
            for chunk in body.iter_chunks(CHUNK_BYTES):
                size += len(chunk)
                check_length(size, file.size)
                told.update(chunk)
                out.write(chunk)
        # The ETag is the MD5, but of uploads in parts, and of what is encrypted by other keys.
        encrypted = "kms" in answer.get("ServerSideEncryption", "")
        own_key = "SSECustomerAlgorithm" in answer
        is_md5 = _MD5.fullmatch(file.etag) is not None and not (encrypted or own_key)
        if size != file.size or (is_md5 and told.hexdigest() != file.etag):
            raise Fault(ErrorCode.BODY_INCOMPLETE, f"{file.key} is not what was listed")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
