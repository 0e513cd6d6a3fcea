"""Which rows of an index a search looks at, as LanceDB's typed expressions: no SQL is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

LAST_CHAR = "\U0010ffff"
"""Greater than any character of an image reference, which are printable."""

OF_VERSION = "?versionId="


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
        terms.append(_begins(source_prefix(source)))
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


def of_images(image_refs: Sequence[str]) -> Any:
    """Rows of these images, of which there is one or more; `s3://bucket/key` without a version is
    every version of that object as well."""
    from lancedb.expr import col, lit

    column = col("image_ref")
    terms: list[Any] = []
    for ref in image_refs:
        terms.append(column == lit(ref))
        if ref.lower().startswith("s3://") and "?" not in ref:
            terms.append(_begins(f"{ref}{OF_VERSION}"))
    while len(terms) > 1:  # in pairs, for a chain of hundreds would be as deep
        terms = [
            terms[at] if at + 1 == len(terms) else terms[at] | terms[at + 1]
            for at in range(0, len(terms), 2)
        ]
    return terms[0]


def _begins(prefix: str) -> Any:
    from lancedb.expr import col, lit

    # Strings are compared by their bytes in UTF-8, and those by their characters alike.
    return (col("image_ref") >= lit(prefix)) & (col("image_ref") < lit(prefix + LAST_CHAR))
