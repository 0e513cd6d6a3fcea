"""An index in a bucket, and shards read from one: a real S3 server.

Not `optimize`, which asks for parts of objects that are the whole: this server, unlike others, then
does not say that it sends a part, which LanceDB refuses.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.index.entry import Entry, LeftOut
from producer.index.place import Place
from producer.index.results import Results
from producer.index.table import IndexUnavailable, NoIndex, VectorIndex
from producer.manifest.bucket import ListingFailed
from tests.index_entries import embedding, entry, item, vector
from worker.embedded_s3 import S3Server
from worker.shard import encoded


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Path]]:
    root = tmp_path_factory.mktemp("s3")
    (root / "team").mkdir()
    with S3Server(root, "access", "5ecret") as server:
        yield server, root


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "5ecret")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # which keeps those of other tests


def test_given_a_bucket_then_an_index_in_it_is_built_once_and_searched_by_others(
    s3: tuple[S3Server, Path],
) -> None:
    place = Place("s3://team/an/index/", s3[0].endpoint_url)
    with pytest.raises(NoIndex):
        VectorIndex(place).stats()
    index = VectorIndex(place)
    index.upsert([entry(n) for n in range(30)])
    index.upsert([entry(n) for n in range(20, 40)])

    other = VectorIndex(place)
    assert other.stats().rows == 40
    (hit,) = other.nearest(embedding(vector(33)), 1)
    assert hit.image_ref == "s3://photos/33.png"
    assert (s3[1] / "team" / "an" / "index").is_dir()


@pytest.mark.parametrize(
    ("uri", "key"), [("s3://nowhere/index/", "5ecret"), ("s3://team/an/index/", "guessed")]
)
def test_given_a_bucket_that_cannot_be_had_then_the_place_is_said_and_no_secret(
    s3: tuple[S3Server, Path], monkeypatch: pytest.MonkeyPatch, uri: str, key: str
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    with pytest.raises(IndexUnavailable) as fault:
        VectorIndex(Place(uri, s3[0].endpoint_url)).upsert([entry(1)])
    assert uri in str(fault.value)
    assert key not in str(fault.value)


def test_given_shards_below_a_prefix_then_each_image_of_them_is_a_row(
    s3: tuple[S3Server, Path],
) -> None:
    server, root = s3
    folder = root / "team" / "run 7"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(encoded([item(1), item(2, embeddings=None)], "jsonl"))
    (folder / "b.parquet").write_bytes(encoded([item(3)], "parquet"))
    (folder / "cat.png").write_bytes(b"not a result")

    one, without, other = Results(("s3://team/run%207/",), server.endpoint_url)
    (again,) = Results(("s3://team/run%207/b.parquet",), server.endpoint_url)

    assert without is LeftOut.WITHOUT_EMBEDDING
    assert isinstance(one, Entry)
    assert isinstance(other, Entry)
    assert (one.job_id, other.job_id) == ("a", "b")
    assert one.captioned_at is not None
    assert again == other


def test_given_a_bucket_that_is_not_there_then_reading_it_fails_with_what_s3_said(
    s3: tuple[S3Server, Path],
) -> None:
    with pytest.raises(ListingFailed, match="NoSuchBucket"):
        list(Results(("s3://nowhere/run/",), s3[0].endpoint_url))
