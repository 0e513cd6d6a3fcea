"""`captionq-worker take-over`: a multilingual model's tokenizer, and its layers, for captions."""

from pathlib import Path
from typing import Annotated

import typer

from worker import flags
from worker.clear_errors import clear_errors
from worker.settings import BUNDLED, model_path


def take_over(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A model such as bert-base-multilingual-cased or xlm-roberta-base: its config, "
            "weights and tokenizer.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to make.")
    ],
    model: flags.Model = BUNDLED,
    tokenizer_only: Annotated[
        bool,
        typer.Option("--tokenizer-only", help="Write its tokenizer, for finetune --tokenizer."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of what is new.")] = 0,
) -> None:
    """Take over a language model's words and layers, in place of training a language's own.

    Writes a captioning checkpoint: the image encoder of --model, and the text layers, word
    embeddings and tokenizer of FOLDER. Cross-attention to the image is --model's where shapes
    allow (those of BLIP-base and mBERT do), and new elsewhere. It captions nothing yet: train it
    with 'captionq-worker finetune --full --model DIR', with many pairs.

    With --tokenizer-only, for a pack: the tokenizer with [DEC] and [ENC]. A pack then has an
    embedding for each of its pieces, of which there are 120,000 (mBERT) or 250,000 (XLM-R).
    """
    with clear_errors():
        from worker.blip.checkpoint import Checkpoint
        from worker.blip.hub import resolve
        from worker.training.borrowed_decoder import take_over as run
        from worker.training.borrowed_tokenizer import borrowed

        if tokenizer_only:
            made = borrowed(source)
            output.mkdir(parents=True, exist_ok=True)
            made.save_pretrained(output)
            print(f"{len(made)} pieces, written to {output}")
            return
        base = Checkpoint(resolve(model_path(model)), ["caption"])
        found = run(source, base, output, seed)
    print(
        f"{found.pieces} pieces, {found.layers} layers, cross-attention of {found.seeing} from "
        f"{base.model_id}; written to {output}"
    )
