"""What of results becomes rows of an index: by kind, from files of every kind."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from producer.contract import (
    EmbedChunk,
    Embedding,
    ErrorCode,
    ItemResult,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    RegionCaptions,
)
from producer.index.entry import Entry, LeftOut, entries_of
from producer.index.filling import Filling
from producer.index.results import Results
from producer.index.table import IndexUnavailable, VectorIndex
from producer.manifest.flags import ANY_IMAGE
from producer.manifest.kinds import rows_of
from producer.manifest.reference import Reference
from producer.manifest.session import opened_output
from tests.index_entries import MODEL, caption, entry, item, vector
from worker.shard import encoded

AT = datetime(2026, 1, 31, tzinfo=UTC)
FAILED = item(
    5,
    state=JobState.FAILED,
    captions=None,
    embeddings=None,
    error=JobError.of(JobFailed(ErrorCode.HTTP_4XX)),
)
ZERO = Embedding.of([0.0] * 8, "float32", *MODEL)
REFUSED = caption("a cat a cat", rejected=True, reject_reasons=("repetition",))


def result(**fields: Any) -> JobResult:
    named = {"job_id": "j", "task": "caption", "state": "succeeded", "attempts": 1}
    return JobResult.model_validate(
        named | {"state": JobState.SUCCEEDED, "finished_at": AT} | fields
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(item(1), "a picture of 1", id="captioned and embedded"),
        pytest.param(item(1, captions=None), None, id="embedded alone"),
        pytest.param(item(1, captions=(REFUSED,), abstained=True), None, id="all refused"),
        pytest.param(FAILED, LeftOut.FAILED, id="failed"),
        pytest.param(item(1, embeddings=None), LeftOut.WITHOUT_EMBEDDING, id="no embedding"),
        pytest.param(item(1, embeddings=(ZERO,)), LeftOut.WITHOUT_EMBEDDING, id="no direction"),
        pytest.param(item(1, image_ref=None), LeftOut.WITHOUT_EMBEDDING, id="no image"),
        pytest.param(item(1, image_ref="cat.jpg"), LeftOut.UNREADABLE, id="no reference"),
    ],
)
def test_given_what_became_of_an_image_then_it_is_a_row_or_left_out_for_a_reason(
    found: ItemResult, expected: str | LeftOut | None
) -> None:
    made = Entry.of(found, "j", AT)
    if isinstance(expected, LeftOut):
        assert made is expected
        return
    assert isinstance(made, Entry)
    assert made.caption == expected
    assert (made.model, made.revision, made.job_id, made.captioned_at) == (*MODEL, "j", AT)
    assert (made.width, made.height, made.sha256) == (4, 3, f"{1:064x}")
    assert made.vector.tolist() == pytest.approx(vector(1).tolist(), abs=1e-3)


def test_given_a_jobs_result_then_each_of_its_images_is_told_of() -> None:
    of_one = {"image_ref": "s3://photos/1.png", "embeddings": item(1).embeddings}
    whole = RegionCaptions(box=(0, 0, 1, 1), captions=(caption("a"),))
    cases: list[tuple[dict[str, Any], list[type | LeftOut]]] = [
        (of_one, [Entry]),
        (of_one | {"regions": (whole,)}, [LeftOut.WITHOUT_EMBEDDING]),
        ({"items": (item(0), FAILED)}, [Entry, LeftOut.FAILED]),
        ({"shard": "s3://b/a.jsonl"}, [LeftOut.IN_SHARDS]),
        ({"state": JobState.FAILED}, [LeftOut.FAILED]),
    ]
    for fields, expected in cases:
        found = list(entries_of(result(**fields)))
        assert [one if isinstance(one, LeftOut) else type(one) for one in found] == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {"sha256": "1"}, True),
        ({"image_ref": "https://a.example/i", "sha256": "1"}, {"sha256": "1"}, False),
        (
            {"image_ref": "https://a.example/i", "sha256": "1"},
            {"image_ref": "https://a.example/i", "sha256": "2"},
            False,
        ),
        (
            {"image_ref": "https://a.example/i", "sha256": "1"},
            {"image_ref": "https://a.example/i", "sha256": "1", "caption": "a cat"},
            True,
        ),
    ],
)
def test_given_two_results_then_they_are_of_one_row_when_they_are_of_one_image(
    one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    assert (entry(1, **one).id == entry(1, **other).id) == same


def read(*words: Any, said: list[str] | None = None) -> list[Entry | LeftOut]:
    told: list[str] = []
    found = list(Results(tuple(map(str, words)), say=(told if said is None else said).append))
    if said is None:
        assert told == []
    return found


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_given_shards_as_workers_write_them_then_each_image_is_a_row(
    tmp_path: Path, kind: Any
) -> None:
    (tmp_path / "below").mkdir()
    path = tmp_path / "below" / f"run-7.0001.{kind}"
    path.write_bytes(encoded([item(1), FAILED, item(2, captions=(REFUSED,))], kind))
    (tmp_path / ".hidden.jsonl").write_text("not a result")
    (tmp_path / "notes.txt").write_text("not a result")

    for word in (tmp_path, path, path.as_uri(), f"{tmp_path.as_uri()}/"):
        one, failed, other = read(word)
        assert failed is LeftOut.FAILED
        assert isinstance(one, Entry)
        assert isinstance(other, Entry)
        assert (one.caption, other.caption) == ("a picture of 1", None)
        assert one.job_id == "run-7.0001"
        assert one.captioned_at == datetime.fromtimestamp(path.stat().st_mtime, UTC)
        assert one.vector.tolist() == pytest.approx(vector(1).tolist(), abs=1e-3)


def test_given_lines_of_all_kinds_then_those_that_say_nothing_are_told_by_their_place(
    tmp_path: Path,
) -> None:
    row = {"index": 0, "source": "a.csv:2", "image": "a.png", "attempts": 1, "code": None}
    lines = [
        result(items=(item(1), item(2))).model_dump_json(),
        "",
        "{damaged",
        json.dumps(row),
        json.dumps(row | {"code": "http_4xx"}),
        json.dumps([1]),
        item(3).model_dump_json(),
        item(4).model_dump_json().replace('"encoding":"float16"', '"encoding":"float8"'),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    said: list[str] = []

    found = read(tmp_path / "a.jsonl", said=said)

    assert Counter(one for one in found if isinstance(one, LeftOut)) == {
        LeftOut.UNREADABLE: 3,
        LeftOut.WITHOUT_EMBEDDING: 1,
        LeftOut.FAILED: 1,
    }
    assert [one.image_ref[-5:] for one in found if isinstance(one, Entry)] == [
        "1.png", "2.png", "3.png",
    ]  # fmt: skip
    assert [sentence.split(": ")[0].rpartition("/")[2] for sentence in said] == [
        f"a.jsonl, row {n}" for n in (3, 6, 8)
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_given_rows_that_embed_wrote_then_each_image_that_can_be_named_is_a_row(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = EmbedChunk(images=ANY_IMAGE, encoding="list" if kind == "parquet" else "float16")
    (tmp_path / "here.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    given = ["https://a.example/1.png?key=x", "here.png", "gone.png"]
    items = tuple(
        item(n, embeddings=(Embedding.of(vector(n), chunk.encoding, *MODEL),), captions=None)
        for n in range(3)
    )
    rows = rows_of(chunk)
    asked = [(n, Reference(f"list.txt:{n}", one)) for n, one in enumerate(given)]
    output = opened_output(tmp_path / f"out.{kind}", rows.columns)
    output.cut(0)
    output.write(rows.answered(("",) * 3, asked, result(items=items)))
    output.commit()
    output.close()

    one, here, gone = read(tmp_path / f"out.{kind}")

    assert isinstance(one, Entry)
    assert isinstance(here, Entry)
    assert one.image_ref == "https://a.example/1.png"
    assert (one.job_id, one.sha256, one.width, one.height) == ("j", f"{0:064x}", 4, 3)
    assert one.vector.tolist() == pytest.approx(vector(0).tolist(), abs=1e-3)
    assert here.image_ref == (tmp_path / "here.png").as_uri()
    assert gone is LeftOut.WITHOUT_EMBEDDING


def test_given_a_file_that_is_no_parquet_then_it_is_told_and_the_next_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really PAR1")
    (tmp_path / "b.jsonl").write_bytes(encoded([item(1)], "jsonl"))
    said: list[str] = []

    found = read(tmp_path, said=said)

    assert found[0] is LeftOut.UNREADABLE
    assert isinstance(found[1], Entry)
    assert "a.parquet" in said[0]


@pytest.mark.parametrize("word", ["nowhere/", "file:///nowhere-at-all/", __file__])
def test_given_a_word_that_names_no_results_then_it_is_refused_at_once(word: str) -> None:
    with pytest.raises(ValueError, match="no file of results"):
        Results((word,))


def test_given_entries_then_they_are_added_many_at_a_time_and_what_was_left_out_is_told(
    index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.index.filling.BATCH_ROWS", 3)
    filling = Filling(index, clock_s=lambda: 0.0)
    for number in range(7):
        filling.take(entry(number % 6))
        if filling.due:
            filling.flush()
    filling.take(LeftOut.WITHOUT_EMBEDDING)
    assert (filling.new, filling.empty) == (6, False)
    filling.finish()

    assert index.stats().rows == 6
    assert filling.document() == {
        "index": index.place.uri,
        "new": 6,
        "replaced": 1,
        "left_out": {"without_embedding": 1},
        "not_optimized": None,
    }
    assert "left out: 1 without an embedding" in filling.words()


def test_given_an_index_that_cannot_be_optimized_then_rows_are_added_and_it_is_told(
    index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conflict(index: VectorIndex) -> bool:
        raise IndexUnavailable("another writer was first")

    monkeypatch.setattr(VectorIndex, "optimize_when_due", conflict)
    filling = Filling(index)
    filling.take(entry(1))
    filling.finish()

    assert index.stats().rows == 1
    assert "another writer was first" in filling.words()


def test_given_entries_that_wait_then_they_are_due_after_a_while(index: VectorIndex) -> None:
    now_s = [0.0]
    filling = Filling(index, clock_s=lambda: now_s[0])
    now_s[0] = 100.0
    assert not filling.due
    filling.take(entry(1))
    assert not filling.due
    now_s[0] = 111.0
    assert filling.due
