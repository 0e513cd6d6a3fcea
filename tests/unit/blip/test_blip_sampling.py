"""Samples: drawn from transformers' distribution, and determined by their seed alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from tests.blip_checkpoints import TINY, Captioner, noise_images, write_random_checkpoint
from worker.blip import CaptionOptions, Engine, distinct_2
from worker.blip.decoding import decode
from worker.blip.search import search_for

DRAWS, TOKENS, SAMPLES = 20_000, 3, 10
SAMPLERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"top_k": 12},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"temperature": 1.5, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.5},
]
IDS = [",".join(f"{k}={v}" for k, v in sampler.items()) or "plain" for sampler in SAMPLERS]


class Reference:
    """The exact distributions of the first three tokens, by transformers' logits and warpers."""

    @torch.inference_mode()
    def __init__(self, folder: Path) -> None:
        captioner = Captioner(folder, noise_images(1))
        self.model, self.sep = captioner.model.text_decoder, captioner.sep
        self.vocab = self.model.config.vocab_size
        every = torch.cartesian_prod(torch.arange(self.vocab), torch.arange(self.vocab))
        beginnings = [torch.zeros((1, 0), dtype=torch.int64), every[: self.vocab, 1:], every]
        self.contexts = [
            torch.cat([torch.full((len(begun), 1), captioner.bos), begun], dim=1)
            for begun in beginnings
        ]
        self.logits = [
            torch.cat(
                [
                    self.model(
                        part, encoder_hidden_states=captioner.embeddings.expand(len(part), -1, -1)
                    ).logits[:, -1]
                    for part in contexts.split(4000)
                ]
            )
            for contexts in self.contexts
        ]

    def distributions(self, sampler: dict[str, Any]) -> list[Tensor]:
        """float64 [V]: how likely each token is as the first, the second and the third one."""
        neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_new_tokens": TOKENS}
        config = GenerationConfig(do_sample=True, **neutral | sampler)
        config._eos_token_tensor = torch.tensor([self.sep])
        processors = self.model._get_logits_processor(config, input_ids_seq_length=1)
        weights, found = torch.ones(1, dtype=torch.float64), []
        for contexts, logits in zip(self.contexts, self.logits, strict=True):
            probs = processors(contexts, logits).double().softmax(dim=-1)
            weights = (weights[:, None] * probs).flatten()
            found.append(weights.view(-1, self.vocab).sum(dim=0))
        return found

    def entropy_bits(self) -> list[float]:
        """Mean entropy of the model's own distribution of each token."""
        weights, found = torch.ones(1, dtype=torch.float64), []
        for logits in self.logits:
            logits = logits.index_fill(1, torch.tensor([self.sep]), -torch.inf)
            probs = logits.double().softmax(dim=-1)
            found.append(float((weights * torch.special.entr(probs).sum(dim=-1)).sum()) / 0.6931)
            weights = (weights[:, None] * probs).flatten()
        return found


def chi_square(drawn: Tensor, expected: Tensor) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; cells that expect below 5 are one cell."""
    counts = torch.bincount(drawn, minlength=len(expected)).double()
    expected = expected * len(drawn)
    assert counts[expected == 0].sum() == 0, "drawn, though the sampler removes it"
    few = expected < 5
    counts = torch.cat([counts[~few], counts[few].sum()[None]])
    expected = torch.cat([expected[~few], expected[few].sum()[None]])
    used = expected > 0
    return float(((counts - expected)[used] ** 2 / expected[used]).sum()), int(used.sum()) - 1


def quantile(freedom: int) -> float:
    """Chi-square's 0.9999 quantile, by Wilson and Hilferty (1931)."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 3.719 * spread**0.5) ** 3


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose distributions are neither flat nor steep."""
    folder = tmp_path_factory.mktemp("lively")
    return write_random_checkpoint(folder, TINY, seed=4, spread=2.0)


@pytest.fixture(scope="module")
def reference(lively: Path) -> Reference:
    found = Reference(lively)
    assert min(found.entropy_bits()) > 2
    return found


@pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)
def test_given_20000_draws_then_the_first_three_tokens_have_transformers_distribution(
    lively: Path, reference: Reference, sampler: dict[str, Any]
) -> None:
    engine = Engine.load(lively, tasks=["caption"])
    steps = engine._steps
    assert steps is not None
    images = DRAWS // SAMPLES
    rows = [
        CaptionOptions(
            do_sample=True,
            num_return_sequences=SAMPLES,
            seed=seed,
            min_new_tokens=TOKENS,
            max_new_tokens=TOKENS,
            **sampler,
        )
        for seed in range(images)
    ]
    with torch.inference_mode():
        embeddings = engine.encode(noise_images(1)).embeddings
        cross = steps.decoder.text.project_images(embeddings.expand(images, -1, -1))
        prompts = [engine._tokenizer.prompt(None)] * images
        search = search_for(rows, prompts, engine._tokenizer, cross.device)
        decode(steps, cross, prompts, search)
    found = search.hypotheses()
    drawn = found.token_ids.flatten(0, 1)
    assert drawn.shape == (DRAWS, TOKENS)
    for place, expected in enumerate(reference.distributions(sampler)):
        statistic, freedom = chi_square(drawn[:, place], expected)
        assert freedom >= 2
        assert statistic < quantile(freedom), f"token {place + 1}, {freedom} degrees of freedom"


def test_given_another_distribution_then_the_chi_square_test_sees_it(reference: Reference) -> None:
    first, other = (reference.distributions(sampler)[0] for sampler in ({}, {"temperature": 0.95}))
    drawn = torch.multinomial(
        first, DRAWS, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    statistic, freedom = chi_square(drawn, first)
    assert statistic < quantile(freedom)
    statistic, freedom = chi_square(drawn, other)
    assert statistic > quantile(freedom)


def sampled(engine: Engine, **names: Any) -> list[list[int]]:
    return [row[0].token_ids for row in engine.caption(noise_images(6), do_sample=True, **names)]


def test_given_a_seed_then_it_draws_the_same_again_and_another_draws_others(
    tiny_engine: Engine,
) -> None:
    first = sampled(tiny_engine, seed=3)
    assert sampled(tiny_engine, seed=3) == first
    assert sampled(tiny_engine, seed=4) != first
    shorter = sampled(tiny_engine, seed=3, max_new_tokens=8)
    assert shorter == [tokens[:8] for tokens in first]


def test_given_no_seed_then_the_result_names_the_one_that_draws_it_again(
    tiny_engine: Engine,
) -> None:
    image = noise_images(1)
    rows = [tiny_engine.caption(image, do_sample=True)[0][0] for _ in range(4)]
    assert len({row.seed for row in rows}) == 4
    assert len({tuple(row.token_ids) for row in rows}) > 1
    for row in rows:
        [[again]] = tiny_engine.caption(image, do_sample=True, seed=row.seed)
        assert again == row
    [[greedy]] = tiny_engine.caption(image, num_beams=1)
    assert greedy.seed is None


def test_given_several_samples_then_they_are_distinct_counted_and_best_first(
    tiny_engine: Engine,
) -> None:
    names = {"do_sample": True, "seed": 1, "temperature": 0.25, "max_new_tokens": 5}
    rows = tiny_engine.caption(noise_images(8), num_return_sequences=10, **names)
    for row in rows:
        assert sum(caption.count for caption in row) == 10
        assert len({caption.text for caption in row}) == len(row)
        scores = [caption.score for caption in row]
        assert scores == sorted(scores, reverse=True)
        for caption in row:
            assert caption.score == pytest.approx(caption.mean_logprob, abs=1e-5)
            assert caption.seed == 1
    assert any(1 < len(row) < 10 for row in rows)


def test_given_fewer_samples_of_a_seed_then_they_are_the_first_of_more(
    tiny_engine: Engine,
) -> None:
    image = noise_images(1)
    names = {"do_sample": True, "seed": 8}
    [one] = tiny_engine.caption(image, **names)
    [two] = tiny_engine.caption(image, num_return_sequences=2, **names)
    [five] = tiny_engine.caption(image, num_return_sequences=5, **names)
    assert {c.text for c in one} < {c.text for c in two} < {c.text for c in five}


def test_given_one_token_to_draw_from_then_samples_are_greedy_and_certain(
    tiny_engine: Engine,
) -> None:
    images = noise_images(4)
    greedy = tiny_engine.caption(images, num_beams=1)
    for names in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}):
        drawn = tiny_engine.caption(images, do_sample=True, **names)
        for [ours], [expected] in zip(drawn, greedy, strict=True):
            assert ours.token_ids == expected.token_ids
            assert ours.processed_token_logprobs == [0.0] * len(ours.token_ids)
            assert ours.token_logprobs == pytest.approx(expected.token_logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], 0.0),
        (["", "cat"], 0.0),
        (["a red cat"], 2 / 3),
        (["a red cat", "a red cat"], 2 / 6),
        (["a red cat", "a red dog"], 3 / 6),
        (["a a a a"], 1 / 4),
    ],
)
def test_given_texts_then_distinct_2_is_different_pairs_over_words(
    texts: list[str], expected: float
) -> None:
    assert distinct_2(texts) == pytest.approx(expected)
