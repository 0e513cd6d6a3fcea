"""The decoding loop: prefill the prompts, then one token per beam and step.

Beams never move in memory. The keys and values of step s occupy `beams` columns of the cache, one
per beam, for good; `ancestry[b, i, s]` says which of them beam i of image b descends from, and the
attention mask shows a beam its ancestors alone. The prompt's columns are shared by all beams.

Prompts of different lengths are padded on the left, before [DEC], and positions count from [DEC]:
a row decodes as it would alone (transformers' generate, under either padding side, does not).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.blip.search import Search
from worker.blip.steps import Steps

_STEPS_PER_SYNC = 4  # a GPU is asked this often whether all rows are done; a CPU at each step


def decode(
    steps: Steps,
    cross: Tensor,
    prompts: Sequence[Sequence[int]],
    search: Search,
    cross_mask: Tensor | None = None,
) -> None:
    """Caption N images: run their search to its end.

    steps: of the decoder. cross: TextModel.project_images, [layers, 2, N, heads, S, head_size].
    prompts: token ids of each row, [DEC] first, its prefix last. search: of these rows.
    A row's samples share its image's keys and values as beams do; their parents are themselves.
    cross_mask: bool [N, 1, 1, S], False where `cross` has no meaning; None where it has throughout.
    """
    decoder, device, beams, longest = steps.decoder, cross.device, search.width, search.steps
    token_ids, valid, positions = left_pad(prompts, device)
    lengths = valid.sum(dim=1)
    width = token_ids.shape[1]
    forward = steps.begin(cross, cross_mask, beams, columns=width + (longest - 1) * beams)

    hidden = decoder.text(
        token_ids, positions, _prefill_mask(valid), cross, forward.cache, cross_mask
    )
    logits = decoder.logits(hidden[:, -1:]).expand(-1, beams, -1)
    token_ids, parents = search.advance(0, logits)

    own = torch.arange(beams, device=device)
    ancestry = torch.zeros((len(prompts), beams, longest), dtype=torch.int64, device=device)
    last = decoder.text.config.max_positions - 1
    prompt_mask = valid[:, None, :].expand(-1, beams, -1)
    for step in range(1, longest):
        if _all_done(search, step):
            break
        ancestry = ancestry.take_along_dim(parents[..., None], dim=1)
        ancestry[:, :, step - 1] = own
        ancestor_mask = (ancestry[:, :, :step, None] == own).flatten(2)
        mask = torch.cat([prompt_mask, ancestor_mask], dim=2)[:, None]
        # A row that has ended runs on beside longer ones, if need be past the last position.
        positions = (lengths + step - 1).clamp(max=last)[:, None].expand(-1, beams)
        token_ids, parents = search.advance(step, forward(token_ids, positions, mask))


def left_pad(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(token_ids, valid, positions), each [B, width]; pads come first, positions start after.

    Nobody sees a pad, so any id will do: that of the row's own [DEC], which all vocabularies have.
    """
    width = max(len(prompt) for prompt in prompts)
    token_ids = torch.tensor(
        [[prompt[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device
    )
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    positions = torch.arange(width, device=device) - (width - lengths)[:, None]
    return token_ids, positions >= 0, positions.clamp(min=0)


def _prefill_mask(valid: Tensor) -> Tensor:
    """bool [B, 1, width, width]: causal, without pads; a pad sees itself, so no row is empty."""
    width = valid.shape[1]
    causal = torch.ones((width, width), dtype=torch.bool, device=valid.device).tril()
    itself = torch.eye(width, dtype=torch.bool, device=valid.device)
    return ((causal & valid[:, None, :]) | itself)[:, None]


def _all_done(search: Search, step: int) -> bool:
    if search.done.is_cuda and step % _STEPS_PER_SYNC:
        return False
    return bool(search.done.all())
