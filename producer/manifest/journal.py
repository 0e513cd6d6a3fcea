"""What is done of a run, kept beside its output, so that an interrupted run can go on.

A text file that only grows, a JSON object a line:

    {"journal": 1, "run": ID, "plan": {...}, "sources": [FINGERPRINT, ...]}     once, at first
    {"sent": CHUNK, "digest": "...", "bad": "0", "skipped": "0"}    before it is submitted, in order
    {"done": [CHUNK, ...], "end": MARK, "counts": {...}}    after its rows are on the disk
    {"ended": true}                                     after the last

`bad` and `skipped` are bit masks, in hexadecimal, of the references that are no part of the chunk's
job: those that none can ask for, and those that had their caption already. MARK is where the output
then ends: what lies behind the last mark belongs to chunks that are not done, and is cut off before
a run goes on. So each image has exactly one row, wherever a run is cut.
"""

import fcntl
import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from producer.manifest.append import AppendFile

VERSION = 1
HEAD = b'{"journal":'
DONE = 1


class CannotResume(ValueError):  # noqa: N818 - that is what it is
    """The journal does not fit: another run, another source, or a damaged file."""


class LeftOut(NamedTuple):
    """References of a chunk that its job does not ask for, as masks: bit 0 is the first."""

    bad: int = 0
    skipped: int = 0


@dataclass
class Past:
    """What a journal says. Eight bytes a chunk, and a little more for those not done."""

    run: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    sources: list[str | None] = field(default_factory=list)
    end: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    ended: bool = False
    _digests: "array[int]" = field(default_factory=lambda: array("Q"))
    _done: bytearray = field(default_factory=bytearray)
    _left_out: dict[int, LeftOut] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        """How many chunks were submitted: those before this number."""
        return len(self._digests)

    @property
    def chunks_done(self) -> int:
        """How many of them are done."""
        return self._done.count(DONE)

    def is_done(self, number: int) -> bool:
        """Whether the rows of a chunk are in the output."""
        return number < self.sent and self._done[number] == DONE

    def same(self, number: int, digest: str) -> bool:
        """Whether a chunk that was sent had these references."""
        return self._digests[number] == int(digest, 16)

    def left_out(self, number: int) -> LeftOut:
        """What a chunk that was sent and is not done was sent without."""
        return self._left_out.get(number, LeftOut())

    def take(self, line: Mapping[str, Any]) -> None:
        """Add what one line says.

        Raises:
            KeyError, TypeError, ValueError, IndexError: it is no line of a journal, or in the
                wrong place.
        """
        if "journal" in line:
            if line["journal"] != VERSION or self.run:
                raise ValueError("not the first line of this version")
            self.run, self.plan, self.sources = line["run"], line["plan"], line["sources"]
        elif not self.run:
            raise ValueError("no first line")
        elif "sent" in line:
            if line["sent"] != self.sent:
                raise ValueError("not the next chunk")
            self._digests.append(int(line["digest"], 16))
            self._done.append(0)
            left_out = LeftOut(int(line["bad"], 16), int(line["skipped"], 16))
            if any(left_out):
                self._left_out[line["sent"]] = left_out
        elif "done" in line:
            for number in line["done"]:
                self._done[number] = DONE
                self._left_out.pop(number, None)
            self.end = line["end"]
            self.counts.update(line["counts"])
        elif line["ended"]:
            self.ended = True


class Journal:
    """An open journal, which no other process can have open as well.

    Raises:
        CannotResume: it is damaged, or another process has it.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, file: AppendFile | None = None) -> None:
        self._path = path
        self._file = file or AppendFile(path)
        self.past = Past()
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.cut(self._read())
        except BlockingIOError:
            self._file.close()
            raise CannotResume(f"Another process writes {path}: let it end first.") from None
        except BaseException:
            self._file.close()
            raise

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return bool(self.past.run)

    def begin(self, run: str, plan: Mapping[str, Any], sources: list[str | None]) -> None:
        """Write the first line, of a new run, and see it to the disk."""
        self._file.cut(0)
        self.past = Past(run, plan, sources)
        self._write({"journal": VERSION, "run": run, "plan": plan, "sources": sources}, sync=True)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def sent(self, number: int, digest: str, left_out: LeftOut) -> None:
        """A chunk is about to be submitted for the first time.

        Not seen to the disk by itself: a line that is lost with the machine costs nothing but the
        check of this chunk, which is submitted again under the same id.
        """
        masks = {"bad": f"{left_out.bad:x}", "skipped": f"{left_out.skipped:x}"}
        self._write({"sent": number, "digest": digest} | masks)

    def done(self, numbers: Iterable[int], end: int, counts: Mapping[str, int]) -> None:
        """The rows of these chunks are on the disk, and the output ends at `end`."""
        line = {"done": list(numbers), "end": end, "counts": dict(counts)}
        self._write(line, sync=True)

    def ended(self) -> None:
        """All chunks are done."""
        self._write({"ended": True}, sync=True)

    def close(self) -> None:
        """Close the file; one that says nothing is removed."""
        if self._file.size == 0:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: Mapping[str, Any], sync: bool = False) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        if sync:
            self._file.sync()

    def _read(self) -> int:
        """Take what is there; returns where it ends, in bytes: before a line that was cut short."""
        whole = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    if number == 1 and line[: len(HEAD)] != HEAD[: len(line)]:
                        raise self._damaged(number)  # nor the beginning of one
                    break
                try:
                    self.past.take(json.loads(line))
                except (ValueError, KeyError, TypeError, IndexError, RecursionError) as exc:
                    raise self._damaged(number) from exc
                whole += len(line)
        return whole

    def _damaged(self, number: int) -> CannotResume:
        return CannotResume(
            f"{self._path} is no journal of a run of captionq, or damaged at line {number}."
        )
