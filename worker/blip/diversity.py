"""How much several captions differ."""

from collections.abc import Iterable
from itertools import pairwise


def distinct_2(texts: Iterable[str]) -> float:
    """Different pairs of neighbouring words over all words (Li et al. 2016): 0 to 1.

    Divided by words, as there, and not by pairs. Give a caption that was drawn twice twice.

    >>> distinct_2(["a red cat", "a red dog"])
    0.5
    """
    words = [text.split() for text in texts]
    pairs = {pair for text in words for pair in pairwise(text)}
    return len(pairs) / max(sum(map(len, words)), 1)
