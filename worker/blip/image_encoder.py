"""Images to what the ViT makes of them: framed, normalised on the device, encoded."""

from collections.abc import Sequence

import torch

from worker.blip.attention import Seen
from worker.blip.checkpoint import Checkpoint
from worker.blip.encoded import EncodedImages
from worker.blip.errors import InputError, device_errors
from worker.blip.framing import Framing
from worker.blip.geometry import MODES, Grid, Mode
from worker.blip.images import Group, Images, frame, framing, normalise
from worker.blip.staging import Staging
from worker.blip.vision import VisionModel
from worker.blip.weights import Weights


class ImageEncoder:
    """A checkpoint's ViT on a device, and its way of seeing images.

    vision: the ViT, which two encoders may share.
    """

    def __init__(self, checkpoint: Checkpoint, vision: VisionModel, device: torch.device) -> None:
        self.vision = vision
        self._folder, self._config = checkpoint.folder, checkpoint.vision
        self._preprocessing = checkpoint.preprocessing
        self._device, self._staging = device, Staging(device)

    def same_as(self, other: "ImageEncoder") -> bool:
        """Whether both see and encode alike, to the last bit."""
        alike = (self._config, self._preprocessing) == (other._config, other._preprocessing)
        return alike and self._digest() == other._digest()

    def framing(self, mode: Mode, resolution: int | None) -> Framing:
        """Engine.framing."""
        if mode not in MODES:
            raise ValueError(f"mode must be {', '.join(MODES)}, not {mode!r}")
        try:
            return framing(self._preprocessing, self._config.patch_size, mode, resolution)
        except ValueError as exc:
            raise InputError(str(exc)) from exc

    def groups(self, images: Images, mode: Mode, resolution: int | None) -> list[Group]:
        """Images framed and normalised, on the device, those of one size together."""
        framed = self.framing(mode, resolution)
        groups = frame(images, framed, self._preprocessing.size, self._staging.stack)
        with device_errors(self._device):
            return [
                Group(g.rows, normalise(g.pixels.to(self._device), self._preprocessing))
                for g in groups
            ]

    def encode(self, images: Images, mode: Mode, resolution: int | None) -> EncodedImages:
        """All images in one pass of the ViT."""
        groups = self.groups(images, mode, resolution)
        with device_errors(self._device):
            found = self.vision.forward_mixed([(g.rows, g.pixels) for g in groups])
        return EncodedImages(*found, self._grids(groups))

    def seen(
        self, images: Images | EncodedImages, mode: Mode, resolution: int | None
    ) -> list[Seen]:
        """Images to explain by, those of one size together."""
        if isinstance(images, EncodedImages):
            rows = range(len(images))
            grids = [images.grid(row) for row in rows]
            return [Seen(rows, images.embeddings, images.key_mask, grids, None)]
        seen = []
        for group in self.groups(images, mode, resolution):
            grids = self._grids([Group(list(range(len(group.rows))), group.pixels)])
            with device_errors(self._device), torch.no_grad():
                embeddings = self.vision(group.pixels)
            seen.append(Seen(group.rows, embeddings, None, grids, group.pixels))
        return seen

    def _grids(self, groups: Sequence[Group]) -> list[Grid]:
        """The patches (down, across) of each image."""
        size = self._config.patch_size
        grids = {}
        for group in groups:
            height, width = group.pixels.shape[2:]
            grids.update(dict.fromkeys(group.rows, (height // size, width // size)))
        return [grids[row] for row in range(len(grids))]

    def _digest(self) -> str:
        return Weights(self._folder).digest_of("vision_model.")
