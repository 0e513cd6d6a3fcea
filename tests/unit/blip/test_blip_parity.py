"""Token for token, and logit for logit, what transformers answers in float32."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.blip_checkpoints import Captioner, Retriever, noise_images, pixel_values
from worker.blip import Engine
from worker.training.scenes import draw, sample

TOLERANCE = 1e-4
TEXTS = ["a picture of a b", "c", "word7 word8 word9 word10 word11 word12, d."]
BUNDLED = Path(__file__).parents[3] / "worker" / "checkpoints" / "scenes"


class Side:
    """One checkpoint, loaded by the engine and by transformers, and images both have encoded."""

    def __init__(
        self, folder: Path, images: list[Image.Image], texts: Sequence[str] = TEXTS
    ) -> None:
        self.engine = Engine.load(folder)
        self.folder, self.images, self.texts = folder, images, texts
        self.captioner = Captioner(folder, images)
        self.encoded = self.engine.encode(images)

    def assert_same_captions(self, distinct: float, prompt: str = "", **names: Any) -> None:
        prompt_ids = self.engine._tokenizer.prompt(prompt)[1:]
        reference, _ = self.captioner.generate(prompt_ids, **names)
        per_image = names.get("num_return_sequences", 1)
        best = reference[::per_image]
        assert len({tuple(row) for row in best}) >= distinct * len(best)
        captions = self.engine.caption(self.encoded, prompt=prompt, **names)
        assert [c.token_ids for row in captions for c in row] == reference

    def assert_same_matches(self) -> None:
        retriever = Retriever(self.folder, self.images, self.captioner.embeddings)
        logits, cosines = retriever.scores(self.texts)
        found = self.engine.match(self.encoded, self.texts, position_zero="cls")
        ours = torch.tensor([[match.itm_logits for match in row] for row in found])
        assert (ours - logits).abs().max() < TOLERANCE
        assert torch.tensor([[m.itm_logit for m in row] for row in found]).equal(ours[..., 1])
        ours = torch.tensor([[match.itc_cosine for match in row] for row in found])
        assert (ours - cosines).abs().max() < TOLERANCE
        assert logits.std(dim=(0, 1)).min() > 10 * TOLERANCE
        assert cosines.std() > 10 * TOLERANCE


@pytest.fixture(scope="module")
def shallow_side(shallow: Path) -> Side:
    return Side(shallow, noise_images(12))


@pytest.fixture(scope="module")
def tiny_side(tiny: Path) -> Side:
    return Side(tiny, noise_images(24))


@pytest.fixture(scope="module")
def base_side(base: Path) -> Side:
    return Side(base, noise_images(2), TEXTS[::2])


@pytest.fixture(scope="module")
def bundled_side() -> Side:
    if not (BUNDLED / "model.safetensors").exists():
        pytest.skip("no bundled checkpoint")
    rng = random.Random("parity")
    scenes = [sample(rng, 1 + number % 2) for number in range(16)]
    return Side(BUNDLED, [draw(scene) for scene in scenes], [s.caption for s in scenes[:4]])


class TestOneShallowModelOfPublishedWidth:
    """Given published widths and 12 heads in two layers, and 12 images."""

    def test_when_images_are_encoded_then_their_embeddings_are_transformers(
        self, shallow_side: Side
    ) -> None:
        difference = shallow_side.encoded.embeddings - shallow_side.captioner.embeddings
        assert difference.abs().max() < TOLERANCE

    @pytest.mark.parametrize("beams", [1, 3, 5])
    def test_when_captioned_then_the_token_ids_are_transformers(
        self, shallow_side: Side, beams: int
    ) -> None:
        shallow_side.assert_same_captions(0.9, num_beams=beams, max_new_tokens=10, min_new_tokens=5)

    def test_when_matched_then_logits_and_cosines_are_transformers(
        self, shallow_side: Side
    ) -> None:
        shallow_side.assert_same_matches()


class TestFullSizeBase:
    """Given BLIP-base as published (12 + 12 layers, 384 pixels, 30,524 words), and 2 images."""

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("beams", [1, 3, 5])
    def test_when_captioned_then_the_token_ids_are_transformers(
        self, base_side: Side, beams: int
    ) -> None:
        base_side.assert_same_captions(0.9, num_beams=beams, max_new_tokens=4, min_new_tokens=3)

    @pytest.mark.timeout(300)
    def test_when_matched_then_logits_and_cosines_are_transformers(self, base_side: Side) -> None:
        base_side.assert_same_matches()


class TestTheBundledCheckpoint:
    """Given the checkpoint that the repository ships, and 16 scenes as it was trained on."""

    @pytest.mark.parametrize("beams", [1, 3, 5])
    def test_when_captioned_then_the_token_ids_are_transformers(
        self, bundled_side: Side, beams: int
    ) -> None:
        bundled_side.assert_same_captions(0.9, num_beams=beams, max_new_tokens=20, min_new_tokens=5)

    def test_when_matched_then_logits_and_cosines_are_transformers(
        self, bundled_side: Side
    ) -> None:
        bundled_side.assert_same_matches()


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
    ids=lambda names: ",".join(f"{k}={v}" for k, v in names.items()),
)
def test_given_any_options_when_captioned_then_the_token_ids_are_transformers(
    tiny_side: Side, names: dict[str, Any]
) -> None:
    tiny_side.assert_same_captions(1 / 24, **names)


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
