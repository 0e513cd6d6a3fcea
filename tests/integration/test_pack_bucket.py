"""Packs in a bucket: copied whole or not at all, checked, bounded, and replaced by newer ones."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from producer.contract import ErrorCode
from tests.packs import BASE, write_caption_pack
from tests.servers import Reply, ScriptedHttp
from worker.blip import Engine
from worker.embedded_s3 import S3Server
from worker.errors import Fault
from worker.packs.bucket import BucketPlace
from worker.packs.library import Packs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Path]]:
    folder = tmp_path_factory.mktemp("s3")
    with S3Server(folder) as server:
        yield server, folder


@pytest.fixture
def make(
    server: tuple[S3Server, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., BucketPlace]]:
    """A place in a bucket of the test's own; `make.bucket` is that bucket's folder."""
    s3, root = server
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    bucket = root / tmp_path.name.replace("_", "-").lower()
    bucket.mkdir()
    made: list[BucketPlace] = []

    def build(prefix: str = "packs/", max_bytes: int = 10**7, endpoint: str = "") -> BucketPlace:
        uri = f"s3://{bucket.name}/{prefix}"
        made.append(BucketPlace(uri, tmp_path / "cache", max_bytes, endpoint or s3.endpoint_url))
        return made[-1]

    build.bucket = bucket  # type: ignore[attr-defined]
    yield build
    for place in made:
        place.close()
    shutil.rmtree(bucket)


def copies(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.name in ("de", "fr"))


def test_given_packs_in_a_bucket_then_they_are_listed_by_their_cards_and_copied_when_opened(
    make: Any, tmp_path: Path
) -> None:
    pack = write_caption_pack(make.bucket / "packs" / "de", "de", "de")
    write_caption_pack(make.bucket / "packs" / "fr", "fr", "fr")
    write_caption_pack(make.bucket / "packs" / "deeper" / "zh", "zh", "zh")
    (make.bucket / "packs" / "notes.txt").write_text("no pack")
    (pack / "more").mkdir()
    (pack / "more" / "file").write_text("no part of it")
    place = make()
    german, french = place.listed()
    assert (german.name, german.language, german.why_not) == ("de", "de", None)
    files = [path for path in pack.iterdir() if path.is_file()]
    assert german.bytes == sum(path.stat().st_size for path in files)
    assert french.where == f"s3://{make.bucket.name}/packs/fr"
    assert copies(tmp_path / "cache") == []
    with german.opened() as folder:
        assert folder.name == "de"
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
            path.name: path.read_bytes() for path in files
        }
    assert copies(tmp_path / "cache") == ["de"]


def test_given_a_prefix_that_is_a_pack_itself_then_it_is_one(make: Any) -> None:
    write_caption_pack(make.bucket / "german", "de", "de")
    [found] = make("german/").listed()
    assert found.name == "de"


def test_given_a_worker_then_packs_of_a_bucket_answer_and_are_copied_once(
    make: Any, tmp_path: Path
) -> None:
    write_caption_pack(make.bucket / "packs" / "de", "de", "de", article="ein")
    engine = Engine.load(BASE, tasks=["caption"])
    shelves = [Packs({"caption": engine}, [make()]) for _ in range(2)]  # as two workers
    for packs in shelves:
        packs.start()
    with ThreadPoolExecutor(8) as pool:
        took = list(pool.map(lambda n: _taken(shelves[n % 2]), range(8)))
    assert {pack.language for pack in took} == {"de"}
    shutil.rmtree(make.bucket / "packs")
    (make.bucket / "packs").mkdir()
    assert _taken(Packs({"caption": engine}, [_Known(shelves[0])])).name == "de"
    for packs in shelves:
        packs.look()
    assert copies(tmp_path / "cache") == []  # out-dated


class _Known:
    """What another worker has listed: its copies are there."""

    where = "known"

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    def listed(self) -> Any:
        return self._packs.listed

    def close(self) -> None:
        pass


def _taken(packs: Packs) -> Any:
    if not packs.listed:
        packs.look()
    found = packs.choose("caption", "de", None)
    assert found is not None
    return packs.take(found)


def test_given_a_newer_pack_then_it_takes_the_place_of_the_older_copy(
    make: Any, tmp_path: Path
) -> None:
    folder = make.bucket / "packs" / "de"
    write_caption_pack(folder, "de", "de", article="ein")
    place = make()
    [older] = place.listed()
    with older.opened() as at:
        shutil.rmtree(folder)
        write_caption_pack(folder, "de", "de", article="eine")
        [newer] = place.listed()
        assert (at / "pack.json").is_file()  # it is being read
    assert newer.stamp != older.stamp
    place.listed()
    assert copies(tmp_path / "cache") == []
    with newer.opened() as at:
        assert "eine" in (at / "tokenizer.json").read_text(encoding="utf-8")


def test_given_a_copy_that_is_damaged_then_it_is_made_anew(make: Any, tmp_path: Path) -> None:
    write_caption_pack(make.bucket / "packs" / "de", "de", "de")
    [found] = make().listed()
    with found.opened() as at:
        whole = (at / "adapter_model.safetensors").read_bytes()
        (at / "adapter_model.safetensors").write_bytes(whole[:-1] + b"?")
    with found.opened() as at:
        assert (at / "adapter_model.safetensors").read_bytes() == whole


def test_given_a_pack_larger_than_is_allowed_then_it_is_listed_as_unusable(make: Any) -> None:
    write_caption_pack(make.bucket / "packs" / "de", "de", "de")
    [found] = make(max_bytes=10_000).listed()
    assert "10000 are the most" in str(found.why_not)


def test_given_a_bucket_that_is_not_there_then_listing_says_so(make: Any) -> None:
    place = make()
    place._bucket = "absent"
    with pytest.raises(Fault) as caught:
        place.listed()
    assert caught.value.code is ErrorCode.S3_NOT_FOUND


LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>"""
OBJECT = "<Contents><Key>{}</Key><ETag>&quot;{}&quot;</ETag><Size>{}</Size></Contents>"


def listing(files: dict[str, bytes], **told: str) -> bytes:
    rows = (
        OBJECT.format(key, told.get("etag") or hashlib.md5(data).hexdigest(), len(data))
        for key, data in files.items()
    )
    return LISTING.format("".join(rows)).encode()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        pytest.param(Reply(200, b"other"), ErrorCode.BODY_INCOMPLETE, id="other-bytes"),
        pytest.param(Reply(200, b"tens"), ErrorCode.BODY_INCOMPLETE, id="fewer-bytes"),
        pytest.param(Reply(200, b"more bytes"), ErrorCode.BODY_TOO_LARGE, id="more-bytes"),
        pytest.param(Reply(200, b"tenso", truncate_at=2), ErrorCode.BODY_INCOMPLETE, id="cut"),
        pytest.param(Reply(404), ErrorCode.S3_NOT_FOUND, id="gone"),
        pytest.param(Reply(500), ErrorCode.S3_UNAVAILABLE, id="away"),
    ],
)
def test_given_a_file_that_does_not_come_as_it_was_listed_then_there_is_no_copy(
    make: Any, tmp_path: Path, reply: Reply, code: ErrorCode
) -> None:
    card = (write_caption_pack(tmp_path / "de", "de", "de") / "pack.json").read_bytes()
    name = make.bucket.name
    files = {"packs/de/pack.json": card, "packs/de/adapter_model.safetensors": b"tenso"}
    routes = {
        f"/{name}": [Reply(200, listing(files))],
        f"/{name}/packs/de/pack.json": [Reply(200, card)],
        f"/{name}/packs/de/adapter_model.safetensors": [reply],
    }
    with ScriptedHttp(routes) as server:
        [found] = make(endpoint=server.url("")).listed()
        with pytest.raises(Fault) as caught, found.opened():
            pytest.fail("there is nothing to open")
    assert caught.value.code is code
    assert copies(tmp_path / "cache") == []


def test_given_a_card_that_s3_refuses_then_its_pack_alone_cannot_be_used(
    make: Any, tmp_path: Path
) -> None:
    cards = {
        f"packs/{name}/pack.json": (
            write_caption_pack(tmp_path / name, name, name) / "pack.json"
        ).read_bytes()
        for name in ("de", "fr")
    }
    bucket = f"/{make.bucket.name}"
    routes = {
        bucket: [Reply(200, listing(cards))],
        f"{bucket}/packs/de/pack.json": [Reply(403), Reply(200, cards["packs/de/pack.json"])],
        f"{bucket}/packs/fr/pack.json": [Reply(200, cards["packs/fr/pack.json"])],
    }
    with ScriptedHttp(routes) as server:
        place = make(endpoint=server.url(""))
        assert [(one.name, one.why_not) for one in place.listed()] == [
            ("de", "pack.json cannot be had: s3_denied"),
            ("fr", None),
        ]
        assert [one.why_not for one in place.listed()] == [None, None]  # it may be read now


def test_given_a_card_that_is_too_large_then_the_reason_says_so(make: Any) -> None:
    folder = make.bucket / "packs" / "de"
    write_caption_pack(folder, "de", "de")
    (folder / "pack.json").write_bytes(b" " * 1_048_577)
    [found] = make().listed()
    assert found.why_not == "pack.json has 1048577 bytes, and 1048576 are the most"


def test_given_folders_called_as_what_a_copy_holds_then_they_are_packs_like_others(
    make: Any,
) -> None:
    for name in ("sums.json", "made"):
        write_caption_pack(make.bucket / "packs" / name, "de", "de")
    for found in make().listed():
        with found.opened() as at:
            assert (at / "pack.json").is_file()


def test_given_copies_that_others_are_making_then_cleaning_up_does_not_stumble_over_them(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_caption_pack(make.bucket / "packs" / "de", "de", "de")
    place = make()
    [found] = place.listed()
    with found.opened():
        pass
    [cache] = (tmp_path / "cache").iterdir()
    (cache / ".being-made").symlink_to(tmp_path / "renamed")  # what it was is no more there
    assert [one.name for one in place.listed()] == ["de"]


def test_given_an_upload_in_parts_then_its_etag_is_not_taken_for_its_md5(
    make: Any, tmp_path: Path
) -> None:
    card = (write_caption_pack(tmp_path / "de", "de", "de") / "pack.json").read_bytes()
    name = make.bucket.name
    routes = {
        f"/{name}": [Reply(200, listing({"packs/de/pack.json": card}, etag="0" * 32 + "-2"))],
        f"/{name}/packs/de/pack.json": [Reply(200, card)],
    }
    with ScriptedHttp(routes) as server:
        [found] = make(endpoint=server.url("")).listed()
        with found.opened() as at:
            assert (at / "pack.json").read_bytes() == card


@pytest.mark.parametrize("key", ["packs/../../etc/pack.json", "packs/.hidden/pack.json"])
def test_given_keys_that_are_no_names_of_files_then_they_are_no_packs(make: Any, key: str) -> None:
    with ScriptedHttp({f"/{make.bucket.name}": [Reply(200, listing({key: b"{}"}))]}) as server:
        assert make(endpoint=server.url("")).listed() == []
