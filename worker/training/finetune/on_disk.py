"""Datasets of Hugging Face `datasets` on disk (`save_to_disk`), as rows."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from producer.manifest.parquet import NotInstalled
from producer.manifest.reference import BadReference
from producer.manifest.tables import GUESSES, chosen_column
from worker.training.finetune.pictures import CellPicture, FilePicture, Picture
from worker.training.finetune.rows import Columns, Complaints, Row, read_rows

TRAIN, VALIDATION = "train", ("validation", "val", "dev")


def open_dataset(folder: Path) -> tuple[Any, Any | None]:
    """The dataset to train on, and the one to validate on where there are splits of these names.

    Raises:
        NotInstalled: without the library.
        ValueError: the folder is none, or has several splits and none named train.
    """
    try:
        import datasets
    except ModuleNotFoundError as exc:
        raise NotInstalled(
            "Reading a dataset's folder needs datasets: pip install 'captionq[finetune]'"
        ) from exc
    datasets.disable_progress_bars()
    try:
        found = datasets.load_from_disk(str(folder))
    except (FileNotFoundError, ValueError) as exc:
        raise ValueError(
            f"{folder} is no dataset that save_to_disk of datasets wrote: {exc}"
        ) from exc
    if not isinstance(found, datasets.DatasetDict):
        return found, None
    if TRAIN not in found and len(found) > 1:
        raise ValueError(f"{folder} has no split named train, but {', '.join(found)}")
    train = found[TRAIN] if TRAIN in found else next(iter(found.values()))
    return train, next((found[name] for name in VALIDATION if name in found), None)


def read_dataset(
    dataset: Any, name: str, folder: Path, columns: Columns, complaints: Complaints
) -> Iterator[Row]:
    """The rows of a dataset. Images are an Image column, files' bytes, or paths of files.

    Datasets often have an image anew for each of its captions: equal ones are one picture.

    Raises:
        ValueError: it lacks a column; or, if strict, a row cannot be used.
    """
    import datasets

    features = dataset.features
    pictures = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
    image = columns.image or (
        pictures[0]
        if pictures
        else chosen_column(name, list(features), None, GUESSES["reference"], "images", "--column")
    )
    for column in pictures:
        dataset = dataset.cast_column(column, datasets.Image(decode=False))
    kind = features.get(image)
    inside = image in pictures or isinstance(kind, dict) or "binary" in str(kind)
    left_out = [c for c in features if c in pictures or (c == image and inside)]
    others = (
        dataset.remove_columns(left_out) if len(left_out) < len(features) else [{}] * len(dataset)
    )

    def table() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, row in enumerate(others):
            yield f"{name}, row {number}", dict.fromkeys(left_out, number) | row

    firsts: dict[bytes | int, int] = {}

    def picture(_position: str, said: object) -> Picture:
        if isinstance(said, int):
            content = _content(dataset[said][image])
            same = said if content is None else content
            return CellPicture(dataset, image, firsts.setdefault(same, said))
        if isinstance(said, str) and (folder / said).is_file():
            return FilePicture(folder / said, said)
        raise BadReference("The row names no image file here.")

    yield from read_rows(table(), name, Columns(image, columns.caption), picture, complaints)


def _content(cell: Any) -> bytes | None:
    """What equal cells share; None for one that holds no image."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str):
        cell = cell.encode("utf-8", "surrogateescape")
    return hashlib.sha256(cell).digest() if isinstance(cell, bytes) else None
