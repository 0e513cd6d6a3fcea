"""Word embeddings for a new tokenizer, begun from those of the old one."""

from typing import Any

import torch
from torch import Tensor

from worker.training.wordpiece import CONTINUES, SPECIAL


def initial_embeddings(
    old_tokenizer: Any, new_tokenizer: Any, old_embeddings: Tensor, old_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Embeddings [V_new, H] and output biases [V_new] from [V_old, H] and [V_old].

    Special tokens and pieces that both tokenizers have keep theirs. A new piece starts as the mean
    of the old pieces that spell its text; where these are unknown to the old tokenizer, as all of
    Arabic is to an English one, as the mean of all.

    Tokenizers are transformers' fast ones; special tokens are those of the same role, whatever they
    are called, and [DEC] and [ENC]. V_old may exceed the old tokenizer's (padded embeddings); what
    it does not name is in no mean.

    Raises:
        ValueError: the new tokenizer lacks a special token, or its ids are not 0 to V_new - 1.
    """
    old, new = old_tokenizer.get_vocab(), new_tokenizer.get_vocab()
    if sorted(new.values()) != list(range(len(new))):
        raise ValueError("the tokenizer's ids have gaps: they must be 0 to its size - 1")
    begun, kept = _special(old_tokenizer), _special(new_tokenizer)
    missing = [token for token in SPECIAL if token not in kept]
    if missing:
        raise ValueError(f"the tokenizer has no {', '.join(missing)}")
    ids = {number: [begun[token]] if token in begun else [] for token, number in kept.items()}
    special = set(begun.values())
    plain = [number for number in old.values() if number not in special]
    table = torch.cat((old_embeddings, old_bias[:, None]), dim=1)
    started = table[plain].mean(0).expand(len(new), -1).clone()
    for piece, number in new.items():
        if number not in ids:
            ids[number] = [old[piece]] if piece in old else _spelt(piece, old_tokenizer)
        if ids[number]:
            started[number] = table[ids[number]].mean(0)
    return started[:, :-1].contiguous(), started[:, -1].contiguous()


def _special(tokenizer: Any) -> dict[str, int]:
    """The ids of those special tokens that there are, under the names that BERT and BLIP use."""
    known = tokenizer.get_vocab()
    roles = {token: f"{token[1:-1].lower()}_token_id" for token in SPECIAL}
    found = {token: known.get(token, getattr(tokenizer, roles[token], None)) for token in SPECIAL}
    return {token: number for token, number in found.items() if number is not None}


def _spelt(piece: str, tokenizer: Any) -> list[int]:
    """The ids of a piece's text, without unknown ones."""
    text = piece.removeprefix(CONTINUES).removeprefix("▁")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [number for number in ids if number != tokenizer.unk_token_id]
