"""Packs beside the checkpoint say what peft's unmerged model says, and what a merged one says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration

from tests.blip_checkpoints import Captioner, Retriever, load_quietly, noise_images
from tests.blip_packs import (
    EVERY_MATCH_LAYER,
    QUERY_VALUE,
    Made,
    caption_logprobs,
    write_pack,
)
from worker.blip import Engine, Pack
from worker.blip.merge import merge_pack
from worker.blip.text import TextDecoder

BUNDLED = Path(__file__).parents[3] / "worker" / "checkpoints" / "scenes"
MADE = {
    "every layer, own words": Made(words=150),
    "every layer": Made(rank=3, seed=1),
    "query and value, rank-stabilised": Made(
        targets=QUERY_VALUE, rank=8, seed=2, lora={"use_rslora": True}
    ),
    "ranks that differ, own words": Made(
        words=90, seed=3, lora={"rank_pattern": {"query": 1, "crossattention.self.value": 7}}
    ),
}


@dataclass(frozen=True)
class Case:
    """A pack three times: peft's model, unmerged in an engine, merged in another."""

    engine: Engine
    pack: Pack
    peft: Any
    merged_folder: Path
    merged: Engine


def case_of(base: Path, made: Made, folder: Path, engine: Engine) -> Case:
    peft = write_pack(folder / "pack", base, made)
    merged = merge_pack(folder / "pack", folder / "merged", base)
    return Case(engine, engine.load_pack(folder / "pack"), peft, merged, Engine.load(merged))


@pytest.fixture(scope="module")
def bundled() -> Engine:
    return Engine.load(BUNDLED)


@pytest.fixture(scope="module", params=[*MADE, "bundled checkpoint"])
def case(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: Any) -> Case:
    folder = tmp_path_factory.mktemp("case")
    (folder / "pack").mkdir()
    if request.param in MADE:
        engine = request.getfixturevalue("tiny_engine")
        return case_of(tiny, MADE[request.param], folder, engine)
    return case_of(BUNDLED, Made(words=150), folder, request.getfixturevalue("bundled"))


@torch.inference_mode()
def our_logprobs(decoder: TextDecoder, embeddings: Tensor, rows: list[list[int]]) -> Tensor:
    width = len(rows[0])
    mask = torch.ones(width, width, dtype=torch.bool).tril()
    cross = decoder.text.project_images(embeddings)
    hidden = decoder.text(torch.tensor(rows), torch.arange(width)[None], mask, cross)
    found: Tensor = decoder.logits(hidden)[:, :-1].log_softmax(dim=-1)
    return found


def test_given_a_pack_then_logprobs_are_pefts_and_those_of_the_merged_checkpoint(
    case: Case,
) -> None:
    embeddings = case.engine.encode(noise_images(3)).embeddings
    tokenizer = case.pack.tokenizer
    some = np.random.default_rng(0).integers(0, tokenizer.vocab_size, (3, 9)).tolist()
    rows = [[tokenizer.bos_id, *row] for row in some]
    assert case.pack.decoder is not None
    assert case.merged._modules.decoder is not None
    reference = caption_logprobs(case.peft, embeddings, rows)
    plain = load_quietly(BlipForConditionalGeneration, case.merged_folder)
    for found in (
        our_logprobs(case.pack.decoder, embeddings, rows),
        our_logprobs(case.merged._modules.decoder, embeddings, rows),
        caption_logprobs(plain, embeddings, rows),
    ):
        assert (found - reference).abs().max() < 1e-4


OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 3, "num_return_sequences": 3},
    "a prompt": {"num_beams": 3, "prompt": "a b"},
    "a prefix": {"num_beams": 1, "prefix": "b a"},
    "samples": {"do_sample": True, "num_return_sequences": 3, "seed": 5, "top_p": 0.9},
    "banned words": {"num_beams": 3, "bad_words": ["a", "wort7 wort8", [9, 9]]},
    "few characters": {"num_beams": 3, "max_chars": 20},
    "stop strings": {"num_beams": 1, "stop_strings": ["a", "ort1", "r"]},
    "penalties": {"num_beams": 3, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_given_options_then_a_pack_captions_as_the_merged_checkpoint_does(
    case: Case, options: dict[str, Any]
) -> None:
    images = noise_images(4, seed=3)
    found = case.engine.caption(images, packs=case.pack, **options)
    expected = case.merged.caption(images, **options)
    assert [[c.token_ids for c in row] for row in found] == [
        [c.token_ids for c in row] for row in expected
    ]
    assert [[c.text for c in row] for row in found] == [[c.text for c in row] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[0].token_logprobs == pytest.approx(theirs[0].token_logprobs, abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_given_a_pack_then_captions_are_transformers_own_of_the_merged_checkpoint(
    case: Case, beams: int
) -> None:
    images = noise_images(4, seed=4)
    reference = Captioner(case.merged_folder, images)
    options = {"num_beams": beams, "max_new_tokens": 12, "min_new_tokens": 5}
    expected, _ = reference.generate(length_penalty=1.0, **options)
    found = case.engine.caption(images, packs=case.pack, **options)
    assert [row[0].token_ids for row in found] == expected


@pytest.mark.parametrize("beams", [1, 3])
def test_given_a_pack_whose_special_ids_are_others_then_a_mix_gives_each_row_its_own(
    case: Case, beams: int
) -> None:
    images = noise_images(5, seed=2)
    packs = [case.pack, None, case.pack, None, None]
    found = case.engine.caption(images, packs=packs, num_beams=beams)
    for row, image, pack in zip(found, images, packs, strict=True):
        [alone] = case.engine.caption(image, packs=pack, num_beams=beams)
        assert row[0].token_ids == alone[0].token_ids
        assert row[0].text == alone[0].text


@pytest.mark.parametrize("method", ["attention", "gradcam", "rollout"])
def test_given_packs_when_explained_then_maps_are_those_of_each_ones_merged_checkpoint(
    case: Case, method: Any
) -> None:
    images = noise_images(3, seed=5)
    packs = [case.pack, None, case.pack]
    captions = case.engine.caption(images, packs=packs, max_new_tokens=6)
    found = case.engine.explain(images, captions, packs=packs, method=method)
    expected = case.merged.explain(images, [captions[0], [], captions[2]], method=method)
    expected[1] = case.engine.explain(images, [[], captions[1], []], method=method)[1]
    for ours, theirs in zip(found, expected, strict=True):
        assert [word.text for word in ours[0].words] == [word.text for word in theirs[0].words]
        assert np.abs(ours[0].maps - theirs[0].maps).max() < 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_given_coarser_numbers_then_a_pack_still_says_about_the_same(
    case: Case, tiny: Path, dtype: str
) -> None:
    base = tiny if case.engine.model_id == tiny.name else BUNDLED
    engine = Engine.load(base, dtype=dtype, tasks=["caption"])
    pack = engine.load_pack(case.merged_folder.parent / "pack")
    images = noise_images(3)
    ids = torch.randint(0, pack.tokenizer.vocab_size, (3, 9)).tolist()

    def logprobs(of: Engine, decoder: TextDecoder | None) -> Tensor:
        assert decoder is not None
        return our_logprobs(decoder, of.encode(images).embeddings, ids).float()

    exact, found = logprobs(case.engine, case.pack.decoder), logprobs(engine, pack.decoder)
    assert (found - exact).abs().mean() < 0.15
    if found.shape[-1] == case.engine._tokenizer.vocab_size:  # the checkpoint says something else
        assert (logprobs(engine, engine._modules.decoder) - exact).abs().mean() > 0.3
    captions = engine.caption(images, packs=[pack, None, pack])
    assert all(row[0].token_ids for row in captions)


@pytest.fixture(scope="module")
def match_case(tiny: Path, tiny_engine: Engine, tmp_path_factory: Any) -> Case:
    folder = tmp_path_factory.mktemp("match")
    (folder / "pack").mkdir()
    return case_of(tiny, Made(task="match", targets=EVERY_MATCH_LAYER), folder, tiny_engine)


TEXTS = ["a b c", "word7", "b word9 a"]


def test_given_a_match_pack_then_scores_are_transformers_own_of_the_merged_checkpoint(
    match_case: Case,
) -> None:
    images = noise_images(3)
    logits, cosines = Retriever(match_case.merged_folder, images).scores(TEXTS)
    found = match_case.engine.match(images, TEXTS, "cls", pack=match_case.pack)
    ours = torch.tensor([[match.itm_logits for match in row] for row in found])
    assert (ours - logits).abs().max() < 1e-4
    ours = torch.tensor([[match.itc_cosine for match in row] for row in found])
    assert (ours - cosines).abs().max() < 1e-4


def test_given_a_match_pack_then_every_call_answers_as_the_merged_checkpoint(
    match_case: Case,
) -> None:
    engine, merged, pack = match_case.engine, match_case.merged, match_case.pack
    images = noise_images(3)
    ranked = engine.rank(images, TEXTS, 2, pack=pack)
    for ours, theirs in zip(ranked, merged.rank(images, TEXTS, 2), strict=True):
        assert [one.match is None for one in ours] == [one.match is None for one in theirs]
        assert [one.itc_cosine for one in ours] == pytest.approx(
            [one.itc_cosine for one in theirs], abs=1e-4
        )
    for named in ({"images": images}, {"texts": TEXTS}):
        assert torch.allclose(engine.embed(**named, pack=pack), merged.embed(**named), atol=1e-4)
    for method in ("attention", "gradcam"):
        found = engine.explain_match(images, TEXTS, pack=pack, method=method)
        expected = merged.explain_match(images, TEXTS, method=method)
        for ours_maps, their_maps in zip(found, expected, strict=True):
            assert np.abs(ours_maps[0].maps - their_maps[0].maps).max() < 1e-4
    assert engine.token_ids("a b", pack) == merged.token_ids("a b")


def test_given_the_same_text_with_a_pack_and_without_then_no_vector_is_taken_for_the_other(
    match_case: Case,
) -> None:
    engine, pack = match_case.engine, match_case.pack
    engine.text_cache.clear()
    without = engine.embed(texts=["a b"])
    adapted = engine.embed(texts=["a b"], pack=pack)
    assert not torch.allclose(adapted, without, atol=1e-3)
    assert torch.equal(engine.embed(texts=["a b"]), without)
    assert torch.equal(engine.embed(texts=["a b"], pack=pack), adapted)
    assert (engine.text_cache.hits, engine.text_cache.misses) == (1, 1)


def test_given_a_pack_that_is_gone_then_so_is_what_was_kept_of_its_texts(
    match_case: Case,
) -> None:
    engine = match_case.engine
    pack = engine.load_pack(match_case.merged_folder.parent / "pack")
    engine.embed(texts=["a b"], pack=pack)
    assert engine._scorers is not None
    kept = len(engine._scorers._by_pack)
    del pack
    assert len(engine._scorers._by_pack) == kept - 1


def test_given_a_pack_of_another_engine_or_task_then_it_is_refused(
    match_case: Case, tiny: Path
) -> None:
    [image] = noise_images(1)
    with pytest.raises(ValueError, match="of another engine, or task"):
        match_case.engine.caption(image, packs=match_case.pack)
    with pytest.raises(ValueError, match="of another engine, or task"):
        Engine.load(tiny).match(image, "a", pack=match_case.pack)
    with pytest.raises(ValueError, match="0 lists of texts to explain for 1 images"):
        match_case.engine.explain(image, [], packs=[])
    with pytest.raises(ValueError, match="2 packs for 1 images"):
        match_case.engine.caption(image, packs=[None, None])
