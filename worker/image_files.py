"""Image files captioned, matched or explained by hand: read, framed and answered in batches."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from worker.blip.framing import Framing
    from worker.blip.geometry import Box

BATCH = 16  # images answered together; their lines are printed before the next are read
Answer = TypeVar("Answer")
Read = TypeVar("Read")


class ImageFiles:
    """Files to be read one after another; `unreadable` says how many could not be, so far.

    With `boxes`, each file stands for these regions of it, in place of the whole.
    """

    def __init__(
        self, paths: Sequence[Path], framing: "Framing", boxes: "Sequence[Box]" = ()
    ) -> None:
        self._paths = paths
        self._framing = framing
        self._boxes = boxes
        self.unreadable = 0

    def answers(
        self, ask: "Callable[[list[NDArray[np.uint8]]], list[Answer]]"
    ) -> Iterator[tuple[Path, list[Answer]]]:
        """Each file that can be read with its answers: one, or one for each box.

        Images are framed as they are read, so that no batch holds full-sized pictures; the boxes
        of one file are asked about together. Files that cannot be read, or from which a box cannot
        be cut, are reported on stderr.
        """
        each = len(self._boxes) or 1
        at_once = max(1, BATCH // each)
        for start in range(0, len(self._paths), at_once):
            read: list[Path] = []
            framed: list[NDArray[np.uint8]] = []
            for path in self._paths[start : start + at_once]:
                parts = self._attempt(path, self._framed)
                if parts is not None:
                    framed += parts
                    read.append(path)
            if read:
                found = ask(framed)
                for number, path in enumerate(read):
                    yield path, found[number * each : (number + 1) * each]

    def opened(self) -> "Iterator[tuple[Path, Image.Image]]":
        """Each file that can be read, whole, as upright RGB; others are reported on stderr."""
        from worker.blip.images import open_rgb

        for path in self._paths:
            image = self._attempt(path, open_rgb)
            if image is not None:
                yield path, image

    def _attempt(self, path: Path, read: Callable[[Path], Read]) -> Read | None:
        try:
            return read(path)
        except Exception as exc:  # noqa: BLE001 - Pillow's readers raise what they like
            reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            print(f"captionq-worker: cannot read {path}: {reason}", file=sys.stderr)
            self.unreadable += 1
            return None

    def _framed(self, path: Path) -> "list[NDArray[np.uint8]]":
        from worker.blip.framing import cut
        from worker.blip.images import open_rgb

        image = open_rgb(path)
        parts = cut(image, self._boxes) if self._boxes else iter([image])
        return [self._framing.frame(part) for part in parts]
