"""What the engine answers with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from worker.blip.search import Hypotheses
from worker.blip.tokenizer import Text, Tokenizer


@dataclass(frozen=True)
class Caption:
    """One caption of one image.

    token_ids    what was generated, the closing [SEP] included if it came; no [DEC], no prompt
    token_logprobs  log-probability of each token under the model, natural logarithm
    logprob      their sum; mean_logprob is the sum divided by the number of tokens
    finish_reason  "stop": [SEP] came; "length": max_new_tokens did
    """

    text: str
    token_ids: list[int]
    tokens: list[str]
    token_logprobs: list[float]
    logprob: float
    mean_logprob: float
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Match:
    """How well one text fits one image.

    itm_probability  softmax of `itm_logits`, column 1; 0.5 is the paper's caption filter
    itm_logit        column 1 alone; the paper ranks by itm_logit + itc_cosine
    itm_logits       (no match, match)
    itc_cosine       cosine of the two projections, -1 to 1
    """

    text: str
    itm_probability: float
    itm_logit: float
    itm_logits: tuple[float, float]
    itc_cosine: float


def captions(found: Hypotheses, tokenizer: Tokenizer) -> list[list[Caption]]:
    """Hypotheses [B, n] as captions, in the same order."""
    lengths = found.lengths.tolist()
    token_ids = found.token_ids.tolist()
    logprobs = found.token_logprobs.tolist()
    return [
        [_caption(ids[:n], scores[:n], tokenizer) for ids, scores, n in zip(*row, strict=True)]
        for row in zip(token_ids, logprobs, lengths, strict=True)
    ]


def _caption(token_ids: list[int], logprobs: list[float], tokenizer: Tokenizer) -> Caption:
    total = sum(logprobs)
    return Caption(
        text=tokenizer.decode(token_ids),
        token_ids=token_ids,
        tokens=tokenizer.tokens(token_ids),
        token_logprobs=logprobs,
        logprob=total,
        mean_logprob=total / len(token_ids),
        finish_reason="stop" if token_ids[-1] == tokenizer.sep_id else "length",
    )


def matches(
    logits: Tensor, cosines: Tensor, texts: Sequence[Sequence[Text]], tokenizer: Tokenizer
) -> list[list[Match]]:
    """ITM logits [N, n, 2] and ITC cosines [N, n] as one list per image, as long as its texts."""
    rows = zip(texts, logits.tolist(), logits.softmax(-1).tolist(), cosines.tolist(), strict=True)
    return [
        [
            Match(
                text=text if isinstance(text, str) else tokenizer.decode(text),
                itm_probability=probabilities[1],
                itm_logit=pair[1],
                itm_logits=(pair[0], pair[1]),
                itc_cosine=cosine,
            )
            for text, pair, probabilities, cosine in zip(*row, strict=False)
        ]
        for row in rows
    ]
