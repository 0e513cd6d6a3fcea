"""The cache of ITC embeddings of texts: what it answers, what it forgets, what it counts."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.blip_checkpoints import noise_images
from worker.blip import Engine
from worker.blip.text_cache import TextCache, TokenIds


class Embedder:
    """A vector that tells its text, and a record of what was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[TokenIds]] = []

    def __call__(self, texts: list[TokenIds]) -> Tensor:
        self.asked.append(texts)
        return torch.tensor([[float(text[0]), float(len(text))] for text in texts])


def told(vectors: Tensor) -> list[int]:
    return [int(first) for first, _ in vectors.tolist()]


def texts(*firsts: int) -> list[TokenIds]:
    return [(first,) for first in firsts]


def test_given_texts_seen_before_then_only_the_new_ones_are_embedded_and_the_order_is_kept() -> (
    None
):
    cache, embed = TextCache(), Embedder()
    assert told(cache.vectors(texts(5, 3), embed)) == [5, 3]
    assert told(cache.vectors(texts(9, 3, 7, 5, 9), embed)) == [9, 3, 7, 5, 9]
    assert told(cache.vectors(texts(7), embed)) == [7]
    assert embed.asked == [texts(5, 3), texts(9, 7)]
    assert (cache.hits, cache.misses, len(cache)) == (3, 4, 4)


def test_given_ids_that_begin_alike_then_each_text_has_its_own_vector() -> None:
    cache, embed = TextCache(), Embedder()
    for _ in range(2):
        assert cache.vectors([(1,), (1, 1)], embed).tolist() == [[1, 1], [1, 2]]


def test_given_a_full_cache_then_the_text_used_longest_ago_makes_room() -> None:
    cache, embed = TextCache(capacity=2), Embedder()
    cache.vectors(texts(1, 2), embed)
    cache.vectors(texts(1), embed)
    assert told(cache.vectors(texts(3), embed)) == [3]
    assert told(cache.vectors(texts(1, 3), embed)) == [1, 3]
    assert told(cache.vectors(texts(2), embed)) == [2]
    assert embed.asked == [texts(1, 2), texts(3), texts(2)]
    assert len(cache) == 2


@pytest.mark.parametrize("asked", [texts(1, 2, 3, 4, 5), texts(8, 9, 1, 2, 3, 4)])
def test_given_more_texts_than_the_cache_holds_then_all_are_answered(
    asked: Sequence[TokenIds],
) -> None:
    cache, embed = TextCache(capacity=3), Embedder()
    cache.vectors(texts(8, 9), embed)
    for _ in range(2):
        assert told(cache.vectors(asked, embed)) == [first for (first,) in asked]
    assert len(cache) == 3


def test_given_an_embedder_that_fails_then_nothing_is_counted_or_kept() -> None:
    def fails(_: list[TokenIds]) -> Tensor:
        raise MemoryError

    cache = TextCache()
    with pytest.raises(MemoryError):
        cache.vectors(texts(1), fails)
    assert (cache.hits, cache.misses, len(cache)) == (0, 0, 0)
    assert told(cache.vectors(texts(1), Embedder())) == [1]


def test_given_a_cleared_cache_then_it_has_forgotten_and_counts_anew() -> None:
    cache, embed = TextCache(), Embedder()
    cache.vectors(texts(1), embed)
    cache.clear()
    assert (cache.hits, cache.misses, len(cache)) == (0, 0, 0)
    cache.vectors(texts(1), embed)
    assert embed.asked == [texts(1), texts(1)]


def test_given_no_room_at_all_then_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        TextCache(capacity=0)


def test_given_an_engine_then_match_rank_and_embed_share_what_it_has_embedded(
    tiny_engine: Engine,
) -> None:
    cache, images, words = tiny_engine.text_cache, noise_images(2), ["a b", "c", "a b"]
    cache.clear()
    vectors = tiny_engine.embed(texts=words)
    assert vectors[0].equal(vectors[2])
    assert (cache.hits, cache.misses) == (0, 2)
    ran = []
    hook = tiny_engine._modules.matcher.text_proj.register_forward_hook(lambda *_: ran.append(True))
    tiny_engine.match(images, words)
    tiny_engine.rank(images, words, k=1)
    tiny_engine.embed(texts=["c"])
    hook.remove()
    assert not ran
    assert (cache.hits, cache.misses, len(cache)) == (5, 2, 2)
    # The key is what the model reads: case is the tokenizer's, [ENC] is not ITC's.
    tiny_engine.match(images, ["A  B"], position_zero="cls")
    assert (cache.hits, cache.misses) == (6, 2)


def test_given_a_warm_up_then_its_texts_are_not_counted(tiny_engine: Engine) -> None:
    tiny_engine.warmup(1)
    cache = tiny_engine.text_cache
    assert (cache.hits, cache.misses, len(cache)) == (0, 0, 0)
