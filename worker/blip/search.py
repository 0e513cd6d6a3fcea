"""Token selection: greedy and beam search, with exactly transformers' semantics, row by row.

A search owns its bookkeeping as tensors on the device and never looks at the host. `advance`
takes the logits of one step and answers which token each beam continues with, and from which
beam. In transformers' loop some conditions span the batch; here each row carries its own limits
and its own end, and what it returns equals transformers' result for that row alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from worker.blip.options import CaptionOptions

_NEVER = -1.0e9  # transformers' score for what cannot be chosen


@dataclass(frozen=True)
class Hypotheses:
    """What a search found, best first.

    token_ids: int64 [B, n, T], [SEP] included where it came; token_logprobs: float32 [B, n, T],
    the model's own log-probabilities (before any minimum length); lengths: int64 [B, n].
    """

    token_ids: Tensor
    token_logprobs: Tensor
    lengths: Tensor


class Search(Protocol):
    """One search over B rows: `advance` step by step until `done`, then `hypotheses`."""

    done: Tensor  # bool [B]

    def advance(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """logits: [B, beams, V] for the step-th new token (0 is the first).

        Returns (token_ids, parents), both int64 [B, beams].
        """
        ...

    def hypotheses(self) -> Hypotheses:
        """What was found, best first."""
        ...


def search_for(rows: Sequence[CaptionOptions], sep_id: int, device: torch.device) -> Search:
    """The search for rows that share `num_beams`."""
    beams = {row.num_beams for row in rows}
    if len(beams) != 1:
        raise ValueError(f"rows of one search share num_beams, got {sorted(beams)}")
    if beams == {1}:
        return GreedySearch(rows, sep_id, device)
    return BeamSearch(rows, sep_id, device)


class _Limits:
    def __init__(self, rows: Sequence[CaptionOptions], sep_id: int, device: torch.device) -> None:
        self.sep_id = sep_id
        self.steps = max(row.max_new_tokens for row in rows)
        self.min_new = torch.tensor([row.min_new_tokens for row in rows], device=device)
        self.max_new = torch.tensor([row.max_new_tokens for row in rows], device=device)

    def forbid_early_end(self, step: int, scores: Tensor) -> Tensor:
        """scores [B, beams, V] with [SEP] at -inf in the rows that are not long enough yet."""
        scores = scores.clone()
        too_short = (step < self.min_new)[:, None]
        scores[..., self.sep_id] = scores[..., self.sep_id].masked_fill(too_short, -torch.inf)
        return scores


class GreedySearch:
    """The most probable token at each step."""

    def __init__(self, rows: Sequence[CaptionOptions], sep_id: int, device: torch.device) -> None:
        self.limits = _Limits(rows, sep_id, device)
        shape = (len(rows), 1, self.limits.steps)
        self.token_ids = torch.zeros(shape, dtype=torch.int64, device=device)
        self.token_logprobs = torch.zeros(shape, device=device)
        self.lengths = torch.zeros(shape[:2], dtype=torch.int64, device=device)
        self.done = torch.zeros(len(rows), dtype=torch.bool, device=device)

    def advance(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """See Search."""
        logits = logits.float()
        chosen = self.limits.forbid_early_end(step, logits).argmax(dim=-1)  # [B, 1]
        log_probs = logits.log_softmax(dim=-1).gather(-1, chosen[..., None])[..., 0]
        self.token_ids[:, :, step] = chosen
        self.token_logprobs[:, :, step] = log_probs
        self.lengths += ~self.done[:, None]
        self.done = (
            self.done | (chosen[:, 0] == self.limits.sep_id) | (step + 1 >= self.limits.max_new)
        )
        return chosen, torch.zeros_like(chosen)

    def hypotheses(self) -> Hypotheses:
        """See Search."""
        return Hypotheses(self.token_ids, self.token_logprobs, self.lengths)


class BeamSearch:
    """Beam search as GenerationMixin._beam_search does it.

    Each step keeps the best 2 x beams continuations of an image. Those that end enter the
    finished hypotheses if they are among the best `beams`; the best `beams` that do not end run on.
    """

    def __init__(self, rows: Sequence[CaptionOptions], sep_id: int, device: torch.device) -> None:
        self.limits = limits = _Limits(rows, sep_id, device)
        self.beams = beams = rows[0].num_beams
        batch, steps = len(rows), limits.steps
        self.stop_when_full = torch.tensor([r.early_stopping is True for r in rows], device=device)
        self.divisors = torch.tensor(
            [[1.0] + [n**r.length_penalty for n in range(1, steps + 1)] for r in rows],
            device=device,
        )
        # The length at which a running beam is judged: its own, unless "never" asks for the best.
        self.judge_at_max = torch.tensor(
            [r.early_stopping == "never" and r.length_penalty > 0 for r in rows], device=device
        )
        self.running_ids = torch.zeros((batch, beams, steps), dtype=torch.int64, device=device)
        self.running_logprobs = torch.zeros((batch, beams, steps), device=device)
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
        totals = self.limits.forbid_early_end(step, log_probs) + self.running_scores[..., None]
        scores, flat = totals.flatten(1).topk(2 * self.beams)
        parents, token_ids = flat // vocab_size, flat % vocab_size
        ends = (token_ids == self.limits.sep_id) | (step + 1 >= self.limits.max_new)[:, None]

        candidate_ids = _take(self.running_ids, parents)
        candidate_ids[:, :, step] = token_ids
        candidate_logprobs = _take(self.running_logprobs, parents)
        candidate_logprobs[:, :, step] = log_probs.flatten(1).gather(1, flat)

        open_scores = scores + ends * _NEVER
        kept = open_scores.topk(self.beams).indices
        self.running_ids = _take(candidate_ids, kept)
        self.running_logprobs = _take(candidate_logprobs, kept)
        self.running_scores = _take(open_scores, kept)

        self._finish(step + 1, candidate_ids, candidate_logprobs, scores, ends)
        self._end_rows(step + 1)
        return _take(token_ids, kept), _take(parents, kept)

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
        judged_at = torch.where(self.judge_at_max, self.limits.max_new, length)
        best_possible = self.running_scores[:, :1] / self.divisors.gather(1, judged_at[:, None])
        worst = self.finished_scores.amin(dim=1, keepdim=True)
        worst_finished = torch.where(self.finished, worst, _NEVER)
        hopeless = ~(best_possible > worst_finished).any(dim=1)
        full = self.finished.all(dim=1) & self.stop_when_full
        self.done = self.done | hopeless | full | (length >= self.limits.max_new)

    def hypotheses(self) -> Hypotheses:
        """See Search."""
        return Hypotheses(self.finished_ids, self.finished_logprobs, self.finished_lengths)


def _take(values: Tensor, beams: Tensor) -> Tensor:
    """values [B, n, ...] at beams [B, m] -> [B, m, ...], a new tensor."""
    index = beams.reshape(*beams.shape, *(1,) * (values.dim() - 2))
    return values.take_along_dim(index, dim=1)
