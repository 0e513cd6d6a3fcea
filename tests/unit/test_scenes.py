"""Scenes: what is drawn is what is said, at any size, and the same from the same seed."""

import random
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from worker.training.scenes import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    COMBINATIONS,
    HELD_OUT,
    KINDS,
    SEEN,
    SIZES,
    Scene,
    Shape,
    change,
    draw,
    mask,
    sample,
)
from worker.training.vocabulary import PROMPT, tokenizer, words


def scenes(count: int, shapes: int = 2) -> list[Scene]:
    rng = random.Random(f"tests of {shapes}")
    return [sample(rng, shapes, COMBINATIONS) for _ in range(count)]


def test_given_one_seed_when_sampled_twice_then_scenes_and_pixels_are_equal() -> None:
    first, second = scenes(20), scenes(20)

    assert first == second
    assert [draw(s).tobytes() for s in first] == [draw(s).tobytes() for s in second]


@pytest.mark.parametrize("side", [96, 384, 250])
@pytest.mark.parametrize("kind", KINDS)
def test_given_a_shape_when_drawn_then_it_fills_its_box_and_nothing_else(
    kind: str, side: int
) -> None:
    for scene in scenes(30, 1):
        drawn = replace(scene, shapes=(replace(scene.shapes[0], kind=kind),))
        lit = mask(drawn, side).point(lambda value: 255 * (value > 100)).getbbox()

        assert lit is not None
        assert np.allclose(lit, np.array(drawn.shapes[0].box) * side, atol=1.5 * side / 96 + 1)


@pytest.mark.parametrize("shapes", [1, 2])
def test_given_a_scene_when_drawn_then_all_outside_its_boxes_is_background(shapes: int) -> None:
    for scene in scenes(50, shapes):
        pixels = np.asarray(draw(scene, 96)).copy()
        for shape in scene.shapes:
            left, top, right, bottom = (round(v * 96) for v in shape.box)
            pixels[max(top - 1, 0) : bottom + 2, max(left - 1, 0) : right + 2] = (
                scene.background_rgb
            )

        assert (pixels == scene.background_rgb).all()


def test_given_two_shapes_then_the_first_is_clearly_left_of_or_above_the_second() -> None:
    for scene in scenes(500):
        one, two = (shape.box for shape in scene.shapes)
        across, down = (
            (two[0] + two[2] - one[0] - one[2]) / 2,
            (two[1] + two[3] - one[1] - one[3]) / 2,
        )
        along, aside, gap = (
            (across, down, two[0] - one[2])
            if scene.relation == "left of"
            else (down, across, two[1] - one[3])
        )

        assert along >= 2 * abs(aside) - 1e-9
        assert gap > 0.03
        assert all(0 < edge < 1 for edge in (*one, *two))


def test_given_a_scene_then_its_caption_says_it_in_canonical_order() -> None:
    star = Shape("star", "blue", "small", (0.1, 0.4, 0.3, 0.6), COLOURS["blue"])
    ring = Shape("ring", "green", "large", (0.5, 0.3, 0.9, 0.7), COLOURS["green"])
    two = Scene((star, ring), "gray", BACKGROUNDS["gray"], "left of")

    assert two.caption == "a small blue star left of a large green ring on gray"
    assert replace(two, relation="above").caption == (
        "a small blue star above a large green ring on gray"
    )
    assert replace(two, shapes=(ring,), relation=None).caption == "a large green ring on gray"


def test_given_the_held_out_combinations_then_they_are_a_tenth_that_leaves_every_value_seen() -> (
    None
):
    assert len(set(HELD_OUT)) == len(HELD_OUT) == round(len(COMBINATIONS) / 10)
    assert not set(HELD_OUT) & set(SEEN)
    assert set(HELD_OUT) | set(SEEN) == set(COMBINATIONS)
    for place, values in enumerate((SIZES, COLOURS, KINDS)):
        assert {combination[place] for combination in SEEN} == set(values)


def test_given_a_split_when_sampled_then_held_out_combinations_are_nowhere_or_everywhere() -> None:
    rng = random.Random("split")
    for count in (1, 2) * 200:
        usual, special = sample(rng, count), sample(rng, count, SEEN, HELD_OUT)

        assert not any(shape.combination in HELD_OUT for shape in usual.shapes)
        assert sum(shape.combination in HELD_OUT for shape in special.shapes) == 1


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_given_a_scene_when_one_attribute_is_changed_then_only_its_words_change(
    attribute: str,
) -> None:
    rng = random.Random(attribute)
    for scene in scenes(100):
        changed = change(scene, attribute, rng)
        if changed is None:
            assert attribute == "order"
            assert scene.shapes[0].combination == scene.shapes[1].combination
            continue
        before, after = scene.caption, changed.caption
        differing = sum(
            a != b
            for a, b in zip(
                before.replace("left of", "left").split(),
                after.replace("left of", "left").split(),
                strict=True,
            )
        )

        assert before != after
        assert attribute == "order" or differing == 1


def test_given_one_shape_when_the_relation_or_order_is_to_change_then_there_is_none() -> None:
    scene = scenes(1, 1)[0]

    assert change(scene, "relation", random.Random(0)) is None
    assert change(scene, "order", random.Random(0)) is None


def test_given_any_caption_when_tokenised_then_it_is_short_and_has_no_unknown_word() -> None:
    tokens = tokenizer()
    for scene in (*scenes(300), *scenes(100, 1)):
        ids = tokens(scene.caption).input_ids

        assert tokens.unk_token_id not in ids
        assert len(ids) - 1 <= 15
        assert tokens.decode(ids, skip_special_tokens=True) == scene.caption


def test_given_the_longest_caption_then_prompt_and_caption_fit_twenty_tokens() -> None:
    tokens = tokenizer()
    longest = "a small blue triangle left of a large green triangle on gray"

    assert len(tokens(f"{PROMPT} {longest}").input_ids) == 19
    assert tokens.tokenize("a triangle") == ["a", "tri", "##angle"]


@pytest.mark.parametrize("text", ["Hello, World! 42", "zebra's x-ray: 100%", "[] {} ~ \\ | ^ `"])
def test_given_any_ascii_text_when_tokenised_then_no_word_is_unknown(text: str) -> None:
    tokens = tokenizer()

    assert tokens.unk_token not in tokens.tokenize(text)


def test_given_the_vocabulary_then_the_special_tokens_have_the_first_ids() -> None:
    assert words()[:7] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
    assert len(set(words())) == len(words())


def test_given_jpeg_when_a_scene_is_stored_then_its_colours_stay_nearest_to_their_names() -> None:
    for scene in scenes(60, 1):
        shape = replace(scene.shapes[0], kind="square")
        packed = BytesIO()
        draw(replace(scene, shapes=(shape,)), 96).save(packed, "JPEG", quality=80)
        left, top, right, bottom = shape.box
        at = (int(48 * (left + right)), int(48 * (top + bottom)))
        seen = np.array(Image.open(packed).convert("RGB").getpixel(at))
        nearest = min(COLOURS, key=lambda name: int(np.abs(seen - COLOURS[name]).sum()))

        assert nearest == shape.colour
