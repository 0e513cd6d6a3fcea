"""`captionq-worker finetune`: images and captions in, a pack or a checkpoint out."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from worker import flags
from worker.clear_errors import clear_errors, fail
from worker.settings import BUNDLED, model_path

INTERRUPTED = 130

DATA = "Data"
WHAT = "What is trained"
HOW = "How"


def finetune(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A .jsonl, .csv, .tsv or .parquet manifest with the columns image, caption and, "
            "if you like, language and match; or the folder of a Hugging Face dataset.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to make.")
    ],
    model: flags.Model = BUNDLED,
    task: Annotated[
        Literal["caption", "match"],
        typer.Option(help="match trains ITC and ITM, of which match and rank jobs ask."),
    ] = "caption",
    language: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="BCP 47, such as de: rows of this language alone."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What jobs call the pack; by default the folder's name.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A tokenizer in place of the checkpoint's (captionq-worker train-tokenizer): word "
            "embeddings are then trained and stored as well.",
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Linear modules that LoRA adapts; by default the text layers' attention, "
            "cross-attention and MLP.",
        ),
    ] = None,
    rank: Annotated[int, typer.Option(help="Of LoRA's matrices.")] = 16,
    alpha: Annotated[
        float | None, typer.Option(help="LoRA is scaled by alpha / rank; by default 2.")
    ] = None,
    dropout: Annotated[float, typer.Option(help="Of what LoRA reads.")] = 0.0,
    full: Annotated[
        bool,
        typer.Option("--full", help="Train the whole text side, and write a checkpoint, no pack."),
    ] = False,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|FILE",
            help="A share of the data such as 0.1, or another manifest: the state of the lowest "
            "loss on it is kept.",
        ),
    ] = None,
    patience: Annotated[
        int, typer.Option(help="End after so many validations without a lower loss; 0: never.")
    ] = 0,
    validate_every: Annotated[
        int | None, typer.Option(metavar="STEPS", help="By default ten times in a run.")
    ] = None,
    epochs: Annotated[float, typer.Option(help="How often each row is learned from.")] = 10.0,
    steps: Annotated[int | None, typer.Option(help="In place of --epochs.")] = None,
    batch: Annotated[int, typer.Option(help="Rows of one pass, over all processes.")] = 32,
    accumulate: Annotated[int, typer.Option(help="Passes of one step.")] = 1,
    rate: Annotated[
        float | None,
        typer.Option(help="Learning rate at its highest; by default 5e-4, or 2e-5 with --full."),
    ] = None,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which it rises.")] = 0.05,
    weight_decay: Annotated[float, typer.Option(help="Of matrices.")] = 0.01,
    clip: Annotated[float, typer.Option(help="Largest norm of a step's gradient.")] = 1.0,
    max_tokens: Annotated[
        int, typer.Option(help="Longer captions are cut; [DEC] and [SEP] count.")
    ] = 40,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")] = False,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
    ] = False,
    cache_gib: Annotated[
        float,
        typer.Option(
            help="Images are encoded once where that takes no more memory than this, and whenever "
            "they are needed otherwise."
        ),
    ] = 2.0,
    save_every: Annotated[
        float, typer.Option(metavar="SECONDS", help="Between states to go on from.")
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="Decides order, dropout and new values.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at a row that cannot be used.")
    ] = False,
    column: Annotated[
        str | None, typer.Option(help="Column of the images; by default image, path or such.")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Column of the captions; by default caption or text.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use no GPU.")] = False,
) -> None:
    """Fine-tune a checkpoint on images with captions: a language, a domain, a style.

    By default LoRA (Hu et al. 2021) of the text side, written as a pack of a few MB that workers
    serve beside the checkpoint; --full writes a checkpoint of its own. The image encoder is never
    trained, and so is run once for each image.

    The run is kept in DIR.training: the same command goes on with it, whatever ended it, and on a
    CPU comes to the same result to the last bit. Losses are there as losses.jsonl and for
    TensorBoard. DIR itself appears when all is done.

    For several GPUs: accelerate launch -m worker finetune DATA -o DIR
    """
    with clear_errors():
        from producer.manifest.interrupt import Interrupt
        from worker.training.finetune.loop import Interrupted
        from worker.training.finetune.request import Request
        from worker.training.finetune.rows import Columns
        from worker.training.finetune.run import finetune as run
        from worker.training.finetune.settings import Settings

        settings = Settings(
            task=task,
            tokenizer=tokenizer,
            full=full,
            targets=targets,
            rank=rank,
            alpha=2.0 * rank if alpha is None else alpha,
            dropout=dropout,
            steps=steps,
            epochs=epochs,
            batch=batch,
            accumulate=accumulate,
            rate=(2e-5 if full else 5e-4) if rate is None else rate,
            warmup=warmup,
            weight_decay=weight_decay,
            clip=clip,
            validate_every=validate_every,
            patience=patience,
            max_tokens=max_tokens,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
            cache_gib=cache_gib,
            seed=seed,
        )
        request = Request(
            data=data,
            output=output,
            model=model_path(model),
            name=output.resolve().name.lower() if name is None else name,
            settings=settings,
            language=language,
            validation=_validation(validation),
            columns=Columns(column, caption_column),
            strict=strict,
            save_every_s=save_every,
            cpu=cpu,
        )
        with Interrupt() as interrupt:
            try:
                card = run(request, lambda: interrupt.came)
            except Interrupted:
                raise fail(
                    f"stopped; the run is kept in {output}.training: the same command goes on "
                    f"with it",
                    INTERRUPTED,
                ) from None
    if card is None:
        return
    said = card.training
    print(
        f"captionq-worker: {said['steps']:,} steps in {said['seconds']:.0f} s, "
        f"{said['trained_parameters']:,} parameters trained, at most {said['peak_memory_mib']:,} "
        f"MiB of memory; written to {output}",
        file=sys.stderr,
    )
    print(output)


def _validation(given: str | None) -> Path | float | None:
    if given is None:
        return None
    try:
        share = float(given)
    except ValueError:
        return Path(given)
    if not 0 < share < 1:
        raise ValueError(f"--validation is a share between 0 and 1, or a manifest, not {given}")
    return share
