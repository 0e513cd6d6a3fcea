"""The scores of pairs, read back from the rows of a run, as a stream."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.manifest.parquet import pyarrow_parquet
from producer.manifest.request import format_of

TEXTS = ("image", "caption", "uri", "format", "decision", "code")
NUMBERS = ("itm_probability", "itc_cosine", "score", "calibrated_probability")
NAMES = ("index", *TEXTS, *NUMBERS)


@dataclass(frozen=True, slots=True)
class Scored:
    """One pair that was weighed. `uri` is what workers fetched, `format` as they know it."""

    index: int
    image: str
    caption: str
    uri: str
    format: str | None
    itm_probability: float
    itc_cosine: float
    score: float
    calibrated_probability: float | None
    decision: str | None


def read_scores(path: Path) -> Iterator[Scored]:
    """The pairs of a run that have scores, in the order of their rows.

    Raises:
        OSError: the file cannot be read.
    """
    for row in _rows(path):
        if not row["code"]:
            yield Scored(
                index=int(row["index"]),
                image=row["image"],
                caption=row["caption"],
                uri=row["uri"],
                format=row["format"] or None,
                itm_probability=float(row["itm_probability"]),
                itc_cosine=float(row["itc_cosine"]),
                score=float(row["score"]),
                calibrated_probability=_number(row["calibrated_probability"]),
                decision=row["decision"] or None,
            )


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    kind = format_of(path)
    if kind == "parquet":
        for part in sorted(path.glob("part-*.parquet")):
            file = pyarrow_parquet().ParquetFile(part)
            try:
                for batch in file.iter_batches(columns=list(NAMES)):
                    yield from batch.to_pylist()
            finally:
                file.close()
        return
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines) if kind == "csv" else map(json.loads, lines)


def _number(cell: Any) -> float | None:
    return None if cell in (None, "") else float(cell)
