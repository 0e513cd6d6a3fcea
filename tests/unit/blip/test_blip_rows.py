"""A row's result depends on that row alone: never on pads, nor on the others in its batch."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.blip_checkpoints import Captioner, noise_images
from worker.blip import Caption, CaptionOptions, Engine
from worker.blip.decoding import left_pad

ROWS = [
    CaptionOptions(),
    CaptionOptions(prompt="a"),
    CaptionOptions(prompt="a b c d e f g h", max_new_tokens=9),
    CaptionOptions(prompt="word7 word8 word9", min_new_tokens=0, length_penalty=2.0),
    CaptionOptions(num_beams=1, prompt="b c"),
    CaptionOptions(num_beams=1, min_new_tokens=9, max_new_tokens=9),
    CaptionOptions(num_beams=5, prompt="c", num_return_sequences=4, early_stopping=True),
    CaptionOptions(num_beams=5, max_new_tokens=7, early_stopping="never", length_penalty=-1.0),
    CaptionOptions(num_beams=1, min_new_tokens=0, max_new_tokens=1),
    CaptionOptions(max_new_tokens=6, prompt="x y z x y z"),
    CaptionOptions(num_beams=10, max_new_tokens=12, num_return_sequences=2),
    CaptionOptions(early_stopping=True, length_penalty=0.0),
]


# Sixteen that share no prompt, seed, length, temperature, sampler or penalty, but one decoding.
ONE_BATCH = [
    CaptionOptions(num_beams=1),
    CaptionOptions(num_beams=1, prompt="a b c", repetition_penalty=1.7, max_new_tokens=9),
    CaptionOptions(num_beams=1, prefix="word7 word8", no_repeat_ngram_size=1, min_new_tokens=12),
    CaptionOptions(num_beams=1, bad_words=["a", "b c", "word9"], stop_strings=["7", "8"]),
    CaptionOptions(do_sample=True, seed=0),
    CaptionOptions(do_sample=True, seed=1, temperature=0.5, prompt="a"),
    CaptionOptions(do_sample=True, seed=1, temperature=2.0, max_new_tokens=30, prompt="a"),
    CaptionOptions(do_sample=True, seed=2, top_k=5, max_new_tokens=4),
    CaptionOptions(do_sample=True, seed=3, top_p=0.7, prompt="x y z x y z"),
    CaptionOptions(do_sample=True, seed=4, min_p=0.1, repetition_penalty=1.3),
    CaptionOptions(do_sample=True, seed=5, top_k=50, top_p=0.9, min_p=0.01, min_new_tokens=9),
    CaptionOptions(do_sample=True, seed=6, no_repeat_ngram_size=2, max_chars=30, prefix="b"),
    CaptionOptions(do_sample=True, seed=7, bad_words=["c"], stop_strings=["word1"], prompt="c c"),
    CaptionOptions(do_sample=True, seed=2**53 - 1, max_new_tokens=1),
    CaptionOptions(num_beams=1, max_chars=25, repetition_penalty=0.5, prompt="d e f g h"),
    CaptionOptions(num_beams=1, max_new_tokens=7, whole_words=True),
    CaptionOptions(do_sample=True, seed=8, temperature=0.9, repetition_penalty=2.0, top_p=0.95),
]


@pytest.mark.parametrize("width", [1, 3], ids=["one sequence a row", "three"])
def test_given_sixteen_unlike_rows_in_one_decoding_then_each_is_as_alone(
    tiny_engine: Engine, width: int
) -> None:
    """Given searches where three sequences are beams, and samplers where they are samples."""
    rows = [replace(row, num_beams=row.num_beams if row.do_sample else width) for row in ONE_BATCH]
    rows = [replace(row, num_return_sequences=width) for row in rows]
    images = noise_images(len(rows), seed=11)
    together = tiny_engine.caption(images, rows)
    for image, options, row in zip(images, rows, together, strict=True):
        [alone] = tiny_engine.caption([image], options)
        assert_same(row, alone)
    # Whatever shares the batch, and in whatever order.
    backwards = tiny_engine.caption(images[:-4][::-1], rows[:-4][::-1])
    for row, again in zip(together[:-4], backwards[::-1], strict=True):
        assert_same(row, again)


def test_given_a_prompt_at_the_last_position_beside_a_longer_row_then_each_is_as_alone(
    tiny_engine: Engine,
) -> None:
    images = noise_images(2)
    for beams in (1, 3):
        rows = [
            CaptionOptions(num_beams=beams, prompt=[105] * 507, max_new_tokens=4),
            CaptionOptions(num_beams=beams, min_new_tokens=20),
        ]
        for image, options, row in zip(
            images, rows, tiny_engine.caption(images, rows), strict=True
        ):
            [alone] = tiny_engine.caption(image, options)
            assert_same(row, alone)


def test_given_every_word_used_up_when_none_may_come_twice_then_the_caption_ends(
    tiny_engine: Engine,
) -> None:
    names = {"no_repeat_ngram_size": 1, "max_new_tokens": 250, "min_new_tokens": 250}
    for way in ({"num_beams": 1}, {"num_beams": 2}, {"do_sample": True}):
        [[caption]] = tiny_engine.caption(noise_images(1), **names, **way)
        assert caption.finish_reason == "stop"
        assert len(set(caption.token_ids)) == len(caption.token_ids) == 199  # all but [DEC]
        assert all(map(math.isfinite, caption.processed_token_logprobs))


def assert_same(row: list[Caption], alone: list[Caption]) -> None:
    for ours, single in zip(row, alone, strict=True):
        assert ours.token_ids == single.token_ids
        assert ours.text == single.text
        assert ours.token_logprobs == pytest.approx(single.token_logprobs, abs=1e-4)
        assert ours.processed_token_logprobs == pytest.approx(
            single.processed_token_logprobs, abs=1e-3
        )
        assert ours.score == pytest.approx(single.score, abs=1e-3)
        assert (ours.finish_reason, ours.seed, ours.count) == (
            single.finish_reason,
            single.seed,
            single.count,
        )


def test_given_mixed_prompts_and_beams_when_batched_then_each_row_is_as_alone(
    tiny_engine: Engine,
) -> None:
    images = noise_images(len(ROWS), seed=3)
    together = tiny_engine.caption(images, ROWS)
    for image, options, row in zip(images, ROWS, together, strict=True):
        [alone] = tiny_engine.caption([image], options)
        assert len(row) == options.num_return_sequences
        assert_same(row, alone)


def test_given_prompts_of_many_lengths_in_one_batch_then_each_row_is_transformers_own(
    shallow: Path,
) -> None:
    engine = Engine.load(shallow, tasks=["caption"])
    images = noise_images(4, seed=5)
    prompts = ["", "a", "a b c d", "word7 word8 word9 word10 word11 word12 word13"]
    together = engine.caption(
        images, [CaptionOptions(prompt=prompt, max_new_tokens=9) for prompt in prompts]
    )
    reference = Captioner(shallow, images)
    for row, (prompt, [caption]) in enumerate(zip(prompts, together, strict=True)):
        expected, _ = reference.generate(  # one prompt for all images: no pads
            engine._tokenizer.prompt(prompt)[1:], num_beams=3, max_new_tokens=9, min_new_tokens=5
        )
        assert caption.token_ids == expected[row]


def test_given_texts_of_many_lengths_when_matched_then_each_pair_is_as_alone(
    tiny_engine: Engine,
) -> None:
    images = noise_images(3, seed=4)
    texts = [["a", "a b c d e f g"], ["word7 word8"], ["c", "d e", "f g h i j k l m n o"]]
    together = tiny_engine.match(images, texts)
    assert [[match.text for match in row] for row in together] == texts
    for image, row in zip(images, together, strict=True):
        for match in row:
            tiny_engine.text_cache.clear()
            [[alone]] = tiny_engine.match(image, [match.text])
            assert match.itm_logits == pytest.approx(alone.itm_logits, abs=1e-4)
            assert match.itc_cosine == pytest.approx(alone.itc_cosine, abs=1e-4)


def test_given_more_pairs_than_one_forward_takes_when_matched_then_none_is_lost(
    tiny_engine: Engine,
) -> None:
    texts = [f"word{number}" for number in range(110, 190)]
    images = noise_images(5)
    found = tiny_engine.match(images, texts)
    assert [[match.text for match in row] for row in found] == [texts] * 5
    [last] = tiny_engine.match(images[4], texts[-1:])
    assert found[4][-1].itm_logits == pytest.approx(last[0].itm_logits, abs=1e-4)


def test_given_prompts_when_padded_then_pads_come_first_and_positions_start_after_them() -> None:
    token_ids, valid, positions = left_pad([[7, 8, 9], [7]], torch.device("cpu"))
    assert token_ids.tolist() == [[7, 8, 9], [7, 7, 7]]
    assert valid.tolist() == [[True, True, True], [False, False, True]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]
