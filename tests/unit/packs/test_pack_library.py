"""The packs of a worker: looked at again, judged, pinned, and wrong ones that harm nobody."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer.contract import ErrorCode
from tests.packs import BASE, base_card, write_caption_pack, write_match_pack
from worker.blip import Engine
from worker.blip.pack_card import Base
from worker.errors import Fault
from worker.packs import library
from worker.packs.choice import Unavailable
from worker.packs.folder import FolderPlace
from worker.packs.found import Found
from worker.packs.library import Packs, PacksMissing


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(BASE, tasks=["caption"])


@pytest.fixture
def make(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Packs] = []

    def build(*places: Any, look_again_s: float = 0, **options: Any) -> Packs:
        monkeypatch.setattr(library, "LOOK_AGAIN_S", look_again_s)
        packs = Packs({"caption": engine}, places, **options)
        made.append(packs)
        packs.start()
        return packs

    yield build
    for packs in made:
        packs.close()


def test_given_a_pack_that_comes_later_then_it_is_found_when_it_is_asked_for(
    make: Any, tmp_path: Path
) -> None:
    packs = make(FolderPlace(tmp_path))
    with pytest.raises(Unavailable):
        packs.choose("caption", "de", None)
    write_caption_pack(tmp_path / "german", "de", "de")
    found = packs.choose("caption", "de", None)
    assert packs.take(found).language == "de"
    shutil.rmtree(tmp_path / "german")
    packs.look()
    with pytest.raises(Unavailable):
        packs.choose("caption", "de", None)
    assert packs.shelf.names == []


def test_given_a_folder_beside_packs_that_cannot_be_read_then_they_are_served_all_the_same(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_caption_pack(tmp_path / "german", "de", "de")
    for name in ("gone", "lost+found"):
        write_caption_pack(tmp_path / name, name[:4], "fr")
    is_file = Path.is_file

    def told(path: Path) -> bool:
        if path.parent.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        if path.parent.name == "gone" and path.name != "pack.json":
            raise FileNotFoundError(2, "No such file or directory")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", told)
    packs = make(FolderPlace(tmp_path))
    assert [(one.name, one.why_not) for one in packs.listed] == [
        ("de", None),
        ("lost+found", "it cannot be read: Permission denied"),
    ]
    assert packs.choose("caption", "de", None).name == "de"


def test_given_many_jobs_for_what_there_is_not_then_places_are_not_looked_at_for_each(
    make: Any,
) -> None:
    looked: list[None] = []

    class Place:
        where = "nowhere"

        def listed(self) -> list[Found]:
            looked.append(None)
            return []

        def close(self) -> None:
            pass

    packs = make(Place(), look_again_s=60)
    for _ in range(100):
        with pytest.raises(Unavailable):
            packs.choose("caption", "de", None)
    assert len(looked) == 2  # at start, and once for these


def test_given_a_pack_that_is_replaced_then_the_new_one_answers(make: Any, tmp_path: Path) -> None:
    write_caption_pack(tmp_path / "de", "de", "de", article="ein")
    packs = make(FolderPlace(tmp_path))
    old = packs.take(packs.choose("caption", "de", None))
    shutil.rmtree(tmp_path / "de")
    write_caption_pack(tmp_path / "de", "de", "de", article="eine")
    packs.look()
    new = packs.take(packs.choose("caption", "de", None))
    assert new.revision != old.revision


def test_given_packs_of_one_name_then_the_first_place_counts(make: Any, tmp_path: Path) -> None:
    for place in ("ours", "theirs"):
        write_caption_pack(tmp_path / place / "de", "de", "de")
    packs = make(FolderPlace(tmp_path / "theirs"), FolderPlace(tmp_path / "ours"))
    assert packs.choose("caption", "de", None).where == str(tmp_path / "theirs" / "de")


def test_given_a_folder_that_is_a_pack_itself_then_it_is_one(make: Any, tmp_path: Path) -> None:
    write_caption_pack(tmp_path / "de", "de", "de")
    assert [one.name for one in make(FolderPlace(tmp_path / "de")).listed] == ["de"]


def _no_json(folder: Path) -> None:
    (folder / "pack.json").write_text("{", encoding="utf-8")


def _hostile_name(folder: Path) -> None:
    card = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    (folder / "pack.json").write_text(json.dumps(card | {"name": "../../x"}), encoding="utf-8")


def _huge_card(folder: Path) -> None:
    (folder / "pack.json").write_text(" " * 2_000_000, encoding="utf-8")


@pytest.mark.parametrize("spoil", [_no_json, _hostile_name, _huge_card])
def test_given_a_card_that_is_none_then_the_pack_is_listed_with_its_reason_and_others_serve(
    make: Any, tmp_path: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_caption_pack(tmp_path / "de", "de", "de")
    spoil(write_caption_pack(tmp_path / "spoilt", "fr", "fr"))
    with caplog.at_level(logging.WARNING):
        packs = make(FolderPlace(tmp_path))
    assert packs.choose("caption", "de", None) is not None
    [spoilt] = [one for one in packs.listed if one.why_not]
    assert spoilt.name == "spoilt"
    assert str(spoilt.why_not) in caplog.text
    with pytest.raises(Unavailable, match="spoilt cannot be used"):
        packs.choose("caption", None, "spoilt")


def test_given_damaged_tensors_then_jobs_fail_with_the_reason_until_the_pack_is_mended(
    make: Any, tmp_path: Path
) -> None:
    folder = write_caption_pack(tmp_path / "de", "de", "de")
    whole = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(whole[:1_000])
    packs = make(FolderPlace(tmp_path))
    for _ in range(3):
        with pytest.raises(Unavailable, match="no readable safetensors file") as caught:
            packs.take(packs.choose("caption", "de", None))
        assert caught.value.code is ErrorCode.LANGUAGE_UNAVAILABLE
    (folder / "adapter_model.safetensors").write_bytes(whole)
    packs.look()
    assert packs.take(packs.choose("caption", "de", None)).name == "de"


def test_given_packs_that_are_pinned_then_they_are_loaded_before_any_job(
    make: Any, tmp_path: Path
) -> None:
    for name in ("de", "fr"):
        write_caption_pack(tmp_path / name, name, name)
    packs = make(FolderPlace(tmp_path), pinned=["fr"])
    assert packs.shelf.loads == {"fr": 1}


def test_given_a_pinned_pack_that_cannot_be_had_then_the_worker_does_not_start(
    make: Any, tmp_path: Path
) -> None:
    write_caption_pack(tmp_path / "zh", "zh", "zh", base=Base("other", "0" * 12, "0" * 64))
    with pytest.raises(PacksMissing, match="no pack is named de"):
        make(FolderPlace(tmp_path), pinned=["de"])
    with pytest.raises(PacksMissing, match=r"zh cannot be preloaded.*trained on other"):
        make(FolderPlace(tmp_path), pinned=["zh"])


def test_given_a_folder_that_is_not_there_then_the_worker_does_not_start_unless_it_may_be_missing(
    make: Any, tmp_path: Path
) -> None:
    with pytest.raises(PacksMissing, match="No such file"):
        make(FolderPlace(tmp_path / "none"))
    assert make(FolderPlace(tmp_path / "none", optional=True)).listed == []


def test_given_a_place_that_is_away_for_a_while_then_what_it_had_stays_known(
    make: Any, tmp_path: Path
) -> None:
    write_caption_pack(tmp_path / "de", "de", "de")
    away = [False]

    class Place(FolderPlace):
        def listed(self) -> list[Found]:
            if away[0]:
                raise Fault(ErrorCode.S3_UNAVAILABLE)
            return super().listed()

    packs = make(Place(tmp_path))
    away[0] = True
    packs.look()
    assert packs.choose("caption", "de", None) is not None


def test_given_a_bucket_that_is_away_at_the_start_then_the_worker_starts_and_looks_again(
    make: Any, tmp_path: Path
) -> None:
    write_caption_pack(tmp_path / "de", "de", "de")
    asked: list[None] = []

    class Place(FolderPlace):
        def listed(self) -> list[Found]:
            asked.append(None)
            if len(asked) == 1:
                raise Fault(ErrorCode.S3_UNAVAILABLE)
            return super().listed()

    assert make(Place(tmp_path)).choose("caption", "de", None) is not None
    asked.clear()
    with pytest.raises(PacksMissing, match=r"no pack is named de; .*: s3_unavailable"):
        make(Place(tmp_path), pinned=["de"])


def test_given_a_pack_of_the_same_weights_by_another_name_then_it_can_be_used(
    make: Any, tmp_path: Path
) -> None:
    elsewhere = Base("hub/blip", "main-of-a-hub", base_card().digest)
    write_caption_pack(tmp_path / "de", "de", "de", base=elsewhere)
    packs = make(FolderPlace(tmp_path))
    assert packs.take(packs.choose("caption", "de", None)).name == "de"


def test_given_a_match_pack_where_nothing_matches_then_it_says_so(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_match_pack(tmp_path / "shop", "shop")
    with caplog.at_level(logging.WARNING):
        packs = make(FolderPlace(tmp_path))
    assert [one.why_not for one in packs.listed] == ["it is for match, which is not served here"]
    assert caplog.text == ""


def test_places_are_looked_at_from_time_to_time(make: Any, tmp_path: Path) -> None:
    packs = make(FolderPlace(tmp_path), every_s=0.02)
    write_caption_pack(tmp_path / "de", "de", "de")
    for _ in range(200):
        if packs.listed:
            return
        packs._ended.wait(0.02)
    pytest.fail("the pack was not found")
