"""Softmax attention (Vaswani et al. 2017), by whichever kernels are fast where it runs.

PyTorch's own `scaled_dot_product_attention` is, on GPUs, and for long queries on CPUs with AMX or
in float32. In bfloat16 on other CPUs its kernel has no fast matrix product inside: two batched
oneDNN products with a softmax between them, a few heads at a time so that the scores stay in the
cache, take half its time. So do plain products for short queries, as in decoding, on any CPU: one
query of 16 images took a quarter. `python -m worker.blip.softmax_attention` measures both.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

_CACHED_SCORES = 2_100_000  # scores of one group of heads: 4 MB in bfloat16
_LONG = 64  # queries


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """[N, heads, T, size] against [N, heads, S, size]; returns [N, T, heads * size].

    mask: bool, broadcast to [N, heads, T, S], True where a query may look.
    """
    if query.device.type == "cpu":
        if query.shape[2] < _LONG:
            return _plain(query, key, value, mask)
        if query.dtype == torch.bfloat16 and not _has_amx():
            return _grouped(query, key, value, mask)
    return _fused(query, key, value, mask)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return context.transpose(1, 2).flatten(2)


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.matmul(scores.softmax(dim=-1), value).transpose(1, 2).flatten(2)


def _grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    images, heads, tokens, size = query.shape
    context = query.new_empty(images, tokens, heads, size)
    query, key = query * size**-0.5, key.transpose(-1, -2)
    group = min(heads, max(1, _CACHED_SCORES // (tokens * key.shape[-1])))
    if mask is not None:
        mask = mask.expand(images, heads, tokens, key.shape[-1])
    for image in range(images):
        for first in range(0, heads, group):
            part = slice(first, first + group)
            scores = torch.bmm(query[image, part], key[image, part])
            if mask is not None:
                scores.masked_fill_(~mask[image, part], -torch.inf)
            weights = scores.softmax(dim=-1)
            context[image, :, part] = torch.bmm(weights, value[image, part]).transpose(0, 1)
    return context.flatten(2)


@cache
def _has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def main() -> None:
    """Time the kernels on BLIP-base's shapes at batch 16: milliseconds, the best of nine."""
    from time import perf_counter

    for dtype in (torch.bfloat16, torch.float32):
        for name, queries in {"vision": 577, "decoding": 1}.items():
            key, value = torch.randn(2, 16, 12, 577, 64).to(dtype)
            query = torch.randn(16, 12, queries, 64).to(dtype)
            for kernel in (_fused, _plain, _grouped):
                seconds = []
                for _ in range(10):
                    start = perf_counter()
                    kernel(query, key, value, None)
                    seconds.append(perf_counter() - start)
                milliseconds = 1000 * min(seconds[1:])
                print(f"{dtype} {name} {kernel.__name__[1:]}: {milliseconds:.2f} ms")  # noqa: T201


if __name__ == "__main__":
    main()
