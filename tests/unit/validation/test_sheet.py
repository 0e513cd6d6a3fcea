"""The page of the worst pairs: whole in one file, escaped, and readable without seeing it."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from producer.validation import pictures
from producer.validation.pictures import MOST_BYTES, Picture, Pictures
from producer.validation.scores import Scored
from producer.validation.sheet import write_sheet
from tests.house import PNG
from tests.unit.validation.test_tally import scored, tally
from worker.embedded_s3 import S3Server


class Read(HTMLParser):
    """The tags of a page, and its words by the tag that they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.words.setdefault(self._open[-1], []).append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def page(tmp_path: Path, *pairs: Scored, min_itm: float = 0.5) -> Read:
    write_sheet(tally(*pairs, min_itm=min_itm), Pictures(), tmp_path / "worst.html")
    read = Read((tmp_path / "worst.html").read_text())
    assert not read._open
    return read


def file(path: Path, data: bytes = PNG, **fields: Any) -> Scored:
    path.write_bytes(data)
    own = {"uri": path.as_uri(), "image": path.name, "format": "PNG"}
    return scored(0, 0.01, **own | fields)


def test_given_pairs_then_the_page_needs_nothing_else_and_has_no_scripts(tmp_path: Path) -> None:
    read = page(tmp_path, file(tmp_path / "a b#1.png"))

    names = [name for name, _ in read.tags]
    assert not {"script", "link", "iframe"} & set(names)
    (image,) = read.all("img")
    assert image["src"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert image["alt"] == "Image 1: a b#1.png"
    assert read.all("html") == [{"lang": "en"}]
    (policy,) = [m["content"] for m in read.all("meta") if "http-equiv" in m]
    assert "default-src 'none'" in str(policy)
    assert "prefers-color-scheme: dark" in read.words["style"][0]


def test_given_words_that_are_markup_then_they_are_shown_as_words(tmp_path: Path) -> None:
    nasty = '"><script>alert(1)</script>&amp;'
    uri = "https://a.example/x.jpg\"onerror='alert(1)"

    read = page(tmp_path, scored(0, 0.1, caption=nasty, image=nasty, uri=uri, decision=nasty))

    assert not read.all("script")
    assert read.words["blockquote"] == [nasty]
    (image,) = read.all("img")
    assert set(image) == {"src", "alt", "loading", "decoding", "referrerpolicy"}
    assert image["src"] == uri
    assert image["alt"] == f"Image 1: {nasty}"


def test_given_a_presigned_url_then_no_page_has_its_signature(tmp_path: Path) -> None:
    url = "https://user:pw@a.example/x.jpg?X-Amz-Signature=secret"

    read = page(tmp_path, scored(0, 0.1, image=url, uri=url))

    text = (tmp_path / "worst.html").read_text()
    assert "secret" not in text
    assert "pw@" not in text
    (image,) = read.all("img")
    assert (image["src"], image["loading"]) == ("https://a.example/x.jpg", "lazy")
    assert read.all("a")[0]["href"] == "https://a.example/x.jpg"


def test_given_scores_then_those_below_the_threshold_are_marked(tmp_path: Path) -> None:
    read = page(
        tmp_path,
        scored(0, 0.1, calibrated_probability=0.02, decision="no_match"),
        scored(1, 0.9),
    )

    assert [attrs.get("class") for attrs in read.all("dd")].count("below") == 1
    assert read.words["dd"][:5] == ["0.1000", "0.000", "0.100", "0.020", "no match"]
    assert "1 of them have an ITM probability below 0.5" in read.words["p"][0]


@pytest.mark.parametrize(
    ("data", "fields", "shown"),
    [
        pytest.param(b"x" * MOST_BYTES, {}, "data:image/png", id="as large as may be"),
        pytest.param(b"x" * (MOST_BYTES + 1), {}, "file:///", id="larger: by its address"),
        pytest.param(PNG, {"format": "HEIF"}, None, id="no browser shows it"),
        pytest.param(PNG, {"format": None}, None, id="of no format that is known"),
        pytest.param(PNG, {"uri": "file:///nowhere/x.png"}, "file:///nowhere", id="not there"),
    ],
)
def test_given_a_file_then_it_is_in_the_page_only_where_that_is_small_and_of_use(
    tmp_path: Path, data: bytes, fields: dict[str, Any], shown: str | None
) -> None:
    picture = Pictures().of(file(tmp_path / "x.png", data, **fields))

    assert shown is None if picture.shown is None else picture.shown.startswith(str(shown))
    assert str(picture.link).startswith("file:///")


def test_given_an_object_that_may_be_read_then_it_is_in_the_page_and_others_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = tmp_path / "s3" / "photos"
    bucket.mkdir(parents=True)
    (bucket / "a b.png").write_bytes(PNG)
    (bucket / "large.png").write_bytes(b"x" * (MOST_BYTES + 1))
    with S3Server(tmp_path / "s3") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        found = Pictures(server.endpoint_url)
        names = ("a%20b.png", "large.png", "none.png", "a%20b.png")
        uris = [f"s3://photos/{name}" for name in names]
        seen = [found.of(scored(0, 0.1, uri=uri, format="PNG")) for uri in uris]

    assert [str(one.shown)[:22] for one in (seen[0], seen[3])] == ["data:image/png;base64,"] * 2
    assert seen[1] == seen[2] == Picture(None, None)


def test_given_no_s3_then_it_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def client(*_: object) -> object:
        made.append(1)
        raise pictures.UploadFailed("no boto3")

    monkeypatch.setattr(pictures, "s3_client", client)
    found = Pictures()
    pair = scored(0, 0.1, uri="s3://photos/x.png", format="PNG")

    assert found.of(pair) == found.of(pair) == Picture(None, None)
    assert made == [1]


def test_given_an_image_that_is_absent_then_the_page_says_so(tmp_path: Path) -> None:
    read = page(tmp_path, scored(0, 0.1, format="HEIF", uri=(tmp_path / "x.heic").as_uri()))

    assert not read.all("img")
    assert any(re.match("Not shown: it is large, or cannot be", word) for word in read.words["p"])
