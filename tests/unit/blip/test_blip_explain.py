"""Explanations: the replay against transformers' own decoder, and what is made of its maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from tests.blip_checkpoints import load_quietly, noise_images
from worker.blip import CheckpointError, EncodedImages, Engine, Explanation, InputError
from worker.blip.explanation import METHODS, Method
from worker.blip.occlusion import MOST_WINDOWS, windows
from worker.training.evaluate import BUNDLED
from worker.training.scenes import draw, sample

TOLERANCE = 1e-4
NEED_PIXELS: tuple[Method, ...] = ("rollout", "occlusion")


@torch.inference_mode()
def reference(folder: Path, pixels: torch.Tensor, token_ids: Sequence[int]) -> torch.Tensor:
    """transformers' cross-attention of one text before one image: [layers, heads, T, S].

    pixels: [1, 3, H, W], of any size that patches tile.
    """
    model = load_quietly(BlipForConditionalGeneration, folder)
    model.text_decoder.set_attn_implementation("eager")
    seen = model.vision_model(pixels, interpolate_pos_encoding=True)[0]
    output = model.text_decoder(
        input_ids=torch.tensor([token_ids]), encoder_hidden_states=seen, output_attentions=True
    )
    return torch.cat(list(output.cross_attentions))


def assert_raw_equals_transformers(
    engine: Engine, folder: Path, images: list[Image.Image], **options: Any
) -> None:
    """Each hypothesis of each image, in one call of several lengths."""
    captions = engine.caption(images, **options)
    prompt = engine._tokenizer.prompt(options.get("prompt"))
    encoded = engine.encode(images)
    rows = engine.explain(encoded, captions, _options(options), raw=True)
    assert len({len(one.token_ids) for row in captions for one in row}) > 1
    for image, (found, said) in enumerate(zip(rows, captions, strict=True)):
        pixels = engine.normalised(images[image])
        for explanation, caption in zip(found, said, strict=True):
            theirs = reference(folder, pixels, [*prompt, *caption.token_ids])
            first = len(prompt) - 1  # whose position predicts the caption's first token
            theirs = theirs[:, :, first : first + len(caption.token_ids), 1:]
            assert explanation.raw is not None
            ours = torch.from_numpy(explanation.raw).flatten(3)
            assert ours.shape == theirs.shape
            assert (ours - theirs).abs().max() < TOLERANCE
            assert theirs.std() > 10 * TOLERANCE, "the reference looks everywhere alike"


def _options(names: dict[str, Any]) -> Any:
    from worker.blip import CaptionOptions

    return CaptionOptions(**names)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 1, "min_new_tokens": 0},
        {"num_beams": 3, "num_return_sequences": 3, "min_new_tokens": 0},
        {"num_beams": 3, "num_return_sequences": 2, "prompt": "a picture of "},
    ],
    ids=["greedy", "beams of 3", "beams of 3 after a prompt"],
)
def test_given_captions_of_the_bundled_checkpoint_then_raw_attention_is_transformers(
    options: dict[str, Any],
) -> None:
    import random

    rng = random.Random(3)
    images = [draw(sample(rng, 1 + i % 2)) for i in range(4)]
    assert_raw_equals_transformers(Engine.load(BUNDLED), BUNDLED, images, **options)


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3, "num_return_sequences": 3}])
def test_given_captions_of_a_random_checkpoint_then_raw_attention_is_transformers(
    tiny: Path, tiny_engine: Engine, options: dict[str, Any]
) -> None:
    assert_raw_equals_transformers(
        tiny_engine, tiny, noise_images(4, seed=5), **options, min_new_tokens=0
    )


@pytest.mark.parity
@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3, "num_return_sequences": 3}])
def test_given_captions_of_a_full_size_checkpoint_then_raw_attention_is_transformers(
    base: Path, options: dict[str, Any]
) -> None:
    engine = Engine.load(base)
    assert_raw_equals_transformers(
        engine, base, noise_images(3, seed=5), **options, min_new_tokens=0
    )
