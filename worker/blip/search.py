"""Token selection: greedy search, sampling and beam search, with exactly transformers' semantics.

A search owns its bookkeeping as tensors on the device, of shapes that no data changes, and never
looks at the host. `advance` takes the logits of one step and answers which token each sequence
continues with, and from which one. In transformers' loop some conditions span the batch; here each
row carries its own options and its own end, and what it returns equals transformers' result for
that row alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from worker.blip.endings import Endings
from worker.blip.options import CaptionOptions
from worker.blip.processors import Processors
from worker.blip.sampling import Warpers, draw, uniforms
from worker.blip.tokenizer import Tokenizer

_NEVER = -1.0e9  # transformers' score for what cannot be chosen


@dataclass(frozen=True)
class Hypotheses:
    """What a search found: beams best first, samples in the order of their drawing.

    token_ids         int64 [B, n, T], [SEP] included where it came
    token_logprobs    float32 [B, n, T], the model's own log-probabilities, before any processor
    processed_logprobs  float32 [B, n, T], what the tokens were chosen by: log-probabilities after
                      all processors and warpers; in beam search not normalised again
    lengths           int64 [B, n]; 0 where there was nothing to be found
    scores            float32 [B, n]: log-probability / length ** length_penalty. Beam search's
                      is transformers' sequences_scores, after processors; else the model's own
    """

    token_ids: Tensor
    token_logprobs: Tensor
    processed_logprobs: Tensor
    lengths: Tensor
    scores: Tensor


class Search(Protocol):
    """One search over B rows: `advance` step by step until `done`, then `hypotheses`.

    width: token sequences of a row. steps: the most new tokens of any row. done: bool [B].
    """

    width: int
    steps: int

    @property
    def done(self) -> Tensor:
        """bool [B]."""

    def advance(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """logits: [B, width, V] for the step-th new token (0 is the first).

        Returns (token_ids, parents), both int64 [B, width].
        """
        ...


class RowSearch(Search, Protocol):
    """A search that answers for all its rows at once."""

    def hypotheses(self) -> Hypotheses:
        """What was found."""
        ...


def search_for(
    rows: Sequence[CaptionOptions],
    prompts: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    device: torch.device,
) -> RowSearch:
    """The search for rows that share what changes its shape: num_beams and num_samples.

    prompts: token ids of each row, [DEC] first.
    """
    shapes = {(row.num_beams, row.num_samples) for row in rows}
    if len(shapes) != 1:
        raise ValueError(f"rows of one search share num_beams and samples, got {sorted(shapes)}")
    if rows[0].num_beams == 1:
        return Sampling(rows, prompts, tokenizer, device)
    return BeamSearch(rows, prompts, tokenizer, device)


def _divisors(rows: Sequence[CaptionOptions], steps: int, device: torch.device) -> Tensor:
    """float32 [B, steps + 1]: what the log-probability of each length is divided by."""
    return torch.tensor(
        [[1.0] + [n**row.length_penalty for n in range(1, steps + 1)] for row in rows],
        device=device,
    )


class Sampling:
    """The most probable token at each step in rows without do_sample, else one drawn."""

    def __init__(
        self,
        rows: Sequence[CaptionOptions],
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        self.steps = steps = max(row.steps for row in rows)
        self.width = width = rows[0].num_samples
        self.processors = Processors(rows, prompts, tokenizer, device)
        self.endings = Endings(rows, width, tokenizer, device)
        self.warpers = Warpers(rows, tokenizer.vocab_size, device)
        self.samples = torch.tensor([row.do_sample for row in rows], device=device)[:, None]
        self.draws = any(row.do_sample for row in rows)
        self.uniforms = uniforms(rows, width, steps).to(device)
        self.divisors = _divisors(rows, steps, device)
        shape = (len(rows), width, steps)
        self.token_ids = torch.full(shape, tokenizer.vocab_size, device=device)
        self.token_logprobs = torch.zeros(shape, device=device)
        self.processed_logprobs = torch.zeros(shape, device=device)
        self.lengths = torch.zeros(shape[:2], dtype=torch.int64, device=device)
        self.ended = torch.zeros(shape[:2], dtype=torch.bool, device=device)
        self.parents = torch.arange(width, device=device).expand(len(rows), -1)
        self.done = self.ended.all(dim=1)

    def advance(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See Search."""
        logits = logits.float()
        scores = self.processors(step, logits, self.token_ids)
        chosen = scores.argmax(dim=-1)  # [B, width]
        if self.draws:
            scores = self.warpers(scores)  # greedy rows have neutral ones
            chosen = torch.where(self.samples, draw(scores, self.uniforms[:, :, step]), chosen)
        self.token_ids[:, :, step] = chosen
        own = _logprob(logits, chosen)
        self.token_logprobs[:, :, step] = own
        self.processed_logprobs[:, :, step] = own if scores is logits else _logprob(scores, chosen)
        self.lengths += ~self.ended
        self.ended = self.ended | self.endings.advance(step, chosen, None)
        self.done = self.ended.all(dim=1)
        self.processors.advance(chosen, None)
        return chosen, self.parents

    def hypotheses(self) -> Hypotheses:
        """See Search."""
        columns = torch.arange(self.token_ids.shape[-1], device=self.lengths.device)
        counted = columns < self.lengths[..., None]
        totals = self.token_logprobs.masked_fill(~counted, 0.0).sum(dim=-1)
        scores = totals / self.divisors.gather(1, self.lengths)
        return Hypotheses(
            self.token_ids, self.token_logprobs, self.processed_logprobs, self.lengths, scores
        )


class BeamSearch:
    """Beam search as GenerationMixin._beam_search does it.

    Each step keeps the best 2 x beams continuations of an image. Those that end enter the
    finished hypotheses if they are among the best `beams`; the best `beams` that do not end run on.
    """

    def __init__(
        self,
        rows: Sequence[CaptionOptions],
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        self.width = self.beams = beams = rows[0].num_beams
        self.steps = steps = max(row.steps for row in rows)
        batch = len(rows)
        self.processors = Processors(rows, prompts, tokenizer, device)
        self.endings = Endings(rows, beams, tokenizer, device)
        self.stop_when_full = torch.tensor([r.early_stopping is True for r in rows], device=device)
        self.divisors = _divisors(rows, steps, device)
        # The length at which a running beam is judged: its own, unless "never" asks for the best.
        self.judge_at_max = torch.tensor(
            [r.early_stopping == "never" and r.length_penalty > 0 for r in rows], device=device
        )
        shape = (batch, beams, steps)
        self.running_ids = torch.full(shape, tokenizer.vocab_size, device=device)
        # [..., 0] the model's own, [..., 1] after the processors
        self.running_logprobs = torch.zeros((*shape, 2), device=device)
        self.running_scores = torch.full((batch, beams), _NEVER, device=device)
        self.running_scores[:, 0] = 0.0  # all beams are equal at first: only one may be continued
        self.finished_ids = torch.zeros_like(self.running_ids)
        self.finished_logprobs = torch.zeros_like(self.running_logprobs)
        self.finished_lengths = torch.zeros((batch, beams), dtype=torch.int64, device=device)
        self.finished_scores = torch.full((batch, beams), _NEVER, device=device)
        self.finished = torch.zeros((batch, beams), dtype=torch.bool, device=device)
        self.top = torch.arange(2 * beams, device=device) < beams
        self.done = torch.zeros(batch, dtype=torch.bool, device=device)

    def advance(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See Search."""
        vocab_size = logits.shape[-1]
        log_probs = logits.float().log_softmax(dim=-1)
        processed = self.processors(step, log_probs, self.running_ids)
        totals = processed + self.running_scores[..., None]
        scores, flat = totals.flatten(1).topk(2 * self.beams)
        parents, token_ids = flat // vocab_size, flat % vocab_size
        ends = self.endings.advance(step, token_ids, parents)

        candidate_ids = _take(self.running_ids, parents)
        candidate_ids[:, :, step] = token_ids
        candidate_logprobs = _take(self.running_logprobs, parents)
        for kind, values in enumerate((log_probs, processed)):
            candidate_logprobs[:, :, step, kind] = values.flatten(1).gather(1, flat)

        open_scores = scores + ends * _NEVER
        kept = open_scores.topk(self.beams).indices
        self.running_ids = _take(candidate_ids, kept)
        self.running_logprobs = _take(candidate_logprobs, kept)
        self.running_scores = _take(open_scores, kept)

        self._finish(step + 1, candidate_ids, candidate_logprobs, scores, ends)
        self._end_rows(step + 1)
        self.endings.keep(kept)
        token_ids, parents = _take(token_ids, kept), _take(parents, kept)
        self.processors.advance(token_ids, parents)
        return token_ids, parents

    def _finish(
        self, length: int, token_ids: Tensor, logprobs: Tensor, scores: Tensor, ends: Tensor
    ) -> None:
        """Let candidates that end, in rows still open, displace worse finished hypotheses."""
        new = ends & self.top & ~self.done[:, None]
        new_scores = (scores / self.divisors[:, length, None]).masked_fill(~new, -torch.inf)
        merged = torch.cat([self.finished_scores, new_scores], dim=1)
        self.finished_scores, best = merged.topk(self.beams)
        lengths = torch.full_like(new, length, dtype=torch.int64)
        self.finished = _take(torch.cat([self.finished, new], dim=1), best)
        self.finished_ids = _take(torch.cat([self.finished_ids, token_ids], dim=1), best)
        self.finished_logprobs = _take(torch.cat([self.finished_logprobs, logprobs], dim=1), best)
        self.finished_lengths = _take(torch.cat([self.finished_lengths, lengths], dim=1), best)

    def _end_rows(self, length: int) -> None:
        """End the rows in which no running beam can, or may, improve the finished ones."""
        judged_at = torch.where(self.judge_at_max, self.endings.max_new, length)
        best_possible = self.running_scores[:, :1] / self.divisors.gather(1, judged_at[:, None])
        worst = self.finished_scores.amin(dim=1, keepdim=True)
        worst_finished = torch.where(self.finished, worst, _NEVER)
        hopeless = ~(best_possible > worst_finished).any(dim=1)
        full = self.finished.all(dim=1) & self.stop_when_full
        self.done = self.done | hopeless | full | (length >= self.endings.max_new)

    def hypotheses(self) -> Hypotheses:
        """See Search."""
        own, processed = self.finished_logprobs.unbind(dim=-1)
        return Hypotheses(
            self.finished_ids, own, processed, self.finished_lengths, self.finished_scores
        )


def _logprob(logits: Tensor, token_ids: Tensor) -> Tensor:
    """logits [B, n, V], token_ids [B, n] -> their log-probabilities [B, n]."""
    chosen = logits.gather(-1, token_ids[..., None])[..., 0]
    return chosen - logits.logsumexp(dim=-1)


def _take(values: Tensor, beams: Tensor) -> Tensor:
    """values [B, n, ...] at beams [B, m] -> [B, m, ...], a new tensor."""
    index = beams.reshape(*beams.shape, *(1,) * (values.dim() - 2))
    return values.take_along_dim(index, dim=1)
