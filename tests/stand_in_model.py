"""What a model might say, made of the words alone: the same for the same words, anywhere."""

import hashlib
import math
import random
from functools import lru_cache

import numpy as np

from producer.contract import Caption, Embedding, Encoding, Match, ModelFacts

MODEL = ModelFacts(id="stand-in", revision="1", dtype="float32")
SIZE = 256


@lru_cache(100_000)
def vector(words: str, size: int = SIZE) -> tuple[float, ...]:
    """A unit vector."""
    values = np.frombuffer(hashlib.shake_128(words.encode()).digest(size), np.uint8) - 127.5
    return tuple((values / np.linalg.norm(values)).tolist())


def embedding(words: str, encoding: Encoding = "list", revision: str = "1") -> Embedding:
    return Embedding.of(vector(words), encoding, MODEL.id, revision)


def cosine(image: str, text: str) -> float:
    return math.fsum(a * b for a, b in zip(vector(image), vector(text), strict=True))


def logit(image: str, text: str) -> float:
    """Of -4 to 4, whatever the cosine says."""
    return 8 * random.Random(f"{image}|{text}").random() - 4


def match(image: str, text: str, index: int = 0) -> Match:
    itm = logit(image, text)
    probability = 1 / (1 + math.exp(-itm))
    return Match(
        text=text,
        index=index,
        itm_probability=probability,
        itm_logit=itm,
        itc_cosine=cosine(image, text),
    )


def matches(image: str, texts: tuple[str, ...]) -> tuple[Match, ...]:
    """Best first, as workers give them."""
    found = [match(image, text, index) for index, text in enumerate(texts)]
    return tuple(sorted(found, key=lambda one: -one.score))


def caption(text: str) -> Caption:
    return Caption(
        text=text,
        tokens=("a",),
        token_logprobs=(-0.5,),
        processed_token_logprobs=(-0.5,),
        logprob=-0.5,
        mean_logprob=-0.5,
        score=-0.5,
        finish_reason="stop",
    )
