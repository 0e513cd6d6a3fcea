"""What a bare root is made of: which Debian, and what of this machine is seen in it."""

from pathlib import Path

import pytest

from tests.clean_root import places
from tests.image_steps import suite


def test_images_are_made_from_one_debian() -> None:
    assert suite().isalpha()


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        ("/wheels", {"wheels"}),
        ("file:///index/simple https://example.com/simple", {"index"}),
        ("/wheels file:///index", {"wheels", "index"}),
        ("180", set()),
        ("/absent", set()),
    ],
)
def test_files_and_folders_that_pip_is_told_of_are_seen_with_an_index_whole(
    tmp_path: Path, setting: str, seen: set[str]
) -> None:
    """The pages of an index that is a folder link to files beside it."""
    for name in ("wheels", "index/simple"):
        (tmp_path / name).mkdir(parents=True)
    here = setting.replace(" /", f" {tmp_path}/").replace("file://", f"file://{tmp_path}")
    here = f"{tmp_path}{here}" if here.startswith("/") else here
    assert places([here]) == {tmp_path / name for name in seen}
