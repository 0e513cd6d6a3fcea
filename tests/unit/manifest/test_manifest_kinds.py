"""What runs of each kind send, and what their rows say."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from producer.contract import (
    Caption,
    CaptionChunk,
    CaptionFilter,
    EmbedChunk,
    ErrorCode,
    ItemResult,
    JobError,
    JobFailed,
    JobResult,
    JobState,
    MatchChunk,
    RankChunk,
    utcnow,
)
from producer.manifest.chunks import Chunk
from producer.manifest.kinds import Embeddings, Matches, Pairs, rows_of
from producer.manifest.outputs import csv_head, csv_lines, json_lines
from producer.manifest.parts import Parts
from producer.manifest.reference import Reference
from producer.manifest.rows import Rows
from tests.stand_in_model import embedding, match, matches, vector

IMAGES = ("https://a.example/0.jpg?key=secret", "https://a.example/1.jpg")
PAIRS = Pairs(MatchChunk(images=IMAGES[:1], texts_per_image=(("-",),)))


def reference(place: int, caption: str | None = None) -> Reference:
    return Reference(f"x.csv:{place + 2}", IMAGES[place % 2], caption=caption)


def result(*items: ItemResult) -> JobResult:
    state = JobState.SUCCEEDED
    return JobResult(
        job_id="run.0", task="match_chunk", state=state, attempts=1, items=items,
        finished_at=utcnow(),
    )  # fmt: skip


def item(index: int, **said: Any) -> ItemResult:
    return ItemResult(index=index, state=JobState.SUCCEEDED, attempts=1, **said)


def broken(index: int) -> ItemResult:
    error = JobError.of(JobFailed(ErrorCode.HTTP_4XX))
    return ItemResult(index=index, state=JobState.FAILED, attempts=1, error=error)


@pytest.mark.parametrize(
    ("chunk", "own"),
    [
        (
            CaptionChunk(images=IMAGES),
            ["caption", "language", "score", "mean_logprob", "itm_probability", "alternatives"],
        ),
        (EmbedChunk(images=IMAGES), ["embedding", "encoding", "model", "revision"]),
        (
            MatchChunk(images=IMAGES, texts=("a",)),
            ["text", "itm_probability", "itm_logit", "itc_cosine", "score",
             "calibrated_probability", "decision", "matches"],
        ),
        (
            MatchChunk(images=IMAGES, texts_per_image=(("a",), ("b",))),
            ["caption", "itm_probability", "itm_logit", "itc_cosine", "score",
             "calibrated_probability", "decision", "uri"],
        ),
    ],
)  # fmt: skip
def test_given_a_chunk_then_its_kind_says_the_columns(chunk: Any, own: list[str]) -> None:
    columns = list(rows_of(chunk).columns)

    assert columns[:4] == ["index", "source", "image", "state"]
    assert columns[4:-9] == own
    assert columns[-9] == "code"
    (failed,) = rows_of(chunk).answered(IMAGES[:1], [(0, reference(0))], result(broken(0)))
    assert list(failed) == columns
    assert failed["code"] == "http_4xx"


def test_given_a_chunk_of_one_ranking_then_it_has_no_rows() -> None:
    with pytest.raises(TypeError, match="rank_chunk has no rows"):
        rows_of(RankChunk(images=IMAGES, text="a"))


def test_given_pairs_of_the_same_image_then_it_is_sent_once_and_each_pair_has_its_scores() -> None:
    pairs = [reference(n, text) for n, text in enumerate(("a", "b", "c", "d", "a"))]
    images = tuple(one.given for one in pairs)

    job = PAIRS.job("run.0", images, pairs)
    found = PAIRS.answered(
        images,
        list(enumerate(pairs, start=7)),
        result(*(item(n, matches=matches(job.images[n], job.one(n).texts)) for n in range(2))),  # type: ignore[union-attr]
    )

    assert job.images == IMAGES
    assert job.texts_per_image == (("a", "c", "a"), ("b", "d"))  # type: ignore[union-attr]
    assert [row["index"] for row in found] == [7, 8, 9, 10, 11]
    assert [row["caption"] for row in found] == ["a", "b", "c", "d", "a"]
    for row, pair in zip(found, pairs, strict=True):
        expected = match(pair.given, str(pair.caption))
        assert row["score"] == pytest.approx(expected.itm_logit + expected.itc_cosine)
    assert found[0]["uri"] == "https://a.example/0.jpg"


def test_given_an_image_that_failed_then_all_its_pairs_have_and_others_have_not() -> None:
    pairs = [reference(n, text) for n, text in enumerate(("a", "b", "c"))]
    images = tuple(one.given for one in pairs)
    said = result(broken(0), item(1, matches=(match(IMAGES[1], "b"),)))

    found = PAIRS.answered(images, list(enumerate(pairs)), said)

    assert [row["code"] for row in found] == ["http_4xx", None, "http_4xx"]
    assert [row["caption"] for row in found] == ["a", "b", "c"]
    assert found[0]["itm_probability"] is None


def test_given_an_answer_without_a_pairs_text_then_the_pair_has_failed() -> None:
    said = result(item(0, matches=(match(IMAGES[0], "other", index=1),)))

    (row,) = PAIRS.answered(IMAGES[:1], [(0, reference(0, "a"))], said)

    assert row["code"] == "internal_error"


def test_given_several_texts_then_a_row_has_the_best_and_all() -> None:
    rows = Matches(MatchChunk(images=IMAGES, texts=("a", "b")))
    best, other = matches(IMAGES[0], ("a", "b"))

    (row,) = rows.answered(IMAGES[:1], [(0, reference(0))], result(item(0, matches=(best, other))))

    assert (row["text"], row["score"]) == (best.text, best.score)
    assert [one["text"] for one in row["matches"]] == [best.text, other.text]


ROUND_TRIP = [
    (Embeddings(EmbedChunk(images=IMAGES)), item(0, embeddings=(embedding("x"),))),
    (
        Embeddings(EmbedChunk(images=IMAGES, encoding="float16")),
        item(0, embeddings=(embedding("x", "float16"),)),
    ),
    (
        Matches(MatchChunk(images=IMAGES, texts=("a", "b"))),
        item(0, matches=matches(IMAGES[0], ("a", "b"))),
    ),
]


@pytest.mark.parametrize(("rows", "said"), ROUND_TRIP)
def test_given_rows_of_lists_then_each_format_has_them(
    tmp_path: Path, rows: Rows, said: ItemResult
) -> None:
    asked = [(0, reference(0)), (1, reference(1))]
    written = rows.answered(IMAGES, asked, result(said, broken(1)))

    parts = Parts(tmp_path / "out.parquet", rows.columns)
    parts.write(written)
    parts.commit()
    (first, failed) = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    again = [json.loads(line) for line in json_lines(written).splitlines()]
    head, line, _ = (csv_head(rows.columns) + csv_lines(written)).splitlines()

    assert failed["code"] == "http_4xx"
    assert again == json.loads(json.dumps(written))
    assert head.count(",") + 1 == len(rows.columns)
    if isinstance(rows, Matches):
        assert first["matches"] == written[0]["matches"]
        assert '""text"": ' in line  # JSON, quoted by CSV
    elif written[0]["encoding"] == "list":
        assert first["embedding"] == pytest.approx(vector("x"), abs=1e-7)
    else:
        assert first["embedding"] == embedding("x", "float16").base64


def test_given_captions_then_they_tell_chunks_apart_and_without_any_nothing_changes() -> None:
    said = [Chunk(0, 0, (reference(0, caption),)).digest() for caption in (None, "a", "b", "a")]

    assert said[1] == said[3]
    assert len(set(said)) == 3
    assert Chunk(0, 0, (Reference("x:1", "a.jpg"),)).digest() == "b3c95338ee482c93"


def caption(text: str, rejected: bool) -> Caption:
    return Caption(
        text=text, tokens=("a",), token_logprobs=(-1.0,), processed_token_logprobs=(-1.0,),
        logprob=-1.0, mean_logprob=-1.0, score=-1.0, finish_reason="stop",
        itm_probability=0.25 if rejected else 0.75, rejected=rejected,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("captions", "best", "others"),
    [
        ((("a", False), ("b", False), ("c", True)), "a", ["b"]),
        ((("a", True), ("b", True)), None, []),
    ],
)
def test_given_captions_that_were_weighed_then_a_row_has_none_that_was_refused(
    captions: tuple[tuple[str, bool], ...], best: str | None, others: list[str]
) -> None:
    rows = rows_of(CaptionChunk(images=IMAGES, filter=CaptionFilter()))
    weighed = tuple(caption(*one) for one in captions)
    (row,) = rows.answered(IMAGES[:1], [(0, reference(0))], result(item(0, captions=weighed)))

    assert (row["state"], row["caption"], row["alternatives"]) == ("succeeded", best, others)
    assert row["itm_probability"] == (0.75 if best else None)


@pytest.mark.parametrize("caption", ["a\rcat", "a\ncat", "a\r\ncat", '"a", cat\r', "a cat"])
def test_given_a_caption_of_several_lines_then_csv_has_it_in_one_row(caption: str) -> None:
    rows = PAIRS.answered(IMAGES[:1], [(0, reference(0, caption))], result(broken(0)))

    text = csv_head(PAIRS.columns) + csv_lines(rows)
    (row,) = csv.DictReader(io.StringIO(text, newline=""))

    assert (row["caption"], row["code"]) == (caption, "http_4xx")
    assert text.endswith("\n")
    assert not text.endswith("\r\n")
