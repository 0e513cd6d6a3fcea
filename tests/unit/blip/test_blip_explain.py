"""Explanations: the replay against transformers' own modules, and what is made of its maps."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval

from tests.blip_checkpoints import load_quietly, noise_images
from worker.blip import (
    CaptionOptions,
    CheckpointError,
    EncodedImages,
    Engine,
    InputError,
    attention,
)
from worker.blip.explanation import METHODS, Method
from worker.blip.occlusion import MOST_WINDOWS, windows
from worker.blip.rollout import rollout
from worker.training.evaluate import BUNDLED
from worker.training.scenes import draw, sample

TOLERANCE = 1e-4
SHAPES = [(250, 160), (400, 100), (90, 300)]  # of images, native grids of three kinds
GREEDY = {"num_beams": 1, "min_new_tokens": 4}
BEAMS = {"num_beams": 3, "num_return_sequences": 3, "min_new_tokens": 4}


@lru_cache(maxsize=1)
def captioner(folder: Path) -> Any:
    return load_quietly(BlipForConditionalGeneration, folder)


@lru_cache(maxsize=1)
def retriever(folder: Path) -> Any:
    return load_quietly(BlipForImageTextRetrieval, folder)


@pytest.fixture(scope="module")
def bundled() -> Engine:
    return Engine.load(BUNDLED)


def scenes(count: int, seed: int = 3) -> list[Image.Image]:
    rng = random.Random(seed)
    return [draw(sample(rng, 1 + i % 2)) for i in range(count)]


def seen(model: Any, pixels: Tensor) -> Tensor:
    """The ViT's answer to [1, 3, H, W], of any size that patches tile."""
    with torch.no_grad():
        embeddings: Tensor = model.vision_model(pixels, interpolate_pos_encoding=True)[0]
    return embeddings


def decoded(folder: Path, embeddings: Tensor, token_ids: Sequence[int]) -> Any:
    """transformers' text decoder, called directly on one text and one image."""
    return captioner(folder).text_decoder(
        input_ids=torch.tensor([token_ids]),
        encoder_hidden_states=embeddings,
        output_attentions=True,
    )


def assert_raw_is_transformers(
    engine: Engine, folder: Path, images: list[Image.Image], **options: Any
) -> None:
    """Each hypothesis of each image, in one call of several lengths, of images encoded together."""
    given = CaptionOptions(**options)
    prompt = engine._tokenizer.prompt(given.prompt)
    encoded = engine.encode(images, "native")
    lengths = range(5, 5 + 3 * len(images), 3)
    forced = [replace(given, min_new_tokens=n, max_new_tokens=n) for n in lengths]
    captions = engine.caption(encoded, forced)
    rows = engine.explain(encoded, captions, given, raw=True)
    largest = 0.0
    for image, found, said in zip(images, rows, captions, strict=True):
        embeddings = seen(captioner(folder), engine.normalised(image, "native"))
        for explanation, caption in zip(found, said, strict=True):
            output = decoded(folder, embeddings, [*prompt, *caption.token_ids])
            theirs = torch.stack(output.cross_attentions).detach()[:, 0]
            first = len(prompt) - 1  # whose position predicts the caption's first token
            theirs = theirs[:, :, first : first + len(caption.token_ids), 1:]
            ours = torch.from_numpy(explanation.raw)
            assert ours.shape == (*theirs.shape[:3], *explanation.grid)
            assert (ours.flatten(3) - theirs).abs().max() < TOLERANCE
            largest = max(largest, float(theirs.max() - theirs.min()))
    assert largest > 10 * TOLERANCE, "the reference looks everywhere alike"


@pytest.mark.parametrize(
    "options",
    [GREEDY, BEAMS, {**BEAMS, "prompt": "a picture of "}, {"do_sample": True, "seed": 1}],
    ids=["greedy", "beams of 3", "beams of 3 after a prompt", "sampled"],
)
def test_given_captions_of_the_bundled_checkpoint_then_raw_attention_is_transformers(
    bundled: Engine, options: dict[str, Any]
) -> None:
    assert_raw_is_transformers(bundled, BUNDLED, scenes(4), **options)


@pytest.mark.parametrize("options", [GREEDY, BEAMS], ids=["greedy", "beams of 3"])
def test_given_images_of_several_grids_then_raw_attention_is_transformers(
    tiny: Path, tiny_engine: Engine, options: dict[str, Any]
) -> None:
    images = [noise_images(1, seed, size)[0] for seed, size in enumerate(SHAPES)]
    grids = tiny_engine.encode(images, "native").grids
    assert grids is not None
    assert len(set(grids)) == len(SHAPES)
    assert_raw_is_transformers(tiny_engine, tiny, images, **options)


def test_given_captions_of_a_full_size_checkpoint_then_raw_attention_is_transformers(
    base: Path,
) -> None:
    engine, images = Engine.load(base, tasks=["caption"]), noise_images(2, seed=5)
    for options in GREEDY, {**BEAMS, "num_return_sequences": 2}:
        assert_raw_is_transformers(engine, base, images, **options)


@pytest.mark.parametrize("position_zero", ["cls", "enc"])
def test_given_texts_to_match_then_raw_attention_is_transformers(
    tiny: Path, tiny_engine: Engine, position_zero: Any
) -> None:
    images, texts = noise_images(2), ["a b", "word7 c d e"]
    model, tokenizer = retriever(tiny), tiny_engine._tokenizer
    rows = tiny_engine.explain_match(images, texts, position_zero, raw=True, position="own")
    for image, row in zip(images, rows, strict=True):
        for text, explanation in zip(texts, row, strict=True):
            ids = tokenizer.text(text)
            ids[0] = tokenizer.enc_id if position_zero == "enc" else ids[0]
            output = model.text_encoder(
                input_ids=torch.tensor([ids]),
                encoder_hidden_states=seen(model, tiny_engine.normalised(image)),
                output_attentions=True,
            )
            theirs = torch.stack(output.cross_attentions).detach()[:, 0, :, 1:-1, 1:]
            ours = torch.from_numpy(explanation.raw).flatten(3)
            assert (ours - theirs).abs().max() < TOLERANCE
            assert [word.logprob for word in explanation.words] == [None] * len(text.split())


def gradients(score: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """Each layer's map times its gradient where that is positive, [heads, T, patches]."""
    grads = torch.autograd.grad(score, maps)
    return [(m * g.clamp(min=0)).detach()[0, ..., 1:] for m, g in zip(maps, grads, strict=True)]


def assert_same_shares(ours: np.ndarray, relevance: Tensor) -> None:
    """Maps [words, rows, columns] against unscaled ones [words, patches]."""
    theirs = (relevance / relevance.sum(dim=1, keepdim=True)).numpy()
    assert np.abs(ours.reshape(theirs.shape) - theirs).max() < TOLERANCE
    assert theirs.max() > 2 / theirs.shape[1], "the reference looks everywhere alike"


@pytest.mark.parametrize("layers", [None, 0, [-1]])
def test_given_gradcam_of_captions_then_maps_are_those_of_transformers_autograd(
    bundled: Engine, layers: Any
) -> None:
    [image] = images = scenes(1)
    [[caption]] = captions = bundled.caption(images, **GREEDY)
    [[explanation]] = bundled.explain(images, captions, method="gradcam", layers=layers)
    token_ids = [bundled._tokenizer.bos_id, *caption.token_ids]
    output = decoded(BUNDLED, seen(captioner(BUNDLED), bundled.normalised(image)), token_ids)
    logprobs = output.logits[0, :-1].log_softmax(-1)
    score = logprobs.gather(1, torch.tensor(token_ids)[1:, None]).sum()
    weighted = torch.stack(gradients(score, output.cross_attentions)).mean(dim=1)
    chosen = slice(None) if layers is None else [0] if layers == 0 else layers
    by_token = weighted[chosen].mean(dim=0)
    places = [range(word.first, word.last + 1) for word in explanation.words]
    assert_same_shares(explanation.maps, torch.stack([by_token[p].sum(dim=0) for p in places]))


def test_given_gradcam_of_a_match_then_maps_are_those_of_transformers_autograd(
    bundled: Engine,
) -> None:
    text, [image] = "a large red circle on white", scenes(1)
    [[explanation]] = bundled.explain_match([image], text, "cls", method="gradcam", position="own")
    model = retriever(BUNDLED)
    output = model.text_encoder(
        input_ids=torch.tensor([bundled._tokenizer.text(text)]),
        encoder_hidden_states=seen(model, bundled.normalised(image)),
        output_attentions=True,
    )
    score = model.itm_head(output.last_hidden_state[:, 0])[0, 1]
    weighted = torch.stack(gradients(score, output.cross_attentions)).mean(dim=(0, 1))
    assert_same_shares(explanation.maps, weighted[1:-1])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_given_packed_weights_of_another_type_then_gradcam_looks_where_float32_does(
    dtype: str,
) -> None:
    images = scenes(4)
    texts = [[row[0].text] for row in Engine.load(BUNDLED).caption(images)]
    exact = Engine.load(BUNDLED).explain(images, texts, method="gradcam")
    rounded = Engine.load(BUNDLED, dtype=dtype).explain(images, texts, method="gradcam")
    ours = np.concatenate([row[0].maps.ravel() for row in rounded])
    theirs = np.concatenate([row[0].maps.ravel() for row in exact])
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95


def test_given_a_vit_then_rollout_is_the_product_of_its_attentions_and_itself(
    bundled: Engine,
) -> None:
    pixels = bundled.normalised(scenes(5))
    with torch.no_grad():
        found = rollout(bundled._modules.vision, pixels)
        maps = captioner(BUNDLED).vision_model(pixels, output_attentions=True).attentions
    expected = torch.eye(found.shape[1]).expand_as(found)
    for layer in maps:
        expected = (layer.mean(dim=1) + torch.eye(found.shape[1])) / 2 @ expected
    assert (found - expected).abs().max() < TOLERANCE
    assert found.sum(dim=-1) == pytest.approx(1, abs=1e-4)


def test_given_occlusion_then_a_hidden_shape_costs_its_words_most(bundled: Engine) -> None:
    rng = random.Random(5)
    drawn = [sample(rng, 1) for _ in range(8)]
    rows = bundled.explain(
        [draw(scene) for scene in drawn], [[s.caption] for s in drawn], method="occlusion"
    )
    on_shape = []
    for scene, [explanation] in zip(drawn, rows, strict=True):
        left, top, right, bottom = scene.shapes[0].box
        row, column = divmod(int(explanation.maps[2].argmax()), 8)  # the colour's
        on_shape.append(left < (column + 0.5) / 8 < right and top < (row + 0.5) / 8 < bottom)
    assert sum(on_shape) >= 6


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (8, 8), (24, 24), (12, 48), (7, 31)])
def test_given_a_grid_then_the_middles_of_its_windows_tile_it_and_are_few(
    grid: tuple[int, int],
) -> None:
    times = np.zeros(grid, int)
    for window in windows(grid):
        times[window.middle] += 1
        hidden = np.zeros(grid, bool)
        hidden[window.hidden] = True
        assert hidden[window.middle].all()
    assert (times == 1).all()
    assert len(list(windows(grid))) <= 1.25 * MOST_WINDOWS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["stretch", "native"])
def test_given_several_hypotheses_then_each_is_explained_as_if_it_were_alone(
    tiny_engine: Engine, method: Method, mode: Any
) -> None:
    images = [noise_images(1, seed, size)[0] for seed, size in enumerate(SHAPES)]
    captions = tiny_engine.caption(images, mode=mode, **BEAMS)
    captions[1] = captions[1][:1]
    captions[2] = []
    together = tiny_engine.explain(images, captions, method=method, mode=mode)
    assert [len(row) for row in together] == [3, 1, 0]
    for image, said, found in zip(images, captions, together, strict=True):
        for caption, explanation in zip(said, found, strict=True):
            [[alone]] = tiny_engine.explain([image], [[caption]], method=method, mode=mode)
            assert explanation.maps == pytest.approx(alone.maps, abs=1e-5)
            assert explanation.grid == alone.grid == explanation.maps.shape[1:]
            assert (explanation.maps >= 0).all()
            assert explanation.maps.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", ["attention", "rollout", "gradcam"])
def test_given_many_long_texts_of_one_image_then_few_tokens_are_replayed_at_a_time(
    tiny_engine: Engine, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise_images(3)
    texts = [["a b"], [" ".join("abcdefghij"[n:] * 3) for n in range(9)], ["c", "d e f"]]
    whole = tiny_engine.explain(images, texts, method=method)
    sizes = []

    def read(*given: Any, **named: Any) -> Any:
        sizes.append(given[2].token_ids.numel())
        return attention_read(*given, **named)

    attention_read = attention.read
    monkeypatch.setattr(attention, "_MOST_TOKENS", 40)
    monkeypatch.setattr(attention, "read", read)
    parted = tiny_engine.explain(images, texts, method=method)
    assert len(sizes) >= 9
    assert max(sizes) <= 40
    assert [[one.text for one in row] for row in parted] == texts
    for ours, theirs in zip(parted, whole, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.maps == pytest.approx(other.maps, abs=1e-5)


def test_given_encoded_images_then_explanations_are_those_of_the_images(
    tiny_engine: Engine,
) -> None:
    images = [noise_images(1, seed, size)[0] for seed, size in enumerate(SHAPES)]
    captions = tiny_engine.caption(images, mode="native", **GREEDY)
    for method in ("attention", "gradcam"):
        encoded = tiny_engine.encode(images, "native")
        assert encoded.valid is not None
        ours = tiny_engine.explain(encoded, captions, method=method)
        theirs = tiny_engine.explain(images, captions, method=method, mode="native")
        for [one], [other] in zip(ours, theirs, strict=True):
            assert one.maps == pytest.approx(other.maps, abs=1e-5)


def test_given_a_caption_then_its_words_have_its_tokens_and_its_logprob(bundled: Engine) -> None:
    images = scenes(24)
    captions = bundled.caption(images, **GREEDY)
    pieces = 0
    for [caption], [found] in zip(captions, bundled.explain(images, captions), strict=True):
        assert " ".join(word.text for word in found.words) == found.text == caption.text
        assert found.tokens == caption.tokens
        for word in found.words:
            tokens = caption.token_logprobs[word.first : word.last + 1]
            assert word.logprob == pytest.approx(sum(tokens), abs=1e-3)
        pieces += sum(word.last > word.first for word in found.words)
        assert found.words[-1].last == len(found.tokens) - 2  # [SEP] is no word
    assert pieces > 0, "no word of these captions is in two pieces"


def test_given_a_word_in_two_pieces_then_its_map_is_the_mean_of_theirs(bundled: Engine) -> None:
    [image] = scenes(1)
    [[found]] = bundled.explain([image], [["a small red triangle"]], raw=True)
    assert [(word.first, word.last) for word in found.words] == [(0, 0), (1, 1), (2, 2), (3, 4)]
    assert found.raw is not None
    both = found.raw[1, :, 3:5].mean(axis=0).sum(axis=0)  # of the middle layer
    assert found.maps[3] == pytest.approx(both / both.sum(), abs=1e-5)


def test_given_a_prefix_then_its_words_are_explained_and_the_prompts_are_not(
    bundled: Engine,
) -> None:
    options = CaptionOptions(prompt="a picture of", prefix="a small tri", **GREEDY)
    images = scenes(2)
    captions = bundled.caption(images, options)
    for [caption], [found] in zip(
        captions, bundled.explain(images, captions, options), strict=True
    ):
        assert found.text == caption.text
        assert found.text.startswith("a small tri")
        assert found.tokens == ["a", "small", "tri", *caption.tokens]
        assert [word.text for word in found.words][:2] == ["a", "small"]
        assert found.maps.shape == (len(found.words), 8, 8)


def test_given_a_text_then_it_is_explained_as_the_caption_that_says_it(bundled: Engine) -> None:
    images = scenes(2)
    captions = bundled.caption(images, **GREEDY)
    ours = bundled.explain(images, [[row[0].text] for row in captions])
    for [one], [other] in zip(ours, bundled.explain(images, captions), strict=True):
        assert (one.text, one.tokens, one.words) == (other.text, other.tokens, other.words)
        assert one.maps == pytest.approx(other.maps)


def test_given_layers_and_heads_then_their_raw_maps_are_averaged(bundled: Engine) -> None:
    [image] = scenes(1)
    texts = [["red on white"]]
    [[every]] = bundled.explain([image], texts, raw=True)
    assert every.raw is not None
    for layers, heads in ([0, -1], 2), ([2], [1, 3]), (1, None):
        [[found]] = bundled.explain([image], texts, layers=layers, heads=heads)
        averaged = every.raw[layers if isinstance(layers, list) else [layers]].mean(axis=0)
        heads = [0, 1, 2, 3] if heads is None else heads if isinstance(heads, list) else [heads]
        averaged = averaged[heads].mean(axis=0)[:3]
        expected = averaged / averaged.sum(axis=(1, 2), keepdims=True)
        assert found.maps == pytest.approx(expected, abs=1e-5)


def test_given_an_own_position_then_the_map_is_the_next_tokens_predicting_one(
    bundled: Engine,
) -> None:
    [image] = scenes(1)
    texts = [["a small red circle"]]
    [[own]] = bundled.explain([image], texts, position="own")
    [[predicting]] = bundled.explain([image], texts)
    assert own.maps[:-1] == pytest.approx(predicting.maps[1:], abs=1e-6)


def test_given_nothing_to_explain_then_there_are_no_explanations(tiny_engine: Engine) -> None:
    images = noise_images(2)
    assert tiny_engine.explain(images, [[], []]) == [[], []]
    assert tiny_engine.explain_match(images, [[], []]) == [[], []]
    assert tiny_engine.explain([], []) == []
    [caption] = tiny_engine.caption(images[:1])[0]
    empty = replace(caption, text="", token_ids=[], tokens=[])
    [[found]] = tiny_engine.explain(images[:1], [[empty]], raw=True)
    assert (found.words, found.tokens, found.maps.shape) == ([], [], (0, 4, 4))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"method": "saliency"}, "method must be"),
        ({"layers": 2}, "layers are -2 to 1"),
        ({"layers": []}, "layers are -2 to 1"),
        ({"heads": -5}, "heads are -4 to 3"),
        ({"position": "next"}, "position must be"),
    ],
)
def test_given_a_way_that_is_not_there_then_it_is_refused(
    tiny_engine: Engine, wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        tiny_engine.explain(noise_images(1), [["a b"]], **wrong)


@pytest.mark.parametrize("method", ["rollout", "occlusion"])
def test_given_encoded_images_then_what_starts_from_pixels_is_refused(
    tiny_engine: Engine, method: Any
) -> None:
    encoded = tiny_engine.encode(noise_images(1))
    with pytest.raises(ValueError, match="pixels"):
        tiny_engine.explain(encoded, [["a b"]], method=method)


def test_given_what_cannot_be_explained_then_the_reason_is_said(
    tiny: Path, tiny_engine: Engine
) -> None:
    images = noise_images(2)
    with pytest.raises(ValueError, match="1 lists of texts to explain for 2 images"):
        tiny_engine.explain(images, [["a"]])
    with pytest.raises(ValueError, match="for each image"):
        tiny_engine.explain(images, ["a", "b"])
    with pytest.raises(InputError, match="positions"):
        tiny_engine.explain(images[:1], [["a " * 600]])
    with pytest.raises(CheckpointError, match="not caption"):
        Engine.load(tiny, tasks=["match"]).explain(images[:1], [["a"]])
    with pytest.raises(CheckpointError, match="not match"):
        Engine.load(tiny, tasks=["caption"]).explain_match(images[:1], ["a"])
    encoded = tiny_engine.encode([images[0], images[1].resize((250, 160))], "native")
    with pytest.raises(ValueError, match="grids"):
        tiny_engine.explain(EncodedImages(encoded.embeddings, encoded.valid), [["a"], ["b"]])


def test_given_an_explanation_then_captions_after_it_are_those_before(bundled: Engine) -> None:
    images = scenes(3)
    before = bundled.caption(images)
    for method in METHODS:
        bundled.explain(images, before, method=method)
    assert bundled.caption(images) == before
