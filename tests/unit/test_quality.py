"""BLEU-4, CIDEr-D and exact match of captions, in languages with spaces and without."""

import sys

import pytest

from producer.manifest.parquet import NotInstalled
from worker.training.quality import quality

GERMAN = ["ein kleiner roter Kreis auf weißem Grund", "ein großes blaues Quadrat auf grauem Grund"]
CHINESE = ["白色背景上有一个小的红色圆形", "灰色背景上有一个大的蓝色正方形"]
ARABIC = ["دائرة حمراء صغيرة على خلفية بيضاء", "مربع أزرق كبير على خلفية رمادية"]


@pytest.mark.parametrize(
    ("language", "texts"),
    [("de-AT", GERMAN), ("zh", CHINESE), ("yue-HK", CHINESE), ("ar", ARABIC), ("th", CHINESE)],
)
def test_given_captions_like_their_references_then_all_figures_are_their_best(
    language: str, texts: list[str]
) -> None:
    found = quality(texts, [[text] for text in texts], language)

    assert found.exact == 1
    assert found.bleu_4 == pytest.approx(100)
    # What both references share weighs nothing; the rest is the same: 10 for each length of n-gram.
    assert found.cider_d == pytest.approx(10)


def test_given_a_wrong_adjective_then_figures_fall_and_common_words_weigh_less() -> None:
    references = [[text] for text in GERMAN]
    colour = quality([GERMAN[0].replace("roter", "grüner"), GERMAN[1]], references, "de")
    common = quality([GERMAN[0].replace("Grund", "grund"), GERMAN[1]], references, "de")

    assert colour.exact == common.exact == 0.5
    assert colour.bleu_4 < 100
    assert colour.cider_d < common.cider_d < 10


def test_given_chinese_then_its_characters_are_what_is_counted() -> None:
    wrong = [CHINESE[0].replace("红", "绿"), CHINESE[1]]
    assert 50 < quality(wrong, [[text] for text in CHINESE], "zh").bleu_4 < 100
    assert (
        quality(wrong, [[text] for text in CHINESE], "de").bleu_4 < 50
    )  # words of a sentence each


def test_given_several_references_then_one_is_enough_for_exact_and_all_are_counted() -> None:
    references = [[GERMAN[0], "ein roter Kreis"], ["ein Quadrat", GERMAN[1], "etwas Blaues"]]
    found = quality(GERMAN, references, "de")

    assert found.exact == 1
    assert found.bleu_4 == pytest.approx(100)
    assert 0 < found.cider_d < 10


@pytest.mark.parametrize(
    ("said", "references"), [([], []), (["ein Kreis"], [["ein Kreis"]]), (GERMAN, [GERMAN, []])]
)
def test_given_too_little_to_judge_by_then_it_is_refused(
    said: list[str], references: list[list[str]]
) -> None:
    with pytest.raises(ValueError, match="2 images or more, each with a reference"):
        quality(said, references, "de")


@pytest.mark.parametrize("missing", ["sacrebleu.metrics.bleu", "pycocoevalcap.cider.cider"])
def test_given_an_install_without_the_extra_then_it_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(NotInstalled, match=r"pip install 'captionq\[evaluate\]'"):
        quality(GERMAN, [[text] for text in GERMAN], "de")
