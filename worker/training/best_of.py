"""Best of n: captions sampled by the decoder, one of them chosen by the matcher.

Does ITM know the right one? Samples are drawn so hot that a lone one is often wrong, and the choice
among n is compared with a lone sample of the same scene by McNemar's exact test.
"""

import random
from math import comb

import numpy as np
from numpy.typing import NDArray

from worker.blip import CaptionOptions, EncodedImages, Engine
from worker.training.encoded import encoded, some
from worker.training.evaluate import BATCH, usual
from worker.training.evaluated import MAX_TOKENS

TOP_P = 0.95
SINGLE_EXACT = 0.7
"""How many lone samples are to be exact at the temperature that is looked for."""
_TRIALS = 300  # scenes on which it is looked for, at most
_COLDEST, _HOTTEST, _HALVINGS = 1.0, 5.0, 7


def best_of(engine: Engine, scenes: int, samples: int, seed: str) -> dict[str, float]:
    """Shares of scenes whose caption is exact, from nucleus sampling (Holtzman et al. 2020).

    sample_temperature: found on other scenes, where about SINGLE_EXACT of lone samples are exact.
    single_exact: of the first sample. best_of_N_exact: of the one of N, the first among them, with
    the highest ITM probability. likeliest_of_N_exact: chosen by its log-probability instead.
    any_of_N_exact: what no choice could exceed. best_of_N_p: McNemar's, best_of against single.
    """
    temperature = find_temperature(engine, min(_TRIALS, scenes), f"{seed}:temperature")
    drawn = usual(random.Random(seed), scenes)
    captions = [scene.caption for scene in drawn]
    images = encoded(engine, drawn)
    single = [row[0] for row in said(engine, images, temperature, 1)]
    every = said(engine, images, temperature, samples)
    best = _matched_best(engine, images, every)
    exact = {
        "single_exact": _exact(single, captions),
        f"best_of_{samples}_exact": _exact(best, captions),
        f"likeliest_of_{samples}_exact": _exact([row[0] for row in every], captions),
        f"any_of_{samples}_exact": np.array(
            [caption in row for row, caption in zip(every, captions, strict=True)]
        ),
    }
    before, after = exact["single_exact"], exact[f"best_of_{samples}_exact"]
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return {
        "sample_temperature": temperature,
        **{name: float(hits.mean()) for name, hits in exact.items()},
        f"best_of_{samples}_p": mcnemar(lost, won),
    }


def find_temperature(engine: Engine, scenes: int, seed: str) -> float:
    """The temperature at which about SINGLE_EXACT of lone samples are exact, to a twentieth."""
    drawn = usual(random.Random(seed), scenes)
    captions = [scene.caption for scene in drawn]
    images = encoded(engine, drawn)
    cold, hot = _COLDEST, _HOTTEST
    for _ in range(_HALVINGS):
        middle = (cold + hot) / 2
        lone = [row[0] for row in said(engine, images, middle, 1)]
        if _exact(lone, captions).mean() > SINGLE_EXACT:
            cold = middle
        else:
            hot = middle
    return round((cold + hot) / 2, 2)


def said(
    engine: Engine, images: EncodedImages, temperature: float, samples: int
) -> list[list[str]]:
    """The distinct texts of `samples` samples of each image, the likeliest first.

    An image's row is its seed, so a lone sample is the first of several.
    """
    texts: list[list[str]] = []
    for start in range(0, len(images), BATCH):
        rows = range(start, min(start + BATCH, len(images)))
        options = [
            CaptionOptions(
                num_beams=1,
                do_sample=True,
                top_p=TOP_P,
                temperature=temperature,
                num_return_sequences=samples,
                min_new_tokens=0,
                max_new_tokens=MAX_TOKENS,
                seed=row,
            )
            for row in rows
        ]
        found = engine.caption(some(images, rows), options)
        texts += [[caption.text for caption in captions] for captions in found]
    return texts


def mcnemar(one: int, other: int) -> float:
    """Two-sided p of McNemar's exact test (McNemar 1947): `one` and `other` count discordant pairs.

    Where both sides are as good, each such pair is a throw of a fair coin: the binomial tails.
    """
    pairs = one + other
    tail = sum(comb(pairs, fewer) for fewer in range(min(one, other) + 1))
    return min(1.0, 2 * tail / (1 << pairs))


def _matched_best(engine: Engine, images: EncodedImages, texts: list[list[str]]) -> list[str]:
    best: list[str] = []
    for start in range(0, len(images), BATCH):
        rows = range(start, min(start + BATCH, len(images)))
        found = engine.match(some(images, rows), [texts[row] for row in rows])
        best += [max(row, key=lambda match: match.itm_margin).text for row in found]
    return best


def _exact(texts: list[str], captions: list[str]) -> NDArray[np.bool_]:
    return np.array([text == caption for text, caption in zip(texts, captions, strict=True)])
