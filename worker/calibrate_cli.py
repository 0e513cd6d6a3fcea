"""`captionq-worker calibrate`: labelled pairs in, a calibration beside the model out."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import track

from worker import flags
from worker.calibration import FILE_NAME, kept_at
from worker.clear_errors import checked_settings, clear_errors
from worker.settings import BUNDLED, model_path


def calibrate(
    pairs: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS",
            help="A .csv, .tsv, .jsonl or .parquet table: image file, text, label (0 or 1, true "
            "or false). Relative paths are in the table's folder.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the calibration here, where no worker looks for it by itself.",
        ),
    ] = None,
    method: Annotated[
        Literal["auto", "platt", "isotonic"],
        typer.Option(
            help="A sigmoid (Platt), or any rising curve, which takes some thousands of pairs; "
            "auto cross-validates both."
        ),
    ] = "auto",
    precision: Annotated[
        float,
        typer.Option(help="Share of what is called a match that is to be one, in such pairs."),
    ] = 0.95,
    model: flags.Model = BUNDLED,
    dtype: flags.Dtype = "float32",
    device: flags.Device = "auto",
    position_zero: Annotated[
        Literal["enc", "cls"] | None,
        typer.Option(help="enc (the paper's, default) or cls (Hugging Face's) before the text."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the images; by default image, path or such.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of the texts; by default text or caption.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the labels; by default label or match.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the half that is fitted on.")] = 0,
    as_json: flags.AsJson = False,
) -> None:
    """Fit what match probabilities mean, from pairs that people have labelled.

    ITM's probability ranks pairs well, but is too sure of itself. A calibration turns it into the
    share of such pairs that match, and finds the threshold for a wanted precision. It is fitted on
    the pairs of half of the images, and measured on those of the others: ROC AUC, average
    precision, and expected calibration error over 15 equal-width bins (Guo et al. 2017).

    It is written as calibration.json into the model's folder; for a hub model and the bundled one,
    into CAPTIONQ_HOME/calibration. Workers that serve the same revision find it at their next
    start. Images that cannot be read are reported on stderr and left out.

    Pairs should be of the kind that will be served, in about the mixture of right and wrong ones
    that is to be expected: probabilities and precision follow it. Some hundreds do for a sigmoid.
    """
    with clear_errors():
        from worker.blip import Engine
        from worker.training.calibrate import fit, report
        from worker.training.pairs import PairTable
        from worker.training.scores import scored

        home = checked_settings().home
        read = list(PairTable(pairs, column, text_column, label_column).read(_say))
        engine = Engine.load(model_path(model), device=device, dtype=dtype, tasks=["match"])
        console = Console(stderr=True)

        def watched(images: list[Path]) -> Iterable[Path]:
            hidden = not console.is_terminal
            return track(images, "images", console=console, transient=True, disable=hidden)

        calibration = fit(
            scored(engine, read, _say, position_zero, watched),
            model_id=engine.model_id,
            revision=engine.revision,
            position_zero=position_zero or engine.position_zero,
            method=method,
            precision=precision,
            seed=seed,
        )
        if output is None:
            beside = model != BUNDLED and Path(model).is_dir()
            kept = kept_at(home, engine.model_id, engine.revision)
            output = Path(model) / FILE_NAME if beside else kept
        calibration.save(output)
    print(calibration.model_dump_json() if as_json else report(calibration))
    _say(f"written to {output}")


def _say(sentence: str) -> None:
    print(f"captionq-worker: {sentence}", file=sys.stderr)
