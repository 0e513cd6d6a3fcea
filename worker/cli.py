"""captionq-worker: run a worker, or use its parts by hand."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer
from rich.console import Console
from rich.table import Table

from worker import decoding_flags as flags
from worker.settings import (
    BUNDLED,
    EX_CONFIG,
    SettingsError,
    WorkerSettings,
    load_settings,
    model_path,
)

if TYPE_CHECKING:
    from PIL import Image

    from worker.blip import Engine

BATCH = 16  # images answered together; their lines are printed before the next are read
UNREADABLE = 1  # exit status when an image file could not be read
Answer = TypeVar("Answer")

cli = typer.Typer(
    name="captionq-worker",
    help="Caption images with BLIP: run a queue worker, or caption and match without a queue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
Model = Annotated[
    str,
    typer.Option(
        help="Checkpoint: a folder, a hub id such as Salesforce/blip-image-captioning-base, or "
        "'bundled' for the small one inside the package (drawn scenes only)."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line, nothing else.")]
Images = Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE...")]


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
    table = Table("variable", "value", "meaning", title="captionq-worker settings")
    for row in rows:
        table.add_row(row["variable"], row["value"] or "[dim](empty)[/dim]", row["meaning"])
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
    as_json: AsJson = False,
) -> None:
    """Caption image files without a queue.

    The default is BLIP's reference decoding: 3 beams, 5 to 20 tokens. A file that cannot be read
    is reported on stderr, the others are captioned, and the exit status is 1. Several captions of
    an image are printed best first, equal ones once.
    """
    from worker.blip import CaptionOptions, distinct_2

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
        engine = _engine(model, device, dtype, "caption")
        for image, found in answers(engine, images, lambda read: engine.caption(read, options)):
            if as_json:
                document: dict[str, Any] = {
                    "image": str(image),
                    "captions": [asdict(one) for one in found],
                }
                if count > 1:
                    texts = [one.text for one in found for _ in range(one.count)]
                    document["distinct_2"] = distinct_2(texts)
                print(json.dumps(document), flush=True)
                continue
            for one in found:
                print(f"{image}\t{one.text}\t{one.logprob:.3f}", flush=True)


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
    as_json: AsJson = False,
) -> None:
    """Match image files with texts without a queue: ITM probability and ITC cosine of each.

    A file that cannot be read is reported on stderr, the others are matched, and the exit status
    is 1.
    """
    with clear_errors():
        engine = _engine(model, device, dtype, "match")
        for image, found in answers(
            engine, images, lambda read: engine.match(read, text, position_zero=position_zero)
        ):
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
    scenes: Annotated[int, typer.Option(help="Scenes to draw.")] = 2_000,
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint on freshly drawn scenes: exact captions, ITM ROC AUC, ITC recall."""
    from worker.training import evaluate as evaluation

    with clear_errors():
        figures = evaluation.evaluate(model_path(model), scenes)
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


def answers(
    engine: "Engine",
    images: list[Path],
    ask: "Callable[[list[Image.Image]], list[Answer]]",
) -> Iterator[tuple[Path, Answer]]:
    """Each image file that can be read with its answer, `BATCH` files at a time.

    The others are reported on stderr; then, after the last answer, the exit status is UNREADABLE.
    """
    failed = False
    for start in range(0, len(images), BATCH):
        read: list[tuple[Path, Image.Image]] = []
        for path in images[start : start + BATCH]:
            try:
                read.append((path, _squashed(path, engine)))
            except Exception as exc:  # noqa: BLE001 - Pillow's readers raise what they like
                reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
                print(f"captionq-worker: cannot read {path}: {reason}", file=sys.stderr)
                failed = True
        if read:
            found = ask([image for _, image in read])
            yield from zip([path for path, _ in read], found, strict=True)
    if failed:
        raise typer.Exit(UNREADABLE)


def _squashed(path: Path, engine: "Engine") -> "Image.Image":
    """An image file at the checkpoint's size, so that no batch holds full-sized pictures."""
    from worker.blip.images import open_rgb

    height, width = engine.image_size
    return open_rgb(path).resize((width, height), engine.resample)


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
