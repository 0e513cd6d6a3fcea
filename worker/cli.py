"""captionq-worker: run a worker, or use its parts by hand."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from producer.framing import MAX_REGIONS, box_of
from worker import decoding_flags as flags
from worker.image_files import ImageFiles
from worker.settings import (
    BUNDLED,
    EX_CONFIG,
    SettingsError,
    WorkerSettings,
    load_settings,
    model_path,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from worker.blip import Caption, Engine, Match

UNREADABLE = 1  # exit status when an image file could not be read

cli = typer.Typer(
    name="captionq-worker",
    help="Caption images with BLIP: run a queue worker, or caption and match without a queue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
benches = typer.Typer(help="Measure the parts of a worker.", no_args_is_help=True)
cli.add_typer(benches, name="bench")
Model = Annotated[
    str,
    typer.Option(
        help="Checkpoint: a folder, a hub id such as Salesforce/blip-image-captioning-base, or "
        "'bundled' for the small one inside the package (drawn scenes only)."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16, or int8 (CPU).")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line, nothing else.")]
Images = Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE...")]
Mode = Annotated[
    Literal["stretch", "pad", "crop", "native"],
    typer.Option(
        help="How an image that is not square is seen: squashed (BLIP's own), whole with bars, its "
        "middle alone, or in a grid of patches of about its own aspect ratio."
    ),
]
Resolution = Annotated[
    int | None,
    typer.Option(metavar="PIXELS", help="Side of the square seen, for finer detail."),
]


def fail(sentence: str, status: int = 2) -> typer.Exit:
    """Say what is wrong on stderr; raise what is returned."""
    print(f"captionq-worker: {sentence}", file=sys.stderr)
    return typer.Exit(status)


def checked_settings() -> WorkerSettings:
    """The settings, or one sentence and the end."""
    try:
        return load_settings()
    except SettingsError as exc:
        raise fail(str(exc), EX_CONFIG) from None


@cli.command()
def run(
    devices: Annotated[
        str | None,
        typer.Option(
            help="auto (every CUDA device, else the CPU), cpu, or indices: 0,1. "
            "Without it, CAPTIONQ_DEVICE decides."
        ),
    ] = None,
) -> None:
    """Run one worker process per device until SIGTERM, which finishes what runs.

    Settings are environment variables; 'captionq-worker settings' lists them.
    A process that dies is started again; one whose settings or checkpoint are wrong ends with
    status 78 and ends the others.
    """
    from worker.supervisor import Supervisor, device_names, start_worker

    settings = checked_settings()
    try:
        names = device_names(devices or settings.device, _cuda_devices)
    except ValueError as exc:
        raise fail(str(exc)) from None
    extra = ["--loglevel", settings.log_level]
    supervisor = Supervisor(
        names,
        start=lambda device: start_worker(device, extra),
        say=lambda line: print(f"captionq-worker: {line}", file=sys.stderr, flush=True),
    )
    raise typer.Exit(supervisor.run())


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count()


@cli.command("settings")
def show_settings(as_json: AsJson = False) -> None:
    """Print every setting: its variable, its value, what it means and in which unit."""
    settings = checked_settings()
    rows = [
        {
            "variable": f"CAPTIONQ_{name.upper()}",
            "value": settings.shown(name),
            "meaning": field.description or "",
        }
        for name, field in type(settings).model_fields.items()
    ]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table(title="captionq-worker settings")
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("meaning", overflow="fold")
    for row in rows:
        value = escape(row["value"]) or "[dim](empty)[/dim]"
        table.add_row(row["variable"], value, escape(row["meaning"]))
    Console().print(table)


@cli.command()
def caption(
    images: Images,
    model: Model = BUNDLED,
    dtype: Dtype = "float32",
    device: Device = "auto",
    beams: flags.Beams = None,
    count: flags.Count = 1,
    min_tokens: flags.MinTokens = None,
    max_tokens: flags.MaxTokens = 20,
    max_chars: flags.MaxChars = None,
    stop: flags.Stop = None,
    prompt: flags.Prompt = None,
    prefix: flags.Prefix = None,
    ban: flags.Ban = None,
    length_penalty: flags.LengthPenalty = 1.0,
    repetition_penalty: flags.RepetitionPenalty = 1.0,
    no_repeat_ngram: flags.NoRepeatNgram = 0,
    sample: flags.Sample = False,
    temperature: flags.Temperature = 1.0,
    top_k: flags.TopK = 0,
    top_p: flags.TopP = 1.0,
    min_p: flags.MinP = 0.0,
    seed: flags.Seed = None,
    mode: Mode = "stretch",
    resolution: Resolution = None,
    region: Annotated[
        list[str] | None,
        typer.Option(metavar="L,T,R,B", help="Caption this part of each image; repeat for more."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Caption image files without a queue, or with --region parts of them.

    The default is BLIP's reference decoding: 3 beams, 5 to 20 tokens. A file that cannot be read
    is reported on stderr, the others are captioned, and the exit status is 1. Several captions of
    an image are printed best first, equal ones once.
    """
    from worker.blip import CaptionOptions

    with clear_errors():
        options = CaptionOptions(
            num_beams=cast(int, beams),  # None: as the other options say
            num_return_sequences=count,
            min_new_tokens=min_tokens,
            max_new_tokens=max_tokens,
            max_chars=max_chars,
            stop_strings=stop or (),
            prompt=prompt,
            prefix=prefix,
            bad_words=ban or (),
            length_penalty=length_penalty,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram,
            do_sample=sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
        )
        boxes = [box_of(given) for given in region or ()]
        if len(boxes) > MAX_REGIONS:
            raise ValueError(f"at most {MAX_REGIONS} regions, not {len(boxes)}")
        engine = _engine(model, device, dtype, "caption")
        files = ImageFiles(images, engine.framing(mode, resolution), boxes)

        def ask(framed: "list[NDArray[np.uint8]]") -> "list[list[Caption]]":
            # Native mode leaves images as they are that any mode has framed.
            return engine.caption(framed, options, mode="native", resolution=resolution)

        for image, found in files.answers(ask):
            if as_json:
                rows = [_document(row, options.num_return_sequences) for row in found]
                said = (
                    {"regions": [{"box": b, **row} for b, row in zip(boxes, rows, strict=True)]}
                    if boxes
                    else rows[0]
                )
                print(json.dumps({"image": str(image), **said}), flush=True)
                continue
            places = ["\t" + ",".join(map(str, box)) for box in boxes] or [""]
            for place, row in zip(places, found, strict=True):
                for one in row:
                    print(f"{image}{place}\t{one.text}\t{one.logprob:.3f}", flush=True)
    _end(files)


def _document(found: "list[Caption]", count: int) -> dict[str, Any]:
    """The captions of an image, and where several were asked for, how much they differ."""
    from worker.blip import distinct_2

    document: dict[str, Any] = {"captions": [asdict(one) for one in found]}
    if count > 1:
        document["distinct_2"] = distinct_2([one.text for one in found for _ in range(one.count)])
    return document


@cli.command()
def match(
    images: Images,
    text: Annotated[list[str], typer.Option(help="A text to match; repeat for more.")],
    model: Model = BUNDLED,
    dtype: Dtype = "float32",
    device: Device = "auto",
    position_zero: Annotated[
        Literal["enc", "cls"] | None,
        typer.Option(help="enc (the paper's, default) or cls (Hugging Face's) before the text."),
    ] = None,
    mode: Mode = "stretch",
    resolution: Resolution = None,
    as_json: AsJson = False,
) -> None:
    """Match image files with texts without a queue: ITM probability and ITC cosine of each.

    A file that cannot be read is reported on stderr, the others are matched, and the exit status
    is 1.
    """
    with clear_errors():
        engine = _engine(model, device, dtype, "match")
        files = ImageFiles(images, engine.framing(mode, resolution))

        def ask(framed: "list[NDArray[np.uint8]]") -> "list[list[Match]]":
            return engine.match(
                framed, text, position_zero=position_zero, mode="native", resolution=resolution
            )

        for image, [found] in files.answers(ask):
            rows = [
                {
                    "text": one.text,
                    "itm_probability": one.itm_probability,
                    "itm_logit": one.itm_logit,
                    "itc_cosine": one.itc_cosine,
                }
                for one in found
            ]
            if as_json:
                print(json.dumps({"image": str(image), "matches": rows}), flush=True)
                continue
            for one in found:
                scores = f"{one.itm_probability:.3f}\t{one.itc_cosine:.3f}"
                print(f"{image}\t{one.text}\t{scores}", flush=True)
    _end(files)


def _end(files: ImageFiles) -> None:
    if files.unreadable:
        raise typer.Exit(UNREADABLE)


@cli.command("fetch-model")
def fetch_model(
    model_id: Annotated[str, typer.Argument(help="Hub id, e.g. Salesforce/blip-itm-base-coco.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Make a pinned copy of a hub checkpoint, to be served offline from a folder."""
    from worker.blip import fetch_model as fetch

    with clear_errors():
        print(fetch(model_id, output, revision))


@cli.command()
def evaluate(
    model: Model = BUNDLED,
    scenes: Annotated[
        int | None, typer.Option(help="Scenes to draw: 2000, or with --modes 200 of each kind.")
    ] = None,
    modes: Annotated[
        bool, typer.Option("--modes", help="Score the resolution modes on 4:1 and 1:4 scenes.")
    ] = False,
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint on freshly drawn scenes: exact captions, ITM ROC AUC, ITC recall.

    With another --dtype than float32: also how many captions are float32's, word for word.

    With --modes: exact captions, and those with the right colours and shapes, per resolution mode.
    """
    from worker.training import evaluate as evaluation
    from worker.training import modes as evaluation_of_modes

    with clear_errors():
        if modes:
            scored = evaluation_of_modes.evaluate_modes(model_path(model), scenes or 200)
            rows = [asdict(figure) for figure in scored]
            print(json.dumps(rows) if as_json else evaluation_of_modes.report(scored))
            return
        figures = evaluation.evaluate(model_path(model), scenes or 2_000, dtype=dtype)
    print(json.dumps(figures) if as_json else evaluation.report(figures))


@cli.command()
def demo(
    images: Annotated[
        list[str] | None, typer.Argument(help="Your own files or URLs; else drawn scenes.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the table as SVG as well.")] = None,
) -> None:
    """The main job, end to end, on this machine: broker, S3, HTTP and a worker are all real."""
    from worker import demo as demonstration

    raise typer.Exit(demonstration.main(images or [], svg))


@benches.command(
    "engine",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def bench_engine(context: typer.Context) -> None:
    """The engine against transformers' generate: images/s, stages, TFLOP/s, memory; --help.

    The options are those of python -m worker.blip.bench; docs/performance.md explains the figures.
    """
    from worker.blip import bench

    with clear_errors():
        raise typer.Exit(bench.main(context.args, prog="captionq-worker bench engine"))


def _engine(model: str, device: str, dtype: str, task: str) -> "Engine":
    from worker.blip import Engine

    return Engine.load(model_path(model), device=device, dtype=dtype, tasks=(task,))


@contextmanager
def clear_errors() -> Iterator[None]:
    """Mistakes of the caller, missing files and refused checkpoints as one sentence, status 2."""
    from worker.blip.errors import BlipError

    try:
        yield
    except BrokenPipeError:  # the reader of our output has gone: typer ends quietly
        raise
    except (BlipError, ValueError, OSError) as exc:
        raise fail(str(exc)) from None


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
