"""Where the model looked for each word: plain values, without torch."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from worker.blip.geometry import Grid

Method = Literal["attention", "rollout", "gradcam", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT_METHOD: Method = "attention"
"""The one that points best at what words name (`captionq-worker evaluate --attention`)."""

Position = Literal["predicting", "own"]
POSITIONS: tuple[Position, ...] = get_args(Position)


@dataclass(frozen=True)
class ExplainedWord:
    """A word and the tokens that spell it.

    first, last  its places in Explanation.tokens, both inside
    logprob      sum of its tokens' log-probabilities, natural logarithms; None for a text that was
                 matched, whose words were not predicted
    """

    text: str
    first: int
    last: int
    logprob: float | None


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the model looked for each word of one caption or text.

    text    as the caption, or the text that was matched
    tokens  of a caption: its prefix's, then those generated, [SEP] included if it came; of a text
            that was matched: all but [CLS] and [SEP]
    words   special tokens are no words
    maps    float32 [words, rows, columns], none negative, each with sum 1: the share of each patch.
            The class token's share is left out. A map that the method left empty is even
    grid    (rows, columns) of patches
    method  which made the maps
    raw     float32 [layers, heads, tokens, rows, columns]: cross-attention probabilities as they
            are, so that they sum to 1 less the class token's; None unless asked for
    """

    text: str
    tokens: list[str]
    words: list[ExplainedWord]
    maps: NDArray[np.float32]
    grid: Grid
    method: Method
    raw: NDArray[np.float32] | None = None
