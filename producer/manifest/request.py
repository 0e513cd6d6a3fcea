"""What one run is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.contract import MAX_CHUNK, Chunk
from producer.manifest.tables import Columns

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
IMAGES = Columns()
BESIDE_JOURNAL = Path("captionq.journal")


@dataclass(frozen=True)
class Request:
    """What is to be captioned, embedded or matched, how, and where that goes.

    `chunk` says what is done with images, and how: a chunk whose images, and texts of each image,
    are replaced. `output` is None for
    standard output; `journal` None for the usual place. `index` is the place of the index that
    captions go to in place of an output. Times are in seconds.
    """

    sources: tuple[str, ...]
    chunk: Chunk
    columns: Columns = IMAGES
    base: Path | None = None
    output: Path | None = None
    beside: bool = False
    index: str | None = None
    skip_existing: bool = False
    journal: Path | None = None
    resume: bool = False
    overwrite: bool = False
    size: int = MAX_CHUNK
    in_flight: int = 64
    ordered: bool = False
    patience_s: float = float("inf")

    def plan(self) -> dict[str, Any]:
        """All that a run which goes on has to have in common with the one that began."""
        own = {"images", "job_id", "submitted_at", "signature", "schema_version", "task"}
        own.add("texts_per_image")
        paired = {"caption_column": self.columns.caption} if self.columns.paired else {}
        return {
            "sources": list(self.sources),
            "column": self.columns.image,
            **paired,
            **({"language_column": self.columns.language} if self.columns.language else {}),
            "base": str(self.base) if self.base else None,
            "format": self.format,
            "beside": self.beside,
            "index": self.index,
            "skip_existing": self.skip_existing,
            "chunk": self.size,
            "ordered": self.ordered,
            **self.chunk.model_dump(mode="json", exclude=own),
        }

    @property
    def format(self) -> str | None:
        """The kind of output; None without.

        Raises:
            ValueError: the file's suffix says none.
        """
        return None if self.output is None else format_of(self.output)

    @property
    def journal_path(self) -> Path | None:
        """Where the journal is; None where nothing is kept."""
        if self.journal is not None:
            return self.journal
        if self.output is not None:
            return self.output.with_name(f"{self.output.name}.journal")
        return BESIDE_JOURNAL if self.beside else None

    @property
    def rows_on_stdout(self) -> bool:
        """Whether rows have no other place."""
        return self.output is None and not self.beside and self.index is None

    def check(self) -> None:
        """Check what goes together, and with what is there.

        Raises:
            ValueError: saying what does not.
        """
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with what is there, --overwrite starts anew.")
        if self.skip_existing and not self.beside:
            raise ValueError("--skip-existing goes with --beside.")
        if self.beside and self.chunk.sink is not None:
            raise ValueError("With --sink the captions are in shards: --beside has none to write.")
        if (self.resume or self.journal) and self.rows_on_stdout:
            raise ValueError("Only a run with -o or --beside can be resumed.")
        if self.output is not None and self.journal_path == self.output:
            raise ValueError("--journal and -o name the same file.")
        if self.output is not None and self.output.exists():
            if self.format == "parquet" and not self.output.is_dir():
                raise ValueError(f"{self.output} is a file: Parquet goes to a folder of parts.")
            if self.format != "parquet" and self.output.is_dir():
                raise ValueError(f"{self.output} is a folder: give the name of a file.")
        _ = self.format


def format_of(output: Path) -> str:
    """The format that an output's suffix says.

    Raises:
        ValueError: it says none.
    """
    kind = FORMATS.get(output.suffix.lower())
    if kind is None:
        raise ValueError(f"{output}: the output is one of {', '.join(FORMATS)}.")
    return kind
