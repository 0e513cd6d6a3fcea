"""`captionq-worker evaluate`: what a checkpoint is worth, and a pack."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from worker import attention_cli, language_cli
from worker.clear_errors import clear_errors
from worker.flags import AsJson, Dtype, Model
from worker.settings import BUNDLED, model_path


def evaluate(
    pack: Annotated[
        Path | None,
        typer.Argument(
            metavar="PACK",
            help="With --language: a pack's folder. By default the bundled checkpoint has its "
            "bundled pack, and any other checkpoint none.",
        ),
    ] = None,
    model: Model = BUNDLED,
    language: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Score captions in this language: de, fr, zh, ar, ..."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="With --language: your images and captions instead of scenes, as for finetune.",
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            help="With --language: how far a figure may be below the pack's card, as a share of "
            "the figure's scale.",
        ),
    ] = 0.01,
    save: Annotated[
        bool, typer.Option("--save", help="With --language: write the figures into the card.")
    ] = False,
    scenes: Annotated[
        int | None,
        typer.Option(
            help="Scenes to draw: 2000; with --matching, --attention or --language 1000, with "
            "--calibration 4000, with --modes 200 of each kind.",
            min=1,
        ),
    ] = None,
    modes: Annotated[
        bool, typer.Option("--modes", help="Score the resolution modes on 4:1 and 1:4 scenes.")
    ] = False,
    matching: Annotated[
        bool, typer.Option("--matching", help="Score retrieval, best of 5 and the caption filter.")
    ] = False,
    calibration: Annotated[
        bool,
        typer.Option(
            "--calibration",
            help="Calibrate matching on blurred, noisy and cropped scenes, and score that.",
        ),
    ] = False,
    attention: Annotated[
        bool,
        typer.Option("--attention", help="Score where the model looks for each word, by method."),
    ] = False,
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="With --attention: image files instead of scenes. A file, a folder, a pattern, or "
            "a list or table of them; repeat for more.",
            metavar="SOURCE",
        ),
    ] = None,
    method: Annotated[
        Literal["attention", "rollout", "gradcam", "occlusion"] | None,
        typer.Option(help="With --on: how to explain; by default as jobs are."),
    ] = None,
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint on freshly drawn scenes: exact captions, ITM ROC AUC, ITC recall.

    With --language: exact captions, BLEU-4 and CIDEr-D in a language, by a pack. Exits with 1 where
    a figure is below the pack's card by more than --margin, by default a point of a hundred. With
    --data, on your own images: all captions of an image are its references, and 3 beams are used.

    With another --dtype than float32: also how many captions are float32's, word for word.

    With --modes: exact captions, and those with the right colours and shapes, per resolution mode.

    With --matching: recall of images by their captions, by ITC alone and reranked by ITM; exact
    captions of one sample and of the best of 5 by ITM; what a calibrated filter keeps and rejects.

    With --calibration: how far match probabilities are from the truth, before a calibration is
    fitted on half of the scenes and after, on the other half. The calibration is not kept.

    With --attention: by each method of explaining, how often the peak of a word's map lies in the
    box of the shape that it names, the share of the map in it, the areas under the deletion and
    insertion curves against random order, and how far methods agree. With --on SOURCE, for your own
    images, whose boxes nobody knows: the mean map, the share of centre and border, and the areas.
    """
    from worker.training import evaluate as evaluation
    from worker.training import matching as evaluation_of_matching
    from worker.training import modes as evaluation_of_modes

    if modes + matching + calibration + attention + (language is not None) > 1:
        raise typer.BadParameter(
            "--language, --modes, --matching, --calibration, --attention: ask for one of these"
        )
    if on and not attention:
        raise typer.BadParameter("--on names images for --attention")
    if method and not on:
        raise typer.BadParameter("--method is for the images of --on: scenes have all methods")
    if (pack or data or save) and not language:
        raise typer.BadParameter("PACK, --data and --save are for a --language")
    with clear_errors():
        if language:
            asked = language_cli.Asked(language, pack, data, scenes or 1_000, margin, save)
            raise typer.Exit(language_cli.evaluate(model, asked, dtype, as_json))
        if on:
            attention_cli.images(model_path(model), on, method, dtype, as_json)
            return
        if attention:
            attention_cli.scenes(model_path(model), scenes or 1_000, dtype, as_json)
            return
        if calibration:
            from worker.training import degraded

            fitted = degraded.evaluate_calibration(model_path(model), scenes or 4_000, dtype=dtype)
            print(fitted.model_dump_json() if as_json else degraded.report(fitted))
            return
        if matching:
            found = evaluation_of_matching.evaluate_matching(
                model_path(model), scenes or 1_000, dtype=dtype
            )
            print(json.dumps(found) if as_json else evaluation_of_matching.report(found))
            return
        if modes:
            scored = evaluation_of_modes.evaluate_modes(model_path(model), scenes or 200)
            rows = [asdict(figure) for figure in scored]
            print(json.dumps(rows) if as_json else evaluation_of_modes.report(scored))
            return
        figures = evaluation.evaluate(model_path(model), scenes or 2_000, dtype=dtype)
    print(json.dumps(figures) if as_json else evaluation.report(figures))
