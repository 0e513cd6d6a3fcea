"""Token for token, and logit for logit, what transformers answers in float32."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.blip_checkpoints import TINY, noise_images, pixel_values, write_random_checkpoint
from tests.blip_parity import (
    BEAMS,
    GREEDY,
    OTHERS,
    TIE,
    TOLERANCE,
    Listed,
    Side,
    beam_gap,
    greedy_gap,
    named,
)
from worker.blip import Engine
from worker.training.scenes import draw, sample

BUNDLED = Path(__file__).parents[3] / "worker" / "checkpoints" / "scenes"


@pytest.fixture(scope="module")
def shallow_side(shallow: Path) -> Side:
    return Side(shallow, noise_images(12))


@pytest.fixture(scope="module")
def tiny_side(tmp_path_factory: pytest.TempPathFactory) -> Side:
    """Livelier than the other tiny checkpoint: 22 of 24 captions and more are unlike."""
    folder = tmp_path_factory.mktemp("tiny_side")
    write_random_checkpoint(folder, TINY, seed=10, spread=6.0, end_bias=3.0)
    return Side(folder, noise_images(24))


@pytest.fixture(scope="module")
def base_side(base: Path) -> Side:
    return Side(base, noise_images(2))


@pytest.fixture(scope="module")
def bundled_side() -> Side:
    rng = random.Random("parity")
    scenes = [sample(rng, 1 + number % 2) for number in range(16)]
    texts = [*(scene.caption for scene in scenes[:4]), "a red ring", "a small blue star on"]
    return Side(BUNDLED, [draw(scene) for scene in scenes], texts)


class TestOneShallowModelOfPublishedWidth:
    """Given published widths and 12 heads in two layers, and 12 images."""

    def test_when_images_are_encoded_then_their_embeddings_are_transformers(
        self, shallow_side: Side
    ) -> None:
        difference = shallow_side.encoded.embeddings - shallow_side.captioner.embeddings
        assert difference.abs().max() < TOLERANCE

    @pytest.mark.parametrize("names", [*GREEDY[:3], *BEAMS[2::4], *OTHERS[:2]], ids=named)
    def test_when_captioned_then_the_token_ids_are_transformers(
        self, shallow_side: Side, names: dict[str, Any], record_property: Listed
    ) -> None:
        limits = {"max_new_tokens": 8, "min_new_tokens": 5}
        shallow_side.assert_same_captions(record_property, 0.9, **limits | names)

    def test_when_matched_then_logits_and_cosines_are_transformers(
        self, shallow_side: Side
    ) -> None:
        shallow_side.assert_same_matches()

    def test_when_embedded_then_dot_products_of_unit_vectors_are_transformers_cosines(
        self, shallow_side: Side
    ) -> None:
        shallow_side.assert_same_embeddings()

    def test_when_ranked_then_the_shortlists_and_their_logits_are_transformers(
        self, shallow_side: Side
    ) -> None:
        shallow_side.assert_same_shortlists(2)


class TestFullSizeBase:
    """Given BLIP-base as published (12 + 12 layers, 384 pixels, 30,524 words), and 2 images."""

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("beams", [1, 3, 5])
    def test_when_captioned_then_the_token_ids_are_transformers(
        self, base_side: Side, beams: int, record_property: Listed
    ) -> None:
        base_side.assert_same_captions(
            record_property, 0.9, num_beams=beams, max_new_tokens=4, min_new_tokens=3
        )

    @pytest.mark.timeout(300)
    def test_when_matched_then_logits_and_cosines_are_transformers(self, base_side: Side) -> None:
        base_side.assert_same_matches()

    @pytest.mark.timeout(300)
    def test_when_embedded_then_dot_products_of_unit_vectors_are_transformers_cosines(
        self, base_side: Side
    ) -> None:
        base_side.assert_same_embeddings()

    @pytest.mark.timeout(300)
    def test_when_ranked_then_the_shortlists_and_their_logits_are_transformers(
        self, base_side: Side
    ) -> None:
        base_side.assert_same_shortlists(2)


class TestTheBundledCheckpoint:
    """Given the checkpoint that the repository ships, and 16 scenes as it was trained on."""

    @pytest.mark.parametrize("beams", [1, 3, 5])
    def test_when_captioned_then_the_token_ids_are_transformers(
        self, bundled_side: Side, beams: int, record_property: Listed
    ) -> None:
        bundled_side.assert_same_captions(
            record_property, 0.9, num_beams=beams, max_new_tokens=20, min_new_tokens=5
        )

    def test_when_matched_then_logits_and_cosines_are_transformers(
        self, bundled_side: Side
    ) -> None:
        bundled_side.assert_same_matches()

    def test_when_embedded_then_dot_products_of_unit_vectors_are_transformers_cosines(
        self, bundled_side: Side
    ) -> None:
        bundled_side.assert_same_embeddings()

    def test_when_ranked_then_the_shortlists_and_their_logits_are_transformers(
        self, bundled_side: Side
    ) -> None:
        bundled_side.assert_same_shortlists(2)


@pytest.mark.parametrize(
    "names",
    [
        {"num_beams": 2, "max_new_tokens": 1, "min_new_tokens": 0},
        {"num_beams": 1, "max_new_tokens": 1, "min_new_tokens": 1},
        {"num_beams": 1, "max_new_tokens": 20, "min_new_tokens": 0},
        {"num_beams": 3, "max_new_tokens": 20, "min_new_tokens": 0},
        {"num_beams": 3, "max_new_tokens": 12, "min_new_tokens": 12},
        {"num_beams": 3, "max_new_tokens": 20, "min_new_tokens": 5, "length_penalty": 2.0},
        {"num_beams": 3, "max_new_tokens": 20, "min_new_tokens": 5, "length_penalty": 0.0},
        {"num_beams": 3, "max_new_tokens": 20, "min_new_tokens": 5, "length_penalty": -1.0},
        {"num_beams": 4, "max_new_tokens": 20, "min_new_tokens": 5, "early_stopping": True},
        {"num_beams": 4, "max_new_tokens": 20, "min_new_tokens": 2, "early_stopping": "never"},
        {
            "num_beams": 4,
            "max_new_tokens": 20,
            "min_new_tokens": 2,
            "early_stopping": "never",
            "length_penalty": -0.5,
        },
        {"num_beams": 5, "max_new_tokens": 15, "min_new_tokens": 1, "num_return_sequences": 5},
        {
            "num_beams": 6,
            "max_new_tokens": 15,
            "min_new_tokens": 1,
            "num_return_sequences": 4,
            "early_stopping": True,
            "length_penalty": 0.6,
        },
        {"num_beams": 10, "max_new_tokens": 10, "min_new_tokens": 5, "num_return_sequences": 2},
        {"num_beams": 3, "max_new_tokens": 9, "min_new_tokens": 3, "prompt": "a b word7"},
    ],
    ids=named,
)
def test_given_any_options_when_captioned_then_the_token_ids_are_transformers(
    tiny_side: Side, names: dict[str, Any], record_property: Listed
) -> None:
    # A first token alone is often the same.
    distinct = 0.9 if names["max_new_tokens"] > 1 else 0.1
    tiny_side.assert_same_captions(record_property, distinct, **names)


@pytest.mark.parametrize("names", [*GREEDY, *BEAMS, *OTHERS], ids=named)
def test_given_the_sweep_when_captioned_then_the_token_ids_are_transformers(
    tiny_side: Side, names: dict[str, Any], record_property: Listed
) -> None:
    limits = {"max_new_tokens": 15, "min_new_tokens": 2}
    tiny_side.assert_same_captions(record_property, 0.9, **limits | names)


class TestWhatCountsAsADifference:
    """Given captions that differ from the reference's: only its own near tie excuses them."""

    STEPS = torch.tensor([[0.0, 5.0, 5.0 - TIE / 2, 3.0], [4.0, 0.0, 1.0, 2.0]])

    def test_when_greedy_search_takes_the_reference_s_equal_second_then_the_gap_is_tiny(
        self,
    ) -> None:
        assert 0 < greedy_gap(self.STEPS, [1, 0], [2, 3]) < TIE

    @pytest.mark.parametrize("ours", [[3, 0], [1, 3], [1], [1, 0, 2]], ids=str)
    def test_when_greedy_search_takes_another_or_ends_elsewhere_then_there_is_a_gap(
        self, ours: list[int]
    ) -> None:
        assert greedy_gap(self.STEPS, [1, 0], ours) > 1

    def test_when_beam_search_swaps_equal_hypotheses_then_the_gap_is_theirs(self) -> None:
        every, scores = [[1, 2], [1, 3], [4]], [-1.0, -1.0 - TIE / 2, -1.1]
        assert beam_gap(every, scores, 0, [1, 3]) < TIE
        assert beam_gap(every, scores, 1, [1, 2]) < TIE
        assert beam_gap(every, scores, 0, [4]) == pytest.approx(0.1)
        assert beam_gap(every, scores, 0, [5]) == float("inf")

    def test_when_a_caption_is_wrong_then_the_comparison_fails(
        self, tiny_side: Side, monkeypatch: pytest.MonkeyPatch, record_property: Listed
    ) -> None:
        captions = tiny_side.engine.caption

        def wrong(images: Any, **names: Any) -> Any:
            found = captions(images, **names)
            found[5][0].token_ids[2] += 1
            return found

        monkeypatch.setattr(tiny_side.engine, "caption", wrong)
        for beams in (1, 3):
            with pytest.raises(AssertionError, match="caption 5"):
                tiny_side.assert_same_captions(
                    record_property, 0, num_beams=beams, max_new_tokens=9, min_new_tokens=5
                )


def test_given_beams_when_captioned_then_log_probabilities_are_transformers(
    tiny_side: Side,
) -> None:
    names = {"num_beams": 3, "max_new_tokens": 20, "min_new_tokens": 5}
    _, output = tiny_side.captioner.generate(**names, length_penalty=0.0)
    captions = tiny_side.engine.caption(tiny_side.encoded, **names, length_penalty=0.0)
    transitions = tiny_side.captioner.model.text_decoder.compute_transition_scores(
        output.sequences, output.scores, output.beam_indices
    )
    for [caption], expected, steps in zip(
        captions, output.sequences_scores.tolist(), transitions.tolist(), strict=True
    ):
        assert caption.logprob == pytest.approx(expected, abs=TOLERANCE)
        assert caption.logprob == pytest.approx(sum(caption.token_logprobs), abs=TOLERANCE)
        assert caption.token_logprobs == pytest.approx(
            steps[: len(caption.token_ids)], abs=TOLERANCE
        )


def test_given_pixel_values_of_the_reference_processor_then_captions_are_the_same(
    tiny: Path, tiny_engine: Engine
) -> None:
    images = noise_images(8)
    ours = tiny_engine.caption(images, num_beams=1)
    theirs = tiny_engine.caption(pixel_values(tiny, images), num_beams=1)
    assert [row[0].token_ids for row in ours] == [row[0].token_ids for row in theirs]
