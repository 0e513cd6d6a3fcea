"""Embeddings on the wire: their encodings, and what may be compared."""

import base64
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from producer.embedding import Embedding, EmbeddingMismatch, Encoding

VECTORS = st.lists(st.floats(-1, 1, allow_subnormal=False, width=16), min_size=1, max_size=300)


@given(VECTORS, st.sampled_from(["list", "float32", "float16"]))
def test_given_a_vector_that_an_encoding_can_hold_then_it_comes_back_through_json(
    vector: list[float], encoding: Encoding
) -> None:
    made = Embedding.of(vector, encoding, "m", "r")
    assert list(Embedding.model_validate_json(made.model_dump_json()).values()) == vector


def test_given_base64_then_it_is_little_endian_whoever_reads_it() -> None:
    made = Embedding.of([1.0, -0.5], "float32", "m", "r")
    assert base64.b64decode(made.base64 or "") == struct.pack("<2f", 1.0, -0.5)
    assert made.base64 == "AACAPwAAAL8="
    assert Embedding.of([1.0, -0.5], "float16", "m", "r").base64 == "ADwAuA=="


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"vector": (0.1,), "base64": "AAAA"},
        {"encoding": "float32"},
        {"encoding": "float32", "vector": (0.1,)},
        {"encoding": "float32", "base64": "AAA="},
        {"encoding": "float16", "base64": "no base64"},
        {"encoding": "float16", "base64": base64.b64encode(struct.pack("<e", math.inf)).decode()},
        {"encoding": "float64", "base64": "AAAA"},
        {"vector": ()},
    ],
)
def test_given_an_embedding_that_holds_no_vector_in_one_way_then_it_is_refused(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        Embedding(model="m", revision="r", **fields)


def test_given_two_of_one_space_then_their_cosine_does_not_depend_on_how_they_are_written() -> None:
    one = Embedding.of([0.6, 0.8], "list", "m", "r")
    other = Embedding.of([0.8, 0.6], "float32", "m", "r")
    assert one.cosine(other) == pytest.approx(0.96, abs=1e-6)
    assert one.cosine(one) == pytest.approx(1)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Embedding.of([1.0, 0.0], "list", "m", "r2"), "m at r, and m at r2"),
        (Embedding.of([1.0, 0.0], "list", "m2", "r"), "m at r, and m2 at r"),
        (Embedding.of([1.0], "list", "m", "r"), "2 and 1 numbers"),
    ],
)
def test_given_another_model_revision_or_size_then_no_cosine_is_given_and_both_are_named(
    other: Embedding, named: str
) -> None:
    with pytest.raises(EmbeddingMismatch, match=named):
        Embedding.of([1.0, 0.0], "list", "m", "r").cosine(other)
