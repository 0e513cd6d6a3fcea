"""Text-to-image retrieval in the paper's two stages: a shortlist by ITC, reranked by ITM.

As BLIP's own evaluation does it (Li et al. 2022, after ALBEF, Li et al. 2021): the cosine of every
text with every image, ITM for the k images nearest to each text, ranked by ITM logit + ITC cosine.
"""

import random
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from worker.blip import Engine
from worker.training.encoded import encoded, some
from worker.training.evaluate import BATCH
from worker.training.scenes import SEEN, Scene, sample


def retrieval(engine: Engine, scenes: int, k: int, seed: str) -> dict[str, float]:
    """Recall@1 among the images of `scenes` scenes, looked up by their captions.

    No two of the scenes have the same caption, so one image is right for each text and no other.
    itc_recall_at_1: the nearest image by cosine; itc_recall_at_k: the right one is in the
    shortlist; rerank_recall_at_1: the first of the shortlist after ITM.
    """
    drawn = distinct(random.Random(seed), scenes)
    captions = [scene.caption for scene in drawn]
    images = encoded(engine, drawn)
    cosines = (engine.embed(texts=captions) @ engine.embed(images).T).numpy()
    shortlist = np.argsort(-cosines, axis=1, kind="stable")[:, :k]

    wanted_by: dict[int, list[int]] = defaultdict(list)  # image: the texts it is shortlisted for
    for text, row in enumerate(shortlist.tolist()):
        for image in row:
            wanted_by[image].append(text)
    scores = np.full((scenes, scenes), -np.inf)  # [text, image]
    rows = sorted(wanted_by, key=lambda image: len(wanted_by[image]))  # batches of like length
    for start in range(0, scenes, BATCH):
        part = rows[start : start + BATCH]
        texts = [[captions[text] for text in wanted_by[image]] for image in part]
        for image, found in zip(part, engine.match(some(images, part), texts), strict=True):
            scores[wanted_by[image], image] = [match.score for match in found]
    right = np.arange(scenes)
    return {
        "itc_recall_at_1": _share(shortlist[:, 0] == right),
        f"itc_recall_at_{shortlist.shape[1]}": _share((shortlist == right[:, None]).any(axis=1)),
        "rerank_recall_at_1": _share(scores.argmax(axis=1) == right),
    }


def distinct(rng: random.Random, scenes: int) -> list[Scene]:
    """Scenes of distinct captions, four in ten draws with one shape while there are new ones."""
    found: dict[str, Scene] = {}
    draws = 0
    while len(found) < scenes:
        scene = sample(rng, 1 + (draws % 5 < 3), SEEN)
        found.setdefault(scene.caption, scene)
        draws += 1
    return list(found.values())


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean())
