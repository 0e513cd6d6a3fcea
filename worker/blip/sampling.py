"""Drawing tokens: transformers' warpers with settings per row, and draws that a seed determines.

A row's numbers come from Philox (Salmon et al. 2011), a counter-based generator, with the row's
seed and the sample's number as its key and one number per step: they depend on neither the rest of
the batch, nor its limits, nor how many samples are drawn beside them.
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from worker.blip.options import MAX_SEED, CaptionOptions


def seeded(row: CaptionOptions) -> CaptionOptions:
    """The row with a fresh seed where it samples and has none."""
    if row.do_sample and row.seed is None:
        return replace(row, seed=secrets.randbelow(MAX_SEED + 1))
    return row


def uniforms(rows: Sequence[CaptionOptions], width: int, steps: int) -> Tensor:
    """float64 [B, width, steps] in [0, 1), on the host; zeros in rows that do not sample.

    The upper 52 bits of each draw: with 53, (1 - 2**-53) * total could round up to total.
    """
    numbers = np.zeros((len(rows), width, steps))
    for index, row in enumerate(rows):
        if row.do_sample and row.seed is not None:
            for sample in range(width):
                bits = np.random.Philox(key=[row.seed, sample]).random_raw(steps)
                numbers[index, sample] = (bits >> np.uint64(12)) * 2.0**-52
    return torch.from_numpy(numbers)


class Warpers:
    """Temperature, top-k, top-p and min-p, in transformers' order and with its boundaries.

    Tokens as likely as the k-th stay; top-p keeps the token that crosses the mass; the likeliest
    always stays. One sort serves top-k and top-p.
    """

    def __init__(self, rows: Sequence[CaptionOptions], vocab_size: int, device: torch.device):
        def column(values: list[float] | list[int]) -> Tensor:
            return torch.tensor(values, device=device)[:, None, None]

        self.temperature = column([float(row.temperature) for row in rows])
        # The k-th likeliest in ascending order; the first one where top-k is off.
        self.kth = column([vocab_size - (min(r.top_k, vocab_size) or vocab_size) for r in rows])
        # What may be removed from the unlikely end; nothing, not even a mass of 0, where it is off.
        self.mass = column([1.0 - row.top_p if row.top_p < 1.0 else -1.0 for row in rows])
        self.min_p = column([float(row.min_p) for row in rows])
        self.sorts = any(row.top_k or row.top_p < 1.0 for row in rows)
        self.floors = any(row.min_p > 0.0 for row in rows)

    def __call__(self, scores: Tensor) -> Tensor:
        """float32 logits [B, n, V] with what may not be drawn at -inf."""
        scores = scores / self.temperature
        if self.sorts:
            ordered, order = scores.sort(dim=-1)
            kth = ordered.gather(-1, self.kth.expand(*ordered.shape[:2], 1))
            ordered = ordered.masked_fill(ordered < kth, -torch.inf)
            removed = ordered.softmax(dim=-1).cumsum(dim=-1) <= self.mass
            removed[..., -1] = False
            removed = torch.zeros_like(removed).scatter(-1, order, removed | (ordered < kth))
            scores = scores.masked_fill(removed, -torch.inf)
        if self.floors:
            probs = scores.softmax(dim=-1)
            floor = self.min_p * probs.amax(dim=-1, keepdim=True)
            scores = scores.masked_fill(probs < floor, -torch.inf)
        return scores


def draw(scores: Tensor, uniform: Tensor) -> Tensor:
    """Token ids int64 [B, n] from float32 logits [B, n, V], by inverting the distribution.

    uniform: float64 [B, n]. The distribution is summed in the order of the ids, not of the
    probabilities: rounding that differs with the batch then moves its steps by no more than
    rounding, where two almost equal tokens would change places. A token at -inf is never drawn.
    """
    probs = scores.softmax(dim=-1)
    reached = probs.cumsum(dim=-1, dtype=torch.float64)
    target = uniform[..., None] * reached[..., -1:]
    return ((reached > target) & (probs > 0)).to(torch.uint8).argmax(dim=-1)
