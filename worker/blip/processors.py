"""transformers' logits processors with settings per row, as tensors: no row costs the host a look.

In transformers' order: repetition penalty, no-repeat n-gram, banned words, fewest tokens. They see
a row's own tokens, [DEC] and prompt first, and never a pad. Beam search gives them
log-probabilities, greedy search and sampling logits, as in transformers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from worker.blip.banned import BannedWords
from worker.blip.options import CaptionOptions
from worker.blip.tokenizer import Tokenizer


class Processors:
    """What the options of B rows make of the scores of `width` sequences each."""

    def __init__(
        self,
        rows: Sequence[CaptionOptions],
        prompts: Sequence[Sequence[int]],
        tokenizer: Tokenizer,
        device: torch.device,
    ) -> None:
        self.nothing = vocab_size = tokenizer.vocab_size  # the id of no token
        self.sep_id = tokenizer.sep_id
        self.prompt_columns = max(map(len, prompts))
        self.prompts = torch.tensor(
            [[vocab_size] * (self.prompt_columns - len(p)) + list(p) for p in prompts],
            device=device,
        )[:, None]
        fewest = [row.min_new_tokens or 0 for row in rows]
        self.most_min_new = max(fewest)
        self.min_new = torch.tensor(fewest, device=device)
        penalties = [float(row.repetition_penalty) for row in rows]
        self.penalty = torch.tensor(penalties, device=device)[:, None, None]
        self.penalises = any(penalty != 1.0 for penalty in penalties)
        sizes = [row.no_repeat_ngram_size for row in rows]
        self.ngram_rows = {
            size: torch.tensor([size == own for own in sizes], device=device)[:, None, None]
            for size in sorted({size for size in sizes if size})
        }
        self.banned = BannedWords(rows, prompts, tokenizer, device) if _bans(rows) else None

    def __call__(self, step: int, scores: Tensor, generated: Tensor) -> Tensor:
        """float32 scores [B, n, V] for the step-th new token (0 is the first), processed.

        generated: int64 [B, n, steps]; columns from `step` on hold V, the id of no token.
        The scores themselves where no row asks for anything.
        """
        length, banned = self.prompt_columns + step, []
        if self.penalises or self.ngram_rows:
            context = torch.cat([self.prompts.expand(-1, scores.shape[1], -1), generated], dim=-1)
        if self.penalises:
            scores = repetition_penalty(scores, context, self.penalty)
        for size, own in self.ngram_rows.items():
            if size <= length:
                completing = repeated_ngrams(context, length, size, self.nothing)
                banned.append(torch.where(own, completing, self.nothing))
        if self.banned is not None:
            banned.append(self.banned.completing(scores.shape[1]))
        if banned:
            banned.append(self.early_end(step, scores.shape[1]))
            return without(scores, torch.cat(banned, dim=-1), self.sep_id)
        if step < self.most_min_new:  # the usual case: one column, not a mask of all
            scores = scores.clone()
            ends = scores[..., self.sep_id]
            ends.masked_fill_((step < self.min_new)[:, None], -torch.inf)
        return scores

    def early_end(self, step: int, width: int) -> Tensor:
        """int64 [B, n, 1]: [SEP] in the rows that may not end yet."""
        barred = torch.where(step < self.min_new, self.sep_id, self.nothing)
        return barred[:, None, None].expand(-1, width, 1)

    def advance(self, token_ids: Tensor, parents: Tensor | None) -> None:
        """Sequence i of each row now is sequence parents[:, i] (None: i), and token_ids[:, i]."""
        if self.banned is not None:
            self.banned.advance(token_ids, parents)


def repetition_penalty(scores: Tensor, context: Tensor, penalty: Tensor) -> Tensor:
    """RepetitionPenaltyLogitsProcessor: scores of tokens in `context` times or over the penalty.

    scores [B, n, V]; context int64 [B, n, T], V where there is no token; penalty [B, 1, 1].
    """
    padded = functional.pad(scores, (0, 1))
    seen = padded.gather(-1, context)
    seen = torch.where(seen < 0, seen * penalty, seen / penalty)
    return padded.scatter(-1, context, seen)[..., :-1]


def repeated_ngrams(context: Tensor, length: int, size: int, nothing: int) -> Tensor:
    """NoRepeatNGramLogitsProcessor: the tokens that would complete an n-gram a second time.

    context: int64 [B, n, T], of which the first `length` columns, at least `size`, are filled.
    Returns int64 [B, n, T - size + 1], `nothing` where a window does not match.
    """
    last = context[..., length - size + 1 : length]
    windows = context.unfold(-1, size, 1)
    matches = (windows[..., :-1] == last[..., None, :]).all(dim=-1)
    return torch.where(matches, windows[..., -1], nothing)


def without(scores: Tensor, banned: Tensor, sep_id: int) -> Tensor:
    """scores [B, n, V] at -inf where `banned`, int64 [B, n, K], names an id; V names none.

    Where every token is banned, [SEP] is not: a caption ends when nothing may follow.
    """
    mask = torch.zeros(
        (*scores.shape[:2], scores.shape[-1] + 1), dtype=torch.bool, device=scores.device
    )
    mask = mask.scatter_(-1, banned, True)[..., :-1]
    mask[..., sep_id] &= ~mask.all(dim=-1)
    return scores.masked_fill(mask, -torch.inf)


def _bans(rows: Sequence[CaptionOptions]) -> bool:
    return any(row.bad_words for row in rows)
