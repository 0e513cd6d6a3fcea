"""`captionq explain`: where the model looked for each word."""

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from producer.client import Client
from producer.contract import (
    CaptionJob,
    ExplainJob,
    ExplainOptions,
    JobState,
    WordExplanation,
    WordsExplained,
)
from producer.exits import EXIT_CODES, JOB_FAILED, exit_codes, read_settings
from producer.flags import (
    Adapter,
    AsJson,
    CaptionFlags,
    Language,
    Look,
    Mode,
    ModelId,
    Resolution,
    TimeoutS,
    View,
)
from producer.groups import with_groups
from producer.terminal import show
from producer.upload import uris
from producer.words import outcome

EXPLAIN_EXAMPLES = (
    "Examples:\n\n"
    "captionq explain street.jpg\n\n"
    "captionq explain street.jpg --text 'a red bicycle' --method gradcam --json\n\n"
    "captionq explain s3://photos/cat.jpg -o s3://maps/2026/ --raw\n\n"
    "captionq explain street.jpg -o looked/\n\n"
    "captionq explain street.jpg --language de\n\n"
    "Each word has: its probability, given those before it; peak, the pixel of the original image "
    "(x,y) that the model looked at most; box, round the patches that hold half of its look "
    "(left,top,right,bottom); spread, from 0 for a single patch to 1 for everywhere alike. With "
    "-o workers write the maps, as NumPy's .npz, an overlay for each word, a sheet, and a page "
    "that shows them as words are touched: to where their CAPTIONQ_SINK_ALLOW lets them.\n\n"
    + EXIT_CODES
)


@with_groups
def explain(
    *,
    image: Annotated[str, typer.Argument(help="A URI, or a file here, as captionq submit has it.")],
    text: Annotated[
        list[str] | None,
        typer.Option(help="Words to explain in place of the caption; may be repeated."),
    ] = None,
    method: Annotated[
        Look, typer.Option(help="How it is found out where the model looked: docs/attention.md.")
    ] = Look.ATTENTION,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where workers write maps and pictures: a folder here, if they share the disk, or "
            "s3://bucket/prefix/.",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="With -o: the maps of every layer and head as well.")
    ] = False,
    inline: Annotated[
        bool,
        typer.Option(
            "--inline", help="With --json: each word's map in base64 as well, and a small picture."
        ),
    ] = False,
    captions: CaptionFlags,
    mode: Mode = View.STRETCH,
    resolution: Resolution = None,
    model: ModelId = None,
    language: Language = None,
    adapter: Adapter = None,
    timeout_s: TimeoutS = 300,
    as_json: AsJson = False,
) -> None:
    """Caption an image, and print where the model looked for each word."""
    with exit_codes():
        settings = read_settings()
        sink = None if output is None else _folder(output)
        how = ExplainOptions(
            method=method.value, sink=sink, raw=raw, pictures=sink is not None, inline=inline
        )
        [uri] = uris([image], settings)
        seen: dict[str, Any] = {
            "mode": mode.value,
            "resolution": resolution,
            "model": model,
            "language": language,
            "adapter": adapter,
        }
        job: CaptionJob | ExplainJob
        if text:
            job = ExplainJob(image=uri, texts=tuple(text), explain=how, **seen)
        else:
            asked: dict[str, Any] = {"options": captions.options, "filter": captions.filter}
            job = CaptionJob(image=uri, explain=how, **asked, **seen)
        with Client(settings=settings) as client:
            result = client.submit(job).result(timeout_s)
        if result.state is not JobState.SUCCEEDED:
            show(result, outcome(result), as_json)
            raise typer.Exit(JOB_FAILED)
        found = result.explanations or tuple(
            one.explanation for one in result.captions or () if one.explanation
        )
        show(result, "\n\n".join(map(table, found)), as_json)


def _folder(named: str) -> str:
    if "://" not in named:
        absolute = Path(named).expanduser().absolute()
        named = Path(os.path.normpath(absolute)).as_uri()  # workers go up by no ".."
    return named if named.endswith("/") else f"{named}/"


def table(found: WordsExplained) -> str:
    """What is said of one caption or text, a line a word."""
    width = max([len(word.text) for word in found.words] + [4])
    even = math.log(found.grid[0] * found.grid[1]) or 1.0
    head = f"{'':<{width}}  {'prob':>5}  {'peak':>11}  {'box':<23}  spread"
    lines = [_line(word, width, even) for word in found.words]
    return "\n".join([found.text, head, *lines, *filter(None, [found.maps])])


def _line(word: WordExplanation, width: int, even: float) -> str:
    said = "" if word.logprob is None else f"{math.exp(word.logprob):.3f}"
    peak = ",".join(f"{value:.0f}" for value in word.peak)
    box = ",".join(map(str, word.box))
    return f"{word.text:<{width}}  {said:>5}  {peak:>11}  {box:<23}  {word.entropy / even:.2f}"
