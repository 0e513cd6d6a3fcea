"""`captionq-worker train-tokenizer`: texts in, a tokenizer for a language pack out."""

from pathlib import Path
from typing import Annotated

import typer

from worker.clear_errors import clear_errors


def train_tokenizer(
    texts: Annotated[
        Path,
        typer.Argument(
            metavar="TEXTS",
            help="A text file, one text a line, in UTF-8; or a manifest (.csv, .tsv, .jsonl, "
            ".parquet) with a column of captions.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where to write it.")
    ],
    vocab_size: Annotated[
        int, typer.Option(min=1, help="Most pieces to learn, single characters among them.")
    ] = 8000,
    language: Annotated[
        str | None,
        typer.Option(
            metavar="TAG",
            help="BCP 47, such as de or zh: of a manifest's rows, those of this language alone; "
            "and the whole alphabet of de, fr and ar is spelt, whatever the texts hold.",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="A manifest's column; by default caption, text or such.")
    ] = None,
) -> None:
    """Build a WordPiece tokenizer for a language, with case and accents kept.

    Words are split at spaces; Chinese characters and punctuation are pieces of their own, and are
    put together again without spaces. No text of TEXTS has an unknown piece, and every text comes
    back from its ids as it was, with single spaces and in Unicode's NFC.

    Give the folder to 'captionq-worker finetune --tokenizer'. Captions of the pairs to train on are
    enough; more texts of the same kind make better pieces.
    """
    with clear_errors():
        from worker.training import wordpiece
        from worker.training.texts import read

        made = wordpiece.train(read(texts, column, language), vocab_size, language)
        wordpiece.save(made, output)
    print(f"{len(made)} pieces, written to {output}")
