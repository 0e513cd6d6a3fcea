"""Where training images are, and their pixels: opened as carefully as a worker opens them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from producer.errors import JobFailed
from worker.blip.framing import Framing
from worker.errors import Fault
from worker.image import ImageLimits, decode

MAX_BYTES = 64 * 2**20
LIMITS = ImageLimits()


class Unreadable(ValueError):  # noqa: N818 - that is what it is
    """An image cannot be used; the text says why."""


class Picture(Protocol):
    """One image. Equal pictures are encoded once."""

    @property
    def name(self) -> str:
        """What people call it."""

    def identity(self) -> str:
        """Tells it from another, cheaply: a file by its name and size."""

    def read(self) -> bytes:
        """The file. Raises OSError."""


@dataclass(frozen=True, slots=True)
class FilePicture:
    """An image file; `given` is how the manifest names it."""

    path: Path
    given: str

    @property
    def name(self) -> str:
        """See `Picture.name`."""
        return self.given

    def identity(self) -> str:
        """See `Picture.identity`."""
        return f"{self.given}:{self.path.stat().st_size}"

    def read(self) -> bytes:
        """See `Picture.read`."""
        if self.path.stat().st_size > MAX_BYTES:
            raise OSError(f"the file has more than {MAX_BYTES >> 20} MiB")
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class CellPicture:
    """An image inside a dataset: a cell of its image column, which is not decoded there."""

    dataset: Any
    column: str
    row: int

    @property
    def name(self) -> str:
        """See `Picture.name`."""
        return f"row {self.row}"

    def identity(self) -> str:
        """See `Picture.identity`. The dataset's own fingerprint tells its cells."""
        return f"{self.dataset._fingerprint}:{self.row}"

    def read(self) -> bytes:
        """See `Picture.read`."""
        cell = self.dataset[self.row][self.column]
        if isinstance(cell, Mapping):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return cell
        if isinstance(cell, str):
            return FilePicture(Path(cell), cell).read()
        raise OSError("the cell holds no image")

    def __hash__(self) -> int:
        return hash((id(self.dataset), self.column, self.row))


def pixels(picture: Picture, framing: Framing) -> NDArray[np.uint8]:
    """The framed image, uint8 [H, W, 3].

    Raises:
        Unreadable: it cannot be read, or is no image that a worker would take.
    """
    try:
        return decode(picture.read(), LIMITS, framing).images[0]
    except (OSError, Fault, JobFailed) as exc:
        raise Unreadable(getattr(exc, "strerror", None) or str(exc)) from exc
