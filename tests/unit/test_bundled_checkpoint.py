"""The bundled checkpoint: small, complete, loaded like any BLIP, and as good as its card says."""

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipProcessor,
)

from worker.training.evaluate import BARS, BUNDLED, auc, evaluate
from worker.training.scenes import draw, sample
from worker.training.vocabulary import PROMPT, words


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more threads, and busy machines lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_given_the_folder_then_it_is_whole_and_its_weights_are_under_8_megabytes() -> None:
    names = {path.name for path in BUNDLED.iterdir()}

    assert names == {
        "README.md",
        "calibration.json",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < 8_000_000


@pytest.mark.parametrize(
    ("kind", "others"),
    [
        (BlipForConditionalGeneration, ("text_encoder", "vision_proj", "text_proj", "itm_head")),
        (BlipForImageTextRetrieval, ("text_decoder",)),
    ],
)
def test_given_either_class_when_loaded_then_no_key_is_missing(
    kind: Any, others: tuple[str, ...]
) -> None:
    loaded, info = kind.from_pretrained(BUNDLED, output_loading_info=True)

    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert {key.split(".")[0] for key in info["unexpected_keys"]} == set(others)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_given_the_configuration_then_its_ids_are_the_tokenizers_and_its_heads_are_stated() -> None:
    config = json.loads((BUNDLED / "config.json").read_text())
    text, tokens = config["text_config"], AutoTokenizer.from_pretrained(BUNDLED)
    ids = tokens.convert_tokens_to_ids

    assert [text["pad_token_id"], text["bos_token_id"], text["sep_token_id"]] == [
        ids("[PAD]"),
        ids("[DEC]"),
        ids("[SEP]"),
    ]
    assert text["vocab_size"] == len(tokens) == len(words())
    assert text["num_attention_heads"] == 4
    assert config["image_text_hidden_size"] == 256
    assert config["vision_config"]["initializer_range"] == 0.02
    assert (BUNDLED / "vocab.txt").read_text().split() == list(words())
    assert tokens.convert_ids_to_tokens(tokens("A Triangle").input_ids) == (
        ["[CLS]", "a", "tri", "##angle", "[SEP]"]
    )


def test_given_unseen_scenes_then_captions_matching_and_retrieval_hold_their_bars() -> None:
    """The bars are those of 2,000 scenes (`captionq-worker evaluate`); fewer are drawn here, and
    each share may fall short by two standard errors of so small a sample."""
    scenes = 400
    figures = evaluate(BUNDLED, scenes)

    def least(name: str) -> float:
        sample = scenes // 2 if name.endswith("held_out") else scenes
        return BARS[name] - 2 * (BARS[name] * (1 - BARS[name]) / sample) ** 0.5

    assert {name: figures[name] for name in BARS if figures[name] < least(name)} == {}


def test_given_a_prompt_when_captioning_then_the_caption_follows_it() -> None:
    captioner = BlipForConditionalGeneration.from_pretrained(BUNDLED, dtype=torch.float32).eval()
    processor = BlipProcessor.from_pretrained(BUNDLED)
    rng = random.Random("prompted")
    scenes = [sample(rng, 2) for _ in range(50)]
    inputs = processor(
        images=[draw(scene, 384) for scene in scenes],
        text=[PROMPT] * len(scenes),
        return_tensors="pt",
    )
    ids = captioner.generate(**inputs, max_length=24)
    said = processor.batch_decode(ids, skip_special_tokens=True)

    right = [f"{PROMPT} {s.caption}" == text for s, text in zip(scenes, said, strict=True)]
    assert np.mean(right) >= 0.85


def test_given_cls_at_position_0_as_transformers_has_it_then_matching_works_too() -> None:
    matcher = BlipForImageTextRetrieval.from_pretrained(BUNDLED, dtype=torch.float32).eval()
    processor = BlipProcessor.from_pretrained(BUNDLED)
    rng = random.Random("cls")
    scenes = [sample(rng, 2) for _ in range(60)]
    captions = [scene.caption for scene in scenes]

    def scores(texts: list[str]) -> list[float]:
        inputs = processor(
            images=[draw(s) for s in scenes], text=texts, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            logits = matcher(**inputs).itm_score
        return [float(x) for x in logits.softmax(-1)[:, 1]]

    assert auc(scores(captions), scores(captions[1:] + captions[:1])) >= 0.99


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0, 1.0], [2.0, 3.0], 0.0),
        ([1.0, 1.0], [1.0, 1.0], 0.5),
        ([3.0, 1.0], [2.0], 0.5),
        ([2.0], [1.0, 2.0], 0.75),
    ],
)
def test_given_scores_then_the_auc_is_the_share_of_pairs_in_order(
    positive: list[float], negative: list[float], expected: float
) -> None:
    assert auc(positive, negative) == expected


def test_given_int8_when_evaluated_then_its_agreement_with_float32_is_told() -> None:
    figures = evaluate(BUNDLED, scenes=20, dtype="int8")
    assert figures["caption_agreement"] >= 0.9
