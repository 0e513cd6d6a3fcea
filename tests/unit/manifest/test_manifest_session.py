"""Runs in one process, against a service that answers at once: rows, order, cuts, resumption."""

import csv
import errno
import io
import json
import os
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.contract import (
    CaptionChunk,
    CaptionOptions,
    ErrorCode,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    utcnow,
)
from producer.errors import BrokerUnavailable, StoreUnavailable
from producer.manifest.append import AppendFile
from producer.manifest.interrupt import Interrupt
from producer.manifest.journal import CannotResume
from producer.manifest.progress import Progress
from producer.manifest.request import Request
from producer.manifest.run import AHEAD
from producer.manifest.session import Session
from producer.settings import ProducerSettings
from tests.manifest_service import InProcess

SETTINGS = ProducerSettings(broker_url="redis://127.0.0.1:1/0", upload_url=None)
CHUNK = CaptionChunk(images=("https://example.com/",))
BAD_ROWS = {3: "", 17: "ftp://example.com/a.jpg", 18: "no/such.jpg", 40: "https://exa mple.com/"}


@pytest.fixture(autouse=True, scope="module")
def _committed_at_once() -> Iterator[None]:
    """Each chunk is seen to the disk by itself, so that there is more to be cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("producer.manifest.outputs.COMMIT_S", 0.0)
        yield


def uri(number: int) -> str:
    return f"https://example.com/{number}.jpg"


def listed(folder: Path, count: int, bad: dict[int, str] = BAD_ROWS) -> Path:
    """A table of so many references, some of which are none."""
    path = folder / "refs.jsonl"
    rows = ({"url": bad.get(n, uri(n))} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(source: Path | str, **fields: Any) -> Request:
    fields = {"size": 7, "in_flight": 3, "chunk": CHUNK, "sources": (str(source),)} | fields
    return Request(**fields)


class Quiet(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def run(
    request: Request,
    service: Any = None,
    open_file: Callable[[Path], AppendFile] = AppendFile,
    progress: Progress | None = None,
) -> Counter[str]:
    with Session(request, SETTINGS, open_file) as session:
        if not session.ended:
            session.run(service or InProcess(), progress or Quiet(), Interrupt())
        return session.counts


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [row | {"index": int(row["index"])} for row in csv.DictReader(file)]


SYNC_COST = 100
"""What seeing to the disk costs of a budget, so that it is cut off as well."""


class Cut(Exception):  # noqa: N818
    pass


class Power:
    """Files that take so many bytes, together, and then stop in the middle of a write. What was
    not seen to the disk may then be lost, if `lossy`, from any byte on."""

    def __init__(self, budget: int, rng: random.Random, lossy: bool) -> None:
        self.left = budget
        self._rng = rng
        self._lossy = lossy
        self._files: list[tuple[Path, _Limited]] = []

    def open(self, path: Path) -> AppendFile:
        file = _Limited(path, self)
        self._files.append((path, file))
        return file

    def fail(self) -> None:
        if self._lossy:
            for path, file in self._files:
                if path.exists() and path.stat().st_size > file.synced:
                    with path.open("r+b") as opened:
                        opened.truncate(self._rng.randint(file.synced, path.stat().st_size))


class _Limited(AppendFile):
    def __init__(self, path: Path, power: Power) -> None:
        super().__init__(path)
        self.synced = self.size
        self._power = power

    def write(self, data: bytes) -> None:
        allowed = min(len(data), self._power.left)
        self._power.left -= allowed
        super().write(data[:allowed])
        if allowed < len(data):
            raise Cut

    def sync(self) -> None:
        if self._power.left < SYNC_COST:
            self._power.left = 0
            raise Cut  # it did not reach the disk
        self._power.left -= SYNC_COST
        super().sync()
        self.synced = self.size

    def cut(self, size: int) -> None:
        super().cut(size)
        self.synced = min(self.synced, self.size)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count=st.integers(0, 60),
    kind=st.sampled_from(["jsonl", "csv"]),
    ordered=st.booleans(),
    lossy=st.booleans(),
    seed=st.integers(0, 2**32),
    budgets=st.lists(st.integers(0, 8_000), max_size=12),
)
def test_given_a_run_cut_at_any_bytes_then_resumed_each_image_has_one_row_and_is_captioned_once(
    tmp_path_factory: pytest.TempPathFactory,
    count: int, kind: str, ordered: bool, lossy: bool, seed: int, budgets: list[int],
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("cut")
    source, output = listed(folder, count), folder / f"out.{kind}"
    rng = random.Random(seed)
    service = InProcess(rng)
    request = asked(source, output=output, ordered=ordered, resume=True)
    for budget in budgets:
        power = Power(budget, rng, lossy)
        try:
            counts = run(request, service, power.open)
            break
        except Cut:
            power.fail()
    else:
        counts = run(request, service)

    found = rows(output)
    indices = [row["index"] for row in found]
    assert sorted(indices) == list(range(count))
    if ordered:
        assert indices == list(range(count))
    assert set(service.answered.values()) <= {1}
    assert service.images == Counter(uri(n) for n in range(count) if n not in BAD_ROWS)
    invalid = sum(n < count for n in BAD_ROWS)
    assert counts == Counter(succeeded=count - invalid, job_invalid=invalid)
    for row in found:
        assert row["image"] == BAD_ROWS.get(row["index"], uri(row["index"]))
        assert (row["state"] == "failed") == (row["index"] in BAD_ROWS)


def test_given_a_disk_that_is_full_at_any_byte_then_resumed_each_image_has_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits is written before the error comes, and later writes may fit: others freed some."""
    write, rng = os.write, random.Random(4)
    left: list[int] = []

    def full(descriptor: int, data: bytes) -> int:
        if left and left[0] < len(data):
            fits, left[0] = left[0], 0
            if fits:
                return write(descriptor, data[:fits])
            left.clear()
            raise OSError(errno.ENOSPC, "No space left on device")
        if left:
            left[0] -= len(data)
        return write(descriptor, data)

    monkeypatch.setattr("producer.manifest.append.os.write", full)
    source, output = listed(tmp_path, 60, {}), tmp_path / "out.jsonl"
    times_full, named = 0, set()
    for _ in range(200):
        left[:] = [rng.randint(1, 6_000)]
        try:
            run(asked(source, output=output, resume=True), InProcess(random.Random(2)))
            break
        except OSError as exc:
            times_full += 1
            named.add(exc.filename)
            assert all(row["state"] == "succeeded" for row in rows(output))
    left.clear()
    run(asked(source, output=output, resume=True))

    assert times_full > 3
    assert named <= {str(output), f"{output}.journal"}
    assert sorted(row["index"] for row in rows(output)) == list(range(60))


@pytest.fixture
def power_cut() -> Callable[..., InProcess]:
    def cut(request: Request, after: int) -> InProcess:
        """A run that is cut after so many bytes; the service that has begun it."""
        service = InProcess(random.Random(1))
        with pytest.raises(Cut):
            run(request, service, Power(after, random.Random(1), lossy=False).open)
        return service

    return cut


@pytest.mark.parametrize("in_flight", [1, 3, 16])
@pytest.mark.parametrize("ordered", [False, True])
def test_given_any_bound_then_no_more_chunks_are_in_flight(
    tmp_path: Path, in_flight: int, ordered: bool
) -> None:
    service = InProcess(random.Random(5))
    output = tmp_path / "out.jsonl"

    run(asked(listed(tmp_path, 300), output=output, in_flight=in_flight, ordered=ordered), service)

    assert 1 <= service.most_waiting <= in_flight
    assert len(rows(output)) == 300


def test_given_rows_in_order_and_a_slow_first_chunk_then_few_others_run_ahead(
    tmp_path: Path,
) -> None:
    class SlowFirst(InProcess):
        looks = 0
        ahead = 0

        def work(self, count: int) -> None:
            slow = [job for job in self._waiting if str(job.job_id).endswith(".0")]
            held = slow if self.looks < 300 else []
            self._waiting = [job for job in self._waiting if job not in held]
            super().work(count)
            self._waiting += held

        def tick(self) -> None:
            self.looks += 1
            if self.looks < 300:
                self.ahead = len(self.answered)
            super().tick()

    service, output = SlowFirst(random.Random(1)), tmp_path / "out.jsonl"

    run(asked(listed(tmp_path, 700, {}), output=output, ordered=True), service)

    assert [row["index"] for row in rows(output)] == list(range(700))
    assert 3 < service.ahead < AHEAD * 3


def test_given_bad_rows_then_each_is_an_output_row_with_its_place_and_reason(
    tmp_path: Path,
) -> None:
    source, output = listed(tmp_path, 45), tmp_path / "out.jsonl"

    run(asked(source, output=output, ordered=True))

    found = rows(output)
    assert found[18]["source"] == f"{source}:19"
    assert {n: (found[n]["code"], found[n]["message"]) for n in BAD_ROWS} == {
        3: ("job_invalid", "The row names no image."),
        17: ("job_invalid",
             "An image URI begins with one of https://, http://, s3://, file://."),
        18: ("job_invalid", "It is neither a URI nor a file here."),
        40: ("job_invalid", "An image URI holds no spaces, control characters or backslashes."),
    }  # fmt: skip
    assert found[0] | {"job_id": None} == {
        "index": 0,
        "source": f"{source}:1",
        "image": uri(0),
        "state": "succeeded",
        "caption": f"a picture of {uri(0)}",
        "language": None,
        "score": -0.5,
        "mean_logprob": -0.5,
        "itm_probability": None,
        "alternatives": [],
        "code": None,
        "message": None,
        "attempts": 1,
        "width": None,
        "height": None,
        "format": None,
        "sha256": None,
        "shard": None,
        "job_id": None,
    }


def test_given_a_chunk_of_bad_rows_alone_then_no_job_is_sent_for_it(tmp_path: Path) -> None:
    service = InProcess()
    source = listed(tmp_path, 9, bad=dict.fromkeys(range(7), ""))

    counts = run(asked(source, output=tmp_path / "out.csv"), service)

    assert counts == Counter(job_invalid=7, succeeded=2)
    assert len(service.answered) == 1


def failing(state: JobState, code: ErrorCode | None) -> Callable[[CaptionChunk], JobResult]:
    def end(chunk: CaptionChunk) -> JobResult:
        error = JobError.of(JobFailed(code)) if code else None
        return JobResult(
            job_id=str(chunk.job_id), task=chunk.task, state=state, attempts=2, error=error,
            finished_at=utcnow(),
        )  # fmt: skip

    return end


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        (JobState.FAILED, ErrorCode.JOB_EXPIRED, "job_expired"),
        (JobState.CANCELLED, ErrorCode.JOB_CANCELLED, "job_cancelled"),
        (JobState.DEAD, None, "internal_error"),
        pytest.param(JobState.SUCCEEDED, None, "internal_error", id="no items"),
    ],
)
def test_given_a_chunk_that_fails_as_a_whole_then_each_of_its_images_has_failed(
    tmp_path: Path, state: JobState, code: ErrorCode | None, expected: str
) -> None:
    output = tmp_path / "out.jsonl"
    service = InProcess(answer=failing(state, code))

    counts = run(asked(listed(tmp_path, 10, {}), output=output), service)

    assert counts == Counter({expected: 10})
    assert {(row["state"], row["code"]) for row in rows(output)} == {("failed", expected)}


def test_given_a_sink_then_rows_name_shards_and_counts_are_the_workers(tmp_path: Path) -> None:
    def end(chunk: CaptionChunk) -> JobResult:
        return failing(JobState.SUCCEEDED, None)(chunk).model_copy(
            update={
                "shard": f"{chunk.sink}{chunk.job_id}",
                "counts": {"succeeded": 4, "http_4xx": 1},
            }
        )

    output = tmp_path / "out.jsonl"
    chunk = CHUNK.model_copy(update={"sink": "s3://bucket/run/"})
    bad = {1: ""}

    counts = run(asked(listed(tmp_path, 6, bad), output=output, chunk=chunk), InProcess(answer=end))

    assert counts == Counter(succeeded=4, http_4xx=1, job_invalid=1)
    found = rows(output)
    assert [row["state"] for row in found] == ["published", "failed"] + ["published"] * 4
    assert found[0]["shard"] == f"s3://bucket/run/{found[0]['job_id']}"


def test_given_a_job_too_large_then_its_images_fail_and_the_others_do_not(tmp_path: Path) -> None:
    class Strict(InProcess):
        def submit_many(self, jobs: Any) -> None:
            jobs = list(jobs)
            if any(uri(0) in job.images for job in jobs):
                raise JobFailed(ErrorCode.JOB_INVALID)
            super().submit_many(jobs)

    counts = run(asked(listed(tmp_path, 21, {}), output=tmp_path / "out.csv"), Strict())

    assert counts == Counter(job_invalid=7, succeeded=14)


def test_given_an_outage_while_a_job_too_large_is_looked_for_then_no_image_is_lost(
    tmp_path: Path,
) -> None:
    class Both(InProcess):
        """The last job of a batch is too large; the broker is away when its first comes alone."""

        reached = away = False
        batch: tuple[str, ...] = ()

        def submit_many(self, jobs: Any) -> None:
            jobs = list(jobs)
            ids = tuple(str(job.job_id) for job in jobs)
            if self.reached and len(jobs) > 1 and not self.batch:
                self.batch = ids
            if self.batch and ids == self.batch[:1] and not self.away:
                self.away = True
                raise BrokerUnavailable("The broker cannot be reached: no.")
            if self.batch[-1:] and self.batch[-1] in ids:
                raise JobFailed(ErrorCode.JOB_INVALID)
            self.reached = True
            super().submit_many(jobs)

    service, output = Both(), tmp_path / "out.jsonl"

    counts = run(asked(listed(tmp_path, 700, {}), output=output, in_flight=16), service)

    assert service.away
    assert counts == Counter(job_invalid=7, succeeded=693)
    assert sorted(row["index"] for row in rows(output)) == list(range(700))


class Flaky(InProcess):
    """Away now and then, once it has been there."""

    def __init__(self) -> None:
        super().__init__(random.Random(3))
        self.calls = 0

    def submit_many(self, jobs: Any) -> None:
        self.calls += 1
        if self.calls in (2, 3):
            first = next(iter(jobs))
            super().submit_many([first])
            raise BrokerUnavailable("The broker cannot be reached: no.", (str(first.job_id),))
        super().submit_many(jobs)

    def tick(self) -> None:
        super().tick()
        if self.calls == 4:
            self.calls += 1
            raise StoreUnavailable("The results store cannot be reached: no.")


def test_given_outages_then_they_are_ridden_through_and_told(tmp_path: Path) -> None:
    output, progress, service = tmp_path / "out.jsonl", Quiet(), Flaky()

    run(asked(listed(tmp_path, 100, {}), output=output), service, progress=progress)

    assert sorted(row["index"] for row in rows(output)) == list(range(100))
    assert set(service.answered.values()) == {1}
    said = " ".join(progress.said)
    assert "The broker cannot be reached: no. Trying again until it is back." in said
    assert re.search(r"Back after \d s\.", said)


def test_given_a_broker_that_was_never_there_then_the_run_ends_at_once(tmp_path: Path) -> None:
    class Away(InProcess):
        def submit_many(self, jobs: Any) -> None:
            raise BrokerUnavailable("no")

    with pytest.raises(BrokerUnavailable):
        run(asked(listed(tmp_path, 10), output=tmp_path / "out.csv"), Away())


def test_given_no_patience_then_an_outage_ends_the_run_and_its_rows_are_kept(
    tmp_path: Path,
) -> None:
    output, service = tmp_path / "out.jsonl", Flaky()
    request = asked(listed(tmp_path, 100, {}), output=output, patience_s=0.0)

    with pytest.raises(BrokerUnavailable):
        run(request, service)

    assert 0 <= len(rows(output)) < 100
    service.calls = 9
    run(asked(listed(tmp_path, 100, {}), output=output, resume=True, patience_s=0.0), service)
    assert sorted(row["index"] for row in rows(output)) == list(range(100))


def test_given_a_service_that_forgot_a_chunk_then_it_is_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(InProcess):
        emptied = False

        def submit_many(self, jobs: Any) -> None:
            super().submit_many(jobs)
            if not self.emptied:  # Redis came back empty
                self.emptied = True
                self.store._entries.clear()
                self._waiting.clear()

    monkeypatch.setattr("producer.manifest.run.CHECK_S", 0.0)
    output = tmp_path / "out.jsonl"

    run(asked(listed(tmp_path, 30, {}), output=output), Forgetful(random.Random(2)))

    assert sorted(row["index"] for row in rows(output)) == list(range(30))


def test_given_a_chunk_that_ends_while_it_waits_to_be_sent_again_then_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Emptied(InProcess):
        """Redis forgets the first chunk, whose worker ends it while the broker is away."""

        calls = 0

        def submit_many(self, jobs: Any) -> None:
            self.calls += 1
            if self.calls == 2:
                self.work(1)
                raise BrokerUnavailable("The broker cannot be reached: no.")
            super().submit_many(jobs)

        def status(self, job_id: str) -> Any:
            return None if self.calls == 1 and job_id.endswith(".0") else super().status(job_id)

        def tick(self) -> None:
            if self.calls > 2:
                self.work(1)

    monkeypatch.setattr("producer.manifest.run.CHECK_S", 0.0)
    service, output = Emptied(), tmp_path / "out.jsonl"
    monkeypatch.setattr(service, "_rng", random.Random(0))
    monkeypatch.setattr(service._rng, "shuffle", lambda _: None)

    run(asked(listed(tmp_path, 40, {}), output=output), service)

    assert sorted(row["index"] for row in rows(output)) == list(range(40))


def test_given_a_table_that_is_damaged_then_all_that_was_sent_before_has_its_rows(
    tmp_path: Path,
) -> None:
    source, output = tmp_path / "refs.parquet", tmp_path / "out.jsonl"
    table = pyarrow.table({"url": [uri(n) for n in range(6_000)]})
    pyarrow.parquet.write_table(table, source, row_group_size=2_000, compression="zstd")
    third = pyarrow.parquet.read_metadata(source).row_group(2).column(0)
    with source.open("r+b") as file:
        file.seek(third.dictionary_page_offset or third.data_page_offset)
        file.write(b"\xff" * 200)
    service, progress = InProcess(random.Random(3)), Quiet()

    with pytest.raises(ValueError, match=r"cannot be read after row 3072: .*\S$"):
        run(asked(source, output=output, size=64, in_flight=20), service, progress=progress)

    assert {row["image"] for row in rows(output)} == set(service.images)
    assert len(service.images) == 3_072
    assert "The chunks in flight are waited for." in progress.said[-1]


def test_given_workers_that_take_nothing_then_people_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(InProcess):
        looks = 0

        def tick(self) -> None:
            self.looks += 1
            if self.looks > 5:
                super().tick()

    monkeypatch.setattr("producer.manifest.run.CHECK_S", 0.0)
    late, prompt = Quiet(), Quiet()
    source = listed(tmp_path, 30, {})

    run(asked(source, output=tmp_path / "a.csv"), Late(random.Random(2)), progress=late)
    run(asked(source, output=tmp_path / "b.csv", in_flight=1), InProcess(), progress=prompt)

    assert set(late.said) == {"No worker takes the chunks in flight. Is one running?"}
    assert prompt.said == []


@pytest.mark.parametrize(
    ("words", "total"), [(("photos",), 9), (("photos/*.jpg", uri(0)), 10), (("-",), None)]
)
def test_given_a_folder_or_a_pattern_then_its_images_are_counted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], total: int | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for n in range(9):
        (tmp_path / "photos" / f"{n}.jpg").touch()
    counted = threading.Event()

    class Expecting(Quiet):
        def expect(self, total: int) -> None:
            super().expect(total)
            counted.set()

    class Waiting(InProcess):
        def submit_many(self, jobs: Any) -> None:
            assert counted.wait(5)
            super().submit_many(jobs)

    progress = Expecting()
    service = Waiting() if total else InProcess()
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.BytesIO(uri(0).encode()))
    with Session(asked(words[0], sources=words), SETTINGS) as session:
        session.run(service, progress, Interrupt())

    assert progress._total == total
    assert session.counts == Counter(succeeded=total or 1)


def test_given_a_run_that_ended_and_no_output_then_resuming_says_so(tmp_path: Path) -> None:
    source, output = listed(tmp_path, 20), tmp_path / "out.jsonl"
    run(asked(source, output=output))
    output.unlink()

    with pytest.raises(CannotResume, match=r"out.jsonl is not there any more"):
        run(asked(source, output=output, resume=True))
    run(asked(source, output=output, overwrite=True))
    assert len(rows(output)) == 20


def test_given_a_run_that_ended_then_resuming_it_does_nothing(tmp_path: Path) -> None:
    source, output = listed(tmp_path, 20), tmp_path / "out.jsonl"
    first = run(asked(source, output=output))
    before = output.read_bytes()
    service = InProcess()

    assert run(asked(source, output=output, resume=True), service) == first
    assert not service.answered
    assert output.read_bytes() == before


def test_given_nothing_to_resume_then_a_run_begins(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"

    run(asked(listed(tmp_path, 5), output=output, resume=True))

    assert len(rows(output)) == 5


def test_given_output_that_is_there_then_it_is_neither_added_to_nor_replaced(
    tmp_path: Path,
) -> None:
    source, output = listed(tmp_path, 5), tmp_path / "out.jsonl"
    output.write_text("mine\n")

    with pytest.raises(ValueError, match="is there: --resume goes on with it, --overwrite"):
        run(asked(source, output=output))
    with pytest.raises(CannotResume, match="has no journal beside it"):
        run(asked(source, output=output, resume=True))
    assert output.read_text() == "mine\n"
    assert not (tmp_path / "out.jsonl.journal").exists()

    run(asked(source, output=output, overwrite=True))
    assert len(rows(output)) == 5


def test_given_output_of_another_kind_then_nothing_is_begun(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    (tmp_path / "a.parquet").touch()

    with pytest.raises(ValueError, match=r"a.jsonl is a folder: give the name of a file"):
        run(asked(listed(tmp_path, 5), output=tmp_path / "a.jsonl"))
    with pytest.raises(ValueError, match=r"a.parquet is a file: Parquet goes to a folder of parts"):
        run(asked(tmp_path / "refs.jsonl", output=tmp_path / "a.parquet", overwrite=True))
    assert not list(tmp_path.glob("*.journal"))


Change = Callable[[str], str]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("/1.jpg", "/x.jpg"), id="a done row"),
        pytest.param(lambda text: text.replace("/90.jpg", "/x.jpg"), id="a row to come"),
        pytest.param(lambda text: text + '{"url": "https://a.example/"}\n', id="longer"),
        pytest.param(lambda text: text[:400], id="shorter"),
    ],
)
def test_given_other_content_under_the_same_name_then_resuming_is_refused(
    tmp_path: Path, power_cut: Callable[..., InProcess], change: Change
) -> None:
    source, output = listed(tmp_path, 100, {}), tmp_path / "out.jsonl"
    power_cut(asked(source, output=output), 12_000)
    before, kept = source.read_bytes(), output.read_bytes()
    source.write_text(change(source.read_text()))
    service = InProcess()

    with pytest.raises(CannotResume, match="has changed since the run began"):
        run(asked(source, output=output, resume=True), service)
    assert not service.answered
    assert output.read_bytes() == kept

    source.write_bytes(before)  # and touched, which changes nothing
    run(asked(source, output=output, resume=True))
    assert len(rows(output)) == 100


@pytest.mark.parametrize("name", ["000.jpg", "zzz.jpg", None])
def test_given_a_folder_that_has_changed_then_done_chunks_tell(
    tmp_path: Path, power_cut: Callable[..., InProcess], name: str | None
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(100):
        (folder / f"{n:02}.jpg").touch()
    output = tmp_path / "out.jsonl"
    power_cut(asked(folder, output=output), 12_000)
    if name is None:
        for n in range(50, 100):
            (folder / f"{n:02}.jpg").unlink()
        for n in range(20):
            (folder / f"{n:02}.jpg").unlink()
    else:
        (folder / name).touch()

    if name == "zzz.jpg":  # behind all that was sent: it is captioned as well
        run(asked(folder, output=output, resume=True))
        assert len(rows(output)) == 101
    else:
        with pytest.raises(CannotResume, match="The source has"):
            run(asked(folder, output=output, resume=True))


def test_given_other_options_then_resuming_is_refused_and_they_are_named(
    tmp_path: Path, power_cut: Callable[..., InProcess]
) -> None:
    source, output = listed(tmp_path, 100), tmp_path / "out.jsonl"
    power_cut(asked(source, output=output), 6_000)
    chunk = CHUNK.model_copy(update={"options": CaptionOptions(num_beams=5)})

    with pytest.raises(CannotResume, match=r"other options \(chunk, options, ordered\)"):
        run(asked(source, output=output, resume=True, size=8, ordered=True, chunk=chunk))


def test_given_output_that_was_cut_short_then_resuming_is_refused(
    tmp_path: Path, power_cut: Callable[..., InProcess]
) -> None:
    source, output = listed(tmp_path, 100), tmp_path / "out.jsonl"
    power_cut(asked(source, output=output), 12_000)
    output.write_bytes(output.read_bytes()[:100])

    with pytest.raises(CannotResume, match="is shorter than when the run was interrupted"):
        run(asked(source, output=output, resume=True))


def test_given_csv_then_it_has_one_head_and_alternatives_as_json(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"

    run(asked(listed(tmp_path, 9, {0: ""}), output=output))

    text = output.read_text()
    own = "caption,language,score,mean_logprob,itm_probability,alternatives,"
    assert text.startswith(f"index,source,image,state,{own}")
    assert text.count("index,source") == 1
    assert json.loads(rows(output)[1]["alternatives"]) == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"output": Path("out.xlsx")}, "out.xlsx: the output is one of .jsonl"),
        ({"resume": True}, "Only a run with -o or --beside can be resumed"),
        ({"skip_existing": True}, "--skip-existing goes with --beside"),
        ({"output": Path("o.csv"), "journal": Path("o.csv")}, "name the same file"),
        ({"resume": True, "overwrite": True, "output": Path("o.csv")}, "--overwrite starts anew"),
        ({"beside": True, "chunk": CHUNK.model_copy(update={"sink": "s3://a/"})}, "With --sink"),
    ],
)
def test_given_options_that_exclude_each_other_then_nothing_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run(asked(listed(tmp_path, 5), **fields))
    assert [path.name for path in tmp_path.iterdir()] == ["refs.jsonl"]
