"""Rows of an index, and the results with embeddings that they come from."""

import random
from array import array
from collections.abc import Sequence
from typing import Any

from producer.contract import Caption, Embedding, ImageFacts, ItemResult, JobState
from producer.index.entry import Entry

MODEL = ("clip-shop", "r1")


def vector(seed: int, dimensions: int = 8) -> "array[float]":
    """A unit vector, the same for the same seed."""
    rng = random.Random(seed)
    numbers = [rng.gauss(0, 1) for _ in range(dimensions)]
    length = sum(n * n for n in numbers) ** 0.5
    return array("f", [n / length for n in numbers])


def embedding(
    values: Sequence[float], model: str = MODEL[0], revision: str = MODEL[1]
) -> Embedding:
    return Embedding.of(values, "float32", model, revision)


def entry(number: int, **fields: Any) -> Entry:
    named = {"image_ref": f"s3://photos/{number}.png", "vector": vector(number)}
    return Entry(**({"model": MODEL[0], "revision": MODEL[1]} | named | fields))


def caption(text: str, **fields: Any) -> Caption:
    numbers = {"logprob": -0.5, "mean_logprob": -0.5, "score": -0.5}
    logprobs = {"token_logprobs": (-0.5,), "processed_token_logprobs": (-0.5,)}
    said = {"text": text, "tokens": ("a",), "finish_reason": "stop"}
    return Caption(**(said | numbers | logprobs | fields))


def item(number: int, **fields: Any) -> ItemResult:
    """What became of one image of a chunk that asked for embeddings."""
    facts = ImageFacts(format="PNG", width=4, height=3, bytes=99, sha256=f"{number:064x}")
    named = {
        "index": number,
        "image_ref": f"s3://photos/{number}.png",
        "state": JobState.SUCCEEDED,
        "attempts": 1,
        "captions": (caption(f"a picture of {number}"),),
        "embeddings": (Embedding.of(vector(number), "float16", *MODEL),),
        "image": facts,
    }
    return ItemResult(**(named | fields))
