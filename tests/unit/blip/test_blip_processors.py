"""The vectorised processors and warpers against transformers' own, on random scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from worker.blip import CaptionOptions
from worker.blip.processors import Processors
from worker.blip.sampling import Warpers, draw, uniforms

VOCAB, SEP, CPU = 12, 3, torch.device("cpu")


class Words:
    """A vocabulary of bare ids: no text, nothing silent, no punctuation."""

    vocab_size, sep_id = VOCAB, SEP

    def __init__(self) -> None:
        self.vocabulary = self
        self.silent = self.opens = np.zeros(VOCAB, dtype=bool)


def processors(rows: Sequence[CaptionOptions], prompts: Sequence[Sequence[int]]) -> Processors:
    words: Any = Words()
    return Processors(rows, prompts, words, CPU)


def reference(row: CaptionOptions, prompt_length: int) -> LogitsProcessorList:
    """What GenerationMixin._get_logits_processor makes of the options, in its order."""
    chosen: list[Any] = []
    if row.repetition_penalty != 1.0:
        chosen.append(RepetitionPenaltyLogitsProcessor(row.repetition_penalty))
    if row.no_repeat_ngram_size:
        chosen.append(NoRepeatNGramLogitsProcessor(row.no_repeat_ngram_size))
    if row.bad_words:
        chosen.append(NoBadWordsLogitsProcessor([list(phrase) for phrase in row.bad_words], SEP))
    if row.min_new_tokens:
        chosen.append(MinNewTokensLengthLogitsProcessor(prompt_length, row.min_new_tokens, SEP))
    return LogitsProcessorList(chosen)


def warpers(row: CaptionOptions) -> LogitsProcessorList:
    chosen: list[Any] = []
    if row.temperature != 1.0:
        chosen.append(TemperatureLogitsWarper(row.temperature))
    if row.top_k:
        chosen.append(TopKLogitsWarper(row.top_k))
    if row.top_p < 1.0:
        chosen.append(TopPLogitsWarper(row.top_p))
    if row.min_p:
        chosen.append(MinPLogitsWarper(row.min_p))
    return LogitsProcessorList(chosen)


token = st.integers(0, VOCAB - 1)
banned = st.lists(st.lists(token, min_size=1, max_size=3), max_size=4).map(
    lambda phrases: [phrase for phrase in phrases if phrase != [SEP]]
)
row_options = st.builds(
    CaptionOptions,
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7, 2.5]),
    no_repeat_ngram_size=st.integers(0, 4),
    min_new_tokens=st.integers(0, 6),
    bad_words=banned,
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(row_options, st.lists(token, min_size=1, max_size=5)), min_size=1, max_size=4
    ),
    seed=st.integers(0, 2**31),
    beams=st.integers(1, 3),
    moves=st.booleans(),
)
def test_given_any_options_and_prompts_per_row_then_scores_are_transformers_row_by_row(
    rows: list[tuple[CaptionOptions, list[int]]], seed: int, beams: int, moves: bool
) -> None:
    random = torch.Generator().manual_seed(seed)
    options, prompts = [row for row, _ in rows], [prompt for _, prompt in rows]
    ours = processors(options, prompts)
    steps = 6
    generated = torch.full((len(rows), beams, steps), VOCAB)
    for step in range(steps):
        scores = torch.randn((len(rows), beams, VOCAB), generator=random) * 3
        found = ours(step, scores, generated)
        for index, (row, prompt) in enumerate(rows):
            context = torch.cat(
                [torch.tensor(prompt).expand(beams, -1), generated[index, :, :step]], dim=1
            )
            expected = reference(row, len(prompt))(context, scores[index])
            # Where transformers leaves no token at all, a caption may end.
            stuck = expected.isneginf().all(dim=-1)
            assert found[index][~stuck].equal(expected[~stuck])
            assert found[index][stuck].isfinite().nonzero()[:, 1].tolist() == [SEP] * int(
                stuck.sum()
            )
        parents = torch.randint(beams, (len(rows), beams), generator=random) if moves else None
        token_ids = torch.randint(VOCAB, (len(rows), beams), generator=random)
        if parents is not None:
            generated = generated.take_along_dim(parents[..., None], dim=1)
        generated[:, :, step] = token_ids
        ours.advance(token_ids, parents)


sampler = st.builds(
    CaptionOptions,
    do_sample=st.just(True),
    temperature=st.sampled_from([1.0, 0.3, 2.0]),
    top_k=st.integers(0, VOCAB + 3),
    top_p=st.sampled_from([1.0, 0.0, 0.2, 0.5, 0.9, 0.999]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(sampler, min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    samples=st.integers(1, 3),
    barred=st.integers(0, VOCAB - 1),
    ties=st.booleans(),
)
def test_given_any_samplers_per_row_then_the_warped_scores_are_transformers_row_by_row(
    rows: list[CaptionOptions], seed: int, samples: int, barred: int, ties: bool
) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn((len(rows), samples, VOCAB), generator=random) * 2
    if ties:
        scores = scores.round()
    scores[:, :, :barred] = -torch.inf  # as the processors leave it
    found = Warpers(rows, VOCAB, CPU)(scores)
    for index, row in enumerate(rows):
        ids = torch.zeros((samples, 1), dtype=torch.int64)
        expected = warpers(row)(ids, scores[index])
        assert found[index].equal(expected), row


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31), barred=st.integers(0, VOCAB - 1), edge=st.booleans())
def test_given_any_distribution_and_number_then_the_drawn_token_is_where_the_sum_passes_it(
    seed: int, barred: int, edge: bool
) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn((5, 2, VOCAB), generator=random) * 20
    order = torch.randperm(VOCAB, generator=random)
    scores[:, :, order[:barred]] = -torch.inf
    uniform = torch.rand((5, 2), generator=random, dtype=torch.float64)
    if edge:
        uniform = (uniform > 0.5).double() * (1.0 - 2.0**-52)
    chosen = draw(scores, uniform)
    probs = scores.softmax(-1)
    assert (probs.gather(-1, chosen[..., None]) > 0).all()
    below = probs.double().cumsum(-1) - probs.double()
    assert (below.gather(-1, chosen[..., None])[..., 0] <= uniform + 1e-6).all()


def numbers(row: CaptionOptions, width: int, steps: int) -> Tensor:
    return uniforms([row], width, steps)[0]


def test_given_a_seed_then_its_numbers_depend_on_neither_limits_nor_samples_nor_the_batch() -> None:
    row = CaptionOptions(do_sample=True, seed=5, num_return_sequences=2)
    other = CaptionOptions(do_sample=True, seed=6, num_return_sequences=2)
    few = numbers(row, 2, 4)
    assert numbers(row, 3, 20)[:2, :4].equal(few)
    assert uniforms([other, row, CaptionOptions()], 2, 4)[1].equal(few)
    assert not numbers(other, 2, 4).eq(few).any()
    assert not few[0].eq(few[1]).any()
    assert uniforms([CaptionOptions()], 1, 4).eq(0).all()


def test_given_many_seeds_then_their_first_numbers_are_uniform() -> None:
    rows = [CaptionOptions(do_sample=True, seed=seed) for seed in range(5000)]
    first = uniforms(rows, 1, 2)[:, 0]
    assert ((first >= 0) & (first < 1)).all()
    for step in (0, 1):
        counts = torch.histc(first[:, step], 20, 0, 1)
        # 19 degrees of freedom: 43.8 is passed once in a thousand times.
        assert float(((counts - 250) ** 2 / 250).sum()) < 43.8
    assert abs(float(torch.corrcoef(first.T)[0, 1])) < 0.05
