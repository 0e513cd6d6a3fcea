"""What the engine answers with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from worker.blip.options import CaptionOptions
from worker.blip.search import Hypotheses
from worker.blip.tokenizer import Text, Tokenizer


@dataclass(frozen=True)
class Caption:
    """One caption of one image. Log-probabilities are natural logarithms.

    text         words, the prefix included, the prompt not
    token_ids    what was generated, the closing [SEP] included if it came; no [DEC], prompt, prefix
    token_logprobs  log-probability of each token under the model, before any processor
    processed_token_logprobs  after all of them: what the token was chosen by. Of the distribution
                 that greedy search or sampling chose from; in beam search not normalised again
    logprob      sum of token_logprobs; mean_logprob is the sum divided by the number of tokens
    score        what captions of one image are ranked by: log-probability / length **
                 length_penalty. After the processors in beam search (transformers'
                 sequences_scores), the model's own in greedy search and sampling. A caption that
                 max_chars or whole_words cut keeps the score of what was generated
    finish_reason  "stop": [SEP] came, or a stop string; "length": max_new_tokens or max_chars did
    seed         draws the same samples again; None where none were drawn
    count        how many of the samples say this
    """

    text: str
    token_ids: list[int]
    tokens: list[str]
    token_logprobs: list[float]
    processed_token_logprobs: list[float]
    logprob: float
    mean_logprob: float
    score: float
    finish_reason: Literal["stop", "length"]
    seed: int | None = None
    count: int = 1


@dataclass(frozen=True)
class Match:
    """How well one text fits one image.

    itm_probability  softmax of `itm_logits`, column 1; 0.5 is the paper's caption filter
    itm_logit        column 1 alone
    itm_logits       (no match, match)
    itc_cosine       cosine of the two projections, -1 to 1
    """

    text: str
    itm_probability: float
    itm_logit: float
    itm_logits: tuple[float, float]
    itc_cosine: float

    @property
    def score(self) -> float:
        """What the paper's retrieval ranks by: ITM logit plus ITC cosine."""
        return self.itm_logit + self.itc_cosine

    @property
    def itm_margin(self) -> float:
        """The logit of `itm_probability`: match over no match."""
        return self.itm_logits[1] - self.itm_logits[0]


@dataclass(frozen=True)
class Ranked:
    """A text's place before an image: the cosine of every text, the match of the shortlist alone.

    itc_cosine  cosine of the two projections, -1 to 1
    match       how well it fits, by both; None where the cosine left it out of the shortlist
    """

    text: str
    itc_cosine: float
    match: Match | None


def captions(
    found: Hypotheses, rows: Sequence[CaptionOptions], tokenizer: Tokenizer
) -> list[list[Caption]]:
    """Hypotheses [B, n] as the captions that each row asks for, best first, each once."""
    columns = zip(
        rows,
        found.token_ids.tolist(),
        found.token_logprobs.tolist(),
        found.processed_logprobs.tolist(),
        found.lengths.tolist(),
        found.scores.tolist(),
        strict=True,
    )
    answers = []
    for row, *hypotheses in columns:
        every = [
            _caption(ids[:n], own[:n], processed[:n], score, row, tokenizer)
            for ids, own, processed, n, score in zip(*hypotheses, strict=True)
            if n
        ]
        answers.append(_distinct(every, row) if row.num_return_sequences > 1 else every[:1])
    return answers


def _distinct(every: Sequence[Caption], row: CaptionOptions) -> list[Caption]:
    """Captions best first, equal ones once. Beams that are not cut never are equal."""
    by_text = row.do_sample or row.max_chars is not None or row.whole_words
    best: dict[object, Caption] = {}
    for caption in sorted(every, key=lambda one: -one.score):
        key = caption.text if by_text else tuple(caption.token_ids)
        count = best[key].count + 1 if key in best else 1
        best[key] = replace(best.get(key, caption), count=count if row.do_sample else 1)
    return list(best.values())[: row.num_return_sequences]


def _caption(
    token_ids: list[int],
    logprobs: list[float],
    processed: list[float],
    score: float,
    row: CaptionOptions,
    tokenizer: Tokenizer,
) -> Caption:
    prefix = tokenizer.prefix(row.prefix)
    kept = _within(row, prefix, token_ids, tokenizer)
    left = token_ids[kept:]
    ends = token_ids[-1] == tokenizer.sep_id or _stops(token_ids, row, tokenizer)
    stopped = left == [tokenizer.sep_id] or (not left and ends)
    total = sum(logprobs[:kept])
    return Caption(
        text=tokenizer.decode([*prefix, *token_ids[:kept]]),
        token_ids=token_ids[:kept],
        tokens=tokenizer.tokens(token_ids[:kept]),
        token_logprobs=logprobs[:kept],
        processed_token_logprobs=processed[:kept],
        logprob=total,
        mean_logprob=total / max(kept, 1),
        score=score,
        finish_reason="stop" if stopped else "length",
        seed=row.seed,
    )


def _within(
    row: CaptionOptions, prefix: list[int], token_ids: list[int], tokenizer: Tokenizer
) -> int:
    """How many tokens may stay: whole words, of no more characters than max_chars, and of no more
    tokens than max_new_tokens unless there is but one word."""

    def fits(count: int) -> bool:
        return (
            row.max_chars is None
            or len(tokenizer.decode([*prefix, *token_ids[:count]])) <= row.max_chars
        )

    def whole(count: int) -> int:
        """A word that has lost a piece goes altogether."""
        while count and tokenizer.continues_word(token_ids[count:]):
            count -= 1
        return count

    kept = len(token_ids)
    if kept > row.max_new_tokens:
        kept = whole(row.max_new_tokens) or row.max_new_tokens
    while kept and not fits(kept):
        kept = whole(kept - 1)
    return kept


def _stops(token_ids: list[int], row: CaptionOptions, tokenizer: Tokenizer) -> bool:
    text = tokenizer.decode([*tokenizer.prefix(row.prefix), *token_ids])
    generated = text[len(tokenizer.prefix_text(row.prefix)) :]
    return any(pattern in generated for pattern in tokenizer.stop_strings(row.stop_strings))


def matches(
    logits: Tensor, cosines: Tensor, texts: Sequence[Sequence[Text]], tokenizer: Tokenizer
) -> list[list[Match]]:
    """ITM logits [N, n, 2] and ITC cosines [N, n] as one list per image, as long as its texts."""
    rows = zip(texts, logits.tolist(), logits.softmax(-1).tolist(), cosines.tolist(), strict=True)
    return [
        [
            Match(
                text=_words(text, tokenizer),
                itm_probability=probabilities[1],
                itm_logit=pair[1],
                itm_logits=(pair[0], pair[1]),
                itc_cosine=cosine,
            )
            for text, pair, probabilities, cosine in zip(*row, strict=False)
        ]
        for row in rows
    ]


def ranked(
    logits: Tensor,
    cosines: Tensor,
    shortlists: Sequence[Sequence[int]],
    texts: Sequence[Sequence[Text]],
    tokenizer: Tokenizer,
) -> list[list[Ranked]]:
    """All of each image's texts, in their order, those of its shortlist with their match.

    logits: ITM's, [N, k, 2], of the texts that the shortlists name, in that order. cosines: [N, n].
    """
    answers = []
    rows = zip(logits, cosines, shortlists, texts, strict=True)
    for pairs, own, kept, row in rows:
        [found] = matches(pairs[None], own[None, kept], [[row[i] for i in kept]], tokenizer)
        by_place = dict(zip(kept, found, strict=True))
        answers.append(
            [
                Ranked(_words(text, tokenizer), cosine, by_place.get(place))
                for place, (text, cosine) in enumerate(zip(row, own.tolist(), strict=False))
            ]
        )
    return answers


def _words(text: Text, tokenizer: Tokenizer) -> str:
    return text if isinstance(text, str) else tokenizer.decode(text)
