"""What a style makes of a caption, and what it sets."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from producer.contract import CaptionOptions
from worker.caption_style import DANGLING_MARKS, MANNERS, once, styled


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "a picture of a dog", "A dog"),
        ("en", "an image of two dogs on a beach", "Two dogs on a beach"),
        ("en", "There is a black and white photo of a man", "A man"),
        ("en", "this picture shows a cat", "A cat"),
        ("en", "a close-up photograph showing a flower", "A flower"),
        ("en", "a picture of a picture of a dog", "A dog"),
        ("en", "a picture frame on a wall", "A picture frame on a wall"),
        ("en", "a man holding a picture of a dog", "A man holding a picture of a dog"),
        ("en", "a picture of", "A picture"),  # nothing else is said
        ("en-GB", "a photo of a dog", "A dog"),
        ("de", "ein Bild von zwei Hunden", "Zwei Hunden"),
        ("de", "das ist ein Foto eines Hundes", "Eines Hundes"),
        ("de", "eine Schwarzweißaufnahme mit Bäumen", "Bäumen"),
        ("de-AT", "dieses Foto zeigt einen Hund", "Einen Hund"),
        ("de", "ein kleiner roter Kreis", "Ein kleiner roter Kreis"),
        ("fr", "une photo d'un chien", "Un chien"),
        ("fr", "une image du chien", "Le chien"),
        ("fr", "l’image montrant des chats", "Des chats"),
        ("fr", "une photo en noir et blanc de la plage", "La plage"),
        ("fr", "un petit cercle rouge", "Un petit cercle rouge"),
        ("ar", "صورة لدائرة حمراء", "دائرة حمراء"),
        ("ar", "صورة للدائرة الحمراء", "الدائرة الحمراء"),
        ("ar", "صورة لقطة سوداء", "قطة سوداء"),
        ("ar", "صورة لاعب كرة قدم", "لاعب كرة قدم"),
        ("ar", "صورة للاعب كرة قدم", "اللاعب كرة قدم"),
        ("ar", "صورة للوحة فنية", "اللوحة فنية"),
        ("ar", "صورة لوحة فنية", "لوحة فنية"),
        ("ar", "صورة لبنت صغيرة", "بنت صغيرة"),
        ("ar", "هذه صورة تظهر دائرة حمراء", "دائرة حمراء"),
        ("zh", "一张红色圆形的照片", "红色圆形"),
        ("zh", "这是一张红色圆形的照片", "红色圆形"),
        ("zh", "张三的照片", "张三的照片"),  # a name
        ("zh", "图片中有一个红色圆形", "一个红色圆形"),
        ("zh-Hans-CN", "这张图片显示了一个红色圆形", "一个红色圆形"),
        ("sw", "picha ya mbwa", "Picha ya mbwa"),
    ],
)
def test_an_alternative_text_does_not_say_that_it_is_a_picture_and_begins_with_a_capital(
    language: str, text: str, expected: str
) -> None:
    assert styled(text, "alt_text", language, cut=False) == expected


@pytest.mark.parametrize(
    ("language", "text", "cut", "expected"),
    [
        ("en", "a dog and", False, "a dog"),
        ("en", "a dog with a", False, "a dog"),
        ("en", "a dog, ", True, "a dog"),
        ("en", "a dog on the", True, "a dog"),
        ("en", "a dog sitting on", True, "a dog sitting"),
        ("en", "a room with the lights on", False, "a room with the lights on"),
        ("en", "a room with the lights on", True, "a room with the lights"),
        ("en", "a dog.", True, "a dog."),
        ("en", "of", True, "of"),
        ("en", "", True, ""),
        ("de", "ein Kreis links von einem", True, "ein Kreis links"),
        ("de", "ein Kreis und", False, "ein Kreis"),
        ("fr", "un cercle à gauche d'", True, "un cercle à gauche"),
        ("fr", "un cercle sur fond", True, "un cercle sur fond"),
        ("fr", "un cercle rouge au-dessus d'un", True, "un cercle rouge au-dessus"),
        ("fr", "un cercle rouge à côté d’une", False, "un cercle rouge à côté"),
        ("fr", "un cercle et l'été", True, "un cercle et l'été"),
        ("en", "a dog's", True, "a dog's"),
        ("ar", "دائرة حمراء على", True, "دائرة حمراء"),
        ("ar", "دائرة حمراء،", False, "دائرة حمراء"),
        (
            "zh",
            "灰色背景上，一个小的黄色三角形在一颗大的",
            True,
            "灰色背景上，一个小的黄色三角形在一颗大",
        ),
        ("zh", "灰色背景上，", True, "灰色背景上"),
        ("zh", "一片绿色的草地", False, "一片绿色的草地"),
        ("zh", "一双鞋的鞋跟", True, "一双鞋的鞋跟"),
        ("sw", "mbwa na -", True, "mbwa na"),
    ],
)
@pytest.mark.parametrize("style", ["short", "long"])
def test_every_style_ends_cleanly(
    style: Any, language: str, text: str, cut: bool, expected: str
) -> None:
    assert styled(text, style, language, cut=cut) == expected


def test_given_no_style_then_a_caption_is_as_the_model_says_it() -> None:
    assert styled("a picture of a dog and a", None, "en", cut=True) == "a picture of a dog and a"


def test_given_a_prefix_then_an_alternative_text_keeps_it() -> None:
    text = styled("a photo of a dog", "alt_text", "en", cut=False, prefixed=True)
    assert text == "A photo of a dog"


WORDS = sorted(
    {word for one in MANNERS.values() for word in one.never_last} | {"dog", "à", "图", ","}
)


@given(
    st.lists(st.sampled_from([*WORDS, "a picture of"]), max_size=8).map(" ".join),
    st.sampled_from(["alt_text", "short", "long"]),
    st.sampled_from([*MANNERS, "xx"]),
    st.booleans(),
)
def test_a_styled_text_is_never_longer_nor_empty_nor_ends_in_a_mark(
    text: str, style: Any, language: str, cut: bool
) -> None:
    once = styled(text, style, language, cut=cut)
    assert len(once) <= len(text)
    assert bool(once) == bool(text.strip())
    assert once.rstrip(DANGLING_MARKS) in (once, "")


@pytest.mark.parametrize(
    ("given_options", "lengths"),
    [
        ({}, (5, 20, None, 0)),
        ({"style": "alt_text"}, (5, 40, 125, 0)),
        ({"style": "short"}, (3, 10, None, 0)),
        ({"style": "long"}, (20, 50, None, 3)),
        ({"style": "short", "max_new_tokens": 30}, (3, 30, None, 0)),
        ({"style": "short", "max_new_tokens": 2}, (2, 2, None, 0)),
        ({"style": "long", "max_new_tokens": 10, "no_repeat_ngram_size": 0}, (10, 10, None, 0)),
        ({"style": "alt_text", "max_chars": 60}, (5, 40, 60, 0)),
        ({"style": "alt_text", "max_chars": None}, (5, 40, None, 0)),
    ],
)
def test_a_style_sets_what_is_not_given(
    given_options: dict[str, Any], lengths: tuple[int | None, ...]
) -> None:
    made = CaptionOptions(**given_options)
    assert (
        made.min_new_tokens,
        made.max_new_tokens,
        made.max_chars,
        made.no_repeat_ngram_size,
    ) == lengths
    assert CaptionOptions.model_validate_json(made.model_dump_json()) == made


def test_a_style_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="'alt_text', 'short' or 'long'"):
        CaptionOptions(style="poem")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Said:
    text: str
    count: int = 1
    seed: int | None = None


def test_captions_that_become_equal_are_one_and_samples_are_counted() -> None:
    beams = [Said("a dog"), Said("a cat"), Said("a dog")]
    assert once(beams) == [(beams[0], 1), (beams[1], 1)]
    samples = [Said("a dog", 3, 7), Said("a cat", 1, 7), Said("a dog", 2, 7)]
    assert once(samples) == [(samples[0], 5), (samples[1], 1)]
