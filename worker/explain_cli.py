"""`captionq-worker explain`: where the model looked, as a table, as JSON, and as files."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker import flags
from worker.by_hand import UNREADABLE
from worker.clear_errors import clear_errors
from worker.image_files import ImageFiles
from worker.packs.by_hand import pack_of
from worker.settings import BUNDLED, model_path

if TYPE_CHECKING:
    from worker.blip import Caption
    from worker.blip.explanation import Explanation
    from worker.blip.placement import PlacedGrid


def explain(
    images: flags.Images,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write into this folder, of each image: NAME.html (a page to look at), an overlay "
            "of each word, a sheet of all, and NAME.npz (the maps).",
            file_okay=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Explain this text, as the caption that says it; repeat for more. By default the "
            "image is captioned."
        ),
    ] = None,
    method: Annotated[
        Literal["attention", "rollout", "gradcam", "occlusion"] | None,
        typer.Option(help="How to explain; by default as jobs are. occlusion is slow."),
    ] = None,
    model: flags.Model = BUNDLED,
    language: flags.Language = None,
    pack: flags.Pack = None,
    dtype: flags.Dtype = "float32",
    device: flags.Device = "auto",
    beams: Annotated[int, typer.Option(help="1 is greedy search.")] = 3,
    count: flags.Count = 1,
    prompt: flags.Prompt = None,
    mode: flags.Mode = "stretch",
    resolution: flags.Resolution = None,
    as_json: flags.AsJson = False,
) -> None:
    """Show where the model looked for each word of a caption, without a queue.

    Prints for each word: its probability after the words before it, the peak (x,y) and the box
    (left,top,right,bottom) that holds half of its map, in pixels of the upright image, the map's
    entropy in nats and the share of the image that the box covers. A file that cannot be read is
    reported on stderr, and the exit status is 1.

    Example: captionq-worker explain photo.jpg -o looked/ --mode native
    """
    from worker.blip import CaptionOptions, Engine
    from worker.blip.explanation import DEFAULT_METHOD
    from worker.blip.placement import placed
    from worker.pictures.colours import colours
    from worker.pictures.written import write

    with clear_errors():
        if output is not None:
            colours()  # what is not installed shows before any work
        options = CaptionOptions(
            num_beams=beams,
            num_return_sequences=count,
            prompt=prompt,
        )
        engine = Engine.load(model_path(model), device=device, dtype=dtype, tasks=("caption",))
        answering = pack_of(engine, "caption", model, language, pack)
        framing = engine.framing(mode, resolution)
        files, names = ImageFiles(images, framing), _Names()
        for path, image in files.opened():
            # Native mode leaves images as they are that any mode has framed.
            framed = [framing.frame(image)]
            captions: Sequence[Sequence[Caption | str]] = (
                [text]
                if text
                else engine.caption(
                    framed, options, packs=answering, mode="native", resolution=resolution
                )
            )
            [found] = engine.explain(
                framed,
                captions,
                options,
                packs=answering,
                method=method or DEFAULT_METHOD,
                mode="native",
                resolution=resolution,
            )
            grid = placed(framing, *image.size)
            written = []
            if output is not None:
                written = write(found, image, grid, output, name=names.of(path))
            if as_json:
                document = {"image": str(path), "captions": [_document(o, grid) for o in found]}
                if output is not None:
                    document["files"] = [str(output / name) for name in written]
                print(json.dumps(document), flush=True)
            else:
                _print(path, found, grid)
    if files.unreadable:
        raise typer.Exit(UNREADABLE)


class _Names:
    """What the files of images are called: as these are, and a number after one that has been."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def of(self, path: Path) -> str:
        numbered = (f"{path.stem}-{number}" for number in itertools.count(2))
        free = (n for n in itertools.chain([path.stem], numbered) if n not in self._given)
        name = next(free)
        self._given.add(name)
        return name


def _document(explanation: "Explanation", grid: "PlacedGrid") -> dict[str, Any]:
    from worker.pictures.saying import probability

    words = []
    for word, shares in zip(explanation.words, explanation.maps, strict=True):
        located = grid.locate(shares)
        words.append(
            {
                "text": word.text,
                "logprob": word.logprob,
                "probability": probability(word),
                "peak": located.peak,
                "box": located.box,
                "entropy": located.entropy,
                "coverage": located.coverage,
            }
        )
    return {"text": explanation.text, "method": explanation.method, "words": words}


def _print(path: Path, found: "Sequence[Explanation]", grid: "PlacedGrid") -> None:
    console = Console()
    for explanation in found:
        console.print(f"{escape(str(path))}: {escape(explanation.text)}", soft_wrap=True)
        table = Table()
        table.add_column("word", overflow="fold")
        for name in ("probability", "peak", "box", "entropy", "coverage"):
            table.add_column(name, justify="right", no_wrap=True)
        for word in _document(explanation, grid)["words"]:
            table.add_row(
                escape(word["text"]),
                f"{word['probability']:.2f}",
                ",".join(f"{place:.0f}" for place in word["peak"]),
                ",".join(map(str, word["box"])),
                f"{word['entropy']:.2f}",
                f"{word['coverage']:.0%}",
            )
        console.print(table)
