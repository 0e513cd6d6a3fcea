"""Captions of scenes in each language, as people who speak it wrote them, and no two alike."""

from itertools import product

import pytest

from worker.training.languages import LANGUAGES, caption
from worker.training.scenes import BACKGROUNDS, COMBINATIONS, RELATIONS, Combination, Scene, Shape

BOX = (0.0, 0.0, 1.0, 1.0)
RGB = (0, 0, 0)


def scene(background: str, *of: Combination, relation: str | None = None) -> Scene:
    shapes = tuple(Shape(kind, colour, size, BOX, RGB) for size, colour, kind in of)
    return Scene(shapes, background, RGB, relation)


RED_CIRCLE, BLUE_SQUARE = ("small", "red", "circle"), ("large", "blue", "square")
GREEN_STAR, PURPLE_CROSS = ("small", "green", "star"), ("large", "purple", "cross")
PINK_TRIANGLE, ORANGE_RING = ("small", "pink", "triangle"), ("large", "orange", "ring")
CYAN_STAR, YELLOW_CROSS = ("large", "cyan", "star"), ("small", "yellow", "cross")
SCENES = {
    "left": scene("white", RED_CIRCLE, BLUE_SQUARE, relation="left of"),
    "above": scene("gray", GREEN_STAR, PURPLE_CROSS, relation="above"),
    "unbent": scene("black", PINK_TRIANGLE, ORANGE_RING, relation="above"),
    "alone": scene("beige", CYAN_STAR),
    "last": scene("white", YELLOW_CROSS, CYAN_STAR, relation="left of"),
}
SENTENCES = {
    "en": {
        "left": "a small red circle left of a large blue square on white",
        "alone": "a large cyan star on beige",
    },
    "de": {
        "left": "ein kleiner roter Kreis links von einem großen blauen Quadrat auf weißem Grund",
        "above": "ein kleiner grüner Stern über einem großen violetten Kreuz auf grauem Grund",
        "unbent": "ein kleines rosa Dreieck über einem großen orangefarbenen Ring"
        " auf schwarzem Grund",
        "alone": "ein großer türkisfarbener Stern auf beigefarbenem Grund",
        "last": "ein kleines gelbes Kreuz links von einem großen türkisfarbenen Stern"
        " auf weißem Grund",
    },
    "fr": {
        "left": "un petit cercle rouge à gauche d'un grand carré bleu sur fond blanc",
        "above": "une petite étoile verte au-dessus d'une grande croix violette sur fond gris",
        "unbent": "un petit triangle rose au-dessus d'un grand anneau orange sur fond noir",
        "alone": "une grande étoile cyan sur fond beige",
        "last": "une petite croix jaune à gauche d'une grande étoile cyan sur fond blanc",
    },
    "zh": {
        "left": "红色小圆形在蓝色大正方形左边，白底",
        "above": "绿色小五角星在紫色大十字形上方，灰底",
        "unbent": "粉色小三角形在橙色大圆环上方，黑底",
        "alone": "一颗青色大五角星，米色底",
        "last": "黄色小十字形在青色大五角星左边，白底",
    },
    "ar": {
        "left": "دائرة حمراء صغيرة على يسار مربع أزرق كبير على خلفية بيضاء",
        "above": "نجمة خضراء صغيرة فوق صليب بنفسجي كبير على خلفية رمادية",
        "unbent": "مثلث وردي صغير فوق حلقة برتقالية كبيرة على خلفية سوداء",
        "alone": "نجمة سماوية كبيرة على خلفية بيج",
        "last": "صليب أصفر صغير على يسار نجمة سماوية كبيرة على خلفية بيضاء",
    },
}


@pytest.mark.parametrize(
    ("language", "name"), [(tag, name) for tag, said in SENTENCES.items() for name in said]
)
def test_given_a_scene_when_captioned_then_it_is_what_a_speaker_would_write(
    language: str, name: str
) -> None:
    assert caption(SCENES[name], language) == SENTENCES[language][name]


def test_given_one_shape_in_chinese_then_it_is_counted_by_its_measure_word() -> None:
    assert caption(scene("white", RED_CIRCLE), "zh") == "一个红色小圆形，白底"


@pytest.mark.parametrize("language", LANGUAGES)
def test_given_all_scenes_there_can_be_then_no_two_have_the_same_caption(language: str) -> None:
    """Two shapes differ from one another in any way: their phrases are all there is to tell."""
    every = [scene(ground, one) for ground in BACKGROUNDS for one in COMBINATIONS]
    every += [
        scene(ground, one, two, relation=relation)
        for ground, relation in product(BACKGROUNDS, RELATIONS)
        for one, two in product(COMBINATIONS, repeat=2)
    ]
    said = {caption(one, language) for one in every}
    assert len(said) == len(every)
    # Each character of Chinese is a token, and by default a caption has 20 with its [SEP].
    assert language != "zh" or max(map(len, said)) == 19


def test_given_a_region_or_capitals_then_the_language_is_the_same() -> None:
    assert caption(SCENES["left"], "de-AT") == caption(SCENES["left"], "DE")


def test_given_a_language_without_captions_then_those_with_are_listed() -> None:
    with pytest.raises(ValueError, match="in en, de, fr, zh, ar, not in 'sv'"):
        caption(SCENES["left"], "sv")
