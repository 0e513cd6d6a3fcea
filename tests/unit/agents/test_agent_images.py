"""What agents may name as images."""

from pathlib import Path

import pytest

from producer.agents.image import Images
from producer.settings import ProducerSettings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "2026").mkdir(parents=True)
    (root / "2026" / "a cat.jpg").write_bytes(b"1")
    (root / "link.jpg").symlink_to(root / "2026" / "a cat.jpg")
    (tmp_path / "photos-of-others").mkdir()
    (tmp_path / "photos-of-others" / "secret.jpg").write_bytes(b"1")
    (root / "out.jpg").symlink_to(tmp_path / "photos-of-others" / "secret.jpg")
    (root / "out").symlink_to(tmp_path / "photos-of-others")
    (root / "round.jpg").symlink_to(root / "round.jpg")
    return root


@pytest.mark.parametrize(
    "named",
    ["https://example.com/a.jpg?key=1", "http://h/a", "s3://photos/a%20b.jpg", "HTTPS://e.com/a"],
)
def test_given_an_address_then_it_is_the_jobs_with_a_root_or_without(
    named: str, root: Path
) -> None:
    for images in (Images(ProducerSettings()), Images(ProducerSettings(), root)):
        assert images.uri(named) == named


@pytest.mark.parametrize(
    "named",
    ["2026/a cat.jpg", "link.jpg", "{root}/2026/a cat.jpg", "file://{root}/2026/a%20cat.jpg",
     "2026/../2026/a cat.jpg"],
)  # fmt: skip
def test_given_a_file_below_the_root_then_it_is_named_as_it_really_lies(
    named: str, root: Path
) -> None:
    found = Images(ProducerSettings(), root).uri(named.format(root=root))
    assert found == (root / "2026" / "a cat.jpg").as_uri()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("../photos-of-others/secret.jpg", "outside"),
        ("{root}-of-others/secret.jpg", "outside"),
        ("file://{root}/../photos-of-others/secret.jpg", "outside"),
        ("file://{root}/%2e%2e/photos-of-others/secret.jpg", "outside"),
        ("out.jpg", "outside"),
        ("out/secret.jpg", "outside"),
        ("/etc/passwd", "outside"),
        ("file:///etc/passwd", "outside"),
        ("~/.ssh/id_rsa", "There is no file"),
        ("2026", "There is no file"),
        ("nowhere.jpg", "There is no file"),
        ("round.jpg", "There is no file"),
        ("a\0b.jpg", "There is no file"),
        ("ftp://host/a.jpg", "There is no file"),
    ],
)
def test_given_anything_else_then_it_is_refused_with_a_reason(
    named: str, words: str, root: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        Images(ProducerSettings(), root).uri(named.format(root=root))


def test_given_no_root_then_no_file_is_read_and_it_is_said_how_to_allow_some(root: Path) -> None:
    with pytest.raises(ValueError, match="captionq mcp --root FOLDER"):
        Images(ProducerSettings()).uri(str(root / "2026" / "a cat.jpg"))
