"""How good captions are beside references: exact match, BLEU-4, CIDEr-D.

BLEU (Papineni et al. 2002) is sacrebleu's (Post 2018), CIDEr-D (Vedantam et al. 2015) that of
pycocoevalcap, the code of COCO's evaluation. Both read the same tokens, sacrebleu's: its `zh` for
Chinese (each character), `char` where words have no spaces, `intl` otherwise (at spaces and
Unicode's punctuation). Case and accents count. COCO's own scripts tokenize in Java, in lower case
and for English, so their figures compare with these only roughly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from producer.manifest.parquet import NotInstalled

TOKENIZERS = {
    **dict.fromkeys(("zh", "cmn", "yue"), "zh"),
    **dict.fromkeys(("ja", "th", "lo", "km", "my"), "char"),
}
LEAST = 2
"""Images without which CIDEr-D means nothing: n-grams are weighed by how few images have them."""


@dataclass(frozen=True)
class Quality:
    """exact: the share of captions that are one of their references, word for word. bleu_4: 0 to
    100. cider_d: 0 to 10, by the n-grams' frequencies in these references."""

    exact: float
    bleu_4: float
    cider_d: float


def quality(said: Sequence[str], references: Sequence[Sequence[str]], language: str) -> Quality:
    """The figures of captions, each beside one reference or several.

    Raises:
        NotInstalled: without sacrebleu or pycocoevalcap.
        ValueError: there are fewer than LEAST captions, or one has no reference.
    """
    if len(said) < LEAST or not all(references):
        raise ValueError(f"captions are judged by {LEAST} images or more, each with a reference")
    bleu, cider = _metrics(TOKENIZERS.get(language.lower().partition("-")[0], "intl"))
    most = max(map(len, references))
    # sacrebleu takes one reference of each caption at a time; None where it has no more.
    columns = [[one[n] if n < len(one) else None for one in references] for n in range(most)]
    tokens = bleu.tokenizer
    true = {number: [tokens(text) for text in one] for number, one in enumerate(references)}
    found = {number: [tokens(text)] for number, text in enumerate(said)}
    score, _ = cider.compute_score(true, found)
    return Quality(
        exact=sum(text in one for text, one in zip(said, references, strict=True)) / len(said),
        bleu_4=bleu.corpus_score(list(said), columns).score,
        cider_d=float(score),
    )


def _metrics(tokenizer: str) -> tuple[Any, Any]:
    try:
        from pycocoevalcap.cider.cider import Cider
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError as exc:
        raise NotInstalled(
            f"Evaluating captions needs {exc.name}: pip install 'captionq[evaluate]'"
        ) from exc
    return BLEU(tokenize=tokenizer), Cider()
