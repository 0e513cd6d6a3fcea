"""The engine and transformers on one checkpoint and the same images, compared caption by caption.

A difference counts, unless transformers itself cannot tell the two captions apart: its scores for
both lie within TIE. Such ties are listed, one by one, at the end of the test run.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.blip_checkpoints import Captioner, Retriever
from worker.blip import Caption, Engine

TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-3
TIE = 1e-5
TEXTS = [
    "a picture of a b",
    "c",
    "word7 word8 word9 word10 word11 word12, d.",
    "d e f",
    "word9 word10 g h",
]
"""Of five lengths: some share a forward, with pads, some do not."""

GREEDY: list[dict[str, Any]] = [
    {"num_beams": 1},
    {"num_beams": 1, "repetition_penalty": 1.5},
    {"num_beams": 1, "no_repeat_ngram_size": 2},
    {"num_beams": 1, "prompt": "a picture of "},
]
BEAMS: list[dict[str, Any]] = [
    {"num_beams": beams, "length_penalty": penalty}
    for beams in (2, 3, 5, 10)
    for penalty in (0.0, 1.0, 2.0)
]
OTHERS: list[dict[str, Any]] = [
    {"num_beams": 3, "prompt": "a picture of "},
    {"num_beams": 5, "prompt": "word7 b", "repetition_penalty": 1.3},
    {"num_beams": 3, "repetition_penalty": 1.5},
    {"num_beams": 3, "no_repeat_ngram_size": 2},
    {"num_beams": 3, "min_new_tokens": 0, "max_new_tokens": 20},
    {"num_beams": 3, "min_new_tokens": 12, "max_new_tokens": 12},
    {"num_beams": 2, "min_new_tokens": 4, "max_new_tokens": 9},
    {"num_beams": 5, "num_return_sequences": 5},
]


def named(names: dict[str, Any]) -> str:
    """An id for a test case."""
    return ",".join(f"{name}={value}" for name, value in names.items())


Listed = Callable[[str, object], None]  # pytest's record_property


class Side:
    """One checkpoint, loaded by the engine and by transformers, and images both have encoded."""

    def __init__(
        self, folder: Path, images: list[Image.Image], texts: Sequence[str] = TEXTS
    ) -> None:
        self.engine = Engine.load(folder)
        self.folder, self.images, self.texts = folder, images, texts
        self.captioner = Captioner(folder, images)
        self.encoded = self.engine.encode(images)

    def assert_same_captions(
        self, listed: Listed, distinct: float, prompt: str = "", **names: Any
    ) -> None:
        """Token ids and scores of every hypothesis; `distinct` of the best ones must be unlike."""
        prompt_ids = self.engine._tokenizer.prompt(prompt)[1:]
        reference, output = self.captioner.generate(prompt_ids, **names)
        beams, per_image = names["num_beams"], names.get("num_return_sequences", 1)
        best = reference[::per_image]
        unlike_captions = len({tuple(row) for row in best})
        assert unlike_captions >= distinct * len(best), "the reference's captions are too alike"
        rows = self.engine.caption(self.encoded, prompt=prompt, **names)
        assert [len(row) for row in rows] == [per_image] * len(rows)
        ours = [caption for row in rows for caption in row]
        unlike = [i for i, one in enumerate(ours) if one.token_ids != reference[i]]
        if unlike and beams > 1:
            # All that the search of transformers ended with, to see what it could not tell apart.
            wide = names | {"num_return_sequences": beams}
            every, scored = self.captioner.generate(prompt_ids, **wide)
            scores = scored.sequences_scores.tolist()
        for index in unlike:
            if beams > 1:
                image, place = divmod(index, per_image)
                found = slice(image * beams, (image + 1) * beams)
                gap = beam_gap(every[found], scores[found], place, ours[index].token_ids)
            else:
                steps = torch.stack([step[index] for step in output.scores])
                gap = greedy_gap(steps, reference[index], ours[index].token_ids)
            case = named({"prompt": prompt} | names)
            assert gap < TIE, (
                f"{case}, caption {index}: {ours[index].token_ids}, not {reference[index]}"
            )
            listed("tie", f"{self.folder.name}, {case}, caption {index}: gap {gap:.1e}")
        self._assert_same_scores(ours, output, beams, set(unlike))

    def _assert_same_scores(
        self, ours: Sequence[Caption], output: Any, beams: int, ties: set[int]
    ) -> None:
        if beams > 1:
            assert [one.score for one in ours] == pytest.approx(
                output.sequences_scores.tolist(), abs=SCORE_TOLERANCE
            )
        transitions = self.captioner.model.text_decoder.compute_transition_scores(
            output.sequences,
            output.scores,
            output.beam_indices if beams > 1 else None,
            normalize_logits=beams == 1,
        )
        for index, one in enumerate(ours):
            if index not in ties:
                expected = transitions[index, : len(one.token_ids)].tolist()
                assert one.processed_token_logprobs == pytest.approx(expected, abs=SCORE_TOLERANCE)

    @cached_property
    def reference_scores(self) -> tuple[torch.Tensor, torch.Tensor]:
        """transformers' ITM logits [N, n, 2] and ITC cosines [N, n] of all images and texts."""
        logits, cosines = Retriever(self.folder, self.images, self.captioner.embeddings).scores(
            self.texts
        )
        assert logits.std(dim=(0, 1)).min() > 10 * TOLERANCE, "the reference tells no pair apart"
        assert cosines.std() > 10 * TOLERANCE, "the reference tells no pair apart"
        return logits, cosines

    def assert_same_matches(self) -> None:
        """ITM logits and ITC cosines of every image with every text."""
        assert len({len(self.engine._tokenizer.text(text)) for text in self.texts}) > 2
        logits, cosines = self.reference_scores
        self.engine.text_cache.clear()
        found = self.engine.match(self.encoded, self.texts, position_zero="cls")
        ours = torch.tensor([[match.itm_logits for match in row] for row in found])
        assert (ours - logits).abs().max() < TOLERANCE
        assert torch.tensor([[m.itm_logit for m in row] for row in found]).equal(ours[..., 1])
        ours = torch.tensor([[match.itc_cosine for match in row] for row in found])
        assert (ours - cosines).abs().max() < TOLERANCE

    def assert_same_embeddings(self) -> None:
        """Unit vectors whose dot products are the reference's ITC output."""
        self.engine.text_cache.clear()
        images, texts = self.engine.embed(self.encoded), self.engine.embed(texts=self.texts)
        for vectors in (images, texts):
            assert (vectors.norm(dim=1) - 1).abs().max() < 1e-6
        assert (images @ texts.T - self.reference_scores[1]).abs().max() < TOLERANCE

    def assert_same_shortlists(self, k: int) -> None:
        """Of each image the k texts of the reference's highest cosines, with its logits."""
        logits, cosines = self.reference_scores
        for row, theirs, cosine in zip(
            self.engine.rank(self.encoded, self.texts, k, "cls"), logits, cosines, strict=True
        ):
            best = cosine.topk(k).indices.tolist()
            matched = {place: one.match for place, one in enumerate(row) if one.match}
            assert sorted(matched) == sorted(best)
            ours = torch.tensor([matched[place].itm_logits for place in best])
            assert (ours - theirs[best]).abs().max() < TOLERANCE


def greedy_gap(steps: torch.Tensor, expected: Sequence[int], ours: Sequence[int]) -> float:
    """The reference's score for its token over that for ours, where the two first part.

    steps: [T, V], the reference's processed scores. Infinite where neither is its best.
    """
    parts = next((i for i, (a, b) in enumerate(zip(expected, ours, strict=False)) if a != b), None)
    if parts is None:  # one is the other's beginning: no tie ends a caption
        return float("inf")
    best, second = steps[parts].topk(2)[0].tolist()
    is_second = steps[parts, ours[parts]].item() == second
    return float(best - second) if is_second else float("inf")


def beam_gap(
    every: Sequence[Sequence[int]], scores: Sequence[float], place: int, ours: Sequence[int]
) -> float:
    """The reference's score at our `place` against its score for our caption.

    every, scores: all hypotheses of the image. Infinite where ours is none of them.
    """
    if list(ours) not in [list(one) for one in every]:
        return float("inf")
    return abs(scores[place] - scores[[list(one) for one in every].index(list(ours))])
