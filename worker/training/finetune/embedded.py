"""What the frozen ViT makes of the images: once for all, where that fits, else when asked.

The ViT is the engine's own, so that a pack is trained on what it will be served with.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worker.blip.checkpoint import Checkpoint
from worker.blip.framing import Framing
from worker.blip.images import framing, normalise, stacked
from worker.blip.vision import VisionModel, vision_weights
from worker.training.finetune.pictures import LIMITS, Picture, Unreadable, pixels
from worker.training.scores import batched

TOKENS_AT_ONCE = 5_000
READERS = 4

Watched = Callable[[Iterable[Picture]], Iterable[Picture]]
Read = tuple[Picture, NDArray[np.uint8] | Unreadable]


class Embedded(Protocol):
    """Images after the ViT."""

    def of(self, pictures: Sequence[Picture]) -> Tensor:
        """float32 [N, tokens, hidden] on the device."""


class Encoder:
    """A checkpoint's ViT in float32 on a device, with its way of seeing images."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        weights = checkpoint.weights.load(["vision_model."], torch.float32, device)
        with torch.device("meta"):
            self.vision = VisionModel(checkpoint.vision)
        self.vision.load_state_dict(vision_weights(weights), assign=True)
        self.vision.requires_grad_(False).eval()
        self.device = device
        self.shape = (checkpoint.vision.num_tokens, checkpoint.vision.hidden_size)
        self.at_once = max(1, TOKENS_AT_ONCE // checkpoint.vision.num_tokens)
        self._preprocessing = checkpoint.preprocessing
        self.framing: Framing = framing(
            checkpoint.preprocessing, checkpoint.vision.patch_size, "stretch", None
        )

    @torch.inference_mode()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Framed images to float32 [N, tokens, hidden]."""
        framed = normalise(stacked(images).to(self.device), self._preprocessing)
        seen: Tensor = self.vision(framed)
        return seen

    def bytes(self, images: int) -> int:
        """How much memory so many images take once they are encoded."""
        return images * self.shape[0] * self.shape[1] * 4


class Kept:
    """Images that were encoded at the start, [images, tokens, hidden] float32 in memory."""

    def __init__(
        self, embeddings: Tensor, places: dict[Picture, int], device: torch.device
    ) -> None:
        self._embeddings, self._places, self._device = embeddings, places, device

    def of(self, pictures: Sequence[Picture]) -> Tensor:
        """See `Embedded.of`."""
        rows = torch.tensor([self._places[one] for one in pictures])
        return self._embeddings[rows].to(self._device)


class Live:
    """Images that are read and encoded each time: nothing is held but the ViT."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def of(self, pictures: Sequence[Picture]) -> Tensor:
        """See `Embedded.of`. Raises Unreadable: a file has gone since it was looked at."""
        each = list(dict.fromkeys(pictures))
        images = [pixels(one, self._encoder.framing) for one in each]
        parts = [self._encoder.encode(part) for part in batched(images, self._encoder.at_once)]
        places = {one: place for place, one in enumerate(each)}
        return torch.cat(parts)[[places[one] for one in pictures]].clone()


def keep(
    encoder: Encoder,
    pictures: Sequence[Picture],
    bad: Callable[[Picture, str], None],
    watched: Watched,
) -> Kept:
    """Encode images in order, always in the same batches: the same bits in every run.

    bad: is given each image that cannot be read, and why.
    """
    embeddings = torch.empty(len(pictures), *encoder.shape)
    places: dict[Picture, int] = {}
    good = _good(readings(watched(pictures), encoder.framing), bad)
    for part in batched(good, encoder.at_once):
        first = len(places)
        places |= {picture: first + row for row, (picture, _) in enumerate(part)}
        embeddings[first : len(places)] = encoder.encode([image for _, image in part]).cpu()
    return Kept(embeddings, places, encoder.device)


def check(
    encoder: Encoder,
    pictures: Sequence[Picture],
    bad: Callable[[Picture, str], None],
    watched: Watched,
) -> None:
    """Read every image once and keep none, so that training meets no surprise."""
    for _ in _good(readings(watched(pictures), encoder.framing), bad):
        pass


def readings(pictures: Iterable[Picture], framing: Framing) -> Iterator[Read]:
    """Images in order, a few read at a time, each as pixels or with the reason why not."""

    def read(picture: Picture) -> Read:
        try:
            return picture, pixels(picture, framing)
        except Unreadable as exc:
            return picture, exc

    # `decode` sets Pillow's own limit and puts it back: for several threads it has to be the same.
    Image.MAX_IMAGE_PIXELS = LIMITS.max_pixels
    with ThreadPoolExecutor(READERS) as pool:
        for part in batched(pictures, 16 * READERS):
            yield from pool.map(read, part)


def _good(
    read: Iterable[Read], bad: Callable[[Picture, str], None]
) -> Iterator[tuple[Picture, NDArray[np.uint8]]]:
    for picture, found in read:
        if isinstance(found, Unreadable):
            bad(picture, str(found))
        else:
            yield picture, found
