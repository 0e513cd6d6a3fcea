"""The page of an image: what it holds, how large it is, and that nothing in it runs but its own."""

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.explained import MODES, explained, gray, grid_on
from worker.blip.geometry import Mode
from worker.pictures.mapping import mapping
from worker.pictures.overlay import MOST_WORDS
from worker.pictures.page import MOST_BYTES, MOST_HYPOTHESES, page

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><svg onload=alert(1)>",
    "</script><script>alert(1)//",
    "' onfocus='alert(1)",
    "<!--",
    "]]>",
    "$script $$ ${data}",
    "&lt;script&gt;",
    "javascript:alert(1)",
    "\u2028\u2029\x00\ufffe",
)
ANY_TEXT = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=40),
    st.text(alphabet="<>\"'&/=!- script$", max_size=40),
)


class Read(HTMLParser):
    """Tags with their attributes, in order, and the text inside each kind of element."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open = ""
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self.text.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def shape(self) -> Counter[str]:
        """Which tags there are, with the names of their attributes."""
        return Counter(f"{tag} {' '.join(attrs)}" for tag, attrs in self.tags)

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text["script"][0])
        return found


def of(*captions: list[str], name: str = "photo.jpg", **more: Any) -> Read:
    on = grid_on(60, 40, patches=2)
    found = [explained(words, on.grid, **more) for words in captions]
    return Read(page(gray(on), found, on, name))


def own_hash(text: str) -> str:
    """As a policy names the element that holds this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@given(words=st.lists(ANY_TEXT, min_size=3, max_size=3), name=ANY_TEXT)
def test_given_any_captions_and_names_then_the_page_has_no_element_and_no_attribute_more(
    words: list[str], name: str
) -> None:
    plain = of(["a", "red", "cat"], ["a", "b", "c"])

    found = of(words, words[::-1], name=name)

    assert found.shape == plain.shape
    assert found.text["script"][1] == plain.text["script"][1]
    assert found.text["style"] == plain.text["style"]
    for one, other in zip(found.tags, plain.tags, strict=True):
        differ = {key for key in one[1] if one[1][key] != other[1][key]}
        assert differ <= {"data-said"}
    assert found.text["script"][0] == plain.text["script"][0]  # numbers alone


@pytest.mark.parametrize(("matched", "called"), [(False, "Captions"), (True, "Texts")])
def test_given_several_then_the_choice_says_whether_they_are_captions_or_texts(
    matched: bool, called: str
) -> None:
    assert of(["a", "cat"], ["a", "dog"], matched=matched).text["legend"] == [called]


@pytest.mark.parametrize("nasty", NASTY)
def test_given_markup_then_it_is_shown_as_words(nasty: str) -> None:
    found = of([nasty, "cat"], name=nasty)

    assert found.text["button"][0] == nasty
    assert found.text["title"][0].endswith(nasty)
    assert str(found.all("button")[0]["data-said"]).startswith(f"{nasty}: probability 0.93")


def test_given_a_page_then_it_asks_for_nothing_and_lets_in_its_own_script_and_style_by_hash() -> (
    None
):
    found = of(["a", "cat"])

    (policy,) = [m["content"] for m in found.all("meta") if "http-equiv" in m]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": own_hash(found.text["style"][0]),
        "script-src": own_hash(found.text["script"][1]),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    addresses = [
        value for _, attrs in found.tags for key, value in attrs.items() if key in ("src", "href")
    ]
    assert [str(address).split(",")[0] for address in addresses] == [
        "data:",
        "data:image/jpeg;base64",
    ]
    assert not re.search(r"https?:|url\(|@import|fetch|XMLHttp", found.text["script"][1])
    assert not any(key.startswith("on") or key == "style" for _, a in found.tags for key in a)


@pytest.mark.parametrize(
    ("size", "words", "captions", "patches"),
    [
        ((4000, 3000), 20, 3, 24),
        ((1000, 1000), 20, 1, 48),
        ((900, 900), 60, 15, 48),
        ((30, 3000), 12, 10, 48),
        ((1, 1), 1, 1, 2),
    ],
)
def test_given_the_noisiest_image_and_many_words_then_the_page_stays_under_its_bytes(
    size: tuple[int, int], words: int, captions: int, patches: int
) -> None:
    on = grid_on(*size, patches=patches)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    every = [explained(['"' * 300] * words, on.grid)] * captions

    html = page(noise, every, on, "<name>" * 1000)

    assert len(html) < MOST_BYTES
    found = Read(html)
    assert len(found.all("section")) == min(captions, MOST_HYPOTHESES)
    assert len(found.all("button")) - 1 == min(words, MOST_WORDS) * len(found.all("section"))
    image = found.all("img")[0]
    assert max(int(str(image["width"])), int(str(image["height"]))) <= 1000
    text = "".join(found.text["p"])
    assert ("captions after the first 10" in text) == (captions > MOST_HYPOTHESES)
    assert ("words after the first 50" in text) == (words > MOST_WORDS)


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_any_mode_then_the_script_has_the_visible_cells_and_where_they_lie(
    mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)
    one = explained(["a", "cat"], on.grid)

    data = Read(page(gray(on), [one], on, "x")).data

    cells, lies = mapping(on).visible(one.maps)
    expected = (255 * cells / cells.max(axis=(1, 2), keepdims=True)).round()
    maps = np.frombuffer(base64.b64decode(data["hypotheses"][0]["maps"]), np.uint8)
    assert np.array_equal(maps.reshape(2, data["rows"], data["columns"]), expected)
    assert data["origin"] == list(lies.origin)
    assert data["cell"] == list(lies.cell)
    assert (data["size"], data["seen"]) == (list(size), list(lies.seen))
    located = [on.locate(shares) for shares in one.maps]
    assert data["hypotheses"][0]["boxes"] == [list(where.box) for where in located]
    assert data["hypotheses"][0]["peaks"] == [
        [pytest.approx(place, abs=0.1) for place in where.peak] for where in located
    ]


def test_given_several_captions_then_one_can_be_chosen_and_the_first_is_shown() -> None:
    found = of(["a", "cat"], ["a", "dog"])

    assert [("checked" in radio) for radio in found.all("input")] == [True, False]
    assert [("hidden" in section) for section in found.all("section")] == [False, True]
    assert not of(["a", "cat"]).all("input")


def test_given_words_then_each_has_a_bar_as_long_as_it_was_likely_and_the_method_is_named() -> None:
    found = of(["a", "cat"], probabilities=[1.0, 0.25], method="gradcam")

    assert [bar["width"] for bar in found.all("rect")] == ["100.0%", "25.0%"]
    assert found.text["span"][-1] == "0.25"
    about = found.text["p"][1]
    assert about.startswith("Method: gradcam (cross-attention, weighted by its gradient)")


def test_given_a_matched_text_then_there_are_no_bars() -> None:
    found = of(["a", "cat"], matched=True)

    assert not found.all("ol")
    assert "probability" not in str(found.all("button")[0]["data-said"])


def test_given_no_words_or_an_even_map_then_there_still_is_a_page() -> None:
    on = grid_on(60, 40, "pad", patches=4)
    outside = np.zeros((1, *on.grid), np.float32)
    outside[0, 0, 0] = 1  # in the padding

    assert Read(page(gray(on), [explained([], on.grid)], on, "x")).data["hypotheses"]
    assert Read(page(gray(on), [explained(["a"], [*outside])], on, "x")).data["hypotheses"]


def test_given_a_name_that_is_no_text_then_it_is_replaced() -> None:
    on = grid_on(60, 40)

    html = page(gray(on), [explained(["a"], on.grid)], on, "caf\udce9.jpg")

    assert b"caf?.jpg" in html


def test_given_nothing_to_show_then_the_error_says_so() -> None:
    on = grid_on(60, 40)

    with pytest.raises(ValueError, match="at least one"):
        page(gray(on), [], on, "x")
    with pytest.raises(ValueError, match="40x60"):
        page(Image.new("RGB", (40, 60)), [explained(["a"], on.grid)], on, "x")
