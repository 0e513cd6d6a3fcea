"""Images after the ViT: what captions, matches and explanations start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

from torch import Tensor

from worker.blip.geometry import Grid


@dataclass(frozen=True)
class EncodedImages:
    """Images after the ViT, [N, tokens, hidden]: what captions and matches start from.

    valid: bool [N, tokens], False where a row has no token of its own, because another image of
    the batch has more patches; None where all rows are full.
    grids: each image's patches (down, across), of which a row's tokens after the first are made;
    None where that is a square.
    """

    embeddings: Tensor
    valid: Tensor | None = None
    grids: Sequence[Grid] | None = None

    @property
    def key_mask(self) -> Tensor | None:
        """`valid` as attention takes it, [N, 1, 1, tokens]."""
        return None if self.valid is None else self.valid[:, None, None]

    def grid(self, row: int) -> Grid:
        """The grid of one image. Raises ValueError where nobody has said what it is."""
        if self.grids is not None:
            return self.grids[row]
        patches = self.embeddings.shape[1] - 1
        side = isqrt(patches)
        if self.valid is not None or side * side != patches:
            raise ValueError("the grids of these images are not known: encode them with the engine")
        return side, side

    def some(self, rows: Sequence[int]) -> "EncodedImages":
        """Some of them, in this order."""
        return EncodedImages(
            self.embeddings[rows],
            None if self.valid is None else self.valid[rows],
            None if self.grids is None else [self.grids[row] for row in rows],
        )

    def __len__(self) -> int:
        return len(self.embeddings)
