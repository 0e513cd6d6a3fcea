"""Words that captions avoid, begin with and end at; characters that they may have."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import StoppingCriteria

from tests.blip_checkpoints import TINY, Captioner, noise_images, write_random_checkpoint
from worker.blip import Caption, Engine, InputError

IMAGES = noise_images(24)
WAYS: list[dict[str, Any]] = [
    {"num_beams": 1},
    {"num_beams": 4, "num_return_sequences": 4},
    {"do_sample": True, "num_return_sequences": 6, "seed": 2},
]


@pytest.fixture(scope="module")
def spelling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that prefers letters and later pieces of one letter, so it spells its words."""
    folder = tmp_path_factory.mktemp("spelling")
    write_random_checkpoint(folder, TINY, seed=6, spread=1.5, end_bias=3.0)
    file = folder / "model.safetensors"
    state = load_file(file)
    state["text_decoder.cls.predictions.bias"][1:55] += 3.0
    save_file(state, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def engine(spelling: Path) -> Engine:
    return Engine.load(spelling, tasks=["caption"])


def captions(engine: Engine, **names: Any) -> list[Caption]:
    return [caption for row in engine.caption(IMAGES, **names) for caption in row]


def words(caption: Caption) -> list[str]:
    return re.findall(r"(?:##)?\w+|[^\w\s]", caption.text)  # the first piece may be a later one


def pieces(caption: Caption) -> str:
    """The text's words in a string, each in spaces."""
    return f" {' '.join(words(caption))} "


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_given_a_banned_word_then_no_spelling_of_it_is_in_any_caption(
    engine: Engine, way: dict[str, Any]
) -> None:
    common = most_common(captions(engine, **way))
    assert any(len(word) > 1 and not word.startswith("word") for word in common), "made of pieces"
    for caption in captions(engine, bad_words=[word.upper() for word in common], **way):
        assert not set(words(caption)) & set(common)


def most_common(found: list[Caption]) -> list[str]:
    counts: dict[str, int] = {}
    for caption in found:
        for word in words(caption):
            counts[word] = counts.get(word, 0) + 1
    return [w for w in sorted(counts, key=lambda w: -counts[w]) if "#" not in w][:40]


def test_given_a_banned_phrase_then_its_words_may_come_but_not_one_after_the_other(
    engine: Engine,
) -> None:
    found = captions(engine, num_beams=1)
    [_, first, second, *_] = next(words(one) for one in found if len(words(one)) > 3)
    banned = captions(engine, num_beams=1, bad_words=[f"{first} {second}"])
    assert not any(f" {first} {second} " in pieces(caption) for caption in banned)
    assert any(f" {first} " in pieces(caption) for caption in banned)


def test_given_a_prompt_that_begins_a_banned_word_then_the_caption_does_not_complete_it(
    engine: Engine,
) -> None:
    tokenizer = engine._tokenizer
    start = tokenizer.prompt("a b c")[1:]
    [[free]] = engine.caption(IMAGES[0], num_beams=1, prompt=start, min_new_tokens=1)
    piece = free.tokens[0]
    assert not piece.startswith("[")
    rest = piece.removeprefix("##")
    # Whatever came first would now complete the word that the prompt ends with or a phrase with it.
    phrase = f"b c{rest}" if piece.startswith("##") else f"b c {rest}"
    [[barred]] = engine.caption(
        IMAGES[0], num_beams=1, prompt=start, bad_words=[phrase], min_new_tokens=1
    )
    assert barred.tokens[0] != piece


def test_given_banned_token_ids_then_captions_are_transformers(
    tiny: Path, tiny_engine: Engine
) -> None:
    reference = Captioner(tiny, IMAGES)
    [[free]] = tiny_engine.caption(IMAGES[0], num_beams=1)
    banned = [free.token_ids[:1], free.token_ids[1:3], free.token_ids[2:5]]
    for beams in (1, 3):
        names = {"num_beams": beams, "max_new_tokens": 12, "min_new_tokens": 4}
        expected, _ = reference.generate(**names, bad_words_ids=banned)
        found = tiny_engine.caption(IMAGES, **names, bad_words=banned)
        assert [row[0].token_ids for row in found] == expected
    with pytest.raises(InputError, match="token ids must be 0 to 199"):
        tiny_engine.caption(IMAGES[0], bad_words=[[200]])


def shown(engine: Engine, token_ids: list[int]) -> str:
    return engine._tokenizer.decode(token_ids)


@pytest.mark.parametrize("way", [{"num_beams": 1}, {"do_sample": True, "seed": 2}], ids=str)
def test_given_stop_strings_then_a_caption_ends_with_the_token_that_completes_the_first(
    engine: Engine, way: dict[str, Any]
) -> None:
    free = captions(engine, max_new_tokens=15, **way)
    stops = [free[0].text[2:5], free[1].text[-4:-1].upper(), "Word7", "never this"]
    found = captions(engine, max_new_tokens=15, stop_strings=stops, **way)
    ended = 0
    for caption, whole in zip(found, free, strict=True):
        lengths = [
            n
            for n in range(1, len(whole.token_ids) + 1)
            if any(stop.lower() in shown(engine, whole.token_ids[:n]) for stop in stops)
        ]
        kept = lengths[0] if lengths else len(whole.token_ids)
        ended += bool(lengths)
        assert caption.token_ids == whole.token_ids[:kept]
        assert caption.text == shown(engine, caption.token_ids)
        assert caption.finish_reason == ("stop" if lengths else whole.finish_reason)
    assert ended > 1


class StopsAt(StoppingCriteria):  # type: ignore[misc]
    """transformers' own StopStringCriteria splits the text otherwise for WordPiece."""

    def __init__(self, engine: Engine, stops: list[str]) -> None:
        self.engine, self.stops = engine, stops

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        texts = [shown(self.engine, row[1:]) for row in input_ids.tolist()]
        return torch.tensor([any(stop in text for stop in self.stops) for text in texts])


def test_given_stop_strings_in_beam_search_then_hypotheses_end_there_as_in_transformers(
    spelling: Path, engine: Engine
) -> None:
    images = IMAGES[:8]
    names = {"num_beams": 4, "max_new_tokens": 10, "min_new_tokens": 0}
    free = engine.caption(images, **names)
    stops = [free[0][0].text[:3], free[3][0].text[2:5], "7"]
    found = engine.caption(images, **names, stop_strings=stops)
    for image, [caption] in zip(images, found, strict=True):
        reference = Captioner(spelling, [image])  # alone: in a batch all end at once
        [expected], _ = reference.generate(**names, stopping_criteria=[StopsAt(engine, stops)])
        count = len(caption.token_ids)
        assert caption.token_ids == expected[:count]
        assert set(expected[count:]) <= {reference.pad}
    assert any(caption.tokens[-1] != "[SEP]" for [caption] in found)
    assert all(caption.finish_reason == "stop" for [caption] in found if len(caption.tokens) < 10)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("most", [1, 7, 18, 200])
def test_given_most_characters_then_captions_end_with_a_whole_word_within_them(
    engine: Engine, way: dict[str, Any], most: int
) -> None:
    found = captions(engine, max_new_tokens=12, max_chars=most, **way)
    assert all(len(caption.text) <= most for caption in found)
    if way != WAYS[1]:  # beams also may rank otherwise
        starts = [f"{caption.text} " for caption in captions(engine, max_new_tokens=12, **way)]
        for caption in found:
            whole = re.compile(re.escape(caption.text) + r"(?!\w)")
            assert not caption.text or any(whole.match(start) for start in starts)
    for caption in found:
        assert len(caption.tokens) == len(caption.token_logprobs)
        assert caption.logprob == pytest.approx(sum(caption.token_logprobs))
        if caption.finish_reason == "stop":
            assert caption.tokens[-1] == "[SEP]"
    cut = {caption.finish_reason for caption in found}
    assert ("length" in cut) or most == 200


def test_given_greedy_search_then_no_word_that_fits_is_lost(engine: Engine) -> None:
    free = captions(engine, num_beams=1, max_new_tokens=12)
    for most in (5, 11, 16):
        found = captions(engine, num_beams=1, max_new_tokens=12, max_chars=most)
        for caption, whole in zip(found, free, strict=True):
            ends = [n for n in range(len(whole.tokens) + 1) if ends_word(whole.tokens, n)]
            fitting = [n for n in ends if len(shown(engine, whole.token_ids[:n])) <= most]
            assert caption.text == shown(engine, whole.token_ids[: fitting[-1]])
            assert caption.token_ids == whole.token_ids[: len(caption.token_ids)]
            assert (caption.finish_reason == "stop") == (
                fitting[-1] == len(whole.tokens) and whole.finish_reason == "stop"
            )


@pytest.mark.parametrize("most", [2, 5, 9])
def test_given_whole_words_then_most_tokens_leave_none_cut_and_no_one_that_fits_is_lost(
    engine: Engine, most: int
) -> None:
    free = captions(engine, num_beams=1, min_new_tokens=0, max_new_tokens=15)
    found = captions(engine, num_beams=1, min_new_tokens=0, max_new_tokens=most, whole_words=True)
    for caption, whole in zip(found, free, strict=True):
        ends = [n for n in range(1, most + 1) if ends_word(whole.tokens, n)]
        kept = min(ends[-1] if ends else most, len(whole.tokens))
        assert caption.token_ids == whole.token_ids[:kept]
        left = whole.tokens[kept:]
        assert (caption.finish_reason == "stop") == (left in ([], ["[SEP]"]))
    assert len({len(caption.tokens) for caption in found}) > 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_given_whole_words_then_captions_of_beams_and_samples_have_no_more_than_most_tokens(
    engine: Engine, way: dict[str, Any]
) -> None:
    found = engine.caption(IMAGES, max_new_tokens=6, whole_words=True, **way)
    assert all(0 < len(caption.tokens) <= 6 for row in found for caption in row)
    assert all(len({caption.text for caption in row}) == len(row) for row in found)
    assert all(row[0].logprob == pytest.approx(sum(row[0].token_logprobs)) for row in found)


def ends_word(tokens: list[str], count: int) -> bool:
    return count == len(tokens) or not tokens[count].startswith("##")


def test_given_a_prefix_then_the_text_begins_with_it_and_goes_on_as_after_a_prompt(
    tiny_engine: Engine,
) -> None:
    images = noise_images(5)
    for names in ({"num_beams": 1}, {"num_beams": 3}, {"do_sample": True, "seed": 1}):
        prompted = tiny_engine.caption(images, prompt="a b word7", **names)
        prefixed = tiny_engine.caption(images, prompt="a", prefix="B word7", **names)
        for [left], [right] in zip(prompted, prefixed, strict=True):
            assert right.token_ids == left.token_ids
            assert right.token_logprobs == pytest.approx(left.token_logprobs, abs=1e-5)
            assert right.text.startswith("b word7")
            assert right.text == tiny_engine._tokenizer.decode(
                [*tiny_engine._tokenizer.prefix("b word7"), *left.token_ids]
            )


def test_given_a_prefix_then_its_characters_count_and_its_words_do_not_stop(
    tiny_engine: Engine,
) -> None:
    [[free]] = tiny_engine.caption(IMAGES[0], num_beams=1, prefix="word7 a")
    [[caption]] = tiny_engine.caption(
        IMAGES[0], num_beams=1, prefix="word7 a", stop_strings=["word7"]
    )
    assert caption.token_ids == free.token_ids or "word7" in caption.text[7:]
    [[caption]] = tiny_engine.caption(IMAGES[0], num_beams=1, prefix="word7 a", max_chars=7)
    assert caption.text == "word7 a"
    assert caption.token_ids == []
    assert (caption.finish_reason, caption.logprob, caption.mean_logprob) == ("length", 0.0, 0.0)
    with pytest.raises(InputError, match="prefix: 7 characters, max_chars is 6"):
        tiny_engine.caption(IMAGES[0], prefix="word7 a", max_chars=6)


def test_given_a_vocabulary_then_its_texts_are_what_its_tokenizer_decodes(engine: Engine) -> None:
    tokenizer = engine._tokenizer
    first, later = tokenizer.vocabulary.texts
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        token_ids = torch.randint(tokenizer.vocab_size, (7,), generator=random).tolist()
        text = ""
        for token_id in token_ids:
            text += later[token_id] if text else first[token_id]
        assert text == tokenizer.decode(token_ids)
