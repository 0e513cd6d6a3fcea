"""Which rows of an index a search looks at, as LanceDB's typed expressions: no SQL is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

LAST_CHAR = "\U0010ffff"
"""Greater than any character of an image reference, which are printable."""


def where(caption_contains: Sequence[str] = (), source: str | None = None) -> Any:
    """Rows whose caption contains each of some words or phrases, whatever their case, and whose
    image reference begins with `source`; None for all rows.

    Rows without a caption contain nothing. `source` may be a file or folder here, which stands for
    the file:// URI that jobs have of it.
    """
    from lancedb.expr import col, func, lit

    terms = [
        func("contains", func("lower", col("caption")), func("lower", lit(words)))
        for words in caption_contains
    ]
    if source is not None:
        begin = source_prefix(source)
        # Strings are compared by their bytes in UTF-8, and those by their characters alike.
        terms.append((col("image_ref") >= lit(begin)) & (col("image_ref") < lit(begin + LAST_CHAR)))
    found = None
    for term in terms:
        found = term if found is None else found & term
    return found


def source_prefix(source: str) -> str:
    """A prefix of references: what is given, or the URI of a path here.

    >>> source_prefix("s3://photos/2026/")
    's3://photos/2026/'
    """
    if "://" in source:
        return source
    path = Path(source).expanduser().absolute()
    return f"{path.as_uri()}/" if path.is_dir() else path.as_uri()
